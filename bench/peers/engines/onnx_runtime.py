"""ONNX Runtime on the CPU, f32: the exported graph, and the graph rewritten by its transformer optimizer."""

from pathlib import Path

import numpy
import onnxruntime


class Plain:
    """The graph as exported; every rewrite that the session makes by itself is on."""

    file = "plain.onnx"

    def __init__(self, model: Path, prepared: Path, threads: int):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        path = prepared / self.file
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.note = f"onnxruntime {onnxruntime.__version__}, f32, {threads} threads, {self.file}"

    def run(self, ids: numpy.ndarray) -> numpy.ndarray:
        inputs = {"input_ids": ids, "attention_mask": numpy.ones_like(ids), "token_type_ids": numpy.zeros_like(ids)}
        return self._session.run(None, inputs)[0]


class Optimised(Plain):
    """Attention, LayerNorm with residual, GELU with bias and embeddings as fused operators."""

    file = "optimised.onnx"
