"""The fixture of a real model that generates: what PyTorch goes on with, in f32, for twenty prompts."""

from pathlib import Path

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

import readable
import texts
from oracle import F32

CONTINUED = 64
PROMPTS = [
    "Once upon a time",
    "The capital of France is",
    "Write a short poem about the sea.",
    "def fibonacci(n):\n",
    "Q: What is the boiling point of water?\nA:",
    "In 1969, the first humans",
    "The three primary colours are",
    "Dear Sir or Madam,",
    "1, 2, 3, 4,",
    "Photosynthesis is the process by which",
    *texts.SENTENCES[:5],
    "<|im_start|>user\nName three rivers in Europe.<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|>user\nHow do I boil an egg?<|im_end|>\n<|im_start|>assistant\n",
    " ".join(texts.SENTENCES[:8]),
    "A",
    "Café naïve coöperate — “quoted” … fin",
]


def write(model: Path, folder: Path) -> None:
    """Writes continuations.json: ids of each prompt, the tokens that greedy search adds, and how near a tie came."""
    network = AutoModelForCausalLM.from_pretrained(model, **F32).eval()
    tokenizer = AutoTokenizer.from_pretrained(model)
    network.generation_config = transformers.GenerationConfig(
        do_sample=False, max_new_tokens=CONTINUED, pad_token_id=tokenizer.pad_token_id
    )
    tokenizer.padding_side = "left"
    batch = tokenizer(PROMPTS, return_tensors="pt", padding=True, return_token_type_ids=False)
    with torch.inference_mode():
        proposed = network.generate(**batch)[:, -CONTINUED:].tolist()
    found = []
    for prompt, tokens in zip(PROMPTS, proposed, strict=True):
        ids = tokenizer(prompt)["input_ids"]
        # Alone and all at once, each token has to be the likeliest one after those before it.
        with torch.inference_mode():
            logits = network(torch.tensor([ids + tokens[:-1]])).logits[0, len(ids) - 1 :]
        best = logits.topk(2, dim=-1)
        assert best.indices[:, 0].tolist() == tokens, f"a tie after {prompt!r}"
        ahead = (best.values[:, 0] - best.values[:, 1]).min().item()
        found.append({"text": prompt, "ids": ids, "continued": tokens, "least_ahead": round(ahead, 6)})
        print(f"{ahead:.5f} {prompt!r}: {tokenizer.decode(tokens)!r}")
    folder.mkdir(parents=True, exist_ok=True)
    readable.write(folder / "continuations.json", found)
