"""Makes a bert-base checkpoint with random weights: `random_bert.py TOKENIZER_MODEL FOLDER`. Runs in its own process.

It has the shape and so the speed of bert-base; its answers mean nothing.
"""

import shutil
import sys
from pathlib import Path

import torch
from transformers import BertConfig, BertModel

TOKENIZER_FILES = ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"]


def main() -> None:
    source, folder = Path(sys.argv[1]), Path(sys.argv[2])
    torch.manual_seed(0)
    unfinished = folder.with_name(f"new-{folder.name}")
    BertModel(BertConfig()).save_pretrained(unfinished)
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, unfinished / name)
    unfinished.rename(folder)


if __name__ == "__main__":
    main()
