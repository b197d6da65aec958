"""What is measured: tasks, and for each the systems, from the deployment out of the box to all that Centuple does."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import answers
import checkpoints
import texts

DEPLOYMENT = "out of the box"


@dataclass(frozen=True)
class Stage:
    """A system of a ladder: the deployment, or Centuple without what the stages after it bring."""

    name: str
    flags: list[str] | None = None
    """Flags of `centuple serve`; none for the deployment."""
    exact: bool = True
    """Whether it computes in f32, so that its answers have to be the deployment's."""
    parameters: dict = field(default_factory=dict)
    """What is added to the parameters of each request."""
    alone: bool = False
    """Whether it answers one request after the other, and one takes so long that clients can't matter."""


@dataclass(frozen=True)
class Task:
    """A task with its model, its texts and its ladder; the first stage is what ratios are taken to."""

    name: str
    model: str
    """Folder among the models."""
    checkpoint: Callable[[Path], Path]
    """Makes of that folder one that both sides read."""
    make: Callable[[int], list[str]]
    compare: Callable[[list, list, bool], answers.Verdict]
    stages: list[Stage]
    parameters: dict = field(default_factory=dict)
    clients: int = 64
    """Clients that are enough to keep any stage busy."""
    tokens: int | None = None
    """New tokens of a text, where it generates."""

    @property
    def is_generation(self) -> bool:
        return self.tokens is not None


def _serve(precision: str, *without: str) -> list[str]:
    return ["--precision", precision, *(["--without", ",".join(without)] if without else [])]


# Padding is what batches bring, so packing comes after batching.
ENCODER = [
    Stage(DEPLOYMENT),
    Stage("+ runtime", _serve("f32", "fusion", "batching", "packing")),
    Stage("+ fusion", _serve("f32", "batching", "packing")),
    Stage("+ int8", _serve("int8", "batching", "packing"), exact=False),
    Stage("+ batching", _serve("int8", "packing"), exact=False),
    Stage("+ packing", _serve("int8"), exact=False),
]
# The pipeline has a cache of its own. Steps of single tokens have no padding, and without the cache they are no batch.
DECODER = [
    Stage(DEPLOYMENT, alone=True),
    Stage("the same without its KV cache", parameters={"use_cache": False}, alone=True),
    Stage("+ runtime", _serve("f32", "fusion", "kv-cache", "batching"), alone=True),
    Stage("+ fusion", _serve("f32", "kv-cache", "batching"), alone=True),
    Stage("+ int8", _serve("int8", "kv-cache", "batching"), exact=False, alone=True),
    Stage("+ KV cache", _serve("int8", "batching"), exact=False, alone=True),
    Stage("+ batching", _serve("int8"), exact=False),
]


def tasks(new_tokens: int) -> list[Task]:
    """Every task."""
    greedy = {"do_sample": False, "max_new_tokens": new_tokens, "min_new_tokens": new_tokens}
    return [
        Task("feature-extraction", "all-MiniLM-L6-v2", checkpoints.as_it_is, texts.mixed, answers.embeddings, ENCODER),
        Task("text-classification", "minilm-sentiment", checkpoints.as_it_is, texts.mixed, answers.labels, ENCODER),
        Task(
            "token-classification",
            "rampart-pii-ner-onnx",
            checkpoints.dequantised,
            texts.personal,
            answers.entities,
            ENCODER,
            parameters={"aggregation_strategy": "simple"},
        ),
        Task("fill-mask", "rxnfp/bert_pretrained", checkpoints.typed_bert, texts.reactions, answers.masked, ENCODER),
        Task(
            "text-generation",
            "smollm2",
            checkpoints.as_it_is,
            texts.prompts,
            answers.generated,
            DECODER,
            parameters=greedy | {"return_full_text": False},
            clients=32,
            tokens=new_tokens,
        ),
    ]
