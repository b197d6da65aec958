"""A headless Chromium, driven by the DevTools protocol over a pipe. Standard library only.

Chromium is taken from $CHROMIUM or the path, and installed with apt-get where this runs as root without one.
"""

import base64
import itertools
import json
import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

NAMES = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]
SCREENS = {"desktop": (1280, 900, False), "phone": (390, 844, True)}
# Seconds that an answer of Chromium may take.
PATIENCE = 60


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

    def show(self, scheme: str, width: int, height: int, mobile: bool) -> None:
        """Sets the screen and its colour scheme."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
        self.ask("Emulation.setDeviceMetricsOverride", **metrics)
        self.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def open(self, page: str) -> None:
        """Opens a page and forgets earlier events."""
        self.events.clear()
        self.ask("Page.navigate", url=page)
        self.wait_for("Page.loadEventFired")

    def evaluate(self, expression: str):
        """The value of an expression on the page, awaited if it is a promise."""
        answer = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            thrown = answer["exceptionDetails"].get("exception", {}).get("description")
            raise AssertionError(f"{expression[:80]}: {thrown}")
        return answer["result"].get("value")

    def picture(self, path: Path) -> None:
        """Keeps a picture of the whole page."""
        image = self.ask("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(image))
