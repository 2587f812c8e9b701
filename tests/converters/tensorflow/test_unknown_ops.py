"""Ops that the installed TensorFlow does not know, in files and in memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlferry
from mlferry import limits
from mlferry.custom import CUSTOM_LAYERS
from mlferry.errors import ConversionError, UnsupportedOpError

RNG = np.random.default_rng(11)
IMAGE = RNG.normal(size=(1, 5, 6, 3)).astype(np.float32)
WARP = RNG.uniform(0, 4, (1, 7, 2)).astype(np.float32)


@pytest.fixture(scope="module")
def tf() -> Any:
    import tensorflow

    return tensorflow


def resampled(data: np.ndarray, warp: np.ndarray) -> np.ndarray:
    """tf.contrib.resampler: bilinear samples at (x, y), in plain loops."""
    result = np.zeros((*warp.shape[:2], data.shape[3]), np.float32)
    for b, k in np.ndindex(*warp.shape[:2]):
        x, y = warp[b, k]
        left, top = int(np.floor(x)), int(np.floor(y))
        for i in (left, left + 1):
            for j in (top, top + 1):
                if 0 <= i < data.shape[2] and 0 <= j < data.shape[1]:
                    result[b, k] += (1 - abs(x - i)) * (1 - abs(y - j)) * data[b, j, i]
    return result


class Resampler(mlferry.CustomLayer):
    def output_shapes(self, input_shapes: Any) -> Any:
        return [(*input_shapes[1][:2], input_shapes[0][3])]

    def evaluate(self, inputs: Any) -> Any:
        return [resampled(*inputs)]


class Scaled(mlferry.CustomLayer):
    """Two outputs: the input times the sum of its options, and the input plus its array."""

    def output_shapes(self, input_shapes: Any) -> Any:
        return [input_shapes[0], input_shapes[0]]

    def evaluate(self, inputs: Any) -> Any:
        factor = sum(self.parameters[f"sizes_{i}"] for i in range(3))
        assert self.parameters["mode"] == "wide"
        return [inputs[0] * factor, inputs[0] + self.weights[0].reshape(2)]


@pytest.fixture
def classes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The classes, registered while a test runs."""
    monkeypatch.setattr(CUSTOM_LAYERS, "_entries", {})
    mlferry.register_custom_layer("Resampler")(Resampler)
    mlferry.register_custom_layer("Scaled")(Scaled)


def unknown(nodes: Any, name: str, set_options: Callable[[Any], None] = lambda node: None) -> Any:
    """Make the calls of Python among nodes an op that no TensorFlow knows."""
    for node in nodes:
        if node.op == "PyFunc":
            kinds = list(node.attr["Tout"].list.type)
            node.op = name
            node.attr.clear()
            node.attr["T"].type = kinds[0]
            set_options(node)


def call(tf: Any, count: int, *inputs: Any) -> Any:
    """The place of an unknown op with so many outputs."""
    result = tf.numpy_function(lambda *x: x[:count], inputs, [tf.float32] * count, name="mid")
    return result[0] if count == 1 else result


def frozen(tf: Any, build: Callable[[], None], name: str, **options: Any) -> Any:
    graph = tf.Graph()
    with graph.as_default():
        build()
    message = graph.as_graph_def()
    unknown(message.node, name, **options)
    return message


def sampler(tf: Any) -> None:
    """A Resampler between known layers."""
    data = tf.compat.v1.placeholder(tf.float32, (1, 5, 6, 3), name="data")
    warp = tf.compat.v1.placeholder(tf.float32, (1, 7, 2), name="warp")
    tf.nn.relu(call(tf, 1, tf.nn.relu(data), warp * 0.5), name="out")


def wanted_samples() -> np.ndarray:
    return np.maximum(resampled(np.maximum(IMAGE, 0), WARP * 0.5), 0)


FUNCTIONS: dict[str, Any] = {
    "Resampler": lambda node: mlferry.CustomLayerParams("Resampler", parameters={})
}


def test_resampler_of_a_graph(tf: Any, classes: None, tmp_path: Path) -> None:
    graph = frozen(tf, lambda: sampler(tf), "Resampler")
    before = graph.SerializeToString(deterministic=True)
    path = tmp_path / "net.pb"
    path.write_bytes(before)
    for source in (graph, path):
        for asked in ({"custom_conversion_functions": FUNCTIONS}, {"add_custom_layers": True}):
            model = mlferry.convert(source, outputs=["out"], **asked)
            (actual,) = model.predict({"data": IMAGE, "warp": WARP}).values()
            np.testing.assert_allclose(actual, wanted_samples(), atol=1e-5)
    assert graph.SerializeToString(deterministic=True) == before


def test_the_lines_to_write(tf: Any) -> None:
    graph = frozen(tf, lambda: sampler(tf), "Resampler")
    with pytest.raises(UnsupportedOpError, match=r"Resampler: mid(.|\n)*def convert_Resampler"):
        mlferry.convert(graph)


@pytest.fixture(scope="module")
def saved(tf: Any, tmp_path_factory: Any) -> Path:
    """A SavedModel whose function calls another one, in which a Resampler is."""
    folder: Path = tmp_path_factory.mktemp("saved")

    class Net(tf.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            self.factor = tf.Variable(0.5)

        @tf.function
        def inner(self, data: Any, warp: Any) -> Any:
            return call(tf, 1, tf.nn.relu(data), warp * self.factor)

        @tf.function(input_signature=[tf.TensorSpec(IMAGE.shape, name="data"),
                                      tf.TensorSpec(WARP.shape, name="warp")])  # fmt: skip
        def samples(self, data: Any, warp: Any) -> Any:
            return {"out": tf.nn.relu(self.inner(data, warp))}

    net = Net()
    tf.saved_model.save(net, str(folder), signatures=net.samples)
    from tensorflow.core.protobuf import saved_model_pb2

    message = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    (graph,) = message.meta_graphs
    for function in graph.graph_def.library.function:
        unknown(function.node_def, "Resampler")
    for op in graph.meta_info_def.stripped_op_list.op:
        if op.name == "PyFunc":
            op.Clear()
            op.name = "Resampler"
            for name in ("data", "warp"):
                op.input_arg.add(name=name, type_attr="T")
            op.output_arg.add(name="output", type_attr="T")
            op.attr.add(name="T", type="type")
    (folder / "saved_model.pb").write_bytes(message.SerializeToString())
    return folder


def test_resampler_of_a_saved_model_of_tensorflow_1(tf: Any, classes: None, tmp_path: Path) -> None:
    folder, graph = tmp_path / "old", tf.Graph()
    with graph.as_default(), tf.compat.v1.Session() as session:
        sampler(tf)
        inputs = {name: graph.get_tensor_by_name(f"{name}:0") for name in ("data", "warp")}
        tf.compat.v1.saved_model.simple_save(
            session, str(folder), inputs, {"samples": graph.get_tensor_by_name("out:0")}
        )
    from tensorflow.core.protobuf import saved_model_pb2

    path = folder / "saved_model.pb"
    message = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    unknown(message.meta_graphs[0].graph_def.node, "Resampler")
    path.write_bytes(message.SerializeToString())
    model = mlferry.convert(folder, custom_conversion_functions=FUNCTIONS)
    actual = model.predict({"data": IMAGE, "warp": WARP})["samples"]
    np.testing.assert_allclose(actual, wanted_samples(), atol=1e-5)


@pytest.mark.parametrize("isolated", [True, False])
def test_resampler_of_a_saved_model(saved: Path, classes: None, isolated: bool) -> None:
    with limits.changed(isolated=isolated):
        model = mlferry.convert(saved, custom_conversion_functions=FUNCTIONS)
    actual = model.predict({"data": IMAGE, "warp": WARP})["out"]
    np.testing.assert_allclose(actual, wanted_samples(), atol=1e-5)


def scaled(tf: Any) -> Any:
    """An op with options of many kinds, a constant input and two outputs."""

    def build() -> None:
        x = tf.compat.v1.placeholder(tf.float32, (3, 2), name="x")
        wide, moved = call(tf, 2, tf.exp(x), tf.constant([5.0, 7.0], name="array"))
        tf.add(wide * 2, moved, name="out")

    def options(node: Any) -> None:
        node.attr["sizes"].list.i.extend([1, 2, 3])
        node.attr["empty"].list.SetInParent()
        node.attr["mode"].s = b"wide"
        node.attr["table"].tensor.CopyFrom(tf.make_tensor_proto([[1.5, 2.5]]))
        node.attr["extent"].shape.CopyFrom(tf.TensorShape([None, 4]).as_proto())
        node.attr["_private"].b = True

    return frozen(tf, build, "Scaled", set_options=options)


def test_options_weights_and_outputs(tf: Any, classes: None) -> None:
    seen: list[Any] = []

    def convert_scaled(node: Any) -> Any:
        seen.append(node)
        return mlferry.CustomLayerParams(
            "Scaled", parameters={**{f"sizes_{i}": n for i, n in enumerate(node.sizes)},
                                  "mode": node.mode}, weights=node.get_weights())  # fmt: skip

    model = mlferry.convert(
        scaled(tf), outputs=["out"], custom_conversion_functions={"mid": convert_scaled}
    )
    (node,) = seen
    config = node.get_config()
    assert set(config) == {"sizes", "empty", "mode", "table", "extent"}
    assert (node.sizes, node.empty, node.mode, node.extent) == ([1, 2, 3], [], "wide", [None, 4])
    np.testing.assert_array_equal(node.table, np.float32([[1.5, 2.5]]))
    x = RNG.normal(size=(3, 2)).astype(np.float32)
    right = np.exp(x) * 6 * 2 + np.exp(x) + [5, 7]
    np.testing.assert_allclose(model.predict({"x": x})["out"], right, rtol=1e-5)


def test_all_options_become_parameters(tf: Any, classes: None) -> None:
    model = mlferry.convert(scaled(tf), outputs=["out"], add_custom_layers=True)
    (layer,) = [x for x in model.get_spec().neuralNetwork.layers if x.HasField("custom")]
    told = layer.custom.parameters
    assert (told["mode"].stringValue, told["sizes_2"].intValue) == ("wide", 3)
    assert [list(w.floatValue) for w in layer.custom.weights] == [[5, 7], [1.5, 2.5]]


def test_an_output_that_only_the_user_reads(tf: Any, classes: None) -> None:
    model = mlferry.convert(scaled(tf), outputs=["mid:1"], add_custom_layers=True)
    x = RNG.normal(size=(3, 2)).astype(np.float32)
    (actual,) = model.predict({"x": x}).values()
    np.testing.assert_allclose(actual, np.exp(x) + np.float32([5, 7]), rtol=1e-5)


def follower(tf: Any, **shapes: Any) -> Any:
    """An op behind which the mean of an image's axes is taken."""

    def build() -> None:
        x = tf.compat.v1.placeholder(tf.float32, (1, 4, 5, 3), name="x")
        h = call(tf, 1, x)
        h.set_shape((1, 4, 5, 3))
        tf.reduce_mean(h, (1, 2), name="out")

    def options(node: Any) -> None:
        for shape in shapes.values():
            node.attr["_output_shapes"].list.shape.add().CopyFrom(tf.TensorShape(shape).as_proto())

    return frozen(tf, build, "Untold", set_options=options)


def test_shapes_that_are_told(tf: Any) -> None:
    def told(shapes: Any) -> Any:
        return {"Untold": lambda node: mlferry.CustomLayerParams("Untold", output_shapes=shapes)}

    with pytest.raises(ConversionError, match=r"unknown after custom layer 'mid'.*output_shapes"):
        mlferry.convert(follower(tf), add_custom_layers=True)
    for graph, asked in (
        (follower(tf), {"custom_conversion_functions": told(lambda shapes: shapes)}),
        (follower(tf), {"custom_conversion_functions": told([(1, 4, 5, 3)])}),
        (follower(tf, shape=(1, 4, 5, 3)), {"add_custom_layers": True}),
    ):
        model = mlferry.convert(graph, **asked)
        (output,) = model.get_spec().description.output
        assert list(output.type.multiArrayType.shape) == [1, 3]


def test_known_ops_in_a_row(tf: Any) -> None:
    """Types go through several ops that nobody knows."""

    def build() -> None:
        x = tf.compat.v1.placeholder(tf.int32, (4,), name="x")
        first = tf.numpy_function(lambda a: a, [x], tf.int32, name="first")
        second = tf.numpy_function(lambda a: a, [first], tf.int32, name="second")
        tf.add(second, 1, name="out")

    model = mlferry.convert(frozen(tf, build, "Passed"), add_custom_layers=True)
    kinds = [layer.WhichOneof("layer") for layer in model.get_spec().neuralNetwork.layers]
    assert kinds.count("custom") == 2


def test_outputs_in_no_order(tf: Any) -> None:
    """Two named outputs of a function, in a file that does not describe the op."""
    graph = tf.compat.v1.GraphDef()
    function = graph.library.function.add()
    function.signature.name = "f"
    function.signature.input_arg.add(name="x", type=1)
    function.signature.output_arg.add(name="y", type=1)
    function.node_def.add(name="odd", op="Odd", input=["x"])
    joined = function.node_def.add(name="sum", op="AddV2", input=["odd:b:0", "odd:a:0"])
    joined.attr["T"].type = 1
    function.ret["y"] = "sum:z:0"
    graph.node.add(name="x", op="Placeholder").attr["dtype"].type = 1
    called = graph.node.add(name="out", op="PartitionedCall", input=["x"])
    called.attr["f"].func.name = "f"
    for key in ("Tin", "Tout"):
        called.attr[key].list.type.append(1)
    with pytest.raises(ConversionError, match=r"order of the outputs a, b of Odd 'odd'"):
        mlferry.convert(graph, add_custom_layers=True)
    joined.input[1] = "odd:b:1"
    shapes = [mlferry.TensorType(name="x", shape=(2,))]
    model = mlferry.convert(graph, inputs=shapes, add_custom_layers=True)
    layers = model.get_spec().neuralNetwork.layers
    assert [layer.custom.className for layer in layers if layer.HasField("custom")] == ["Odd"]
    assert [len(layer.output) for layer in layers if layer.HasField("custom")] == [2]
