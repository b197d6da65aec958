"""The fixture of a real model's perplexity: the likelihood of texts in PyTorch's f32, each text alone."""

import json
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import readable
from oracle import F32

TEXTS = 200


def write(model: Path, texts: Path, folder: Path) -> None:
    """Writes perplexity.json: of each of the first texts its ids and the summed loss, in nats, of all tokens but the first."""
    network = AutoModelForCausalLM.from_pretrained(model, **F32).eval()
    tokenizer = AutoTokenizer.from_pretrained(model)
    lines = texts.read_text(encoding="utf-8").splitlines()[:TEXTS]
    found = []
    for line in lines:
        ids = tokenizer(json.loads(line)["inputs"])["input_ids"]
        assert len(ids) <= network.config.max_position_embeddings
        loss = 0.0
        if len(ids) > 1:
            rows = torch.tensor([ids])
            with torch.inference_mode():
                loss = network(rows, labels=rows).loss.item() * (len(ids) - 1)
        found.append({"ids": ids, "loss": round(loss, 4)})
    tokens = sum(len(text["ids"]) - 1 for text in found)
    perplexity = torch.tensor(sum(text["loss"] for text in found) / tokens, dtype=torch.float64).exp().item()
    print(f"perplexity {perplexity:.6f} over {tokens} tokens of {len(found)} texts")
    folder.mkdir(parents=True, exist_ok=True)
    readable.write(folder / "perplexity.json", {"perplexity": round(perplexity, 6), "texts": found})
