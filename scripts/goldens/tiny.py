"""The fixtures of the tiny checkpoints: weights, tokenizer, cases and their outputs."""

import tempfile
from pathlib import Path

from safetensors.torch import save_file
from transformers import AutoTokenizer

import oracle
import readable
import sensitivity
import tiny_cases
import tiny_tokenizer
import tiny_weights


def write(fixtures: Path) -> None:
    """Writes everything that `make.py tiny` makes into `fixtures`, then proves that the fixtures see."""
    tiny_tokenizer.write(fixtures / "tokenizer")
    tiny_weights.write(fixtures / "weights")
    _tokenizer_cases(fixtures / "tokenizer")
    cases = tiny_cases.all_cases(fixtures)
    outputs = {}
    for case in cases:
        if "refuse" in case:
            continue
        with tempfile.TemporaryDirectory() as folder:
            answers = oracle.answer(case, oracle.assemble(case, fixtures, Path(folder)))
        outputs |= {f"{case['name']}.{kind}": tensor.clone().contiguous() for kind, tensor in answers.items()}
    readable.write(fixtures / "cases.json", cases)
    save_file(outputs, fixtures / "outputs.safetensors")
    (fixtures / "outputs.safetensors").chmod(0o644)
    sensitivity.check(fixtures, cases, outputs)


def _tokenizer_cases(folder: Path) -> None:
    """Writes what the fast tokenizer makes of texts and pairs, whole and truncated on either side."""
    texts = [{"text": text} for text in [*tiny_cases.TEXTS, " \t\n", "[CLS] [SEP] [PAD]", "x" * 120, tiny_cases.LONG]]
    pairs = [{"text": text, "pair": pair} for text, pair in tiny_cases.PAIRS]
    cases = [{"max_tokens": limit} | item for item in texts + pairs for limit in (None, 8)]
    cases += [case | {"truncation": "left"} for case in cases if case["max_tokens"]]
    for case in cases:
        side = case.get("truncation", "right")
        tokenizer = AutoTokenizer.from_pretrained(folder, truncation_side=side, model_max_length=10**30)
        limit = {"truncation": True, "max_length": case["max_tokens"]} if case["max_tokens"] else {}
        encoding = tokenizer(case["text"], case.get("pair"), return_tensors="pt", **limit)
        oracle.fill_in(case, encoding)
    readable.write(folder / "cases.json", cases)
