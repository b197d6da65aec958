"""One peer in one process: `worker.py PEER MODEL ARTEFACT THREADS`, JSON lines in, JSON lines out.

    {"time": {"batch": 8, "tokens": 128, "seed": 1, "warm_up": 3, "repeat": 20}}  ->  {"times_ms": [...]}
    {"embed": {"sequences": [[101, 102]], "batch": 32}}                           ->  {"vectors": [[...]]}
    {"texts": {"texts": ["..."], "batch": 32, "sort": true}}                      ->  {"seconds": 1.5}

The first line out is {"note": ...}, or {"error": ...} if the peer cannot work here. Ends when its input ends.
"""

import json
import os
import sys
import time
from pathlib import Path


def main() -> None:
    name, model, artefact, threads = sys.argv[1:]
    # Libraries that print must not end up between the replies.
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    try:
        desk = Desk(name, Path(model), Path(artefact) if artefact else None, int(threads))
    except Exception as error:  # whatever keeps a peer from working belongs into the report
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}), file=replies)
        return
    print(json.dumps({"note": desk.engine.note}), file=replies)
    for line in sys.stdin:
        [(request, parameters)] = json.loads(line).items()
        print(json.dumps(getattr(desk, request)(**parameters)), file=replies)


class Desk:
    """Answers each request with one engine; a method a request."""

    def __init__(self, name: str, model: Path, artefact: Path | None, threads: int):
        import engines
        from recipe import Recipe

        self.engine = engines.engine(name)(model, artefact, threads)
        self._recipe = Recipe(model)
        self._vocabulary = json.loads((model / "config.json").read_text())["vocab_size"]

    def time(self, batch: int, tokens: int, seed: int, warm_up: int, repeat: int) -> dict:
        """Milliseconds of each repeat on random tokens, without tokenising and pooling."""
        import numpy

        ids = numpy.random.default_rng(seed).integers(0, self._vocabulary, (batch, tokens), numpy.int64)
        mask = numpy.ones_like(ids)
        times = []
        for _ in range(warm_up + repeat):
            start = time.perf_counter()
            self.engine.run(ids, mask)
            times.append((time.perf_counter() - start) * 1e3)
        return {"times_ms": times[warm_up:]}

    def embed(self, sequences: list[list[int]], batch: int) -> dict:
        """The pooled vector of each sequence, computed in batches in the order given."""
        return {"vectors": [vector.tolist() for vector in self._pooled(sequences, batch)]}

    def texts(self, texts: list[str], batch: int, sort: bool) -> dict:
        """Seconds from texts to vectors: tokenising, batching (sorted by length or as given), running, pooling."""
        start = time.perf_counter()
        sequences = self._recipe.encode(texts)
        order = sorted(range(len(texts)), key=lambda index: len(sequences[index])) if sort else range(len(texts))
        vectors = self._pooled([sequences[index] for index in order], batch)
        answers = dict(zip(order, vectors, strict=True))
        return {"seconds": time.perf_counter() - start, "answers": len(answers)}

    def _pooled(self, sequences: list[list[int]], batch: int) -> list:
        from recipe import pad

        vectors = []
        for start in range(0, len(sequences), batch):
            ids, mask = pad(sequences[start : start + batch])
            vectors.extend(self._recipe.pool(self.engine.run(ids, mask), mask))
        return vectors


if __name__ == "__main__":
    main()
