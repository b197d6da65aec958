"""The models that ONNX files are made of: the tiny checkpoints of the families, as folders, as classes, and what they compute."""

import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import torch
import transformers
from safetensors.torch import load_file, save_file
from torch.overrides import TorchFunctionMode

import nomic_bert

FAMILIES = Path(__file__).resolve().parents[2] / "crates" / "testkit" / "fixtures" / "families"
# Kind of output → names of the outputs as Optimum gives them.
OUTPUTS = {
    "hidden": ["last_hidden_state"],
    "logits": ["logits"],
    "token_logits": ["logits"],
    "predictions": ["logits"],
    "spans": ["start_logits", "end_logits"],
    "embeddings": ["sentence_embedding"],
}


@dataclass
class Source:
    """A case of a family's fixtures."""

    family: str
    name: str
    kind: str
    config: dict
    # What it is asked: {ids, type_ids, masked} each.
    inputs: list[dict]
    # Where they are in the fixture's list.
    places: list[int]
    tensors: dict[str, torch.Tensor]

    @property
    def padding(self) -> int:
        """The id that a batch is padded with."""
        default = 1 if self.family in ("roberta", "mpnet", "bart", "mbart") else 0
        return self.config.get("pad_token_id", default)

    @property
    def arguments(self) -> list[str]:
        """The inputs that an export has."""
        typed = self.config["model_type"] in ("bert", "electra", "albert", "roformer", "nomic_bert", "deberta", "deberta-v2")
        names = ["input_ids", "attention_mask"]
        return names + ["token_type_ids"] if typed and self.config.get("type_vocab_size", 2) else names


def read(family: str, case: str) -> Source:
    """The case of the committed fixtures."""
    golden = json.loads((FAMILIES / family / "cases.json").read_text())
    entry = next(entry for entry in golden["cases"] if entry["name"] == case)
    prefix, tensors = entry.get("without_prefix", ""), {}
    for name, tensor in load_file(FAMILIES / family / "weights.safetensors").items():
        group, name = name.split("/", 1)
        if int(group) in entry["weights"]:
            tensors[name.removeprefix(prefix)] = tensor
    inputs = [golden["inputs"][place] for place in entry["inputs"]]
    return Source(family, case, entry["kind"], entry["config"], inputs, entry["inputs"], tensors)


def may_be_padded(source: Source, item: dict) -> bool:
    """A class that reads the last end wants equally many in each sequence of a batch."""
    return source.family not in ("bart", "mbart") or item["ids"].count(2) == 1


def assemble(source: Source, folder: Path, pooling: str | None = None) -> Path:
    """Writes the model folder, with a tokenizer of single characters as the testkit's.

    With `pooling`, it is a folder of sentence-transformers.
    """
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.float() for name, tensor in source.tensors.items()}, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(source.config))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<0>", "model_max_length": 40}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    words = {chr(id) if 33 <= id < 127 else f"<{id}>": id for id in range(source.config["vocab_size"])}
    split = {"type": "Split", "pattern": {"Regex": "."}, "behavior": "Isolated", "invert": False}
    model = {"type": "WordLevel", "vocab": words, "unk_token": "<32>"}
    (folder / "tokenizer.json").write_text(json.dumps({"version": "1.0", "added_tokens": [], "pre_tokenizer": split, "model": model}))
    if pooling:
        parts = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
        modules = [{"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"} for i, (path, kind) in enumerate(parts)]
        (folder / "modules.json").write_text(json.dumps(modules))
        (folder / "1_Pooling").mkdir(exist_ok=True)
        (folder / "2_Normalize").mkdir(exist_ok=True)
        settings = {"word_embedding_dimension": source.config["hidden_size"], f"pooling_mode_{pooling}_tokens": True}
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(settings))
    return folder


def load(source: Source, folder: Path, attention: str):
    """The model in f32."""
    architecture = source.config["architectures"][0]
    if source.family == "nomic_bert":
        model = nomic_bert.NomicBertModel(nomic_bert.configuration(source.config))
        model.load_state_dict({name.removeprefix("bert."): tensor.float() for name, tensor in source.tensors.items()})
        return model.eval()
    assemble(source, folder)
    kind = getattr(transformers, architecture)
    model = kind.from_pretrained(folder, dtype=torch.float32, attn_implementation=attention).eval()
    model.config.use_cache = False
    return model


class Sentence(torch.nn.Module):
    """A sentence embedding over the last hidden state, as Python code around a model computes it."""

    def __init__(self, model, pooling: str):
        super().__init__()
        self.model, self.pooling = model, pooling

    def forward(self, **inputs):
        hidden = self.model(**inputs).last_hidden_state
        mask = inputs["attention_mask"].unsqueeze(-1).expand(hidden.size()).float()
        if self.pooling == "cls":
            pooled = hidden[:, 0]
        elif self.pooling == "max":
            pooled = hidden.masked_fill(mask == 0, -1e9).max(1)[0]
        else:
            pooled = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
        return SimpleNamespace(sentence_embedding=torch.nn.functional.normalize(pooled, p=2, dim=1))


def batch(items: list[dict], arguments: list[str], padding: int) -> dict[str, torch.Tensor]:
    """The inputs of a right-padded batch."""
    longest = max(len(item["ids"]) for item in items)

    def fill(rows: list[list[int]], value: int) -> torch.Tensor:
        return torch.tensor([row + [value] * (longest - len(row)) for row in rows])

    every = {
        "input_ids": fill([item["ids"] for item in items], padding),
        "attention_mask": fill([[1] * len(item["ids"]) for item in items], 0),
        "token_type_ids": fill([item["type_ids"] for item in items], 0),
    }
    return {name: every[name] for name in arguments}


def rows(found: list[torch.Tensor], kind: str, items: list[dict]) -> torch.Tensor:
    """The rows of a batch's outputs that are recorded, one input after the other."""
    table = torch.stack(found, dim=-1) if kind == "spans" else found[0]
    if kind in ("logits", "embeddings"):
        return table
    if kind == "predictions":
        return torch.cat([row[item["masked"]] for row, item in zip(table, items, strict=True)])
    return torch.cat([row[: len(item["ids"])] for row, item in zip(table, items, strict=True)])


class Counter(TorchFunctionMode):
    """Counts what a reader of the exported file should recognise.

    A norm of a table (of DeBERTa's relative positions) is a constant to it.
    """

    KINDS = {
        "scaled_dot_product_attention": "attention",
        "softmax": "attention",
        "layer_norm": "layer_norm",
        "gelu": "gelu",
        "silu": "silu",
    }

    def __init__(self):
        super().__init__()
        self.counts = {}

    def add(self, kind: str) -> None:
        self.counts[kind] = self.counts.get(kind, 0) + 1

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kind = self.KINDS.get(getattr(function, "__name__", ""))
        if kind and not (kind == "layer_norm" and args[0].shape[0] != 1):
            self.add(kind)
        return function(*args, **kwargs or {})


def counts(model, inputs: dict[str, torch.Tensor]) -> dict[str, int]:
    """How many of each the model computes for one sequence; norms of T5 and old tanh GELUs are classes of their own."""
    counter, hooks = Counter(), []
    own = {"T5LayerNorm": "layer_norm", "NewGELUActivation": "gelu", "DebertaLayerNorm": "layer_norm"}
    for module in model.modules():
        if type(module).__name__ in own:
            kind = own[type(module).__name__]
            hooks.append(module.register_forward_hook(lambda *_, kind=kind: counter.add(kind)))
    with torch.inference_mode(), counter:
        model(**inputs)
    for hook in hooks:
        hook.remove()
    return dict(sorted(counter.counts.items()))
