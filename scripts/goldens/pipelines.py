"""The fixtures of the tasks: bodies, and the replies that transformers' own pipelines and sentence-transformers give.

A case is a model folder as in `tiny_cases.py` and what it is asked: `asks`, each a `body` and either the `reply` or
`error`. A reply that a model in f64 would not give in the same words is no fixture: it would hang on rounding.
"""

import json
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file
from sentence_transformers import CrossEncoder, SentenceTransformer, SparseEncoder
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    pipeline,
)

import oracle
import pipeline_asks
import readable
import tiny_cases
from pipeline_tokenizer import PIECES, write_tokenizer
from tiny_weights import CONFIG, HIDDEN, Draw

# How far the same model in f64 may be from a recorded score.
EXACT = 3e-5

NER = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-first-name", "I-first-name", "MISC"]
NLI = ["contradiction", "neutral", "entailment"]
# Entailment first, and written otherwise, as some models on the hub have it.
NLI_FIRST = ["Entailment", "not sure", "no"]
BACKBONE = [f"weights/{name}" for name in tiny_cases.BF16_SHARDS]
MODELS = {
    "token-classification": ("BertForTokenClassification", AutoModelForTokenClassification),
    "question-answering": ("BertForQuestionAnswering", AutoModelForQuestionAnswering),
    "fill-mask": ("BertForMaskedLM", AutoModelForMaskedLM),
    "zero-shot-classification": ("BertForSequenceClassification", AutoModelForSequenceClassification),
    "text-classification": ("BertForSequenceClassification", AutoModelForSequenceClassification),
}


def write(fixtures: Path) -> None:
    """Writes `pipelines/` into `fixtures`, which must hold the tiny checkpoints already."""
    folder = fixtures / "pipelines"
    _write_heads(folder)
    write_tokenizer(folder / "bytes")
    cases = _cases(fixtures)
    for case in cases:
        with tempfile.TemporaryDirectory() as path:
            model_folder = oracle.assemble(case, fixtures, Path(path))
            answer = ORACLES[case["task"]](case, model_folder)
            case["asks"] = [_ask(body, answer) for body in case["asks"]]
    readable.write(folder / "cases.json", cases)


def _write_heads(folder: Path) -> None:
    draw = Draw(seed=31)
    folder.mkdir(parents=True, exist_ok=True)
    heads = {
        "ner": _linear(draw, "classifier", len(NER), 0.35),
        "qa": _linear(draw, "qa_outputs", 2, 0.5),
        "nli": _linear(draw, "classifier", len(NLI), 0.6),
        "mlm": _masked(draw),
    }
    for name, tensors in heads.items():
        path = folder / f"{name}.safetensors"
        save_file({key: tensor.to(torch.bfloat16) for key, tensor in tensors.items()}, path, {"format": "pt"})
        path.chmod(0o644)


def _linear(draw: Draw, name: str, rows: int, std: float) -> dict[str, torch.Tensor]:
    return {f"{name}.weight": draw.normal(rows, HIDDEN, std=std), f"{name}.bias": draw.normal(rows, std=0.5)}


def _masked(draw: Draw) -> dict[str, torch.Tensor]:
    """The head of a masked language model but for its output matrix, which is that of the word embeddings."""
    prefix = "cls.predictions"
    return {
        f"{prefix}.bias": draw.normal(CONFIG["vocab_size"], std=1.0),
        f"{prefix}.transform.dense.weight": draw.normal(HIDDEN, HIDDEN, std=0.3),
        f"{prefix}.transform.dense.bias": draw.normal(HIDDEN, std=0.5),
        f"{prefix}.transform.LayerNorm.weight": draw.uniform(HIDDEN, low=5.0, high=25.0),
        f"{prefix}.transform.LayerNorm.bias": draw.normal(HIDDEN, std=2.0),
    }


def _cases(fixtures: Path) -> list[dict]:
    def case(name: str, task: str, head: str, config: dict, tokenizer: str = "tokenizer") -> dict:
        config = {"architectures": [MODELS[task][0]]} | config
        folder = tiny_cases._sharded(fixtures, [*tiny_cases.BF16_SHARDS, head], config)
        names = ("tokenizer.json", "tokenizer_config.json")
        copy = {key: value for key, value in folder["copy"].items() if not value.startswith("tokenizer/")}
        folder["copy"] = copy | {name: f"{tokenizer}/{name}" for name in names}
        return {"name": name, "task": task, **folder, "asks": pipeline_asks.ASKS[task]}

    def labels(names: list[str]) -> dict:
        return {"id2label": {str(id): name for id, name in enumerate(names)}, "label2id": {n: i for i, n in enumerate(names)}}

    def ranking(asks: list[dict]) -> dict:
        return {"task": "text-ranking", "asks": asks}

    one = labels(["LABEL_0"])
    identity = {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity", "version": "5.3.0"}}
    cases = [
        case("ner", "token-classification", "../pipelines/ner", labels(NER)),
        case("ner-bytes", "token-classification", "../pipelines/ner", labels(NER), "pipelines/bytes"),
        case("qa", "question-answering", "../pipelines/qa", {}),
        case("qa-bytes", "question-answering", "../pipelines/qa", {}, "pipelines/bytes"),
        case("mlm", "fill-mask", "../pipelines/mlm", {}),
        case("mlm-bytes", "fill-mask", "../pipelines/mlm", {}, "pipelines/bytes")
        | {"asks": pipeline_asks.ASKS["fill-mask-bytes"]},
        case("nli", "zero-shot-classification", "../pipelines/nli", labels(NLI)),
        case("nli-first", "zero-shot-classification", "../pipelines/nli", labels(NLI_FIRST)),
        case("classes", "text-classification", "../pipelines/nli", labels(NLI)),
        case("ranker", "text-classification", "one-label", one) | ranking(pipeline_asks.ASKS["text-ranking"]),
        case("ranker-of-logits", "text-classification", "one-label", one | identity)
        | ranking(pipeline_asks.ASKS["text-ranking"][:12]),
        _sparse(case("sparse", "fill-mask", "../pipelines/mlm", {})),
        _embedder(),
    ]
    for entry in cases:
        entry["copy"] = {target: source.replace("weights/../", "") for target, source in entry["copy"].items()}
    return cases


def _sparse(case: dict) -> dict:
    """A SPLADE model as sentence-transformers saves it."""
    modules = [("MLMTransformer", ""), ("SpladePooling", "1_SpladePooling")]
    case["write"] |= {
        "modules.json": [
            {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.sparse_encoder.models.{kind}"}
            for index, (kind, path) in enumerate(modules)
        ],
        "sentence_bert_config.json": {"max_seq_length": tiny_cases.SENTENCE_LENGTH, "do_lower_case": False},
        "1_SpladePooling/config.json": {
            "pooling_strategy": "max",
            "activation_function": "relu",
            "word_embedding_dimension": CONFIG["vocab_size"],
        },
        "config_sentence_transformers.json": {"model_type": "SparseEncoder", "similarity_fn_name": "dot"},
    }
    return case | {"task": "sparse", "asks": pipeline_asks.ASKS["sparse"]}


def _embedder() -> dict:
    case = tiny_cases._prompted(tiny_cases._sentence("embedder", [], ["mean_tokens"], after=["normalize"]))
    del case["inputs"]
    return case | {"task": "embedding", "asks": pipeline_asks.ASKS["embedding"]}


def _ask(body: dict, answer) -> dict:
    """The body and what it is answered, in f32 and so in f64."""
    try:
        reply, exact = answer(body, torch.float32), answer(body, torch.float64)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the tokenizers library panics with what is no Exception
        return {"body": body, "error": str(error).splitlines()[0][:120]}
    difference = _difference(reply, exact)
    if difference > EXACT:
        raise SystemExit(f"rounding decides the reply to {json.dumps(body, ensure_ascii=False)[:300]}: {difference}")
    return {"body": body, "reply": _rounded(reply)}


def _difference(a, b) -> float:
    """The largest difference of numbers; infinite where anything else differs."""
    if isinstance(a, float) and isinstance(b, float):
        return abs(a - b)
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        return max((_difference(a[key], b[key]) for key in a), default=0.0)
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        return max((_difference(x, y) for x, y in zip(a, b)), default=0.0)
    return 0.0 if a == b else float("inf")


def _rounded(reply):
    if isinstance(reply, dict):
        return {key: _rounded(value) for key, value in reply.items()}
    if isinstance(reply, list):
        return [_rounded(item) for item in reply]
    return float(f"{reply:.6g}") if isinstance(reply, float) else reply


def _plain(reply):
    """numpy's numbers as Python's."""
    if isinstance(reply, dict):
        return {key: _plain(value) for key, value in reply.items()}
    if isinstance(reply, (list, tuple)):
        return [_plain(item) for item in reply]
    return reply.item() if hasattr(reply, "item") else reply


def _pipeline(task: str, folder: Path, **options):
    """For each precision a pipeline."""
    tokenizer = AutoTokenizer.from_pretrained(folder)

    def make(dtype):
        model = MODELS[task][1].from_pretrained(folder, dtype=dtype, attn_implementation="eager").eval()
        return pipeline(task, model=model, tokenizer=tokenizer, device="cpu", **options)

    return {dtype: make(dtype) for dtype in (torch.float32, torch.float64)}


def _token_classification(case: dict, folder: Path):
    pipes = _pipeline("token-classification", folder)

    def answer(body: dict, dtype) -> list:
        parameters = {"aggregation_strategy": "simple"} | body.get("parameters", {})
        return _plain(pipes[dtype](body["inputs"], **parameters))

    return answer


def _question_answering(case: dict, folder: Path):
    pipes = _pipeline("question-answering", folder)

    def answer(body: dict, dtype):
        parameters = body.get("parameters", {})
        inputs = body["inputs"]
        inputs = inputs if isinstance(inputs, list) else [inputs]
        replies = []
        for item in inputs:
            reply = _plain(pipes[dtype](question=item["question"], context=item["context"], **parameters))
            # The pipeline gives a single answer without a list whatever was asked for.
            several = (parameters.get("top_k") or 1) > 1
            replies.append([reply] if several and isinstance(reply, dict) else reply)
        return replies if isinstance(body["inputs"], list) else replies[0]

    return answer


def _fill_mask(case: dict, folder: Path):
    pipes = _pipeline("fill-mask", folder)

    def answer(body: dict, dtype):
        parameters = dict(body.get("parameters", {}))
        if parameters.pop("truncate", False):
            parameters["tokenizer_kwargs"] = {"truncation": True}
        return _plain(pipes[dtype](body["inputs"], **parameters))

    return answer


def _zero_shot(case: dict, folder: Path):
    pipes = _pipeline("zero-shot-classification", folder)

    def answer(body: dict, dtype):
        inputs = body["inputs"]
        several = isinstance(inputs, list) and len(inputs) > 1
        replies = _plain(pipes[dtype](inputs, **body["parameters"]))
        replies = [
            [{"label": label, "score": score} for label, score in zip(reply["labels"], reply["scores"])]
            for reply in (replies if isinstance(replies, list) else [replies])
        ]
        return replies if several else replies[0]

    return answer


def _text_classification(case: dict, folder: Path):
    pipes = _pipeline("text-classification", folder)

    def answer(body: dict, dtype):
        parameters = {"truncation": True} | body.get("parameters", {})
        if "return_all_scores" not in parameters:
            parameters = {"top_k": None} | parameters  # the hub gives all labels where nothing is asked for
        inputs = body["inputs"]
        replies = []
        for item in inputs if isinstance(inputs, list) else [inputs]:
            reply = _plain(pipes[dtype](item, **parameters))
            while isinstance(reply, list) and reply and isinstance(reply[0], list):
                reply = reply[0]
            replies.append(reply if isinstance(reply, list) else [reply])
        return replies

    return answer


def _text_ranking(case: dict, folder: Path):
    models = {
        dtype: CrossEncoder(str(folder), device="cpu", model_kwargs={"dtype": dtype, "attn_implementation": "eager"})
        for dtype in (torch.float32, torch.float64)
    }

    def answer(body: dict, dtype):
        inputs, parameters = body["inputs"], dict(body.get("parameters", {}))
        query = inputs.get("query", inputs.get("source_sentence"))
        texts = inputs.get("texts", inputs.get("documents", inputs.get("sentences")))
        texts = [text["text"] if isinstance(text, dict) else text for text in texts]
        raw = parameters.pop("raw_scores", None)
        activations = {True: torch.nn.Identity(), False: torch.nn.Sigmoid()}
        parameters["activation_fn"] = activations.get(raw) or models[dtype].get_default_activation_fn()
        ranked = _plain(models[dtype].rank(query, texts, **parameters))
        return [{"index" if key == "corpus_id" else key: value for key, value in row.items()} for row in ranked]

    return answer


def _sparse_embedding(case: dict, folder: Path):
    models = {
        dtype: SparseEncoder(str(folder), device="cpu", model_kwargs={"dtype": dtype, "attn_implementation": "eager"})
        for dtype in (torch.float32, torch.float64)
    }

    def answer(body: dict, dtype):
        inputs = body["inputs"]
        rows = models[dtype].encode(inputs if isinstance(inputs, list) else [inputs], convert_to_sparse_tensor=False)
        entries = [[(index, row[index].item()) for index in row.nonzero()[:, 0].tolist()] for row in rows]
        return [[{"index": index, "value": value} for index, value in row] for row in entries]

    return answer


def _embedding(case: dict, folder: Path):
    models = {
        dtype: SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": dtype, "attn_implementation": "eager"})
        for dtype in (torch.float32, torch.float64)
    }

    def answer(body: dict, dtype):
        parameters = body.get("parameters", {})
        model = models[dtype]
        encode = {"query": model.encode_query, "document": model.encode_document}.get(
            parameters.get("prompt_name"), model.encode
        )
        options = {"truncate_dim": parameters.get("dimensions"), "normalize_embeddings": parameters.get("normalize", False)}
        return encode(body["inputs"], **options).tolist()

    return answer


ORACLES = {
    "token-classification": _token_classification,
    "question-answering": _question_answering,
    "fill-mask": _fill_mask,
    "zero-shot-classification": _zero_shot,
    "text-classification": _text_classification,
    "text-ranking": _text_ranking,
    "sparse": _sparse_embedding,
    "embedding": _embedding,
}
assert len(PIECES) == CONFIG["vocab_size"]
