"""The texts that are sent: made once from fixed seeds, so that every system gets the same ones in the same order.

They come in blocks. Each block has the same mixture of lengths, so systems that get through more or fewer blocks still
get the same work per text. No text comes twice, so no cache could answer.
"""

import random
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "crates" / "centuple" / "src" / "sample.txt"
sys.path.insert(0, str(ROOT / "scripts" / "goldens"))

BLOCK = 50


def mixed(count: int) -> list[str]:
    """Pieces of the project's own sample, most of them short: a median of 20 words, up to 120."""
    draw, words = random.Random(1), SAMPLE.read_text(encoding="utf-8").split()
    return [_piece(words, draw, min(120, max(3, round(draw.lognormvariate(3, 0.8))))) for _ in range(count)]


def prompts(count: int) -> list[str]:
    """Sentences of the sample in ever different order, 100 words or a few more: about 128 tokens."""
    draw, sentences = random.Random(2), SAMPLE.read_text(encoding="utf-8").splitlines()
    found = {}
    while len(found) < count:
        order, words = draw.sample(sentences, len(sentences)), 0
        for used, sentence in enumerate(order, start=1):
            words += len(sentence.split())
            if words >= 100:
                found[" ".join(order[:used])] = None
                break
    return list(found)


def personal(count: int) -> list[str]:
    """Sentences with made-up names, addresses and numbers: one, or in a quarter of the texts up to a dozen."""
    import pii_texts

    found = dict.fromkeys(filter(str.strip, pii_texts.texts(3 * count // 2)))
    return random.Random(5).sample(list(found), count)


def reactions(count: int) -> list[str]:
    """Reactions as chemists write them, one atom of each masked, of what BERT's own tokenizer can tell apart."""
    import reactions as goldens

    draw, found = random.Random(3), {}
    known = [
        [token for token in goldens.TOKEN.findall(reaction) if len(token) == 1 or token in ("Br", "Cl")]
        for reaction in goldens.all_reactions(1500)
    ]
    while len(found) < count:
        tokens = draw.choice(known)
        masked = draw.choice([place for place, token in enumerate(tokens) if token.isalpha()])
        found[" ".join([*tokens[:masked], "[MASK]", *tokens[masked + 1 :]])] = None
    return list(found)


def blocks(make: Callable[[int], list[str]], count: int) -> list[str]:
    """So many blocks of texts one after the other, each with one text out of each fiftieth of the lengths."""
    draw, found = random.Random(4), sorted(make(count * BLOCK), key=len)
    strata = [draw.sample(found[start : start + count], count) for start in range(0, len(found), count)]
    mixture = [list(block) for block in zip(*strata, strict=False)]
    for block in mixture:
        draw.shuffle(block)
    return [text for block in mixture for text in block]


def _piece(words: list[str], draw: random.Random, length: int) -> str:
    begin = draw.randrange(len(words) - length)
    # The sample has few words, so a number makes each piece one of a kind.
    return " ".join([*words[begin : begin + length - 1], str(draw.randrange(10**6))])
