"""Inputs of several sizes: the classic functions, and what the layers really take."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlferry
from mlferry.errors import SpecError
from mlferry.layers import versions
from mlferry.layers.builder import Builder
from mlferry.layers.flexible import _series
from mlferry.layers.validate import validate
from mlferry.models import flexible_shapes as flexible, utils
from mlferry.spec import features
from mlferry.spec.proto import model_pb2, neural_network_pb2 as nn


def finish(builder: Builder, name: str = "y") -> model_pb2.Model:
    builder.output(name)
    spec = builder.model()
    del spec.description.output[0].type.multiArrayType.shape[:]
    return spec


def image_network(size: int = 64) -> Builder:
    builder = Builder()
    builder.input("image", (1, 3, size, size), features.image(size, size, "RGB"))
    return builder


def convolution(builder: Builder, name: str, x: str, y: str, inputs: int, **params: Any) -> None:
    weights = np.ones((4, inputs, 3, 3), np.float32)
    sample: dict[str, Any] = {"kernelSize": [3, 3], "same": {}, "weights": weights} | params
    builder.layer("convolution", name, [x], [y], outputChannels=4, kernelChannels=inputs, **sample)


def any_size() -> model_pb2.Model:
    builder = image_network()
    convolution(builder, "conv", "image", "y", 3)
    return finish(builder)


def at_least_five() -> model_pb2.Model:
    """Two convolutions without padding need 5 pixels."""
    builder = image_network()
    convolution(builder, "first", "image", "a", 3, same=None, valid={})
    convolution(builder, "second", "a", "y", 4, same=None, valid={})
    return finish(builder)


def multiples_of_four() -> model_pb2.Model:
    """Down twice and up by 4 again, joined with the input: as in a U-Net."""
    builder = image_network()
    convolution(builder, "in", "image", "a", 3)
    convolution(builder, "half", "a", "b", 4, stride=[2, 2])
    convolution(builder, "quarter", "b", "c", 4, stride=[2, 2])
    builder.layer("upsample", "up", ["c"], ["d"], scalingFactor=[4, 4])
    builder.layer("concatND", "join", ["a", "d"], ["y"], axis=1)
    return finish(builder)


def one_size() -> model_pb2.Model:
    """A fixed number of values enters the inner product."""
    builder = image_network(8)
    builder.layer("reshapeStatic", "flat", ["image"], ["a"], targetShape=[1, 192])
    builder.layer("innerProduct", "ip", ["a"], ["y"], inputChannels=192, outputChannels=2,
                  weights=np.ones((2, 192), np.float32))  # fmt: skip
    return finish(builder)


def square() -> model_pb2.Model:
    """Height and width are multiplied with each other."""
    builder = image_network(8)
    builder.layer("transpose", "turn", ["image"], ["a"], axes=[0, 1, 3, 2])
    builder.layer("addBroadcastable", "sum", ["image", "a"], ["y"])
    return finish(builder)


RANGES: list[tuple[Callable[[], model_pb2.Model], tuple[int, int], str]] = [
    (any_size, (1, 200), ""),
    (any_size, (32, -1), ""),
    (at_least_five, (5, 100), ""),
    (at_least_five, (1, 100), "take 5 to 100; 1 is refused by convolution 'first'"),
    (at_least_five, (1, -1), "take 5 to "),
    (multiples_of_four, (30, 130), "take multiples of 4, 32 to 128; 30 is refused by concatND"),
    (one_size, (4, 12), "take 8; 4 is refused by reshapeStatic 'flat'"),
    (square, (1, 8), ""),
]


# Layers that take other sizes than the described one, though a number in them may stand for it.
# Nothing is known of who wrote the network: kind, parameters, and whether it is refused.
def _row(kind: str, refused: str, *, before: str = "", **params: Any) -> Any:
    return pytest.param(kind, refused, before, params, id=f"{kind} {refused or 'taken'}")


CUT = {"strides": [1, 1, 1, 1], "beginIds": [0, 0, 0, 0]}
BOUND = [
    _row("gather", "constant indices", before="places", axis=2),
    _row("gather", "", before="places", axis=1),
    _row("gatherND", "", before="points"),
    _row("sliceStatic", "ends at the fixed entry 8", **CUT, beginMasks=[1, 1, 1, 1],
         endIds=[0, 0, 8, 0], endMasks=[1, 1, 0, 1]),
    _row("sliceStatic", "takes the fixed entry 7", strides=[1] * 4, beginIds=[0, 0, 0, 7],
         beginMasks=[1, 1, 1, 0], endIds=[0] * 4, endMasks=[1] * 4, squeezeMasks=[0, 0, 0, 1]),
    _row("sliceStatic", "", strides=[1, 1, 2, -1], beginIds=[0, 0, 1, 0],
         beginMasks=[1, 1, 0, 1], endIds=[0, 0, -1, 0], endMasks=[1, 1, 0, 1]),
    _row("slice", "ends at the fixed entry 6", startIndex=1, endIndex=6, stride=1,
         axis="WIDTH_AXIS"),
    _row("slice", "", startIndex=1, endIndex=-1, stride=1, axis="HEIGHT_AXIS"),
    _row("reshapeStatic", "target shape", targetShape=[-1, 8]),
    _row("reshapeStatic", "", targetShape=[3, -1]),
    _row("rankPreservingReshape", "target shape", targetShape=[1, 3, -1, 8]),
    _row("rankPreservingReshape", "", targetShape=[0, 0, -1, 1]),
    _row("resizeBilinear", "fixed size (4, 4)", targetSize=[4, 4]),
    _row("upsample", "", scalingFactor=[2, 2]),
    _row("crop", "", cropAmounts={"borderAmounts": [{"startEdgeSize": 1}, {"endEdgeSize": 2}]}),
    _row("constantPad", "pads to a fixed size", padAmounts=[0, 0, 0, 0, 0, 12, 0, 12],
         padToGivenOutputSizeMode=True),
    _row("constantPad", "", padAmounts=[0, 0, 0, 0, 1, 2, 0, 1]),
    _row("convolution", "fixed size (16, 16)", isDeconvolution=True, outputShape=[16, 16],
         kernelSize=[2, 2], stride=[2, 2], outputChannels=3, kernelChannels=3, valid={},
         weights=np.ones((3, 3, 2, 2), np.float32)),
    _row("padding", "", reflection={}, paddingAmounts={
        "borderAmounts": [{"startEdgeSize": 1, "endEdgeSize": 2}, {}]}),
]  # fmt: skip
INDICES = {"places": np.float32([0, 2, 1]), "points": np.float32([[0, 1], [0, 2]])}


@pytest.mark.parametrize(("kind", "refused", "before", "params"), BOUND)
def test_layers_that_may_stand_for_one_size(
    kind: str, refused: str, before: str, params: dict[str, Any]
) -> None:
    builder = Builder()
    builder.input("x", (1, 3, 8, 8))
    builder.layer("activation", "relu", ["x"], ["a"], ReLU={})
    inputs = ["a"]
    if before:
        array = INDICES[before]
        builder.layer("loadConstantND", "load", [], ["i"], shape=array.shape, data=array)
        builder.layer("copy", "indices", ["i"], ["j"])
        inputs.append("j")
    builder.layer(kind, "it", inputs, ["y"], **params)
    spec = finish(builder)
    unchanged = spec.SerializeToString(deterministic=True)
    if refused:
        with pytest.raises(SpecError, match=rf"refused by {kind} 'it': .*{re.escape(refused)}"):
            flexible.set_multiarray_ndshape_range(spec, "x", [1, 3, 8, 8], [1, 3, 12, 12])
        assert spec.SerializeToString(deterministic=True) == unchanged
        return
    flexible.set_multiarray_ndshape_range(spec, "x", [1, 3, 8, 8], [1, 3, 12, 12])
    x = np.random.default_rng(0).normal(size=(1, 3, 11, 12)).astype(np.float32)
    assert mlferry.MLModel(spec).predict({"x": x})["y"].size


def test_a_loop_of_so_many_rounds_may_stand_for_a_size() -> None:
    builder = Builder()
    builder.input("x", (8, 2))
    builder.layer("copy", "start", ["x"], ["y"])
    loop = builder.layer("loop", "again", [], [], maxLoopIterations=8).loop
    loop.bodyNetwork.arrayInputShapeMapping = nn.EXACT_ARRAY_MAPPING
    inner = loop.bodyNetwork.layers.add(name="more", input=["y"], output=["y"])
    inner.activation.linear.alpha = 2
    with pytest.raises(SpecError, match="loop 'again': it makes 8 rounds"):
        flexible.set_multiarray_ndshape_range(finish(builder), "x", [8, 2], [9, 2])


# ---- pipelines --------------------------------------------------------------------------------


def step(inputs: str, result: str, *, image: bool = False, pooled: bool = False) -> mlferry.MLModel:
    builder = Builder()
    kind = features.image(16, 16, "RGB") if image else None
    builder.input(inputs, (1, 3, 16, 16), kind)
    if pooled:
        builder.layer("pooling", result, [inputs], [result], type="AVERAGE", globalPooling=True,
                      valid={})  # fmt: skip
    else:
        builder.layer("activation", f"to {result}", [inputs], [result], linear={"alpha": 2})
    builder.output(result)
    return mlferry.MLModel(builder.model())


def scores() -> mlferry.MLModel:
    """[1, 3, 1, 1] to its square."""
    builder = Builder()
    builder.input("pooled", (1, 3, 1, 1))
    builder.layer("multiplyBroadcastable", "square", ["pooled", "pooled"], ["score"])
    builder.output("score")
    return mlferry.MLModel(builder.model())


WIDE = flexible.NeuralNetworkImageSizeRange((16, 32), (16, 32))


def test_pipelines_are_changed_through_their_models() -> None:
    pipeline = utils.make_pipeline(step("image", "pooled", image=True, pooled=True), scores())
    spec = pipeline.get_spec()
    flexible.update_image_size_range(spec, "image", WIDE)
    assert not [p for p in validate(spec) if p.severity != "note"]
    assert flexible.accepted_sizes(spec).is_whole
    for size in (16, 25, 32):
        pixels = np.random.default_rng(size).integers(0, 256, (size, 20, 3)).astype(np.uint8)
        actual = mlferry.MLModel(spec).predict({"image": pixels})["score"]
        np.testing.assert_allclose(actual.ravel(), pixels.mean((0, 1)) ** 2, rtol=1e-4)


@pytest.mark.parametrize(
    ("models", "message"),
    [
        (lambda: [step("image", "mid", image=True), step("mid", "out")],
         r"'mid'.* has one shape, and varies with the size of 'image'.*\n.*'model_2'"),
        (lambda: [two_values(), mlferry.MLModel(taking_y())],
         r"reshapeStatic 'flat'.*(?s:.*)model 'model_1' of the pipeline"),
    ],
)  # fmt: skip
def test_pipelines_whose_models_take_one_size(models: Any, message: str) -> None:
    spec = utils.make_pipeline(*models()).get_spec()
    before = spec.SerializeToString(deterministic=True)
    bounds = (8, 32)
    with pytest.raises(SpecError, match=message):
        flexible.update_image_size_range(
            spec, "image", flexible.NeuralNetworkImageSizeRange(bounds, bounds)
        )
    assert spec.SerializeToString(deterministic=True) == before


def two_values() -> mlferry.MLModel:
    spec = one_size()
    spec.description.output[0].type.multiArrayType.shape[:] = [1, 2]
    return mlferry.MLModel(spec)


def taking_y() -> model_pb2.Model:
    builder = Builder()
    builder.input("y", (1, 2))
    builder.layer("softmaxND", "soft", ["y"], ["p"], axis=-1)
    return finish(builder, "p")


@pytest.mark.parametrize(("make", "bounds", "refused"), RANGES)
def test_ranges_are_checked(make: Any, bounds: tuple[int, int], refused: str) -> None:
    spec = make()
    before = spec.SerializeToString(deterministic=True)
    expected = flexible.NeuralNetworkImageSizeRange(bounds, bounds)
    if not refused:
        flexible.update_image_size_range(spec, "image", expected)
        size = spec.description.input[0].type.imageType.imageSizeRange
        assert (size.heightRange.lowerBound, size.widthRange.upperBound) == bounds
        assert not [p for p in validate(spec) if p.severity != "note"]
        return
    with pytest.raises(SpecError) as caught:
        flexible.update_image_size_range(spec, "image", expected)
    assert refused in str(caught.value)
    assert "height" in str(caught.value)
    assert spec.SerializeToString(deterministic=True) == before
    flexible.update_image_size_range(spec, "image", expected, check=False)
    assert spec.description.input[0].type.imageType.HasField("imageSizeRange")


@pytest.mark.parametrize("make", [at_least_five, multiples_of_four, one_size, any_size])
def test_what_is_said_is_what_runs(make: Any) -> None:
    """The runtime, which knows nothing of the search, takes what is accepted and no other."""
    spec = make()
    wide = flexible.NeuralNetworkImageSizeRange((1, 70), (1, 70))
    flexible.update_image_size_range(spec, "image", wide, check=False)
    height, _ = flexible.accepted_sizes(spec).axes
    model = mlferry.MLModel(spec)
    width = spec.description.input[0].type.imageType.width
    for size in (1, 3, 4, 5, 8, 31, 32, 33, 62, 64, 70):
        picture = np.zeros((size, width, 3), np.uint8)
        try:
            model.predict({"image": picture})
            runs = True
        except mlferry.MlferryError:
            runs = False
        assert runs == (size in height.accepted), size


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([], "none of it"),
        ([5], "5"),
        ([5, 6, 7], "5 to 7"),
        ([4, 8, 12], "multiples of 4, 4 to 12"),
        ([5, 8, 11], "5, 8, ... 11, in steps of 3"),
        ([1, 2, 3, 9, 12, 13], "1 to 3, 9, 12 to 13"),
        ([1, 4, 6, 9, 11, 14, 16], "1, 4, 6, 9, 11, 14, ..."),
    ],
)
def test_series_of_sizes_for_people(values: list[int], text: str) -> None:
    assert _series(values) == text


def test_what_was_tried_is_told() -> None:
    spec = at_least_five()
    for bounds, told in (((5, 100), "5..100: the"), ((5, -1), "5.. (tried: 5 to 68): the"),
                         ((5, 200), "5..200 (tried: 5 to 68, 200): the")):  # fmt: skip
        expected = flexible.NeuralNetworkImageSizeRange(bounds, (64, 64))
        flexible.update_image_size_range(spec, "image", expected)
        most = 64 if bounds[1] != 100 else 1024
        assert f"height {told} layers take all of it" in str(
            flexible.accepted_sizes(spec, most=most)
        )


def test_sizes_that_must_be_alike_are_told() -> None:
    spec = square()
    flexible.update_image_size_range(
        spec, "image", flexible.NeuralNetworkImageSizeRange((2, 8), (2, 8)), check=False
    )
    actual = flexible.accepted_sizes(spec)
    assert all(axis.together and axis.is_whole for axis in actual.axes)


def test_lists_are_checked() -> None:
    size = flexible.NeuralNetworkImageSize
    spec = multiples_of_four()
    flexible.add_enumerated_image_sizes(spec, "image", [size(32, 32), size(128, 64)])
    sizes = spec.description.input[0].type.imageType.enumeratedSizes.sizes
    assert [(s.height, s.width) for s in sizes] == [(64, 64), (32, 32), (128, 64)]
    flexible.add_enumerated_image_sizes(spec, "image", size(32, 32))
    assert len(sizes) == 3
    with pytest.raises(SpecError, match=r"\(33, 32\) is refused by concatND 'join'"):
        flexible.add_enumerated_image_sizes(spec, "image", [size(33, 32)])
    assert len(spec.description.input[0].type.imageType.enumeratedSizes.sizes) == 3


def array_network() -> model_pb2.Model:
    builder = Builder()
    builder.input("x", (1, 8, 4))
    builder.layer("innerProduct", "ip", ["x"], ["y"], inputChannels=4, outputChannels=2,
                  weights=np.ones((2, 4), np.float32))  # fmt: skip
    return finish(builder)


def test_multi_arrays_of_any_rank() -> None:
    spec = array_network()
    flexible.set_multiarray_ndshape_range(spec, "x", [1, 1, 4], [1, -1, 4])
    bounds = spec.description.input[0].type.multiArrayType.shapeRange.sizeRanges
    assert [(b.lowerBound, b.upperBound) for b in bounds] == [(1, 1), (1, -1), (4, 4)]
    with pytest.raises(SpecError, match=r"axis 2 3\.\.5: the layers take 4; 3 is refused"):
        flexible.set_multiarray_ndshape_range(spec, "x", [1, 1, 3], [1, 9, 5])
    spec = array_network()
    flexible.add_multiarray_ndshape_enumeration(spec, "x", [(1, 3, 4), (2, 2, 4)])
    shapes = spec.description.input[0].type.multiArrayType.enumeratedShapes.shapes
    assert [tuple(s.shape) for s in shapes] == [(1, 8, 4), (1, 3, 4), (2, 2, 4)]
    with pytest.raises(SpecError, match="refused by innerProduct"):
        flexible.add_multiarray_ndshape_enumeration(spec, "x", [(1, 3, 5)])


def classic() -> model_pb2.Model:
    """The classic mapping: [C, H, W]."""
    spec = model_pb2.Model(specificationVersion=1)
    feature = spec.description.input.add(name="x")
    feature.type.CopyFrom(features.multi_array((3, 16, 16), "float64"))
    output = spec.description.output.add(name="y")
    output.type.CopyFrom(features.multi_array(None, "float64"))
    layer = spec.neuralNetwork.layers.add(name="pool", input=["x"], output=["y"])
    layer.pooling.kernelSize.extend([2, 2])
    layer.pooling.stride.extend([2, 2])
    layer.pooling.valid.SetInParent()
    assert spec.neuralNetwork.arrayInputShapeMapping == nn.RANK5_ARRAY_MAPPING
    return spec


def test_classic_multi_arrays() -> None:
    spec = classic()
    expected = flexible.NeuralNetworkMultiArrayShapeRange({"C": (3, 3), "H": (2, 20)})
    expected.add_width_range((2, -1))
    flexible.update_multiarray_shape_range(spec, "x", expected)
    assert spec.specificationVersion == 3
    bounds = spec.description.input[0].type.multiArrayType.shapeRange.sizeRanges
    assert [(b.lowerBound, b.upperBound) for b in bounds] == [(3, 3), (2, 20), (2, -1)]
    spec = classic()
    with pytest.raises(SpecError, match="take 2 to 20; 1 is refused by pooling"):
        flexible.update_multiarray_shape_range(
            spec, "x", flexible.NeuralNetworkMultiArrayShapeRange(
                {"C": (3, 3), "H": (1, 20), "W": (16, 16)}
            )
        )  # fmt: skip
    shape = flexible.NeuralNetworkMultiArrayShape(3)
    shape.set_height_shape(10)
    shape.set_width_shape(12)
    flexible.add_enumerated_multiarray_shapes(spec, "x", shape)
    shapes = spec.description.input[0].type.multiArrayType.enumeratedShapes.shapes
    assert [tuple(s.shape) for s in shapes] == [(3, 16, 16), (3, 10, 12)]


def test_custom_layers_are_asked_or_named() -> None:
    builder = image_network(8)
    builder.layer("custom", "odd", ["image"], ["a"], className="FlexOdd",
                  output_shapes=[(1, 3, 8, 8)])  # fmt: skip
    builder.layer("reshapeStatic", "flat", ["a"], ["y"], targetShape=[1, 192])
    spec = finish(builder)
    expected = flexible.NeuralNetworkImageSizeRange((8, 9), (8, 8))
    flexible.update_image_size_range(spec, "image", expected)
    assert flexible.accepted_sizes(spec).opaque == ["odd"]
    assert "not checked behind custom layers: odd" in str(flexible.accepted_sizes(spec))

    class FlexOdd(mlferry.CustomLayer):
        pass

    model = mlferry.MLModel(spec, custom_layers={"FlexOdd": FlexOdd})
    actual = flexible.accepted_sizes(model)
    assert (actual.opaque, actual.axes[0].accepted) == ([], [8])


def test_outputs_that_vary_are_named() -> None:
    spec = any_size()
    spec.description.output[0].type.multiArrayType.shape.extend([1, 4, 64, 64])
    expected = flexible.NeuralNetworkImageSizeRange((32, 64), (64, 96))
    flexible.update_image_size_range(spec, "image", expected)
    assert flexible.accepted_sizes(spec).varying == ["y"]
    flexible.set_multiarray_ndshape_range(spec, "y", [1, 4, 32, 64], [1, 4, 64, 96])
    assert flexible.accepted_sizes(spec).varying == []


Range = flexible.NeuralNetworkImageSizeRange
WRONG: list[tuple[str, Callable[[model_pb2.Model], None]]] = [
    ("no input or output 'imag'. Did you mean 'image'",
     lambda s: flexible.update_image_size_range(s, "imag", Range((1, 2), (1, 2)))),
    ("lowerBound > upperBound",
     lambda s: flexible.update_image_size_range(s, "image", Range((9, 2), (1, 2)))),
    ("integers above 0",
     lambda s: flexible.update_image_size_range(s, "image", Range((0, 2), (1, 2)))),
    ("a range is (lower, upper)",
     lambda s: flexible.update_image_size_range(s, "image", Range((1, 2)))),
    ("outside of the range",
     lambda s: flexible.update_image_size_range(s, "image", Range((1, 2), (1, 2)))),
    ("non-multiArray", lambda s: flexible.set_multiarray_ndshape_range(s, "image", [1], [2])),
    ("non-image", lambda s: flexible.add_enumerated_image_sizes(
        s, "y", flexible.NeuralNetworkImageSize(1, 1))),
    ("1 lower and 2 upper", lambda s: flexible.set_multiarray_ndshape_range(s, "y", [1], [2, 3])),
    ("enumerated_shapes is empty",
     lambda s: flexible.add_multiarray_ndshape_enumeration(s, "y", [])),
    ("shape must be of length 1 or 3", lambda s: flexible.add_enumerated_multiarray_shapes(
        s, "y", flexible.NeuralNetworkMultiArrayShape(1, 2))),
    ("C, or C, H and W", lambda s: flexible.update_multiarray_shape_range(
        s, "y", flexible.NeuralNetworkMultiArrayShapeRange({"H": (1, 2)}))),
    ("is None", lambda s: flexible.add_enumerated_image_sizes(
        s, "image", flexible.NeuralNetworkImageSize(3))),
]  # fmt: skip


@pytest.mark.parametrize(("message", "call"), WRONG, ids=[row[0] for row in WRONG])
def test_wrong_calls_change_nothing(message: str, call: Callable[[model_pb2.Model], None]) -> None:
    spec = any_size()
    before = spec.SerializeToString(deterministic=True)
    with pytest.raises(SpecError) as caught:
        call(spec)
    assert message in str(caught.value)
    assert spec.SerializeToString(deterministic=True) == before


def theirs(library: Any, function: str, spec: model_pb2.Model, *arguments: Any) -> bytes:
    """What coremltools makes of a specification."""
    tools = library("coremltools")
    utils = library("coremltools.models.neural_network.flexible_shape_utils")
    other = tools.proto.Model_pb2.Model()
    other.ParseFromString(spec.SerializeToString())
    result = [a(utils) if callable(a) else a for a in arguments]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        getattr(utils, function)(other, *result)
    return bytes(other.SerializeToString(deterministic=True))


SAME: list[tuple[str, Callable[[], model_pb2.Model], list[Any]]] = [
    ("update_image_size_range", any_size,
     ["image", lambda u: u.NeuralNetworkImageSizeRange((32, 80), (64, -1))]),
    ("set_multiarray_ndshape_range", array_network, ["x", [1, 1, 4], [1, -1, 4]]),
    ("add_enumerated_image_sizes", any_size,
     ["image", lambda u: [u.NeuralNetworkImageSize(32, 48)]]),
    ("add_multiarray_ndshape_enumeration", array_network, ["x", [(1, 3, 4)]]),
    ("update_multiarray_shape_range", classic,
     ["x", lambda u: u.NeuralNetworkMultiArrayShapeRange(
         {"C": (3, 3), "H": (2, 20), "W": (2, 20)})]),
]  # fmt: skip


@pytest.mark.parametrize(("function", "make", "arguments"), SAME, ids=[row[0] for row in SAME])
def test_writes_what_coremltools_writes(
    library: Any, function: str, make: Any, arguments: list[Any]
) -> None:
    spec = make()
    expected = theirs(library, function, spec, *arguments)
    getattr(flexible, function)(spec, *[a(flexible) if callable(a) else a for a in arguments])
    spec.specificationVersion = max(spec.specificationVersion, versions.required(spec))
    other = model_pb2.Model()
    other.ParseFromString(expected)
    other.specificationVersion = spec.specificationVersion
    for each in (spec, other):  # coremltools puts the described size last
        sizes = each.description.input[0].type.imageType.enumeratedSizes.sizes
        sizes.sort(key=lambda size: (size.height, size.width))
    assert spec == other


def test_conversions_tell_what_is_not_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("onnx")
    for lower, upper, told in ((16, 64, "multiples of 2, 16 to 64"), (32, 32, "")):
        caplog.clear()
        extent = mlferry.RangeDim(lower, upper)
        expected = mlferry.TensorType("image", shape=(1, 3, extent, 32))
        mlferry.convert(mlferry.examples.path("style.onnx"), inputs=[expected])
        assert told in caplog.text
        assert bool(caplog.text) == bool(told)


@pytest.mark.parametrize(
    ("change", "shape"),
    [
        (lambda spec: flexible.set_multiarray_ndshape_range(spec, "x", [1, 2], [3, -1]), [1, 2]),
        (
            lambda spec: flexible.add_multiarray_ndshape_enumeration(spec, "x", [(4, 2), (3, 2)]),
            [4, 2],
        ),
    ],
)
def test_an_input_without_a_shape_gets_a_default(
    change: Callable[[model_pb2.Model], None], shape: list[int]
) -> None:
    """Without one Core ML refuses the network."""
    builder = Builder()
    builder.input("x", (1, 2))
    builder.layer("activation", "relu", ["x"], ["y"], ReLU={})
    builder.output("y")
    spec = builder.model()
    array = spec.description.input[0].type.multiArrayType
    del array.shape[:], spec.description.output[0].type.multiArrayType.shape[:]
    change(spec)
    assert list(array.shape) == shape
    assert [problem for problem in validate(spec) if problem.severity != "note"] == []
