"""ONNX Runtime: the graph as exported, rewritten by its transformer optimizer, or quantised."""

import json
from pathlib import Path

import numpy
import onnxruntime


class Session:
    """A session on one file on the CPU; every rewrite that the session makes by itself is on."""

    provider = "CPUExecutionProvider"

    def __init__(self, model: Path, artefact: Path, threads: int):
        # A session without its provider would run on the CPU and say nothing.
        if self.provider not in onnxruntime.get_available_providers():
            raise RuntimeError(f"this ONNX Runtime has no {self.provider}; install onnxruntime-gpu in its place")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        self._session = onnxruntime.InferenceSession(str(artefact), options, providers=[self.provider])
        about = artefact.with_suffix(".json")
        settings = json.loads(about.read_text()) if about.is_file() else {}
        made = "".join(f", {name}={value}" for name, value in settings.items())
        self.note = f"onnxruntime {onnxruntime.__version__}, {artefact.name}{made}"

    def run(self, ids: numpy.ndarray, mask: numpy.ndarray) -> numpy.ndarray:
        inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": numpy.zeros_like(ids)}
        return self._session.run(None, inputs)[0]


class CudaSession(Session):
    """The same on a GPU, in the precision of the file."""

    provider = "CUDAExecutionProvider"
