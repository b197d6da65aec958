#!/usr/bin/env python3
"""Writes the golden values of the metrics, and Parquet files as the hub's tools write them.

Makes its own environment in .venv-metrics beside this file (outside git). What it writes is described in
crates/receipt/tests/goldens/README.md.
"""

import json
import math
import random
import sys
import warnings
from pathlib import Path

HERE = Path(__file__).resolve().parent
GOLDENS = HERE.parents[1] / "crates" / "receipt" / "tests" / "goldens"
sys.path.insert(0, str(HERE.parent))

import environment  # noqa: E402

WORDS = [*"The the a an A cat cat's dog. Dog, in U.S. 1,000 1000 Zürich « » — x_y É ﬁ theatre Ana".split(), "\u3000", "\u001f"]
RESAMPLES = 200


def main() -> None:
    environment.enter(HERE / "requirements-metrics.txt", HERE / ".venv-metrics")
    import readable

    warnings.simplefilter("ignore")
    source = random.Random(20260101)
    cases = {
        "labels": labels(source),
        "label_sets": label_sets(source),
        "scores": scores(source),
        "answers": answers(source),
        "tags": tags(source),
        "losses": losses(source),
        "intervals": intervals(source),
    }
    for name, case in cases.items():
        readable.write(GOLDENS / f"{name}.json", case)
    parquet(GOLDENS)


def labels(source: random.Random) -> list[dict]:
    """One label per example: random ones, classes that only one side has, constant ones."""
    cases = []
    for size, classes in [(1, 2), (2, 2), (17, 2), (200, 2), (17, 5), (200, 5), (300, 40)]:
        truth = source.choices(range(classes), k=size)
        likely = [label if source.random() < 0.7 else source.randrange(classes) for label in truth]
        cases += [(truth, likely), (truth, truth), (truth, [1] * size), ([1] * size, likely)]
    cases += [([0] * 5, [0] * 5), ([1] * 5, [1] * 5), ([0] * 4, [1] * 4), ([0, 0, 1, 1, 7], [3, 3, 3, 1, 0])]
    return [labels_case(truth, predicted) for truth, predicted in cases]


def labels_case(truth: list[int], predicted: list[int]) -> dict:
    from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

    def f1(average: str) -> float:
        return float(f1_score(truth, predicted, average=average, zero_division=0))

    binary = max(truth + predicted) < 2
    return {
        "truth": truth,
        "predicted": predicted,
        "accuracy": float(accuracy_score(truth, predicted)),
        "f1_macro": f1("macro"),
        "f1_micro": f1("micro"),
        "f1_weighted": f1("weighted"),
        "matthews": float(matthews_corrcoef(truth, predicted)),
    } | ({"f1": f1("binary")} if binary else {})


def label_sets(source: random.Random) -> list[dict]:
    """Any number of labels per example; also none at all."""
    import numpy as np
    from sklearn.metrics import f1_score

    def draw(size: int, classes: int, share: float) -> list[list[int]]:
        return [[label for label in range(classes) if source.random() < share] for _ in range(size)]

    def indicators(sets: list[list[int]], classes: int):
        return np.array([[int(label in labels) for label in range(classes)] for labels in sets])

    cases = []
    for size, classes, share in [(1, 3, 0.5), (40, 6, 0.3), (100, 28, 0.05), (8, 4, 0.0)]:
        truth, predicted = draw(size, classes, share), draw(size, classes, share)
        both = (indicators(truth, classes), indicators(predicted, classes))
        f1 = float(f1_score(*both, average="micro", zero_division=0))
        cases.append({"truth": truth, "predicted": predicted, "f1_micro": f1})
    return cases


def scores(source: random.Random) -> list[dict]:
    """Pairs of numbers: with and without ties, far from zero, constant (null: scipy gives NaN)."""
    cases = []
    for size in (2, 3, 20, 150):
        truth = [source.uniform(0, 5) for _ in range(size)]
        near = [value / 5 + source.gauss(0, 0.2) for value in truth]
        cases += [(truth, near), (truth, truth), (truth, [-value for value in truth])]
        cases.append(([float(round(value)) for value in truth], near))
        cases.append(([round(value, 1) for value in truth], [round(value, 1) for value in near]))
        cases += [([value + 1e4 for value in truth], near), ([value * 1e-200 for value in truth], near)]
    cases += [([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]), ([0.0, -0.0, 1.0, 1.0], [1.0, 1.0, 1.0, 2.0]), ([3.0], [2.0])]
    return [{"truth": truth, "predicted": predicted} | correlations(truth, predicted) for truth, predicted in cases]


def correlations(truth: list[float], predicted: list[float]) -> dict:
    from scipy.stats import pearsonr, spearmanr

    if len(truth) < 2:
        return {"spearman": None, "pearson": None}
    found = {"spearman": spearmanr(truth, predicted).statistic, "pearson": pearsonr(truth, predicted).statistic}
    return {name: None if math.isnan(value) else float(value) for name, value in found.items()}


def answers(source: random.Random) -> list[dict]:
    """Answers to questions: words with articles, punctuation and odd spaces.

    None is empty once it is normalised: the oracle, made for SQuAD 2.0, scores that otherwise.
    """
    from transformers.data.metrics.squad_metrics import compute_exact, compute_f1, normalize_answer

    def text() -> str:
        drawn = source.choices(WORDS, k=source.randint(1, 5))
        return source.choice([" ", "  ", "\n"]).join(drawn)

    cases = []
    while len(cases) < 120:
        right, given = [text() for _ in range(source.randint(1, 3))], text()
        if source.random() < 0.3:
            given = source.choice(right).upper()
        if not all(normalize_answer(answer) for answer in [*right, given]):
            continue
        exact = max(compute_exact(answer, given) for answer in right)
        f1 = max(compute_f1(answer, given) for answer in right)
        cases.append({"answers": right, "given": given, "exact_match": exact, "token_f1": float(f1)})
    return cases


def tags(source: random.Random) -> list[dict]:
    """Tagged words: sound sequences and damaged ones, also without any entity."""
    from seqeval.metrics import f1_score
    from seqeval.metrics.sequence_labeling import get_entities

    every = ["O"] + [f"{prefix}-{label}" for prefix in "BIES" for label in ("PER", "LOC", "a-b")]

    def sound(size: int) -> list[str]:
        drawn = []
        while len(drawn) < size:
            label, length = source.choice(["PER", "LOC", "a-b"]), source.randint(1, 3)
            drawn += source.choice([["O"] * length, [f"B-{label}"] + [f"I-{label}"] * (length - 1)])
        return drawn[:size]

    def changed(sequence: list[str]) -> list[str]:
        return [tag if source.random() < 0.8 else source.choice(every) for tag in sequence]

    cases = []
    for texts, damaged in [(1, False), (20, False), (20, True), (50, True)]:
        truth = [sound(source.randint(1, 12)) for _ in range(texts)]
        truth = [changed(sequence) for sequence in truth] if damaged else truth
        cases.append((truth, [changed(sequence) for sequence in truth]))
    cases += [([["O", "O"]], [["O", "O"]]), ([["O", "O"]], [["B-PER", "O"]]), ([["B-PER", "O"]], [["O", "O"]])]
    return [
        {
            "truth": truth,
            "predicted": predicted,
            "entities": [[[label, start, end + 1] for label, start, end in get_entities(tags)] for tags in predicted],
            "f1": float(f1_score(truth, predicted, average="micro", zero_division=0)),
        }
        for truth, predicted in cases
    ]


def losses(source: random.Random) -> list[dict]:
    """Summed negative log-likelihoods and numbers of tokens."""
    cases = []
    for size in (1, 30):
        tokens = [source.randint(1, 50) for _ in range(size)]
        sums = [count * source.uniform(0.5, 5) for count in tokens]
        cases.append({"losses": sums, "tokens": tokens, "perplexity": math.exp(math.fsum(sums) / sum(tokens))})
    return cases


def intervals(source: random.Random) -> list[dict]:
    """Bootstraps by hand: SplitMix64, resampled lists given to scipy and scikit-learn, numpy's percentiles."""
    import numpy as np
    from scipy.stats import spearmanr
    from sklearn.metrics import f1_score

    def spearman(truth: list, predicted: list) -> float:
        return float(spearmanr(truth, predicted).statistic)

    def f1_macro(truth: list, predicted: list) -> float:
        return float(f1_score(truth, predicted, average="macro", zero_division=0))

    size, cases = 40, []
    scores = [round(source.uniform(0, 5), 1) for _ in range(size)]
    classes = source.choices(range(3), k=size)
    for metric, truth, seed in [(spearman, scores, 0), (spearman, scores, 2**64 - 1), (f1_macro, classes, 5)]:
        if metric is spearman:
            systems = [[round(value + source.gauss(0, spread), 1) for value in truth] for spread in (0.5, 1.5)]
        else:
            systems = [[label if source.random() < right else 0 for label in truth] for right in (0.9, 0.6)]
        drawn = list(draws(seed, size))
        values = [
            [metric([truth[i] for i in sample], [system[i] for i in sample]) for sample in drawn] for system in systems
        ]
        points = [metric(truth, system) for system in systems]
        ends = lambda values: [float(end) for end in np.percentile(values, [2.5, 97.5])]  # noqa: E731
        cases.append({
            "metric": metric.__name__,
            "truth": truth,
            "baseline": systems[0],
            "candidate": systems[1],
            "resamples": RESAMPLES,
            "seed": str(seed),
            "estimate": [points[0], *ends(values[0])],
            "paired": [points[1] - points[0], *ends(np.subtract(values[1], values[0]))],
        })
    return cases


def draws(seed: int, size: int):
    """The indices of each resample."""
    state, mask = seed, 2**64 - 1
    for _ in range(RESAMPLES):
        sample = []
        for _ in range(size):
            state = (state + 0x9E3779B97F4A7C15) & mask
            mixed = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
            mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & mask
            sample.append(((mixed ^ (mixed >> 31)) * size) >> 64)
        yield sample


def parquet(folder: Path) -> None:
    """Files in the shapes of well known data sets, in each compression."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def write(name: str, table, features: dict | None = None, **options) -> None:
        if features is not None:
            note = json.dumps({"info": {"features": features}})
            table = table.replace_schema_metadata({"huggingface": note})
        pq.write_table(table, folder / f"{name}.parquet", **options)

    text = ["a first text", "", "ein dritter: Zürich", "四", "the last"] * 3
    write(
        "text",
        pa.table({"text": text, "label": pa.array([index % 2 for index in range(15)], pa.int64())}),
        {"text": {"_type": "Value", "dtype": "string"}, "label": {"_type": "ClassLabel", "names": ["neg", "pos"]}},
        compression="snappy",
        row_group_size=4,
    )
    write(
        "similarity",
        pa.table({
            "sentence1": pa.array(text, pa.large_string()),
            "sentence2": text[::-1],
            "label": pa.array([index / 3 for index in range(15)], pa.float32()),
            "idx": pa.array(range(15), pa.int32()),
        }),
        compression="zstd",
        data_page_version="2.0",
        column_encoding={"label": "BYTE_STREAM_SPLIT"},
        use_dictionary=["sentence1"],
    )
    tags = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
    write(
        "tags",
        pa.table({
            "id": ["0", "1"],
            "tokens": [["Ana", "lives", "in", "São", "Paulo"], ["Hi"]],
            "ner_tags": pa.array([[1, 0, 0, 3, 4], [0]], pa.list_(pa.int64())),
        }),
        {"ner_tags": {"_type": "Sequence", "feature": {"_type": "ClassLabel", "names": tags}}},
        compression="gzip",
    )
    write(
        "answers",
        pa.table({
            "id": ["x", "y"],
            "title": ["t", "t"],
            "context": ["Ana lives in São Paulo.", "It rains."],
            "question": ["Where does Ana live?", "What does it do?"],
            "answers": pa.array(
                [
                    {"text": ["São Paulo", "in São Paulo"], "answer_start": [13, 10]},
                    {"text": ["rain"], "answer_start": [3]},
                ],
                pa.struct([("text", pa.list_(pa.string())), ("answer_start", pa.list_(pa.int32()))]),
            ),
        }),
        compression="none",
    )
    write(
        "multi_label",
        pa.table({
            "text": ["one", "none", "two"],
            "labels": pa.array([[3], [], [0, 27]], pa.list_(pa.int32())),
            "created": pa.array([0, 1, 2], pa.timestamp("ns")),
        }),
        column_encoding={"labels.list.element": "DELTA_BINARY_PACKED"},
        use_dictionary=False,
    )
    ana = [{"start": 0, "end": 3, "label": "PER"}, {"start": 7, "end": 13, "label": "LOC"}]
    write(
        "spans",
        pa.table({
            "text": ["Ana in Zürich", "nobody", "Bo"],
            "entities": pa.array(
                [ana, [], [{"start": 0, "end": 2, "label": "PER"}]],
                pa.list_(pa.struct([("start", pa.int64()), ("end", pa.int64()), ("label", pa.string())])),
            ),
        }),
    )
    write("nulls", pa.table({"tokens": [["a", None], None, []], "tags": [["O", "O"], ["O"], []]}))
    write("null_text", pa.table({"text": ["a", None], "label": [1, 0]}))
    write("bad_score", pa.table({"text1": ["a", "b"], "text2": ["a", "b"], "score": [0.5, float("nan")]}))
    differences = pa.table({"text": ["aa", "ab"], "label": [0, 1]})
    write("differences", differences, column_encoding={"text": "DELTA_BYTE_ARRAY"}, use_dictionary=False)
    write("no_rows", pa.table({"text": pa.array([], pa.string()), "label": pa.array([], pa.int64())}))


if __name__ == "__main__":
    main()
