"""What one client of the server waits for texts of so many tokens: `over_http.py BINARY MODEL PRECISION TOKENS[=MOST] ...`.

Ends with 1 where the median is more than `MOST` microseconds.
`MODEL` is the folder of an uncased BERT checkpoint, in whose vocabulary the words below are a token each. No text comes twice.
"""

import random
import sys
from pathlib import Path

from server import Server
from systems import Product

REQUESTS = 1000
WARM_UP = 200
WORDS = """time year people way day man thing woman life child world school state family student group country problem hand
part place case week company system program question work government number night point home water room mother area
money story fact month right study book eye job word business issue side kind head house service friend father power
hour game line end member law car city community name president team minute idea body information parent face level
office door health person art war history party result change morning reason research girl moment air teacher force""".split()


def main() -> None:
    binary, model, precision, *asked = sys.argv[1:]
    missed = False
    product = Product(Path(binary), Path(model), precision, threads=2)
    with Server(product) as server:
        for tokens, most in map(read, asked):
            # Two tokens are special.
            draw = random.Random(tokens)
            texts = [" ".join(draw.choices(WORDS, k=tokens - 2)) for _ in range(WARM_UP + REQUESTS)]
            server.embed(texts[:WARM_UP], clients=1)
            load = server.embed(texts[WARM_UP:], clients=1)
            print(f"{precision} 1x{tokens} over HTTP: p50 {1e3 * load.p50:.0f} µs, p99 {1e3 * load.p99:.0f} µs")
            if most is not None:
                is_met = 1e3 * load.p50 <= most
                print(f"at most {most:.0f} µs: {'met' if is_met else 'missed'}")
                missed |= not is_met
    sys.exit(missed)


def read(asked: str) -> tuple[int, float | None]:
    """Tokens of a text, and the most microseconds that it may take."""
    tokens, _, most = asked.partition("=")
    return int(tokens), float(most) if most else None


if __name__ == "__main__":
    main()
