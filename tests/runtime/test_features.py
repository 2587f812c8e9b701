"""Inputs and outputs of networks: types, shapes that vary, defaults, images."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import mlferry
from mlferry.errors import PredictionError
from mlferry.layers.builder import Builder
from mlferry.spec import features as ft
from mlferry.spec.proto import model_pb2, neural_network_pb2 as nn


def passing(feature: Any, shape: tuple[int | None, ...], out: Any = None) -> model_pb2.Model:
    """A network that hands its input on."""
    builder = Builder()
    builder.input("x", shape, feature)
    builder.layer("activation", "same", ["x"], ["y"], linear={"alpha": 1.0})
    builder.output("y", out or ft.multi_array(None))
    return builder.model()


def run(spec: model_pb2.Model, **inputs: Any) -> Any:
    return mlferry.MLModel(spec).predict(inputs)["y"]


@pytest.mark.parametrize("dtype", list(ft.ARRAY_TYPES))
def test_data_types(dtype: str) -> None:
    spec = passing(ft.multi_array((2, 3), dtype), (2, 3), ft.multi_array((2, 3), dtype))
    actual = run(spec, x=np.arange(6).reshape(2, 3))
    assert actual.dtype == dtype
    np.testing.assert_array_equal(actual, np.arange(6).reshape(2, 3))


def ranged() -> Any:
    feature = ft.multi_array((1, 4))
    for low, high in ((1, 3), (4, -1)):
        bounds = feature.multiArrayType.shapeRange.sizeRanges.add()
        bounds.lowerBound, bounds.upperBound = low, high
    return feature


def enumerated() -> Any:
    feature = ft.multi_array((1, 4))
    for shape in ((1, 4), (2, 6)):
        feature.multiArrayType.enumeratedShapes.shapes.add().shape.extend(shape)
    return feature


@pytest.mark.parametrize(
    ("feature", "good", "bad", "shown"),
    [
        (ranged(), [(1, 4), (3, 90)], [(4, 4), (1, 3), (3,), (1, 1, 1, 4)], r"1\.\.3 x 4\.\."),
        (enumerated(), [(1, 4), (2, 6)], [(2, 4), (1, 6)], "one of 1 x 4, 2 x 6"),
    ],
)
def test_shapes_that_vary(feature: Any, good: Any, bad: Any, shown: str) -> None:
    spec = passing(feature, (None, None))
    for shape in good:
        assert run(spec, x=np.zeros(shape)).shape == shape
    for shape in bad:
        with pytest.raises(PredictionError, match=shown):
            run(spec, x=np.zeros(shape))


@pytest.mark.parametrize(
    ("described", "good", "bad"),
    [
        ((1, 2, 3), [(2, 3), (1, 2, 3), (1, 1, 2, 3)], [(3, 2), (1, 3, 2), (1, 1, 1, 2, 3), (6,)]),
        ((2, 3), [(2, 3), (1, 2, 3)], [(2, 3, 1), (2, 2, 3), (3,)]),
    ],
)
def test_a_first_axis_of_one_comes_and_goes(described: Any, good: Any, bad: Any) -> None:
    """Scripts write arrays of [C, H, W] for inputs of [1, C, H, W], and the other way round."""
    spec = passing(ft.multi_array(described), described)
    for shape in good:
        x = np.arange(6.0).reshape(shape)
        np.testing.assert_array_equal(run(spec, x=x), x.reshape(described))
    for shape in bad:
        with pytest.raises(PredictionError, match="takes a multi-array"):
            run(spec, x=np.zeros(shape))


def image_model(layout: str, change: Any = None) -> model_pb2.Model:
    feature = ft.image(3, 2, layout)
    if change:
        change(feature.imageType)
    channels = ft.CHANNELS[layout]
    out = ft.image(3, 2, layout) if layout in ("RGB", "BGR", "GRAYSCALE") and not change else None
    return passing(feature, (1, channels, None, None) if change else (1, channels, 2, 3), out)


@pytest.mark.parametrize("layout", ["RGB", "BGR", "GRAYSCALE"])
def test_images_in_and_out(layout: str, rng: np.random.Generator) -> None:
    shape = (2, 3) if layout == "GRAYSCALE" else (2, 3, 3)
    pixels = rng.integers(0, 256, shape).astype(np.uint8)
    np.testing.assert_array_equal(run(image_model(layout), x=pixels), pixels)


def test_a_grayscale_image_of_floats() -> None:
    image = pytest.importorskip("PIL.Image").fromarray(np.array([[0.5, 1], [2, 3]], np.float32))
    spec = passing(ft.image(2, 2, "GRAYSCALE_FLOAT16"), (1, 1, 2, 2))
    np.testing.assert_array_equal(run(spec, x=image)[0, 0], [[0.5, 1], [2, 3]])
    both = passing(ft.image(2, 2, "GRAYSCALE_FLOAT16"), (1, 1, 2, 2),
                   ft.image(2, 2, "GRAYSCALE_FLOAT16"))  # fmt: skip
    np.testing.assert_array_equal(run(both, x=image), [[0.5, 1], [2, 3]])


def sizes(image: Any) -> None:
    for width, height in ((3, 2), (6, 4)):
        image.enumeratedSizes.sizes.add(width=width, height=height)


def size_range(image: Any) -> None:
    bounds = image.imageSizeRange
    bounds.widthRange.lowerBound, bounds.widthRange.upperBound = 3, 6
    bounds.heightRange.lowerBound, bounds.heightRange.upperBound = 2, -1


@pytest.mark.parametrize(
    ("change", "good", "bad"),
    [(sizes, [(2, 3), (4, 6)], [(4, 3), (2, 6)]), (size_range, [(2, 3), (99, 6)], [(2, 7)])],
)
def test_image_sizes_that_vary(change: Any, good: Any, bad: Any) -> None:
    spec = image_model("RGB", change)
    for size in good:
        assert run(spec, x=np.zeros((*size, 3), np.uint8)).shape == (1, 3, *size)
    for size in bad:
        with pytest.raises(PredictionError, match="takes an image RGB 3 x 2"):
            run(spec, x=np.zeros((*size, 3), np.uint8))


def test_a_mean_image_is_subtracted(rng: np.random.Generator) -> None:
    spec = passing(ft.image(3, 2, "BGR"), (1, 3, 2, 3))
    mean = rng.uniform(0, 99, (3, 2, 3)).astype(np.float32)
    spec.neuralNetwork.preprocessing.add(featureName="x").meanImage.meanImage.extend(mean.ravel())
    pixels = rng.integers(0, 256, (2, 3, 3)).astype(np.uint8)
    expected = pixels[..., ::-1].transpose(2, 0, 1) - mean
    np.testing.assert_allclose(run(spec, x=pixels)[0], expected, rtol=1e-6)


@pytest.mark.parametrize(("default", "filled"), [(None, 0.0), (2.5, 2.5)])
def test_optional_inputs_have_defaults(default: float | None, filled: float) -> None:
    feature = ft.multi_array((1, 2))
    feature.isOptional = True
    if default is not None:
        feature.multiArrayType.floatDefaultValue = default
    builder = Builder()
    builder.input("a", (1, 2))
    builder.input("x", (1, 2), feature)
    builder.layer("add", "sum", ["a", "x"], ["y"])
    builder.output("y")
    actual = run(builder.model(), a=np.ones((1, 2)))
    np.testing.assert_array_equal(actual, np.full((1, 2), 1 + filled))


def test_single_numbers() -> None:
    double, integer = ft.FeatureType(), ft.FeatureType()
    double.doubleType.SetInParent()
    integer.int64Type.SetInParent()
    assert run(passing(double, (1,), integer), x=4) == 4
    with pytest.raises(PredictionError, match="is one number"):
        run(passing(double, (1,), integer), x=[1, 2])


CLASSIC = [
    ((3,), (3,), (1, 1, 3, 1, 1)),
    ((3,), (4, 2, 3), (4, 2, 3, 1, 1)),
    ((3,), (2, 3), (1, 2, 3, 1, 1)),
    ((3, 4, 5), (3, 4, 5), (1, 1, 3, 4, 5)),
    ((3, 4, 5), (2, 3, 4, 5), (1, 2, 3, 4, 5)),
    ((3, 4, 5), (6, 2, 3, 4, 5), (6, 2, 3, 4, 5)),
]


@pytest.mark.parametrize(("described", "inputs", "blob"), CLASSIC)
def test_the_classic_mapping_takes_sequences_and_batches(
    described: Any, inputs: Any, blob: Any
) -> None:
    spec = passing(ft.multi_array(described), described)
    spec.specificationVersion = 1
    spec.neuralNetwork.arrayInputShapeMapping = nn.RANK5_ARRAY_MAPPING
    spec.neuralNetwork.imageInputShapeMapping = nn.RANK5_IMAGE_MAPPING
    x = np.arange(np.prod(inputs)).reshape(inputs)
    actual = run(spec, x=x)
    assert actual.shape == blob
    np.testing.assert_array_equal(actual.ravel(), x.ravel())
    with pytest.raises(PredictionError, match="with sequence and batch axes in front"):
        run(spec, x=np.zeros((2, 2)))


def test_any_blob_inside_and_all_shapes() -> None:
    builder = Builder()
    builder.input("x", (1, 2, 3))
    builder.layer("activation", "twice", ["x"], ["h"], linear={"alpha": 2.0})
    builder.layer("reduceSum", "total", ["h"], ["y"], axes=[1, 2], keepDims=False)
    builder.output("y")
    model = mlferry.MLModel(builder.model())
    x = np.ones((1, 2, 3), np.float32)
    assert model.intermediate({"x": x}, ["h"])["h"].tolist() == (2 * x).tolist()
    assert model.session.run({"x": x}, outputs=["y", "h"])["y"].tolist() == [12]
    shapes = mlferry.shapes(model, {"x": x})
    assert dict(shapes) == {"x": (1, 2, 3), "h": (1, 2, 3), "y": (1,)}
    assert "reduceSum 'total'" in repr(shapes)
    with pytest.raises(PredictionError, match=r"no blob 'hh'\. Did you mean 'h'"):
        model.intermediate({"x": x}, ["hh"])
