#!/usr/bin/env python3
"""Measures many streams at once beside one, with the real binary. Only Python's standard library is needed.

    streams.py MODEL [--precision int8] [--kv-precision f16] [--device cpu] [--streams 32] [--prompt 60] [--new 128] [--rounds 3]

Each round asks a fresh server for every text, one after the other, then another fresh server for all at once. Told are tokens a
second of one stream and of all together, with their prompts and while only tokens are generated; the times to the first token
and between tokens; and whether each text got the tokens that it gets alone. Build first:
cargo build --release --workspace --bin centuple
"""

import argparse
import json
import selectors
import socket
import statistics
import subprocess
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LONGEST_START_SECONDS = 300


class Server:
    """`centuple serve` with one model; use it in a `with`."""

    def __init__(self, options: argparse.Namespace):
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        command = [options.binary, "serve", options.model, "--port", str(self.port), "--precision", options.precision]
        command += ["--device", options.device]
        if options.kv_precision:
            command += ["--kv-precision", options.kv_precision]
        self._process = subprocess.Popen(command, stderr=subprocess.DEVNULL)

    def __enter__(self) -> "Server":
        give_up = time.monotonic() + LONGEST_START_SECONDS
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics").read()
                return self
            except OSError:
                if self._process.poll() is not None or time.monotonic() > give_up:
                    self.__exit__()
                    raise SystemExit("the server does not start") from None
                time.sleep(0.05)

    def __exit__(self, *_) -> None:
        self._process.terminate()
        self._process.wait()

    def seconds(self) -> float:
        """Processor time so far."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rsplit(") ", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / 100


class Stream:
    """One request, and when its events came."""

    def __init__(self, port: int, prompt: str, new: int):
        # None ends before the others.
        body = json.dumps({"inputs": prompt, "parameters": {"max_new_tokens": new, "min_new_tokens": new}}).encode()
        head = f"POST /generate_stream HTTP/1.0\r\nhost: bench\r\ncontent-length: {len(body)}\r\n\r\n".encode()
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.begun = time.perf_counter()
        self.times: list[float] = []
        self._received: list[bytes] = []
        self.socket.sendall(head + body)

    def receive(self) -> bool:
        """Takes what has come; False at the end."""
        piece = self.socket.recv(1 << 16)
        self.times += [time.perf_counter()] * piece.count(b"data:")
        self._received.append(piece)
        return bool(piece)

    def tokens(self) -> list[int]:
        """The tokens that came."""
        lines = b"".join(self._received).decode().splitlines()
        if " 200 " not in lines[0]:
            raise SystemExit(lines[-1])
        events = [json.loads(line.removeprefix("data:")) for line in lines if line.startswith("data:")]
        return [event["token"]["id"] for event in events]


def run(streams: list[Stream]) -> None:
    """Reads streams to their ends."""
    with selectors.DefaultSelector() as selector:
        for stream in streams:
            selector.register(stream.socket, selectors.EVENT_READ, stream)
        while selector.get_map():
            for key, _ in selector.select():
                if not key.data.receive():
                    selector.unregister(key.fileobj)
                    key.fileobj.close()


def prompts(count: int, words: int) -> list[str]:
    """Texts of so many words, which begin differently."""
    text = (ROOT / "crates/centuple/src/calibration.txt").read_text().split()
    starts = [29 * place % len(text) for place in range(count)]
    return [" ".join((text + text)[start : start + words]) for start in starts]


def percentile(values: list[float], part: float) -> float:
    return sorted(values)[round(part * (len(values) - 1))]


def measure(options: argparse.Namespace, texts: list[str]) -> dict:
    """One round."""
    with Server(options) as server:
        run([Stream(server.port, "Warm up", 8)])
        lone = []
        for text in texts:
            lone.append(Stream(server.port, text, options.new))
            run(lone[-1:])
    with Server(options) as server:
        run([Stream(server.port, "Warm up", 8)])
        before = server.seconds()
        together = [Stream(server.port, text, options.new) for text in texts]
        run(together)
        processor = server.seconds() - before
    alone_tokens, tokens = [stream.tokens() for stream in lone], [stream.tokens() for stream in together]
    span = max(stream.times[-1] for stream in together) - min(stream.begun for stream in together)
    one = sum(map(len, alone_tokens)) / sum(stream.times[-1] - stream.begun for stream in lone)
    every = sum(map(len, tokens)) / span
    # While every stream goes on: from the last one's first token to the first one's last.
    window = max(stream.times[0] for stream in together), min(stream.times[-1] for stream in together)
    within = sum(window[0] < moment <= window[1] for stream in together for moment in stream.times)
    one_steady = sum(len(stream.times) - 1 for stream in lone) / sum(stream.times[-1] - stream.times[0] for stream in lone)
    all_steady = within / (window[1] - window[0]) if window[1] > window[0] else float("nan")
    gaps = [1e3 * (later - one) for stream in together for one, later in zip(stream.times, stream.times[1:], strict=False)]
    first = [1e3 * (stream.times[0] - stream.begun) for stream in together]
    return {
        "one_tokens_per_second": one,
        "all_tokens_per_second": every,
        "ratio": every / one,
        "one_steady": one_steady,
        "all_steady": all_steady,
        "steady_ratio": all_steady / one_steady,
        "first_token_ms": [percentile(first, 0.5), percentile(first, 0.95)],
        "between_tokens_ms": [percentile(gaps, 0.5), percentile(gaps, 0.95)],
        "processors_busy": processor / span,
        "equal": sum(map(list.__eq__, alone_tokens, tokens)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--binary", default=str(ROOT / "target/release/centuple"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="int8")
    parser.add_argument("--kv-precision", help="by default the server's own choice")
    parser.add_argument("--streams", type=int, default=32)
    parser.add_argument("--prompt", type=int, default=60, help="words of each prompt")
    parser.add_argument("--new", type=int, default=128, help="tokens of each answer")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", help="write all rounds to this file")
    options = parser.parse_args()
    texts = prompts(options.streams, options.prompt)
    rounds = []
    for _ in range(options.rounds):
        rounds.append(measure(options, texts))
        print(json.dumps(rounds[-1]), flush=True)
    plain = ("one_tokens_per_second", "all_tokens_per_second", "ratio", "one_steady", "all_steady", "steady_ratio")
    middle = {name: statistics.median(one[name] for one in rounds) for name in plain}
    for name in ("first_token_ms", "between_tokens_ms"):
        middle[name] = [statistics.median(one[name][place] for one in rounds) for place in (0, 1)]
    middle["equal"] = min(one["equal"] for one in rounds)
    print(
        f"{options.streams} streams, {options.precision}, keys and values {options.kv_precision or 'as by default'}: "
        f"{middle['all_tokens_per_second']:.0f} tokens/s, one alone {middle['one_tokens_per_second']:.0f}: "
        f"{middle['ratio']:.2f} times; without prompts {middle['all_steady']:.0f} and {middle['one_steady']:.0f}: "
        f"{middle['steady_ratio']:.2f} times; first token {middle['first_token_ms'][0]:.0f} ms (p95 "
        f"{middle['first_token_ms'][1]:.0f}), between tokens {middle['between_tokens_ms'][0]:.1f} ms (p95 "
        f"{middle['between_tokens_ms'][1]:.1f}); {middle['equal']} of {options.streams} equal to those alone"
    )
    if options.json:
        Path(options.json).write_text(json.dumps({"rounds": rounds, "median": middle}, indent=1))


if __name__ == "__main__":
    main()
