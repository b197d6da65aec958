"""Whether all systems compute the same: cosines between their answers to a few texts."""

import json
import math
from pathlib import Path

from systems import Peer, Product

TEXTS = [
    "How is the weather today?",
    "The quick brown fox jumps over the lazy dog, and nobody in the whole village takes any notice of it.",
    "Une phrase en français, ein Satz auf Deutsch, и ещё одно предложение 🙂",
]
LEAST = 0.9999


def check(model: Path, systems: list[Peer | Product]) -> dict[str, float]:
    """Lowest cosine of each system to the first peer; fails below `LEAST`."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    ids = [tokenizer.encode(text).ids for text in TEXTS]
    mean = _is_mean_pooled(model)
    answers = {}
    for system in systems:
        if isinstance(system, Product):
            answers[system.name] = [_flat(answer) for answer in system.features(TEXTS)]
        else:
            hidden = [system.hidden(sequence) for sequence in ids]
            answers[system.name] = [_mean(rows) if mean else _flat(rows) for rows in hidden]
    first = next(system.name for system in systems if isinstance(system, Peer))
    pairs = {name: list(zip(rows, answers[first], strict=True)) for name, rows in answers.items()}
    lowest = {name: min(_cosine(left, right) for left, right in rows) for name, rows in pairs.items()}
    for name, cosine in lowest.items():
        if cosine < LEAST:
            raise SystemExit(f"{name} answers differently from {first}: cosine {cosine:.6f}")
    return lowest


def _is_mean_pooled(model: Path) -> bool:
    """Whether the folder is a sentence-transformers one that answers with the mean over the tokens."""
    path = model / "1_Pooling" / "config.json"
    return path.is_file() and json.loads(path.read_text()).get("pooling_mode_mean_tokens", False)


def _mean(rows: list[list[float]]) -> list[float]:
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


def _flat(value) -> list[float]:
    return [value] if isinstance(value, float) else [number for item in value for number in _flat(item)]


def _cosine(left: list[float], right: list[float]) -> float:
    dot = sum(a * b for a, b in zip(left, right, strict=True))
    return dot / math.sqrt(sum(a * a for a in left) * sum(b * b for b in right))
