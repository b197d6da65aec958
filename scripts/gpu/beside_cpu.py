"""Answers of a GPU beside the CPU's in f32: `beside_cpu.py BINARY MODEL PRECISION ...`. Ends with 1 where they are too far apart."""

import json
import math
import random
import sys
from pathlib import Path

from over_http import WORDS
from systems import Product

TEXTS = 200
LEAST = {"f16": 0.9999, "bf16": 0.999, "int8": 0.99, "fp8": 0.99}
"""The least cosine to the CPU's answer."""


def cosine(a: list[float], b: list[float]) -> float:
    return sum(map(float.__mul__, a, b)) / math.hypot(*a) / math.hypot(*b)


def main() -> None:
    binary, model = map(Path, sys.argv[1:3])
    draw = random.Random(1)
    texts = [" ".join(draw.choices(WORDS, k=draw.randint(1, 200))) for _ in range(TEXTS)]
    expected = answers(Product(binary, model, "f32", threads=2), texts)
    for precision in sys.argv[3:]:
        least, found = LEAST[precision], answers(Product(binary, model, f"cuda-{precision}", threads=2), texts)
        worst = min(map(cosine, found, expected))
        print(f"{precision}: the least cosine to the CPU's f32 over {TEXTS} texts is {worst:.6f}")
        if not worst >= least:
            sys.exit(f"{precision} is below {least}")


def answers(product: Product, texts: list[str]) -> list[list[float]]:
    """All numbers of each answer."""
    return [[float(number) for number in numbers(one)] for one in product.features(texts)]


def numbers(nested: object):
    """All numbers of nested lists."""
    if isinstance(nested, list):
        for part in nested:
            yield from numbers(part)
    else:
        yield nested


if __name__ == "__main__":
    main()
