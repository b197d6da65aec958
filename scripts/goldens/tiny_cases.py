"""The cases of the tiny fixtures: how a model folder is put together, and what it is asked.

A case is a recipe (`copy`: files of the fixtures, `write`: JSON files), so that many folders share few weights.
"""

from copy import deepcopy
from pathlib import Path

from safetensors import safe_open

import tiny_tokenizer
from tiny_weights import CONFIG, DENSE_NARROW, DENSE_OUT, HIDDEN

TEXTS = [
    "",
    "Hello world!",
    "The quick brown fox jumps over the lazy dog.",
    "Das Wetter ist heute schön, nicht wahr? Une belle journée; ¡qué bueno es el año!",
    "今天天气很好 😀 привет, мир ёлка 🚀",
    "a1b2c3 unknownwordsaresplit [MASK] e-mail@example.org 3.14 €5",
]
LONG = "what a great film and how terrible the weather is today " * 6
PAIRS = [("how is the weather", "the weather is good"), ("a good film", ""), (LONG, "short"), ("today", LONG)]
LABELS = {"0": "bad", "1": "neutral", "2": "good"}
PROMPTS = {"query": "search query: ", "document": "document: "}
SENTENCE_LENGTH = 24
BF16_SHARDS = ["bert-tiny-bf16-1", "bert-tiny-bf16-2"]

# Configurations over the same weights that change the numbers; each is run on the base case's short sequences.
ACTIVATIONS = ["gelu_new", "gelu_pytorch_tanh", "gelu_fast", "quick_gelu", "relu", "silu", "tanh"]
VARIANTS = {f"act-{name}": {"hidden_act": name} for name in ACTIVATIONS} | {
    "eps": {"layer_norm_eps": 1e-5},
    "one-layer": {"num_hidden_layers": 1},
    "six-heads": {"num_attention_heads": 6},
    "one-head": {"num_attention_heads": 1},
}
# Configurations that change the numbers and that an importer without support has to refuse, naming the field.
REFUSALS = {
    "causal": ("is_decoder", {"is_decoder": True}),
    "relative-key": ("position_embedding_type", {"position_embedding_type": "relative_key"}),
    "relative-key-query": ("position_embedding_type", {"position_embedding_type": "relative_key_query"}),
}

POOLINGS = {
    "cls": ["cls_token"],
    "mean": ["mean_tokens"],
    "max": ["max_tokens"],
    "mean-sqrt-len": ["mean_sqrt_len_tokens"],
    "weighted-mean": ["weightedmean_tokens"],
    "last-token": ["lasttoken"],
    "cls-mean": ["cls_token", "mean_tokens"],
    "all": ["cls_token", "max_tokens", "mean_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken"],
}


def all_cases(fixtures: Path) -> list[dict]:
    """Every case, outputs not yet computed; the weight files are already in `fixtures`."""
    cases = [*_hidden_cases(fixtures), *_classification_cases(fixtures), *_sentence_cases()]
    cases += [*_sparse_cases(fixtures), *_late_interaction_cases(fixtures)]
    return [deepcopy(case) for case in cases]  # the oracle writes into each case's inputs


def _folder(weights: dict[str, str], config: dict) -> dict:
    tokenizer = {name: f"tokenizer/{name}" for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt")}
    return {"copy": weights | tokenizer, "write": {"config.json": CONFIG | config}}


def _one_file(name: str) -> dict[str, str]:
    return {"model.safetensors": f"weights/{name}.safetensors"}


def _sharded(fixtures: Path, weights: list[str], config: dict) -> dict:
    """A folder whose weights lie in several files named by an index."""
    shards = {
        f"model-{shard:05}-of-{len(weights):05}.safetensors": f"weights/{name}.safetensors"
        for shard, name in enumerate(weights, start=1)
    }
    weight_map = {}
    for target, source in shards.items():
        with safe_open(fixtures / source, "pt") as tensors:
            weight_map |= dict.fromkeys(tensors.keys(), target)
    folder = _folder(shards, config)
    folder["write"]["model.safetensors.index.json"] = {"metadata": {}, "weight_map": weight_map}
    return folder


def _sequences(lengths: list[int]) -> list[dict]:
    """Token ids without a text: spread over the vocabulary, the second half of token type 1."""
    inputs = []
    for length in lengths:
        ids = [(7 * length + 31 * position) % CONFIG["vocab_size"] for position in range(length)]
        inputs.append({"ids": ids, "type_ids": [int(2 * position >= length + 1) for position in range(length)]})
    return inputs


def _hidden_cases(fixtures: Path) -> list[dict]:
    def case(name: str, folder: dict, inputs: list[dict]) -> dict:
        return {"name": name, "task": "feature-extraction", **folder, "inputs": inputs}

    texts = [{"text": text} for text in [*TEXTS, LONG]]
    short = _sequences([1, 2, 7, 13])
    base = _one_file("bert-tiny")
    lengths = [1, 2, 3, 5, 8, 15, 16, 17, 33, 63, 64]
    cases = [case("bert-tiny", _folder(base, {}), _sequences(lengths) + texts)]
    cases.append(case("bert-tiny-f16", _folder(_one_file("bert-tiny-f16"), {}), short))
    cases.append(case("bert-tiny-bf16-sharded", _sharded(fixtures, BF16_SHARDS, {}), short))
    unbounded = _folder(base, {})
    del unbounded["copy"]["tokenizer_config.json"]
    unbounded["write"]["tokenizer_config.json"] = tiny_tokenizer.configuration(10**30)
    cases.append(case("bert-tiny-unbounded-tokenizer", unbounded, [{"text": LONG}]))
    cases += [case(f"bert-tiny-{name}", _folder(base, config), short) for name, config in VARIANTS.items()]
    for name, (field, config) in REFUSALS.items():
        cases.append(case(f"bert-tiny-{name}", _folder(base, config), []) | {"refuse": field})
    return cases


def _classification_cases(fixtures: Path) -> list[dict]:
    inputs = [{"text": text} for text in [*TEXTS, LONG]] + [{"text": text, "pair": pair} for text, pair in PAIRS]

    def case(name: str, folder: dict) -> dict:
        return {"name": name, "task": "text-classification", **folder, "inputs": inputs}

    classes = {"architectures": ["BertForSequenceClassification"]}
    three = classes | {"id2label": LABELS, "label2id": {label: int(id) for id, label in LABELS.items()}}
    f16 = _one_file("bert-tiny-f16")
    multi = three | {"problem_type": "multi_label_classification"}
    one = classes | {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}
    cases = [case("classify", _folder(f16, three)), case("multi-label", _folder(f16, multi))]
    for name, config in (("one-label", one), ("regression", one | {"problem_type": "regression"})):
        cases.append(case(name, _sharded(fixtures, [*BF16_SHARDS, "one-label"], config)))
    return cases


def _sentence_cases() -> list[dict]:
    texts = [{"text": text} for text in [*TEXTS, LONG]]
    prompted = [item | {"prompt": "query"} for item in texts] + [{"text": TEXTS[2], "prompt": "document"}]
    cases = [_sentence(f"sentence-{name}", texts, modes) for name, modes in POOLINGS.items()]
    cases.append(_sentence("sentence-normalize", texts, ["mean_tokens"], after=["normalize"]))
    cases.append(_sentence("sentence-dense", texts, ["mean_tokens"], after=["dense", "normalize"]))
    cases.append(_sentence("sentence-dense-no-bias", texts, ["cls_token", "mean_tokens"], after=["dense-no-bias"]))
    cases.append(_sentence("sentence-subfolder", texts, ["mean_tokens"], at="0_Transformer/"))
    cases.append(_prompted(_sentence("sentence-prompt", prompted, ["mean_tokens"])))
    for name in ("mean", "max", "mean-sqrt-len", "weighted-mean", "last-token", "cls-mean"):
        case = _prompted(_sentence(f"sentence-prompt-left-out-{name}", prompted, POOLINGS[name]))
        case["write"]["1_Pooling/config.json"]["include_prompt"] = False
        cases.append(case)
    cases.append(_prompted(_sentence("sentence-default-prompt", texts + prompted, ["mean_tokens"]), default="document"))
    return cases


def _prompted(case: dict, default: str | None = None) -> dict:
    """The case with named prompts, one of them perhaps used where a request names none."""
    case["write"]["config_sentence_transformers.json"] = {"prompts": PROMPTS, "default_prompt_name": default}
    return case


def _sentence(name: str, inputs: list[dict], modes: list[str], after: list[str] = (), at: str = "") -> dict:
    """A sentence-transformers folder: transformer in subfolder `at`, pooling, then the modules of `after`."""
    plain = _folder(_one_file("bert-tiny"), {})
    copy = {at + target: source for target, source in plain["copy"].items()}
    write = {at + target: content for target, content in plain["write"].items()}
    write[f"{at}sentence_bert_config.json"] = {"max_seq_length": SENTENCE_LENGTH, "do_lower_case": False}
    flags = {f"pooling_mode_{mode}": mode in modes for mode in POOLINGS["all"]}
    write["1_Pooling/config.json"] = {"word_embedding_dimension": HIDDEN} | flags
    modules = [("Transformer", at.rstrip("/")), ("Pooling", "1_Pooling")]
    for index, module in enumerate(after, start=2):
        kind = "Normalize" if module == "normalize" else "Dense"
        path = f"{index}_{kind}"
        modules.append((kind, path))
        if kind == "Dense":
            copy[f"{path}/model.safetensors"] = f"weights/{module}.safetensors"
            write[f"{path}/config.json"] = _dense(bias=module == "dense")
    write["modules.json"] = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (kind, path) in enumerate(modules)
    ]
    return {"name": name, "task": "feature-extraction", "copy": copy, "write": write, "inputs": inputs}


def _dense(bias: bool) -> dict:
    activation = "activation.Tanh" if bias else "linear.Identity"
    return {
        "in_features": HIDDEN if bias else 2 * HIDDEN,
        "out_features": DENSE_OUT if bias else DENSE_NARROW,
        "bias": bias,
        "activation_function": f"torch.nn.modules.{activation}",
    }


def _sparse_cases(fixtures: Path) -> list[dict]:
    """SPLADE: a masked language model, and the pooling of its logits."""
    inputs = [{"text": text} for text in [*TEXTS, LONG]]
    cases = []
    for activation in ("relu", "log1p_relu"):
        folder = _sharded(fixtures, ["bert-tiny-f16", "vocabulary"], {"architectures": ["BertForMaskedLM"]})
        folder["write"]["sentence_bert_config.json"] = {"max_seq_length": SENTENCE_LENGTH}
        folder["write"]["config_sentence_transformers.json"] = {"model_type": "SparseEncoder"}
        pooling = {"pooling_strategy": "max", "activation_function": activation}
        folder["write"]["1_SpladePooling/config.json"] = pooling | {"word_embedding_dimension": CONFIG["vocab_size"]}
        modules = [("MLMTransformer", ""), ("SpladePooling", "1_SpladePooling")]
        folder["write"]["modules.json"] = [
            {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.sparse_encoder.models.{kind}"}
            for index, (kind, path) in enumerate(modules)
        ]
        cases.append({"name": f"sparse-{activation}", "task": "feature-extraction", **folder, "inputs": inputs})
    return cases


def _late_interaction_cases(fixtures: Path) -> list[dict]:
    """ColBERT, in the class of its first checkpoints and as PyLate writes it."""
    inputs = [{"text": text} for text in [*TEXTS, LONG]]
    dense = {"in_features": HIDDEN, "out_features": DENSE_NARROW, "bias": False}
    first = _sharded(fixtures, ["bert-tiny-f16", "dense-tokens"], {"architectures": ["HF_ColBERT"]})
    pylate = _folder(_one_file("bert-tiny"), {})
    pylate["copy"]["1_Dense/model.safetensors"] = "weights/dense-tokens.safetensors"
    pylate["write"] |= {
        "1_Dense/config.json": dense | {"activation_function": "torch.nn.modules.linear.Identity"},
        "modules.json": [
            {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Dense", "type": "pylate.models.Dense.Dense"},
        ],
    }
    named = {"colbert": first, "colbert-pylate": pylate}
    return [{"name": name, "task": "feature-extraction", **folder, "inputs": inputs} for name, folder in named.items()]
