#!/usr/bin/env python3
"""Writes the golden fixtures of the tests: what PyTorch answers, for the Rust engine to be held against.

    make.py tiny                     random checkpoints and their outputs
    make.py real FOLDER --name NAME  outputs of a real sentence-transformers folder (the weights stay outside)

Makes its own environment in .venv beside this file (several GB, outside git). The layout of what it writes
is described in crates/testkit/fixtures/README.md.
"""

import argparse
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
FIXTURES = HERE.parents[1] / "crates" / "testkit" / "fixtures"
sys.path.insert(0, str(HERE.parent))

import environment  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("tiny", help="random checkpoints and their outputs")
    real = commands.add_parser("real", help="outputs of a real sentence-transformers folder")
    real.add_argument("folder", type=Path, help="the sentence-transformers folder")
    real.add_argument("--name", required=True, help="name of the fixture folder to write")
    arguments = parser.parse_args()
    environment.enter(HERE / "requirements.txt", HERE / ".venv")

    if arguments.command == "tiny":
        import tiny

        tiny.write(FIXTURES)
    else:
        import real_model

        real_model.write(arguments.folder, FIXTURES / arguments.name)


if __name__ == "__main__":
    main()
