#!/usr/bin/env python3
"""Uses the server's pages in headless Chromium, as people do, and fails if anything is wrong.

    scripts/check_pages.py [BINARY] [--screenshots FOLDER]

The real binary serves tiny models. On the playground every task is run: what is shown must be what the API answers,
its curl line must give the same, the latency must be split, the charts must move, and a label that is markup must stay
text. With a key nothing may be answered before it is given. On the page of routes requests are sent. Both pages are
looked at in light and dark, wide and narrow, and by axe. Wrong are also: a message on the console, a violation of the
page's policy, a request to another host, a page wider than the screen. Makes its own environment below target/.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import environment  # noqa: E402
import serving  # noqa: E402
from browser import Browser  # noqa: E402

KEY = "key of the check's"
EVIL = "<img src=x onerror=\"document.title='broken into'\">"
# As short as the tiny models need it.
EVIL_TEXT = "<img src=x onerror=a>"
CASES = ["embedder", "bert-tiny", "sparse", "classify", "nli", "ranker", "ner", "qa", "mlm"]
SCREENS = [("wide", 1280, 900, False), ("narrow", 360, 740, True)]
# Seconds that a page may take to do what it is waited for, far above what it needs.
PATIENCE = 60


def wait_for(browser: Browser, condition: str) -> None:
    """Waits until an expression holds on the page."""
    end = time.monotonic() + PATIENCE
    while not browser.evaluate(f"Boolean({condition})"):
        assert time.monotonic() < end, f"it never came to `{condition}`"
        time.sleep(0.05)


def complaints(browser: Browser, url: str, expected: set[int]) -> list[str]:
    """What the browser has noted against the page since it was opened; `expected`: statuses that are meant to come."""
    wrong = []
    for event in browser.events:
        method, parameters = event.get("method"), event.get("params", {})
        if method == "Network.requestWillBeSent":
            target = parameters["request"]["url"]
            if not target.startswith((f"{url}/", "data:")):
                wrong.append(f"a request to {target}")
        elif method == "Log.entryAdded":
            entry = parameters["entry"]
            refused = any(f"status of {status}" in entry["text"] for status in expected)
            if not refused:
                wrong.append(f"{entry['level']}: {entry['text']}")
        elif method == "Runtime.consoleAPICalled":
            wrong.append(f"console.{parameters['type']}")
        elif method == "Runtime.exceptionThrown":
            wrong.append(f"exception: {parameters['exceptionDetails']['exception'].get('description')}")
        elif method == "Audits.issueAdded":
            wrong.append(f"issue: {parameters['issue']['code']} {json.dumps(parameters['issue']['details'])}")
    browser.events.clear()
    return wrong


def axe(browser: Browser, script: str) -> list[str]:
    """Violations that axe finds, whatever it calls their weight."""
    browser.evaluate(f"{script};0")
    report = browser.evaluate(
        "axe.run().then(found => found.violations.map(it =>"
        " `${it.id}: ${it.nodes.slice(0, 3).map(node => `${node.html} ${node.failureSummary}`).join('; ')}`))"
    )
    return [f"axe: {violation}" for violation in report]


def choose(browser: Browser, field: str, value: str) -> None:
    """Takes an option of a list, as a person does."""
    browser.evaluate(
        f"(() => {{ const list = document.getElementById({json.dumps(field)}); list.value = {json.dumps(value)};"
        f" list.dispatchEvent(new Event('change', {{bubbles: true}})); }})()"
    )


def write(browser: Browser, field: str, text: str) -> None:
    """Types into a field in place of what was there."""
    find = f"document.getElementById({json.dumps(field)})"
    browser.evaluate(f"(it => {{ it.focus(); it.select(); }})({find})")
    browser.ask("Input.insertText", text=text)


def press(browser: Browser, key: str, code: int, modifiers: int = 0) -> None:
    """Presses a key."""
    common = {"key": key, "code": key, "windowsVirtualKeyCode": code, "modifiers": modifiers}
    browser.ask("Input.dispatchKeyEvent", type="keyDown", **common, **({"text": "\r"} if key == "Enter" else {}))
    browser.ask("Input.dispatchKeyEvent", type="keyUp", **common)


def run(browser: Browser, by_keyboard: bool = False) -> dict:
    """Runs what the form has; yields what is then on the page."""
    browser.evaluate("document.getElementById('status').textContent = ''; 0")
    if by_keyboard:
        press(browser, "Enter", 13, modifiers=2)
    else:
        browser.evaluate("document.getElementById('run').click()")
    wait_for(browser, "/^(Answered|Refused)/.test(document.getElementById('status').textContent)")
    text = "id => document.getElementById(id).textContent"
    return browser.evaluate(
        f"(text => ({{status: text('status'), raw: text('json'), curl: text('curl'), result: text('result'),"
        f" numbers: [...document.querySelectorAll('#result .number')].map(it => it.textContent),"
        f" marks: [...document.querySelectorAll('#result mark')].map(it => it.firstChild.textContent),"
        f" facts: [...document.querySelectorAll('#result .facts div')].map(it => it.textContent),"
        f" images: document.querySelectorAll('#result img').length,"
        f" parts: [...document.querySelectorAll('#parts [data-part]')].map(it => it.dataset.part)}}))({text})"
    )


def figure(value: float) -> str:
    """A number as the page writes it: four significant digits, without exponents."""
    text = f"{float(f'{value:.4g}'):,.12f}".rstrip("0").rstrip(".")
    return text.replace("-", "−")


def by_shell(line: str, key: str | None) -> str:
    """What a curl line gives in a shell."""
    environment = {**os.environ, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    if key:
        environment["CENTUPLE_API_KEY"] = key
    return subprocess.run(["sh", "-c", line], env=environment, capture_output=True, text=True, check=True).stdout


def same(a, b) -> bool:
    """Whether two replies are equal."""
    return json.loads(a) == json.loads(b)


def check_task(browser: Browser, model: str, task: str, fields: dict, shown, key: str | None = None) -> list[str]:
    """Runs a task; `shown(reply, page)` yields what of the reply must be on the page, and what is there."""
    choose(browser, "model", model)
    choose(browser, "task", task)
    for field, text in fields.items():
        write(browser, f"field-{field}", text)
    page = run(browser, by_keyboard=bool(fields))
    wrong = []
    if not page["status"].startswith("Answered"):
        return [f"{model}, {task}: {page['status']} {page['result']}"]
    if not same(by_shell(page["curl"], key), page["raw"]):
        wrong.append("the curl line gives something else")
    wanted, found = shown(json.loads(page["raw"]), page)
    if wanted != found:
        wrong.append(f"{found} is shown for {wanted}")
    if page["parts"] != ["tokenise", "queue", "compute", "reply", "network"]:
        wrong.append(f"the latency is split in {page['parts']}")
    if page["images"]:
        wrong.append("a text of the model's became markup")
    return [f"{model}, {task}: {what}" for what in wrong]


def scores(pick=lambda reply: [score["score"] for score in reply]):
    """What a reply's numbers look like in a list of bars."""
    return lambda reply, page: ([figure(value) for value in pick(reply)], page["numbers"])


def marked(text: str):
    """The parts of a text that entities cover."""
    return lambda reply, page: ([text[entity["start"]:entity["end"]] for entity in reply], page["marks"])


def vector(reply, page):
    """Dimension and norm of a vector."""
    norm = sum(value * value for value in reply) ** 0.5
    return [f"Dimension{len(reply)}", f"Norm{figure(norm)}"], page["facts"][:2]


TEXT = "The 🚀 quick brown fox jumps over the lazy dog, it's \"good\" & <b>bold</b> $HOME."
TASKS = [
    ("embedder", "feature-extraction", {"text": TEXT}, vector),
    ("bert-tiny", "feature-extraction", {"text": "quick brown fox"}, lambda reply, page: (
        [f"Tokens{len(reply[0])}", f"Dimension{len(reply[0][0])}"], page["facts"][:2])),
    ("sparse", "feature-extraction", {"text": "quick brown fox"}, scores(
        lambda reply: sorted((weight["value"] for weight in reply[0]), reverse=True)[:20])),
    ("embedder", "sentence-similarity", {"source": "good weather", "sentences": "a film\nlazy dog"}, scores(
        lambda reply: reply)),
    ("classify", "text-classification", {"text": TEXT}, scores(lambda reply: [score["score"] for score in reply[0]])),
    ("nli", "zero-shot-classification", {"text": "good weather", "labels": f"film\n{EVIL_TEXT}\ntime"}, scores()),
    ("ner", "token-classification", {"text": TEXT}, marked(TEXT)),
    ("qa", "question-answering", {"question": "what is the weather", "context": TEXT}, scores()),
    ("mlm", "fill-mask", {"text": "the [MASK] is good"}, scores()),
    ("mlm", "fill-mask", {"text": "the [MASK] is [MASK]"}, scores(
        lambda reply: [proposal["score"] for proposals in reply for proposal in proposals])),
    ("ranker", "text-ranking", {"query": "weather", "texts": f"good film\n{EVIL_TEXT}\nlazy dog"}, scores()),
]


def check_playground(browser: Browser, url: str) -> list[str]:
    """Runs every task, sees the charts move, and has a request refused."""
    browser.show("light", 1280, 900, False)
    browser.open(f"{url}/")
    wait_for(browser, "!document.getElementById('run').disabled")
    wrong = []
    for model, task, fields, shown in TASKS:
        wrong += check_task(browser, model, task, fields, shown)
    title = browser.evaluate("document.title")
    if title != "Centuple playground":
        wrong.append(f"a text of the model's has run: {title}")
    answered = "Number(document.querySelector('#totals dd').textContent.replace(',', ''))"
    wait_for(browser, f"{answered} >= {len(TASKS)}")
    wait_for(browser, "Number(document.querySelector('#throughput .chart')?.dataset.points) >= 2")
    points = browser.evaluate("Number(document.querySelector('#throughput .chart').dataset.points)")
    rates = "[...document.querySelectorAll('#{} tbody tr')].map(row => row.cells[1].textContent)"
    wait_for(browser, f"Number(document.querySelector('#throughput .chart').dataset.points) > {points}")
    for chart in ("throughput", "latency"):
        shown = browser.evaluate(rates.format(chart))
        if not any(value not in ("0", "–") for value in shown):
            wrong.append(f"the chart of {chart} shows nothing: {shown}")
    choose(browser, "model", "qa")
    write(browser, "field-context", " ")
    browser.evaluate("document.getElementById('field-question').value = ''; 0")
    page = run(browser)
    if not page["status"].startswith("Refused with 4") or "question" not in page["result"]:
        wrong.append(f"a refusal is shown as {page['status']} {page['result']}")
    return wrong + complaints(browser, url, {422})


def check_key(browser: Browser, url: str) -> list[str]:
    """Gives a wrong key, then the right one, and runs a task; then sends a request on the page of routes."""
    browser.show("light", 1280, 900, False)
    browser.open(f"{url}/")
    wait_for(browser, "!document.getElementById('key-card').hidden")
    wrong = [] if browser.evaluate("document.getElementById('run').disabled") else ["it can be run without a key"]
    write(browser, "key", "wrong")
    press(browser, "Enter", 13)
    wait_for(browser, "document.getElementById('key-note').textContent !== ''")
    write(browser, "key", KEY)
    press(browser, "Enter", 13)
    wait_for(browser, "!document.getElementById('run').disabled")
    wrong += check_task(browser, "embedder", "feature-extraction", {"text": "with a key"}, vector, KEY)
    browser.evaluate("document.querySelector('nav a[href=\"/docs\"]').click()")
    route = "document.querySelector('#post_embed form')"
    wait_for(browser, "document.querySelector('#post_embed')")
    browser.evaluate("document.querySelector('#post_embed').open = true; 0")
    wait_for(browser, route)
    for key, status in (("", "401"), (KEY, "200")):
        write(browser, "key", key)
        browser.evaluate(f"{route}.requestSubmit()")
        wait_for(browser, f"{route}.querySelector('[role=status]').textContent.startsWith('{status}')")
    stored = "document.documentElement.outerHTML + JSON.stringify({...localStorage, ...sessionStorage})"
    if KEY in browser.evaluate(stored):
        wrong.append("the key is kept where it can be read")
    return wrong + complaints(browser, url, {401})


def check_docs(browser: Browser, url: str) -> list[str]:
    """Compares the page with the document, sends a request, and looks for a route."""
    browser.show("light", 1280, 900, False)
    browser.open(f"{url}/docs")
    with urllib.request.urlopen(f"{url}/openapi.json") as answer:
        document = json.load(answer)
    operations = [operation for methods in document["paths"].values() for operation in methods.values()]
    wait_for(browser, "document.querySelectorAll('.route').length > 0")
    shown = browser.evaluate("[...document.querySelectorAll('.route')].map(route => route.id)")
    ids = [operation["operationId"] for operation in operations]
    wrong = [] if sorted(shown) == sorted(ids) else [f"routes that are not shown: {set(ids) ^ set(shown)}"]
    browser.evaluate("document.querySelectorAll('.route').forEach(route => { route.open = true; })")
    wait_for(browser, f"document.querySelectorAll('.route .inside').length === {len(ids)}")
    browser.evaluate("document.querySelector('#post_models_id_pipeline_task form').requestSubmit()")
    wait_for(browser, "/^\\d/.test(document.querySelector('#post_models_id_pipeline_task [role=status]').textContent)")
    status, line = browser.evaluate(
        "(route => ['[role=status]', '.heading + pre'].map(part => route.querySelector(part).textContent))"
        "(document.querySelector('#post_models_id_pipeline_task'))"
    )
    if not status.startswith("200"):
        wrong.append(f"a request that the page sends gets {status}")
    if not by_shell(line, None).startswith("["):
        wrong.append(f"the line of the page gives no reply: {line}")
    write(browser, "filter", "rerank")
    found = browser.evaluate("[...document.querySelectorAll('.route')].filter(it => it.offsetParent).map(it => it.id)")
    if not found or not all("rerank" in route for route in found):
        wrong.append(f"`rerank` finds {found}")
    return wrong + complaints(browser, url, set())


def check_looks(browser: Browser, url: str, script: str, pictures: Path | None) -> list[str]:
    """Opens both pages on every screen, and has axe look at them."""
    wrong = []
    for path, (screen, width, height, mobile), scheme in itertools.product(("/", "/docs"), SCREENS, ("light", "dark")):
        browser.show(scheme, width, height, mobile)
        browser.open(f"{url}{path}")
        if path == "/":
            wait_for(browser, "!document.getElementById('run').disabled")
            choose(browser, "model", "ner")
            run(browser)
        else:
            wait_for(browser, "document.querySelectorAll('.route').length > 0")
            browser.evaluate("document.getElementById('post_embed').open = true; 0")
            wait_for(browser, "document.querySelector('#post_embed .inside')")
        name = f"{path.strip('/') or 'playground'}, {screen}, {scheme}"
        found = axe(browser, script)
        wide = browser.evaluate("document.scrollingElement.scrollWidth")
        if wide > width:
            found.append(f"the page is {wide} wide on a screen of {width}")
        if pictures:
            browser.picture(pictures / f"{name.replace(', ', '-')}.png")
        wrong += [f"{name}: {what}" for what in found + complaints(browser, url, set())]
    return wrong


def evil_label(configuration: dict) -> None:
    """Calls a label something that is markup."""
    configuration["id2label"]["0"] = EVIL
    configuration["label2id"] = {label: int(place) for place, label in configuration["id2label"].items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", type=Path, nargs="?", default=serving.default_binary())
    parser.add_argument("--screenshots", type=Path, metavar="FOLDER", help="keep a picture of every page here")
    arguments = parser.parse_args()
    environment.enter(HERE / "requirements-serve.txt", serving.ROOT / "target" / "serve-env")
    import axe_playwright_python

    script = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text()
    if arguments.screenshots:
        arguments.screenshots.mkdir(parents=True, exist_ok=True)
    wrong = []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        edits = {"classify": evil_label, "ner": None}
        models = [serving.tiny_model(case, Path(folder) / case, edits.get(case)) for case in CASES]
        browser = Browser(str(Path(folder) / "profile"))
        try:
            with serving.Server(arguments.binary, models) as server:
                for check in (check_playground, check_docs):
                    found = check(browser, server.url)
                    print(f"{check.__name__}: {'; '.join(found) or 'ok'}")
                    wrong += found
                found = check_looks(browser, server.url, script, arguments.screenshots)
                print(f"check_looks: {'; '.join(found) or 'ok'}")
                wrong += found
            with serving.Server(arguments.binary, models[:1], "--api-key", KEY) as server:
                found = check_key(browser, server.url)
                print(f"check_key: {'; '.join(found) or 'ok'}")
                wrong += found
        finally:
            browser.close()
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
