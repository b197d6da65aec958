"""One peer in one process: `worker.py PEER MODEL ARTEFACT THREADS PROMPT NEW REPEATS`, one JSON line out.

    {"note": ..., "prefill_s": [...], "step_s": [...]}    or, if the peer cannot work here,    {"error": ...}
"""

import json
import os
import sys
from pathlib import Path


def main() -> None:
    name, model, artefact, *numbers = sys.argv[1:]
    threads, prompt, new, repeats = map(int, numbers)
    os.environ["OMP_NUM_THREADS"] = str(threads)
    # Libraries that print must not end up in the reply.
    reply = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        answer = measure(name, Path(model), Path(artefact) if artefact else None, threads, (prompt, new, repeats))
    except Exception as error:  # whatever keeps a peer from working belongs into the report
        answer = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(answer), file=reply, flush=True)


def measure(name: str, model: Path, artefact: Path | None, threads: int, numbers: tuple[int, int, int]) -> dict:
    import engines

    prompt, new, repeats = numbers
    engine = engines.PEERS[name].engine(model, artefact, threads)
    tokens = [100 + 37 * token % 1009 for token in range(prompt)]
    engine.run(tokens, 2)
    times = [engine.run(tokens, new) for _ in range(repeats)]
    return {"note": engine.note, "prefill_s": [one for one, _ in times], "step_s": [all / new for _, all in times]}


if __name__ == "__main__":
    main()
