"""The peers by name. A new peer is one module here and one line in `PEERS`.

An engine is made by `Engine(model, prepared, threads)`, where `prepared` is the folder that `prepare.py` filled
for the model, and answers `run(ids)`: token ids [batch, tokens] (int64, no padding) to the last hidden state
[batch, tokens, hidden]. Its `note` says in a few words which setting it runs.
"""

from collections.abc import Callable
from importlib import import_module

PEERS = {
    "onnxruntime": ("onnx_runtime", "Plain"),
    "onnxruntime-optimised": ("onnx_runtime", "Optimised"),
}


def engine(name: str) -> Callable:
    """The class of a peer; only its own module is imported, so that no peer carries another's libraries."""
    module, attribute = PEERS[name]
    return getattr(import_module(f"engines.{module}"), attribute)
