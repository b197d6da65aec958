
/** Kinds of fields, by what they are asked for. */
const area = (id, label, value, rows = 3, hint = "") => ({id, label, value, rows, hint});
const lines = text => text.split("\n").map(line => line.trim()).filter(Boolean);

/** Of each task: its fields, the body that they make, and how its reply is shown. */
const TASKS = {
  "feature-extraction": {
    fields: () => [area("text", "Text", "The quick brown fox jumps over the lazy dog."), {id: "prompt_name", label: "Prompt", prompts: true}],
    body: ({text, prompt_name}) => ({inputs: text, ...(prompt_name ? {parameters: {prompt_name}} : {})}),
    show: (reply, values, model) => showFeatures(reply, model.model_id),
  },
  "sentence-similarity": {
    fields: () => [
      area("source", "Sentence", "A man is eating pasta.", 2),
      area("sentences", "Others", "Someone is having a meal.\nA woman plays the violin.\nThe pasta was cold.", 4, "One on each line"),
    ],
    body: ({source, sentences}) => ({inputs: {source_sentence: source, sentences: lines(sentences)}}),
    show: (reply, {sentences}) => bars("Similarities", reply.map((value, place) => ({name: lines(sentences)[place], value})), ["Sentence", "Cosine"]),
  },
  "text-classification": {
    fields: () => [
      area("text", "Text", "The food was wonderful and the staff were kind."),
      area("pair", "Second text", "", 2, "Only for models that were trained on pairs"),
    ],
    body: ({text, pair}) => ({inputs: pair ? {text, text_pair: pair} : text}),
    show: reply => showLabels(reply[0]),
  },
  "zero-shot-classification": {
    fields: () => [
      area("text", "Text", "My parcel has not arrived yet."),
      area("labels", "Labels", "delivery\npayment\npraise", 3, "One on each line"),
      {id: "multi", label: "Several labels may hold", check: true},
    ],
    body: ({text, labels, multi}) => ({inputs: text, parameters: {candidate_labels: lines(labels), multi_label: multi}}),
    show: reply => showLabels(reply),
  },
  "token-classification": {
    fields: () => [
      area("text", "Text", "Ada Lovelace lived in London and worked with Charles Babbage.", 4),
      {id: "strategy", label: "Tokens become entities by", options: ["simple", "first", "average", "max", "none"]},
    ],
    body: ({text, strategy}) => ({inputs: text, parameters: {aggregation_strategy: strategy}}),
    show: (reply, {text}) => showEntities(reply, text),
  },
  "question-answering": {
    fields: () => [
      area("question", "Question", "Where did Ada live?", 2),
      area("context", "Context", "Ada Lovelace lived in London and wrote about the Analytical Engine.", 5),
      {id: "top_k", label: "Answers", number: true, value: 3},
    ],
    body: ({question, context, top_k}) => ({inputs: {question, context}, parameters: {top_k: Number(top_k)}}),
    show: (reply, {context}) => showAnswers(reply, context),
  },
  "fill-mask": {
    fields: model => {
      const mask = model.model_type?.masked_lm?.mask ?? "[MASK]";
      return [area("text", "Text", `Paris is the ${mask} of France.`, 3, `Write ${mask} where a token is to be found`)];
    },
    body: ({text}) => ({inputs: text}),
    show: reply => showProposals(reply),
  },
  "text-ranking": {
    fields: () => [
      area("query", "Query", "How do I reset my password?", 2),
      area("texts", "Texts", "Choose \"Forgot password\" on the sign-in page.\nOur office is open on weekdays.\nPasswords have at least eight characters.", 4, "One on each line"),
    ],
    body: ({query, texts}) => ({inputs: {query, texts: lines(texts)}}),
    show: (reply, {texts}) => bars("Ranking", reply.map(({index, score}) => ({name: lines(texts)[index], value: score})), ["Text", "Score"]),
  },
};

let models = [];
/** Counts requests, so that a slow answer does not replace a later one. */
let asked = 0;

const model = () => models[byId("model").selectedIndex];
const task = () => TASKS[byId("task").value];

/** The input of a field. */
function input({id, label, value = "", rows, hint, options, check, number, prompts}) {
  const names = prompts ? ["", ...model().prompts ?? []] : options;
  if (prompts && names.length === 1) return null;
  const common = {id: `field-${id}`, name: id, oninput: showCurl};
  if (check) return el("div", {}, el("label", {}, el("input", {...common, type: "checkbox"}), label));
  if (hint) common["aria-describedby"] = `hint-${id}`;
  const control = names ? el("select", common, names.map(name => el("option", {value: name}, name || "the model's own")))
    : number ? el("input", {...common, type: "number", min: 1, max: 100, value})
    : el("textarea", {...common, rows, spellcheck: "false"}, value);
  return el("div", {}, el("label", {for: common.id}, label), control, hint ? el("p", {class: "hint", id: common["aria-describedby"]}, hint) : null);
}

const values = () => Object.fromEntries([...byId("fields").querySelectorAll("[name]")]
  .map(field => [field.name, field.type === "checkbox" ? field.checked : field.value]));

/** Where the request goes, and its body. */
function request() {
  const body = JSON.stringify(task().body(values()));
  return {path: `/models/${inPath(model().model_id)}/pipeline/${byId("task").value}`, body};
}

function showCurl() {
  const {path, body} = request();
  byId("curl").textContent = curlLine("POST", path, body);
  byId("curl-note").hidden = !apiKey;
}

function showFields() {
  byId("fields").replaceChildren(...task().fields(model()).map(input).filter(Boolean));
  showCurl();
}

function showTasks() {
  const told = model().tasks.filter(name => name in TASKS);
  // What a model does is not known before it was loaded; asking it loads it.
  const known = told.length ? told : Object.keys(TASKS);
  byId("task").replaceChildren(...known.map(name => el("option", {value: name}, name)));
  const link = byId("report-link");
  link.hidden = !model().report;
  link.href = `/report?model=${encodeURIComponent(model().model_id)}`;
  showFields();
}

/** Where the time of an answer went: what the server tells, and what is left for the way to it and back. */
function showTiming(header, took) {
  const told = Object.fromEntries((header ?? "").split(",").map(part => {
    const [name, ...rest] = part.trim().split(";");
    return [name, Number(/dur=([\d.]+)/.exec(rest.join(";"))?.[1] ?? 0)];
  }));
  byId("timing").hidden = !("total" in told);
  if (!("total" in told)) return;
  const {tokenization = 0, queue = 0, inference = 0, total} = told;
  const parts = [
    ["tokenise", "Tokenise", tokenization],
    ["queue", "Queue", queue],
    ["compute", "Compute", inference],
    ["reply", "Reply", Math.max(0, total - tokenization - queue - inference)],
  ];
  const stretch = ([name, , time]) => {
    const span = el("span", {class: name});
    span.style.flex = `${Math.max(1e3 * time / total, 1)} 1 0`;
    return span;
  };
  byId("split").replaceChildren(...parts.map(stretch));
  const between = ["network", "Network and browser", Math.max(0, took - total)];
  byId("parts").replaceChildren(...[...parts, between].map(([name, label, time]) => el("li", {"data-part": name},
    el("span", {class: `swatch ${name}`, "aria-hidden": "true"}), `${label} `, el("b", {}, milliseconds(time)))));
}

function showError(status, message) {
  byId("result").replaceChildren(el("div", {class: "error", role: "alert"}, el("strong", {}, status), el("p", {}, message)));
}

async function run() {
  const number = ++asked, {path, body} = request(), sent = {values: values(), model: model(), task: task()};
  byId("run").disabled = true;
  byId("status").textContent = "Asking…";
  try {
    const reply = await ask("POST", path, body);
    const shown = reply.status === 200 ? await sent.task.show(JSON.parse(reply.text), sent.values, sent.model) : null;
    if (number !== asked) return;
    byId("status").textContent = reply.status === 200 ? `Answered in ${milliseconds(reply.took)}` : `Refused with ${reply.status}`;
    if (shown) byId("result").replaceChildren(...[shown].flat().filter(Boolean));
    else showError(`${reply.status}`, errorMessage(reply.text));
    showTiming(reply.headers.get("server-timing"), reply.took);
    byId("raw").hidden = false;
    byId("json").textContent = reply.text;
  } catch (error) {
    byId("status").textContent = "";
    showError("No answer", `The server could not be asked: ${error.message}`);
  } finally {
    if (number === asked) byId("run").disabled = false;
  }
}

/** A model of each name; of several versions one that is loaded. */
function differentModels(all) {
  const byName = new Map();
  for (const model of all) {
    if (!byName.has(model.model_id) || isLoaded(model)) byName.set(model.model_id, model);
  }
  return [...byName.values()];
}

const isLoaded = ({state}) => state === undefined || state === "ready";

const modelName = model => isLoaded(model) ? model.model_id
  : `${model.model_id} (${model.state === "unavailable" ? "not loaded" : model.state})`;

function begin(reply) {
  if (reply.status !== 200) {
    byId("summary").textContent = `The server does not tell what it serves: ${errorMessage(reply.text)}`;
    return;
  }
  const info = JSON.parse(reply.text);
  models = differentModels(info.models);
  byId("version").textContent = info.version;
  byId("model").replaceChildren(...models.map(model => el("option", {value: model.model_id}, modelName(model))));
  const [only] = models;
  byId("summary").textContent = models.length === 1 && only.architecture
    ? `${only.model_id}: ${only.architecture}, ${only.model_dtype}, up to ${only.max_input_length} tokens.`
    : `${models.length} models are served here.`;
  if (!models.length) return;
  byId("run").disabled = false;
  showTasks();
}

byId("model").addEventListener("change", showTasks);
byId("task").addEventListener("change", showFields);
byId("ask-form").addEventListener("submit", event => {
  event.preventDefault();
  if (models.length) run();
});
byId("ask-form").addEventListener("keydown", event => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    byId("ask-form").requestSubmit();
  }
});
byId("copy").addEventListener("click", event => copyText(byId("curl").textContent, event.target));
withKey("/info", begin);
watchMetrics();
