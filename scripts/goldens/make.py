#!/usr/bin/env python3
"""Writes the golden fixtures of the tests: what PyTorch answers, for the Rust engine to be held against.

    make.py tiny                     random checkpoints and their outputs
    make.py pipelines                bodies and replies of the tasks, over the same checkpoints
    make.py families [NAME...]       random checkpoints of every class of every family, or of those named
    make.py seq2seq [NAME...]        random checkpoints with an encoder and a decoder, of every family or of those named
    make.py pytorch                  small files of torch.save and the tensors in them
    make.py tokenizers               tiny tokenizers of every class, and their encodings
    make.py text-to-text             random translators and the like, and what pipelines answer with them
    make.py gguf                     GGUF files of every type and architecture, and what is in them
    make.py chat                     what chat templates make of conversations
    make.py decoding                 what processors, sampling and beam search make of logits
    make.py reactions RXNFP RXNMAPPER
                                     outputs of real models of chemistry
    make.py generation FOLDER --name NAME
                                     continuations of a real model that generates
    make.py perplexity FOLDER TEXTS --name NAME
                                     likelihoods of texts under a real model that generates
    make.py real FOLDER --name NAME  outputs of a real sentence-transformers folder (the weights stay outside)

Makes its own environment in .venv beside this file (several GB, outside git). The layout of what it writes
is described in crates/testkit/fixtures/README.md.
"""

import argparse
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
CRATES = HERE.parents[1] / "crates"
FIXTURES = CRATES / "testkit" / "fixtures"
TOKENIZERS = CRATES / "text" / "tests" / "fixtures" / "classes"
CHAT = CRATES / "text" / "tests" / "fixtures" / "chat"
DECODING = CRATES / "generate" / "tests" / "goldens"
sys.path.insert(0, str(HERE.parent))

import environment  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("tiny", help="random checkpoints and their outputs")
    commands.add_parser("pipelines", help="bodies and replies of the tasks")
    families = commands.add_parser("families", help="random checkpoints of every class of every family")
    families.add_argument("name", nargs="*", help="the families to write; all if none is named")
    seq2seq = commands.add_parser("seq2seq", help="random checkpoints with an encoder and a decoder")
    seq2seq.add_argument("name", nargs="*", help="the families to write; all if none is named")
    commands.add_parser("pytorch", help="small files of torch.save and the tensors in them")
    commands.add_parser("tokenizers", help="tiny tokenizers of every class, and their encodings")
    commands.add_parser("text-to-text", help="random translators and the like, and what pipelines answer with them")
    commands.add_parser("gguf", help="GGUF files of every type and architecture, and what is in them")
    commands.add_parser("chat", help="what chat templates make of conversations")
    commands.add_parser("decoding", help="what processors, sampling and beam search make of logits")
    chemistry = commands.add_parser("reactions", help="outputs of real models of chemistry")
    chemistry.add_argument("rxnfp", type=Path, help="the folder of the package's three models")
    chemistry.add_argument("rxnmapper", type=Path, help="the folder of its ALBERT")
    generation = commands.add_parser("generation", help="continuations of a real model that generates")
    generation.add_argument("folder", type=Path, help="the model's folder")
    generation.add_argument("--name", required=True, help="name of the fixture folder to write")
    perplexity = commands.add_parser("perplexity", help="likelihoods of texts under a real model that generates")
    perplexity.add_argument("folder", type=Path, help="the model's folder")
    perplexity.add_argument("texts", type=Path, help="lines of JSON with the texts as `inputs`")
    perplexity.add_argument("--name", required=True, help="name of the fixture folder to write")
    real = commands.add_parser("real", help="outputs of a real sentence-transformers folder")
    real.add_argument("folder", type=Path, help="the sentence-transformers folder")
    real.add_argument("--name", required=True, help="name of the fixture folder to write")
    arguments = parser.parse_args()
    environment.enter(HERE / "requirements.txt", HERE / ".venv")

    if arguments.command == "tiny":
        import tiny

        tiny.write(FIXTURES)
    elif arguments.command == "pipelines":
        import pipelines

        pipelines.write(FIXTURES)
    elif arguments.command == "families":
        import families

        families.write(FIXTURES / "families", arguments.name)
    elif arguments.command == "seq2seq":
        import seq2seq

        seq2seq.write(FIXTURES / "seq2seq", arguments.name)
    elif arguments.command == "pytorch":
        import pytorch_files

        pytorch_files.write(FIXTURES / "pytorch")
    elif arguments.command == "tokenizers":
        import tokenizer_classes
        import translators

        tokenizer_classes.write(TOKENIZERS)
        translators.write(TOKENIZERS / "translators", TOKENIZERS / "files")
    elif arguments.command == "text-to-text":
        import text_to_text

        text_to_text.write(FIXTURES / "text_to_text", TOKENIZERS / "files")
    elif arguments.command == "gguf":
        import gguf_files

        gguf_files.write(FIXTURES, TOKENIZERS)
    elif arguments.command == "chat":
        import chat_templates

        chat_templates.write(CHAT)
    elif arguments.command == "decoding":
        import decoding

        decoding.write(DECODING)
    elif arguments.command == "reactions":
        import reaction_models

        reaction_models.write(arguments.rxnfp, arguments.rxnmapper, FIXTURES / "reactions")
    elif arguments.command == "generation":
        import generation

        generation.write(arguments.folder, FIXTURES / arguments.name)
    elif arguments.command == "perplexity":
        import perplexity

        perplexity.write(arguments.folder, arguments.texts, FIXTURES / arguments.name)
    else:
        import real_model

        real_model.write(arguments.folder, FIXTURES / arguments.name)


if __name__ == "__main__":
    main()
