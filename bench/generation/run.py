#!/usr/bin/env python3
"""How fast one sequence is read and goes on: every precision beside other engines and beside what memory allows.

    run.py MODEL [--prompt 128] [--new 128] [--uncached-new 256] [--rounds 5] [--threads 2] [--peers ...]

`MODEL` is the folder of a Llama checkpoint with `model.safetensors` (SmolLM2-135M); a GPT-2 with random weights is made
beside it. Makes its own environment (`.env`, pinned in `requirements.txt`; llama.cpp is compiled there, which takes a
while), builds the example `generation`, and writes a table and every measurement to `out/report.{md,json}`.

In each round all systems run in random order, each in a process of its own that has ended before the next one begins.
A ratio is the median over the rounds of the ratio within a round. A step's bound is the time that reading the weights,
keys and values takes at the bandwidth that the same process measures just before and after it.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
EXAMPLE = ROOT / "target" / "release" / "examples" / "generation"
PRECISIONS = ["f32", "f16", "int8", "int4"]
sys.path += [str(ROOT / "scripts"), str(HERE.parent / "peers")]

import environment  # noqa: E402
import machine  # noqa: E402


@dataclass(frozen=True)
class Model:
    """A checkpoint under the name by which peers are chosen, and how many tokens are generated."""

    name: str
    folder: Path
    new: int


def product(model: Model, precision: str, arguments: argparse.Namespace) -> dict:
    """What the example says of one precision."""
    numbers = [str(number) for number in (arguments.prompt, model.new, arguments.threads)]
    line = subprocess.run(
        [EXAMPLE, model.folder, *numbers, precision, "--json"], check=True, capture_output=True, text=True
    ).stdout
    found = json.loads(line)
    return {"prefill_s": found["prefill_s"], "step_s": found["step_s"], "more": found}


def peer(model: Model, name: str, arguments: argparse.Namespace) -> dict:
    """What a peer's process says, by its medians."""
    import engines

    kind = engines.PEERS[name].artefact
    made = out(model) / kind if kind else ""
    if kind and not made.exists():
        command = [sys.executable, HERE / "prepare.py", kind, model.folder, out(model)]
        subprocess.run(command, check=True, stdout=sys.stderr)
    numbers = [str(number) for number in (arguments.threads, arguments.prompt, model.new, arguments.repeats)]
    command = [sys.executable, HERE / "worker.py", name, model.folder, made, *numbers]
    answer = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    if "error" in answer:
        return answer
    return {key: statistics.median(answer[key]) for key in ("prefill_s", "step_s")} | {"note": answer["note"]}


def out(model: Model) -> Path:
    """Where what is made of a model lies."""
    return HERE / "out" / model.name


def measure(model: Model, peers: list[str], arguments: argparse.Namespace) -> list[dict[str, dict]]:
    """The rounds of one model: what each system took, by its name."""
    systems = {f"centuple {precision}": (product, precision) for precision in arguments.precisions}
    systems |= {name: (peer, name) for name in peers}
    rounds = []
    for _ in range(arguments.rounds):
        order = random.sample(list(systems), len(systems))
        row = {}
        for name in order:
            run, which = systems[name]
            row[name] = run(model, which, arguments)
            time.sleep(arguments.pause)
        rounds.append({name: row[name] for name in systems})
        print(json.dumps({"model": model.name, "new": model.new} | rounds[-1]), file=sys.stderr)
    return rounds


def table(model: Model, rounds: list[dict[str, dict]], prompt: int) -> str:
    """One line for each system, and what it is beside every precision of the product."""
    ours = [name for name in rounds[0] if name.startswith("centuple ")]
    lines = [f"## {model.name}: {prompt} tokens, then {model.new}", ""]
    heads = ["system", "prompt tokens/s", "new tokens/s", "share of the bound"]
    heads += [f"{name.split()[1]} beside it: prompt, new" for name in ours]
    lines += ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for name in rounds[0]:
        rows = [row for row in rounds if "error" not in row[name]]
        if not rows:
            lines.append(f"| {name} | absent: {rounds[0][name]['error']} |" + " |" * (len(heads) - 2))
            continue
        read = statistics.median(prompt / row[name]["prefill_s"] for row in rows)
        written = statistics.median(1 / row[name]["step_s"] for row in rows)
        cells = [name, f"{read:.0f}", f"{written:.1f}", share(rows, name)]
        cells += [ratios(rows, name, one) if name not in ours else "" for one in ours]
        lines.append("| " + " | ".join(cells) + " |")
    notes = {name: one["note"] for name, one in rounds[0].items() if "note" in one}
    return "\n".join([*lines, "", *(f"- {name}: {note}" for name, note in notes.items())])


def share(rows: list[dict[str, dict]], name: str) -> str:
    """The bound of a step to its time."""
    if "more" not in rows[0][name]:
        return ""
    found = [row[name]["more"] for row in rows]
    shares = ", ".join(f"{100 * one['share']:.0f}" for one in found)
    megabytes, bandwidth = found[0]["bytes"] / 1e6, statistics.median(one["bandwidth"] for one in found) / 1e9
    median = 100 * statistics.median(one["share"] for one in found)
    return f"{median:.0f} % of {megabytes:.0f} MB at {bandwidth:.1f} GB/s (by round {shares})"


def ratios(rows: list[dict[str, dict]], name: str, one: str) -> str:
    """How many times faster a precision of the product is than a peer."""
    found = [statistics.median(row[name][key] / row[one][key] for row in rows) for key in ("prefill_s", "step_s")]
    return ", ".join(f"{ratio:.2f}x" for ratio in found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--new", type=int, default=128)
    parser.add_argument("--uncached-new", type=int, default=256, help="beside the peer without a cache; 0: not at all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=2, help="runs of a peer in each round")
    parser.add_argument("--pause", type=float, default=0.5, help="seconds between two processes")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--no-build", action="store_true", help="take the example as it was built last")
    parser.add_argument("--peers", help="some of them, by comma")
    parser.add_argument("--precisions", default=",".join(PRECISIONS))
    arguments = parser.parse_args()
    arguments.precisions = arguments.precisions.split(",")
    environment.enter(HERE / "requirements.txt", HERE / ".env")
    import engines

    wanted = arguments.peers.split(",") if arguments.peers else list(engines.PEERS)
    unknown = [name for name in wanted if name not in engines.PEERS]
    if unknown:
        sys.exit(f"unknown: {', '.join(unknown)}; known: {', '.join(engines.PEERS)}")
    build = ["cargo", "build", "--release", "--locked", "--workspace", "--example", "generation"]
    if not arguments.no_build:
        subprocess.run(build, cwd=ROOT, check=True)
    first = Model("smollm2", arguments.model, arguments.new)
    gpt2 = Model("gpt2", HERE / "out" / "gpt2" / "gpt2", arguments.new)
    uncached = Model("smollm2", arguments.model, arguments.uncached_new)
    if not gpt2.folder.exists():
        subprocess.run([sys.executable, HERE / "prepare.py", "gpt2", arguments.model, out(gpt2)], check=True)
    tables, data = [f"# One sequence\n\n{machine.describe(arguments.threads)}"], []
    for model, of in ((first, "llama"), (gpt2, "gpt2"), (uncached, "uncached")):
        peers = [name for name in wanted if of in engines.PEERS[name].beside]
        if peers and model.new:
            rounds = measure(model, peers, arguments)
            tables.append(table(model, rounds, arguments.prompt))
            data.append({"model": model.name, "prompt": arguments.prompt, "new": model.new, "rounds": rounds})
            # After each table, as the next one may be interrupted.
            (HERE / "out" / "report.md").write_text("\n\n".join(tables) + "\n")
            (HERE / "out" / "report.json").write_text(json.dumps(data, indent=1))
    print("\n\n".join(tables))


if __name__ == "__main__":
    main()
