// Asks running Centuple servers with the clients of JavaScript, and compares the answers with expected values.
//
//     node check_clients.mjs EMBED_URL TASKS_URL FULL_URL expected.json
//
// The servers and expected.json are those of check_clients.py. Prints each check; the first wrong answer ends the script
// with exit code 1.

import { readFileSync } from "node:fs";
import { isDeepStrictEqual } from "node:util";

import { InferenceClient } from "@huggingface/inference";
import OpenAI from "openai";

// The golden replies have 6 digits.
const GOLDEN_TOLERANCE = 1e-4;
let checks = 0;

function that(what, holds) {
  if (!holds) throw new Error(`WRONG ${what}`);
  console.log(`ok    ${what}`);
  checks += 1;
}

// Why an answer is not the expected one; what the client leaves out is not compared.
function difference(answer, expected, tolerance) {
  if (typeof expected === "number") {
    const near = Math.abs(answer - expected) <= tolerance * Math.max(1, Math.abs(expected));
    return near ? undefined : `${answer} instead of ${expected}`;
  }
  if (Array.isArray(expected)) {
    if (answer?.length !== expected.length) return `${answer?.length} elements instead of ${expected.length}`;
    return expected.map((one, index) => difference(answer[index], one, tolerance)).find((one) => one !== undefined);
  }
  if (expected !== null && typeof expected === "object") {
    const keys = Object.keys(expected).filter((key) => key in answer);
    if (keys.length === 0) return `${JSON.stringify(answer)} has none of ${Object.keys(expected)}`;
    return keys.map((key) => difference(answer[key], expected[key], tolerance)).find((one) => one !== undefined);
  }
  return isDeepStrictEqual(answer, expected) ? undefined : `${JSON.stringify(answer)} instead of ${expected}`;
}

function same(what, answer, expected, tolerance) {
  const found = difference(answer, expected, tolerance);
  that(found === undefined ? what : `${what}: ${found}`, found === undefined);
}

function sameBits(what, row, bits) {
  const found = Array.from(new Uint32Array(new Float32Array(row).buffer));
  that(`${what}: the same ${bits.length} numbers`, isDeepStrictEqual(found, bits));
}

// What a promise is rejected with.
async function rejection(what, promise) {
  const answer = await promise.then((value) => ({ value }), (error) => ({ error }));
  that(`${what}: ${answer.error?.message ?? JSON.stringify(answer.value)}`, answer.error !== undefined);
  return answer.error;
}

async function checkOpenAi(url, cases, tolerance) {
  const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
  const model = (await client.models.list()).data[0].id;
  that("openai: models.retrieve", (await client.models.retrieve(model)).id === model);
  const [texts, ids, embeddings] = ["text", "ids", "embedding"].map((key) => cases.map((one) => one[key]));
  const ask = async (input, more) => {
    const reply = await client.embeddings.create({ model, input, ...more });
    that("openai: indices in order", reply.data.every((row, index) => row.index === index));
    return reply.data.map((row) => Array.from(row.embedding));
  };
  same("openai: one text, base64", await ask(texts[0]), embeddings.slice(0, 1), tolerance);
  same("openai: one text, float", await ask(texts[0], { encoding_format: "float" }), embeddings.slice(0, 1), tolerance);
  same("openai: batch of texts", await ask(texts), embeddings, tolerance);
  same("openai: batch of tokens", await ask(ids), embeddings, tolerance);
  const { usage } = await client.embeddings.create({ model, input: texts });
  that("openai: usage", usage.prompt_tokens === ids.flat().length && usage.total_tokens === usage.prompt_tokens);
  const empty = await rejection("openai: the empty text", client.embeddings.create({ model, input: "" }));
  that("openai: BadRequestError", empty instanceof OpenAI.BadRequestError && empty.type === "invalid_request_error");
  const unknown = await rejection("openai: an unknown model", client.models.retrieve("nothing"));
  that("openai: NotFoundError", unknown instanceof OpenAI.NotFoundError);
}

async function checkTasks(url, cases) {
  const methods = {
    "text-classification": "textClassification",
    "token-classification": "tokenClassification",
    "question-answering": "questionAnswering",
    "fill-mask": "fillMask",
    "zero-shot-classification": "zeroShotClassification",
  };
  const asked = {};
  for (const { model, task, body, reply } of cases) {
    const single = typeof body.inputs === "string" || (task === "question-answering" && !Array.isArray(body.inputs));
    // The client's types of token classification know groups only, those of filling masks one mask.
    const ungrouped = task === "token-classification" && body.parameters?.aggregation_strategy === "none";
    const nested = task === "fill-mask" && Array.isArray(reply?.[0]);
    // Without a list of labels it is no request of that task.
    const unlabelled = task === "zero-shot-classification" && !Array.isArray(body.parameters?.candidate_labels);
    if (!(task in methods) || !single || ungrouped || nested || unlabelled) continue;
    const what = `huggingface: ${task} ${JSON.stringify(body).slice(0, 90)}`;
    const promise = new InferenceClient().endpoint(`${url}/models/${model}`)[methods[task]](body);
    if (reply === null) {
      const { httpResponse } = await rejection(what, promise);
      that(`${what}: ${httpResponse.status}`, [400, 422].includes(httpResponse.status));
    } else {
      let expected = task === "text-classification" ? reply[0] : reply;
      // The client gives the best answer only.
      if (task === "question-answering" && Array.isArray(reply)) expected = reply[0];
      same(what, await promise, expected, GOLDEN_TOLERANCE);
    }
    asked[task] = (asked[task] ?? 0) + 1;
  }
  that(`huggingface: asked ${JSON.stringify(asked)}`, isDeepStrictEqual(Object.keys(asked).sort(), Object.keys(methods).sort()));
}

async function checkEmbeddings(url, cases, tolerance) {
  const [texts, embeddings] = ["text", "embedding"].map((key) => cases.map((one) => one[key]));
  const client = new InferenceClient().endpoint(url);
  same("huggingface: featureExtraction", await client.featureExtraction({ inputs: texts[0] }), embeddings[0], tolerance);
  same("huggingface: featureExtraction, batch", await client.featureExtraction({ inputs: texts }), embeddings, tolerance);
  const unit = embeddings.map((row) => row.map((value) => value / Math.hypot(...row)));
  const normalised = await client.featureExtraction({ inputs: texts, normalize: true });
  same("huggingface: featureExtraction, normalised", normalised, unit, tolerance);
  const { id } = (await (await fetch(`${url}/v1/models`)).json()).data[0];
  const inputs = { source_sentence: texts[0], sentences: texts.slice(1) };
  const pipeline = new InferenceClient().endpoint(`${url}/models/${id}/pipeline/sentence-similarity`);
  const cosines = unit.slice(1).map((row) => row.reduce((sum, value, index) => sum + value * unit[0][index], 0));
  same("huggingface: sentenceSimilarity", await pipeline.sentenceSimilarity({ inputs }), cosines, tolerance);
  const unknown = await rejection(
    "huggingface: an unknown model",
    new InferenceClient().endpoint(`${url}/models/nothing`).featureExtraction({ inputs: "a" }),
  );
  that("huggingface: 404 with a request id", unknown.httpResponse.status === 404 && unknown.httpResponse.requestId);
  that("huggingface: the body of an error", typeof unknown.httpResponse.body.error === "string");
}

async function checkSame(url, { text, model, bits }) {
  const openai = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none" });
  for (const encoding_format of ["base64", "float", undefined]) {
    const reply = await openai.embeddings.create({ model, input: text, encoding_format });
    // Asked for base64 by name, the client leaves the decoding to its user.
    const row = reply.data[0].embedding;
    const floats = typeof row === "string" ? new Float32Array(new Uint8Array(Buffer.from(row, "base64")).buffer) : row;
    sameBits(`same: openai ${encoding_format}`, floats, bits);
  }
  for (const route of [`/models/${model}`, `/models/${model}/pipeline/feature-extraction`]) {
    const row = await new InferenceClient().endpoint(url + route).featureExtraction({ inputs: text });
    sameBits(`same: huggingface ${route}`, row, bits);
  }
}

async function checkFull(url) {
  const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
  const limited = await rejection("openai: a full queue", client.embeddings.create({ model: "sentence-mean", input: "a" }));
  that("openai: RateLimitError", limited instanceof OpenAI.RateLimitError);
  that("openai: when to come back", Number(limited.headers.get("retry-after")) >= 1);
  // A client that repeated this at once would never end: it does so on 503.
  const full = await rejection(
    "huggingface: a full queue",
    new InferenceClient().endpoint(`${url}/models/sentence-mean`).featureExtraction({ inputs: "a" }),
  );
  that("huggingface: 429", full.httpResponse.status === 429 && /try again/.test(full.httpResponse.body.error));
}

async function checkAbort(url, [{ text, embedding }], tolerance) {
  const client = new InferenceClient().endpoint(url);
  const openai = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
  const inputs = Array.from({ length: 20000 }, (_, index) => `${index} ${text}`);
  for (const [what, ask] of [
    ["huggingface", (signal) => client.featureExtraction({ inputs }, { signal })],
    ["openai", (signal) => openai.embeddings.create({ model: "any", input: inputs }, { signal })],
  ]) {
    const controller = new AbortController();
    const promise = ask(controller.signal);
    setTimeout(() => controller.abort(), 20);
    const error = await rejection(`${what}: abort`, promise);
    that(`${what}: an abort, not an error of the server`, /abort/i.test(`${error.name} ${error.message}`));
  }
  same("after aborts", await client.featureExtraction({ inputs: text }), embedding, tolerance);
  let queued;
  do {
    const metrics = await (await fetch(`${url}/metrics`)).text();
    queued = [...metrics.matchAll(/^te_queue_size\S* (\d+)/gm)].reduce((sum, match) => sum + Number(match[1]), 0);
  } while (queued > 0);
  that("after aborts nothing is queued", true);
}

const [embedUrl, tasksUrl, fullUrl, file] = process.argv.slice(2);
const expected = JSON.parse(readFileSync(file, "utf-8"));
await checkOpenAi(embedUrl, expected.embeddings, expected.tolerance);
await checkEmbeddings(embedUrl, expected.embeddings, expected.tolerance);
await checkTasks(tasksUrl, expected.asks);
await checkSame(tasksUrl, expected.same);
await checkFull(fullUrl);
await checkAbort(embedUrl, expected.embeddings, expected.tolerance);
console.log(`${checks} checks passed`);
