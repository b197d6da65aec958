#!/usr/bin/env python3
"""Opens receipts in headless Chromium and fails if anything is wrong with how they show.

    scripts/check_report.py REPORT.html... [--screenshots FOLDER]

Every report is opened in light and dark, on a desktop and on a phone. Wrong are: a message on the console, a violation
of the page's policy, a request for anything but the page, a page wider than the screen, texts of a plot that overlap
or leave their card, and a plot that says nothing to screen readers. Standard library only; Chromium is taken from
$CHROMIUM or the path, and installed with apt-get where this runs as root without one.
"""

import argparse
import base64
import itertools
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

NAMES = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]
SCREENS = {"desktop": (1280, 900, False), "phone": (390, 844, True)}
SCHEMES = ["light", "dark"]
# Seconds that an answer of Chromium may take.
PATIENCE = 60

# What a page finds wrong with itself.
INSPECTION = """(screen => {
    const wrong = [], root = document.scrollingElement;
    if (root.scrollWidth > screen) wrong.push(`the page is ${root.scrollWidth} wide on a screen of ${screen}`);
    for (const plot of document.querySelectorAll('svg.plot')) {
        const card = plot.closest('.card').getBoundingClientRect();
        if (!plot.getAttribute('aria-label')) wrong.push('a plot has no label');
        const texts = [...plot.querySelectorAll('text')].map(text => [text.textContent, text.getBoundingClientRect()]);
        texts.forEach(([words, box], place) => {
            if (box.width === 0) wrong.push(`the text "${words}" has no size: are there fonts?`);
            if (box.left < card.left || box.right > card.right || box.top < card.top || box.bottom > card.bottom)
                wrong.push(`the text "${words}" leaves its card`);
            for (const [others, other] of texts.slice(place + 1)) {
                const wide = Math.min(box.right, other.right) - Math.max(box.left, other.left);
                const high = Math.min(box.bottom, other.bottom) - Math.max(box.top, other.top);
                if (wide > 0.5 && high > 2) wrong.push(`the texts "${words}" and "${others}" overlap`);
            }
        });
    }
    const ids = [...document.querySelectorAll('[id]')].map(element => element.id);
    if (new Set(ids).size !== ids.length) wrong.push('an id is used twice');
    return wrong;
})"""


def chromium() -> str:
    """The path of a Chromium, installed if need be."""
    names = [os.environ["CHROMIUM"]] if os.environ.get("CHROMIUM") else NAMES
    find = lambda: next((path for path in map(shutil.which, names) if path), None)
    if not find() and os.geteuid() == 0 and shutil.which("apt-get"):
        install = ["apt-get", "install", "-y", "-q", "--no-install-recommends", "chromium", "fonts-dejavu-core"]
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (["apt-get", "update", "-q"], install):
            subprocess.run(command, check=True, stdout=sys.stderr, env=environment)
    path = find()
    if not path:
        sys.exit(f"error: none of {', '.join(names)} is there; install Chromium or set CHROMIUM")
    return path


class Browser:
    """A headless Chromium, spoken to over a pipe by the DevTools protocol."""

    def __init__(self, profile: str):
        from_us, self.write_end = os.pipe()
        self.read_end, to_us = os.pipe()

        def connect():
            # Chromium reads commands from 3 and writes answers to 4.
            low, high = os.dup(from_us), os.dup(to_us)
            os.dup2(low, 3)
            os.dup2(high, 4)

        command = [chromium(), "--headless=new", "--remote-debugging-pipe", f"--user-data-dir={profile}"]
        command += ["--no-first-run", "--disable-gpu", "--hide-scrollbars", "--disable-background-networking"]
        command += ["--no-sandbox"] if os.geteuid() == 0 else []
        silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen([*command, "about:blank"], preexec_fn=connect, close_fds=False, **silent)
        os.close(from_us)
        os.close(to_us)
        self.buffer, self.counter, self.events, self.session = b"", itertools.count(1), [], None
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "Audits"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **parameters):
        """Sends a command and returns its result; events that come meanwhile are kept."""
        number = next(self.counter)
        message = {"id": number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.write_end, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.receive()
            if answer.get("id") == number:
                if "error" in answer:
                    sys.exit(f"error: {method}: {answer['error']}")
                return answer["result"]
            self.events.append(answer)

    def wait_for(self, method: str) -> None:
        """Waits for an event since the last look at them."""
        while not any(event.get("method") == method for event in self.events):
            self.events.append(self.receive())

    def receive(self) -> dict:
        deadline = time.monotonic() + PATIENCE
        while b"\0" not in self.buffer:
            ready, _, _ = select.select([self.read_end], [], [], max(0.0, deadline - time.monotonic()))
            chunk = os.read(self.read_end, 1 << 20) if ready else b""
            if not chunk:
                sys.exit("error: Chromium ended or says nothing")
            self.buffer += chunk
        message, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(message)

    def close(self) -> None:
        self.process.terminate()
        self.process.wait()


def complaint(event: dict, page: str) -> str | None:
    """What an event says is wrong, if anything."""
    method, parameters = event.get("method"), event.get("params", {})
    if method == "Log.entryAdded":
        return f"{parameters['entry']['level']}: {parameters['entry']['text']}"
    if method == "Runtime.consoleAPICalled":
        return f"console.{parameters['type']}"
    if method == "Runtime.exceptionThrown":
        return f"exception: {parameters['exceptionDetails']['text']}"
    if method == "Audits.issueAdded":
        return f"issue: {parameters['issue']['code']} {json.dumps(parameters['issue']['details'])}"
    if method == "Network.requestWillBeSent" and parameters["request"]["url"] != page:
        return f"request for {parameters['request']['url']}"
    return None


def check(browser: Browser, report: Path, scheme: str, screen: str, screenshots: Path | None) -> list[str]:
    """Opens one report on one screen and returns what is wrong."""
    width, height, mobile = SCREENS[screen]
    page = report.resolve().as_uri()
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
    browser.ask("Emulation.setDeviceMetricsOverride", **metrics)
    browser.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    browser.events.clear()
    browser.ask("Page.navigate", url=page)
    browser.wait_for("Page.loadEventFired")
    result = browser.ask("Runtime.evaluate", expression=f"{INSPECTION}({width})", returnByValue=True)["result"]
    wrong = result.get("value") or ([] if "value" in result else [f"the inspection failed: {result}"])
    wrong += filter(None, (complaint(event, page) for event in browser.events))
    if screenshots:
        image = browser.ask("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        (screenshots / f"{report.stem}-{screen}-{scheme}.png").write_bytes(base64.b64decode(image))
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reports", nargs="+", type=Path, metavar="REPORT.html")
    parser.add_argument("--screenshots", type=Path, metavar="FOLDER", help="keep a picture of every page here")
    arguments = parser.parse_args()
    if arguments.screenshots:
        arguments.screenshots.mkdir(parents=True, exist_ok=True)
    failed = False
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(profile)
        try:
            for report, screen, scheme in itertools.product(arguments.reports, SCREENS, SCHEMES):
                wrong = check(browser, report, scheme, screen, arguments.screenshots)
                failed |= bool(wrong)
                print(f"{report}, {screen}, {scheme}: {'; '.join(wrong) or 'ok'}")
        finally:
            browser.close()
    sys.exit(failed)


if __name__ == "__main__":
    main()
