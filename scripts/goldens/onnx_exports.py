"""What people do to get an ONNX file: exporters, optimisers and quantisers, each as a step that writes one file."""

import contextlib
import io
import logging
import warnings
from pathlib import Path

import onnx
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
from onnxruntime.transformers.fusion_options import FusionOptions
from onnxruntime.transformers.optimizer import optimize_model

AXES = {0: "batch_size", 1: "sequence_length"}


@contextlib.contextmanager
def quiet():
    """Exporters write to everything there is."""
    logging.disable(logging.WARNING)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
    logging.disable(logging.NOTSET)


class Chosen(torch.nn.Module):
    """A model that answers with the named outputs, as exports have them."""

    def __init__(self, model, inputs: list[str], outputs: list[str]):
        super().__init__()
        self.model, self.inputs, self.outputs = model, inputs, outputs

    def forward(self, *tensors):
        found = self.model(**dict(zip(self.inputs, tensors, strict=True)))
        return tuple(getattr(found, name) for name in self.outputs)


def example(inputs: list[str]) -> dict[str, torch.Tensor]:
    """What an exporter traces with: two sequences, one of them padded."""
    ids = torch.tensor([[20, 30, 40, 50, 60, 70, 2], [25, 35, 45, 2, 1, 1, 1]])
    mask, types = torch.ones_like(ids), torch.zeros_like(ids)
    mask[1, 4:], types[:, 4:] = 0, 1
    every = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
    return {name: every[name] for name in inputs}


def torchscript(model, inputs: list[str], outputs: list[str], kind: str, opset: int, path: Path) -> None:
    """The exporter that traces, `dynamo=False`."""
    answers = {0: "batch_size"} if kind in ("logits", "embeddings") else AXES
    axes = {name: AXES for name in inputs} | {name: answers for name in outputs}
    settings = {"input_names": inputs, "output_names": outputs, "dynamic_axes": axes, "opset_version": opset}
    with quiet(), torch.no_grad():
        torch.onnx.export(Chosen(model, inputs, outputs).eval(), tuple(example(inputs).values()), str(path), dynamo=False, **settings)


def dynamo(model, inputs: list[str], outputs: list[str], opset: int | None, path: Path) -> None:
    """The exporter of today, by `torch.export`."""
    settings = {"input_names": inputs, "output_names": outputs, "opset_version": opset, "verbose": False}
    with quiet(), torch.no_grad():
        dynamic = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
        tensors = tuple(example(inputs).values())
        torch.onnx.export(
            Chosen(model, inputs, outputs).eval(), tensors, str(path), dynamo=True, external_data=False, dynamic_shapes=(tuple(dynamic for _ in tensors),), **settings
        )


def optimum(folder: Path, task: str, path: Path, library: str | None = None, opset: int | None = None, optimize: str | None = None) -> None:
    """`optimum-cli export onnx --model folder --task task`."""
    from optimum.exporters.onnx import main_export

    with quiet():
        main_export(str(folder), path.parent, task=task, library_name=library, opset=opset, optimize=optimize, do_validation=False)


def optimum_level(folder: Path, level: str, target: Path) -> None:
    """`optimum-cli onnxruntime optimize -O1` (to -O4) of the file in `folder`; writes model_optimized.onnx."""
    from optimum.onnxruntime import AutoOptimizationConfig, ORTOptimizer

    with quiet():
        settings = getattr(AutoOptimizationConfig, level)()
        ORTOptimizer.from_pretrained(folder, file_names=["model.onnx"]).optimize(settings, target)


def optimum_quantized(path: Path, target: Path, per_channel: bool) -> None:
    """`optimum-cli onnxruntime quantize --avx512_vnni [--per_channel]`; writes model_quantized.onnx."""
    from optimum.onnxruntime import AutoQuantizationConfig, ORTQuantizer

    with quiet():
        settings = AutoQuantizationConfig.avx512_vnni(is_static=False, per_channel=per_channel)
        ORTQuantizer.from_pretrained(path.parent, file_name=path.name).quantize(save_dir=target, quantization_config=settings)


def optimizer(source: Path, path: Path, model_type: str, heads: int, width: int, **switches: bool) -> None:
    """`python -m onnxruntime.transformers.optimizer`; `switches` are fields of its fusion options, or what is asked of the result."""
    half, int32 = switches.pop("half", False), switches.pop("int32", False)
    options = FusionOptions(model_type)
    options.use_raw_attention_mask(switches.pop("raw_mask", model_type != "bert"))
    for name, value in switches.items():
        assert hasattr(options, name), name
        setattr(options, name, value)
    with quiet():
        optimized = optimize_model(str(source), model_type, heads, width, options, opt_level=0)
        if half:
            optimized.convert_float_to_float16(keep_io_types=True)
        if int32:
            optimized.change_graph_inputs_to_int32()
        optimized.save_model_to_file(str(path))


def dynamic(source: Path, path: Path, weights: QuantType, per_channel: bool, **settings) -> None:
    """`quantize_dynamic`."""
    with quiet():
        quantize_dynamic(str(source), str(path), weight_type=weights, per_channel=per_channel, **settings)


class _Reader(CalibrationDataReader):
    def __init__(self, batches: list[dict]):
        self.batches = iter(batches)

    def get_next(self):
        return next(self.batches, None)


def static(source: Path, path: Path, batches: list[dict], per_channel: bool, activations: QuantType, **settings) -> None:
    """`quantize_static` with QuantizeLinear and DequantizeLinear."""
    with quiet():
        quantize_static(
            str(source), str(path), _Reader(batches), quant_format=QuantFormat.QDQ, per_channel=per_channel,
            activation_type=activations, weight_type=QuantType.QInt8, **settings,
        )  # fmt: skip


def blocks(source: Path, path: Path, bits: int = 4, block: int = 16, symmetric: bool = False, qdq: bool = False) -> None:
    """`MatMulNBits`, or with `qdq` DequantizeLinear: weights in blocks of 4 or 8 bits."""
    form = QuantFormat.QDQ if qdq else QuantFormat.QOperator
    with quiet():
        quantizer = MatMulNBitsQuantizer(onnx.load(source), bits=bits, block_size=block, is_symmetric=symmetric, quant_format=form)
        quantizer.process()
        quantizer.model.save_model_to_file(str(path))
