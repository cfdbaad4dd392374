// What the pages do beyond links and forms: they say when the service does not answer, keep still while nobody looks, and draw the plots.
(() => {
  "use strict";

  const stale = document.getElementById("stale");
  const answered = (ok) => { if (stale) stale.hidden = ok; };

  document.addEventListener("htmx:config:request", (event) => {
    // A page that nobody sees asks for nothing; and what somebody types or marks is not taken from under their hands.
    const live = event.detail.ctx.sourceElement;
    const typing = document.activeElement?.matches?.("input, textarea, select") && live.contains(document.activeElement);
    const marked = window.getSelection()?.type === "Range" && live.contains(window.getSelection().anchorNode);
    if (document.hidden || typing || marked) event.preventDefault();
  });
  document.addEventListener("htmx:after:request", (event) => answered(event.detail.ctx.response.status < 400));
  document.addEventListener("htmx:error", () => answered(false));

  const done = document.getElementById("done");
  if (done) {
    // What was done is said once: not again when the page is loaded anew.
    done.focus({ preventScroll: true });
    const url = new URL(location.href);
    url.searchParams.delete("done");
    history.replaceState(history.state, "", url);
  }
  document.querySelector(".problem")?.scrollIntoView({ block: "center" });

  const section = document.getElementById("plots");
  if (section && window.uPlot) plots(section);

  function plots(section) {
    const every = 2000, keep = 600, dashes = [[], [7, 4], [2, 3], [10, 3, 2, 3]];
    const kinds = ["rate", "lag", "age"];
    const names = [], hidden = new Set(), samples = [];
    let charts = {}, last = 0;

    const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
    const colour = (i) => css("--s" + (i % 8));
    const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
    const show = (v) => (v == null ? "–" : compact.format(v));

    function data(kind) {
      const at = [], columns = names.map(() => []);
      let before = 0;
      for (const s of samples) {
        if (before && s.at - before > 5 * every) {
          // Nobody looked in between: the line has a gap there.
          at.push((before + every) / 1000);
          columns.forEach((c) => c.push(null));
        }
        at.push(s.at / 1000);
        names.forEach((n, i) => columns[i].push(s.consumers[n] ? s.consumers[n][kind] : null));
        before = s.at;
      }
      return [at, ...columns];
    }

    function draw() {
      for (const kind of kinds) {
        const place = document.getElementById("plot-" + kind);
        charts[kind]?.destroy();
        const axis = { stroke: css("--dim"), grid: { stroke: css("--line"), width: 1 }, ticks: { stroke: css("--line"), width: 1 }, font: "12px system-ui, sans-serif" };
        charts[kind] = new uPlot({
          width: place.clientWidth, height: 170, legend: { show: false }, cursor: { y: false, sync: { key: "overview" }, points: { size: 6 } },
          scales: {
            x: { range: () => { const now = Date.now() / 1000; return [Math.max(now - keep, Math.min(samples[0].at / 1000, now - 120)), now]; } },
            y: { range: (u, min, max) => [0, Math.max(max ?? 0, 1) * 1.1] },
          },
          axes: [
            { ...axis, size: 32, space: 70, values: (u, ticks, axis, space, step) => ticks.map((t) => new Date(t * 1000).toISOString().slice(11, step < 60 ? 19 : 16)) },
            { ...axis, size: 52, values: (u, ticks) => ticks.map(show) },
          ],
          series: [{}, ...names.map((label, i) => ({ label, show: !hidden.has(label), stroke: colour(i), width: 2, dash: dashes[Math.floor(i / 2) % 4], points: { show: false }, spanGaps: false }))],
          hooks: { setCursor: [(u) => legend(u.cursor.idx)] },
        }, data(kind), place);
      }
      buttons();
    }

    function buttons() {
      const list = document.getElementById("legend");
      list.replaceChildren(...names.map((name, i) => {
        const item = document.createElement("li"), button = document.createElement("button");
        button.type = "button";
        button.setAttribute("aria-pressed", String(!hidden.has(name)));
        const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
        const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
        for (const [k, v] of Object.entries({ width: 26, height: 10, "aria-hidden": "true" })) svg.setAttribute(k, v);
        for (const [k, v] of Object.entries({ x1: 0, x2: 26, y1: 5, y2: 5, "stroke-width": 3, stroke: colour(i), "stroke-dasharray": dashes[Math.floor(i / 2) % 4].join(" ") })) line.setAttribute(k, v);
        svg.append(line);
        button.append(svg, name);
        button.addEventListener("click", () => {
          if (!hidden.delete(name)) hidden.add(name);
          button.setAttribute("aria-pressed", String(!hidden.has(name)));
          for (const kind of kinds) charts[kind].setSeries(i + 1, { show: !hidden.has(name) });
        });
        item.append(button);
        return item;
      }));
    }

    // The values under the cursor, at the names of the lines.
    function legend(at) {
      names.forEach((name, i) => {
        const item = document.getElementById("legend").children[i];
        if (!item) return;
        const values = kinds.map((kind) => charts[kind]?.data[i + 1]?.[at]);
        item.firstChild.title = at == null ? "" : `${show(values[0])}/s, lag ${show(values[1])}, oldest ${show(values[2])} s`;
      });
    }

    async function ask() {
      if (document.hidden) return;
      let response;
      try {
        response = await fetch(section.dataset.source + "?after=" + last, { signal: AbortSignal.timeout(20000) });
      } catch {
        return answered(false);
      }
      if (response.redirected) return location.reload(); // the session has ended
      answered(response.ok);
      if (!response.ok) return;
      const { samples: more } = await response.json();
      if (!more.length) return;
      samples.push(...more);
      last = more[more.length - 1].at;
      while (samples.length && last - samples[0].at > keep * 1000) samples.shift();
      const now = Object.keys(more[more.length - 1].consumers).sort();
      section.hidden = false;
      if (now.join() !== names.join() || !charts.rate) {
        names.splice(0, names.length, ...now);
        draw();
      } else {
        for (const kind of kinds) charts[kind].setData(data(kind));
      }
    }

    async function again() {
      await ask();
      setTimeout(again, every);
    }
    again();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => charts.rate && draw());
    new ResizeObserver(() => {
      for (const kind of kinds) charts[kind]?.setSize({ width: document.getElementById("plot-" + kind).clientWidth, height: 170 });
    }).observe(section);
  }
})();
