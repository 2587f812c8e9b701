"""Inputs, outputs and weights of networks as those of programs."""

from __future__ import annotations

import collections
import concurrent.futures
import pickle
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlferry
from mlferry.errors import ExportError, ModelFileError
from mlferry.layers.builder import Builder
from mlferry.models import utils
from mlferry.models.quantization.api import quantize_weights
from mlferry.spec import features
from mlferry.spec.proto import features_pb2 as ft, model_pb2
from tests.exporters.program.support import kinds, network_of, read_by_coremltools, same_as_network
from tests.layers.naive import values as some

PLUS: Mapping[str, Any] = {"alpha": 1.0}


def open_sizes(*spans: tuple[int, int]) -> ft.FeatureType:
    feature = features.multi_array(tuple(low for low, _ in spans))
    for low, high in spans:
        feature.multiArrayType.shapeRange.sizeRanges.add(lowerBound=low, upperBound=high)
    return feature


def choices(*shapes: tuple[int, ...]) -> ft.FeatureType:
    feature = features.multi_array(shapes[0])
    for shape in shapes:
        feature.multiArrayType.enumeratedShapes.shapes.add(shape=shape)
    return feature


def picture(width: int, height: int, layout: str, *more: tuple[int, int]) -> ft.FeatureType:
    feature = features.image(width, height, layout)
    for wide, high in more:
        feature.imageType.enumeratedSizes.sizes.add(width=wide, height=high)
    return feature


def picture_range(layout: str, width: tuple[int, int], height: tuple[int, int]) -> ft.FeatureType:
    feature = features.image(width[0], height[0], layout)
    bounds = feature.imageType.imageSizeRange
    features.set_range(bounds.widthRange, *width)
    features.set_range(bounds.heightRange, *height)
    return feature


def typed(kind: str, *, optional: bool = False) -> ft.FeatureType:
    feature = ft.FeatureType(isOptional=optional)
    getattr(feature, kind).SetInParent()
    return feature


# ---- images -------------------------------------------------------------------------------------

SCALER = {"channelScale": 0.5, "redBias": -1.0, "greenBias": 2.0, "blueBias": 3.5, "grayBias": -7}
PIXELS = {
    "RGB": np.random.default_rng(1).integers(0, 256, (4, 6, 3)).astype(np.uint8),
    "BGR": np.random.default_rng(2).integers(0, 256, (4, 6, 3)).astype(np.uint8),
    "GRAYSCALE": np.random.default_rng(3).integers(0, 256, (4, 6)).astype(np.uint8),
}
PREPROCESSING: dict[str, Sequence[Mapping[str, Any]]] = {
    "none": [],
    "scaler of the input": [{"featureName": "it", "scaler": SCALER}],
    "scaler of every input": [{"scaler": SCALER}],
    "scaler of another input": [{"featureName": "other", "scaler": SCALER}],
    "mean image": [{"featureName": "it", "meanImage": {"meanImage": None}}],
}


@pytest.mark.parametrize("classic", [True, False], ids=["five axes", "four axes"])
@pytest.mark.parametrize("name", PREPROCESSING)
@pytest.mark.parametrize("layout", PIXELS)
def test_image(layout: str, name: str, classic: bool, tmp_path: Path) -> None:
    channels = features.CHANNELS[layout]
    spec = network_of(
        {"it": picture(6, 4, layout), "other": (3,)},
        [
            ("convolution", ["it"], ["y"], {
                "outputChannels": 2, "kernelChannels": channels, "kernelSize": [1, 1], "valid": {},
                "weights": {"floatValue": some(2, channels).ravel()},
            }),
            ("activation", ["other"], ["z"], {"linear": {"alpha": 2.0, "beta": 1.0}}),
        ],
        {"y": None, "z": (3,)},
        classic=classic,
    )  # fmt: skip
    for step in PREPROCESSING[name]:
        added = spec.neuralNetwork.preprocessing.add(featureName=step.get("featureName", ""))
        if "scaler" in step:
            for field, value in step["scaler"].items():
                setattr(added.scaler, field, value)
        else:
            added.meanImage.meanImage.extend(some(channels, 4, 6).ravel())
    inputs = {"it": PIXELS[layout], "other": np.float32([1, 2, 3])}
    program = same_as_network(spec, tmp_path, [inputs], tolerance=1e-4)
    assert program.spec.description.input[0].type.imageType.width == 6


@pytest.mark.parametrize("classic", [True, False], ids=["five axes", "four axes"])
@pytest.mark.parametrize("layout", PIXELS)
def test_image_output(layout: str, classic: bool, tmp_path: Path) -> None:
    spec = network_of(
        {"it": picture(6, 4, layout)},
        [("activation", ["it"], ["y"], {"linear": {"alpha": -1.0, "beta": 255.0}})],
        {"y": picture(6, 4, layout)},
        classic=classic,
    )
    program = same_as_network(spec, tmp_path, [{"it": PIXELS[layout]}])
    assert program.spec.specificationVersion == 7  # the first with image outputs
    actual = np.asarray(program.predict({"it": PIXELS[layout]})["y"])
    assert np.array_equal(actual, 255 - PIXELS[layout])


IMAGE_SIZES = {
    "range": (picture_range("RGB", (6, 9), (4, 8)), [(6, 4), (9, 8), (7, 5)]),
    "choices": (picture(6, 4, "RGB", (6, 4), (8, 8)), [(6, 4), (8, 8)]),
}


@pytest.mark.parametrize("name", IMAGE_SIZES)
def test_image_of_several_sizes(name: str, tmp_path: Path) -> None:
    feature, sizes = IMAGE_SIZES[name]
    layer = {"outputChannels": 2, "kernelChannels": 3, "kernelSize": [3, 3], "same": {},
             "weights": {"floatValue": some(2, 3, 3, 3).ravel()}}  # fmt: skip
    spec = network_of({"it": feature}, [("convolution", ["it"], ["y"], layer)], {"y": None})
    random = np.random.default_rng(0)
    inputs = [{"it": random.integers(0, 256, (h, w, 3)).astype(np.uint8)} for w, h in sizes]
    same_as_network(spec, tmp_path, inputs, tolerance=1e-4)


# ---- classifiers --------------------------------------------------------------------------------

SCORES = [("softmaxND", ["x"], ["scores"], {"axis": -1}), ("add", ["scores"], ["more"], PLUS)]
SCORES_OF_FIVE_AXES = [("softmax", ["x"], ["scores"], {}), SCORES[1]]
CLASSIFIERS: dict[str, dict[str, Any]] = {
    "texts": {"labels": ["cat", "dog", "eel"], "probabilities": "scores"},
    "numbers": {"labels": [7, -3, 2**40], "probabilities": "scores"},
    "without probabilities": {"labels": ["a", "b", "c"], "probabilities": "scores", "chances": ""},
    "whose scores are an output, too": {
        "labels": ["a", "b", "c"],
        "probabilities": "scores",
        "outputs": ("more", "scores"),
    },
    "whose scores are an output alone": {
        "labels": ["a", "b", "c"],
        "probabilities": "scores",
        "chances": "",
        "outputs": ("scores", "more"),
    },
    "of the last layer": {"labels": ["a", "b", "c"]},
    "texts of all kinds": {"labels": ["ä b", "", "x/y:z"], "probabilities": "scores"},
    "classic": {"labels": ["a", "b", "c"], "probabilities": "scores", "classic": True},
}


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifier(name: str, tmp_path: Path) -> None:
    how = {"outputs": ("more",), **CLASSIFIERS[name]}
    outputs = dict.fromkeys(how.pop("outputs"), (3,))
    layers = SCORES_OF_FIVE_AXES if how.get("classic") else SCORES
    spec = network_of({"x": (3,)}, layers, outputs, **how)
    inputs = [{"x": np.float32(x)} for x in ([1, 2, 3], [5, 2, 1], [0, 9, 1])]
    program = same_as_network(spec, tmp_path, inputs)
    assert "classify" in kinds(program.spec)
    half = mlferry.to_program(mlferry.MLModel(spec))
    assert [half.predict(x)["label"] for x in inputs] == [
        program.predict(x)["label"] for x in inputs
    ]


# ---- types and shapes ---------------------------------------------------------------------------

INT, DOUBLE = features.multi_array((2, 3), "int32"), features.multi_array((2, 3), "float64")
ADDED = [("add", ["x"], ["y"], PLUS)]
X23 = [{"x": np.float32([[1, 2, 3], [4, 5, 6]])}]
OPTIONAL = features.multi_array((2,))
OPTIONAL.isOptional = True
OPTIONAL.multiArrayType.floatDefaultValue = 5.0

# Inputs, layers, outputs and samples.
ENDS: dict[str, tuple[Any, Any, Any, Any]] = {
    "whole numbers in": ({"x": INT}, ADDED, {"y": (2, 3)}, X23),
    "whole numbers out": ({"x": (2, 3)}, ADDED, {"y": INT}, [{"x": some(2, 3) * 9}]),
    "doubles": ({"x": DOUBLE}, ADDED, {"y": DOUBLE}, X23),
    "a number": (
        {"x": typed("doubleType")}, ADDED, {"y": typed("doubleType")}, [{"x": 3.5}, {"x": -1.0}],
    ),
    "a whole number": ({"x": typed("int64Type")}, ADDED, {"y": (1,)}, [{"x": 3}]),
    "optional": (
        {"x": (2,), "o": OPTIONAL}, [("add", ["x", "o"], ["y"], {})], {"y": (2,)},
        [{"x": np.float32([1, 2])}, {"x": np.float32([1, 2]), "o": np.float32([7, 8])}],
    ),
    "a range": (
        {"x": open_sizes((1, 1), (2, 50))}, [("softmaxND", ["x"], ["y"], {"axis": -1})],
        {"y": None}, [{"x": some(1, n)} for n in (2, 7, 50)],
    ),
    "choices": (
        {"x": choices((1, 4), (1, 8))}, [("softmaxND", ["x"], ["y"], {"axis": -1})], {"y": None},
        [{"x": some(1, n)} for n in (4, 8)],
    ),
    "two outputs of one blob": (
        {"x": (2,)}, [*ADDED, ("copy", ["y"], ["z"], {})], {"y": (2,), "z": (2,)},
        [{"x": np.float32([1, 2])}],
    ),
    "an input handed on": (
        {"x": (2,)}, [("copy", ["x"], ["y"], {})], {"y": (2,)}, [{"x": np.float32([1, 2])}],
    ),
    "an output behind another": (
        {"x": (2,)}, [*ADDED, ("softmaxND", ["y"], ["z"], {"axis": 0})], {"z": (2,), "y": (2,)},
        [{"x": np.float32([1, 2])}],
    ),
    "no inputs": (
        {}, [("loadConstantND", [], ["c"], {"shape": [2], "data": {"floatValue": [1, 2]}}),
             ("add", ["c"], ["y"], PLUS)], {"y": (2,)}, [{}],
    ),
    "a number of rank 0": (
        {"x": (4,)}, [("reduceSum", ["x"], ["y"], {"reduceAll": True, "keepDims": False})],
        {"y": (1,)}, [{"x": some(4)}],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ENDS)
def test_ends(name: str, tmp_path: Path) -> None:
    inputs, layers, outputs, samples = ENDS[name]
    same_as_network(network_of(inputs, layers, outputs), tmp_path, samples)


# The classic mapping: described shapes, and the shapes that are given.
CLASSIC = {
    "a vector": ((5,), [(5,)]),
    "maps": ((2, 3, 4), [(2, 3, 4)]),
    "one of each": ((1, 1, 1), [(1, 1, 1)]),
}
CLASSIC_LAYERS = {
    "elementwise": ("add", PLUS),
    "per map": ("softmax", {}),
    "flat": ("flatten", {}),
    "turned": ("permute", {"axis": [0, 3, 1, 2]}),
}


@pytest.mark.parametrize("kind", CLASSIC_LAYERS)
@pytest.mark.parametrize("name", CLASSIC)
def test_classic(name: str, kind: str, tmp_path: Path) -> None:
    shape, inputs = CLASSIC[name]
    layer, params = CLASSIC_LAYERS[kind]
    spec = network_of(
        {"x": shape}, [(layer, ["x"], ["h"], params), ("add", ["h"], ["y"], PLUS)],
        {"y": None, "h": None}, classic=True,
    )  # fmt: skip
    same_as_network(spec, tmp_path, [{"x": some(*each)} for each in inputs])


# ---- names --------------------------------------------------------------------------------------

# Names of the input, of a blob between, and of the outputs; and those of the ends after it.
NAMES: dict[str, tuple[Sequence[str], Sequence[str]]] = {
    "paths": (("in/put:0", "a/b:0", "out/put:0", "out/put:1"),
              ("in_put_0", "out_put_0", "out_put_1")),
    "digits in front": (("0", "1", "2", "3x"), ("_0", "_2", "_3x")),
    "names that meet": (("a/b", "a.b", "a:b", "a_b"), ("a_b", "a_b_1", "a_b_2")),
    "letters of all kinds": (("größe", "é", "日本", "日木"), ("gr__e", "__", "___1")),
    "spaces": (("my input", "h", "my output", "my  output"),
               ("my_input", "my_output", "my__output")),
    "names that casts would have": (("x", "h", "x_to_fp16", "x_to_fp16_1"),
                                    ("x", "x_to_fp16", "x_to_fp16_1")),
    "names of operations": (("add_0_add", "h", "y_identity", "softmaxND_1_softmax"),
                            ("add_0_add", "y_identity", "softmaxND_1_softmax")),
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_names(name: str, tmp_path: Path) -> None:
    (first, between, one, two), right = NAMES[name]
    spec = network_of(
        {first: (3,)},
        [("add", [first], [between], PLUS), ("softmaxND", [between], [one], {"axis": 0}),
         ("add", [one], [two], PLUS)],
        {one: (3,), two: (3,)},
    )  # fmt: skip
    program = same_as_network(spec, tmp_path, [{first: np.float32([1, 2, 3])}])
    description = program.spec.description
    assert [f.name for f in (*description.input, *description.output)] == [*right]
    half = mlferry.to_program(mlferry.MLModel(spec))
    read_by_coremltools(half, tmp_path)
    actual = half.predict({right[0]: np.float32([1, 2, 3])})
    assert [*actual] == [*right[1:]]


# ---- weights ------------------------------------------------------------------------------------

DENSE = 64 * 64
# Bits, mode, the opset, the kind of operation that holds the weights, and the most bytes of theirs.
QUANTIZED: dict[str, tuple[int, str, str | None, int]] = {
    **{
        f"table of {n} bits": (n, "kmeans", "constexpr_lut_to_dense", DENSE * n // 8)
        for n in (1, 2, 4, 6, 8)
    },
    "table of 3 bits": (3, "kmeans", "constexpr_lut_to_dense", DENSE * 4 // 8),
    "table of 5 bits": (5, "kmeans", "constexpr_lut_to_dense", DENSE * 6 // 8),
    "symmetric": (8, "linear_symmetric", "constexpr_affine_dequantize", DENSE),
    "8 bits by channel": (8, "linear", None, DENSE * 4),
    "5 bits by channel": (5, "linear", None, DENSE * 4),
    "half": (16, "linear", None, DENSE * 4),
}


def dense() -> model_pb2.Model:
    return network_of(
        {"x": (64,)},
        [("innerProduct", ["x"], ["y"], {
            "inputChannels": 64, "outputChannels": 64, "weights": {"floatValue": some(DENSE)},
        })],
        {"y": (64,)},
    )  # fmt: skip


@pytest.mark.parametrize("name", QUANTIZED)
def test_quantized(name: str, tmp_path: Path) -> None:
    bits, mode, kind, most = QUANTIZED[name]
    small = quantize_weights(mlferry.MLModel(dense()), bits, mode)
    program = same_as_network(small, tmp_path, [{"x": some(64)}], tolerance=1e-4)
    counted = collections.Counter(kinds(program.spec))
    assert [k for k in counted if k.startswith("constexpr_")] == ([kind] if kind else [])
    size = (tmp_path / "model.mlpackage/Data/com.apple.CoreML/weights/weight.bin").stat().st_size
    assert size <= most + 3000  # tables, scales and headers
    half = mlferry.to_program(small)
    read_by_coremltools(half, tmp_path)
    halved = (tmp_path / "model.mlpackage/Data/com.apple.CoreML/weights/weight.bin").stat().st_size
    assert halved <= min(most, DENSE * 2) + 2000
    right, matches = (m.predict({"x": some(64)})["y"] for m in (small, half))
    np.testing.assert_allclose(matches, right, rtol=0.02, atol=0.02 * np.abs(right).max())


# ---- targets ------------------------------------------------------------------------------------

TARGETS = {"iOS15": 6, "macOS12": 6, "iOS16": 7, "iOS17": 8, "iOS18": 9, "iOS26": 10}


@pytest.mark.parametrize("target", TARGETS)
def test_target(target: str) -> None:
    """The oldest format that has every operation; a target only refuses."""
    model = mlferry.to_program(dense(), minimum_deployment_target=target)
    assert model.spec.specificationVersion == 6


REFUSED_TARGETS = {
    "iOS14": "iOS14 has no ML Programs: they came with iOS 15",
    "macOS11": "macOS11 has no ML Programs",
    "toaster": "toaster",
}


@pytest.mark.parametrize("target", REFUSED_TARGETS)
def test_refused_target(target: str) -> None:
    with pytest.raises(ExportError, match=REFUSED_TARGETS[target]):
        mlferry.to_program(dense(), minimum_deployment_target=target)


def test_target_that_lacks_what_is_needed() -> None:
    spec = network_of({"x": picture(6, 4, "RGB")}, [("copy", ["x"], ["y"], {})],
                      {"y": picture(6, 4, "RGB")})  # fmt: skip
    with pytest.raises(ExportError, match=r"needs iOS 16 or macOS 13 for an image output, newer"):
        mlferry.to_program(spec, minimum_deployment_target="iOS15")
    model = mlferry.to_program(spec, minimum_deployment_target="iOS16")
    assert model.spec.specificationVersion == 7


# ---- refusals -----------------------------------------------------------------------------------


def test_unbounded_range() -> None:
    spec = network_of({"x": open_sizes((1, 1), (2, -1))}, ADDED, {"y": None})
    with pytest.raises(ExportError, match="input 'x' has no largest size along axis 1") as error:
        mlferry.to_program(spec)
    actual = re.search(r"RangeDim\((\d+), (\d+)\)", str(error.value))
    assert actual is not None
    low, high = map(int, actual.groups())
    spec.description.input[0].type.CopyFrom(open_sizes((1, 1), (low, high)))
    program = mlferry.to_program(spec)
    assert program.predict({"x": np.zeros((1, 9), np.float32)})["y"].shape == (1, 9)


@pytest.mark.parametrize("kind", ["array", "image"])
def test_the_line_that_bounds_a_range_works(kind: str) -> None:
    b = Builder()
    b.input("x", (1, 3, 8, 8), features.image(8, 8, "RGB") if kind == "image" else None)
    b.layer("activation", "r", ["x"], ["y"], ReLU={})
    b.output("y")
    spec = b.model()
    if kind == "image":
        size = mlferry.models.flexible_shapes.NeuralNetworkImageSizeRange((4, -1), (8, -1))
        mlferry.models.flexible_shapes.update_image_size_range(spec, "x", size)
    else:
        mlferry.models.flexible_shapes.set_multiarray_ndshape_range(
            spec, "x", [1, 3, 4, 8], [1, 3, -1, -1]
        )
    with pytest.raises(ExportError, match="no largest size along axis") as error:
        mlferry.to_program(spec)
    line = re.search(r"and (mlferry\.models\.flexible_shapes\..*)", str(error.value))
    assert line is not None
    exec(line[1], {"mlferry": mlferry, "spec": spec})
    program = mlferry.to_program(spec)
    data = np.zeros((16, 12, 3), np.uint8) if kind == "image" else np.zeros((1, 3, 16, 12))
    assert np.shape(program.predict({"x": data})["y"]) == (1, 3, 16, 12)


def test_input_that_is_an_output() -> None:
    spec = network_of({"x": (2,)}, ADDED, {"y": (2,), "x": (2,)})
    with pytest.raises(ExportError, match="input 'x' is also an output"):
        mlferry.to_program(spec)
    del spec.description.output[1]
    assert mlferry.to_program(spec).predict({"x": np.float32([1, 2])})["y"].tolist() == [2, 3]


def test_updatable_model() -> None:
    spec = dense()
    spec.isUpdatable = True
    spec.neuralNetwork.layers[0].isUpdatable = True
    spec.neuralNetwork.layers[0].innerProduct.weights.isUpdatable = True
    from mlferry.exporters.program import ProgramOptions, to_program

    with pytest.raises(ExportError, match=r"mlferry\.models\.utils\.without_training\(model\)"):
        to_program(spec, ProgramOptions())


def regressor() -> mlferry.MLModel:
    spec = model_pb2.Model(specificationVersion=4)
    spec.glmRegressor.weights.add().value.append(2.0)
    spec.glmRegressor.offset.append(1.0)
    spec.description.input.add(name="x").type.CopyFrom(typed("doubleType"))
    spec.description.output.add(name="y").type.CopyFrom(typed("doubleType"))
    spec.description.predictedFeatureName = "y"
    return mlferry.MLModel(spec)


NOT_NETWORKS = {
    "a program": (lambda: mlferry.to_program(dense()), "is an ML Program already"),
    "a regressor": (regressor, "kind 'glmRegressor' is not a neural network"),
}


@pytest.mark.parametrize("name", NOT_NETWORKS)
def test_no_network(name: str) -> None:
    make, message = NOT_NETWORKS[name]
    with pytest.raises(ExportError, match=message):
        mlferry.to_program(make())


# ---- models -------------------------------------------------------------------------------------


def test_metadata() -> None:
    spec = dense()
    spec.description.metadata.author = "A. Author"
    spec.description.metadata.userDefined["key"] = "value"
    spec.description.input[0].shortDescription = "what goes in"
    spec.description.output[0].shortDescription = "what comes out"
    model = mlferry.to_program(spec).spec.description
    assert model.metadata.author == "A. Author"
    assert dict(model.metadata.userDefined)["key"] == "value"
    assert model.input[0].shortDescription == "what goes in"
    assert model.output[0].shortDescription == "what comes out"


def test_mlmodel_cannot_hold_the_weights(tmp_path: Path) -> None:
    program = mlferry.to_program(dense())
    with pytest.raises(ModelFileError, match=r"model\.save\('.*net\.mlpackage'\)") as error:
        program.save(tmp_path / "net.mlmodel")
    line = re.search(r"model\.save\('.*'\)", str(error.value))
    assert line is not None
    eval(line.group(), {"model": program})
    assert (tmp_path / "net.mlpackage").is_dir()


def test_pickled_and_in_processes() -> None:
    program = mlferry.to_program(dense())
    x = [{"x": some(64, seed=n)} for n in range(3)]
    right = [result["y"] for result in program.predict(x)]
    again = pickle.loads(pickle.dumps(program))
    assert all(map(np.array_equal, [result["y"] for result in again.predict(x)], right))
    with concurrent.futures.ProcessPoolExecutor(2) as processes:
        actual = program.predict(x, executor=processes)
    assert all(map(np.array_equal, [result["y"] for result in actual], right))


def test_message_and_weights_apart(tmp_path: Path) -> None:
    """As scripts of coremltools do it: the message is changed, and becomes a model again."""
    b = Builder()
    b.input("x", (1, 8))
    b.layer("innerProduct", "d", ["x"], ["y"], inputChannels=8, outputChannels=4,
            weights=np.arange(32, dtype=np.float32).reshape(4, 8))  # fmt: skip
    b.output("y")
    program = mlferry.to_program(b.model())
    spec = program.get_spec()
    spec.description.metadata.author = "somebody"
    inputs = {"x": np.ones((1, 8), np.float32)}
    again = mlferry.MLModel(spec, weights_dir=program.weights_dir)
    assert again.author == "somebody"
    np.testing.assert_array_equal(again.predict(inputs)["y"], program.predict(inputs)["y"])
    utils.save_spec(spec, tmp_path / "net.mlpackage", weights_dir=program.weights_dir)
    read = mlferry.MLModel(tmp_path / "net.mlpackage")
    np.testing.assert_array_equal(read.predict(inputs)["y"], program.predict(inputs)["y"])
    assert again.save(tmp_path / "again.mlpackage").exists()


def test_no_file_of_weights_where_there_are_none(tmp_path: Path) -> None:
    b = Builder()
    b.input("x", (1, 8))
    b.layer("activation", "r", ["x"], ["y"], ReLU={})
    b.output("y")
    program = mlferry.to_program(b.model())
    assert program.weights_dir is None
    path = program.save(tmp_path / "net.mlpackage")
    files = {file.name for file in path.rglob("*") if file.is_file()}
    assert files == {"Manifest.json", "model.mlmodel"}


@pytest.mark.parametrize(("target", "version"), [(None, 6), ("iOS17", 6), ("iOS18", 9)])
def test_attention_is_one_operation_where_the_target_has_it(
    target: str | None, version: int
) -> None:
    b = Builder()
    for name in "qkv":
        b.input(name, (1, 2, 5, 4))
    b.layer("batchedMatmul", "scores", ["q", "k"], ["s"], transposeB=True)
    b.layer("multiply", "scaled", ["s"], ["t"], alpha=0.5)
    b.layer("softmaxND", "chances", ["t"], ["c"], axis=-1)
    b.layer("batchedMatmul", "mixed", ["c", "v"], ["y"])
    b.output("y")
    model = mlferry.MLModel(b.model())
    program = mlferry.to_program(
        model, compute_precision="float32", minimum_deployment_target=target
    )
    assert program.spec.specificationVersion == version
    assert ("scaled_dot_product_attention" in kinds(program.spec)) == (version == 9)
    inputs = {name: some(1, 2, 5, 4, seed=place) for place, name in enumerate("qkv")}
    np.testing.assert_allclose(program.predict(inputs)["y"], model.predict(inputs)["y"], atol=1e-6)
