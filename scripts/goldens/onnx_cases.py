"""Which ONNX files are made: for each family, chains of an exporter and what is done to its file."""

import functools
import tempfile
from dataclasses import dataclass
from pathlib import Path

import onnx
import torch
from onnxruntime.quantization import QuantType

import onnx_exports as exports
import onnx_source

# The tasks of Optimum by kind of output.
TASKS = {
    "hidden": "feature-extraction",
    "logits": "text-classification",
    "token_logits": "token-classification",
    "spans": "question-answering",
    "predictions": "fill-mask",
    "embeddings": "feature-extraction",
}
# (family, variant) → what the exporter says.
FAILS = {
    ("bart", "dynamo-18-eager"): "must match the size of tensor b",
    # The number of ends of each sequence is compared in Python.
    ("bart", "sequence-dynamo"): "Failed to export the model with torch.export",
    ("mbart", "sequence-dynamo"): "Failed to export the model with torch.export",
    ("mbart", "dynamo-18-eager"): "must match the size of tensor b",
    ("mbart", "dynamo-default-sdpa"): "running Unsqueeze node",
    ("mbart", "question-dynamo"): "running Unsqueeze node",
    ("mbart", "torchscript-12-eager"): "'aten::triu' to ONNX opset version 12 is not supported",
    # cos and sin of the operator of opset 23 don't fit what it turns.
    ("modernbert", "dynamo-23-sdpa"): "Inputs 'cos_cache' and 'sin_cache' are expected to have the same shape as input 'x'",
    ("nomic_bert", "torchscript-11"): "'aten::outer' to ONNX opset version 11 is not supported",
    ("roformer", "optimum-O2"): "Tried to use ORTOptimizer for the model type roformer, but it is not available yet",
    # A minimum of whole numbers needs opset 12.
    ("t5", "torchscript-11"): "(Min) in node (Min_96) is invalid",
}


@dataclass
class Variant:
    """One ONNX file."""

    name: str
    # The case of the family's fixtures.
    case: str
    # The exporter, then what is done to its file: name of a method of `Workshop`, and its settings.
    steps: list[tuple[str, dict]]
    # What activations are computed in: f32, f16, dynamic or static.
    activations: str = "f32"
    # Whether the numbers differ from PyTorch's by intent: coarser weights, another GELU.
    changed: bool = False
    # How a sentence embedding is made of the last hidden state.
    pooling: str | None = None
    # Whether the tensors stay in the file, and names with them.
    inline: bool = False
    # A known fault of the exporter: padding isn't left out.
    padding_moves: bool = False
    # The inputs, where they aren't the usual ones.
    arguments: list[str] | None = None
    # The outputs, where there are more than the one that is read.
    outputs: list[str] | None = None
    # What ONNX Runtime says where it can't run the file on a CPU; PyTorch answers instead.
    unrunnable: str | None = None
    # The part of the model that is exported: a name of a module.
    part: str | None = None

    @property
    def made_by(self) -> str:
        """The chain in words."""
        words = (" ".join([name, *(f"{key}={getattr(value, 'name', value)}" for key, value in settings.items())]) for name, settings in self.steps)
        return ", ".join(words)


class Workshop:
    """Makes the variants of a family in a scratch folder; a chain's beginning is made once."""

    def __init__(self, family: str, scratch: Path):
        self.family, self.scratch = family, scratch
        self._made: dict[str, Path] = {}

    @functools.cache
    def _source(self, case: str) -> onnx_source.Source:
        return onnx_source.read(self.family, case)

    def source(self, variant: Variant) -> onnx_source.Source:
        return self._source(variant.case)

    def kind(self, variant: Variant) -> str:
        return "embeddings" if variant.pooling else self.source(variant).kind

    @functools.cache
    def _model(self, case: str, pooling: str | None, part: str | None, attention: str):
        source = self._source(case)
        model = onnx_source.load(source, self.scratch / "checkpoints" / case, attention)
        model = model.get_submodule(part) if part else model
        return onnx_source.Sentence(model, pooling).eval() if pooling else model

    def model(self, variant: Variant, attention: str):
        return self._model(variant.case, variant.pooling, variant.part, attention)

    def expected(self, variant: Variant, arguments: list[str]) -> torch.Tensor:
        """What PyTorch answers for each input alone, given what the file asks for."""
        source, kind = self.source(variant), self.kind(variant)
        model, found = self.model(variant, "eager"), []
        for item in source.inputs:
            with torch.inference_mode():
                output = model(**onnx_source.batch([item], arguments, source.padding))
            found.append(onnx_source.rows([getattr(output, name) for name in onnx_source.OUTPUTS[kind]], kind, [item]))
        return torch.cat(found)

    def counts(self, variant: Variant) -> dict[str, int]:
        source = self.source(variant)
        inputs = onnx_source.batch(source.inputs[-2:-1], source.arguments, source.padding)
        return onnx_source.counts(self.model(variant, "eager"), inputs)

    def make(self, variant: Variant) -> Path:
        """The file at the end of the chain."""
        path, key = Path(), f"{variant.case}/{variant.pooling}/{variant.part}/{variant.arguments}/{variant.outputs}"
        for name, settings in variant.steps:
            key += f"/{name}{sorted(settings.items(), key=lambda item: item[0])}"
            if key not in self._made:
                folder = Path(tempfile.mkdtemp(dir=self.scratch))
                self._made[key] = getattr(self, name)(variant, path, folder, **settings)
            path = self._made[key]
        return path

    def torchscript(self, variant: Variant, _: Path, folder: Path, opset: int, attention: str) -> Path:
        arguments = variant.arguments or self.source(variant).arguments
        kind = self.kind(variant)
        outputs = variant.outputs or onnx_source.OUTPUTS[kind]
        exports.torchscript(self.model(variant, attention), arguments, outputs, kind, opset, folder / "model.onnx")
        return folder / "model.onnx"

    def dynamo(self, variant: Variant, _: Path, folder: Path, attention: str, opset: int | None = None) -> Path:
        arguments = variant.arguments or self.source(variant).arguments
        kind = self.kind(variant)
        outputs = variant.outputs or onnx_source.OUTPUTS[kind]
        exports.dynamo(self.model(variant, attention), arguments, outputs, opset, folder / "model.onnx")
        return folder / "model.onnx"

    def optimum(self, variant: Variant, _: Path, folder: Path, opset: int | None = None) -> Path:
        source = self.source(variant)
        onnx_source.assemble(source, folder / "source", variant.pooling)
        library = "sentence_transformers" if variant.pooling else "transformers"
        exports.optimum(folder / "source", TASKS[self.kind(variant)], folder / "model.onnx", library, opset)
        return folder / "model.onnx"

    def optimum_t5(self, variant: Variant, _: Path, folder: Path) -> Path:
        """Optimum exports the encoder of a whole T5 as a file of its own."""
        onnx_source.assemble(self.source(variant), folder / "source")
        exports.optimum(folder / "source", "text2text-generation", folder / "encoder_model.onnx")
        return folder / "encoder_model.onnx"

    def level(self, variant: Variant, path: Path, folder: Path, level: str) -> Path:
        exports.optimum_level(path.parent, level, folder)
        return folder / "model_optimized.onnx"

    def optimum_quantized(self, variant: Variant, path: Path, folder: Path, per_channel: bool) -> Path:
        exports.optimum_quantized(path, folder, per_channel)
        return folder / f"{path.stem}_quantized.onnx"

    def optimizer(self, variant: Variant, path: Path, folder: Path, model_type: str = "bert", **settings) -> Path:
        config = self.source(variant).config
        heads = next(config[name] for name in ("num_attention_heads", "n_heads", "num_heads", "encoder_attention_heads", "n_head") if name in config)
        width = next(config[name] for name in ("hidden_size", "dim", "d_model", "n_embd") if name in config)
        exports.optimizer(path, folder / "model.onnx", model_type, heads, width, **settings)
        return folder / "model.onnx"

    def dynamic(self, variant: Variant, path: Path, folder: Path, **settings) -> Path:
        exports.dynamic(path, folder / "model.onnx", **settings)
        return folder / "model.onnx"

    def static(self, variant: Variant, path: Path, folder: Path, **settings) -> Path:
        source = self.source(variant)
        wanted = {value.name for value in onnx.load(path, load_external_data=False).graph.input}
        batches = [onnx_source.batch([item], source.arguments, source.padding) for item in source.inputs]
        feeds = [{name: tensor.numpy() for name, tensor in batch.items() if name in wanted} for batch in batches]
        exports.static(path, folder / "model.onnx", feeds, **settings)
        return folder / "model.onnx"

    def blocks(self, variant: Variant, path: Path, folder: Path, **settings) -> Path:
        exports.blocks(path, folder / "model.onnx", **settings)
        return folder / "model.onnx"


EAGER = ("torchscript", {"opset": 17, "attention": "eager"})
OPTIMUM = ("optimum", {})
OPTIMIZER = ("optimizer", {"model_type": "bert"})
SIGNED, UNSIGNED = QuantType.QInt8, QuantType.QUInt8
# The quantisers want to know what fused operators give.
FUSED = {"extra_options": {"DefaultTensorType": onnx.TensorProto.FLOAT}}


def families() -> dict[str, list[Variant]]:
    """The variants by family."""
    plain = {
        "albert": plain_files(12, 14, 20),
        "bert": plain_files(11, 14, None),
        "deberta": plain_files(17, None, 20),
        "deberta_v2": plain_files(14, None, None),
        "distilbert": plain_files(14, 20, 23),
        "electra": plain_files(13, None, 21),
        "modernbert": plain_files(14, 17, 23),
        "mpnet": plain_files(17, None, 24),
        "roberta": plain_files(12, 17, 20),
        "roformer": plain_files(11, None, 22),
    }
    return {
        "albert": [*plain["albert"], *optimized("O2"), *quantized(), *heads("sequence", 17)],
        "bart": [*seq2seq(14, 17), optimizer_of("bart")],
        "bert": [*plain["bert"], *optimized("O1", "O2", "O3", "O4"), *quantized(), *of_bert()],
        "deberta": [*plain["deberta"], *optimized("O2"), *more(17, "absolute-types", "types")],
        "deberta_v2": [*plain["deberta_v2"], *optimized("O2"), *quantized(), *more(17, "no-buckets", "c2p", "biased")],
        "distilbert": [*plain["distilbert"], *optimized("O1", "O2", "O3", "O4"), *quantized(), *heads("sequence", 11), *of_distilbert()],
        "electra": [*plain["electra"], *optimized("O3"), *quantized(), *heads("sequence", 14), *heads("discriminator", 17)],
        "mbart": [Variant("torchscript-12-eager", "base", torchscript(12)), *seq2seq(14, 20)],
        "modernbert": [*plain["modernbert"], *optimized("O2"), *quantized(), *heads("sequence", 17), *heads("mean", 14), *more(17, "gelu-tanh"), Variant("dynamo-22-sdpa", "base", dynamo(22, "sdpa"))],
        "mpnet": [*plain["mpnet"], *optimized("O1", "O2", "O3"), *quantized(), *of_mpnet()],
        "nomic_bert": of_nomic(),
        "roberta": [*plain["roberta"], *optimized("O1", "O2", "O3", "O4"), *quantized(), *heads("sequence", 11), *of_roberta()],
        "roformer": [*plain["roformer"], *optimized("O2"), *quantized(), *heads("sequence", 14), *more(17, "rotary-value")],
        "t5": of_t5(),
    }


def torchscript(opset: int, attention: str = "eager") -> list[tuple[str, dict]]:
    return [("torchscript", {"opset": opset, "attention": attention})]


def dynamo(opset: int | None, attention: str = "eager") -> list[tuple[str, dict]]:
    return [("dynamo", {"opset": opset, "attention": attention})]


def plain_files(eager: int, sdpa: int | None, newest: int | None) -> list[Variant]:
    """Files as the exporters write them, of these opsets; some families have no SDPA."""
    attention = "sdpa" if sdpa else "eager"
    found = [
        Variant(f"torchscript-{eager}-eager", "base", torchscript(eager)),
        Variant("dynamo-18-eager", "base", dynamo(18)),
        Variant(f"dynamo-{newest or 'default'}-{attention}", "base", dynamo(newest, attention)),
        Variant("optimum", "base", [OPTIMUM]),
    ]
    if sdpa:
        found.insert(1, Variant(f"torchscript-{sdpa}-sdpa", "base", torchscript(sdpa, "sdpa")))
    return found


def heads(case: str, opset: int, attention: str = "eager") -> list[Variant]:
    """Another class of the family by both exporters."""
    return [Variant(f"{case}-torchscript-{opset}", case, torchscript(opset)), Variant(f"{case}-dynamo", case, dynamo(None, attention))]


def more(opset: int, *cases: str) -> list[Variant]:
    """Other configurations of the base class, by both exporters in turn."""
    made = [torchscript(opset), dynamo(None)]
    names = [f"torchscript-{opset}", "dynamo"]
    return [Variant(f"{case}-{names[index % 2]}", case, made[index % 2]) for index, case in enumerate(cases)]


def optimized(*levels: str) -> list[Variant]:
    """Files of fused operators."""
    found = [Variant("optimizer", "base", [EAGER, OPTIMIZER])]
    for level in levels:
        activations = "f16" if level == "O4" else "f32"
        found.append(Variant(f"optimum-{level}", "base", [OPTIMUM, ("level", {"level": level})], activations, changed=level > "O2"))
    return found


def optimizer_of(model_type: str) -> Variant:
    return Variant("optimizer", "base", [EAGER, ("optimizer", {"model_type": model_type})])


def quantized() -> list[Variant]:
    """Files of whole numbers."""
    return [
        Variant("int8-channels", "base", [EAGER, ("dynamic", {"weights": SIGNED, "per_channel": True})], "dynamic", True),
        Variant("uint8-tensors", "base", [EAGER, ("dynamic", {"weights": UNSIGNED, "per_channel": False})], "dynamic", True),
        Variant("optimizer-int8", "base", [EAGER, OPTIMIZER, ("dynamic", {"weights": SIGNED, "per_channel": False, **FUSED})], "dynamic", True),
        Variant("optimum-int8", "base", [OPTIMUM, ("optimum_quantized", {"per_channel": True})], "dynamic", True),
    ]


def static(name: str, steps: list, case: str = "base", per_channel: bool = True, activations=UNSIGNED, **settings) -> Variant:
    """QuantizeLinear and DequantizeLinear by calibration."""
    step = ("static", {"per_channel": per_channel, "activations": activations, **settings})
    return Variant(name, case, [*steps, step], "static", True)


def blocks(name: str, steps: list, case: str = "base", **settings) -> Variant:
    """Weights in blocks; what they stand for is exact."""
    return Variant(name, case, [*steps, ("blocks", settings)], changed=True)


def of_bert() -> list[Variant]:
    """What all families would do alike."""
    found = [variant for case, opset in (("sequence", 14), ("token", 12), ("question", 11), ("masked", 17)) for variant in heads(case, opset)]
    found += [Variant(f"{case}-optimum", case, [OPTIMUM]) for case in ("sequence", "token", "question", "masked")]
    found += [Variant(f"{pooling}-torchscript", "base", [EAGER], pooling=pooling) for pooling in ("mean", "cls", "max")]
    found.append(Variant("mean-dynamo", "base", dynamo(None, "sdpa"), pooling="mean"))
    found.append(Variant("mean-optimum", "base", [OPTIMUM], pooling="mean"))
    both = ["last_hidden_state", "pooler_output"]
    found.append(Variant("pooler-torchscript", "base", torchscript(13), outputs=both))
    found.append(Variant("ids-only-torchscript", "base", torchscript(16), arguments=["input_ids"], padding_moves=True))
    found.append(Variant("ids-only-dynamo", "base", dynamo(None, "sdpa"), arguments=["input_ids"], padding_moves=True))
    found.append(Variant("inline-torchscript", "base", torchscript(15), inline=True))
    found.append(Variant("inline-dynamo", "base", dynamo(None, "sdpa"), inline=True))
    found.append(Variant("dynamo-25-sdpa", "base", dynamo(25, "sdpa")))
    fused = {
        "heads": {"use_multi_head_attention": True},
        "raw-mask": {"raw_mask": True},
        "no-embeddings": {"enable_embed_layer_norm": False},
        "no-bias": {"enable_bias_skip_layer_norm": False, "enable_bias_gelu": False},
        "no-attention": {"enable_attention": False},
    }
    found += [Variant(f"optimizer-{name}", "base", [EAGER, ("optimizer", {"model_type": "bert", **switches})]) for name, switches in fused.items()]
    fast = {"model_type": "bert", "enable_gelu_approximation": True}
    found.append(Variant("optimizer-fast-gelu", "base", [EAGER, ("optimizer", fast)], changed=True))
    found.append(Variant("optimizer-half", "base", [EAGER, ("optimizer", {"model_type": "bert", "half": True})], "f16", True))
    found.append(Variant("optimizer-int32", "base", [EAGER, ("optimizer", {"model_type": "bert", "int32": True})]))
    found.append(static("qdq", [EAGER]))
    found.append(static("qdq-matmuls", [EAGER], op_types_to_quantize=["MatMul"]))
    found.append(static("qdq-optimizer", [EAGER, OPTIMIZER], **FUSED))
    found.append(static("token-qdq", torchscript(14), "token", op_types_to_quantize=["MatMul"]))
    found.append(blocks("4-bit", [EAGER]))
    found.append(blocks("4-bit-symmetric", [EAGER], block=32, symmetric=True))
    found.append(blocks("8-bit", [EAGER], bits=8))
    found.append(blocks("token-4-bit", torchscript(17), "token", block=32))
    embeddings = {"weights": UNSIGNED, "per_channel": False, "op_types_to_quantize": ["Gather"]}
    found.append(Variant("uint8-embeddings", "base", [EAGER, ("dynamic", embeddings)], changed=True))
    found.append(Variant("uint8-embeddings-4-bit", "base", [EAGER, ("dynamic", embeddings), ("blocks", {"block": 32})], changed=True))
    signed = embeddings | {"weights": SIGNED}
    found.append(Variant("int8-embeddings", "base", [EAGER, ("dynamic", signed)], changed=True))
    matmuls = {"weights": SIGNED, "per_channel": True, "op_types_to_quantize": ["MatMul"]}
    found.append(Variant("token-int8", "token", [EAGER, ("dynamic", matmuls)], "dynamic", True))
    found.append(Variant("mean-int8", "base", [EAGER, ("dynamic", matmuls | {"reduce_range": True})], "dynamic", True, pooling="mean"))
    return found


def of_distilbert() -> list[Variant]:
    symmetric = {"ActivationSymmetric": True, "WeightSymmetric": True}
    found = [static("qdq-symmetric", [EAGER], per_channel=False, activations=SIGNED, extra_options=symmetric)]
    found.append(Variant("token-optimum", "token", [OPTIMUM]))
    found.append(blocks("4-bit", [EAGER]))
    return found


def of_mpnet() -> list[Variant]:
    found = [blocks("4-bit-symmetric", [EAGER], symmetric=True, block=32)]
    found.append(Variant("mean-torchscript", "base", torchscript(14), pooling="mean"))
    found.append(Variant("mean-dynamo", "base", dynamo(None), pooling="mean"))
    return found


def of_roberta() -> list[Variant]:
    pairs = {"ActivationSymmetric": True, "AddQDQPairToWeight": True}
    found = [static("qdq-weights-too", [EAGER], activations=SIGNED, extra_options=pairs, op_types_to_quantize=["MatMul", "Add"])]
    found.append(blocks("4-bit-qdq", [("torchscript", {"opset": 17, "attention": "eager"})], block=32, qdq=True))
    found.append(Variant("sequence-optimum", "sequence", [OPTIMUM]))
    found.append(Variant("mean-optimum", "base", [OPTIMUM], pooling="mean"))
    return found


def of_nomic() -> list[Variant]:
    """There is no class of it in transformers, so none in Optimum."""
    found = [Variant(f"torchscript-{opset}", "base", torchscript(opset)) for opset in (11, 12, 17)]
    found += [Variant("dynamo-18", "base", dynamo(18)), Variant("dynamo-default", "base", dynamo(None))]
    found += more(14, "half", "interleaved", "geglu", "gelu", "no-types", "biases")
    return found + [found_ for found_ in quantized() if "optimum" not in found_.name] + optimized()


def of_t5() -> list[Variant]:
    found = [
        Variant("torchscript-11", "base", torchscript(11)),
        Variant("torchscript-12", "base", torchscript(12)),
        Variant("torchscript-17", "base", torchscript(17)),
        Variant("dynamo-18", "base", dynamo(18)),
        Variant("dynamo-23", "base", dynamo(23)),
        Variant("optimum", "base", [("optimum_t5", {})]),
        *more(17, "gated-gelu", "gelu_new".replace("_", "-"), "gated-silu", "gelu", "near"),
        Variant("optimizer", "base", [EAGER, ("optimizer", {"model_type": "t5"})], unrunnable="an implementation for RelativePositionBias"),
        blocks("gated-gelu-4-bit", [EAGER], "gated-gelu"),
    ]
    return found + [variant for variant in quantized() if "opti" not in variant.name]


def seq2seq(opset: int, sdpa: int) -> list[Variant]:
    """Encoder and decoder: the decoder reads the input again, one place later."""
    return [
        Variant(f"torchscript-{opset}-eager", "base", torchscript(opset)),
        Variant(f"torchscript-{sdpa}-sdpa", "base", torchscript(sdpa, "sdpa")),
        Variant("dynamo-18-eager", "base", dynamo(18)),
        Variant("dynamo-default-sdpa", "base", dynamo(None, "sdpa")),
        Variant(f"encoder-torchscript-{opset}", "base", torchscript(opset), part="encoder"),
        Variant("encoder-dynamo", "base", dynamo(None, "sdpa"), part="encoder"),
        Variant("encoder-int8", "base", [EAGER, ("dynamic", {"weights": SIGNED, "per_channel": True})], "dynamic", True, part="encoder"),
        *heads("sequence", 17, "sdpa"),
        *heads("question", 14, "sdpa"),
        Variant("sequence-optimum", "sequence", [OPTIMUM]),
    ]
