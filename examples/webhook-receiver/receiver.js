// A receiver of webhooks: it verifies who sent them, takes each event once, and answers when it has it.
//
//   npm ci && WEBHOOK_SECRET=whsec_… PORT=9000 npm start
import { createServer } from "node:http";
import { Webhook } from "standardwebhooks";

const webhook = new Webhook(process.env.WEBHOOK_SECRET ?? "");
const most = 2 * 1024 * 1024; // an event has a megabyte of data at most

// What was taken. A real receiver keeps the ids where it keeps what it makes of the events, and writes both in one transaction.
const taken = new Set();

async function read(request) {
  const chunks = [];
  let size = 0;
  for await (const chunk of request) {
    size += chunk.length;
    if (size > most) return null;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8"); // as it came: the signature is of these bytes
}

async function receive(request) {
  if (request.method !== "POST") return 405;
  const body = await read(request);
  if (body === null) return 413;
  let event;
  try {
    event = webhook.verify(body, request.headers); // throws where it is not signed, or older than five minutes
  } catch {
    return 401;
  }
  const again = taken.has(event.id);
  taken.add(event.id);
  console.log(JSON.stringify({ id: event.id, type: event.type, key: event.subject, again }));
  return 204; // anything but 2xx has it sent again
}

const server = createServer(async (request, response) => {
  response.writeHead(await receive(request).catch(() => 500)).end();
});
server.listen(Number(process.env.PORT ?? 9000), "127.0.0.1", () => console.log(`listening on ${server.address().port}`));
