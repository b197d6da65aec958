"""What is measured: the peers, each a worker process that stays, and the product, started anew for each measurement."""

import json
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

WARM_UP = 3


@dataclass(frozen=True)
class Shape:
    """A batch of sequences of equal length."""

    batch: int
    tokens: int

    @classmethod
    def parse(cls, text: str) -> "Shape":
        batch, tokens = text.split("x")
        return cls(int(batch), int(tokens))

    def __str__(self) -> str:
        return f"{self.batch}x{self.tokens}"


@dataclass(frozen=True)
class Measurement:
    """Milliseconds of one batch, over the repeats of one round; the f32 FMA ceiling where the system measured it."""

    median_ms: float
    min_ms: float
    ceiling_gmacs: float | None = None


class Peer:
    """A peer in its worker process."""

    def __init__(self, name: str, model: Path, prepared: Path, threads: int):
        self.name = name
        worker = Path(__file__).with_name("worker.py")
        command = [sys.executable, str(worker), name, str(model), str(prepared), str(threads)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.note = self._reply()["note"]

    def measure(self, shape: Shape, repeat: int, seed: int) -> Measurement:
        request = {"batch": shape.batch, "tokens": shape.tokens, "seed": seed, "warm_up": WARM_UP, "repeat": repeat}
        times = self._ask(request)["times_ms"]
        return Measurement(statistics.median(times), min(times))

    def hidden(self, ids: list[int]) -> list[list[float]]:
        """The last hidden state of one sequence, [tokens, hidden]."""
        return self._ask({"ids": [ids]})["hidden"][0]

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()

    def _ask(self, request: dict) -> dict:
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._reply()

    def _reply(self) -> dict:
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"the worker of {self.name} ended with code {self._process.wait()}")
        return json.loads(line)


class Product:
    """The `centuple` binary."""

    name = "centuple"

    def __init__(self, binary: Path, model: Path, threads: int):
        self._binary, self._model, self._threads = binary, model, str(threads)
        self.note = f"{self._command('--version').strip()}, f32, {threads} threads"

    def measure(self, shape: Shape, repeat: int, seed: int) -> Measurement:
        arguments = ["--shapes", str(shape), "--precision", "f32", "--threads", self._threads]
        line = self._command("bench", str(self._model), *arguments, "--repeat", str(repeat), "--json")
        row = json.loads(line)
        return Measurement(row["median_ms"], row["min_ms"], row.get("ceiling_gmacs"))

    def features(self, texts: list[str]) -> list:
        """What feature-extraction answers to each text."""
        lines = "".join(json.dumps({"inputs": text}) + "\n" for text in texts)
        replies = self._command("run", "feature-extraction", str(self._model), given=lines)
        return [json.loads(line) for line in replies.splitlines()]

    def close(self) -> None:
        pass

    def _command(self, *arguments: str, given: str = "") -> str:
        return subprocess.run(
            [str(self._binary), *arguments], input=given, stdout=subprocess.PIPE, text=True, check=True
        ).stdout
