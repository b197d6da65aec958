// Has a running Centuple server generate texts through the clients of JavaScript, whole and in parts.
//
//     node check_generation.mjs URL expected.json
//
// expected.json is that of check_generation.py. Prints each check; the first wrong answer ends the script with exit code 1.

import { readFileSync } from "node:fs";

import { InferenceClient } from "@huggingface/inference";
import OpenAI from "openai";

let checks = 0;

function that(what, holds) {
  if (!holds) throw new Error(`WRONG ${what}`);
  console.log(`ok    ${what}`);
  checks += 1;
}

// All parts of a stream.
async function all(stream) {
  const parts = [];
  for await (const part of stream) parts.push(part);
  return parts;
}

const textOf = (parts) => parts.map((part) => part.choices[0]?.delta?.content ?? "").join("");

async function checkOpenAi(url, expected) {
  const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
  const { model, messages, tokens } = expected;
  const asked = { model, messages, temperature: 0, max_completion_tokens: tokens };
  const reply = await client.chat.completions.create(asked);
  that("openai: chat", reply.choices[0].message.content === expected.chat);
  that("openai: chat, tokens", reply.usage.completion_tokens === tokens);
  const options = { stream: true, stream_options: { include_usage: true } };
  const parts = await all(await client.chat.completions.create({ ...asked, ...options }));
  that(`openai: chat in ${parts.length} parts`, textOf(parts) === expected.chat && parts.length > 4);
  that("openai: chat in parts, tokens", parts.at(-1).usage.completion_tokens === tokens);
  const helped = await client.chat.completions.stream(asked).finalContent();
  that("openai: chat, the helper for streams", helped === expected.chat);

  const text = { model, prompt: expected.prompt, temperature: 0, max_tokens: tokens };
  const whole = await client.completions.create(text);
  that("openai: completion", whole.choices[0].text === expected.completion);
  const pieces = await all(await client.completions.create({ ...text, stream: true }));
  that("openai: completion in parts", pieces.map((piece) => piece.choices[0].text).join("") === expected.completion);

  const tools = [{ type: "function", function: { name: "look", parameters: {} } }];
  const error = await client.chat.completions.create({ ...asked, tools }).catch((error) => error);
  that(`openai: ${error.message}`, error instanceof OpenAI.BadRequestError && error.param === "tools");

  // Who leaves a stream frees its pages.
  const left = await client.chat.completions.create({ ...asked, stream: true });
  for await (const part of left) if (part.choices[0].delta.content) break;
  let running;
  do {
    const metrics = await (await fetch(`${url}/metrics`)).text();
    running = Number(/^te_generation_running\S* (\d+)/m.exec(metrics)[1]);
  } while (running > 0);
  that("openai: a stream that is left ends", true);
}

async function checkHuggingFace(url, expected) {
  const client = new InferenceClient().endpoint(url);
  const { messages, tokens } = expected;
  const asked = { messages, max_tokens: tokens, temperature: 0 };
  const reply = await client.chatCompletion(asked);
  that("huggingface: chat", reply.choices[0].message.content === expected.chat);
  const parts = await all(client.chatCompletionStream(asked));
  that("huggingface: chat in parts", textOf(parts) === expected.chat);
}

const [url, file] = process.argv.slice(2);
const expected = JSON.parse(readFileSync(file, "utf-8"));
await checkOpenAi(url, expected);
await checkHuggingFace(url, expected);
console.log(`${checks} checks passed`);
