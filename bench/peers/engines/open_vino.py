"""OpenVINO on the CPU, f32, from the exported ONNX graph."""

from pathlib import Path

import numpy
import openvino


class Compiled:
    """One infer request with the latency hint, arithmetic held to f32."""

    def __init__(self, model: Path, artefact: Path, threads: int):
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": "f32",
        }
        self._request = openvino.Core().compile_model(str(artefact), "CPU", settings).create_infer_request()
        self.note = f"openvino {openvino.__version__.split('-')[0]}, f32, latency hint"

    def run(self, ids: numpy.ndarray, mask: numpy.ndarray) -> numpy.ndarray:
        inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": numpy.zeros_like(ids)}
        return self._request.infer(inputs, share_inputs=True, share_outputs=True)[0]
