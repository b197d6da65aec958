"""The systems of a ladder, each a server of its own on a free port."""

import itertools
import json
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Self

import http_client
from ladder import DEPLOYMENT, Stage, Task

HERE = Path(__file__).resolve().parent
LONGEST_START_SECONDS = 300
LONGEST_ANSWER_SECONDS = 300
KV_MEMORY = "512MiB"


class System:
    """A stage's server; use it in a `with`. It walks through the texts, which never come twice."""

    def __init__(self, stage: Stage, task: Task, model: Path, texts: list[str], binary: Path, threads: int):
        self.stage, self.name, self.task = stage, stage.name, task
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.address = free.getsockname()[:2]
        port = self.address[1]
        self._texts = iter(texts)
        if stage.flags is None:
            command = [sys.executable, "-W", "ignore", str(HERE / "deployment.py"), task.name, str(model), str(port)]
        else:
            own = ["--port", str(port), "--threads", str(threads), "--cache", "off", "--kv-memory", KV_MEMORY]
            command = [str(binary), "serve", str(model), *own, *stage.flags]
        self._said = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(command, stdout=self._said, stderr=self._said)

    def __enter__(self) -> Self:
        give_up = time.monotonic() + LONGEST_START_SECONDS
        while not self._is_healthy():
            if self._process.poll() is not None or time.monotonic() > give_up:
                self.__exit__()
                self._said.seek(0)
                raise RuntimeError(f"`{self.name}` of {self.task.name} does not answer:\n{self._said.read()[-2000:]}")
            time.sleep(0.1)
        return self

    def __exit__(self, *_) -> None:
        self._process.terminate()
        try:
            self._process.wait(timeout=40)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def answer(self, text: str):
        """The answer to one text."""
        request = urllib.request.Request(f"http://{self.address[0]}:{self.address[1]}/", self._body(text))
        request.add_header("content-type", "application/json")
        with urllib.request.urlopen(request, timeout=LONGEST_ANSWER_SECONDS) as reply:
            return json.load(reply)

    def load(self, requests: int, clients: int) -> http_client.Load:
        """Sends the next so many texts, each as a request of its own."""
        texts = list(itertools.islice(self._texts, requests))
        if len(texts) < requests:
            raise RuntimeError("there are too few texts for so many rounds; ask for fewer, or for shorter ones")
        # All requests lie ready before the first is sent.
        posts = [http_client.post("/", self._body(text)) for text in texts]
        return http_client.drive(self.address, iter(posts), clients)

    def _body(self, text: str) -> bytes:
        return json.dumps({"inputs": text, "parameters": self.task.parameters | self.stage.parameters}).encode()

    def _is_healthy(self) -> bool:
        try:
            http_client.drive(self.address, iter([http_client.get("/health")]), 1)
        except OSError:
            return False
        return True


def deployment(systems: list[System]) -> System:
    """The system that answers are compared with."""
    return next(system for system in systems if system.name == DEPLOYMENT)
