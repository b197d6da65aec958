"use strict";

const SVG = "http://www.w3.org/2000/svg";

/** The key of this server, if it asks for one; never stored. */
let apiKey = "";

const byId = id => document.getElementById(id);

/** Sets attributes and adds children, of which texts stay texts: nothing that a server says becomes markup. */
function dress(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter(child => child != null));
  return element;
}

const el = (name, attributes = {}, ...children) => dress(document.createElement(name), attributes, children);
const svg = (name, attributes = {}, ...children) => dress(document.createElementNS(SVG, name), attributes, children);

/** A number for people, of so many significant digits. */
function figure(value, digits = 4) {
  if (!Number.isFinite(value)) return "–";
  return new Intl.NumberFormat("en", {maximumSignificantDigits: digits}).format(value).replace("-", "−");
}

/** A time for people. */
const milliseconds = value => `${figure(value, 3)} ms`;

/** A word of a POSIX shell that stands for a text. */
const quoted = text => `'${text.replaceAll("'", `'\\''`)}'`;

/** The line that sends a request from a shell. The key is left to a variable of the shell's. */
function curlLine(method, path, body) {
  const parts = [`curl -s ${quoted(location.origin + path)}`];
  if (apiKey) parts.push(`-H "Authorization: Bearer $CENTUPLE_API_KEY"`);
  if (body !== null) parts.push(`-H 'Content-Type: application/json'`, `--data-binary ${quoted(body)}`);
  return parts.join(" \\\n  ");
}

/** Asks the server; yields the status, the headers, the text, and how long it took. */
async function ask(method, path, body = null) {
  const headers = {};
  if (body !== null) headers["Content-Type"] = "application/json";
  if (apiKey) headers.Authorization = `Bearer ${apiKey}`;
  const begun = performance.now();
  const response = await fetch(path, {method, headers, body, cache: "no-store"});
  const text = await response.text();
  return {status: response.status, headers: response.headers, text, took: performance.now() - begun};
}

/** What an error says, in the words of whichever family of routes. */
function errorMessage(text) {
  try {
    const {error, message} = JSON.parse(text);
    return error?.message ?? (typeof error === "string" ? error : message) ?? text;
  } catch {
    return text;
  }
}

/** Puts a text on the clipboard, and says so on the button for a while. */
async function copyText(text, button) {
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Select and copy by hand";
  }
  setTimeout(() => { button.textContent = "Copy"; }, 1500);
}

/** A path with a model's id in it, whose slashes stay. */
const inPath = id => id.split("/").map(encodeURIComponent).join("/");

/** Asks for a key where the server does, and calls back with what it then answers. */
function withKey(path, ready) {
  const attempt = async () => {
    const reply = await ask("GET", path);
    byId("key-card").hidden = reply.status !== 401;
    if (reply.status === 401) {
      byId("key-note").textContent = apiKey ? "The server does not know this key." : "";
      apiKey = "";
      byId("key").focus();
    } else {
      ready(reply);
    }
  };
  byId("key-form").addEventListener("submit", event => {
    event.preventDefault();
    apiKey = byId("key").value;
    byId("key").value = "";
    attempt();
  });
  return attempt();
}
