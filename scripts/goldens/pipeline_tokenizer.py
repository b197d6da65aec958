"""A byte-level BPE tokenizer as RoBERTa's, as large as the vocabulary of the tiny checkpoints."""

from pathlib import Path

from tokenizers.pre_tokenizers import ByteLevel

import readable
from tiny_tokenizer import MODEL_MAX_LENGTH
from tiny_weights import CONFIG

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
MERGES = ["Ġ t", "h e", "i n", "Ġ a", "Ġt he", "e r", "o n", "r e", "Ġ s", "a t", "Ġ w", "in g"]
PIECES = [*SPECIAL, *sorted(ByteLevel.alphabet()), *(merge.replace(" ", "") for merge in MERGES)]
PIECES = PIECES[: CONFIG["vocab_size"]]


def write_tokenizer(folder: Path) -> None:
    """Writes tokenizer.json and tokenizer_config.json into `folder`."""
    bytes_ = {"add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    flags = {"single_word": False, "rstrip": False, "normalized": False, "special": True}
    merges = [merge for merge in MERGES if merge.replace(" ", "") in PIECES]
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": id, "content": piece, "lstrip": piece == "<mask>", **flags} for id, piece in enumerate(SPECIAL)
        ],
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", **bytes_},
        "post_processor": {
            "type": "RobertaProcessing",
            "sep": ["</s>", 2],
            "cls": ["<s>", 0],
            "trim_offsets": True,
            "add_prefix_space": False,
        },
        "decoder": {"type": "ByteLevel", **bytes_},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {piece: id for id, piece in enumerate(PIECES)},
            "merges": [merge.split(" ") for merge in merges],
        },
    }
    readable.write(folder / "tokenizer.json", content)
    configuration = {
        "tokenizer_class": "RobertaTokenizer",
        "model_max_length": MODEL_MAX_LENGTH,
        "add_prefix_space": False,
        "trim_offsets": True,
        "clean_up_tokenization_spaces": True,
        "bos_token": "<s>",
        "cls_token": "<s>",
        "eos_token": "</s>",
        "sep_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": "<pad>",
        "mask_token": "<mask>",
    }
    readable.write(folder / "tokenizer_config.json", configuration)
