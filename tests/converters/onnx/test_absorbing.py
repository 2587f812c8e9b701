"""Constants for each channel join the convolution or product before them, where nothing else reads
its result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import mlferry
from mlferry.spec import weights
from mlferry.spec.proto import neural_network_pb2 as nn

RNG = np.random.default_rng(6)
F = TensorProto.FLOAT
Node = tuple[str, Sequence[str], str]


def floats(*shape: int) -> np.ndarray[Any, Any]:
    return np.asarray(RNG.normal(size=shape), np.float32)


@dataclass
class Row:
    """A graph, and the layer kinds that it becomes.

    Attributes:
        shape: of the input x.
        weights: of the first node, whose result is h.
        nodes: after it, which read h and make y.
        constants: that they read.
        kinds: of the network's layers.
        op: of the first node.
        outputs: of the graph.
    """

    shape: tuple[int, ...]
    weights: tuple[int, ...]
    nodes: Sequence[Node]
    constants: dict[str, tuple[int, ...]]
    kinds: Sequence[str]
    op: str = "MatMul"
    outputs: Sequence[str] = ("y",)
    attributes: dict[str, Any] = field(default_factory=dict)


PRODUCT, CONVOLUTION = ["innerProduct"], ["convolution"]
ADDED = ["innerProduct", "loadConstantND", "addBroadcastable"]
ADDED_TO_MAPS = ["convolution", "loadConstantND", "addBroadcastable"]
ROWS = {
    "a bias": Row((2, 4), (4, 6), [("Add", "hc", "y")], {"c": (6,)}, PRODUCT),
    "a bias first": Row((2, 4), (4, 6), [("Add", "ch", "y")], {"c": (1, 6)}, PRODUCT),
    "of a sequence": Row((1, 5, 4), (4, 6), [("Add", "hc", "y")], {"c": (1, 1, 6)}, PRODUCT),
    "of four axes": Row(
        (1, 2, 3, 4), (4, 6), [("Mul", "hc", "i"), ("Add", "id", "y")], {"c": (6,), "d": (1, 6)},
        ["batchedMatmul"],
    ),
    "rows of four axes": Row(
        (1, 2, 6, 4), (4, 6), [("Add", "hc", "y")], {"c": (6, 1)},
        ["batchedMatmul", "loadConstantND", "addBroadcastable"],
    ),
    "of a vector": Row(
        (4,), (4, 6), [("Add", "hc", "y")], {"c": (6,)},
        ["expandDims", "innerProduct", "squeeze", "loadConstantND", "addBroadcastable"],
    ),
    "one number": Row((2, 4), (4, 6), [("Add", "hc", "y")], {"c": ()}, PRODUCT),
    "taken away": Row((2, 4), (4, 6), [("Sub", "hc", "y")], {"c": (6,)}, PRODUCT),
    "taken from": Row(
        (2, 4), (4, 6), [("Sub", "ch", "y")], {"c": (6,)},
        ["innerProduct", "loadConstantND", "subtractBroadcastable"],
    ),
    "a factor": Row((2, 4), (4, 6), [("Mul", "hc", "y")], {"c": (6,)}, PRODUCT),
    "a factor, then a bias": Row(
        (2, 4), (4, 6), [("Mul", "hc", "i"), ("Add", "id", "y")], {"c": (6,), "d": (6,)}, PRODUCT
    ),
    "a bias, then a factor": Row(
        (2, 4), (4, 6), [("Add", "hc", "i"), ("Mul", "di", "y")], {"c": (6,), "d": ()}, PRODUCT
    ),
    "maps": Row((1, 3, 5, 6), (6, 3, 3, 3), [("Add", "hc", "y")], {"c": (6, 1, 1)}, CONVOLUTION,
                "Conv"),
    "maps and a batch": Row((2, 3, 5, 6), (6, 3, 3, 3), [("Mul", "hc", "y")], {"c": (1, 6, 1, 1)},
                            CONVOLUTION, "Conv"),
    "transposed": Row((1, 3, 5, 6), (3, 6, 3, 3), [("Mul", "hc", "y")], {"c": (6, 1, 1)},
                      CONVOLUTION, "ConvTranspose"),
    "as many columns as channels": Row((1, 3, 6, 6), (6, 3, 1, 1), [("Add", "hc", "y")],
                                       {"c": (6,)}, ADDED_TO_MAPS, "Conv"),
    "as many rows as channels": Row((1, 3, 6, 6), (6, 3, 1, 1), [("Mul", "hc", "y")],
                                    {"c": (6, 1)},
                                    ["convolution", "loadConstantND", "multiplyBroadcastable"],
                                    "Conv"),
    "as many rows as outputs": Row((6, 4), (4, 6), [("Add", "hc", "y")], {"c": (6, 1)}, ADDED),
    "more axes": Row((6, 4), (4, 6), [("Add", "hc", "y")], {"c": (1, 1, 6)},
                     ["innerProduct", "loadConstantND", "addBroadcastable"]),
    "read twice": Row((2, 4), (4, 6), [("Add", "hc", "i"), ("Mul", "ih", "y")], {"c": (6,)},
                      [*ADDED, "multiplyBroadcastable"]),
    "under another name": Row(
        (2, 4), (4, 6), [("Identity", "h", "i"), ("Add", "ic", "y")], {"c": (6,)}, PRODUCT
    ),
    "another name is read": Row(
        (2, 4), (4, 6), [("Identity", "h", "i"), ("Add", "hc", "j"), ("Mul", "ij", "y")],
        {"c": (6,)}, [*ADDED, "multiplyBroadcastable"],
    ),
    "the first name is read": Row(
        (2, 4), (4, 6), [("Identity", "h", "i"), ("Add", "ic", "j"), ("Mul", "hj", "y")],
        {"c": (6,)}, [*ADDED, "multiplyBroadcastable"],
    ),
    "another name is an output": Row(
        (2, 4), (4, 6), [("Identity", "h", "i"), ("Add", "hc", "y")], {"c": (6,)}, ADDED,
        outputs=("y", "i"),
    ),
    "an output itself": Row((2, 4), (4, 6), [("Add", "hc", "y")], {"c": (6,)}, ADDED,
                            outputs=("y", "h")),
}  # fmt: skip


def model_of(row: Row) -> onnx.ModelProto:
    first = helper.make_node(row.op, ["x", "w"], ["h"], **row.attributes)
    nodes = [helper.make_node(op, [*reads], [name]) for op, reads, name in row.nodes]
    arrays = {"w": floats(*row.weights)}
    arrays |= {name: floats(*shape) + np.float32(2) for name, shape in row.constants.items()}
    graph = helper.make_graph(
        [first, *nodes], "g", [helper.make_tensor_value_info("x", F, row.shape)],
        [helper.make_tensor_value_info(name, F, None) for name in row.outputs],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def agree(source: onnx.ModelProto, model: mlferry.MLModel, sample: dict[str, Any]) -> None:
    session = onnxruntime.InferenceSession(source.SerializeToString())
    names = [output.name for output in session.get_outputs()]
    actual = model.predict(sample)
    for name, expected in zip(names, session.run(None, sample), strict=True):
        np.testing.assert_allclose(actual[name], expected, rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("name", ROWS)
def test_what_joins(name: str) -> None:
    row = ROWS[name]
    source = model_of(row)
    model = mlferry.convert(source)
    layers = model.spec.neuralNetwork.layers
    assert [layer.WhichOneof("layer") for layer in layers] == list(row.kinds)
    agree(source, model, {"x": floats(*row.shape)})


@pytest.mark.parametrize("shape", [(4,), (2, 4), (1, 5, 4), (1, 2, 3, 4), (1, 1, 2, 3, 4)])
def test_the_weights_of_any_product_are_quantized(shape: tuple[int, ...]) -> None:
    source = model_of(Row(shape, (4, 6), [("Add", "hc", "y")], {"c": (6,)}, []))
    model = mlferry.quantize_weights(mlferry.convert(source), 8)
    (product,) = (layer for layer in model.spec.neuralNetwork.layers if _matrix(layer).ByteSize())
    assert weights.encoding(_matrix(product)) == weights.Encoding(weights.LINEAR, 8)
    x = floats(*shape)
    (expected,) = onnxruntime.InferenceSession(source.SerializeToString()).run(None, {"x": x})
    np.testing.assert_allclose(model.predict({"x": x})["y"], expected, atol=0.05)


def _matrix(layer: nn.NeuralNetworkLayer) -> nn.WeightParams:
    kind = layer.WhichOneof("layer")
    none = nn.WeightParams()
    return getattr(layer, kind).weights if kind in ("innerProduct", "batchedMatmul") else none


@pytest.mark.parametrize("branch", ["then_branch", "else_branch"])
def test_not_what_a_branch_reads(branch: str) -> None:
    """The branches of a condition read a product to which a bias is added outside."""

    def body(name: str, value: str) -> onnx.GraphProto:
        node = helper.make_node("Identity", [value], [f"of_{name}"])
        return helper.make_graph(
            [node], name, [], [helper.make_tensor_value_info(f"of_{name}", F, (2, 6))]
        )

    reads = {"then_branch": "s", "else_branch": "s", branch: "h"}
    bodies = {name: body(name, value) for name, value in reads.items()}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Add", ["h", "b"], ["s"]),
        helper.make_node("If", ["go"], ["y"], **bodies),
    ]
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("x", F, (2, 4)),
         helper.make_tensor_value_info("go", TensorProto.BOOL, (1,))],
        [helper.make_tensor_value_info(name, F, (2, 6)) for name in ("y", "s")],
        [numpy_helper.from_array(floats(4, 6), "w"), numpy_helper.from_array(floats(6) + 2, "b")],
    )  # fmt: skip
    source = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    model = mlferry.convert(source)
    for go in (True, False):
        agree(source, model, {"x": floats(2, 4), "go": np.array([go])})


@pytest.mark.parametrize("names", [("", ""), ("/fc/MatMul", "/fc/Add")])
def test_names(names: tuple[str, str]) -> None:
    """The result has the name of the node that is left out: what is compared by name is equal."""
    row = ROWS["a bias"]
    source = model_of(row)
    for node, name in zip(source.graph.node, names, strict=True):
        node.name = name
    relu = helper.make_node("Relu", ["y"], ["z"])
    source.graph.node.append(relu)
    source.graph.output[0].name = "z"
    model = mlferry.convert(source)
    (product, _) = model.spec.neuralNetwork.layers
    assert list(product.output) == [names[1] or "y"]
    source.graph.output.append(helper.make_tensor_value_info("y", F, None))
    session = onnxruntime.InferenceSession(source.SerializeToString())
    x = floats(*row.shape)
    (inside,) = session.run(["y"], {"x": x})
    actual = model.intermediate({"x": x}, [names[1] or "y"])
    np.testing.assert_allclose(next(iter(actual.values())), inside, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("key", ["Add", "/fc/Add"])
def test_not_what_a_function_of_the_users_converts(key: str) -> None:
    source = model_of(ROWS["a bias"])
    source.graph.node[1].name = "/fc/Add"

    def custom(node: Any) -> mlferry.CustomLayerParams:
        return mlferry.CustomLayerParams("Own", output_shapes=[(2, 6)])

    model = mlferry.convert(source, custom_conversion_functions={key: custom})
    kinds = [layer.WhichOneof("layer") for layer in model.spec.neuralNetwork.layers]
    assert kinds[0] == "innerProduct"
    assert kinds[-1] == "custom"


def test_many_in_a_row_take_no_longer_each() -> None:
    """Which nodes read a value is looked up, not searched for: this takes a few seconds."""
    count = 2000
    nodes, arrays, value = [], [], "x"
    for index in range(count):
        arrays.append(numpy_helper.from_array(floats(2, 2), f"w{index}"))
        nodes += [
            helper.make_node("MatMul", [value, f"w{index}"], [f"h{index}"]),
            helper.make_node("Add", [f"h{index}", "b"], [f"s{index}"]),
        ]
        value = f"s{index}"
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", F, (1, 2))],
        [helper.make_tensor_value_info(value, F, (1, 2))],
        [*arrays, numpy_helper.from_array(floats(2), "b")],
    )  # fmt: skip
    source = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    layers = mlferry.convert(source).spec.neuralNetwork.layers
    assert len(layers) == count


@pytest.mark.parametrize("number", [np.inf, -np.inf, 3e38])
@pytest.mark.parametrize("op", ["Mul", "Add"])
@pytest.mark.parametrize("target", ["neuralnetwork", "mlprogram"])
def test_numbers_out_of_range(number: float, op: str, target: str) -> None:
    """A sum times infinity is infinite; a sum of infinite products may be no number."""
    row = ROWS["a factor" if op == "Mul" else "a bias"]
    source = model_of(row)
    (constant,) = (each for each in source.graph.initializer if each.name == "c")
    constant.CopyFrom(numpy_helper.from_array(np.full(6, number, np.float32), "c"))
    options = {"compute_precision": "float32"} if target == "mlprogram" else {}
    model = mlferry.convert(source, convert_to=target, **options)
    sample = {"x": 9 * floats(*row.shape)}
    (expected,) = onnxruntime.InferenceSession(source.SerializeToString()).run(None, sample)
    np.testing.assert_allclose(model.predict(sample)["y"], expected, rtol=1e-5)
