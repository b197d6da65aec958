#!/usr/bin/env python3
"""Measures the latency and the answers of Centuple beside other engines on this machine.

    run.py MODEL [--bert-base] [--precision f32|int8] [--shapes 1x16,8x128] [--rounds 9] [--sts TSV] [--least 32x256=4.5]

Same checkpoint, same shapes, same number of threads. Makes its own Python environment in .env beside this file. Every
system runs in its own process; in every round all systems of one precision take their turn in random order, with a
pause between them because workers spin on for a while after a run. Only ratios within one report mean anything.
Writes report.md, report.json and report.svg to out/.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

import environment  # noqa: E402

DESCRIPTION = "Milliseconds: median over the rounds of a round's median / best of all. Ratios: median of each round's."


def main() -> None:
    environment.enter(HERE / "requirements.txt", HERE / ".env")

    import chart
    import machine
    import report
    from lineup import OUT
    from systems import Product

    options = _options()
    models = [options.model, *([_bert_base(options.model, OUT)] if options.bert_base else [])]
    sections = [_section(model, precision, options) for model in models for precision in options.precision]

    title = f"Latency beside other engines: {machine.describe(options.threads)}, {options.rounds} rounds"
    text = "\n\n".join([f"# {title}", DESCRIPTION, *(section.markdown() for section in sections)]) + "\n"
    measured = [section for section in sections if section.notes]
    drawing = chart.draw("Time of one batch, less is better", [_panel(section) for section in measured], Product.name)
    report.write(OUT, "report", text, {"title": title, "sections": [one.data() for one in sections]}, drawing)
    print(text)
    if options.least:
        _check(sections, *options.least)


def _least(text: str):
    """A shape, and how many times as long as the product its peers have to take."""
    from systems import Shape

    shape, _, times = text.partition("=")
    return Shape.parse(shape), float(times)


def _check(sections: list, shape, least: float) -> None:
    """Ends the process unless every peer was measured at the shape and takes that much longer than the product."""
    from systems import Product

    for section in sections:
        ratios = {name: section.ratio(shape, name) for name in section.peers}
        if section.baseline != Product.name or not ratios:
            sys.exit(f"{section.title}: nobody to compare {Product.name} with; {section.absent}")
        for name, ratio in ratios.items():
            print(f"{section.title} {shape}: {name} takes {ratio:.2f}x, at least {least}x")
        if not min(ratios.values()) >= least:
            sys.exit(f"{section.title} {shape}: less than {least}x")


def _options() -> argparse.Namespace:
    from lineup import add_options, check_options
    from systems import Shape

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, ROOT / "target" / "release" / "centuple")
    parser.add_argument("--bert-base", action="store_true", help="also measure bert-base with random weights")
    parser.add_argument("--shapes", default="1x16,1x128,8x128,32x64", help="batch x tokens, comma-separated")
    parser.add_argument("--rounds", type=int, default=9, help="turns that every system takes at every shape")
    parser.add_argument("--seconds", type=float, default=0.5, help="about how long one turn lasts")
    parser.add_argument("--pause-ms", type=float, default=50, help="pause between two turns (at least 30)")
    parser.add_argument("--least", metavar="SHAPE=TIMES", type=_least, help="fail unless all peers take so many times as long")
    parser.add_argument("--sts", type=Path, help="TSV file with score, sentence1, sentence2 to judge the answers by")
    options = parser.parse_args()
    check_options(parser, options)
    options.shapes = [Shape.parse(shape) for shape in options.shapes.split(",")]
    if options.least and options.least[0] not in options.shapes:
        parser.error("--least needs its shape in --shapes")
    return options


def _bert_base(model: Path, out: Path) -> Path:
    """The folder of the random checkpoint, made on first use."""
    folder = out / "bert-base-random"
    if not folder.is_dir():
        out.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, str(HERE / "random_bert.py"), str(model), str(folder)], check=True)
    return folder


def _section(model: Path, precision: str, options: argparse.Namespace):
    """Measures everybody in one precision, and then asks for their answers."""
    import quality
    from engines import ORACLE
    from lineup import assemble, open_peer
    from recipe import Recipe
    from report import Section

    lineup = assemble(model, precision, options)
    rounds = {shape: _rounds(shape, lineup, options) for shape in options.shapes}
    oracle = open_peer(ORACLE, model, options.threads)
    texts = _judged_by(model, options)
    print(f"{model.name} {precision}: answers to {len(texts.texts)} texts", file=sys.stderr)
    qualities = quality.measure(lineup, oracle, Recipe(model), texts, precision)
    for system in [oracle, *lineup.systems]:
        system.close()
    config = json.loads((model / "config.json").read_text())
    notes = {system.name: system.note for system in lineup.systems}
    return Section(model.name, config, precision, rounds, notes, qualities, lineup.absent)


def _judged_by(model: Path, options: argparse.Namespace):
    """The texts whose answers are compared; random weights need few, because their answers mean nothing."""
    from quality import Texts

    if model != options.model:
        return Texts.made(40)
    return Texts.of_pairs(options.sts) if options.sts else Texts.made(200)


def _rounds(shape, lineup, options: argparse.Namespace) -> list[dict]:
    """All rounds of one shape: for each the measurement of every system by name."""
    if not lineup.systems:
        return []
    slowest = max(system.measure(shape, 3, seed=0).median_ms for system in lineup.systems)
    repeat = max(3, min(200, round(options.seconds * 1e3 / slowest)))
    rounds = []
    for number in range(options.rounds):
        turns = lineup.turns(max(30, options.pause_ms) / 1e3)
        measured = {system.name: system.measure(shape, repeat, seed=number) for system in turns}
        rounds.append({system.name: measured[system.name] for system in lineup.systems})
        print(f"{shape} round {number + 1} of {options.rounds}, {repeat} repeats", file=sys.stderr)
    return rounds


def _panel(section):
    from chart import Panel

    groups = {
        f"{shape} (batch x tokens)": [(name, section.ratio(shape, name)) for name in section.notes]
        for shape in section.rounds
    }
    return Panel(f"{section.title}: time relative to {section.baseline}", groups, "x")


if __name__ == "__main__":
    main()
