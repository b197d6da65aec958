"""Exports a checkpoint to ONNX for the peers that read it: `prepare.py MODEL FOLDER`. Runs in its own process."""

import json
import sys
from pathlib import Path

import torch
from onnxruntime.transformers import optimizer
from transformers import AutoConfig, AutoModel

INPUTS = ["input_ids", "attention_mask", "token_type_ids"]


class Encoder(torch.nn.Module):
    """The encoder with positional inputs and the last hidden state as its one output."""

    def __init__(self, model: torch.nn.Module):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask, token_type_ids):
        names = dict(zip(INPUTS, (input_ids, attention_mask, token_type_ids), strict=True))
        return self.model(**names).last_hidden_state


def export(model: Path, target: Path) -> None:
    """Writes the f32 graph with free batch and sequence dims."""
    # Eager attention is the form that the transformer optimizer recognises.
    encoder = AutoModel.from_pretrained(model, dtype=torch.float32, attn_implementation="eager").eval()
    ids = torch.ones(2, 8, dtype=torch.int64)
    free = {name: {0: "batch", 1: "sequence"} for name in [*INPUTS, "last_hidden_state"]}
    torch.onnx.export(
        Encoder(encoder),
        (ids, ids, torch.zeros_like(ids)),
        target,
        input_names=INPUTS,
        output_names=["last_hidden_state"],
        dynamic_axes=free,
        opset_version=17,
        dynamo=False,
    )


def optimise(model: Path, plain: Path, target: Path) -> None:
    """Writes the graph with the fusions of ONNX Runtime's transformer optimizer; fails if it made none."""
    config = AutoConfig.from_pretrained(model)
    heads, hidden = config.num_attention_heads, config.hidden_size
    graph = optimizer.optimize_model(str(plain), model_type="bert", num_heads=heads, hidden_size=hidden, opt_level=0)
    fused = {name: count for name, count in graph.get_fused_operator_statistics().items() if count}
    if fused.get("Attention", 0) != config.num_hidden_layers:
        sys.exit(f"the transformer optimizer fused {fused}, not the attention of every layer")
    graph.save_model_to_file(str(target))
    target.with_suffix(".json").write_text(json.dumps(fused))


def main() -> None:
    model, folder = Path(sys.argv[1]), Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    export(model, folder / "plain.onnx")
    optimise(model, folder / "plain.onnx", folder / "optimised.onnx")


if __name__ == "__main__":
    main()
