"""Random weights for any architecture, drawn by a tensor's name so that every part of the model shows in the output.

A tensor of the same name and shape is the same in every case of a family, so cases share weights. Values are
those of f16, which the fixtures store. `families.py` proves that each tensor and each config field shows.
"""

import re
import zlib

import numpy
import torch

PEAKED = re.compile(r"\.(query|key|q|k|q_lin|k_lin|q_proj|k_proj|query_proj|key_proj|in_proj|Wqkv|c_attn|query_key_value)$")
POSITIONAL = re.compile(r"\.(pos_proj|pos_q_proj|pos_key_proj|pos_query_proj)$")
UP = re.compile(r"(intermediate\.dense|ffn\.lin1|albert_layers\.\d+\.ffn|\.fc1|\.wi|\.gate_proj|\.c_fc|\.dense_h_to_4h)$")
DOWN = re.compile(r"((?<!attention)\.output\.dense|ffn\.lin2|ffn_output|\.fc2|\.wo|\.mlp\.Wo|\.down_proj|\.mlp\.c_proj|\.dense_4h_to_h)$")
BIAS_TABLE = re.compile(r"relative_attention_bias$")
RELATIVE = re.compile(r"rel_embeddings$")


def fill(model: torch.nn.Module, family: str, prefix: str, gains: dict[str, float]) -> None:
    """Replaces every parameter; `gains` changes the spread of a kind of tensor for a family.

    Names are taken without `prefix`, so that the base model alone draws the same weights.
    """
    gains = {"peaked": 1.2, "positional": 0.7, "up": 0.7, "down": 9.0, "plain": 1.0, "embedding": 0.05} | gains
    drawn = set()
    for path, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) in drawn or not parameter.requires_grad:
                continue  # tied to an earlier one, or a table that follows from the configuration
            drawn.add(id(parameter))
            key = f"{family}/{path.removeprefix(prefix)}.{name}/{list(parameter.shape)}"
            draw = numpy.random.default_rng(zlib.crc32(key.encode()))
            values = _draw(draw, module, path, name, tuple(parameter.shape), gains)
            parameter.data = torch.from_numpy(values.astype(numpy.float16).astype(numpy.float32))


def _draw(draw, module, path: str, name: str, shape: tuple[int, ...], gains: dict[str, float]) -> numpy.ndarray:
    if "norm" in type(module).__name__.lower():
        # Gemma's scales are stored less one.
        least = -0.5 if "Gemma" in type(module).__name__ else 0.5
        return draw.uniform(least, least + 2.0, shape) if name == "weight" else draw.normal(0, 0.5, shape)
    if isinstance(module, torch.nn.Embedding):
        if BIAS_TABLE.search(path):
            return draw.normal(0, 1.0, shape)
        return draw.normal(0, 0.7 if RELATIVE.search(path) else gains["embedding"], shape)
    if name == "weight" and len(shape) == 2:
        kinds = {"peaked": PEAKED, "positional": POSITIONAL, "up": UP, "down": DOWN}
        kind = next((kind for kind, pattern in kinds.items() if pattern.search(path)), "plain")
        inputs = shape[0] if type(module).__name__ == "Conv1D" else shape[1]
        return draw.normal(0, gains[kind] / inputs**0.5, shape)
    # Activation functions differ most a little below zero.
    return draw.normal(-2.0 if UP.search(path) else 0.0, 0.3, shape)
