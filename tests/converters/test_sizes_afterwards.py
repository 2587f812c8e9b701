"""Size ranges set after converting: the numbers of the source at every size, or refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest

import mlferry
from mlferry.errors import MlferryError, SpecError
from mlferry.models import flexible_shapes, utils
from mlferry.spec import sizes
from mlferry.spec.proto import model_pb2

Library = Callable[[str], Any]
SIDE = 16
SIZES = (16, 17, 24, 31, 32)
RNG = np.random.default_rng(3)
W = (RNG.normal(size=(4, 3, 3, 3)) * 0.2).astype(np.float32)
LINE = (RNG.normal(size=(4, 3, 3)) * 0.2).astype(np.float32)


class Net(NamedTuple):
    """Nodes from x to y, as op, inputs, outputs and attributes; whether sizes have to be taken."""

    nodes: list[tuple[str, list[str], list[str], dict[str, Any]]]
    constants: dict[str, Any] = {}
    taken: bool = True
    shape: tuple[int, ...] = (1, 3, SIDE, SIDE)
    opset: int = 17


def one(op: str, *inputs: str, **attributes: Any) -> list[tuple[str, list[str], list[str], Any]]:
    return [(op, ["x", *inputs], ["y"], attributes)]


LAST = 2**63 - 1
SHAPE_HW = [
    ("Shape", ["x"], ["s"], {}),
    ("Slice", ["s", "two", "four"], ["hw"], {}),
]
PIXELS = [*SHAPE_HW, ("ReduceProd", ["hw"], ["n"], {"keepdims": 0}),
          ("Cast", ["n"], ["f"], {"to": 1})]  # fmt: skip
ENDS = {"two": [2], "four": [4]}
CONV = ("Conv", ["x", "w"], ["c"], {"pads": [1, 1, 1, 1]})

ONNX: dict[str, Net] = {
    "slice to the end": Net(one("Slice", "a", "b", "ax"),
                            {"a": [1, 1], "b": [LAST] * 2, "ax": [2, 3]}),
    "slice from the end": Net(one("Slice", "a", "b", "ax"),
                              {"a": [-5, 2], "b": [LAST, -3], "ax": [2, 3]}),
    "slice with steps": Net(one("Slice", "a", "b", "ax", "st"),
                            {"a": [1, 0], "b": [LAST] * 2, "ax": [2, 3], "st": [2, 3]}),
    "turned around": Net(one("Slice", "a", "b", "ax", "st"),
                         {"a": [-1], "b": [-LAST], "ax": [3], "st": [-1]}),
    "the first eight": Net(one("Slice", "a", "b", "ax"), {"a": [0], "b": [8], "ax": [3]}),
    "as many as there are": Net(one("Slice", "a", "b", "ax"),
                                {"a": [0], "b": [SIDE], "ax": [3]}, taken=False),
    "half of it, computed": Net(
        [*SHAPE_HW, ("Div", ["hw", "deux"], ["half"], {}),
         ("Slice", ["x", "zero", "half", "ax"], ["y"], {})],
        {**ENDS, "deux": [2, 2], "zero": [0, 0], "ax": [2, 3]}, taken=False,
    ),
    "convolution SAME by two": Net(
        [("Conv", ["x", "w"], ["y"], {"strides": [2, 2], "auto_pad": "SAME_UPPER"})], {"w": W}),
    "convolution SAME_LOWER by three": Net(
        [("Conv", ["x", "w"], ["y"], {"strides": [3, 2], "auto_pad": "SAME_LOWER"})], {"w": W}),
    "lines SAME by two": Net(
        [("Conv", ["x", "w"], ["y"], {"strides": [2], "auto_pad": "SAME_UPPER"})], {"w": LINE},
        shape=(1, 3, SIDE)),
    "maximum SAME": Net(one("MaxPool", kernel_shape=[3, 3], strides=[2, 2],
                            auto_pad="SAME_UPPER")),
    "average SAME": Net(one("AveragePool", kernel_shape=[3, 2], strides=[2, 2],
                            auto_pad="SAME_LOWER")),
    "average SAME, all counted": Net(one("AveragePool", kernel_shape=[3, 2], strides=[2, 2],
                                         auto_pad="SAME_UPPER", count_include_pad=1)),
    "maximum, rounded up": Net(one("MaxPool", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)),
    "maximum, rounded up, padded": Net(one("MaxPool", kernel_shape=[3, 3], strides=[2, 2],
                                           pads=[1, 1, 1, 1], ceil_mode=1)),
    "maximum, rounded up, unequal": Net(
        one("MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[0, 0, 1, 1], ceil_mode=1),
        taken=False),
    "dilated maximum": Net(one("MaxPool", kernel_shape=[2, 2], dilations=[2, 2]), taken=False),
    "reflection": Net([("Pad", ["x", "p"], ["a"], {"mode": "reflect"}),
                       ("Conv", ["a", "w"], ["y"], {})],
                      {"p": [0, 0, 1, 1, 0, 0, 1, 1], "w": W}),
    "replication": Net(one("Pad", "p", mode="edge"), {"p": [0, 0, 2, 0, 0, 0, 1, 3]}),
    "reflected lines": Net(one("Pad", "p", mode="reflect"), {"p": [0, 0, 2, 0, 0, 1]},
                           shape=(1, 3, SIDE)),
    "reflected channels": Net(one("Pad", "p", mode="reflect"),
                              {"p": [0, 1, 0, 0, 0, 1, 0, 0]}),
    "cut off by negative pads": Net(one("Pad", "p"), {"p": [0, 0, -1, 0, 0, 0, -2, 1]}),
    "the last row": Net(one("Gather", "i", axis=2), {"i": -1}),
    "the first column": Net(one("Gather", "i", axis=3), {"i": 0}),
    "the last two rows": Net(one("Gather", "i", axis=2), {"i": [-2, -1]}, taken=False),
    "some rows": Net(one("Gather", "i", axis=2), {"i": [0, 3, 2]}),
    "nearest by two": Net(one("Resize", "", "f", mode="nearest",
                              coordinate_transformation_mode="asymmetric",
                              nearest_mode="floor"), {"f": np.float32([1, 1, 2, 2])}),
    "nearest by a half": Net(one("Resize", "", "f", mode="nearest",
                                 coordinate_transformation_mode="asymmetric",
                                 nearest_mode="floor"), {"f": np.float32([1, 1, 0.5, 0.5])},
                             taken=False),
    "linear by two": Net(one("Resize", "", "f", mode="linear"),
                         {"f": np.float32([1, 1, 2, 2])}, taken=False),
    "back to the input's size": Net(
        [("MaxPool", ["x"], ["a"], {"kernel_shape": [2, 2], "strides": [2, 2]}),
         ("Shape", ["x"], ["s"], {}),
         ("Resize", ["a", "", "", "s"], ["y"],
          {"mode": "nearest", "coordinate_transformation_mode": "asymmetric",
           "nearest_mode": "floor"})], taken=False),
    "expanded to the input": Net(
        [("ReduceMean", ["x"], ["m"], {"axes": [2, 3]}), ("Shape", ["x"], ["s"], {}),
         ("Expand", ["m", "s"], ["e"], {}), ("Concat", ["x", "e"], ["y"], {"axis": 1})]),
    "expanded to a size": Net(one("Expand", "s"), {"s": [2, 3, SIDE, 1]}, taken=False),
    "as many as pixels": Net([*PIXELS, ("Div", ["x", "f"], ["y"], {})], ENDS, taken=False),
    "a size added": Net(
        [*PIXELS, CONV, ("Mul", ["f", "tenth"], ["g"], {}), ("Add", ["c", "g"], ["a"], {}),
         ("Relu", ["a"], ["y"], {})],
        {**ENDS, "w": W, "tenth": np.float32(0.1)}, taken=False),
    "rows flattened by PyTorch": Net(
        [CONV, ("Shape", ["c"], ["s"], {}), ("Gather", ["s", "zero"], ["b"], {}),
         ("Unsqueeze", ["b", "zero1"], ["b1"], {}), ("Concat", ["b1", "rest"], ["t"], {"axis": 0}),
         ("Reshape", ["c", "t"], ["y"], {})],
        {"w": W, "zero": 0, "zero1": [0], "rest": [-1]}),
    "pixels in a row": Net(
        [("Shape", ["x"], ["s"], {}), ("Slice", ["s", "zero1", "two"], ["bc"], {}),
         ("Slice", ["s", "two", "four"], ["hw"], {}),
         ("ReduceProd", ["hw"], ["n"], {"keepdims": 1}),
         ("Concat", ["bc", "n"], ["t"], {"axis": 0}), ("Reshape", ["x", "t"], ["r"], {}),
         ("Softmax", ["r"], ["q"], {"axis": 2}), ("Reshape", ["q", "s"], ["y"], {})],
        {**ENDS, "zero1": [0]}),
    "rows of the input's width": Net(
        [("Shape", ["x"], ["s"], {}), ("Gather", ["s", "three"], ["w"], {}),
         ("Unsqueeze", ["w", "zero1"], ["w1"], {}), ("Concat", ["rest", "w1"], ["t"], {"axis": 0}),
         ("Reshape", ["x", "t"], ["y"], {})],
        {"three": 3, "zero1": [0], "rest": [-1]}, taken=False),
    "rows of sixteen": Net(one("Reshape", "t"), {"t": [-1, SIDE]}, taken=False),
    "groups of channels": Net(one("Reshape", "t"), {"t": [3, -1]}),
    "flattened for a matrix": Net(
        [("Flatten", ["x"], ["a"], {}), ("MatMul", ["a", "m"], ["y"], {})],
        {"m": RNG.normal(size=(3 * SIDE * SIDE, 2)).astype(np.float32)}, taken=False),
    "pooled and flattened": Net(
        [CONV, ("GlobalAveragePool", ["c"], ["g"], {}), ("Flatten", ["g"], ["y"], {})], {"w": W}),
    "the shape itself": Net([("Shape", ["x"], ["s"], {}), ("Cast", ["s"], ["y"], {"to": 1})],
                            taken=False),
    "positions": Net(
        [("Shape", ["x"], ["s"], {}), ("Gather", ["s", "three"], ["w"], {}),
         ("Range", ["zero", "w", "one"], ["r"], {}), ("Cast", ["r"], ["f"], {"to": 1}),
         ("Add", ["x", "f"], ["y"], {})],
        {"three": 3, "zero": 0, "one": 1}, taken=False),
    "depth to space and back": Net(
        [("Conv", ["x", "w"], ["c"], {"strides": [2, 2], "auto_pad": "SAME_UPPER"}),
         ("DepthToSpace", ["c"], ["y"], {"blocksize": 2})], {"w": W}),
    "split in the middle": Net([("Split", ["x"], ["y", "z"], {"axis": 3})], taken=False),
}  # fmt: skip


def onnx_model(net: Net, onnx: Any) -> Any:
    helper, values = onnx.helper, onnx.numpy_helper
    axes = [1, 3, *"hw"][: len(net.shape)]
    result = helper.make_graph(
        [helper.make_node(op, ins, outs, **more) for op, ins, outs, more in net.nodes], "g",
        [helper.make_tensor_value_info("x", 1, axes)],
        [helper.make_tensor_value_info("y", 1, None)],
        [values.from_array(np.asarray(array), name) for name, array in net.constants.items()],
    )  # fmt: skip
    return helper.make_model(
        result, opset_imports=[helper.make_opsetid("", net.opset)], ir_version=8
    )


def ranged(model: mlferry.MLModel, shape: Sequence[int], axes: Sequence[int]) -> model_pb2.Model:
    spec = model.get_spec()
    (name,) = (feature.name for feature in spec.description.input)
    upper = [max(SIZES) if axis in axes else n for axis, n in enumerate(shape)]
    flexible_shapes.set_multiarray_ndshape_range(spec, name, list(shape), upper)
    return spec


def compare(
    spec: model_pb2.Model, shape: Sequence[int], axes: Sequence[int], source: Callable[[Any], Any]
) -> None:
    """The one model at several sizes beside the source at each."""
    model = mlferry.MLModel(spec)
    (name,) = (feature.name for feature in spec.description.input)
    for size in SIZES:
        x = RNG.random([size if axis in axes else n for axis, n in enumerate(shape)], np.float32)
        expected = np.asarray(source(x))
        (actual,) = model.predict({name: x}).values()
        assert actual.shape == (expected.shape or (1,)), size
        np.testing.assert_allclose(actual, expected.reshape(actual.shape), rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("name", ONNX)
def test_onnx(name: str, library: Library) -> None:
    runtime, onnx = library("onnxruntime"), library("onnx")
    net = ONNX[name]
    source = onnx_model(net, onnx)
    session = runtime.InferenceSession(source.SerializeToString())
    kind = mlferry.TensorType("x", shape=net.shape)
    expected = [mlferry.TensorType("y")]
    converted = mlferry.convert(source, inputs=[kind], outputs=expected)
    axes = range(2, len(net.shape))
    if not net.taken:
        with pytest.raises(SpecError, match="layers do not take all of these sizes"):
            ranged(converted, net.shape, axes)
        return
    spec = ranged(converted, net.shape, axes)
    compare(spec, net.shape, axes, lambda x: session.run(["y"], {"x": x})[0])


def images(k: Any, *layers: Any) -> Callable[[Any], Any]:
    """The same layers behind one another, at whatever size."""

    def call(x: Any) -> Any:
        for layer in layers:
            x = layer(x)
        return x

    return call


def _skip(k: Any) -> Callable[[Any], Any]:
    down = k.layers.Conv2D(3, 3, padding="same", activation="relu")
    last = k.layers.Conv2D(2, 3, padding="same")

    def call(x: Any) -> Any:
        return last(k.layers.Concatenate()([x, down(x), k.layers.Add()([x, down(x)])]))

    return call


KERAS: dict[str, tuple[Callable[[Any], Callable[[Any], Any]], bool]] = {
    "convolutions SAME": (lambda k: images(
        k, k.layers.Conv2D(4, 3, strides=2, padding="same"), k.layers.MaxPooling2D(padding="same"),
        k.layers.AveragePooling2D(3, 2, padding="same")), True),
    "padded, cut and larger": (lambda k: images(
        k, k.layers.ZeroPadding2D(((1, 0), (2, 1))), k.layers.Cropping2D(((0, 1), (1, 0))),
        k.layers.UpSampling2D(2, interpolation="bilinear")), True),
    "transposed": (lambda k: images(
        k, k.layers.Conv2DTranspose(4, 3, strides=2, padding="same")), True),
    "pooled for a classifier": (lambda k: images(
        k, k.layers.SeparableConv2D(4, 3), k.layers.GlobalAveragePooling2D(),
        k.layers.Dense(3, activation="softmax")), True),
    "flattened": (lambda k: images(k, k.layers.Flatten(), k.layers.Dense(3)), False),
    "rows of pixels": (lambda k: images(
        k, k.layers.Conv2D(4, 1), k.layers.Reshape((-1, 4)), k.layers.Dense(2)), True),
    "rows of two pixels": (lambda k: images(k, k.layers.Reshape((-1, SIDE, 3))), False),
    "resized": (lambda k: images(k, k.layers.Resizing(8, 8)), False),
    "bicubic": (lambda k: images(k, k.layers.UpSampling2D(2, interpolation="bicubic")), False),
    "the middle": (lambda k: images(k, k.layers.CenterCrop(8, 8)), False),
    "skip connection": (_skip, True),
    "sliced": (lambda k: lambda x: x[:, 1:, :-1], True),
    "the last column": (lambda k: lambda x: x[:, :, -1], True),
}  # fmt: skip


@pytest.mark.parametrize("name", KERAS)
def test_keras(name: str, library: Library) -> None:
    """The layers of one model, called on inputs of each size."""
    k = library("keras")
    make, taken = KERAS[name]
    call = make(k)

    def source(height: int, width: int) -> Any:
        x = k.Input((height, width, 3))
        return k.Model(x, call(x))

    shape = (1, SIDE, SIDE, 3)
    converted = mlferry.convert(source(SIDE, SIDE))
    if not taken:
        with pytest.raises(SpecError, match="layers do not take all of these sizes"):
            ranged(converted, shape, (1, 2))
        return
    spec = ranged(converted, shape, (1, 2))
    compare(spec, shape, (1, 2), lambda x: source(*x.shape[1:3])(x))


TENSORFLOW: dict[str, tuple[Callable[[Any, Any], Any], bool]] = {
    "slices": (lambda tf, x: x[:, 1:, 2:-1] * 2.0, True),
    "rolled": (lambda tf, x: tf.roll(x, [3, -2], [1, 2]), True),
    "reflected": (lambda tf, x: tf.pad(x, [[0, 0], [1, 2], [2, 1], [0, 0]], "REFLECT"), True),
    "symmetric": (lambda tf, x: tf.pad(x, [[0, 0], [1, 2], [2, 1], [0, 0]], "SYMMETRIC"), False),
    "pixels in a row": (
        lambda tf, x: tf.reshape(x, [tf.shape(x)[0], tf.shape(x)[1] * tf.shape(x)[2], 3]), True),
    "mean by hand": (
        lambda tf, x: tf.reduce_sum(x, [1, 2]) / tf.cast(tf.shape(x)[1] * tf.shape(x)[2],
                                                        tf.float32), False),
    "twice as large": (
        lambda tf, x: tf.image.resize(x, 2 * tf.shape(x)[1:3], "nearest"), False),
    "one hot of places": (lambda tf, x: x + tf.cast(tf.range(tf.shape(x)[2]), tf.float32)[:, None],
                          False),
    "pooling SAME": (lambda tf, x: tf.nn.avg_pool2d(x, 3, 2, "SAME"), True),
    "turned around": (lambda tf, x: x[:, ::-1, ::2], True),
}  # fmt: skip


@pytest.mark.parametrize("name", TENSORFLOW)
def test_tensorflow(name: str, library: Library) -> None:
    tf = library("tensorflow")
    call, taken = TENSORFLOW[name]
    open_size = tf.TensorSpec([1, None, None, 3], tf.float32, name="x")
    source = tf.function(lambda x: call(tf, x), autograph=False).get_concrete_function(open_size)
    shape = (1, SIDE, SIDE, 3)
    converted = mlferry.convert(source, inputs=[mlferry.TensorType("x", shape=shape)])
    if not taken:
        with pytest.raises(SpecError, match="layers do not take all of these sizes"):
            ranged(converted, shape, (1, 2))
        return
    spec = ranged(converted, shape, (1, 2))
    compare(spec, shape, (1, 2), lambda x: call(tf, tf.constant(x)))


def test_the_refusal_names_what_was_computed(library: Library) -> None:
    onnx = library("onnx")
    kind = mlferry.TensorType("x", shape=(1, 3, SIDE, SIDE))
    model = mlferry.convert(onnx_model(ONNX["as many as pixels"], onnx), inputs=[kind])
    with pytest.raises(SpecError, match=r"Div .*converted for the described size alone.*RangeDim"):
        ranged(model, (1, 3, SIDE, SIDE), (2,))
    record = sizes.read(model.spec)
    assert record is not None
    assert set(record["x"]) == {-1, -2}
    assert "com.github.mlferry.sizes" not in str(model)


def test_the_record_follows_its_model(library: Library) -> None:
    """Renamed, with an image, quantized, and in parts and pipelines."""
    onnx = library("onnx")
    kind = mlferry.TensorType("x", shape=(1, 3, SIDE, SIDE))
    model = mlferry.convert(onnx_model(ONNX["a size added"], onnx), inputs=[kind])
    spec = model.get_spec()
    utils.rename_feature(spec, "x", "photo")
    image = utils.change_input_output_types(model.with_spec(spec), {"photo": "RGB"})
    small = mlferry.quantize_weights(image, 8).get_spec()
    wide = flexible_shapes.NeuralNetworkImageSizeRange((SIDE, 32), (SIDE, 32))
    with pytest.raises(SpecError, match="converted for the described size alone"):
        flexible_shapes.update_image_size_range(small, "photo", wide)
    assert not small.description.input[0].type.imageType.HasField("imageSizeRange")
    flexible_shapes.update_image_size_range(small, "photo", wide, check=False)
    assert not flexible_shapes.accepted_sizes(small).is_whole
    (inner,) = model.spec.neuralNetwork.layers[-1].input[:1]
    part = utils.extract_submodel(model, ["y"], [inner])
    with pytest.raises(SpecError, match="of which this is a part"):
        ranged(part, (1, 4, SIDE, SIDE), (2, 3))


def test_a_range_of_the_conversion_may_be_widened(library: Library) -> None:
    onnx = library("onnx")
    side = mlferry.RangeDim(SIDE, 20)
    kind = mlferry.TensorType("x", shape=(1, 3, side, side))
    net = ONNX["expanded to the input"]
    with pytest.raises(MlferryError):
        mlferry.convert(onnx_model(ONNX["maximum, rounded up, unequal"], onnx), inputs=[kind])
    model = mlferry.convert(onnx_model(ONNX["slice to the end"], onnx), inputs=[kind])
    assert ranged(model, net.shape, (2, 3)).description.input[0].type.multiArrayType.shapeRange
