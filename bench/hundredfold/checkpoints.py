"""Model folders that both sides can read, made of packages whose folders transformers can't.

What is made lies in `out/`, and is made once.
"""

import json
import shutil
from pathlib import Path

MADE = Path(__file__).resolve().parent / "out"


def as_it_is(folder: Path) -> Path:
    """A folder that needs nothing."""
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder} has no config.json")
    return folder


def typed_bert(folder: Path) -> Path:
    """A masked BERT with a configuration that says so, and with the tokenizer that keeps capitals."""
    target = MADE / f"typed-{folder.name}"
    if not target.is_dir():
        config = json.loads((folder / "config.json").read_text())
        config |= {"model_type": "bert", "architectures": ["BertForMaskedLM"]}
        unfinished = _copy(folder, target, ["pytorch_model.bin", "vocab.txt"])
        (unfinished / "config.json").write_text(json.dumps(config))
        (unfinished / "tokenizer_config.json").write_text(
            json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": False, "model_max_length": 512})
        )
        unfinished.rename(target)
    return target


def dequantised(folder: Path) -> Path:
    """A checkpoint of f32 out of an ONNX file whose matrices have 4 bits and whose tables have 8."""
    from safetensors.numpy import save_file

    target = MADE / f"dequantised-{folder.name}"
    if not target.is_dir():
        kept = ["config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"]
        weights = _dequantise(next(folder.glob("onnx/*.onnx")))
        unfinished = _copy(folder, target, kept)
        save_file(weights, unfinished / "model.safetensors", metadata={"format": "pt"})
        unfinished.rename(target)
    return target


def _copy(folder: Path, target: Path, names: list[str]) -> Path:
    """Copies files to an unfinished folder beside `target`."""
    as_it_is(folder)
    unfinished = target.with_name(f"new-{target.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    for name in names:
        shutil.copyfile(folder / name, unfinished / name)
    return unfinished


def _dequantise(file: Path) -> dict:
    """Every weight by its name in PyTorch."""
    import numpy
    import onnx

    graph = onnx.load(file).graph
    found = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    weights = {name: value for name, value in found.items() if name.endswith((".weight", ".bias"))}
    for name in [name for name in found if name.endswith("_quantized")]:
        table = name.removesuffix("_quantized")
        codes = found[name].astype(numpy.float32) - found[f"{table}_zero_point"].astype(numpy.float32)
        weights[table] = codes * found[f"{table}_scale"]
    additions = [node.input for node in graph.node if node.op_type == "Add"]
    biases = {computed: stored for inputs in additions for stored, computed in _pairs(inputs, found)}
    for node in graph.node:
        if node.op_type == "MatMulNBits":
            packed, scales = found[node.input[1]], found[node.input[2]]
            weights[biases[node.output[0]].removesuffix("bias") + "weight"] = _matrix(packed, scales)
    return weights


def _pairs(inputs: list[str], found: dict) -> list[tuple[str, str]]:
    """The stored and the computed input of an addition that has one of each."""
    stored = [name for name in inputs if name in found]
    computed = [name for name in inputs if name not in found]
    return [(stored[0], computed[0])] if stored and computed else []


def _matrix(packed, scales):
    """[outputs, inputs] of blocks of 4-bit codes, the lower half of a byte first, 8 meaning zero."""
    import numpy

    codes = numpy.stack([packed & 15, packed >> 4], axis=-1).reshape(*packed.shape[:2], -1).astype(numpy.float32) - 8
    return numpy.ascontiguousarray((codes * scales.reshape(*packed.shape[:2], 1)).reshape(len(packed), -1))
