"""The product's server, started on a free loopback port and ended again."""

import json
import socket
import subprocess
import tempfile
import time
from typing import Self

import http_client
from systems import Product, Unavailable, last_line

LONGEST_START_SECONDS = 120


class Server:
    """`centuple serve` with one model; use it in a `with`."""

    def __init__(self, product: Product):
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.address = free.getsockname()[:2]
        arguments = ["serve", str(product.model), *product.settings, "--port", str(self.address[1])]
        self._said = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen([str(product.binary), *arguments], stderr=self._said)

    def __enter__(self) -> Self:
        give_up = time.monotonic() + LONGEST_START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > give_up:
                self.__exit__()
                self._said.seek(0)
                raise Unavailable(f"`centuple serve` does not answer: {last_line(self._said.read())}")
            time.sleep(0.05)
        return self

    def __exit__(self, *_) -> None:
        self._process.terminate()
        try:
            self._process.wait(timeout=40)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def embed(self, texts: list[str], clients: int) -> http_client.Load:
        """Sends each text as a request of its own, in their order."""
        bodies = (json.dumps({"inputs": text}).encode() for text in texts)
        # All requests lie ready before the first is sent.
        return http_client.drive(self.address, iter([http_client.post("/", body) for body in bodies]), clients)

    def health(self, requests: int, clients: int) -> http_client.Load:
        """Asks for the health: what client, loopback and the server's HTTP cost without any computation."""
        return http_client.drive(self.address, iter([http_client.get("/health")] * requests), clients)

    def _answers(self) -> bool:
        try:
            self.health(1, 1)
        except OSError:
            return False
        return True
