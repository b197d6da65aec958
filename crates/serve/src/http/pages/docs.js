
let openapi = {};

/** What a reference stands for. */
const resolve = schema => schema?.$ref ? openapi.components.schemas[schema.$ref.split("/").at(-1)] : schema;

/** How deep schemas are written out; below it they are called by name. */
const DEPTH = 7;

/** A schema as a type, in parts: texts, and elements for what has a colour. */
function typeOf(schema, indent = "", depth = 0) {
  const own = resolve(schema);
  const word = text => el("span", {class: "type"}, text);
  if (!own || depth > DEPTH) return [word(schema?.$ref?.split("/").at(-1) ?? "any")];
  const choices = own.anyOf ?? own.oneOf ?? (own.allOf && own.allOf.length === 1 ? own.allOf : null);
  if (choices) return join(choices.map(choice => typeOf(choice, indent, depth + 1)), " | ");
  if (own.allOf) return join(own.allOf.map(part => typeOf(part, indent, depth + 1)), " & ");
  if ("const" in own) return [el("span", {class: "fixed"}, JSON.stringify(own.const))];
  if (own.enum) return join(own.enum.map(value => [el("span", {class: "fixed"}, JSON.stringify(value))]), " | ");
  const types = [own.type ?? (own.properties ? "object" : "any")].flat();
  return join(types.map(type => {
    if (type === "array") {
      const items = own.items ? typeOf(own.items, indent, depth + 1) : [word("any")];
      return items.includes(" | ") ? ["(", ...items, ")[]"] : [...items, "[]"];
    }
    if (type === "object" && own.properties) return objectType(own, indent, depth);
    return [word(type)];
  }), " | ");
}

function objectType(schema, indent, depth) {
  const inner = `${indent}  `, parts = ["{\n"];
  for (const [name, property] of Object.entries(schema.properties)) {
    const note = property.description ?? resolve(property)?.description;
    if (note) parts.push(inner, el("span", {class: "note"}, `// ${note.replaceAll("\n", " ")}`), "\n");
    const optional = schema.required?.includes(name) ? "" : "?";
    parts.push(`${inner}${name}${optional}: `, ...typeOf(property, inner, depth + 1), "\n");
  }
  return [...parts, indent, "}"];
}

const join = (lists, between) => lists.flatMap((list, place) => place ? [between, ...list] : list);

const block = (title, ...children) => el("section", {}, el("h3", {}, title), children);

const schemaBlock = schema => el("pre", {class: "schema", tabindex: "0"}, typeOf(schema));

/** A route: folded, and written out when it is first unfolded. */
function route(path, method, operation) {
  const summary = el("summary", {}, el("span", {class: `method ${method}`}, method.toUpperCase()),
    el("span", {class: "path"}, path), el("span", {class: "muted small"}, operation.summary));
  const details = el("details", {class: "route", id: operation.operationId}, summary);
  details.addEventListener("toggle", () => {
    if (details.open && details.childElementCount === 1) details.append(inside(path, method, operation));
  });
  details.dataset.words = `${method} ${path} ${operation.summary} ${operation.description ?? ""}`.toLowerCase();
  return details;
}

function inside(path, method, operation) {
  const body = operation.requestBody?.content?.["application/json"];
  const parts = [];
  if (operation.description) parts.push(el("p", {}, operation.description.replaceAll("`", "")));
  parts.push(tryIt(path, method, operation, body));
  if (body) parts.push(block(operation.requestBody.required ? "Body" : "Body, which may be left out", schemaBlock(body.schema)));
  for (const [media, content] of Object.entries(operation.responses["200"]?.content ?? {})) {
    parts.push(block(`Answer, ${media}`, schemaBlock(content.schema)));
  }
  parts.push(block("Statuses", answers(operation.responses)));
  const refused = Object.entries(operation.responses).find(([status]) => status >= "400")?.[1];
  if (refused) parts.push(block("Errors", schemaBlock(refused.content["application/json"].schema)));
  return el("div", {class: "inside"}, parts);
}

function answers(responses) {
  const rows = Object.entries(responses).map(([status, {description}]) => el("tr", {}, el("td", {}, status), el("td", {}, description)));
  return el("div", {class: "scroll"}, el("table", {class: "answers"}, el("caption", {class: "unseen"}, "Statuses"),
    el("thead", {class: "unseen"}, el("tr", {}, el("th", {scope: "col"}, "Status"), el("th", {scope: "col"}, "Meaning"))), el("tbody", {}, rows)));
}

/** The body to begin with: the first example, or the least that can be sent. */
function firstBody(body, required) {
  const example = Object.values(body?.examples ?? {})[0];
  if (example) return pretty(JSON.stringify(example.value));
  return required ? "{}" : "";
}

/** A choice of examples, where there are several. */
function exampleChoice(id, examples, text, show) {
  const names = Object.keys(examples ?? {});
  if (names.length < 2) return null;
  const choose = event => {
    text.value = pretty(JSON.stringify(examples[event.target.value].value));
    show();
  };
  const choice = el("select", {id: `${id}-example`, onchange: choose}, names.map(name => el("option", {value: name}, name)));
  return el("div", {}, el("label", {for: choice.id}, "example"), choice);
}

/** A request that can be changed and sent, and its line for a shell. */
function tryIt(path, method, operation, body) {
  const id = operation.operationId, asked = (operation.parameters ?? []).filter(parameter => parameter.in !== "header");
  const fields = asked.map(({name, schema, example, required, description}, place) => {
    const choices = schema?.enum;
    const field = choices ? el("select", {}, choices.map(choice => el("option", {value: choice, selected: choice === example}, choice)))
      : el("input", {value: required ? example ?? "" : "", spellcheck: "false", placeholder: required ? null : example});
    dress(field, {id: `${id}-${place}`, title: description, oninput: () => show()}, []);
    return field;
  });
  const labelled = fields.map((field, place) => el("div", {}, el("label", {for: field.id}, asked[place].name), field));
  const sample = firstBody(body, operation.requestBody?.required), rows = Math.min(16, sample.split("\n").length + 1);
  const text = body ? el("textarea", {id: `${id}-body`, rows, spellcheck: "false", oninput: () => show()}, sample) : null;
  const choice = exampleChoice(id, body?.examples, text, () => show());
  const line = el("pre", {tabindex: "0"}), status = el("span", {class: "small muted", role: "status"});
  const reply = el("pre", {tabindex: "0", hidden: true});
  const target = () => {
    let full = path;
    const query = new URLSearchParams();
    asked.forEach((parameter, place) => {
      const value = fields[place].value;
      if (parameter.in === "path") full = full.replace(`{${parameter.name}}`, inPath(value));
      else if (value) query.set(parameter.name, value);
    });
    return query.size ? `${full}?${query}` : full;
  };
  const content = () => text && text.value !== "" ? text.value : method === "post" ? "" : null;
  const show = () => { line.textContent = curlLine(method.toUpperCase(), target(), content()); };
  const send = async () => {
    status.textContent = "Asking…";
    try {
      const answer = await ask(method.toUpperCase(), target(), content());
      status.textContent = `${answer.status} in ${milliseconds(answer.took)}`;
      reply.textContent = pretty(answer.text);
      reply.hidden = false;
    } catch (error) {
      status.textContent = `The server could not be asked: ${error.message}`;
    }
  };
  const copy = el("button", {type: "button", class: "quiet", onclick: event => copyText(line.textContent, event.target)}, "Copy");
  byId("key").addEventListener("input", show);
  show();
  return el("div", {class: "asking"},
    el("form", {class: "try", onsubmit: event => { event.preventDefault(); send(); }},
      labelled.length || choice ? el("div", {class: "parameters"}, labelled, choice) : null,
      text ? el("div", {}, el("label", {for: text.id}, "Body"), text) : null,
      el("div", {class: "run"}, el("button", {class: "primary", type: "submit"}, "Send"), status)),
    reply,
    el("div", {class: "heading"}, el("h3", {}, "From a shell"), copy), line);
}

/** JSON with indents, where lists of numbers stay in a line; other texts as they are. */
function pretty(text) {
  try {
    const indented = JSON.stringify(JSON.parse(text), null, 2);
    const flat = indented.replace(/\[[\s\d.,eE+-]+\]/g, numbers => numbers.replace(/\s+/g, " "));
    return flat.length < 50000 ? flat : text;
  } catch {
    return text;
  }
}

function family(tag, place) {
  const routes = Object.entries(openapi.paths).flatMap(([path, methods]) => Object.entries(methods)
    .filter(([, operation]) => operation.tags.includes(tag.name))
    .map(([method, operation]) => route(path, method, operation)));
  const section = el("section", {class: "family", id: `family-${place}`, "aria-labelledby": `family-${place}-title`},
    el("h2", {id: `family-${place}-title`}, tag.name), el("p", {class: "muted small"}, tag.description.replaceAll("`", "")), routes);
  byId("families").append(el("li", {}, el("a", {href: `#${section.id}`}, tag.name)));
  return section;
}

/** Leaves the routes in which every word is found. */
function filter() {
  const words = byId("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const section of document.querySelectorAll(".family")) {
    const routes = [...section.querySelectorAll(".route")];
    routes.forEach(route => { route.hidden = !words.every(word => route.dataset.words.includes(word)); });
    section.hidden = routes.every(route => route.hidden);
  }
}

function unfold() {
  const wanted = location.hash && byId(decodeURIComponent(location.hash.slice(1)));
  if (wanted instanceof HTMLDetailsElement) wanted.open = true;
  wanted?.scrollIntoView?.();
}

async function begin() {
  const reply = await ask("GET", "/openapi.json").catch(error => ({status: 0, text: error.message}));
  if (reply.status !== 200) {
    byId("lead").textContent = `The document can't be read: ${errorMessage(reply.text)}`;
    return;
  }
  openapi = JSON.parse(reply.text);
  byId("version").textContent = openapi.info.version;
  byId("lead").textContent = openapi.info.description.replaceAll("`", "");
  byId("key-field").hidden = !openapi.security;
  byId("routes").append(...openapi.tags.map(family));
  unfold();
}

byId("key-form").addEventListener("submit", event => event.preventDefault());
byId("key").addEventListener("input", event => { apiKey = event.target.value; }, {capture: true});
byId("filter").addEventListener("input", filter);
addEventListener("hashchange", unfold);
begin();
