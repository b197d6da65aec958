"""ONNX files small enough to commit: without what doesn't compute, and with the large tensors of a family in one file."""

from pathlib import Path

import onnx
from onnx.external_data_helper import load_external_data_for_model

# Tensors of more bytes than this leave the file.
INLINE = 128
ALIGNMENT = 16
WEIGHTS = "weights.bin"


class Pool:
    """The bytes of different tensors, each once."""

    def __init__(self):
        self.bytes = bytearray()
        self.offsets: dict[bytes, int] = {}

    def place(self, data: bytes) -> int:
        """Where `data` lies."""
        if data not in self.offsets:
            self.bytes += b"\0" * (-len(self.bytes) % ALIGNMENT)
            self.offsets[data] = len(self.bytes)
            self.bytes += data
        return self.offsets[data]


def store(model: onnx.ModelProto, path: Path, pool: Pool | None, keep_names: bool) -> None:
    """Writes the model; tensors go to the pool, or stay inside where there is none."""
    strip(model)
    if not keep_names:
        _shorten(model)
    for tensor in _initializers(model.graph):
        _bring_in(tensor)
        if pool is not None and len(tensor.raw_data) > INLINE:
            offset, length = pool.place(tensor.raw_data), len(tensor.raw_data)
            tensor.ClearField("raw_data")
            tensor.data_location = onnx.TensorProto.EXTERNAL
            for key, value in (("location", WEIGHTS), ("offset", offset), ("length", length)):
                tensor.external_data.add(key=key, value=str(value))
    path.write_bytes(model.SerializeToString(deterministic=True))
    path.chmod(0o644)


def load(path: Path) -> onnx.ModelProto:
    """The model with all of its tensors inside."""
    model = onnx.load(path, load_external_data=False)
    load_external_data_for_model(model, str(path.parent))
    return model


def strip(model: onnx.ModelProto) -> None:
    """Takes out documentation, places in the exporter's source, and shapes of values inside."""
    for field in ("doc_string", "metadata_props", "producer_version"):
        model.ClearField(field)
    for graph in _graphs(model):
        for node in graph.node:
            node.ClearField("doc_string")
            node.ClearField("metadata_props")
            for attribute in node.attribute:
                attribute.ClearField("doc_string")
                attribute.t.ClearField("doc_string") if attribute.HasField("t") else None
        graph.ClearField("doc_string")
        graph.ClearField("metadata_props")
        graph.ClearField("value_info")
        if isinstance(graph, onnx.GraphProto):
            for thing in (*graph.input, *graph.output, *graph.initializer):
                thing.ClearField("doc_string")
                thing.ClearField("metadata_props")


def _bring_in(tensor: onnx.TensorProto) -> None:
    """Typed numbers become raw bytes, so that all tensors are told apart by bytes."""
    if not tensor.HasField("raw_data") and tensor.data_type != onnx.TensorProto.STRING:
        name = tensor.name
        tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor)))
        tensor.name = name


def _graphs(model: onnx.ModelProto):
    """Every graph and function of the model, outer ones first."""
    waiting = [model.graph, *model.functions]
    while waiting:
        graph = waiting.pop()
        yield graph
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    waiting.append(attribute.g)
                waiting.extend(attribute.graphs)


def _initializers(graph: onnx.GraphProto):
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            for inner in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
                yield from _initializers(inner)


def _shorten(model: onnx.ModelProto) -> None:
    """Short names for everything that a caller doesn't see."""
    names = {"": ""} | {value.name: value.name for value in (*model.graph.input, *model.graph.output)}

    def short(name: str) -> str:
        return names.setdefault(name, f"v{len(names)}")

    for graph in _graphs(model):
        for number, node in enumerate(graph.node):
            node.name = f"{node.op_type}_{number}"
            node.input[:] = [short(name) for name in node.input]
            node.output[:] = [short(name) for name in node.output]
        if not isinstance(graph, onnx.GraphProto):
            graph.input[:] = [short(name) for name in graph.input]
            graph.output[:] = [short(name) for name in graph.output]
            continue
        for thing in (*graph.initializer, *graph.input, *graph.output):
            thing.name = short(thing.name)
        for sparse in graph.sparse_initializer:
            sparse.values.name = short(sparse.values.name)
