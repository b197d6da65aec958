"""Random weights of the tiny checkpoints, drawn so that every part of the model shows in the output.

Attention is peaked (large query and key weights), biases, gammas, betas, positions and token types matter, and
the summed embeddings have a variance small enough for `layer_norm_eps` to be seen. `sensitivity.py` proves it.
"""

from pathlib import Path

import numpy
import torch
from safetensors.torch import save_file

import tiny_tokenizer

HIDDEN = 48
INTERMEDIATE = 96
LAYERS = 2
POSITIONS = 64
TOKEN_TYPES = 2
DENSE_OUT = 20
DENSE_NARROW = 16

CONFIG = {
    "architectures": ["BertModel"],
    "model_type": "bert",
    "attention_probs_dropout_prob": 0.1,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": HIDDEN,
    "initializer_range": 0.02,
    "intermediate_size": INTERMEDIATE,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": POSITIONS,
    "num_attention_heads": 4,
    "num_hidden_layers": LAYERS,
    "pad_token_id": 0,
    "position_embedding_type": "absolute",
    "type_vocab_size": TOKEN_TYPES,
    "use_cache": True,
    "vocab_size": len(tiny_tokenizer.vocabulary()),
}


def write(folder: Path) -> None:
    """Writes every weight file of the fixtures into `folder`."""
    draw = Draw(seed=20)
    backbone = _backbone(draw)
    folder.mkdir(parents=True, exist_ok=True)
    _save(folder / "bert-tiny.safetensors", backbone)
    prefixed = {f"bert.{name}": tensor for name, tensor in backbone.items()}
    head = {"classifier.weight": draw.normal(3, HIDDEN, std=0.3), "classifier.bias": draw.normal(3, std=0.5)}
    positions = {"bert.embeddings.position_ids": torch.arange(POSITIONS).unsqueeze(0)}
    _save(folder / "bert-tiny-f16.safetensors", prefixed | head, torch.float16, positions)
    legacy = {_legacy_name(name): tensor for name, tensor in prefixed.items()}
    names = list(legacy)
    for shard, part in enumerate((names[: len(names) // 2], names[len(names) // 2 :]), start=1):
        _save(folder / f"bert-tiny-bf16-{shard}.safetensors", {name: legacy[name] for name in part}, torch.bfloat16)
    one = {"classifier.weight": draw.normal(1, HIDDEN, std=0.3), "classifier.bias": draw.normal(1, std=0.5)}
    _save(folder / "one-label.safetensors", one, torch.bfloat16)
    dense = {"linear.weight": draw.normal(DENSE_OUT, HIDDEN, std=0.1), "linear.bias": draw.normal(DENSE_OUT, std=0.3)}
    _save(folder / "dense.safetensors", dense)
    _save(folder / "dense-no-bias.safetensors", {"linear.weight": draw.normal(DENSE_NARROW, 2 * HIDDEN, std=0.2)})
    _save(folder / "vocabulary.safetensors", _vocabulary_head(draw))
    _save(folder / "dense-tokens.safetensors", {"linear.weight": draw.normal(DENSE_NARROW, HIDDEN, std=0.2)})


class Draw:
    """A source of random tensors that is the same on every machine."""

    def __init__(self, seed: int):
        self._random = numpy.random.default_rng(seed)

    def normal(self, *shape: int, std: float, mean: float = 0.0) -> torch.Tensor:
        """Normal values, f32."""
        return torch.from_numpy(self._random.normal(mean, std, shape).astype(numpy.float32))

    def uniform(self, *shape: int, low: float, high: float) -> torch.Tensor:
        """Uniform values, f32."""
        return torch.from_numpy(self._random.uniform(low, high, shape).astype(numpy.float32))


def _backbone(draw: Draw) -> dict[str, torch.Tensor]:
    tensors = {
        "embeddings.word_embeddings.weight": draw.normal(CONFIG["vocab_size"], HIDDEN, std=0.02),
        "embeddings.position_embeddings.weight": draw.normal(POSITIONS, HIDDEN, std=0.015),
        "embeddings.token_type_embeddings.weight": draw.normal(TOKEN_TYPES, HIDDEN, std=0.015),
    }
    _norm(draw, tensors, "embeddings.LayerNorm")
    for layer in range(LAYERS):
        prefix = f"encoder.layer.{layer}"
        for name, std in (("query", 0.17), ("key", 0.17), ("value", 0.15)):
            _linear(draw, tensors, f"{prefix}.attention.self.{name}", (HIDDEN, HIDDEN), std)
        _linear(draw, tensors, f"{prefix}.attention.output.dense", (HIDDEN, HIDDEN), 0.15)
        _norm(draw, tensors, f"{prefix}.attention.output.LayerNorm")
        _linear(draw, tensors, f"{prefix}.intermediate.dense", (INTERMEDIATE, HIDDEN), 0.1, bias_mean=-2.0)
        _linear(draw, tensors, f"{prefix}.output.dense", (HIDDEN, INTERMEDIATE), 1.0)
        _norm(draw, tensors, f"{prefix}.output.LayerNorm")
    _linear(draw, tensors, "pooler.dense", (HIDDEN, HIDDEN), 0.1)
    return tensors


def _vocabulary_head(draw: Draw) -> dict[str, torch.Tensor]:
    """The head of a masked language model; its last matrix is the embedding table."""
    tensors: dict[str, torch.Tensor] = {}
    _linear(draw, tensors, "cls.predictions.transform.dense", (HIDDEN, HIDDEN), 0.2)
    _norm(draw, tensors, "cls.predictions.transform.LayerNorm")
    tensors["cls.predictions.transform.LayerNorm.weight"] *= 8
    return tensors | {"cls.predictions.bias": draw.normal(CONFIG["vocab_size"], std=0.5)}


def _linear(draw: Draw, tensors: dict, name: str, shape: tuple[int, int], std: float, bias_mean: float = 0.0) -> None:
    tensors[f"{name}.weight"] = draw.normal(*shape, std=std)
    tensors[f"{name}.bias"] = draw.normal(shape[0], std=0.3, mean=bias_mean)


def _norm(draw: Draw, tensors: dict, name: str) -> None:
    tensors[f"{name}.weight"] = draw.uniform(HIDDEN, low=0.5, high=2.5)
    tensors[f"{name}.bias"] = draw.normal(HIDDEN, std=0.5)


def _legacy_name(name: str) -> str:
    """The name that the first BERT checkpoints have, and many on the hub still do."""
    return name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")


def _save(path: Path, tensors: dict, dtype: torch.dtype = torch.float32, integers: dict | None = None) -> None:
    save_file({name: tensor.to(dtype) for name, tensor in tensors.items()} | (integers or {}), path, {"format": "pt"})
    path.chmod(0o644)
