// The page at /-/docs: lists the operations of one OpenAPI document and calls them.
"use strict";

// Where a proxy has mounted the gateway; all addresses here are relative to this page or begin with it.
const mount = location.pathname.slice(0, -"/-/docs".length);
const operations = document.getElementById("operations");
const chooser = document.getElementById("application");

function make(tag, properties, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

async function json(url) {
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(`${url}: ${answer.status} ${await answer.text()}`);
  return answer.json();
}

async function start() {
  const { applications } = await json("openapi/");
  if (!applications.length) {
    operations.replaceChildren(make("p", { textContent: "No application with typed methods is deployed." }));
    return;
  }
  chooser.replaceChildren(...applications.map((name) => make("option", { value: name, textContent: name })));
  chooser.value = new URLSearchParams(location.search).get("application") ?? applications[0];
  chooser.onchange = () => show(chooser.value).catch(report);
  await show(chooser.value);
}

async function show(application) {
  const url = `openapi/${encodeURIComponent(application)}.json`;
  document.getElementById("document").href = url;
  const api = await json(url);
  const sections = new Map(api.tags.map((tag) => [tag.name, section(tag)]));
  for (const [path, methods] of Object.entries(api.paths))
    for (const [method, operation] of Object.entries(methods))
      sections.get(operation.tags[0]).append(entry(api, application, path, method, operation));
  operations.replaceChildren(...sections.values());
}

function section(tag) {
  const description = make("p", { textContent: tag.description ?? "" });
  return make("section", {}, make("h2", { textContent: tag.name }), description);
}

function entry(api, application, path, method, operation) {
  const details = make("details", {}, make("summary", {}, make("b", { textContent: method }), path));
  details.ontoggle = () => {
    if (details.open && details.children.length === 1)
      details.append(form(api, application, path, method, operation));
  };
  return details;
}

function form(api, application, path, method, operation) {
  const result = make("pre", { hidden: true });
  const inputs = (operation.parameters ?? []).map((parameter) => ({ parameter, input: make("input", {}) }));
  const content = operation.requestBody?.content ?? {};
  const types = Object.keys(content);
  const body = types.length ? make("textarea", { value: sampleBody(api, content, types[0]), spellcheck: false }) : null;
  const accepted = Object.keys(operation.responses["200"].content);
  const accept = make("select", {}, ...accepted.map((type) => make("option", { value: type, textContent: type })));
  const page = make("form", {});
  page.append(make("p", { textContent: operation.description ?? "" }));
  for (const { parameter, input } of inputs) {
    const note = make("small", { textContent: `${parameter.in} · ${typeName(parameter.schema)} ${parameter.description ?? ""}` });
    input.required = parameter.required ?? false;
    page.append(make("label", {}, `${parameter.name} `, note, input));
  }
  if (body) page.append(make("label", {}, `Body, ${types[0]}`, body));
  if (accepted.length > 1) page.append(make("label", {}, "Answer as ", accept));
  page.append(make("button", { textContent: "Send" }), result);
  page.onsubmit = (event) => {
    event.preventDefault();
    const headers = { accept: accept.value || "*/*", application };
    if (body) headers["content-type"] = types[0];
    call(mount + fill(path, inputs), { method: method.toUpperCase(), headers, body: body?.value }, result);
  };
  return page;
}

function fill(path, inputs) {
  const query = new URLSearchParams();
  for (const { parameter, input } of inputs) {
    if (parameter.in === "path")
      path = path.replace(`{${parameter.name}}`, () => encoded(parameter, input.value));
    else if (input.value !== "")
      for (const value of parameter.schema.type === "array" ? input.value.split(",") : [input.value])
        query.append(parameter.name, value);
  }
  return query.size ? `${path}?${query}` : path;
}

function encoded(parameter, value) {
  if (!parameter.description?.includes("May hold slashes.")) return encodeURIComponent(value);
  return value.split("/").map(encodeURIComponent).join("/");
}

async function call(url, request, result) {
  result.hidden = false;
  result.textContent = `${request.method} ${url}\n`;
  try {
    const answer = await fetch(url, request);
    result.textContent += `${answer.status} ${answer.headers.get("content-type") ?? ""}\n\n`;
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let part = await reader.read(); !part.done; part = await reader.read()) result.textContent += part.value;
  } catch (error) {
    result.textContent += `\n${error}`;
  }
}

function typeName(schema) {
  return schema.$ref?.split("/").pop() ?? (schema.type === "array" ? "several, with commas" : schema.format ?? schema.type ?? "");
}

function sampleBody(api, content, type) {
  const schema = content[type].schema;
  if (!schema) return "";
  const value = sample(api, schema, 0);
  return type === "application/json" ? JSON.stringify(value, null, 2) : JSON.stringify(value);
}

function sample(api, schema, depth) {
  if (schema.$ref) return sample(api, api.components.schemas[schema.$ref.split("/").pop()], depth);
  if (schema.anyOf) return sample(api, schema.anyOf[0], depth);
  if (schema.enum) return schema.enum[0];
  switch (schema.type) {
    case "object": {
      const properties = depth < 2 ? Object.entries(schema.properties ?? {}) : [];
      const single = properties.filter(([, each]) => !each.description?.includes("Not together with"));
      return Object.fromEntries(single.map(([name, each]) => [name, sample(api, each, depth + 1)]));
    }
    case "array": return [];
    case "integer":
    case "number": return 0;
    case "boolean": return false;
    case "string": return { int64: "0", uint64: "0", "date-time": "2030-01-01T00:00:00Z" }[schema.format]
      ?? (schema.pattern ? "0s" : "");
  }
  return null;
}

function report(error) {
  operations.replaceChildren(make("p", { textContent: String(error) }));
}

start().catch(report);
