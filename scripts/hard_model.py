#!/usr/bin/env python3
"""Writes a copy of a BERT-like checkpoint that is hard to quantise, as checkpoints with outlier channels are.

    hard_model.py MODEL OUT

In some layers the least important neurons of the feed-forward network become outliers: whatever the token, their
activation is a large constant, which ordinary random weights spread over all outputs and the bias takes away again. In
floats the model loses these few neurons and nothing else; in integers every other neuron of the layer drowns in the
steps that the outliers need. Makes its own environment in .venv-hard-model beside this file (outside git).
"""

import argparse
import re
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import environment  # noqa: E402

WEIGHTS = "model.safetensors"
OTHER_WEIGHTS = {".bin", ".h5", ".msgpack", ".onnx", ".ot", ".pt", ".safetensors"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help=f"model folder with a {WEIGHTS} in f32")
    parser.add_argument("out", type=Path, help="folder to write; must not exist")
    parser.add_argument("--layers", default="1,4", help="layers to damage, from 0 (default: %(default)s)")
    parser.add_argument("--channels", type=int, default=6, help="outliers in each (default: %(default)s)")
    parser.add_argument("--value", type=float, default=1000.0, help="their activation (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of their weights (default: %(default)s)")
    options = parser.parse_args()
    environment.enter(HERE / "requirements-hard-model.txt", HERE / ".venv-hard-model")
    import numpy
    from safetensors.numpy import load_file, save_file

    if options.out.exists():
        sys.exit(f"{options.out} exists already")
    tensors = load_file(options.model / WEIGHTS)
    random = numpy.random.default_rng(options.seed)
    for layer in options.layers.split(","):
        damage(tensors, int(layer), options, random)
    copy_others(options.model, options.out)
    save_file(tensors, options.out / WEIGHTS, {"format": "pt"})


def damage(tensors: dict, layer: int, options: argparse.Namespace, random) -> None:
    """Makes outliers of the least important neurons of one layer, in place."""
    import numpy

    pattern = re.compile(rf"(.*\.)?encoder\.layer\.{layer}\.intermediate\.dense\.weight")
    name = next((name for name in tensors if pattern.fullmatch(name)), None)
    if name is None:
        sys.exit(f"no feed-forward network of layer {layer} among the weights")
    prefix = name.removesuffix("intermediate.dense.weight")
    names = [f"{prefix}{part}.dense.{kind}" for part in ("intermediate", "output") for kind in ("weight", "bias")]
    if any(tensors[name].dtype != numpy.float32 for name in names):
        sys.exit(f"the weights of layer {layer} are not in f32")
    up, up_bias, down, down_bias = (tensors[name].copy() for name in names)
    importance = numpy.linalg.norm(up, axis=1) * numpy.linalg.norm(down, axis=0)
    outliers = numpy.sort(numpy.argsort(importance, kind="stable")[: options.channels])
    others = numpy.delete(down, outliers, axis=1)
    up[outliers] = 0.0
    up_bias[outliers] = options.value
    down[:, outliers] = random.normal(0.0, others.std(), (len(down), len(outliers)))
    spread = down[:, outliers].sum(axis=1, dtype=numpy.float64) * options.value
    down_bias = (down_bias - spread).astype(numpy.float32)
    tensors |= dict(zip(names, (up, up_bias, down, down_bias), strict=True))
    print(f"layer {layer}: neurons {', '.join(map(str, outliers))} are {options.value:g} for every token")


def copy_others(model: Path, out: Path) -> None:
    """Copies what isn't a weight of the encoder: configuration, tokenizer, the modules of a sentence-transformer."""
    out.mkdir(parents=True)
    for path in model.rglob("*"):
        place = path.relative_to(model)
        of_encoder = len(place.parts) == 1 and path.suffix in OTHER_WEIGHTS
        if path.is_file() and not of_encoder and place.parts[0] not in ("onnx", "openvino"):
            (out / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, out / place)


if __name__ == "__main__":
    main()
