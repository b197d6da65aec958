"""All tasks as a page, as data and as a chart."""

import argparse
import importlib.metadata
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import chart
import machine
from company import Company
from report import table
from report_of_task import Ladder, ratio

ABOUT = """\
What each stage brings over what people deploy first: the pipeline of transformers behind FastAPI and uvicorn, one
worker, PyTorch in f32 on all cores. Every row is a real server that gets the same texts over HTTP, one text a
request, none of them twice, so that no cache could answer.

![How many times faster each stage is]({name}.svg)

Ratios are to the first row of a table; a step is the ratio to the row before. They are medians over the rounds of
what was measured within a round, in which all servers took their turn in random order. Latency is what one client
waits; throughput is what one client or many got answered, whichever was more. The client is one Python thread on the
same cores. Answers are compared with the deployment's: f32 has to give the same, int8 costs what the last column
says. Greedy texts of int8 part from those of f32 at the first place where two tokens are nearly as likely; what that
costs is measured as perplexity in [generation.md](generation.md).

| row | what the server does |
| --- | --- |
| + runtime | Centuple in f32; ops one by one, texts one by one |
| + fusion | ops are fused |
| + int8 | linear layers in 8-bit integers, calibrated on texts that are shipped |
| + KV cache | keys and values of a text that is generated are kept |
| + batching | texts that wait are computed together, padded to the longest one where they have different lengths |
| + packing | nothing is padded |

Packing comes after batching, since a text alone has no padding. A text alone also keeps all cores busy, so batches
with padding may lose more than they bring; packed ones don't. What padding costs is understated a little: the tokens
that are missing are computed beside each text and thrown away, so attention has less to do than over padded texts.
Fusion brings little, probably because the runtime has ops that follow each other work on rows that stay in a core's
cache, fused or not. Where texts are generated, nothing is padded, and the pipeline keeps keys and values too; the
second row shows it without.

Made by `python3 bench/hundredfold/run.py`."""


def where(options: argparse.Namespace, company: Company) -> str:
    """What the figures are true of."""
    settings = f"{options.rounds} rounds, loads of about {options.seconds:g} s"
    others = f"other processes took {100 * company.share():.1f} % of the processors' time"
    return f"{machine.describe(options.threads)}; {_versions(options.binary)}; {settings}; {others}"


def write(folder: Path, ladders: list[Ladder], absent: dict[str, str], measured_on: str) -> None:
    """Writes hundredfold.md, hundredfold.json and hundredfold.svg."""
    name = "hundredfold"
    missing = "".join(f"\n\n{task} is left out: {reason}." for task, reason in absent.items())
    parts = ["# The hundredfold chart", ABOUT.format(name=name), _summary(ladders), *map(Ladder.markdown, ladders)]
    text = "\n\n".join([*parts, f"Measured on {measured_on}.{missing}"]) + "\n"
    data = {"measured_on": measured_on, "tasks": [ladder.data() for ladder in ladders], "absent": absent}
    folder.mkdir(parents=True, exist_ok=True)
    drawing = chart.draw("Times as fast as a pipeline of transformers behind FastAPI", _panels(ladders), "+ ")
    for ending, content in {"md": text, "json": json.dumps(data), "svg": drawing}.items():
        (folder / f"{name}.{ending}").write_text(content, encoding="utf-8")


def _summary(ladders: list[Ladder]) -> str:
    rows = [
        [ladder.task.name, ladder.task.model, ratio(ladder.faster(ladder.last)), ratio(ladder.more(ladder.last))]
        for ladder in ladders
    ]
    return table(["task", "model", "latency", "throughput"], rows)


def _panels(ladders: list[Ladder]) -> list[chart.Panel]:
    def groups(times: Callable[[Ladder, str], float]) -> dict[str, list[tuple[str, float]]]:
        return {
            ladder.task.name: [(stage, times(ladder, stage)) for stage in ladder.stages] for ladder in ladders
        }

    return [
        chart.Panel("Latency, one client", groups(Ladder.faster), "x"),
        chart.Panel("Throughput, as many clients as needed", groups(Ladder.more), "x"),
    ]


def _versions(binary: Path) -> str:
    own = subprocess.run([str(binary), "--version"], capture_output=True, text=True, check=True).stdout.strip()
    packages = ["transformers", "torch", "fastapi", "uvicorn"]
    return ", ".join([own, *(f"{name} {importlib.metadata.version(name)}" for name in packages)])
