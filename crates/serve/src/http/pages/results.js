
/** Rows of a name, a bar and a number. Negative ones go to the left where there are any. */
function bars(caption, rows, names = ["Label", "Score"]) {
  const numbers = rows.map(row => row.value);
  const signed = numbers.some(value => value < 0);
  const largest = Math.max(1e-12, ...numbers.map(Math.abs));
  const whole = largest <= 1 ? 1 : largest;
  const bar = value => {
    const fill = el("div", {class: value < 0 ? "fill negative" : "fill"});
    const share = Math.abs(value) / whole * (signed ? 50 : 100);
    fill.style.left = signed ? `${value < 0 ? 50 - share : 50}%` : "0";
    fill.style.width = `${share}%`;
    return el("div", {class: "track", "aria-hidden": "true"}, signed ? el("div", {class: "zero"}) : null, fill);
  };
  const body = rows.map(({name, note, value}) => el("tr", {},
    el("th", {scope: "row"}, name, note ? el("span", {class: "hint"}, note) : null),
    el("td", {}, bar(value)),
    el("td", {class: "number"}, figure(value))));
  const heads = [names[0], "", names[1]].map(name => el(name ? "th" : "td", name ? {scope: "col"} : {}, name));
  return el("table", {class: "scores"}, el("caption", {class: "unseen"}, caption),
    el("thead", {class: "unseen"}, el("tr", {}, heads)), el("tbody", {}, body));
}

/** A text in which parts are marked; places count characters, not the units of JavaScript's strings. */
function markedText(text, marks) {
  const characters = Array.from(text), out = [];
  let end = 0;
  for (const {start, stop, kind, tone} of [...marks].sort((a, b) => a.start - b.start)) {
    if (start < end) continue;
    out.push(characters.slice(end, start).join(""));
    out.push(el("mark", {class: `tone-${tone}`}, characters.slice(start, stop).join(""),
      kind ? el("span", {class: "kind"}, kind) : null));
    end = stop;
  }
  out.push(characters.slice(end).join(""));
  return el("p", {class: "marked"}, out);
}

const facts = pairs => el("dl", {class: "facts"},
  pairs.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));

/** The colour between no and all of what a value may be, as the sign has it. */
function heatColour(share) {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const ground = dark ? [29, 36, 47] : [244, 246, 249];
  const tone = share < 0 ? (dark ? [240, 166, 70] : [192, 100, 5]) : (dark ? [106, 163, 255] : [29, 79, 215]);
  const part = Math.min(1, Math.abs(share));
  return ground.map((from, place) => Math.round(from + (tone[place] - from) * part));
}

/** A picture of rows of values, a cell each. */
function heat(rows, height, label) {
  const columns = Math.max(...rows.map(row => row.length));
  const canvas = el("canvas", {width: columns, height: rows.length, role: "img", "aria-label": label});
  canvas.style.height = `${height}px`;
  const largest = rows.reduce((most, row) => row.reduce((most, value) => Math.max(most, Math.abs(value)), most), 1e-12);
  const draw = () => {
    const context = canvas.getContext("2d"), image = context.createImageData(columns, rows.length);
    rows.forEach((row, y) => row.forEach((value, x) => {
      image.data.set([...heatColour(value / largest), 255], 4 * (y * columns + x));
    }));
    context.putImageData(image, 0, 0);
  };
  draw();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  const ramp = el("canvas", {width: 65, height: 1, "aria-hidden": "true"});
  const context = ramp.getContext("2d"), image = context.createImageData(65, 1);
  for (let x = 0; x < 65; x++) image.data.set([...heatColour((x - 32) / 32), 255], 4 * x);
  context.putImageData(image, 0, 0);
  const scale = el("p", {class: "ramp"}, figure(-largest, 3), ramp, figure(largest, 3));
  return el("div", {class: "heat"}, canvas, scale);
}

const norm = row => Math.hypot(...row);

/** A vector in rows of up to 64 cells. */
function showVector(vector) {
  const rows = [];
  for (let start = 0; start < vector.length; start += 64) rows.push(vector.slice(start, start + 64));
  const label = `The ${vector.length} values of the vector as colours, from left to right and top to bottom`;
  const extremes = vector.reduce(([low, high], value) => [Math.min(low, value), Math.max(high, value)], [Infinity, -Infinity]);
  return [
    facts([["Dimension", String(vector.length)], ["Norm", figure(norm(vector))],
      ["Smallest", figure(extremes[0])], ["Largest", figure(extremes[1])]]),
    heat(rows, Math.min(150, Math.max(28, rows.length * 14)), label),
  ];
}

/** A vector per token: a row each. */
function showTokenVectors(rows) {
  const label = `The vectors of ${rows.length} tokens as colours, a row for each token`;
  const norms = rows.map(norm);
  return [
    facts([["Tokens", String(rows.length)], ["Dimension", String(rows[0].length)],
      ["Norms", `${figure(Math.min(...norms))} to ${figure(Math.max(...norms))}`]]),
    heat(rows, Math.min(320, Math.max(28, rows.length * 14)), label),
  ];
}

/** The heaviest tokens of a sparse vector, by their names where the server tells them. */
async function showSparse(weights, model) {
  const best = [...weights].sort((a, b) => b.value - a.value).slice(0, 20);
  const body = {ids: best.map(weight => [weight.index]), model, skip_special_tokens: false};
  const reply = best.length ? await ask("POST", "/decode", JSON.stringify(body)) : null;
  const words = reply?.status === 200 ? JSON.parse(reply.text) : [];
  const rows = best.map(({index, value}, place) => ({name: words[place] ?? `token ${index}`, note: `token ${index}`, value}));
  return [facts([["Tokens with a weight", String(weights.length)]]), bars("Heaviest tokens", rows, ["Token", "Weight"])];
}

/** A tone for each kind of entity. */
function tones(kinds) {
  const known = [...new Set(kinds)];
  return kind => known.indexOf(kind) % 6;
}

function showEntities(entities, text) {
  const kindOf = entity => entity.entity_group ?? entity.entity;
  const tone = tones(entities.map(kindOf));
  const marks = entities.map(entity => (
    {start: entity.start, stop: entity.end, kind: kindOf(entity), tone: tone(kindOf(entity))}));
  const rows = entities.map(entity => ({name: entity.word, note: kindOf(entity), value: entity.score}));
  return [markedText(text, marks), rows.length ? bars("Entities", rows, ["Entity", "Score"])
    : el("p", {class: "muted"}, "There is no entity in this text.")];
}

function showAnswers(reply, context) {
  const answers = Array.isArray(reply) ? reply : [reply];
  const best = answers[0];
  const mark = best && best.end > best.start ? [{start: best.start, stop: best.end, tone: 0}] : [];
  const rows = answers.map(({answer, score, start, end}) => (
    {name: answer || "no answer", note: `characters ${start} to ${end}`, value: score}));
  return [markedText(context, mark), bars("Answers", rows, ["Answer", "Score"])];
}

function showProposals(reply) {
  const lists = Array.isArray(reply[0]) ? reply : [reply];
  return lists.flatMap((list, place) => [
    lists.length > 1 ? el("h3", {}, `Mask ${place + 1}`) : null,
    bars(`Proposals for mask ${place + 1}`, list.map(({token_str, sequence, score}) => (
      {name: token_str, note: sequence, value: score})), ["Token", "Probability"]),
  ]);
}

const showLabels = scores => bars("Labels", scores.map(({label, score}) => ({name: label, value: score})));

/** What each kind of reply to feature-extraction looks like. */
function showFeatures(reply, model) {
  if (typeof reply[0] === "number") return showVector(reply);
  if (typeof reply[0]?.[0]?.[0] === "number") return showTokenVectors(reply[0]);
  return showSparse(reply[0], model);
}
