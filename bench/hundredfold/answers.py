"""Whether a system answers what the deployment answers."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Verdict:
    """What a system's answers are beside the deployment's."""

    text: str
    agrees: bool


def embeddings(expected: list, found: list, exact: bool) -> Verdict:
    """Cosines of vectors."""
    cosines = [_cosine(one, other) for one, other in zip(expected, map(_vector, found), strict=True)]
    mean, worst = sum(cosines) / len(cosines), min(cosines)
    text = f"cosine {mean:.5f}, worst {worst:.5f}"
    return Verdict(text, worst >= 0.9999 if exact else mean >= 0.995)


def labels(expected: list, found: list, exact: bool) -> Verdict:
    """The best label, and how far its score is off."""
    pairs = [(_best(one), _best(other)) for one, other in zip(expected, found, strict=True)]
    same = [(one, other) for one, other in pairs if one["label"] == other["label"]]
    off = max((abs(one["score"] - other["score"]) for one, other in same), default=1)
    return _shares("labels", len(same), len(pairs), exact, f", scores within {off:.1g}")


def entities(expected: list, found: list, exact: bool) -> Verdict:
    """Entities with their kind and place; those of either side that the other has too."""
    def places(answers: list) -> set:
        return {
            (text, entity["entity_group"], entity["start"], entity["end"])
            for text, answer in enumerate(answers)
            for entity in answer
        }

    one, other = places(expected), places(found)
    return _shares("entities", len(one & other), len(one | other), exact)


def masked(expected: list, found: list, exact: bool) -> Verdict:
    """The likeliest token for the mask."""
    same = [one[0]["token"] == other[0]["token"] for one, other in zip(expected, found, strict=True)]
    return _shares("tokens", sum(same), len(same), exact)


def generated(expected: list, found: list, exact: bool) -> Verdict:
    """Whole texts, and how much of them is the same from the beginning."""
    pairs = [(one[0]["generated_text"], other[0]["generated_text"]) for one, other in zip(expected, found, strict=True)]
    same = sum(one == other for one, other in pairs)
    shares = [_common(one, other) / max(1, len(one)) for one, other in pairs]
    text = f"{same} of {len(pairs)} texts the same"
    if same < len(pairs):
        text += f", the first {100 * sum(shares) / len(shares):.0f} % on average"
    # An integer model may choose another word where two are nearly as likely, and go on differently from there.
    return Verdict(text, same == len(pairs) or not exact)


def _shares(what: str, same: int, all_: int, exact: bool, more: str = "") -> Verdict:
    return Verdict(f"{same} of {all_} {what} the same{more}", same >= (1 if exact else 0.9) * all_)


def _common(one: str, other: str) -> int:
    """Characters that two texts begin with together."""
    shorter = min(len(one), len(other))
    return next((place for place in range(shorter) if one[place] != other[place]), shorter)


def _vector(answer: list) -> list[float]:
    return answer[0] if isinstance(answer[0], list) else answer


def _best(answer: list) -> dict:
    found = answer[0] if isinstance(answer[0], list) else answer
    return max(found, key=lambda one: one["score"])


def _cosine(one: list[float], other: list[float]) -> float:
    product = sum(a * b for a, b in zip(one, other, strict=True))
    return product / math.sqrt(sum(a * a for a in one) * sum(b * b for b in other))
