#!/usr/bin/env python3
"""Measures how many texts a second Centuple and other engines embed, and how fast Centuple answers over HTTP.

    throughput.py MODEL TEXTS.jsonl [--precision f32|int8] [--rounds 3] [--limit 500] [--clients 1,8,64]

A line of TEXTS is {"inputs": "some text"}. Tokenising counts. The product's `run` is timed as a whole process, from its
start to its end; a peer is loaded already, and cuts at the same length, tokenises with the fast tokenizer and computes
padded batches of 32, once sorted by token length and once in the order of arrival. All take turns in random order.
The server gets each text as a request of its own, from native keep-alive clients on loopback; it is started anew for
every load, so that nothing is answered from a cache. Writes throughput.md, throughput.json and throughput.svg to out/.
"""

import argparse
import itertools
import json
import random
import statistics
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

import environment  # noqa: E402

BATCH = 32
PAUSE_SECONDS = 0.1
ONE_CLIENT_TOKENS = 16
ONE_CLIENT_REQUESTS = 500


def main() -> None:
    environment.enter(HERE / "requirements.txt", HERE / ".env")

    import chart
    import machine
    import report
    from lineup import OUT
    from systems import Product

    options = _options()
    with options.texts.open(encoding="utf-8") as file:
        texts = [json.loads(line)["inputs"] for line in itertools.islice(file, options.limit)]
    figures = [Throughput(precision, options, texts) for precision in options.precision]

    rounds = f"{len(texts)} texts, {options.rounds} rounds"
    title = f"Throughput beside other engines: {options.model.name}, {machine.describe(options.threads)}, {rounds}"
    text = "\n\n".join([f"# {title}", *(one.markdown() for one in figures)]) + "\n"
    drawing = chart.draw(f"Texts a second, {options.model.name}", [one.panel() for one in figures], Product.name)
    report.write(OUT, "throughput", text, {"title": title, "precisions": [vars(one) for one in figures]}, drawing)
    print(text)


def _options() -> argparse.Namespace:
    from lineup import add_options, check_options

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, ROOT / "target" / "release" / "centuple")
    parser.add_argument("texts", type=Path, help='JSON Lines file with {"inputs": "some text"}')
    parser.add_argument("--rounds", type=int, default=3, help="turns that everybody takes")
    parser.add_argument("--limit", type=int, help="use the first so many texts only")
    parser.add_argument("--clients", default="1,8,64", help="numbers of clients at once; empty: no server")
    options = parser.parse_args()
    check_options(parser, options)
    options.clients = [int(count) for count in options.clients.split(",") if count]
    return options


class Throughput:
    """The figures of one precision; each attribute but the first two maps a name to the values of the rounds."""

    def __init__(self, precision: str, options: argparse.Namespace, texts: list[str]):
        from lineup import assemble

        self.precision = precision
        lineup = assemble(options.model, precision, options)
        self.absent = lineup.absent
        self.texts_per_second: dict[str, list[float]] = {}
        self.http: dict[str, list[dict[str, float]]] = {}
        self.one_client: list[dict[str, float]] = []
        for number in range(options.rounds):
            self._offline_round(lineup, texts)
            if lineup.product and options.clients:
                self._http_round(lineup.product, texts, options.clients)
                self.one_client.append(_one_client(lineup.product, options.model, seed=number))
            print(f"{precision} round {number + 1} of {options.rounds}", file=sys.stderr)
        self.notes = {system.name: system.note for system in lineup.systems}
        lineup.close()

    def markdown(self) -> str:
        """Texts a second, then HTTP."""
        from report import table

        product = self._median(next(iter(self.texts_per_second), ""))
        rows = [
            [name, f"{self._median(name):.1f}", f"{product / self._median(name):.2f}x"]
            for name in self.texts_per_second
        ]
        first = next(iter(self.texts_per_second), "")
        parts = [f"## {self.precision}", table(["", "texts/s", f"{first} / this"], rows) if rows else ""]
        if self.http:
            parts += [self._http_table(product), self._one_client_table()]
        notes = [f"- {name}: {note}" for name, note in self.notes.items()]
        parts.append("\n".join(notes + [f"- {name} is absent: {reason}" for name, reason in self.absent.items()]))
        return "\n\n".join(part for part in parts if part)

    def panel(self):
        from chart import Panel

        groups = {"offline": [(name, self._median(name)) for name in self.texts_per_second]}
        if self.http:
            groups["over HTTP"] = [(f"centuple, {name}", self._http(name, "per_second")) for name in self.http]
        return Panel(self.precision, groups, "")

    def _offline_round(self, lineup, texts: list[str]) -> None:
        """Each system's turn, or its two."""
        turns = {system.name: system.texts_seconds for system in lineup.systems[:1] if system is lineup.product}
        turns = {f"{name} run": turn for name, turn in turns.items()}
        for peer in lineup.peers:
            for how, sort in (("sorted", True), ("arrival order", False)):
                turns[f"{peer.name}, {how}"] = lambda given, peer=peer, sort=sort: peer.texts_seconds(
                    given, BATCH, sort
                )
        for name in turns:
            self.texts_per_second.setdefault(name, [])
        for name in random.sample(list(turns), len(turns)):
            seconds = turns[name](texts)
            self.texts_per_second[name].append(len(texts) / seconds)

    def _http_round(self, product, texts: list[str], clients: list[int]) -> None:
        from server import Server

        for count in clients:
            self.http.setdefault(_clients(count), [])
        for count in random.sample(clients, len(clients)):
            with Server(product) as server:
                server.embed(texts[:1] * count, count)
                load, health = server.embed(texts, count), server.health(len(texts), count)
            figures = {"p50_ms": load.p50, "p99_ms": load.p99, "per_second": load.per_second}
            figures |= {"health_p50_ms": health.p50, "health_per_second": health.per_second}
            self.http[_clients(count)].append(figures)

    def _http_table(self, run: float) -> str:
        from report import table

        heading = ["over HTTP", "p50 ms", "p99 ms", "texts/s", "of `run`", "GET /health p50 ms", "requests/s"]
        rows = []
        for name in self.http:
            value = {key: self._http(name, key) for key in self.http[name][0]}
            share = f"{100 * value['per_second'] / run:.0f} %"
            speed = [f"{value['p50_ms']:.2f}", f"{value['p99_ms']:.2f}", f"{value['per_second']:.1f}", share]
            rows.append([name, *speed, f"{value['health_p50_ms']:.3f}", f"{value['health_per_second']:.0f}"])
        return table(heading, rows)

    def _one_client_table(self) -> str:
        from report import table

        medians = {key: statistics.median(row[key] for row in self.one_client) for key in self.one_client[0]}
        heading = [f"one client, {ONE_CLIENT_TOKENS} tokens", *(key.replace("_", " ") for key in medians)]
        return table(heading, [["p50 ms", *(f"{value:.3f}" for value in medians.values())]])

    def _median(self, name: str) -> float:
        return statistics.median(self.texts_per_second.get(name) or [0.0])

    def _http(self, name: str, key: str) -> float:
        return statistics.median(row[key] for row in self.http[name])


def _clients(count: int) -> str:
    return "1 client" if count == 1 else f"{count} clients"


def _one_client(product, model: Path, seed: int) -> dict[str, float]:
    """Milliseconds at p50 of texts with 16 tokens: the engine alone, over HTTP, and HTTP alone."""
    from server import Server
    from systems import Shape

    engine = product.measure(Shape(1, ONE_CLIENT_TOKENS), ONE_CLIENT_REQUESTS, seed).median_ms
    with Server(product) as server:
        texts = _texts_of(ONE_CLIENT_TOKENS, ONE_CLIENT_REQUESTS + 20, model, seed)
        server.embed(texts[:20], 1)
        served, health = server.embed(texts[20:], 1).p50, server.health(ONE_CLIENT_REQUESTS, 1).p50
    return {"bench": engine, "served": served, "added": served - engine, "GET_/health": health}


def _texts_of(tokens: int, count: int, model: Path, seed: int) -> list[str]:
    """Different texts of so many tokens each, of words that are one token."""
    from recipe import Recipe

    recipe, draw = Recipe(model), random.Random(seed)
    words = [word for word in recipe.tokenizer.get_vocab() if word.isascii() and word.isalpha() and len(word) > 2]
    words.sort()
    texts = []
    while len(texts) < count:
        text = " ".join(draw.sample(words, tokens - 2))
        if len(recipe.encode([text])[0]) == tokens:
            texts.append(text)
    return texts


if __name__ == "__main__":
    main()
