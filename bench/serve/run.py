#!/usr/bin/env python3
"""Measures what serving costs beside computing, with the real binary. Only Python's standard library is needed.

    run.py MODEL [--precision f32|int8] [--texts TEXTS.jsonl] [--clients 1,8,64,256] [--seconds 10] [--rounds 3]

overhead    one client, texts of 16 tokens: the time of a request less that of its inference
throughput  texts a second with so many clients, against `centuple run` on the same texts, in turns
overload    texts of 16 tokens, twice as many a second as the server can answer: statuses, how long the accepted ones took,
            what is left in the queue, memory

Texts of mixed lengths are made of the texts that the project ships, unless a file is given. Build first:
cargo build --release --workspace --bin centuple --example load --example load_grpc
"""

import argparse
import json
import random
import socket
import statistics
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RELEASE = ROOT / "target" / "release"
# Fourteen plain words, which are 16 tokens with those that begin and end a text.
SHORT = "a man is playing the guitar on a small stage in the summer rain"
QUEUE = 512
LONGEST_START_SECONDS = 120


class Server:
    """`centuple serve` with one model; use it in a `with`."""

    def __init__(self, options: argparse.Namespace):
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        command = [options.binary, "serve", options.model, "--port", str(self.port)]
        command += ["--precision", options.precision, "--max-queued-requests", str(QUEUE)]
        self._process = subprocess.Popen(command, stderr=subprocess.DEVNULL)

    def __enter__(self) -> "Server":
        give_up = time.monotonic() + LONGEST_START_SECONDS
        while True:
            try:
                self.metric("te_request_count")
                return self
            except OSError:
                if self._process.poll() is not None or time.monotonic() > give_up:
                    self.__exit__()
                    raise SystemExit("the server does not start") from None
                time.sleep(0.05)

    def __exit__(self, *_) -> None:
        self._process.terminate()
        self._process.wait()

    def metric(self, name: str) -> float:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics") as reply:
            lines = reply.read().decode().splitlines()
        values = [line.rsplit(" ", 1)[1] for line in lines if line.startswith((name + "{", name + " "))]
        return sum(map(float, values))

    def memory(self) -> float:
        """Resident megabytes."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    def load(self, bodies: Path, kind: str, first: float, second: float) -> dict:
        command = [RELEASE / "examples" / "load", f"127.0.0.1:{self.port}", "/", bodies, kind, str(first), str(second)]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


    def load_grpc(self, text: str, count: int) -> dict:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/v1/models") as reply:
            model = json.load(reply)["data"][0]["id"]
        command = [RELEASE / "examples" / "load_grpc", f"127.0.0.1:{self.port}", model, text, str(count)]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def mixed(count: int) -> list[str]:
    """Texts of mixed lengths, most of them short, out of the project's own."""
    words = (ROOT / "crates" / "centuple" / "src" / "sample.txt").read_text(encoding="utf-8").split()
    draw = random.Random(1)
    texts = []
    for _ in range(count):
        length = min(200, max(3, round(draw.lognormvariate(3.2, 0.9))))
        begin = draw.randrange(len(words) - length)
        texts.append(" ".join(words[begin : begin + length]))
    return texts


def offline(options: argparse.Namespace, bodies: Path, count: int) -> float:
    """Texts a second of `centuple run`, less the time that it takes for one text."""
    command = [options.binary, "run", "feature-extraction", options.model, "--precision", options.precision]

    def seconds(data: bytes) -> float:
        start = time.perf_counter()
        subprocess.run(command, input=data, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return time.perf_counter() - start

    data = bodies.read_bytes()
    return count / (seconds(data) - seconds(data.split(b"\n", 1)[0]))


def overhead(options: argparse.Namespace, short: Path) -> None:
    with Server(options) as server:
        server.load(short, "closed", 1, 200)
        each = (server.metric("te_request_input_length_sum") - 1) / server.metric("te_request_success")
        transports = {
            "HTTP": lambda: server.load(short, "closed", 1, 1000),
            "gRPC": lambda: server.load_grpc(SHORT, 1000),
        }
        rounds = [{name: load() for name, load in transports.items()} for _ in range(options.rounds)]
    print(f"\noverhead: one client, {each:.0f} tokens, 1000 requests, median of {options.rounds} rounds")
    for transport in transports:
        for name in ("p50", "p99"):
            whole = statistics.median(seen[transport]["milliseconds"][name] for seen in rounds)
            over = statistics.median(seen[transport]["overhead_milliseconds"][name] for seen in rounds)
            print(f"  {transport} {name}  request {whole:.3f} ms, over the engine {over:.3f} ms")


def throughput(options: argparse.Namespace, bodies: Path, count: int) -> None:
    alone, served = [], {clients: [] for clients in options.clients}
    for _ in range(options.rounds):
        alone.append(offline(options, bodies, count))
        for clients in options.clients:
            with Server(options) as server:
                server.load(bodies, "closed", clients, 50)
                served[clients].append(server.load(bodies, "closed", clients, count)["answered_per_second"])
    best = statistics.median(alone)
    print(f"\nthroughput: {count} texts of mixed lengths, median of {options.rounds} rounds")
    print(f"  centuple run           {best:8.0f} texts/s")
    for clients, values in served.items():
        value = statistics.median(values)
        print(f"  {clients:4} clients           {value:8.0f} texts/s  {value / best:.0%} of run")


def overload(options: argparse.Namespace, short: Path) -> None:
    with Server(options) as server:
        server.load(short, "closed", 64, 500)
        capacity = server.load(short, "closed", 256, round(200 * options.seconds))["answered_per_second"]
        server.load(short, "open", 2 * capacity, 2)
        before = server.memory()
        seen = server.load(short, "open", 2 * capacity, options.seconds)
        after, left = server.memory(), server.metric("te_queue_size")
    print(f"\noverload: {2 * capacity:.0f} requests/s for {options.seconds:g} s, where {capacity:.0f} can be answered")
    print(f"  statuses               {seen['statuses']}, 429 without Retry-After: {seen['without_retry_after']}")
    print(f"  answered               {seen['answered_per_second']:.0f} a second")
    times = seen["milliseconds"]
    for name, speed in [("the capacity", capacity), ("what was answered", seen["answered_per_second"])]:
        bound = QUEUE / speed * 1.2 * 1e3
        print(f"  accepted               p50 {times['p50']:.0f} ms, p99 {times['p99']:.0f} ms: "
              f"{times['p99'] / bound:.0%} of 1.2 x {QUEUE} / {name} = {bound:.0f} ms")
    print(f"  left in the queue      {left:.0f}")
    print(f"  memory                 {before:.0f} MB before, {after:.0f} MB after")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--precision", default="f32")
    parser.add_argument("--texts", type=Path, help='JSON Lines file with {"inputs": "some text"}')
    parser.add_argument("--limit", type=int, default=2000, help="number of texts")
    parser.add_argument("--clients", default="1,8,64,256")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=["overhead", "throughput", "overload"])
    parser.add_argument("--binary", type=Path, default=RELEASE / "centuple")
    options = parser.parse_args()
    options.clients = [int(clients) for clients in options.clients.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        short, bodies = Path(folder) / "short.jsonl", Path(folder) / "mixed.jsonl"
        short.write_text(json.dumps({"inputs": SHORT}) + "\n")
        if options.texts:
            lines = options.texts.read_text(encoding="utf-8").splitlines()[: options.limit]
        else:
            lines = [json.dumps({"inputs": text}) for text in mixed(options.limit)]
        bodies.write_text("\n".join(lines) + "\n", encoding="utf-8")
        if options.only in (None, "overhead"):
            overhead(options, short)
        if options.only in (None, "throughput"):
            throughput(options, bodies, len(lines))
        if options.only in (None, "overload"):
            overload(options, short)


if __name__ == "__main__":
    main()
