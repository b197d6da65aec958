#!/usr/bin/env python3
"""Measures Centuple beside other engines on this machine: same checkpoint, same shapes, same number of threads.

    run.py MODEL [--shapes 1x16,8x128] [--rounds 9] [--peers onnxruntime,...] [--without-product]

Makes its own Python environment in .env beside this file. Every system runs in its own process; in every round all of
them take their turn in random order, with a pause between them because workers spin on for a while after a run.
Only ratios within one report mean anything. Writes out/report.md and out/report.json.
"""

import argparse
import hashlib
import json
import os
import platform
import random
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

import environment  # noqa: E402


def main() -> None:
    options = _options()
    environment.enter(HERE / "requirements.txt", HERE / ".env")

    import agreement
    import report
    from systems import Peer, Product

    prepared = _prepared(options.model)
    systems = [Peer(name, options.model, prepared, options.threads) for name in options.peers]
    if not options.without_product:
        systems.insert(0, Product(options.binary, options.model, options.threads))
    cosines = agreement.check(options.model, systems)
    results = {shape: _rounds(shape, systems, options) for shape in options.shapes}
    for system in systems:
        system.close()

    config = json.loads((options.model / "config.json").read_text())
    machine = f"{_processor()}, {options.threads} threads, {platform.system()} {platform.release()}"
    notes = [f"- {system.name}: {system.note}; cosine {cosines[system.name]:.6f}" for system in systems]
    title = f"{options.model.name}, {options.rounds} rounds, {machine}"
    text = "\n".join([f"# {title}", "", report.table(results, config), "", *notes, ""])
    report.write(HERE / "out", text, results, {"title": title, "notes": notes})
    print(text)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder of a BERT checkpoint")
    parser.add_argument("--shapes", default="1x16,1x128,8x128,32x64", help="batch x tokens, comma-separated")
    parser.add_argument("--rounds", type=int, default=9, help="turns that every system takes at every shape")
    parser.add_argument("--seconds", type=float, default=0.5, help="about how long one turn lasts")
    parser.add_argument("--pause-ms", type=float, default=50, help="pause between two turns (at least 30)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="threads of every system")
    parser.add_argument("--peers", help="comma-separated; default: all")
    parser.add_argument("--binary", type=Path, default=ROOT / "target" / "release" / "centuple")
    parser.add_argument("--without-product", action="store_true", help="measure the peers alone")
    options = parser.parse_args()

    sys.path.insert(0, str(HERE))
    from engines import PEERS
    from systems import Shape

    options.shapes = [Shape.parse(shape) for shape in options.shapes.split(",")]
    options.peers = options.peers.split(",") if options.peers else list(PEERS)
    if unknown := set(options.peers) - set(PEERS):
        parser.error(f"no peer named {', '.join(unknown)}; there are {', '.join(PEERS)}")
    if not options.without_product and not options.binary.is_file():
        parser.error(f"{options.binary} is missing: run cargo build --release, or pass --without-product")
    return options


def _prepared(model: Path) -> Path:
    """The folder of the exported graphs of these very weights, made on first use."""
    weights = hashlib.sha256((model / "model.safetensors").read_bytes()).hexdigest()
    folder = HERE / "out" / "prepared" / weights[:16]
    if not (folder / "optimised.json").is_file():
        print(f"exporting {model} to ONNX", file=sys.stderr)
        subprocess.run([sys.executable, "-W", "ignore", str(HERE / "prepare.py"), str(model), str(folder)], check=True)
    return folder


def _rounds(shape, systems: list, options: argparse.Namespace) -> list[dict]:
    """All rounds of one shape: for each the measurement of every system by name."""
    slowest = max(system.measure(shape, 3, seed=0).median_ms for system in systems)
    repeat = max(3, min(200, round(options.seconds * 1e3 / slowest)))
    rounds = []
    for number in range(options.rounds):
        turns = {}
        for system in random.sample(systems, len(systems)):
            time.sleep(max(30, options.pause_ms) / 1e3)
            turns[system.name] = system.measure(shape, repeat, seed=number)
        rounds.append({system.name: turns[system.name] for system in systems})
        print(f"{shape} round {number + 1} of {options.rounds}, {repeat} repeats", file=sys.stderr)
    return rounds


def _processor() -> str:
    """The processor's own name for itself."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


if __name__ == "__main__":
    main()
