#!/usr/bin/env python3
"""Holds the `centuple` binary against PyTorch on whole data sets.

    accuracy.py sts MODEL TSV       sentence pairs: Spearman correlation and vectors beside sentence-transformers'
    accuracy.py classify MODEL TSV  texts: labels and accuracy beside PyTorch's

What a precision promises is in `PROMISES`. TSV files have a header: `score sentence1 sentence2`, and `text label` in
any order of columns. Uses the environment of the goldens (scripts/goldens/.venv), made on first use. Exit code 1 if a
promise is broken.
"""

import argparse
import csv
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import environment  # noqa: E402

BATCH = 32


@dataclass(frozen=True)
class Promise:
    """How far a precision may be from f32 in PyTorch: most that a figure differs, least that agree."""

    spearman: float
    mean_cosine: float
    worst_cosine: float
    equal_labels: float
    accuracy: float
    probability: float


PROMISES = {
    "f32": Promise(5e-5, 0.99999, 0.99999, equal_labels=1.0, accuracy=0.0, probability=1e-4),
    "int8": Promise(1e-3, 0.998, 0.99, equal_labels=0.99, accuracy=0.004, probability=1.0),
}


@dataclass(frozen=True)
class Product:
    """The binary with one model in one precision."""

    binary: Path
    model: Path
    precision: str

    @property
    def promise(self) -> Promise:
        return PROMISES[self.precision]

    def run(self, task: str, bodies: list[dict]) -> list:
        """What `centuple run` answers to each body, in order."""
        given = "".join(json.dumps(body) + "\n" for body in bodies)
        command = [str(self.binary), "run", task, str(self.model), "--precision", self.precision]
        printed = subprocess.run(command, input=given, stdout=subprocess.PIPE, text=True, check=True).stdout
        return [json.loads(line) for line in printed.splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("check", choices=["sts", "classify"])
    parser.add_argument("model", type=Path, help="model folder")
    parser.add_argument("data", type=Path, help="TSV file")
    parser.add_argument("--binary", type=Path, default=HERE.parent / "target" / "release" / "centuple")
    parser.add_argument("--precision", choices=PROMISES, default="f32")
    options = parser.parse_args()
    environment.enter(HERE / "goldens" / "requirements.txt", HERE / "goldens" / ".venv")
    with options.data.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    check = spearman if options.check == "sts" else labels
    sys.exit(0 if check(Product(options.binary, options.model, options.precision), rows) else 1)


def spearman(product: Product, rows: list[dict]) -> bool:
    """Compares the vectors, and the correlation of their cosine similarities with the scores people gave."""
    import numpy
    from scipy.stats import spearmanr
    from sentence_transformers import SentenceTransformer

    texts = sorted({row[column] for row in rows for column in ("sentence1", "sentence2")})
    oracle = SentenceTransformer(str(product.model), device="cpu", local_files_only=True)
    theirs = oracle.encode(texts, batch_size=BATCH, normalize_embeddings=True)
    ours = numpy.array(product.run("feature-extraction", [{"inputs": text} for text in texts]), numpy.float32)
    ours = ours.reshape(len(texts), -1)
    ours = ours / numpy.linalg.norm(ours, axis=1, keepdims=True)
    place = {text: index for index, text in enumerate(texts)}
    left, right = ([place[row[column]] for row in rows] for column in ("sentence1", "sentence2"))
    scores = [float(row["score"]) for row in rows]
    results = [spearmanr((vectors[left] * vectors[right]).sum(axis=1), scores).statistic for vectors in (ours, theirs)]
    cosines, promise = (ours * theirs).sum(axis=1), product.promise
    print(f"{len(rows)} pairs: Spearman {results[0]:.6f}, sentence-transformers {results[1]:.6f}")
    print(f"{len(texts)} texts: cosine mean {cosines.mean():.7f}, worst {cosines.min():.7f}")
    close = cosines.mean() >= promise.mean_cosine and cosines.min() >= promise.worst_cosine
    return bool(close and abs(results[0] - results[1]) <= promise.spearman)


def labels(product: Product, rows: list[dict]) -> bool:
    """Compares label and probabilities of every text, and the accuracy against the file's labels."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(product.model)
    classifier = AutoModelForSequenceClassification.from_pretrained(product.model, dtype=torch.float32).eval()
    names = classifier.config.id2label
    longest = min(tokenizer.model_max_length, classifier.config.max_position_embeddings)
    parameters = {"top_k": len(names)}
    replies = product.run("text-classification", [{"inputs": row["text"], "parameters": parameters} for row in rows])
    equal, right, their_right, worst = 0, 0, 0, 0.0
    for row, reply in zip(rows, replies, strict=True):
        with torch.inference_mode():
            encoding = tokenizer(row["text"], truncation=True, max_length=longest, return_tensors="pt")
            theirs = classifier(**encoding).logits[0].softmax(-1).tolist()
        ours = _scores(reply)
        best, their_best = max(ours, key=ours.get), names[max(range(len(theirs)), key=theirs.__getitem__)]
        equal += best == their_best
        right += best == row["label"]
        their_right += their_best == row["label"]
        worst = max([worst, *(abs(ours[names[index]] - probability) for index, probability in enumerate(theirs))])
    accuracy, their_accuracy, promise = right / len(rows), their_right / len(rows), product.promise
    print(f"{len(rows)} texts: {len(rows) - equal} labels differ, largest difference of a probability {worst:.1e}")
    print(f"accuracy against the file's labels {accuracy:.4f}, PyTorch {their_accuracy:.4f}")
    near = equal >= promise.equal_labels * len(rows) and abs(accuracy - their_accuracy) <= promise.accuracy
    return near and worst <= promise.probability


def _scores(reply: list) -> dict[str, float]:
    """Label to probability, from the flat or the nested form of a classification."""
    flat = reply[0] if isinstance(reply[0], list) else reply
    return {row["label"]: row["score"] for row in flat}


if __name__ == "__main__":
    main()
