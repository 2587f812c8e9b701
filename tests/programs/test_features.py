"""What one does with programs: states, functions, loops, images, labels, drawing, renaming."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlferry
from mlferry.errors import MlferryError, PredictionError, SpecError, UnsupportedModelError
from mlferry.models import utils
from mlferry.models.flexible_shapes import (
    add_multiarray_ndshape_enumeration,
    set_multiarray_ndshape_range,
)
from mlferry.models.problems import validate
from mlferry.spec.proto import features_pb2 as ft, mil_pb2 as mil, model_pb2
from tests.programs import by_hand, small
from tests.programs.by_hand import block_of, literal, operation, tensor

Model = model_pb2.Model
X = np.arange(12, dtype=np.float32).reshape(3, 4) - 6


def loaded(name: str, **options: Any) -> mlferry.MLModel:
    return mlferry.MLModel(small.SANE[name](), **options)


# ---- states --------------------------------------------------------------------------------------


def test_a_state_is_read_and_written() -> None:
    """y = x + s, which becomes s."""
    model = loaded("stateful")
    state = model.make_state()
    total = np.zeros(2)
    for step in range(1, 4):
        total = total + step
        actual = model.predict({"x": np.full(2, step)}, state)
        np.testing.assert_array_equal(actual["y"], total)
        np.testing.assert_array_equal(state["s"], total)
    assert list(state) == ["s"]
    assert len(state) == 1


def test_states_are_apart() -> None:
    model = loaded("stateful")
    one, two = model.make_state(), model.make_state()
    model.predict({"x": np.ones(2)}, one)
    np.testing.assert_array_equal(one["s"], [1, 1])
    np.testing.assert_array_equal(two["s"], [0, 0])
    seen = model.predict({"x": np.ones(2)}, two)["y"]
    model.predict({"x": np.ones(2)}, two)
    np.testing.assert_array_equal(seen, [1, 1])  # what was given is not changed afterwards


def test_a_state_is_needed_where_there_is_one() -> None:
    model = loaded("stateful")
    with pytest.raises(PredictionError, match=r"state = model\.make_state\(\)"):
        model.predict({"x": np.ones(2)})
    with pytest.raises(PredictionError, match="one by one"):
        model.predict([{"x": np.ones(2)}], model.make_state())
    with pytest.raises(UnsupportedModelError, match="has no state"):
        loaded("plain").make_state()


def test_a_state_of_another_model_is_refused() -> None:
    model = loaded("stateful")
    spec = small.stateful()
    spec.mlProgram.functions["main"].inputs[1].name = "t"
    spec.description.state[0].name = "t"
    for index in (0, 2):
        block_of(spec).operations[index].inputs["input"].arguments[0].name = "t"
    other = mlferry.MLModel(spec)
    with pytest.raises(PredictionError, match="state"):
        model.predict({"x": np.ones(2)}, other.make_state())
    with pytest.raises(PredictionError, match="state"):
        loaded("plain").predict({"x": X}, model.make_state())


def test_the_state_is_rounded_as_the_program_says() -> None:
    model = loaded("stateful")
    state = model.make_state()
    model.predict({"x": np.full(2, 2048)}, state)
    assert model.predict({"x": np.ones(2)}, state)["y"].tolist() == [2048, 2048]
    exact = model.with_precision("exact")
    state = exact.make_state()
    exact.predict({"x": np.full(2, 2048)}, state)
    exact.predict({"x": np.ones(2)}, state)
    assert state["s"].tolist() == [2049, 2049]


# ---- functions -----------------------------------------------------------------------------------


def two_functions() -> Model:
    """main: relu(x + w); other: x + w."""
    spec = small.functions()
    block = block_of(spec, "other")
    block.operations[2].type = "identity"
    return spec


def test_functions_are_chosen_by_name() -> None:
    spec = two_functions()
    for name, expected in ((None, np.maximum(X + 1, 0)), ("main", np.maximum(X + 1, 0)),
                         ("other", X + 1)):  # fmt: skip
        model = mlferry.MLModel(spec, function_name=name)
        np.testing.assert_array_equal(model.predict({"x": X})["y"], expected)
        again = pickle.loads(pickle.dumps(model))
        np.testing.assert_array_equal(again.predict({"x": X})["y"], expected)
    spec.description.defaultFunctionName = "other"
    np.testing.assert_array_equal(mlferry.MLModel(spec).predict({"x": X})["y"], X + 1)
    with pytest.raises(SpecError, match=r"no function 'othr'.*Did you mean 'other'.*main, other"):
        mlferry.MLModel(spec, function_name="othr")
    with pytest.raises(SpecError, match="no function 'mani'"):
        loaded("plain", function_name="mani")
    np.testing.assert_array_equal(
        loaded("plain", function_name="main").predict({"x": X})["y"], np.maximum(X + 1, 0)
    )


def test_functions_that_coremltools_joined(tmp_path: Path, library: Callable[[str], Any]) -> None:
    """Weights that are the same lie at one place."""
    ct = library("coremltools")
    make = pytest.importorskip("tests.programs.make")
    weight = np.arange(48, dtype=np.float32).reshape(4, 12)
    for name, factor in (("a", 1.0), ("b", 2.0)):

        def build(mb: Any, x: Any, factor: float = factor) -> Any:
            return mb.mul(x=mb.linear(x=x, weight=weight), y=factor)

        make.package(build, [np.zeros((1, 12), np.float32)], tmp_path / f"{name}.mlpackage", 8)
    described = ct.utils.MultiFunctionDescriptor()
    for name in ("a", "b"):
        described.add_function(str(tmp_path / f"{name}.mlpackage"), "main", name)
    described.default_function_name = "a"
    ct.utils.save_multifunction(described, str(tmp_path / "both.mlpackage"))
    inputs = np.ones((1, 12), np.float32)
    for name, factor in (("a", 1), ("b", 2), (None, 1)):
        model = mlferry.MLModel(tmp_path / "both.mlpackage", function_name=name)
        (actual,) = model.predict({"x": inputs}).values()
        np.testing.assert_allclose(actual, factor * inputs @ weight.T)
    text = str(model)
    assert "a (CoreML8, the default)" in text
    assert "b (CoreML8)" in text


# ---- branches and loops --------------------------------------------------------------------------


def test_branches() -> None:
    spec = small.branches()
    choice = block_of(spec).operations[0]
    choice.blocks[1].operations[0].type = "abs"
    for flag, expected in ((True, np.maximum(X, 0)), (False, np.abs(X))):
        choice.inputs["pred"].arguments[0].value.CopyFrom(literal("bool", flag))
        np.testing.assert_array_equal(mlferry.MLModel(spec).predict({"x": X})["y"], expected)


def test_loops() -> None:
    actual = loaded("loop").predict({"x": X})
    np.testing.assert_array_equal(actual["y"], X / 8)


def test_a_loop_without_end_is_stopped() -> None:
    spec = small.loop()
    body = block_of(spec).operations[0].blocks[1].operations[0]
    body.inputs["y"].arguments[0].value.CopyFrom(literal("int32", 0))
    with mlferry.limits.changed(rounds=50), pytest.raises(MlferryError, match="rounds"):
        mlferry.MLModel(spec).predict({"x": X})


# ---- random values -------------------------------------------------------------------------------


def drawn(op: str, dtype: str = "fp32", seed: int = -1, **inputs: mil.Value) -> Model:
    shape = tensor(dtype, (1000,))
    ends = {"x": tensor("fp32", (1,))}
    sample: dict[str, Any] = {"seed": literal("int32", seed), **inputs}
    if op != "random_categorical":
        sample["shape"] = literal("int32", [1000])
    return by_hand.model(ends, [operation(op, {"y": shape}, sample)], ["y"])


def floats(**values: float) -> dict[str, mil.Value]:
    return {name: literal("fp32", value) for name, value in values.items()}


RANDOM: dict[str, tuple[dict[str, mil.Value], float, float, float, float]] = {
    # parameters; mean, deviation, lowest, highest
    "random_normal": (floats(mean=3.0, stddev=2.0), 3, 2, -np.inf, np.inf),
    "random_uniform": (floats(low=-1.0, high=3.0), 1, 4 / 12**0.5, -1, 3),
    "random_bernoulli": (floats(prob=0.25), 0.25, 0.1875**0.5, 0, 1),
    "random_categorical": (
        {"x": literal("fp32", [1.0, 0.0, 3.0]), "mode": literal("string", "probs"),
         "size": literal("int32", 1000)}, 1.5, 0.75**0.5, 0, 2),
}  # fmt: skip


@pytest.mark.parametrize("op", RANDOM)
def test_random_values(op: str) -> None:
    inputs, mean, deviation, low, high = RANDOM[op]
    model = mlferry.MLModel(drawn(op, **inputs))
    values = model.predict({"x": np.zeros(1)})["y"]
    assert abs(values.mean() - mean) < 5 * deviation / 1000**0.5
    assert abs(values.std() - deviation) < 0.15 * deviation
    assert low <= values.min() <= values.max() <= high
    if op in ("random_bernoulli", "random_categorical"):
        assert set(values.tolist()) <= {0, 1, 2}
        assert op == "random_bernoulli" or 1 not in values
    assert not np.array_equal(values, model.predict({"x": np.zeros(1)})["y"])


@pytest.mark.parametrize("op", RANDOM)
def test_a_seed_gives_the_same_values(op: str) -> None:
    actual = [
        mlferry.MLModel(drawn(op, seed=seed, **RANDOM[op][0])).predict({"x": np.zeros(1)})["y"]
        for seed in (7, 7, 8)
    ]
    np.testing.assert_array_equal(actual[0], actual[1])
    assert not np.array_equal(actual[0], actual[2])


# ---- sizes, options, images, labels --------------------------------------------------------------


def test_flexible_shapes() -> None:
    model = loaded("flexible")
    for rows in (1, 2, 8):
        inputs = np.full((rows, 4), -1.0)
        assert model.predict({"x": inputs})["y"].shape == (rows, 4)
    for shape in ((9, 4), (2, 5), (0, 4)):
        with pytest.raises(PredictionError, match="input 'x' takes"):
            model.predict({"x": np.zeros(shape)})


def test_enumerated_shapes() -> None:
    spec = small.flexible()
    array = spec.description.input[0].type.multiArrayType
    array.ClearField("shapeRange")
    for rows in (2, 5):
        array.enumeratedShapes.shapes.add(shape=[rows, 4])
    model = mlferry.MLModel(spec)
    for rows in (2, 5):
        assert model.predict({"x": np.zeros((rows, 4))})["y"].shape == (rows, 4)
    with pytest.raises(PredictionError, match="input 'x' takes"):
        model.predict({"x": np.zeros((3, 4))})


def test_optional_inputs() -> None:
    spec = by_hand.model(
        {"x": small.VECTOR, "z": small.VECTOR},
        [operation("add", {"y": small.VECTOR}, {"x": "x", "y": "z"})], ["y"],
    )  # fmt: skip
    spec.description.input[1].type.isOptional = True
    spec.description.input[1].type.multiArrayType.floatDefaultValue = 2.5
    model = mlferry.MLModel(spec)
    np.testing.assert_array_equal(model.predict({"x": X})["y"], X + 2.5)
    np.testing.assert_array_equal(model.predict({"x": X, "z": X})["y"], X + X)
    with pytest.raises(PredictionError, match="'x'"):
        model.predict({"z": X})


def test_images() -> None:
    """relu of 0 to 255 is what went in, in colours and in grey."""
    spec = small.image()
    picture = np.random.default_rng(1).integers(0, 256, (4, 6, 3)).astype(np.uint8)
    actual = mlferry.MLModel(spec, images="array").predict({"x": picture})["y"]
    np.testing.assert_array_equal(actual, picture)
    spec.description.input[0].type.imageType.colorSpace = ft.ImageFeatureType.BGR
    actual = mlferry.MLModel(spec, images="array").predict({"x": picture})["y"]
    np.testing.assert_array_equal(actual, picture[..., ::-1])
    pil = pytest.importorskip("PIL.Image")
    shown = loaded("image").predict({"x": pil.fromarray(picture)})["y"]
    np.testing.assert_array_equal(np.asarray(shown.convert("RGB")), picture)
    with pytest.raises(PredictionError):
        loaded("image").predict({"x": picture[:3]})


def test_grey_images() -> None:
    shape = tensor("fp32", (1, 1, 4, 6))
    ends = {"x": shape}
    spec = by_hand.model(ends, [operation("relu", {"y": shape}, {"x": "x"})], ["y"], 7)
    for feature in (spec.description.input[0], spec.description.output[0]):
        feature.type.Clear()
        feature.type.imageType.height, feature.type.imageType.width = 4, 6
        feature.type.imageType.colorSpace = ft.ImageFeatureType.GRAYSCALE
    picture = np.random.default_rng(1).integers(0, 256, (4, 6)).astype(np.uint8)
    actual = mlferry.MLModel(spec, images="array").predict({"x": picture})["y"]
    np.testing.assert_array_equal(actual, picture)


def test_classifiers() -> None:
    model = loaded("classifier")
    actual = model.predict({"x": np.array([0.0, np.log(3)])})
    assert actual["label"] == "dog"
    assert list(actual["chances"]) == ["cat", "dog"]
    np.testing.assert_allclose(list(actual["chances"].values()), [0.25, 0.75], rtol=1e-6)
    assert type(actual["label"]) is str
    assert type(actual["chances"]["cat"]) is float
    assert model.describe().labels == ["cat", "dog"]


def test_classifiers_of_numbers(tmp_path: Path) -> None:
    spec = small.classifier()
    block = block_of(spec)
    number = tensor("int32")
    number.tensorType.dataType = mil.INT64
    for each in (block.operations[1].outputs[0].type,
                 block.operations[1].outputs[1].type.dictionaryType.keyType):  # fmt: skip
        each.CopyFrom(number)
    labels = mil.Value()
    labels.type.listType.type.CopyFrom(number)
    labels.type.listType.length.constant.size = 2
    for label in (10, 20):
        value = labels.immediateValue.list.values.add()
        value.type.CopyFrom(number)
        value.immediateValue.tensor.longInts.values.append(label)
    block.operations[1].inputs["classes"].arguments[0].value.CopyFrom(labels)
    spec.description.output[0].type.int64Type.SetInParent()
    spec.description.output[1].type.dictionaryType.int64KeyType.SetInParent()
    actual = mlferry.MLModel(spec).predict({"x": np.array([1.0, 0.0])})
    assert actual["label"] == 10
    assert list(actual["chances"]) == [10, 20]


# ---- looking inside ------------------------------------------------------------------------------


def test_intermediate_values() -> None:
    model = loaded("plain")
    result = model.intermediate({"x": X}, ["a", "y"])
    np.testing.assert_array_equal(result["a"], X + 1)
    np.testing.assert_array_equal(result["y"], np.maximum(X + 1, 0))
    with pytest.raises(PredictionError, match="makes no value 'q'"):
        model.intermediate({"x": X}, ["q"])
    assert model.makers() == {"a": ("a", "add"), "y": ("y", "relu")}


def test_shapes() -> None:
    actual = mlferry.shapes(loaded("plain"), {"x": X})
    assert dict(actual) == {"x": (3, 4), "a": (3, 4), "y": (3, 4)}
    assert "add 'a'" in str(actual)
    assert mlferry.shapes(loaded("flexible"), {"x": np.zeros((7, 4))})["y"] == (7, 4)


def test_first_difference() -> None:
    one, changed = loaded("plain"), small.plain()
    assert mlferry.first_difference(one, loaded("plain"), {"x": X}) is None
    block_of(changed).operations[1].type = "sub"
    actual = mlferry.first_difference(one, mlferry.MLModel(changed), {"x": X})
    assert actual is not None
    assert actual.blob == "a"
    assert actual.largest == 2


def test_compare_models() -> None:
    changed = small.plain()
    block_of(changed).operations[2].type = "identity"
    samples = [{"x": X}, {"x": X + 20}]
    same = mlferry.compare_models(loaded("plain"), loaded("plain"), samples)
    other = mlferry.compare_models(loaded("plain"), mlferry.MLModel(changed), samples)
    assert same.outputs["y"].numbers["largest_difference"] == 0
    assert other.outputs["y"].numbers["largest_difference"] == 5


def test_batches_in_processes(tmp_path: Path) -> None:
    path = by_hand.write(tmp_path / "m.mlpackage", *by_hand.adder(1))
    model = mlferry.MLModel(path)
    samples: list[Any] = [{"x": np.full((3, 4), index)} for index in range(6)]
    alone = model.predict(samples)
    with ProcessPoolExecutor(2) as executor:
        together = model.predict(samples, executor=executor)
    assert len(alone) == 6
    for index, (one, two) in enumerate(zip(alone, together, strict=True)):
        np.testing.assert_array_equal(one["y"], two["y"])
        assert one["y"][0, 0] == index + 1


def test_descriptions() -> None:
    expected = {
        "plain": ("mlProgram", "x", "y", "main (CoreML6, the default)", "add", "relu"),
        "stateful": ("s", "read_state", "write_state"),
        "functions": ("main (CoreML8, the default)", "other (CoreML8)"),
        "loop": ("while_loop", "less", "mul"),
        "classifier": ("classify", "label", "chances"),
    }
    for name, words in expected.items():
        text = str(loaded(name))
        for word in words:
            assert word in text, (name, word)
        assert loaded(name).describe().to_dict()["kind"] == "mlProgram"
        assert "<" in loaded(name).describe().html()


def test_descriptions_of_compressed_weights(tmp_path: Path) -> None:
    rows = pytest.importorskip("tests.programs.op_rows")
    make = pytest.importorskip("tests.programs.make")
    expected = {
        ("constexpr_lut_to_dense", 8, "3 bits"): "uint3 constexpr_lut_to_dense",
        ("constexpr_affine_dequantize", 6, ""): "uint8 constexpr_affine_dequantize",
        ("constexpr_blockwise_shift_scale", 8, ""): "uint8 constexpr_blockwise_shift_scale",
        ("constexpr_cast", 6, ""): "fp16 constexpr_cast",
    }
    for row in rows.ROWS:
        words = expected.pop((row.op, row.since, row.label), "")
        if words:
            model = make.model(row.build, row.inputs, tmp_path, row.since)
            assert model.describe().weights == {words: 24}
            assert words in str(model)
    assert expected == {}


def test_pages(tmp_path: Path) -> None:
    for name in small.SANE:
        page = mlferry.visualize_spec(
            loaded(name), path=tmp_path / f"{name}.html", open_browser=False
        )
        text = page.read_text(encoding="utf-8")
        for each in block_of(small.SANE[name]()).operations:
            if each.type != "const":
                assert each.type in text, (name, each.type)
    assert "other" in (tmp_path / "functions.html").read_text(encoding="utf-8")
    for word in ("condition", "body", "less"):
        assert word in (tmp_path / "loop.html").read_text(encoding="utf-8")


# ---- editing -------------------------------------------------------------------------------------

ENDS = {
    "plain": ("x", "y"), "functions": ("x", "y"), "branches": ("x", "y"), "loop": ("x", "y"),
    "classifier": ("x", "label"), "flexible": ("x", "y"), "image": ("x", "y"),
    "stateful": ("x", "y"),
}  # fmt: skip


@pytest.mark.parametrize("name", ENDS)
def test_rename_features(name: str) -> None:
    spec = small.SANE[name]()
    for old, new in zip(ENDS[name], ("given", "made"), strict=True):
        utils.rename_feature(spec, old, new)
    assert validate(spec) == []
    text = str(spec)
    for old in ENDS[name]:
        assert f'name: "{old}"' not in text
        assert f'outputs: "{old}"' not in text
    model, before = mlferry.MLModel(spec), loaded(name)
    if name == "image":
        inputs: Any = np.ones((4, 6, 3), np.uint8)
    else:
        feature = (before.spec.description.functions or [before.spec.description])[0].input[0]
        inputs = np.ones(list(feature.type.multiArrayType.shape))
    state = [(m.make_state(),) if name == "stateful" else () for m in (model, before)]
    actual = model.predict({"given": inputs}, *state[0])["made"]
    expected = before.predict({"x": inputs}, *state[1])[ENDS[name][1]]
    if isinstance(expected, str):
        assert actual == expected
    else:
        np.testing.assert_array_equal(np.asarray(actual), np.asarray(expected))
    if name == "classifier":
        assert spec.description.predictedFeatureName == "made"


def test_what_cannot_be_renamed() -> None:
    for spec in (small.plain(), small.functions()):
        for new, message in (("a", "is taken"), ("y", "is taken"), ("w", "is taken"),
                             ("1x", "is no name"), ("x y", "is no name"), ("ä", "is no name"),
                             ("", "needs a name")):  # fmt: skip
            with pytest.raises(SpecError, match=message):
                utils.rename_feature(spec, "x", new)
        with pytest.raises(SpecError, match="no input or output 'q'"):
            utils.rename_feature(spec, "q", "z")
    inner = small.loop()
    for name in ("n2", "x3", "go"):
        with pytest.raises(SpecError, match="is taken"):
            utils.rename_feature(inner, "x", name)


REFUSED: dict[str, Callable[[Model], Any]] = {
    "half weights": utils.convert_neural_network_spec_weights_to_fp16,
    "types": lambda spec: utils.change_input_output_types(mlferry.MLModel(spec), {"x": "float64"}),
    "doubles": utils.convert_float_to_double_multiarray_type,
    "floats": utils.convert_double_to_float_multiarray_type,
    "enumeration": lambda spec: add_multiarray_ndshape_enumeration(spec, "x", [(3, 4), (4, 4)]),
    "range": lambda spec: set_multiarray_ndshape_range(spec, "x", [1, 4], [8, 4]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_for_networks_only(name: str) -> None:
    spec = small.plain()
    with pytest.raises(UnsupportedModelError, match="ML Program"):
        REFUSED[name](spec)
    assert spec == small.plain()


@pytest.mark.parametrize("name", small.SANE)
def test_what_is_not_in_a_program(name: str) -> None:
    model = loaded(name)
    with pytest.raises(UnsupportedModelError):
        _ = model.session
    assert utils.get_custom_layers(model.spec) == []


# ---- options -------------------------------------------------------------------------------------


def test_precision() -> None:
    """1/3 in half precision, and as it is meant."""
    half, whole = tensor("fp16", (1,)), tensor("fp32", (1,))
    spec = by_hand.model(
        {"x": whole},
        [operation("cast", {"h": half}, {"x": "x", "dtype": literal("string", "fp16")}),
         operation("mul", {"m": half}, {"x": "h", "y": "h"}),
         operation("cast", {"y": whole}, {"x": "m", "dtype": literal("string", "fp32")})], ["y"],
    )  # fmt: skip
    inputs = np.array([1 / 3], np.float32)
    rounded = np.float16(np.float32(np.float16(1 / 3)) ** 2)
    assert mlferry.MLModel(spec).predict({"x": inputs})["y"] == rounded
    for exact in (mlferry.MLModel(spec, precision="exact"),
                  mlferry.MLModel(spec).with_precision("exact")):  # fmt: skip
        actual = float(exact.predict({"x": inputs})["y"][0])
        assert actual == pytest.approx(1 / 9, rel=1e-6)
        assert actual != float(rounded)
    for wrong in ("double", "", None):
        with pytest.raises(SpecError, match="half or exact"):
            mlferry.MLModel(spec, precision=wrong)  # type: ignore[arg-type]


WRONG_INPUTS: dict[str, Any] = {
    "missing": {}, "unknown": {"x": X, "q": X}, "shape": {"x": X.T}, "text": {"x": "a"},
    "objects": {"x": [object()]}, "ragged": {"x": [[1], [1, 2]]}, "None": {"x": None},
    "complex": {"x": X + 1j},
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG_INPUTS)
def test_inputs_that_do_not_fit(name: str) -> None:
    with pytest.raises(PredictionError):
        loaded("plain").predict(WRONG_INPUTS[name])


def test_integers_are_checked() -> None:
    whole = tensor("int32", (2,))
    spec = by_hand.model({"x": whole}, [operation("identity", {"y": whole}, {"x": "x"})], ["y"])
    model = mlferry.MLModel(spec)
    for right in ([1.0, -2.0], [-(2**31), 2**31 - 1]):
        assert model.predict({"x": right})["y"].tolist() == right
    for wrong in ([0.5, 1], [2**31, 0], [-(2**31) - 1, 0], [np.nan, 0], [np.inf, 0], [1e30, 0]):
        with pytest.raises(PredictionError, match="input 'x'"):
            model.predict({"x": np.array(wrong)})
