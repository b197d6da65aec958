#!/usr/bin/env python3
"""Checks what `centuple export` writes: onnx.checker with shape inference, ONNX Runtime, PyTorch, and Triton's own protobuf.

usage: check_export.py MODEL_FOLDER [EXPORTED_FOLDER]
       check_export.py --families [NAME...]

Without EXPORTED_FOLDER the model is exported first, by the release binary; `--families` does so for every case of the families'
tiny checkpoints. Makes its own environment from scripts/goldens/requirements-onnx.txt.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
GOLDENS = HERE / "goldens"
sys.path[:0] = [str(GOLDENS), str(HERE)]

import environment  # noqa: E402

# Largest |found - expected| / (1 + |expected|) of files in f32.
TOLERANCE = 1e-4
LENGTHS = [1, 2, 7, 33]
INPUTS = ["input_ids", "attention_mask", "token_type_ids"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", action="store_true", help="every case of the families' tiny checkpoints")
    parser.add_argument("--binary", type=Path, default=HERE.parent / "target" / "release" / "centuple")
    parser.add_argument("--calibrate", type=Path, help="texts for model_qdq.onnx")
    parser.add_argument("arguments", nargs="*")
    arguments = parser.parse_args()
    environment.enter(GOLDENS / "requirements-onnx.txt", GOLDENS / ".venv-onnx")
    with tempfile.TemporaryDirectory() as scratch:
        if arguments.families:
            failed = _families(arguments, Path(scratch))
        else:
            model = Path(arguments.arguments[0])
            exported = Path(arguments.arguments[1]) if len(arguments.arguments) > 1 else _export(arguments, model, Path(scratch) / "exported")
            failed = [*check(exported, *_reference(model)), *_check_triton(arguments, model, Path(scratch) / "triton")]
    for problem in failed:
        print(problem, file=sys.stderr)
    sys.exit(bool(failed))


def _export(arguments, model: Path, target: Path, form: str = "onnx") -> Path:
    calibrate = ["--calibrate", str(arguments.calibrate)] if arguments.calibrate and form == "onnx" else []
    command = [str(arguments.binary), "export", str(model), "-o", str(target), "--format", form, *calibrate]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, f"{' '.join(command)}: {result.stderr}"
    return target


def _families(arguments, scratch: Path) -> list[str]:
    """Exports and checks every case of the families named, or of all."""
    import onnx_source

    failed, count = [], 0
    for folder in sorted(onnx_source.FAMILIES.iterdir()):
        if arguments.arguments and folder.name not in arguments.arguments:
            continue
        for case in json.loads((folder / "cases.json").read_text())["cases"]:
            if "refuse" in case:
                continue
            source = onnx_source.read(folder.name, case["name"])
            model = onnx_source.load(source, scratch / folder.name / case["name"], "eager")
            checkpoint = onnx_source.assemble(source, scratch / folder.name / case["name"])
            try:
                exported = _export(arguments, checkpoint, checkpoint / "exported")
                problems = check(exported, model, model.config, source.padding, quiet=True)
                if case["name"] == "base":
                    problems += _check_triton(arguments, checkpoint, checkpoint / "triton")
            except AssertionError as error:
                problems = [str(error)]
            failed += [f"{folder.name} {case['name']}: {problem}" for problem in problems]
            count += 1
        print(f"{folder.name}: {count} cases so far, {len(failed)} problems", flush=True)
    return failed


def _reference(folder: Path):
    """The model in PyTorch, its configuration, and the id that it is padded with."""
    import torch
    import transformers

    if (folder / "modules.json").is_file():
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
        config = model[0].auto_model.config
        return lambda **inputs: model(inputs), config, config.pad_token_id or 0
    config = transformers.AutoConfig.from_pretrained(folder)
    kind = getattr(transformers, config.architectures[0])
    model = kind.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    return model, config, config.pad_token_id or 0


def check(exported: Path, model, config, padding: int, quiet: bool = False) -> list[str]:
    """What is wrong with the files of a folder."""
    import onnx

    problems = []
    files = sorted(exported.glob("*.onnx"))
    if not files:
        return [f"{exported}: no file"]
    for path in files:
        try:
            onnx.checker.check_model(str(path), full_check=True)
            worst = _compare(path, model, config, padding, quiet)
        except Exception as error:
            problems.append(f"{path.name}: {type(error).__name__}: {str(error)[:500]}")
            continue
        exact = path.stem in ("model", "model_optimized")
        if exact and worst > TOLERANCE:
            problems.append(f"{path.name}: {worst:.1e} from PyTorch")
    return problems


def _compare(path: Path, model, config, padding: int, quiet: bool) -> float:
    """The largest distance of any output from PyTorch's, over sequences alone and padded, with and without ORT's optimiser."""
    import onnx
    import onnxruntime

    graph = onnx.load(path, load_external_data=False).graph
    names = [value.name for value in graph.input]
    assert names == INPUTS[: len(names)], f"inputs {names}"
    for value in graph.input:
        dims = [dim.dim_param for dim in value.type.tensor_type.shape.dim]
        assert dims == ["batch_size", "sequence_length"] and value.type.tensor_type.elem_type == onnx.TensorProto.INT64, f"{value.name} is {dims}"
    worst = {}
    for level in (onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL, onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL):
        settings = onnxruntime.SessionOptions()
        settings.graph_optimization_level, settings.log_severity_level, settings.intra_op_num_threads = level, 3, 1
        session = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
        for lengths in [[length] for length in _lengths(config)] + [_lengths(config)]:
            inputs = _probe(lengths, config, padding, names)
            found = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
            for value, output in zip(session.get_outputs(), found, strict=True):
                away = _distance(value.name, output, model, inputs, lengths)
                worst[value.name] = max(worst.get(value.name, 0.0), away)
    if not quiet:
        print(f"{path.name}: {len(graph.node)} nodes, from PyTorch " + ", ".join(f"{name} {away:.1e}" for name, away in worst.items()))
    return max(worst.values())


def _lengths(config) -> list[int]:
    """Lengths that the model takes."""
    places = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None) or 512
    # These count from behind the padding's id on.
    before = config.pad_token_id + 1 if config.model_type in ("roberta", "xlm-roberta", "camembert", "mpnet") else 0
    longest = min(places, 512) - before
    return [*(length for length in LENGTHS if length < longest), longest]


def _probe(lengths: list[int], config, padding: int, names: list[str]):
    """Right-padded token ids, spread over the vocabulary; each sequence ends with the end that some classes look for."""
    import torch

    # Above what most vocabularies use for special tokens.
    low = min(10, config.vocab_size - 1)
    ids = torch.full((len(lengths), max(lengths)), padding)
    mask, types = torch.zeros_like(ids), torch.zeros_like(ids)
    draw = torch.Generator().manual_seed(sum(lengths))
    for row, length in enumerate(lengths):
        ids[row, :length] = torch.randint(low, config.vocab_size, (length,), generator=draw)
        if config.model_type in ("bart", "mbart"):
            ids[row, length - 1] = config.eos_token_id
        mask[row, :length] = 1
        if getattr(config, "type_vocab_size", 0) > 1:
            types[row, length // 2 : length] = 1
    return {name: {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}[name] for name in names}


def _distance(name: str, output, model, inputs, lengths: list[int]) -> float:
    """How far an output is from PyTorch's in the rows that aren't padding."""
    import torch

    with torch.inference_mode():
        answer = model(**inputs)
    expected = None
    for spelling in (name, "prediction_logits", "token_embeddings"):
        if expected is None:
            expected = answer.get(spelling) if isinstance(answer, dict) else getattr(answer, spelling, None)
    assert expected is not None, f"PyTorch has no output {name}"
    found = torch.from_numpy(output).float().reshape(expected.shape)
    if expected.dim() > 1 and expected.shape[1] == max(lengths) and name != "sentence_embedding":
        kept = torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]
        found, expected = found[kept], expected[kept]
    return ((found - expected).abs() / (1 + expected.abs())).max().item()


def _check_triton(arguments, model: Path, target: Path) -> list[str]:
    import check_triton

    return check_triton.check(_export(arguments, model, target, "triton"))


if __name__ == "__main__":
    main()
