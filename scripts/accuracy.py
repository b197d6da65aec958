#!/usr/bin/env python3
"""Holds the `centuple` binary against PyTorch on whole data sets.

    accuracy.py sts MODEL TSV       Spearman correlation on sentence pairs equals sentence-transformers' to 4 digits
    accuracy.py classify MODEL TSV  every text gets the label that PyTorch gives it, probabilities within 1e-4

TSV files have a header: `score sentence1 sentence2`, and `text label` in any order of columns. Uses the environment of
the goldens (scripts/goldens/.venv), made on first use. Exit code 1 if a promise is broken.
"""

import argparse
import csv
import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import environment  # noqa: E402

SPEARMAN_TOLERANCE = 5e-5
PROBABILITY_TOLERANCE = 1e-4
BATCH = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("check", choices=["sts", "classify"])
    parser.add_argument("model", type=Path, help="model folder")
    parser.add_argument("data", type=Path, help="TSV file")
    parser.add_argument("--binary", type=Path, default=HERE.parent / "target" / "release" / "centuple")
    options = parser.parse_args()
    environment.enter(HERE / "goldens" / "requirements.txt", HERE / "goldens" / ".venv")
    with options.data.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    check = spearman if options.check == "sts" else labels
    sys.exit(0 if check(options.model, rows, options.binary) else 1)


def spearman(model: Path, rows: list[dict], binary: Path) -> bool:
    """Compares the correlation of cosine similarities with the scores people gave."""
    import numpy
    from scipy.stats import spearmanr
    from sentence_transformers import SentenceTransformer

    texts = sorted({row[column] for row in rows for column in ("sentence1", "sentence2")})
    oracle = SentenceTransformer(str(model), device="cpu", local_files_only=True)
    theirs = oracle.encode(texts, batch_size=BATCH, normalize_embeddings=True)
    ours = numpy.array(_run(binary, "feature-extraction", model, [{"inputs": text} for text in texts]), numpy.float32)
    ours = ours.reshape(len(texts), -1)
    ours = ours / numpy.linalg.norm(ours, axis=1, keepdims=True)
    place = {text: index for index, text in enumerate(texts)}
    left, right = ([place[row[column]] for row in rows] for column in ("sentence1", "sentence2"))
    scores = [float(row["score"]) for row in rows]
    results = [spearmanr((vectors[left] * vectors[right]).sum(axis=1), scores).statistic for vectors in (ours, theirs)]
    cosines = (ours * theirs).sum(axis=1)
    print(f"{len(rows)} pairs: Spearman {results[0]:.6f}, sentence-transformers {results[1]:.6f}")
    print(f"{len(texts)} texts: largest difference {abs(ours - theirs).max():.1e}, lowest cosine {cosines.min():.7f}")
    return abs(results[0] - results[1]) < SPEARMAN_TOLERANCE


def labels(model: Path, rows: list[dict], binary: Path) -> bool:
    """Compares label and probabilities of every text; prints the accuracy against the file's labels."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    classifier = AutoModelForSequenceClassification.from_pretrained(model, dtype=torch.float32).eval()
    names = classifier.config.id2label
    longest = min(tokenizer.model_max_length, classifier.config.max_position_embeddings)
    parameters = {"top_k": len(names)}
    replies = _run(
        binary, "text-classification", model, [{"inputs": row["text"], "parameters": parameters} for row in rows]
    )
    differing, right, worst = 0, 0, 0.0
    for row, reply in zip(rows, replies, strict=True):
        with torch.inference_mode():
            encoding = tokenizer(row["text"], truncation=True, max_length=longest, return_tensors="pt")
            theirs = classifier(**encoding).logits[0].softmax(-1).tolist()
        ours = _scores(reply)
        best = max(ours, key=ours.get)
        differing += best != names[max(range(len(theirs)), key=theirs.__getitem__)]
        right += best == row["label"]
        worst = max([worst, *(abs(ours[names[index]] - probability) for index, probability in enumerate(theirs))])
    print(f"{len(rows)} texts: {differing} labels differ, largest difference of a probability {worst:.1e}")
    print(f"accuracy against the file's labels {right / len(rows):.4f}")
    return differing == 0 and worst <= PROBABILITY_TOLERANCE


def _scores(reply: list) -> dict[str, float]:
    """Label to probability, from the flat or the nested form of a classification."""
    flat = reply[0] if isinstance(reply[0], list) else reply
    return {row["label"]: row["score"] for row in flat}


def _run(binary: Path, task: str, model: Path, bodies: list[dict]) -> list:
    """What `centuple run` answers to each body, in order."""
    given = "".join(json.dumps(body) + "\n" for body in bodies)
    command = [str(binary), "run", task, str(model)]
    printed = subprocess.run(command, input=given, stdout=subprocess.PIPE, text=True, check=True).stdout
    return [json.loads(line) for line in printed.splitlines()]


if __name__ == "__main__":
    main()
