"""CTranslate2 on the CPU, from the converted checkpoint. It removes padding by itself."""

from pathlib import Path

import ctranslate2
import numpy


class Float:
    """f32."""

    compute_type = "float32"

    def __init__(self, model: Path, artefact: Path, threads: int):
        options = {"compute_type": self.compute_type, "intra_threads": threads, "inter_threads": 1}
        self._encoder = ctranslate2.Encoder(str(artefact), device="cpu", **options)
        self.note = f"ctranslate2 {ctranslate2.__version__}, {self._encoder.compute_type}"

    def run(self, ids: numpy.ndarray, mask: numpy.ndarray) -> numpy.ndarray:
        view = ctranslate2.StorageView.from_array
        answer = self._encoder.forward_batch(view(ids.astype(numpy.int32)), view(mask.sum(1).astype(numpy.int32)))
        return numpy.array(answer.last_hidden_state)


class Int8(Float):
    """int8 linear layers and embeddings, f32 between them."""

    compute_type = "int8_float32"
