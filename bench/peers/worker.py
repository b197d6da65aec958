"""One peer in one process: `worker.py PEER MODEL PREPARED THREADS`, JSON lines in, JSON lines out.

    {"batch": 8, "tokens": 128, "seed": 1, "warm_up": 3, "repeat": 20}  ->  {"times_ms": [...]}
    {"ids": [[101, 102]]}                                               ->  {"hidden": [[[...]]]}

The first line out is {"note": ...}. Ends when its input ends.
"""

import json
import os
import sys
import time
from pathlib import Path

import numpy

import engines


def main() -> None:
    name, model, prepared, threads = sys.argv[1:]
    # Libraries that print must not end up between the replies.
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    vocabulary = json.loads((Path(model) / "config.json").read_text())["vocab_size"]
    engine = engines.engine(name)(Path(model), Path(prepared), int(threads))
    print(json.dumps({"note": engine.note}), file=replies)
    for line in sys.stdin:
        request = json.loads(line)
        if "ids" in request:
            reply = {"hidden": engine.run(numpy.array(request["ids"], numpy.int64)).tolist()}
        else:
            reply = {"times_ms": _time(engine, request, vocabulary)}
        print(json.dumps(reply), file=replies)


def _time(engine, request: dict, vocabulary: int) -> list[float]:
    shape = (request["batch"], request["tokens"])
    ids = numpy.random.default_rng(request["seed"]).integers(0, vocabulary, shape, numpy.int64)
    times = []
    for _ in range(request["warm_up"] + request["repeat"]):
        start = time.perf_counter()
        engine.run(ids)
        times.append((time.perf_counter() - start) * 1e3)
    return times[request["warm_up"] :]


if __name__ == "__main__":
    main()
