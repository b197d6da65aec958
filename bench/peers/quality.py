"""What each system's answers are worth: cosines to PyTorch f32, and the correlation with people's on STS-B."""

import csv
import random
from dataclasses import dataclass
from pathlib import Path

import numpy

from lineup import Lineup
from recipe import Recipe
from systems import Peer, Product

BATCH = 32
# Below it an f32 system computes something else, and its times mean nothing.
LEAST_F32_COSINE = 0.9999
# What made texts consist of: who does what, and where or when.
PARTS = [
    "A child|The old captain|Nobody|Our neighbour|Une amie|The committee|An engine|Der Hund".split("|"),
    "waits for|repairs|has never seen|complains about|pays for|draws|forgets|sells|mourns".split("|"),
    "the blue door|a broken clock|three letters|the last train|two kilos of pears|this theorem".split("|"),
    "in Lisbon|before noon|without a word|at 7:45|on the hill|because of the rain|again 🙂".split("|"),
]


@dataclass(frozen=True)
class Quality:
    """Cosines to PyTorch f32, one text at a time, over all texts; Spearman correlation where there are scores."""

    how: str
    mean: float
    worst: float
    spearman: float | None


@dataclass(frozen=True)
class Texts:
    """Texts, and pairs of their indices with the similarity that people gave them (none for plain texts)."""

    texts: list[str]
    left: list[int]
    right: list[int]
    scores: list[float]

    @classmethod
    def of_pairs(cls, path: Path) -> "Texts":
        """Reads a TSV file with the columns score, sentence1, sentence2."""
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
        texts = list(dict.fromkeys(row[column] for row in rows for column in ("sentence1", "sentence2")))
        place = {text: index for index, text in enumerate(texts)}
        left, right = ([place[row[column]] for row in rows] for column in ("sentence1", "sentence2"))
        return cls(texts, left, right, [float(row["score"]) for row in rows])

    @classmethod
    def made(cls, count: int) -> "Texts":
        """Texts of one to four simple sentences, the same on every machine."""
        draw = random.Random(1)

        def sentence() -> str:
            return " ".join(draw.choice(part) for part in PARTS) + "."

        return cls([" ".join(sentence() for _ in range(draw.randint(1, 4))) for _ in range(count)], [], [], [])


def measure(lineup: Lineup, oracle: Peer, recipe: Recipe, texts: Texts, precision: str) -> dict[str, list[Quality]]:
    """The rows of each system: peers one text at a time and in padded batches, the product as `run` answers.

    Ends the process if an f32 system answers something else than the oracle.
    """
    sequences = recipe.encode(texts.texts)
    truth = numpy.array(oracle.embed(sequences, 1))
    rows: dict[str, list[Quality]] = {}
    for system in lineup.systems:
        if isinstance(system, Product):
            answers = {"run": [_vector(answer) for answer in system.features(texts.texts)]}
        else:
            answers = {"one by one": system.embed(sequences, 1), f"batches of {BATCH}": system.embed(sequences, BATCH)}
        rows[system.name] = [_quality(how, numpy.array(given), truth, texts) for how, given in answers.items()]
        worst = min(row.worst for row in rows[system.name])
        if precision == "f32" and not worst >= LEAST_F32_COSINE:
            raise SystemExit(f"{system.name} answers differently from {oracle.name}: cosine {worst:.6f}")
    return rows


def _quality(how: str, given: numpy.ndarray, truth: numpy.ndarray, texts: Texts) -> Quality:
    given, truth = (rows / numpy.linalg.norm(rows, axis=1, keepdims=True) for rows in (given, truth))
    cosines = (given * truth).sum(1)
    spearman = None
    if texts.scores:
        similarities = (given[texts.left] * given[texts.right]).sum(1)
        spearman = float(numpy.corrcoef(_ranks(similarities), _ranks(numpy.array(texts.scores)))[0, 1])
    return Quality(how, float(cosines.mean()), float(cosines.min()), spearman)


def _ranks(values: numpy.ndarray) -> numpy.ndarray:
    """The rank of each value; equal values share the mean of their ranks."""
    _, inverse, counts = numpy.unique(values, return_inverse=True, return_counts=True)
    return (numpy.cumsum(counts) - (counts - 1) / 2)[inverse]


def _vector(answer: list) -> numpy.ndarray:
    """One vector of a reply: itself, or the mean over the tokens of a reply with token features."""
    values = numpy.array(answer, numpy.float64)
    return values.reshape(-1, values.shape[-1]).mean(0)
