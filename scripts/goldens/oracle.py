"""What PyTorch answers: transformers and sentence-transformers in f32, one sequence at a time, eager attention."""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer, SparseEncoder
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer, TextClassificationPipeline
from transformers.utils import logging

torch.set_num_threads(1)
logging.set_verbosity_error()
logging.disable_progress_bar()
F32 = {"dtype": torch.float32, "attn_implementation": "eager"}


def assemble(case: dict, fixtures: Path, folder: Path) -> Path:
    """Puts the model folder of a case together, as the Rust tests do."""
    for target, source in case["copy"].items():
        (folder / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(fixtures / source, folder / target)
    for target, content in case["write"].items():
        (folder / target).parent.mkdir(parents=True, exist_ok=True)
        (folder / target).write_text(json.dumps(content), encoding="utf-8")
    return folder


def answer(case: dict, folder: Path) -> dict[str, torch.Tensor]:
    """Outputs of all inputs of the case by kind; fills in the token ids of the inputs that have a text."""
    if case["name"].startswith("colbert"):
        return _token_vectors(case["inputs"], folder)
    if (folder / "1_SpladePooling").is_dir():
        return _sparse_embeddings(case["inputs"], folder)
    if (folder / "modules.json").is_file():
        return sentence_embeddings(case["inputs"], folder)
    if case["task"] == "text-classification":
        return _classes(case["inputs"], folder)
    return _hidden_states(case["inputs"], folder)


def sentence_embeddings(inputs: list[dict], folder: Path) -> dict[str, torch.Tensor]:
    """`embeddings` [inputs, dimension] by sentence-transformers; `pool_from` is set where the prompt is left out."""
    model = SentenceTransformer(str(folder), device="cpu", model_kwargs=F32, local_files_only=True)
    pooling = model[1]
    rows = []
    for item in inputs:
        name = item.get("prompt") or model.default_prompt_name
        prompt = model.prompts[name] if name else ""
        fill_in(item, model.tokenize([prompt + item["text"]]))
        if prompt and not pooling.include_prompt:
            item["pool_from"] = model._get_prompt_length(prompt)
        rows.append(model.encode(item["text"], prompt_name=item.get("prompt"), convert_to_tensor=True))
    return {"embeddings": torch.stack(rows)}


def _sparse_embeddings(inputs: list[dict], folder: Path) -> dict[str, torch.Tensor]:
    """`embeddings` [inputs, vocabulary] by sentence-transformers."""
    model = SparseEncoder(str(folder), device="cpu", model_kwargs=F32, local_files_only=True)
    rows = []
    for item in inputs:
        fill_in(item, model.tokenize([item["text"]]))
        rows.append(model.encode(item["text"], convert_to_tensor=True).to_dense())
    return {"embeddings": torch.stack(rows)}


def _token_vectors(inputs: list[dict], folder: Path) -> dict[str, torch.Tensor]:
    """`hidden` [tokens of all inputs, dimension]: the last hidden state through a matrix, each row of length 1."""
    if (folder / "1_Dense").is_dir():
        weight = load_file(folder / "1_Dense" / "model.safetensors")["linear.weight"]
    else:
        shards = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
        weight = load_file(folder / shards["linear.weight"])["linear.weight"]
    hidden = _hidden_states(inputs, folder)["hidden"]
    return {"hidden": torch.nn.functional.normalize(hidden @ weight.float().T, dim=-1)}


def fill_in(item: dict, encoding) -> None:
    """Stores the tokens of a single encoded text in its input."""
    item["ids"] = encoding["input_ids"][0].tolist()
    item["type_ids"] = encoding["token_type_ids"][0].tolist()


def hidden_state(model, item: dict) -> torch.Tensor:
    """The last hidden state of one sequence, [tokens, hidden]."""
    with torch.inference_mode():
        ids, type_ids = torch.tensor([item["ids"]]), torch.tensor([item["type_ids"]])
        return model(input_ids=ids, token_type_ids=type_ids).last_hidden_state[0]


def _hidden_states(inputs: list[dict], folder: Path) -> dict[str, torch.Tensor]:
    """`hidden` [tokens of all inputs, hidden]."""
    model = AutoModel.from_pretrained(folder, **F32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    longest = min(tokenizer.model_max_length, model.config.max_position_embeddings)
    for item in inputs:
        if "text" in item:
            fill_in(item, tokenizer(item["text"], truncation=True, max_length=longest, return_tensors="pt"))
    return {"hidden": torch.cat([hidden_state(model, item) for item in inputs])}


def _classes(inputs: list[dict], folder: Path) -> dict[str, torch.Tensor]:
    """`logits` and `scores`, both [inputs, labels] in the order of the label ids."""
    model = AutoModelForSequenceClassification.from_pretrained(folder, **F32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    pipeline = TextClassificationPipeline(model=model, tokenizer=tokenizer, device="cpu", top_k=None)
    logits, scores = [], []
    for item in inputs:
        text = {"text": item["text"]} | ({"text_pair": item["pair"]} if "pair" in item else {})
        encoding = tokenizer(**text, truncation=True, return_tensors="pt")
        fill_in(item, encoding)
        with torch.inference_mode():
            logits.append(model(**encoding).logits[0])
        by_label = {row["label"]: row["score"] for row in pipeline(text, truncation=True)}
        scores.append(torch.tensor([by_label[label] for _, label in sorted(model.config.id2label.items())]))
    return {"logits": torch.stack(logits), "scores": torch.stack(scores)}
