"""The fixtures of real models of chemistry: rxnfp's BERTs and rxnmapper's ALBERT, whose weights are files of `torch.save`."""

import random
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import (
    AlbertForMaskedLM,
    AlbertModel,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
)

import oracle
import reactions
import readable

COUNT = 220
MASKED = 3
DIRECTIONS = 4
TOP = 8
MOST_BYTES = 1_000_000


def write(rxnfp: Path, rxnmapper: Path, folder: Path) -> None:
    """Writes inputs.json and a safetensors file per model into `folder`."""
    lines = (rxnfp / "bert_ft" / "vocab.txt").read_text(encoding="utf-8").splitlines()
    assert lines == (rxnmapper / "vocab.txt").read_text(encoding="utf-8").splitlines()
    # A piece that is there twice has its last place, as in BertTokenizer.
    vocabulary = {piece: index for index, piece in enumerate(lines)}
    draw = random.Random(12)
    inputs = []
    for reaction in reactions.all_reactions(COUNT):
        ids = reactions.encode(reaction, vocabulary, 512)
        masked = sorted(draw.sample(range(1, len(ids) - 1), MASKED))
        inputs.append({"reaction": reaction, "ids": ids, "masked": masked})
    folder.mkdir(exist_ok=True)
    readable.write(folder / "inputs.json", inputs)

    _save(folder / "bert-encoder.safetensors", _encoder(BertModel, rxnfp / "bert_ft", inputs))
    _save(folder / "bert-classes.safetensors", _classes(rxnfp / "bert_ft_10k_25s", inputs))
    _save(folder / "bert-masked.safetensors", _masked(BertForMaskedLM, rxnfp / "bert_pretrained", lines, inputs))
    _save(folder / "albert-encoder.safetensors", _encoder(AlbertModel, rxnmapper, inputs))
    _save(folder / "albert-masked.safetensors", _masked(AlbertForMaskedLM, rxnmapper, lines, inputs))
    lengths = sorted(len(item["ids"]) for item in inputs)
    print(f"{len(inputs)} reactions of {lengths[0]} to {lengths[-1]} tokens")


def _save(path: Path, outputs: dict[str, torch.Tensor]) -> None:
    save_file({name: tensor.clone().contiguous() for name, tensor in outputs.items()}, path)
    path.chmod(0o644)
    print(f"{path.stat().st_size} bytes in {path.name}")
    assert path.stat().st_size <= MOST_BYTES, "too large to commit"


def _run(cls, model: Path, all_ids: list[list[int]], read, **options) -> list[torch.Tensor]:
    """What `read` takes from the output for each input, in f32; prints how far that is from f64."""
    single = cls.from_pretrained(model, **oracle.F32, **options).eval()
    double = cls.from_pretrained(model, **oracle.F32 | {"dtype": torch.float64}, **options).eval()
    answers, drift, largest = [], 0.0, 0.0
    with torch.inference_mode():
        for ids in all_ids:
            answer = read(single(input_ids=torch.tensor([ids])))[0]
            drift = max(drift, (answer - read(double(input_ids=torch.tensor([ids])))[0]).abs().max().item())
            largest = max(largest, answer.abs().max().item())
            answers.append(answer)
    print(f"{drift:.2e}  PyTorch's f32 against f64 in {cls.__name__}, values up to {largest:.1f}")
    return answers


def _directions(width: int) -> torch.Tensor:
    """A few unit vectors."""
    directions = torch.randn(DIRECTIONS, width, generator=torch.Generator().manual_seed(21))
    return directions / directions.norm(dim=1, keepdim=True)


def _project(rows: torch.Tensor, directions: torch.Tensor) -> torch.Tensor:
    return (rows.double() @ directions.double().T).float()


def _encoder(cls, model: Path, inputs: list[dict]) -> dict[str, torch.Tensor]:
    """The first row of each last hidden state, and all rows on a few directions."""
    hidden = _run(cls, model, [item["ids"] for item in inputs], lambda output: output.last_hidden_state)
    directions = _directions(hidden[0].shape[1])
    first = torch.stack([rows[0] for rows in hidden])
    return {"directions": directions, "first": first, "projected": _project(torch.cat(hidden), directions)}


def _classes(model: Path, inputs: list[dict]) -> dict[str, torch.Tensor]:
    """The logits of 50 classes; the configuration says 2, so the right number is given."""
    all_ids = [item["ids"] for item in inputs]
    logits = _run(BertForSequenceClassification, model, all_ids, lambda output: output.logits, num_labels=50)
    return {"logits": torch.stack(logits)}


def _masked(cls, model: Path, vocabulary: list[str], inputs: list[dict]) -> dict[str, torch.Tensor]:
    """At masked positions: the largest logits with their ids, and all of them on a few directions."""
    mask = vocabulary.index("[MASK]")
    all_ids = [[mask if place in item["masked"] else token for place, token in enumerate(item["ids"])] for item in inputs]
    logits = _run(cls, model, all_ids, lambda output: output.logits)
    rows = torch.cat([logits[item["masked"]] for logits, item in zip(logits, inputs, strict=True)])
    directions = _directions(rows.shape[1])
    top = rows.topk(TOP, dim=1)
    projected = _project(rows, directions)
    return {"directions": directions, "projected": projected, "top": top.values, "top_ids": top.indices}
