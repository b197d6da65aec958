"""PyTorch on the CPU with the model code of transformers and its fused attention (sdpa)."""

import time
from pathlib import Path

import numpy
import torch
from transformers import AutoModel


class Eager:
    """f32, operator by operator; the answers that every other row is compared with."""

    setting = "f32, eager, sdpa"

    def __init__(self, model: Path, artefact: None, threads: int):
        torch.set_num_threads(threads)
        encoder = AutoModel.from_pretrained(model, dtype=torch.float32, attn_implementation="sdpa").eval()
        self._encoder = self.convert(encoder)
        self.note = f"torch {torch.__version__}, {self.setting}"

    def convert(self, encoder: torch.nn.Module) -> torch.nn.Module:
        """What runs in the place of the plain module."""
        return encoder

    def run(self, ids: numpy.ndarray, mask: numpy.ndarray) -> numpy.ndarray:
        with torch.inference_mode():
            # A mask that hides nothing costs sdpa its fast path.
            mask = None if mask.all() else torch.from_numpy(mask)
            return self._encoder(input_ids=torch.from_numpy(ids), attention_mask=mask).last_hidden_state.numpy()


class Compiled(Eager):
    """f32 through torch.compile with frozen weights; compiled for any shape, before anything is timed."""

    setting = "f32, torch.compile, frozen weights, dynamic shapes"
    longest_seconds = 240

    def convert(self, encoder: torch.nn.Module) -> torch.nn.Module:
        import torch._inductor.config

        torch._inductor.config.freezing = True
        return torch.compile(encoder, dynamic=True)

    def __init__(self, model: Path, artefact: None, threads: int):
        super().__init__(model, artefact, threads)
        start = time.monotonic()
        # One sequence and several, with padding and without, are graphs of their own.
        for shape, length in [((1, 16), 16), ((2, 24), 24), ((2, 24), 20)]:
            mask = numpy.broadcast_to(numpy.arange(shape[1]) < length, shape).astype(numpy.int64, order="C")
            self.run(numpy.full(shape, 100, numpy.int64), mask)
            if (seconds := time.monotonic() - start) > self.longest_seconds:
                raise RuntimeError(f"compiling took {seconds:.0f} s, more than {self.longest_seconds} s")
        self.note += f", compiled in {time.monotonic() - start:.0f} s"


class Int8(Eager):
    """The linear layers by dynamic quantisation: weights per output channel, activations per tensor."""

    setting = "int8 linear layers (quantize_dynamic, per channel), sdpa"

    def convert(self, encoder: torch.nn.Module) -> torch.nn.Module:
        self.setting += f", {torch.backends.quantized.engine} kernels"
        quantization = torch.ao.quantization
        layers = {torch.nn.Linear: quantization.per_channel_dynamic_qconfig}
        return quantization.quantize_dynamic(encoder, layers, dtype=torch.qint8)
