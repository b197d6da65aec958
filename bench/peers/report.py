"""The figures as a table: medians, ratios to the product, and the share of the measured FMA ceiling."""

import json
import statistics
from pathlib import Path

from systems import Measurement, Product, Shape

Rounds = list[dict[str, Measurement]]


def macs(config: dict, shape: Shape) -> int:
    """Multiply-accumulates of a BERT encoder for one batch: the linear layers, and attention per pair of tokens."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    per_token = 4 * hidden * hidden + 2 * hidden * inner + 2 * shape.tokens * hidden
    return shape.batch * shape.tokens * config["num_hidden_layers"] * per_token


def table(results: dict[Shape, Rounds], config: dict) -> str:
    """Markdown: a row for each system, then ratios and the share of the ceiling where the product took part."""
    names = list(next(iter(results.values()))[0])
    lines = [_row(["median / best ms", *map(str, results)]), _row(["---"] * (len(results) + 1))]
    lines += [_row([name, *(_times(rounds, name) for rounds in results.values())]) for name in names]
    if Product.name in names:
        peers = [name for name in names if name != Product.name]
        for peer in peers:
            ratios = [f"{ratio(rounds, peer):.2f}x" for rounds in results.values()]
            lines.append(_row([f"{peer} / {Product.name}", *ratios]))
        shares = [_share(rounds, macs(config, shape)) for shape, rounds in results.items()]
        lines.append(_row(["share of the FMA ceiling", *shares]))
    return "\n".join(lines)


def ratio(rounds: Rounds, peer: str) -> float:
    """Median over the rounds of the peer's median to the product's."""
    return statistics.median(row[peer].median_ms / row[Product.name].median_ms for row in rounds)


def write(folder: Path, text: str, results: dict[Shape, Rounds], about: dict) -> None:
    """Writes report.md, and report.json with every measurement of every round."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.md").write_text(text)
    rounds = {
        str(shape): [{name: vars(measured) for name, measured in row.items()} for row in rounds]
        for shape, rounds in results.items()
    }
    (folder / "report.json").write_text(json.dumps(about | {"rounds": rounds}, indent=1))


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _times(rounds: Rounds, name: str) -> str:
    median = statistics.median(row[name].median_ms for row in rounds)
    return f"{median:.2f} / {min(row[name].min_ms for row in rounds):.2f}"


def _share(rounds: Rounds, work: int) -> str:
    """The product's share of the ceiling: each round against the ceiling measured in it; then the median."""
    measured = [row[Product.name] for row in rounds]
    if any(item.ceiling_gmacs is None for item in measured):
        return "–"
    shares = [work / (item.median_ms * 1e-3) / (item.ceiling_gmacs * 1e9) for item in measured]
    return f"{100 * statistics.median(shares):.0f} %"
