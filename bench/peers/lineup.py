"""Who takes part: the options that every measurement shares, and the systems of one model and one precision."""

import argparse
import hashlib
import os
import random
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from engines import PEERS
from systems import Peer, Product, Unavailable, last_line

HERE = Path(__file__).resolve().parent
OUT = HERE / "out"
PRECISIONS = ("f32", "int8", "cuda-f16", "cuda-int8")
"""Precisions by the device that computes, the CPU where none is said."""
USUAL = ["f32", "int8"]


@dataclass
class Lineup:
    """The systems of one precision, the product first, and why others are absent."""

    systems: list[Product | Peer] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)

    @property
    def product(self) -> Product | None:
        return next((system for system in self.systems if isinstance(system, Product)), None)

    @property
    def peers(self) -> list[Peer]:
        return [system for system in self.systems if isinstance(system, Peer)]

    def turns(self, seconds: float) -> list[Product | Peer]:
        """All systems in random order; before each is yielded, a pause in which the one before comes to rest."""
        for system in random.sample(self.systems, len(self.systems)):
            time.sleep(seconds)
            yield system

    def close(self) -> None:
        for system in self.systems:
            system.close()


def add_options(parser: argparse.ArgumentParser, binary: Path) -> None:
    """The options that every measurement has."""
    parser.add_argument("model", type=Path, help="folder of a BERT checkpoint")
    parser.add_argument("--precision", choices=PRECISIONS, action="append", help=f"default: {' and '.join(USUAL)}")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="threads of every system")
    parser.add_argument("--peers", type=lambda names: names.split(","), help="comma-separated; default: all")
    parser.add_argument("--binary", type=Path, default=binary)
    parser.add_argument("--without-product", action="store_true", help="measure the peers alone")


def check_options(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Fills defaults, and ends the process where options do not fit together."""
    options.precision = options.precision or USUAL
    options.peers = list(PEERS) if options.peers is None else options.peers
    if unknown := set(options.peers) - set(PEERS):
        parser.error(f"no peer named {', '.join(unknown)}; there are {', '.join(PEERS)}")
    if not options.without_product and not options.binary.is_file():
        parser.error(f"{options.binary} is missing: run cargo build --release, or pass --without-product")


def assemble(model: Path, precision: str, options: argparse.Namespace) -> Lineup:
    """Starts everybody who computes in this precision."""
    lineup = Lineup()
    starts = {name: lambda name=name: open_peer(name, model, options.threads) for name in options.peers}
    starts = {name: start for name, start in starts.items() if PEERS[name].precision == precision}
    if not options.without_product:
        product = {Product.name: lambda: Product(options.binary, model, precision, options.threads)}
        starts = product | starts
    for name, start in starts.items():
        try:
            lineup.systems.append(start())
        except Unavailable as reason:
            lineup.absent[name] = str(reason)
            print(f"{name} takes no part: {reason}", file=sys.stderr)
    return lineup


def open_peer(name: str, model: Path, threads: int) -> Peer:
    """Starts a peer; makes what it reads of the model on first use."""
    artefact = PEERS[name].artefact
    return Peer(name, model, _prepared(model, artefact) if artefact else None, threads)


def _prepared(model: Path, artefact: str) -> Path:
    """Where an artefact of these very weights is."""
    with (model / "model.safetensors").open("rb") as weights:
        folder = OUT / "prepared" / hashlib.file_digest(weights, "sha256").hexdigest()[:16]
    if not (folder / artefact).exists():
        print(f"making {artefact} of {model.name}", file=sys.stderr)
        command = [sys.executable, "-W", "ignore", str(HERE / "prepare.py"), artefact, str(model), str(folder)]
        finished = subprocess.run(command, capture_output=True, text=True, check=False)
        if finished.returncode != 0:
            raise Unavailable(f"{artefact} could not be made: {last_line(finished.stderr)}")
    return folder / artefact
