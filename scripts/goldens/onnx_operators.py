"""Single operators of ONNX as small files, and what ONNX Runtime answers for each: crates/onnx/tests/operators.

Run it in the environment of requirements-onnx.txt. Every file computes x = ids * w - 6, [1, 5, 4], of the ids 3 1 4 1 5, then
what its name says, and yields two sums of the result, in which the sine and the cosine of its place weigh each number.
"""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

FOLDER = Path(__file__).parents[2] / "crates/onnx/tests/operators"
IDS = np.array([[3, 1, 4, 1, 5]], np.int64)
W = np.array([0.5, 1.25, -2.0, 3.0], np.float32)
MS = "com.microsoft"


def ints(*values):
    return np.array(values, np.int64)


def floats(*values):
    return np.array(values, np.float32)


rng = np.random.default_rng(3)
MATRIX = rng.standard_normal((4, 6)).astype(np.float32)

# name: (opset, operator, operands besides x, attributes)
CASES = {
    "softmax_11": (11, "Softmax", [], {"axis": 1}),
    "softmax_13_axis": (13, "Softmax", [], {"axis": 1}),
    "log_softmax": (13, "LogSoftmax", [], {}),
    "reduce_sum_11": (11, "ReduceSum", [], {"axes": [2], "keepdims": 0}),
    "reduce_sum_13": (13, "ReduceSum", [ints(-1)], {"keepdims": 0}),
    "reduce_min": (18, "ReduceMin", [ints(2)], {}),
    "reduce_max": (18, "ReduceMax", [ints(2)], {"keepdims": 0}),
    "reduce_l1": (18, "ReduceL1", [ints(2)], {}),
    "reduce_l2": (13, "ReduceL2", [], {"axes": [-1]}),
    "reduce_log_sum_exp": (18, "ReduceLogSumExp", [ints(2)], {"keepdims": 0}),
    "reduce_sum_square": (18, "ReduceSumSquare", [ints(2)], {}),
    "arg_max": (13, "ArgMax", [], {"axis": 2, "keepdims": 0}),
    "arg_min": (13, "ArgMin", [], {"axis": 2, "keepdims": 0}),
    "arg_max_last": (13, "ArgMax", [], {"axis": 1, "select_last_index": 1}),
    "squeeze_unsqueeze_11": (11, "Unsqueeze", [], {"axes": [0, 4]}),
    "slice_steps": (13, "Slice", [ints(-1), ints(-9223372036854775807), ints(2), ints(-2)], {}),
    "slice_backwards": (13, "Slice", [ints(-1), ints(-9223372036854775807), ints(1), ints(-1)], {}),
    "pad": (13, "Pad", [ints(0, 0, 1, 0, 0, 2), floats(7).reshape(())], {}),
    "cum_sum": (14, "CumSum", [ints(1).reshape(())], {}),
    "cum_sum_reverse": (14, "CumSum", [ints(1).reshape(())], {"reverse": 1}),
    "cum_sum_exclusive": (14, "CumSum", [ints(1).reshape(())], {"exclusive": 1}),
    "cum_sum_both": (14, "CumSum", [ints(1).reshape(())], {"exclusive": 1, "reverse": 1}),
    "trilu_upper": (14, "Trilu", [ints(1).reshape(())], {"upper": 1}),
    "trilu_lower": (14, "Trilu", [ints(-1).reshape(())], {"upper": 0}),
    "gather_negative": (13, "Gather", [ints(-1, 0)], {"axis": 1}),
    "gather_nd": (13, "GatherND", [np.array([[[1, 0], [4, 3]]], np.int64)], {"batch_dims": 1}),
    "scatter_nd": (16, "ScatterND", [np.array([[0, 1], [0, 3], [0, 1]], np.int64), np.arange(12, dtype=np.float32).reshape(3, 4)], {}),
    "tile": (13, "Tile", [ints(1, 2, 3)], {}),
    "expand": (13, "Expand", [ints(3, 1, 1, 1)], {}),
    "reshape_zero": (13, "Reshape", [ints(0, -1, 2)], {}),
    "flatten": (13, "Flatten", [], {"axis": 2}),
    "transpose": (13, "Transpose", [], {"perm": [0, 2, 1]}),
    "mod_float": (13, "Mod", [floats(2.5)], {"fmod": 1}),
    "pow": (15, "Pow", [floats(2)], {}),
    "clip": (13, "Clip", [floats(-3).reshape(()), floats(4).reshape(())], {}),
    "leaky_relu": (16, "LeakyRelu", [], {"alpha": 0.1}),
    "elu": (6, "Elu", [], {"alpha": 0.7}),
    "softplus": (13, "Softplus", [], {}),
    "hard_sigmoid": (13, "HardSigmoid", [], {}),
    "gelu_tanh": (20, "Gelu", [], {"approximate": "tanh"}),
    "round": (13, "Round", [], {}),
    "sign": (13, "Sign", [], {}),
    "layer_norm": (17, "LayerNormalization", [floats(1, 2, 3, 4), floats(0.5, 0, -1, 2)], {"epsilon": 1e-3}),
    "gemm_free": (13, "MatMul", [MATRIX], {}),
    "einsum": (13, "Einsum", [MATRIX], {"equation": "bsk,kn->bns"}),
    "lp_normalization": (13, "LpNormalization", [], {"axis": 2}),
    "bias_gelu": (17, "BiasGelu", [floats(1, 2, 3, 4)], {}, MS),
    "fast_gelu": (17, "FastGelu", [], {}, MS),
    "quick_gelu": (17, "QuickGelu", [], {"alpha": 1.5}, MS),
    "fused_matmul": (17, "FusedMatMul", [MATRIX.T.copy()], {"transB": 1, "alpha": 0.5}, MS),
}


def write(name, opset, operator, operands, attributes, domain=""):
    nodes = [
        helper.make_node("Cast", ["input_ids"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["f"], ["u"], axes=[2]) if opset < 13 else helper.make_node("Unsqueeze", ["f", "last"], ["u"]),
        helper.make_node("Mul", ["u", "w"], ["m"]),
        helper.make_node("Sub", ["m", "six"], ["x"]),
        helper.make_node(operator, ["x"] + [f"o{index}" for index in range(len(operands))], ["y"], domain=domain, **attributes),
        helper.make_node("Cast", ["y"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Shape", ["input_ids"], ["shape"]),
        helper.make_node("Gather", ["shape", "first"], ["batch"]),
        helper.make_node("Concat", ["batch", "rest"], ["rows"], axis=0),
        helper.make_node("Reshape", ["numbers", "rows"], ["row"]),
        helper.make_node("Shape", ["row"], ["row_shape"]),
        helper.make_node("Gather", ["row_shape", "second"], ["count"]),
        helper.make_node("Range", ["zero", "count", "one"], ["places"]),
        helper.make_node("Cast", ["places"], ["angles"], to=TensorProto.FLOAT),
        helper.make_node("Sin", ["angles"], ["sines"]),
        helper.make_node("Cos", ["angles"], ["cosines"]),
        helper.make_node("Mul", ["row", "sines"], ["a"]),
        helper.make_node("Mul", ["row", "cosines"], ["b"]),
        helper.make_node("CumSum", ["a", "axis"], ["a_sums"]),
        helper.make_node("CumSum", ["b", "axis"], ["b_sums"]),
        helper.make_node("Gather", ["a_sums", "end"], ["a_sum"], axis=1),
        helper.make_node("Gather", ["b_sums", "end"], ["b_sum"], axis=1),
        helper.make_node("Concat", ["a_sum", "b_sum"], ["out"], axis=1),
    ]
    places = {"first": ints(0), "rest": ints(-1), "second": ints(1).reshape(()), "end": ints(-1), "axis": ints(1).reshape(())}
    numbers = {"zero": ints(0).reshape(()), "one": ints(1).reshape(())}
    constants = {"w": W, "six": floats(6)} | places | numbers | {f"o{index}": value for index, value in enumerate(operands)}
    if opset >= 13:
        constants["last"] = ints(2)
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "sequence"])
    graph = helper.make_graph(
        nodes,
        name,
        [ids],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, key) for key, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", max(opset, 11)), helper.make_opsetid(MS, 1)]
    model = helper.make_model(graph, opset_imports=opsets)
    model.ir_version = 8
    answer = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"input_ids": IDS})[0]
    (FOLDER / f"{name}.onnx").write_bytes(model.SerializeToString())
    return f"{name} {' '.join(f'{value:.8g}' for value in answer.ravel())}"


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    lines = [write(name, *case) for name, case in CASES.items()]
    (FOLDER / "expected.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
