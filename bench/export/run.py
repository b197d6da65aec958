#!/usr/bin/env python3
"""Times the ONNX files of `centuple export` beside Optimum's of the same model, in ONNX Runtime.

usage: run.py MODEL_FOLDER [--binary PATH] [--threads N] [--rounds N] [--shapes 1x16,8x64,...] [--cpu-time] [--output FILE.json]

Ours: model_optimized.onnx and model_quantized.onnx. Optimum's: its export at O2 and O3, and its dynamic quantisation per
channel of that export. Rounds go through all files in turn; medians are compared. Makes its own environment from
scripts/goldens/requirements-onnx.txt.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GOLDENS = ROOT / "scripts" / "goldens"
sys.path[:0] = [str(GOLDENS), str(ROOT / "scripts")]

import environment  # noqa: E402

# Ours → theirs, of the same precision.
RIVALS = {"model_optimized": ["O2", "O3"], "model_quantized": ["optimum int8"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--binary", type=Path, default=ROOT / "target" / "release" / "centuple")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--shapes", default="1x16,1x128,8x32,8x128")
    parser.add_argument("--cpu-time", action="store_true", help="processor time of the one thread: for machines that do other work too")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    environment.enter(GOLDENS / "requirements-onnx.txt", GOLDENS / ".venv-onnx")
    with tempfile.TemporaryDirectory() as scratch:
        files = _ours(arguments, Path(scratch) / "ours") | _optimums(arguments.model, Path(scratch))
        sessions = {name: _session(path, arguments.threads) for name, path in files.items()}
    shapes = [tuple(int(number) for number in shape.split("x")) for shape in arguments.shapes.split(",")]
    assert arguments.threads == 1 or not arguments.cpu_time, "--cpu-time sees one thread only"
    clock = time.thread_time if arguments.cpu_time else time.perf_counter
    table = {f"{batch}x{length}": _time(sessions, batch, length, arguments.rounds, clock) for batch, length in shapes}
    _print(table)
    if arguments.output:
        arguments.output.write_text(json.dumps({"model": arguments.model.name, "threads": arguments.threads, "median_ms": table}, indent=1))


def _ours(arguments, target: Path) -> dict[str, Path]:
    subprocess.run([arguments.binary, "export", arguments.model, "-o", target], check=True, capture_output=True)
    return {name: target / f"{name}.onnx" for name in ("model", "model_optimized", "model_quantized")}


def _optimums(model: Path, scratch: Path) -> dict[str, Path]:
    import onnx_exports

    export = scratch / "optimum"
    library = "sentence_transformers" if (model / "modules.json").is_file() else "transformers"
    onnx_exports.optimum(model, "auto" if library == "transformers" else "feature-extraction", export / "model.onnx", library)
    files = {"optimum": export / "model.onnx"}
    for level in ("O2", "O3"):
        onnx_exports.optimum_level(export, level, scratch / level)
        files[level] = scratch / level / "model_optimized.onnx"
    onnx_exports.optimum_quantized(export / "model.onnx", scratch / "quantized", per_channel=True)
    return files | {"optimum int8": scratch / "quantized" / "model_quantized.onnx"}


def _session(path: Path, threads: int):
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads, settings.log_severity_level = threads, 3
    return onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])


def _time(sessions: dict, batch: int, length: int, rounds: int, clock) -> dict[str, float]:
    """The median of each file, in ms; each round runs all of them, in an order that moves on."""
    import numpy

    ids = numpy.random.default_rng(0).integers(1000, 20000, (batch, length))
    every = {"input_ids": ids, "attention_mask": numpy.ones_like(ids), "token_type_ids": numpy.zeros_like(ids)}
    feeds = {name: {value.name: every[value.name] for value in session.get_inputs()} for name, session in sessions.items()}
    times = {name: [] for name in sessions}
    names = list(sessions)
    for turn in range(-2, rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            start = clock()
            sessions[name].run(None, feeds[name])
            if turn >= 0:
                times[name].append(1000 * (clock() - start))
    return {name: statistics.median(taken) for name, taken in times.items()}


def _print(table: dict[str, dict[str, float]]) -> None:
    print("| batch | " + " | ".join(next(iter(table.values()))) + " |")
    print("|" + "---|" * (1 + len(next(iter(table.values())))))
    for shape, medians in table.items():
        print(f"| {shape} | " + " | ".join(f"{median:.2f} ms" for median in medians.values()) + " |")
    for ours, rivals in RIVALS.items():
        for rival in rivals:
            ratios = ", ".join(f"{shape} {medians[rival] / medians[ours]:.2f}" for shape, medians in table.items())
            print(f"{ours} is faster than {rival} by: {ratios}")


if __name__ == "__main__":
    main()
