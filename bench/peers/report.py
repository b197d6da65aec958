"""The figures of one model in one precision as tables, and all of them as one report."""

import json
import statistics
from dataclasses import asdict, dataclass
from pathlib import Path

from quality import Quality
from systems import Measurement, Product, Shape

Rounds = list[dict[str, Measurement]]


@dataclass(frozen=True)
class Section:
    """Everything measured of one model in one precision; `notes` and `qualities` by name of the system."""

    model: str
    config: dict
    precision: str
    rounds: dict[Shape, Rounds]
    notes: dict[str, str]
    qualities: dict[str, list[Quality]]
    absent: dict[str, str]

    @property
    def title(self) -> str:
        return f"{self.model}, {self.precision}"

    @property
    def peers(self) -> list[str]:
        return [name for name in self.notes if name != Product.name]

    @property
    def baseline(self) -> str:
        """Whom the ratios are taken to: the product, or the first peer where it took no part."""
        return Product.name if Product.name in self.notes else next(iter(self.notes))

    def ratio(self, shape: Shape, name: str) -> float:
        """Median over the rounds of a system's median to the baseline's."""
        rounds = self.rounds[shape]
        return statistics.median(row[name].median_ms / row[self.baseline].median_ms for row in rounds)

    def markdown(self) -> str:
        """Times, ratios, answers, settings, and who is absent."""
        settings = [f"- {name}: {note}" for name, note in self.notes.items()]
        absent = [f"- {name} is absent: {reason}" for name, reason in self.absent.items()]
        parts = [f"## {self.title}", self._times(), self._answers(), "\n".join(settings + absent)]
        return "\n\n".join(part for part in parts if part)

    def data(self) -> dict:
        """Every measurement of every round."""
        rounds = {
            str(shape): [{name: asdict(one) for name, one in row.items()} for row in rounds]
            for shape, rounds in self.rounds.items()
        }
        qualities = {name: [asdict(one) for one in rows] for name, rows in self.qualities.items()}
        return vars(self) | {"rounds": rounds, "qualities": qualities}

    def _times(self) -> str:
        if not self.notes:
            return ""
        rows = [[name, *(_times(rounds, name) for rounds in self.rounds.values())] for name in self.notes]
        others = [name for name in self.notes if name != self.baseline]
        ratios = {name: [self.ratio(shape, name) for shape in self.rounds] for name in others}
        rows += [[f"{name} / {self.baseline}", *(f"{ratio:.2f}x" for ratio in row)] for name, row in ratios.items()]
        if Product.name in self.notes and others:
            rows.append(
                [f"fastest peer / {Product.name}", *(f"{min(row):.2f}x" for row in zip(*ratios.values(), strict=True))]
            )
        if Product.name in self.notes:
            rows.append(["share of the measured ceiling", *map(self._share, self.rounds)])
        return table(["median / best ms", *map(str, self.rounds)], rows)

    def _share(self, shape: Shape) -> str:
        """What the multiply-adds alone would take at the ceilings measured in the same process, to its time."""
        linear, attention = macs(self.config, shape)
        shares = []
        for row in self.rounds[shape]:
            one = row[Product.name]
            ceiling = one.f32_ceiling if self.precision == "f32" else one.int8_ceiling
            if not (ceiling and one.f32_ceiling):
                return "–"
            shares.append((linear / ceiling + attention / one.f32_ceiling) / 1e6 / one.median_ms)
        return f"{100 * statistics.median(shares):.0f} %"

    def _answers(self) -> str:
        rows = [
            [
                name,
                one.how,
                f"{one.mean:.6f}",
                f"{one.worst:.6f}",
                "–" if one.spearman is None else f"{one.spearman:.5f}",
            ]
            for name, qualities in self.qualities.items()
            for one in qualities
        ]
        return (
            table(["answers", "computed", "cosine to PyTorch f32, mean", "worst", "STS-B Spearman"], rows)
            if rows
            else ""
        )


def macs(config: dict, shape: Shape) -> tuple[int, int]:
    """Multiply-accumulates of a BERT encoder for one batch: of the linear layers, and of attention."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    tokens = shape.batch * shape.tokens * config["num_hidden_layers"]
    return tokens * (4 * hidden * hidden + 2 * hidden * inner), tokens * 2 * shape.tokens * hidden


def table(heading: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [heading, ["---"] * len(heading), *rows])


def write(folder: Path, name: str, text: str, data: dict, chart: str) -> None:
    """Writes NAME.md, NAME.json and NAME.svg."""
    folder.mkdir(parents=True, exist_ok=True)
    for ending, content in {"md": text, "json": json.dumps(data, indent=1), "svg": chart}.items():
        (folder / f"{name}.{ending}").write_text(content, encoding="utf-8")


def _times(rounds: Rounds, name: str) -> str:
    median = statistics.median(row[name].median_ms for row in rounds)
    return f"{median:.2f} / {min(row[name].min_ms for row in rounds):.2f}"
