"""The peers by name. A new peer is one class in a module here and one line in `PEERS`.

An engine is made by `Engine(model, artefact, threads)`: the checkpoint's folder, and what `prepare.py` made of it for
this engine (None where the peer needs nothing). It answers `run(ids, mask)`: token ids [batch, tokens] and a mask of
the same shape with 1 for tokens and 0 for padding at the end (both int64), to the last hidden state
[batch, tokens, hidden] (f32), whose rows at padding are never looked at. Its `note` says in a few words which setting
it runs. An engine that cannot work here raises; the report then says why it is absent.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module


@dataclass(frozen=True)
class Kind:
    """Where a peer's class is, the precision it is compared with (one of `lineup.PRECISIONS`), and the name of the artefact that `prepare.py` makes."""

    module: str
    attribute: str
    precision: str
    artefact: str | None = None


ORACLE = "pytorch"
PEERS = {
    "onnxruntime": Kind("onnx_runtime", "Session", "f32", "plain.onnx"),
    "onnxruntime-optimised": Kind("onnx_runtime", "Session", "f32", "optimised.onnx"),
    "onnxruntime-int8": Kind("onnx_runtime", "Session", "int8", "int8.onnx"),
    "pytorch": Kind("pytorch", "Eager", "f32"),
    "pytorch-compiled": Kind("pytorch", "Compiled", "f32"),
    "pytorch-int8": Kind("pytorch", "Int8", "int8"),
    "openvino": Kind("open_vino", "Compiled", "f32", "plain.onnx"),
    "ctranslate2": Kind("ctranslate", "Float", "f32", "ctranslate2"),
    "ctranslate2-int8": Kind("ctranslate", "Int8", "int8", "ctranslate2"),
    "pytorch-cuda": Kind("pytorch_cuda", "Eager", "cuda-f16"),
    "pytorch-cuda-sdpa": Kind("pytorch_cuda", "Sdpa", "cuda-f16"),
    "pytorch-cuda-compiled": Kind("pytorch_cuda", "Compiled", "cuda-f16"),
    "pytorch-cuda-f32": Kind("pytorch_cuda", "Float", "cuda-int8"),
    "onnxruntime-cuda": Kind("onnx_runtime", "CudaSession", "cuda-f16", "optimised.onnx"),
}


def engine(name: str) -> Callable:
    """The class of a peer; only its own module is imported, so that no peer carries another's libraries."""
    kind = PEERS[name]
    return getattr(import_module(f"engines.{kind.module}"), kind.attribute)
