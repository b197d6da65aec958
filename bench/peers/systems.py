"""What is measured: the peers, each a worker process that stays, and the product, started anew for each measurement."""

import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

WARM_UP = 3
# Workers that spin on after a run would rob whoever takes the next turn: Intel's OpenMP does so for 200 ms.
WORKER_ENVIRONMENT = {"KMP_BLOCKTIME": "20", "OPENBLAS_NUM_THREADS": "1"}


class Unavailable(Exception):
    """A system that cannot take part, and why."""


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
    """Milliseconds of one batch, over the repeats of one round; in GMAC/s the ceilings that the system measured."""

    median_ms: float
    min_ms: float
    f32_ceiling: float | None = None
    int8_ceiling: float | None = None


class Peer:
    """A peer in its worker process."""

    def __init__(self, name: str, model: Path, artefact: Path | None, threads: int):
        """Raises `Unavailable` if the engine cannot be made."""
        self.name = name
        worker = Path(__file__).with_name("worker.py")
        command = [sys.executable, "-W", "ignore", str(worker), name, str(model), str(artefact or ""), str(threads)]
        environment = os.environ | WORKER_ENVIRONMENT | {"RAYON_NUM_THREADS": str(threads)}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._process = subprocess.Popen(command, env=environment, **pipes)
        greeting = self._reply()
        if "error" in greeting:
            raise Unavailable(greeting["error"])
        self.note = greeting["note"]

    def measure(self, shape: Shape, repeat: int, seed: int) -> Measurement:
        """Times one shape on random tokens."""
        request = {"batch": shape.batch, "tokens": shape.tokens, "seed": seed, "warm_up": WARM_UP, "repeat": repeat}
        times = self._ask("time", request)["times_ms"]
        return Measurement(statistics.median(times), min(times))

    def embed(self, sequences: list[list[int]], batch: int) -> list[list[float]]:
        """The pooled vector of each sequence, in padded batches in the order given."""
        return self._ask("embed", {"sequences": sequences, "batch": batch})["vectors"]

    def texts_seconds(self, texts: list[str], batch: int, sort: bool) -> float:
        """Seconds from texts to vectors in padded batches."""
        return self._ask("texts", {"texts": texts, "batch": batch, "sort": sort})["seconds"]

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()

    def _ask(self, request: str, parameters: dict) -> dict:
        self._process.stdin.write(json.dumps({request: parameters}) + "\n")
        self._process.stdin.flush()
        return self._reply()

    def _reply(self) -> dict:
        line = self._process.stdout.readline()
        if not line:
            raise Unavailable(f"its worker ended with code {self._process.wait()}")
        return json.loads(line)


class Product:
    """The `centuple` binary in one precision."""

    name = "centuple"

    def __init__(self, binary: Path, model: Path, precision: str, threads: int):
        """Raises `Unavailable` if the binary cannot run the model so."""
        # Without a folder in front, a name would be looked up in PATH.
        self.binary, self.model = binary.resolve(), model
        device, _, of = precision.rpartition("-")
        self.settings = ["--precision", of, "--device", device or "cpu", "--threads", str(threads)]
        self.measure(Shape(1, 8), 1, seed=0)
        self.note = f"{self._command('--version').strip()}, {precision}"

    def measure(self, shape: Shape, repeat: int, seed: int) -> Measurement:
        """Times one shape; the product draws its own random tokens, so `seed` has no effect."""
        arguments = ["--shapes", str(shape), "--repeat", str(repeat), "--json"]
        row = json.loads(self._command("bench", str(self.model), *self.settings, *arguments))
        ceilings = row.get("ceiling_gmacs"), row.get("int8_ceiling_gmacs")
        return Measurement(row["median_ms"], row["min_ms"], *ceilings)

    def features(self, texts: list[str]) -> list:
        """What feature-extraction answers to each text."""
        return [json.loads(line) for line in self._features(texts).splitlines()]

    def texts_seconds(self, texts: list[str]) -> float:
        """Seconds of a whole `centuple run`, from its start to its end."""
        start = time.perf_counter()
        replies = self._features(texts).count("\n")
        seconds = time.perf_counter() - start
        if replies != len(texts):
            raise Unavailable(f"`run` gave {replies} replies to {len(texts)} texts")
        return seconds

    def close(self) -> None:
        """Nothing stays between two measurements."""

    def _features(self, texts: list[str]) -> str:
        lines = "".join(json.dumps({"inputs": text}) + "\n" for text in texts)
        return self._command("run", "feature-extraction", str(self.model), *self.settings, given=lines)

    def _command(self, *arguments: str, given: str = "") -> str:
        finished = subprocess.run(
            [str(self.binary), *arguments], input=given, capture_output=True, text=True, check=False
        )
        if finished.returncode != 0:
            raise Unavailable(f"`centuple {arguments[0]}` failed: {last_line(finished.stderr)}")
        return finished.stdout


def last_line(text: str) -> str:
    """The line of an error output that says most: the first with `error`, or else the last one."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    said = [line for line in lines if line.lower().startswith("error")]
    return (said or lines[-1:] or ["it printed no reason"])[0]
