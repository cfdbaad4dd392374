"use strict";

// The document is of both listeners, and says where they are unless configured otherwise. The page is of the one that it came from: it
// shows the paths that this has, and tries them out there, also below a prefix of a proxy.
(() => {
  const paths = new Set(JSON.parse(document.body.dataset.paths));
  const here = new URL(".", location.href).href.replace(/\/$/, "");

  const narrowed = (spec) => {
    const mine = {};
    const tags = new Set();
    for (const [path, { servers, parameters = [], ...item }] of Object.entries(spec.paths || {})) {
      if (!paths.has(path)) continue;
      mine[path] = {};
      for (const [method, operation] of Object.entries(item)) {
        if (!operation.responses) continue; // no method
        // Swagger UI does not follow the references of a path's own parameters.
        mine[path][method] = { ...operation, parameters: [...parameters, ...(operation.parameters || [])] };
        for (const tag of operation.tags || []) tags.add(tag);
      }
    }
    return { ...spec, paths: mine, servers: [{ url: here, description: "This listener" }], tags: (spec.tags || []).filter((t) => tags.has(t.name)) };
  };

  SwaggerUIBundle({
    url: "openapi.yaml",
    dom_id: "#docs",
    deepLinking: true,
    validatorUrl: null,
    defaultModelsExpandDepth: 0,
    plugins: [() => ({ statePlugins: { spec: { wrapActions: { updateJsonSpec: (update) => (spec) => update(narrowed(spec)) } } } })],
  });
})();
