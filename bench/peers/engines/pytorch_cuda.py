"""PyTorch on a GPU, with the model code of transformers."""

from pathlib import Path

import numpy
import torch
from transformers import AutoModel


class Sdpa:
    """Operator by operator, with fused attention."""

    attention = "sdpa"
    dtype = torch.float16
    setting = "f16, eager, sdpa"

    def __init__(self, model: Path, artefact: None, threads: int):
        if not torch.cuda.is_available():
            raise RuntimeError("PyTorch finds no CUDA device")
        torch.set_num_threads(threads)
        encoder = AutoModel.from_pretrained(model, dtype=self.dtype, attn_implementation=self.attention)
        self._encoder = self.convert(encoder.eval().cuda())
        self.note = f"torch {torch.__version__}, {self.setting}, {torch.cuda.get_device_name()}"

    def convert(self, encoder: torch.nn.Module) -> torch.nn.Module:
        """What runs in the place of the plain module."""
        return encoder

    def run(self, ids: numpy.ndarray, mask: numpy.ndarray) -> numpy.ndarray:
        with torch.inference_mode():
            mask = None if mask.all() else torch.from_numpy(mask).cuda()
            hidden = self._encoder(input_ids=torch.from_numpy(ids).cuda(), attention_mask=mask).last_hidden_state
            return hidden.float().cpu().numpy()


class Float(Sdpa):
    """In f32, products of matrices too."""

    dtype = torch.float32
    setting = "f32, eager, sdpa"


class Eager(Sdpa):
    """Operator by operator, attention too."""

    attention = "eager"
    setting = "f16, eager, eager attention"


class Compiled(Sdpa):
    """torch.compile with CUDA graphs, anew for each shape while that is warmed up."""

    setting = "f16, torch.compile max-autotune with CUDA graphs, sdpa"

    def convert(self, encoder: torch.nn.Module) -> torch.nn.Module:
        return torch.compile(encoder, mode="max-autotune", dynamic=False)
