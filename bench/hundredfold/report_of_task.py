"""The figures of one task."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass

from answers import Verdict
from ladder import DEPLOYMENT, Task
from report import table

# Fewer requests have no 99th percentile.
LEAST_FOR_P99 = 100


@dataclass(frozen=True)
class Row:
    """What one system did in one round."""

    latencies_ms: list[float]
    """Of one client."""
    per_second: float
    """Requests answered to one client or to many, whichever was more."""

    @property
    def p50_ms(self) -> float:
        return statistics.median(self.latencies_ms)

    @property
    def p99_ms(self) -> float | None:
        return p99(self.latencies_ms)

    def data(self) -> dict:
        """The figures without those of single requests."""
        figures = {"p50_ms": self.p50_ms, "p99_ms": self.p99_ms, "per_second": self.per_second}
        return {name: value and round(value, 4) for name, value in figures.items()}


@dataclass(frozen=True)
class Ladder:
    """Everything measured of a task; rounds, verdicts and counts by the stage's name."""

    task: Task
    stages: list[str]
    rounds: list[dict[str, Row]]
    verdicts: dict[str, Verdict]
    counts: dict[str, tuple[int, int]]

    def faster(self, stage: str, than: str = DEPLOYMENT) -> float:
        """How many times sooner one client has its answer: the median of the rounds' ratios."""
        return statistics.median(row[than].p50_ms / row[stage].p50_ms for row in self.rounds)

    def more(self, stage: str, than: str = DEPLOYMENT) -> float:
        """How many times as much is answered in the same time."""
        return statistics.median(row[stage].per_second / row[than].per_second for row in self.rounds)

    @property
    def last(self) -> str:
        return self.stages[-1]

    @property
    def unit(self) -> str:
        return "tokens/s" if self.task.is_generation else "texts/s"

    def rate(self, stage: str) -> float:
        """Texts or new tokens a second."""
        return statistics.median(row[stage].per_second for row in self.rounds) * (self.task.tokens or 1)

    def markdown(self) -> str:
        """The task's table."""
        heading = ["", "p50 ms", "p99 ms", "latency", "step", self.unit, "throughput", "step", "answers"]
        parts = [f"## {self.task.name}", table(heading, [self._row(stage) for stage in self.stages])]
        others = [stage for stage in self.stages if stage != DEPLOYMENT and not stage.startswith("+ ")]
        for other in others:
            latency, throughput = ratio(self.faster(self.last, other)), ratio(self.more(self.last, other))
            parts.append(f"The last row beside `{other}`: latency {latency}, throughput {throughput}.")
        return "\n\n".join(parts)

    def data(self) -> dict:
        """Every figure of every round."""
        return {
            "task": self.task.name,
            "model": self.task.model,
            "parameters": self.task.parameters,
            "clients": self.task.clients,
            "requests_alone_and_busy": self.counts,
            "rounds": [{name: row.data() for name, row in one.items()} for one in self.rounds],
            "answers": {name: vars(verdict) for name, verdict in self.verdicts.items()},
            "latency": {stage: self.faster(stage) for stage in self.stages},
            "throughput": {stage: self.more(stage) for stage in self.stages},
        }

    def _row(self, stage: str) -> list[str]:
        p50 = statistics.median(row[stage].p50_ms for row in self.rounds)
        cells = [stage, number(p50), self._p99(stage), ratio(self.faster(stage)), self._step(stage, self.faster)]
        cells += [number(self.rate(stage)), ratio(self.more(stage)), self._step(stage, self.more)]
        return [*cells, "–" if stage == DEPLOYMENT else self.verdicts[stage].text]

    def _step(self, stage: str, measure: Callable[[str, str], float]) -> str:
        """The ratio to the row before."""
        place = self.stages.index(stage)
        return f"{measure(stage, self.stages[place - 1]):.2f}x" if place else ""

    def _p99(self, stage: str) -> str:
        """Over the requests of all rounds."""
        value = p99([value for row in self.rounds for value in row[stage].latencies_ms])
        return "–" if value is None else number(value)


def p99(latencies: list[float]) -> float | None:
    """The 99th percentile, where there are enough."""
    enough = len(latencies) >= LEAST_FOR_P99
    return sorted(latencies)[round(0.99 * (len(latencies) - 1))] if enough else None


def number(value: float) -> str:
    """Three digits, or all whole ones."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def ratio(value: float) -> str:
    """A ratio to two digits, or to all whole ones."""
    return f"{value:.0f}x" if value >= 9.95 else f"{value:.1f}x"
