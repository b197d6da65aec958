#!/usr/bin/env python3
"""Shows step by step how much faster Centuple is than a pipeline of transformers behind FastAPI.

    run.py [--models DIR] [--model TASK=DIR] [--tasks TASK,TASK] [--rounds 5] [--seconds 1.5] [--out docs]

Each step is the real server with all that later steps bring left out (`centuple serve --without`). Makes its own Python
environment in .env beside this file. Build first: cargo build --release --workspace. Writes hundredfold.{md,json,svg}.
"""

import argparse
import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[1:1] = [str(ROOT / "scripts"), str(HERE.parent / "peers")]

import environment  # noqa: E402

PACKAGED = Path.home() / ".cache" / "centuple-test-models"


def main() -> None:
    environment.enter(HERE / "requirements.txt", HERE / ".env")

    import measure
    import page
    from company import Company
    from ladder import tasks

    options = _options()
    settings = measure.Settings(options.binary, options.threads, options.rounds, options.seconds, options.checked)
    ladders, absent, company = [], {}, Company()
    for task in tasks(options.new_tokens):
        if options.tasks and task.name not in options.tasks:
            continue
        try:
            model = task.checkpoint(_folder(task, options))
        except (OSError, StopIteration) as reason:
            absent[task.name] = f"{task.model} is not there ({reason})"
            print(f"{task.name} is left out: {absent[task.name]}", file=sys.stderr)
            continue
        ladders.append(measure.climb(task, model, settings))
        # After each task, so that what was measured is there whatever happens to the next.
        page.write(options.out, ladders, absent, page.where(options, company))
    if not ladders:
        sys.exit("there is no model to measure; see --help")
    print((options.out / "hundredfold.md").read_text(encoding="utf-8"))
    wrong = [
        f"{ladder.task.name}: {name}: {verdict.text}"
        for ladder in ladders
        for name, verdict in ladder.verdicts.items()
        if not verdict.agrees
    ]
    if wrong:
        sys.exit("answers differ, so these times mean nothing:\n" + "\n".join(wrong))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, action="append", default=[PACKAGED], help="folders of model folders")
    parser.add_argument("--model", action="append", default=[], metavar="TASK=DIR", help="the model of one task")
    parser.add_argument("--tasks", type=lambda names: names.split(","), help="comma-separated; default: all")
    parser.add_argument("--rounds", type=int, default=5, help="turns that every system takes")
    parser.add_argument("--seconds", type=float, default=1.5, help="about how long a load lasts; two are a turn")
    parser.add_argument("--checked", type=int, default=40, help="answers compared; a twentieth as many generated ones")
    parser.add_argument("--new-tokens", type=int, default=64, help="tokens that a text is continued by")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="threads of Centuple")
    parser.add_argument("--binary", type=Path, default=ROOT / "target" / "release" / "centuple")
    parser.add_argument("--out", type=Path, default=ROOT / "docs")
    options = parser.parse_args()
    if not options.binary.is_file():
        parser.error(f"{options.binary} is missing: run cargo build --release --workspace")
    options.model = dict(choice.split("=", 1) for choice in options.model)
    return options


def _folder(task, options: argparse.Namespace) -> Path:
    """Where the task's model lies."""
    if task.name in options.model:
        return Path(options.model[task.name])
    found = [folder / task.model for folder in options.models if (folder / task.model).is_dir()]
    if not found:
        raise FileNotFoundError(f"no {task.model} in {' or '.join(map(str, options.models))}")
    return found[0]


if __name__ == "__main__":
    main()
