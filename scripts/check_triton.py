#!/usr/bin/env python3
"""Checks a Triton model repository by the protobuf definition that Triton's client brings, and against its ONNX files.

usage: check_triton.py REPOSITORY
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
GOLDENS = HERE / "goldens"
sys.path.insert(0, str(HERE))

import environment  # noqa: E402


def main() -> None:
    environment.enter(GOLDENS / "requirements-onnx.txt", GOLDENS / ".venv-onnx")
    problems = check(Path(sys.argv[1]))
    for problem in problems:
        print(problem, file=sys.stderr)
    sys.exit(bool(problems))


def check(repository: Path) -> list[str]:
    """What is wrong with a repository."""
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    configs, problems = {}, []
    for folder in sorted(path for path in repository.iterdir() if path.is_dir()):
        path = folder / "config.pbtxt"
        try:
            config = text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())
        except (OSError, text_format.ParseError) as error:
            problems.append(f"{path}: {error}")
            continue
        configs[folder.name] = config
        if config.name and config.name != folder.name:
            problems.append(f"{path}: named {config.name}")
        if not any(version.is_dir() and version.name.isdigit() for version in folder.iterdir()):
            problems.append(f"{folder}: no version")
    if not configs:
        problems.append(f"{repository}: no model")
    for name, config in configs.items():
        if config.ensemble_scheduling.step:
            problems += _check_ensemble(name, config, configs)
        else:
            problems += _check_model(repository / name, config)
    return problems


def _check_model(folder: Path, config) -> list[str]:
    """The configuration against the files."""
    import onnx
    from tritonclient.grpc import model_config_pb2

    kinds = {onnx.TensorProto.INT64: "TYPE_INT64", onnx.TensorProto.FLOAT: "TYPE_FP32"}
    problems = []
    if config.platform != "onnxruntime_onnx" and config.backend != "onnxruntime":
        problems.append(f"{folder.name}: platform `{config.platform}`, backend `{config.backend}`")
    if not config.HasField("dynamic_batching") or config.max_batch_size < 2:
        problems.append(f"{folder.name}: batching is off")
    if not config.model_warmup:
        problems.append(f"{folder.name}: no warm-up")
    for version in (path for path in folder.iterdir() if path.is_dir() and path.name.isdigit()):
        graph = onnx.load(version / "model.onnx", load_external_data=False).graph
        for said, found in ((config.input, graph.input), (config.output, graph.output)):
            for value in found:
                # Triton leaves the batch out.
                dims = [dim.dim_value or -1 for dim in value.type.tensor_type.shape.dim][1:]
                told = next((item for item in said if item.name == value.name), None)
                if told is None:
                    problems.append(f"{folder.name}: {value.name} isn't in the configuration")
                elif list(told.dims) != dims or model_config_pb2.DataType.Name(told.data_type) != kinds.get(value.type.tensor_type.elem_type):
                    problems.append(f"{folder.name}: {value.name} is {dims} in the file, {list(told.dims)} in the configuration")
            for extra in {item.name for item in said} - {value.name for value in found}:
                problems.append(f"{folder.name}: {extra} isn't in the file")
    for sample in config.model_warmup:
        for name in set(sample.inputs) ^ {item.name for item in config.input}:
            problems.append(f"{folder.name}: warm-up and inputs differ in {name}")
    return problems


def _check_ensemble(name: str, config, configs: dict) -> list[str]:
    """Every step's tensors exist, and come from somewhere."""
    problems, known = [], {item.name for item in config.input}
    for step in config.ensemble_scheduling.step:
        model = configs.get(step.model_name)
        if model is None:
            problems.append(f"{name}: step {step.model_name} isn't in the repository")
            continue
        if unknown := set(step.input_map) ^ {item.name for item in model.input}:
            problems.append(f"{name}: inputs of {step.model_name} differ in {unknown}")
        if unknown := set(step.output_map) - {item.name for item in model.output}:
            problems.append(f"{name}: {step.model_name} has no output {unknown}")
        if missing := set(step.input_map.values()) - known:
            problems.append(f"{name}: nothing gives {missing}")
        known |= set(step.output_map.values())
    if missing := {item.name for item in config.output} - known:
        problems.append(f"{name}: nothing gives {missing}")
    return problems


if __name__ == "__main__":
    main()
