"""A keep-alive HTTP/1.1 client that does as little as it can, so that its own time stays small beside the server's.

One thread, one socket a client. A reply is read up to its Content-Length and not parsed further.
"""

import itertools
import selectors
import socket
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass

END_OF_HEAD = b"\r\n\r\n"


@dataclass(frozen=True)
class Load:
    """What some clients saw together: milliseconds of each request, and seconds from the first to the last."""

    latencies_ms: list[float]
    seconds: float

    @property
    def p50(self) -> float:
        return statistics.median(self.latencies_ms)

    @property
    def p99(self) -> float:
        return sorted(self.latencies_ms)[round(0.99 * (len(self.latencies_ms) - 1))]

    @property
    def per_second(self) -> float:
        return len(self.latencies_ms) / self.seconds


class _Client:
    """One connection with at most one request under way."""

    def __init__(self, address: tuple[str, int]):
        self.socket = socket.create_connection(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, request: bytes) -> None:
        self._received, self._length = b"", None
        self._start = time.perf_counter()
        self.socket.sendall(request)

    def receive(self) -> float | None:
        """Reads what has come; milliseconds since `send` once the reply is whole."""
        piece = self.socket.recv(1 << 18)
        if not piece:
            raise ConnectionError("the server closed the connection")
        self._received += piece
        if self._length is None:
            self._length = _length(self._received)
        if self._length is None or len(self._received) < self._length:
            return None
        return (time.perf_counter() - self._start) * 1e3


def get(path: str) -> bytes:
    """A GET request."""
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


def post(path: str, body: bytes) -> bytes:
    """A POST request with a JSON body."""
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return head.encode() + END_OF_HEAD + body


def drive(address: tuple[str, int], requests: Iterator[bytes], clients: int) -> Load:
    """Sends all requests over `clients` connections, each with its next request as soon as its reply is there."""
    with selectors.DefaultSelector() as selector:
        first = list(itertools.islice(requests, clients))
        for _ in first:
            client = _Client(address)
            selector.register(client.socket, selectors.EVENT_READ, client)
        start, latencies = time.perf_counter(), []
        for key, request in zip(list(selector.get_map().values()), first, strict=True):
            key.data.send(request)
        while selector.get_map():
            for key, _ in selector.select():
                taken = key.data.receive()
                if taken is None:
                    continue
                latencies.append(taken)
                following = next(requests, None)
                if following is None:
                    # An idle connection is one that the server may close.
                    selector.unregister(key.fileobj)
                    key.data.socket.close()
                else:
                    key.data.send(following)
        seconds = time.perf_counter() - start
    return Load(latencies, seconds)


def _length(received: bytes) -> int | None:
    """Bytes of the whole reply, once its head has come; any status but 200 is an error."""
    end = received.find(END_OF_HEAD)
    if end < 0:
        return None
    status, *fields = received[:end].decode("latin-1").split("\r\n")
    if status.split()[1] != "200":
        raise ConnectionError(f"the server answered {status}: {received[end:].decode(errors='replace').strip()}")
    lengths = [line.split(":")[1] for line in fields if line.lower().startswith("content-length:")]
    if not lengths:
        raise ConnectionError("the reply has no Content-Length")
    return end + len(END_OF_HEAD) + int(lengths[0])
