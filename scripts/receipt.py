#!/usr/bin/env python3
"""Recomputes the figures of a receipt from the predictions beside it.

    receipt.py ARTEFACT                      metrics with scipy and scikit-learn, against report.json
    receipt.py ARTEFACT EVAL                 and examples and labels, against the file that the model was judged by
    receipt.py ARTEFACT EVAL --model MODEL   and the predictions in f32, against those of PyTorch

EVAL is a TSV file with a header: `score sentence1 sentence2`, or `text label`, in any order of columns. The figures are
the two metrics, their difference and the verdict; the intervals come from the product's own random numbers and are only
checked to hold their figure. Makes its own environment beside the goldens' scripts. Exit code 1 if a figure differs.
"""

import argparse
import csv
import hashlib
import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import environment  # noqa: E402

GOLDENS = HERE / "goldens"
BATCH = 32
# Of a figure in points: sums in another order end in other last bits.
FIGURE_TOLERANCE = 1e-11
# How many times PyTorch's own distance in f32 from f64 a cosine may be from f64. The product sums in the order of k,
# PyTorch in blocks: made to sum in that order too, it is 6 times as far off on a model of hard_model.py.
ROUNDING = 8.0
# Of a metric in points beside PyTorch's: two near cosines may change places.
METRIC_TOLERANCE = 5e-3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artefact", type=Path, help="folder that `centuple optimize` wrote")
    parser.add_argument("eval", type=Path, nargs="?", help="TSV file that it was given as --eval")
    parser.add_argument("--model", type=Path, help="the model that it was made of; needs EVAL")
    options = parser.parse_args()
    if options.model and not options.eval:
        parser.error("--model needs EVAL")
    # scikit-learn is in both: sentence-transformers needs it.
    suffix = "" if options.model else "-metrics"
    environment.enter(GOLDENS / f"requirements{suffix}.txt", GOLDENS / f".venv{suffix}")
    findings = json.loads((options.artefact / "report.json").read_text(encoding="utf-8"))["findings"]
    lines = (options.artefact / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    predictions = [json.loads(line) for line in lines]
    checks = Checks()
    figures(checks, findings, predictions)
    if options.eval:
        rows = examples(checks, findings, predictions, options.eval)
        if options.model:
            pytorch(checks, findings, predictions, rows, options.model)
    sys.exit(1 if checks.failed else 0)


class Checks:
    """What was compared, printed as it is."""

    def __init__(self):
        self.failed = False

    def equal(self, what: str, found, expected) -> None:
        self._line(what, found == expected, f"{found}", "" if found == expected else f"recomputed {expected}")

    def near(self, what: str, found: float, expected: float, tolerance: float) -> None:
        difference = abs(found - expected)
        detail = "the same to the last digit" if found == expected else f"recomputed {expected!r}, {difference:.1e} off"
        self._line(what, difference <= tolerance, repr(found), detail)

    def holds(self, what: str, holds: bool, found: str) -> None:
        self._line(what, holds, found, "")

    def _line(self, what: str, right: bool, found: str, detail: str) -> None:
        self.failed |= not right
        print("  ".join(part for part in ("ok   " if right else "WRONG", f"{what}:", found, detail) if part))


def figures(checks: Checks, findings: dict, predictions: list[dict]) -> None:
    """Both metrics, their difference, and the verdict that follows."""
    accuracy = findings["accuracy"]
    metric = accuracy["metric"].removesuffix(" x100")
    checks.equal("examples of the verdict", findings["dataset"]["verdict_examples"], len(predictions))
    values = [100.0 * score(metric, predictions, which) for which in ("f32", "optimised")]
    reported = [accuracy["baseline"], accuracy["optimised"]]
    for name, value, estimate in zip(("in f32", "optimised"), values, reported, strict=True):
        checks.near(f"{metric} x100 {name}", estimate["value"], value, FIGURE_TOLERANCE)
        interval(checks, name, estimate, estimate["value"])
    paired = accuracy["paired"]
    checks.near("difference", paired["difference"], values[1] - values[0], 2 * FIGURE_TOLERANCE)
    interval(checks, "difference", paired, paired["difference"])
    within = values[0] - values[1] <= findings["max_drop"]
    met = "met" if findings["dataset"]["labelled"] else "unlabelled"
    checks.equal("verdict", findings["verdict"], met if within else "over")


def interval(checks: Checks, name: str, estimate: dict, value: float) -> None:
    low, high = estimate["low"], estimate["high"]
    checks.holds(f"interval {name}", low <= value <= high, f"{low:.3f} to {high:.3f}")


def score(metric: str, predictions: list[dict], which: str) -> float:
    """A metric of predictions, by its name in the receipt."""
    import numpy
    from scipy.stats import pearsonr, spearmanr
    from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef
    from sklearn.preprocessing import MultiLabelBinarizer

    if metric == "mean cosine":
        return 1.0 if which == "f32" else float(numpy.mean([line["cosine"] for line in predictions]))
    found = [line[which] for line in predictions]
    truth = [line["f32" if metric == "equal labels" else "label"] for line in predictions]
    if metric in ("accuracy", "equal labels"):
        return float(accuracy_score(truth, found))
    if metric == "Matthews correlation":
        return float(matthews_corrcoef(truth, found))
    if metric == "Spearman correlation":
        return float(spearmanr(truth, found).statistic)
    if metric == "Pearson correlation":
        return float(pearsonr(truth, found).statistic)
    if metric == "multi-label micro F1":
        sets = MultiLabelBinarizer().fit([*truth, *found])
        return float(f1_score(sets.transform(truth), sets.transform(found), average="micro", zero_division=0))
    averages = {"F1": "binary", "macro F1": "macro", "micro F1": "micro", "weighted F1": "weighted"}
    if metric in averages:
        return float(f1_score(truth, found, average=averages[metric], zero_division=0))
    sys.exit(f"no way to recompute {metric}")


def examples(checks: Checks, findings: dict, predictions: list[dict], path: Path) -> list[dict]:
    """Checks which examples were held back, and returns their rows."""
    content = path.read_bytes()
    checks.equal("SHA-256 of the examples", findings["dataset"]["sha256"], hashlib.sha256(content).hexdigest())
    lines = content.decode("utf-8").splitlines()
    rows = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    places = [line["example"] for line in predictions]
    checks.equal("examples", findings["dataset"]["search_examples"] + len(set(places)), len(rows))
    verdict = {texts(rows[place]) for place in places}
    held_back = set(places)
    leaked = sum(texts(row) in verdict for place, row in enumerate(rows) if place not in held_back)
    checks.equal("examples of the search with the texts of one of the verdict", leaked, 0)
    kept = [rows[place] for place in places]
    if "score" in rows[0]:
        labels = [float(row["score"]) for row in kept]
        checks.equal("different scores", sum(a != b["label"] for a, b in zip(labels, predictions, strict=True)), 0)
    else:
        # A name has one number throughout, whatever the model's order is.
        pairs = {(row["label"], line["label"]) for row, line in zip(kept, predictions, strict=True)}
        one_to_one = len(pairs) == len({name for name, _ in pairs}) == len({number for _, number in pairs})
        checks.holds("labels", one_to_one, ", ".join(f"{number} {name}" for name, number in sorted(pairs)))
    return kept


def texts(row: dict) -> tuple:
    return tuple(row[name] for name in ("text", "sentence1", "sentence2") if name in row)


def pytorch(checks: Checks, findings: dict, predictions: list[dict], rows: list[dict], model: Path) -> None:
    """Holds the predictions in f32 against PyTorch's."""
    if "sentence1" in rows[0]:
        recomputed, exact = (similarities(model, rows, exact) for exact in (False, True))
        own = max(abs(a - b) for a, b in zip(recomputed, exact, strict=True))
        largest = max(abs(line["f32"] - cosine) for line, cosine in zip(predictions, exact, strict=True))
        found = f"cosines are {largest:.1e} off at most, PyTorch's in f32 {own:.1e}"
        checks.holds("f32 beside PyTorch in f64", largest <= ROUNDING * own, found)
    else:
        recomputed = classes(model, rows)
        differ = sum(theirs != line["f32"] for theirs, line in zip(recomputed, predictions, strict=True))
        checks.equal("labels in f32 that are not PyTorch's", differ, 0)
    metric = findings["accuracy"]["metric"].removesuffix(" x100")
    theirs = [line | {"f32": theirs} for theirs, line in zip(recomputed, predictions, strict=True)]
    value = 100.0 * score(metric, theirs, "f32")
    checks.near(f"{metric} x100 of PyTorch", findings["accuracy"]["baseline"]["value"], value, METRIC_TOLERANCE)


def similarities(model: Path, rows: list[dict], exact: bool) -> list[float]:
    """Cosines of the pairs, in f32 or in f64."""
    from sentence_transformers import SentenceTransformer

    encoder = SentenceTransformer(str(model), device="cpu", local_files_only=True)
    encoder = encoder.double() if exact else encoder
    columns = ([row[name] for row in rows] for name in ("sentence1", "sentence2"))
    left, right = (encoder.encode(column, batch_size=BATCH, normalize_embeddings=True) for column in columns)
    return (left.astype("float64") * right).sum(axis=1).tolist()


def classes(model: Path, rows: list[dict]) -> list[int]:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    classifier = AutoModelForSequenceClassification.from_pretrained(model, dtype=torch.float32).eval()
    longest = min(tokenizer.model_max_length, classifier.config.max_position_embeddings)
    found = []
    for start in range(0, len(rows), BATCH):
        batch = [row["text"] for row in rows[start : start + BATCH]]
        encoding = tokenizer(batch, truncation=True, max_length=longest, padding=True, return_tensors="pt")
        with torch.inference_mode():
            found += classifier(**encoding).logits.argmax(-1).tolist()
    return found


if __name__ == "__main__":
    main()
