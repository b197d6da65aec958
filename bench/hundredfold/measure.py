"""Rounds of loads: in each round every system of a ladder takes its turn, in random order."""

import random
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import texts
from ladder import Task
from report_of_task import Ladder, Row
from servers import System, deployment

PAUSE_SECONDS = 0.1
MOST_REQUESTS = 1000
# Rounds of throughput may take more requests than those of latency.
MOST_BUSY_REQUESTS = 6000


@dataclass(frozen=True)
class Settings:
    """How long and on what."""

    binary: Path
    threads: int
    rounds: int
    seconds: float
    checked: int


def climb(task: Task, model: Path, settings: Settings) -> Ladder:
    """Starts all systems of a task, compares their answers, and times them."""
    every = texts.blocks(task.make, 20 if task.is_generation else 1000)
    checked = every[: settings.checked // (20 if task.is_generation else 1)]
    # The first block is set aside for the answers.
    timed = every[texts.BLOCK :]
    with ExitStack() as running:
        systems = []
        for stage in task.stages:
            _say(f"{task.name}: starting {stage.name}")
            system = System(stage, task, model, timed, settings.binary, settings.threads)
            systems.append(running.enter_context(system))
        verdicts = _compare(task, systems, checked)
        counts = {system.name: _counts(system, settings.seconds) for system in systems}
        rounds = []
        for number in range(settings.rounds):
            rounds.append({system.name: _turn(system, *counts[system.name]) for system in _shuffled(systems)})
            _say(f"{task.name}: round {number + 1} of {settings.rounds}")
    return Ladder(task, [stage.name for stage in task.stages], rounds, verdicts, counts)


def _compare(task: Task, systems: list[System], checked: list[str]) -> dict:
    """What each system's answers are beside the deployment's, by name."""
    expected = [deployment(systems).answer(text) for text in checked]
    verdicts = {}
    for system in systems:
        found = [system.answer(text) for text in checked]
        verdicts[system.name] = task.compare(expected, found, system.stage.exact)
        _say(f"{task.name}: {system.name}: {verdicts[system.name].text}")
    return verdicts


def _counts(system: System, seconds: float) -> tuple[int, int]:
    """How many requests take about so long, from one client and from many; 0: many would be no faster."""
    few, many = (1, system.task.clients) if system.task.is_generation else (20, 4 * system.task.clients)
    block = 1 if system.task.is_generation else texts.BLOCK
    alone = _blocks(system.load(few, 1).per_second * seconds, block, MOST_REQUESTS)
    if system.stage.alone:
        return alone, 0
    if system.stage.flags is None:
        many = few
    busy = system.load(many, system.task.clients).per_second
    return alone, _blocks(max(busy * seconds, system.task.clients), block, MOST_BUSY_REQUESTS)


def _blocks(requests: float, block: int, most: int) -> int:
    return block * max(1, min(most // block, round(requests / block)))


def _turn(system: System, alone: int, busy: int) -> Row:
    """One client, then many."""
    time.sleep(PAUSE_SECONDS)
    one = system.load(alone, 1)
    rate = one.per_second
    if busy:
        rate = max(rate, system.load(busy, system.task.clients).per_second)
    return Row(one.latencies_ms, rate)


def _shuffled(systems: list[System]) -> list[System]:
    return random.sample(systems, len(systems))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
