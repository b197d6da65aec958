"""Proves that the tiny fixtures see: any change of a weight, a mask or a config field moves the output by > 1e-2."""

import tempfile
from pathlib import Path

import torch
from transformers import AutoModel

import oracle

LEAST = 1e-2
# Adding a constant to all scores of a query changes no softmax; the pooler isn't part of the last hidden state.
WITHOUT_EFFECT = ("attention.self.key.bias", "pooler.dense.weight", "pooler.dense.bias")


def check(fixtures: Path, cases: list[dict], outputs: dict[str, torch.Tensor]) -> None:
    """Prints how far each change moves the output and fails on the first that moves it too little."""
    by_name = {case["name"]: case for case in cases}
    model = _load(by_name["bert-tiny"], fixtures)
    inputs = by_name["bert-tiny-eps"]["inputs"]
    plain = _run(model, inputs)
    _weights(model, inputs, plain)
    _inputs(model, inputs, plain)
    for case in cases:
        if case["name"].startswith("bert-tiny-") and len(case["inputs"]) == len(inputs):
            _report(f"config of {case['name']}", outputs[f"{case['name']}.hidden"], plain)
        if "refuse" in case:
            _report(f"refused {case['name']}", _run(_load(case, fixtures), inputs), plain)
    _distinct({name: tensor for name, tensor in outputs.items() if name.startswith("sentence-")})
    _precision(model, inputs, plain)


def _load(case: dict, fixtures: Path):
    with tempfile.TemporaryDirectory() as folder:
        oracle.assemble(case, fixtures, Path(folder))
        return AutoModel.from_pretrained(folder, **oracle.F32).eval()


def _run(model, inputs: list[dict]) -> torch.Tensor:
    return torch.cat([oracle.hidden_state(model, item) for item in inputs])


def _weights(model, inputs: list[dict], plain: torch.Tensor) -> None:
    for name, weight in model.named_parameters():
        if name.endswith(WITHOUT_EFFECT):
            continue
        kept = weight.data.clone()
        weight.data = torch.ones_like(kept) if "LayerNorm.weight" in name else torch.zeros_like(kept)
        _report(f"weight {name}", _run(model, inputs), plain)
        weight.data = kept


def _inputs(model, inputs: list[dict], plain: torch.Tensor) -> None:
    flipped = [{**item, "type_ids": [1 - type_id for type_id in item["type_ids"]]} for item in inputs]
    _report("token types", _run(model, flipped), plain)
    ids = torch.tensor([inputs[-1]["ids"]])
    tokens = ids.shape[1]
    alone = model(input_ids=ids).last_hidden_state
    _report("positions", model(input_ids=ids, position_ids=torch.arange(tokens)[None] + 1).last_hidden_state, alone)
    padded = torch.nn.functional.pad(ids, (0, 1))
    mask = (torch.arange(tokens + 1) < tokens)[None]
    hidden = model(input_ids=padded, attention_mask=mask.long()).last_hidden_state[:, :tokens]
    assert (hidden - alone).abs().max() < 1e-4, "padding under a mask shows in the output"
    _report("mask", model(input_ids=padded).last_hidden_state[:, :tokens], alone)


def _distinct(outputs: dict[str, torch.Tensor]) -> None:
    """Every two sentence cases of the same shape answer differently, unless only their folders differ."""
    names = sorted(outputs)
    for left_index, left in enumerate(names):
        for right in names[left_index + 1 :]:
            same_by_design = {left, right} == {"sentence-mean.embeddings", "sentence-subfolder.embeddings"}
            if outputs[left].shape == outputs[right].shape and not same_by_design:
                _report(f"{left} against {right}", outputs[left], outputs[right])


def _precision(model, inputs: list[dict], plain: torch.Tensor) -> None:
    """Prints how far PyTorch's f32 is from f64: what no tolerance can undercut."""
    exact = _run(model.double(), inputs)
    print(f"{(exact - plain).abs().max():10.2e}  f32 against f64, largest value {plain.abs().max():.1f}")


def _report(what: str, changed: torch.Tensor, plain: torch.Tensor) -> None:
    moved = (changed - plain).abs().max().item()
    print(f"{moved:10.4f}  {what}")
    assert moved > LEAST, f"{what} moves the output by {moved} only: draw other weights"
