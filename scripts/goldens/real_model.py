"""The fixtures of a real sentence-transformers folder: outputs only, small enough to commit."""

from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoModel, AutoTokenizer

import oracle
import readable
import texts

DIRECTIONS = 4
SAMPLED_ROWS = 1
MOST_BYTES = 1_000_000


def write(model: Path, folder: Path) -> None:
    """Writes inputs.json and outputs.safetensors for the model into `folder`."""
    encoder = AutoModel.from_pretrained(model, **oracle.F32).eval()
    tokenizer = AutoTokenizer.from_pretrained(model)
    longest = encoder.config.max_position_embeddings

    def count(text: str) -> int:
        return len(tokenizer(text, truncation=False)["input_ids"])

    def encode(text: str) -> list[int]:
        return tokenizer(text, truncation=True, max_length=longest)["input_ids"]

    inputs = [{"text": text, "ids": encode(text)} for text in texts.all_texts(count)]
    inputs.append({"ids": [tokenizer.cls_token_id]})
    outputs = _hidden(encoder, inputs)
    with_text = [dict(item) for item in inputs if "text" in item]
    outputs |= oracle.sentence_embeddings(with_text, model)
    for item, embedded in zip(inputs, with_text, strict=False):
        item["embedded_tokens"] = len(embedded["ids"])

    readable.write(folder / "inputs.json", inputs)
    save_file({name: tensor.clone().contiguous() for name, tensor in outputs.items()}, folder / "outputs.safetensors")
    (folder / "outputs.safetensors").chmod(0o644)
    written = sum(path.stat().st_size for path in folder.iterdir())
    lengths = sorted(len(item["ids"]) for item in inputs)
    print(f"{len(inputs)} inputs of {lengths[0]} to {lengths[-1]} tokens, {written} bytes in {folder}")
    assert written <= MOST_BYTES, "too large to commit"


def _hidden(encoder, inputs: list[dict]) -> dict[str, torch.Tensor]:
    """The last hidden states, projected on a few unit directions, and some of their rows whole."""
    random = torch.Generator().manual_seed(20)
    directions = torch.randn(DIRECTIONS, encoder.config.hidden_size, generator=random)
    directions = directions / directions.norm(dim=1, keepdim=True)
    projected, rows, sampled = [], [], []
    drift = 0.0
    double = AutoModel.from_pretrained(encoder.name_or_path, **oracle.F32 | {"dtype": torch.float64}).eval()
    start = 0
    for item in inputs:
        tokens = len(item["ids"])
        zeros = {"ids": item["ids"], "type_ids": [0] * tokens}
        hidden = oracle.hidden_state(encoder, zeros)
        drift = max(drift, (hidden - oracle.hidden_state(double, zeros)).abs().max().item())
        chosen = torch.linspace(0, tokens - 1, min(SAMPLED_ROWS, tokens)).long()
        projected.append((hidden.double() @ directions.double().T).float())
        rows.append(hidden[chosen])
        sampled.append(start + chosen)
        start += tokens
    print(f"{drift:.2e}  PyTorch's f32 against f64, last hidden state")
    return {
        "directions": directions,
        "projected": torch.cat(projected),
        "rows": torch.cat(rows),
        "row_indices": torch.cat(sampled),
    }
