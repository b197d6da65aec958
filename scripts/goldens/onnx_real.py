"""The fixtures of real ONNX files: what ONNX Runtime answers for 200 texts.

usage: python3 scripts/goldens/onnx_real.py MINILM_INT8_FOLDER RAMPART_FOLDER

The folders are those that `centuple_models::checkpoint::hub::packaged` fetches: all-MiniLM-L6-v2 with weights of 8 bits, and a
token classifier with weights of 4 bits and embeddings of 8. Its entities are those of the pipeline of transformers.
"""

import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
FIXTURES = HERE.parents[1] / "crates" / "testkit" / "fixtures"
sys.path.insert(0, str(HERE.parent))

import environment  # noqa: E402

DIRECTIONS = 4
# Tokens of which a real model takes more than it is asked here.
MOST_TOKENS = 512
COUNT = 200


def main() -> None:
    environment.enter(HERE / "requirements-onnx.txt", HERE / ".venv-onnx")
    minilm, rampart = (Path(argument) for argument in sys.argv[1:3])
    _minilm(minilm, FIXTURES / "onnx-real" / "all-minilm-l6-v2-int8")
    _rampart(rampart, FIXTURES / "onnx-real" / "rampart")


def _session(path: Path):
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    settings.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])


def _answer(session, ids: list[int]):
    """The first output for one sequence of token type 0, [tokens, width]."""
    import numpy

    zeros = numpy.zeros((1, len(ids)), numpy.int64)
    every = {"input_ids": numpy.array([ids]), "attention_mask": zeros + 1, "token_type_ids": zeros}
    return session.run(None, {value.name: every[value.name] for value in session.get_inputs()})[0][0]


def _directions(width: int):
    import numpy

    directions = numpy.random.default_rng(20).standard_normal((DIRECTIONS, width))
    return (directions / numpy.linalg.norm(directions, axis=1, keepdims=True)).astype(numpy.float32)


def _project(outputs: list, directions):
    import numpy

    return (numpy.concatenate(outputs).astype(numpy.float64) @ directions.T.astype(numpy.float64)).astype(numpy.float32)


def _minilm(model: Path, folder: Path) -> None:
    """The texts and token ids are those of all-minilm-l6-v2/inputs.json."""
    import numpy
    from safetensors.numpy import save_file

    session = _session(model / "model.onnx")
    inputs = json.loads((FIXTURES / "all-minilm-l6-v2" / "inputs.json").read_text())
    outputs = [_answer(session, item["ids"]) for item in inputs]
    directions = _directions(outputs[0].shape[1])
    folder.mkdir(parents=True, exist_ok=True)
    rows = numpy.stack([output[0] for output in outputs[::10]])
    found = {"directions": directions, "projected": _project(outputs, directions), "first": rows}
    save_file(found, folder / "outputs.safetensors")
    _report(folder, len(inputs))


def _rampart(model: Path, folder: Path) -> None:
    import numpy
    import torch
    from safetensors.numpy import save_file
    from transformers import AutoConfig, AutoTokenizer, PreTrainedModel, TokenClassificationPipeline
    from transformers.modeling_outputs import TokenClassifierOutput

    import pii_texts
    import readable

    session = _session(model / "onnx" / "model_q4.onnx")
    tokenizer = AutoTokenizer.from_pretrained(model)
    config = AutoConfig.from_pretrained(model)

    class OnnxRuntime(PreTrainedModel):
        """The file as a model of transformers, so that its pipeline runs."""

        config_class, main_input_name = type(config), "input_ids"

        def __init__(self):
            super().__init__(config)
            self.nothing = torch.nn.Parameter(torch.zeros(1))

        def forward(self, input_ids, **_):
            return TokenClassifierOutput(logits=torch.from_numpy(_answer(session, input_ids[0].tolist()))[None])

    pipeline = TokenClassificationPipeline(model=OnnxRuntime(), tokenizer=tokenizer, aggregation_strategy="simple", device="cpu")
    inputs, outputs, closest = [], [], 1e9
    for text in pii_texts.texts(COUNT):
        ids = tokenizer(text)["input_ids"]
        assert len(ids) <= MOST_TOKENS, text
        logits = _answer(session, ids)
        best = numpy.sort(logits, axis=1)
        closest = min(closest, float((best[:, -1] - best[:, -2]).min()))
        entities = [[item["entity_group"], int(item["start"]), int(item["end"]), round(float(item["score"]), 5)] for item in pipeline(text)] if text.strip() else []
        inputs.append({"text": text, "ids": ids, "labels": logits.argmax(1).tolist(), "entities": entities})
        outputs.append(logits)
    directions = _directions(outputs[0].shape[1])
    folder.mkdir(parents=True, exist_ok=True)
    readable.write(folder / "inputs.json", inputs)
    save_file({"directions": directions, "projected": _project(outputs, directions)}, folder / "outputs.safetensors")
    kinds = sorted({entity[0] for item in inputs for entity in item["entities"]})
    print(f"{sum(len(item['entities']) for item in inputs)} entities of {len(kinds)} kinds; the closest two labels of a token are {closest:.1e} apart")
    print(" ".join(kinds))
    _report(folder, len(inputs))


def _report(folder: Path, count: int) -> None:
    for path in folder.iterdir():
        path.chmod(0o644)
    print(f"{count} inputs, {sum(path.stat().st_size for path in folder.iterdir())} bytes in {folder.name}")


if __name__ == "__main__":
    main()
