"""Makes of a checkpoint what a peer reads: `prepare.py ARTEFACT MODEL FOLDER`. Runs in its own process."""

import json
import sys
from pathlib import Path

import machine
import prepared

INPUTS = ["input_ids", "attention_mask", "token_type_ids"]


def export(model: Path, target: Path) -> None:
    """Writes the f32 ONNX graph with free batch and sequence dims and the last hidden state as its one output."""
    import torch
    from transformers import AutoModel

    class Encoder(torch.nn.Module):
        """The encoder with positional inputs."""

        def __init__(self, inner: torch.nn.Module):
            super().__init__()
            self.inner = inner

        def forward(self, input_ids, attention_mask, token_type_ids):
            names = dict(zip(INPUTS, (input_ids, attention_mask, token_type_ids), strict=True))
            return self.inner(**names).last_hidden_state

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


def optimise(model: Path, target: Path) -> None:
    """Writes the graph with the fusions of ONNX Runtime's transformer optimizer; fails if it made none."""
    from onnxruntime.transformers import optimizer
    from transformers import AutoConfig

    plain = prepared.artefact(export, "plain.onnx", model, target.parent)
    config = AutoConfig.from_pretrained(model)
    heads, hidden = config.num_attention_heads, config.hidden_size
    graph = optimizer.optimize_model(str(plain), model_type="bert", num_heads=heads, hidden_size=hidden, opt_level=0)
    fused = {name: count for name, count in graph.get_fused_operator_statistics().items() if count}
    if fused.get("Attention", 0) != config.num_hidden_layers:
        sys.exit(f"the transformer optimizer fused {fused}, not the attention of every layer")
    graph.save_model_to_file(str(target))


def quantise(model: Path, target: Path) -> None:
    """Writes the optimised graph with dynamic int8: weights per output channel, activations per tensor.

    The weights lose a bit only where the processor's 16-bit accumulation would overflow with all eight.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    optimised = prepared.artefact(optimise, "optimised.onnx", model, target.parent)
    setting = {"per_channel": True, "reduce_range": machine.int8_saturates()}
    # The type of what the fused operators answer, which its shape inference does not know.
    unknown = {"DefaultTensorType": onnx.TensorProto.FLOAT}
    quantize_dynamic(str(optimised), str(target), weight_type=QuantType.QInt8, extra_options=unknown, **setting)
    (target.parent / "int8.json").write_text(json.dumps(setting))


def convert(model: Path, target: Path) -> None:
    """Writes the folder that CTranslate2 reads."""
    from ctranslate2.converters import TransformersConverter

    TransformersConverter(str(model)).convert(str(target), force=True)


ARTEFACTS = {"plain.onnx": export, "optimised.onnx": optimise, "int8.onnx": quantise, "ctranslate2": convert}


if __name__ == "__main__":
    prepared.artefact(ARTEFACTS[sys.argv[1]], sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
