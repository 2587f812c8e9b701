"""`NeuralNetworkBuilder` writes what coremltools' own builder writes for the same calls."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import mlferry
from mlferry.errors import SpecError
from mlferry.layers import versions
from mlferry.layers.methods import METHODS
from mlferry.models import datatypes
from mlferry.models.neural_network import AdamParams, NeuralNetworkBuilder, SgdParams
from mlferry.models.neural_network.printer import print_network_spec
from mlferry.proto import NeuralNetwork_pb2
from mlferry.spec.proto import model_pb2

from .builder_calls import CALLS, GIVEN_NETWORKS


@pytest.fixture(scope="module")
def peer() -> Any:
    """coremltools' module with the builder, with its types."""
    coremltools = pytest.importorskip("coremltools")
    return SimpleNamespace(
        **vars(coremltools.models.neural_network),
        datatypes=coremltools.models.datatypes,
        CustomLayerParams=coremltools.proto.NeuralNetwork_pb2.CustomLayerParams,
    )


def normalized(spec: Any) -> bytes:
    """The bytes of a model without its version, which coremltools often sets too low."""
    copy = model_pb2.Model.FromString(spec.SerializeToString())
    copy.ClearField("specificationVersion")
    return copy.SerializeToString(deterministic=True)


def both(peer: Any, build: Callable[[Any, Any], Any], **options: Any) -> tuple[Any, Any]:
    """What the same calls make of our builder and of the peer's."""
    result = []
    for module in (mlferry.models.neural_network, peer):
        array = module.datatypes.Array
        inputs = [("x", array(3, 4, 4)), ("z", array(3))]
        builder = module.NeuralNetworkBuilder(inputs, [("y", array(3))], **options)
        build(builder, module)
        result.append(builder.spec)
    return result[0], result[1]


@pytest.mark.parametrize(
    ("method", "arguments"), CALLS, ids=[f"{index}-{name}" for index, (name, _) in enumerate(CALLS)]
)
def test_layers(peer: Any, method: str, arguments: dict[str, Any]) -> None:
    def build(builder: Any, module: Any) -> None:
        inputs = dict(arguments)
        if module is peer and "custom_proto_spec" in inputs:
            message = inputs["custom_proto_spec"].SerializeToString()
            inputs["custom_proto_spec"] = peer.CustomLayerParams.FromString(message)
        getattr(builder, method)(**inputs)

    exact = method not in ("add_load_constant",)
    ours, theirs = both(peer, build, disable_rank5_shape_mapping=exact)
    assert normalized(ours) == normalized(theirs)
    assert ours.specificationVersion >= versions.required(ours)


def test_every_argument_of_every_method_is_in_some_row() -> None:
    for name in METHODS:
        method = METHODS.find(name).value
        used = {argument for called, row in CALLS if called == name for argument in row}
        expected = set(method.signature.parameters) - {"kwargs"}
        assert expected - used == set(GIVEN_NETWORKS.get(name, ())), name


def test_signatures(peer: Any) -> None:
    theirs = peer.NeuralNetworkBuilder
    public = [name for name in dir(theirs) if not name.startswith("_")]
    assert len(public) > 160
    for name in public:
        ours = inspect.signature(getattr(NeuralNetworkBuilder, name)).parameters.values()
        told = inspect.signature(getattr(theirs, name)).parameters.values()
        assert [(p.name, p.default, p.kind) for p in ours] == [
            (p.name, p.default, p.kind) for p in told
        ], name


# ---- around the layers --------------------------------------------------------------------


def dense(builder: Any, name: str = "fc", blob: str = "x", result: str = "s") -> None:
    builder.add_inner_product(
        name, W=np.ones((3, 3), np.float32), b=np.zeros(3, np.float32), input_channels=3,
        output_channels=3, has_bias=True, input_name=blob, output_name=result,
    )  # fmt: skip


def labelled(labels: list[Any], **options: Any) -> Callable[[Any, Any], None]:
    def build(builder: Any, module: Any) -> None:
        dense(builder)
        builder.add_softmax("softmax", "s", "y")
        builder.set_class_labels(labels, **options)

    return build


def trained(loss: Callable[[Any, Any], None], optimizer: Callable[[Any, Any], None]) -> Any:
    def build(builder: Any, module: Any) -> None:
        dense(builder)
        builder.add_softmax("softmax", "s", "p")
        builder.make_updatable(["fc"])
        loss(builder, module)
        optimizer(builder, module)
        builder.set_epochs(10, [5, 10])

    return build


def cross_entropy(builder: Any, module: Any) -> None:
    builder.set_categorical_cross_entropy_loss("loss", "p")


def squared_error(builder: Any, module: Any) -> None:
    builder.set_mean_squared_error_loss("loss", ("s", module.datatypes.Array(3)))


def sgd(builder: Any, module: Any) -> None:
    params = module.SgdParams(lr=0.25, batch=4, momentum=0.5)
    params.set_lr(0.25, 0.0, 0.5)
    params.set_batch(4, [4, 8])
    params.set_momentum(0.5, 0.25, 0.75)
    builder.set_sgd_optimizer(params)


def adam(builder: Any, module: Any) -> None:
    params = module.AdamParams()
    params.set_batch(16, [1, 16])
    params.set_beta1(0.5, 0.25, 0.75)
    params.set_beta2(0.5, 0.25, 0.75)
    params.set_eps(0.5, 0.25, 0.75)
    builder.set_adam_optimizer(params)


def trained_labels(builder: Any, module: Any) -> None:
    labelled(["a", "b", "c"])(builder, module)
    builder.make_updatable(["fc"])
    builder.set_categorical_cross_entropy_loss("loss", "y")


def pixels(**options: Any) -> Callable[[Any, Any], None]:
    return lambda builder, module: builder.set_pre_processing_parameters(**options)


AROUND: dict[str, tuple[dict[str, Any], Callable[[Any, Any], Any]]] = {
    "nothing": ({}, lambda b, m: None),
    "a regressor": ({"mode": "regressor"}, lambda b, m: None),
    "exact": ({"disable_rank5_shape_mapping": True}, lambda b, m: None),
    "floats": ({"use_float_arraytype": True}, lambda b, m: None),
    "text labels": ({"mode": "classifier"}, labelled(["a", "b", "c"])),
    "number labels": ({"mode": "classifier"}, labelled([1, 2, 3], predicted_feature_name="n")),
    "a named blob": ({"mode": "classifier"}, labelled(["a", "b", "c"], prediction_blob="s")),
    "inputs": ({}, lambda b, m: b.set_input(["a", "b"], [(3, 5, 5), (1, 7)])),
    "exact inputs": (
        {"disable_rank5_shape_mapping": True},
        lambda b, m: b.set_input(["a", "b"], [(3, 5, 5, 2), (1, 7)]),
    ),
    "outputs": ({}, lambda b, m: b.set_output(["out"], [(1, 2, 3)])),
    "optional": ({}, lambda b, m: b.set_optional_input(1)),
    "optional float": ({}, lambda b, m: b.set_optional_input(1, 0.5)),
    "optional double": ({}, lambda b, m: b.set_optional_input(0, 0.5, "double")),
    "optional int": ({}, lambda b, m: b.set_optional_input(1, 2, "Int")),
    "training inputs": ({}, lambda b, m: b.set_training_input([("t", m.datatypes.Array(3))])),
    "SGD": ({}, trained(cross_entropy, sgd)),
    "Adam": ({}, trained(squared_error, adam)),
    "a seed": ({}, lambda b, m: b.set_shuffle(7)),
    "one epoch": ({}, lambda b, m: b.set_epochs()),
    "trained labels": ({"mode": "classifier"}, trained_labels),
    "pixels": ({}, pixels(image_input_names=["x"])),
    "BGR pixels": (
        {},
        pixels(image_input_names=["x"], is_bgr=True, red_bias=1.0, green_bias=2.0, blue_bias=3.0,
               gray_bias=4.0, image_scale=0.5),
    ),
    "pixels by name": (
        {},
        pixels(image_input_names=["x"], is_bgr={"x": True}, red_bias={"x": 1.0},
               image_scale={"x": 0.5}),
    ),
    "no pixels": ({}, pixels(image_input_names=[])),
}  # fmt: skip


@pytest.mark.parametrize("case", AROUND)
def test_around_the_layers(peer: Any, case: str) -> None:
    options, build = AROUND[case]

    def build_and_add(builder: Any, module: Any) -> None:
        build(builder, module)
        builder.add_erf("last", "x", "e")  # the peer's network is of no kind without a layer

    ours, theirs = both(peer, build_and_add, **options)
    assert normalized(ours) == normalized(theirs)


def test_states(peer: Any) -> None:
    """The peer's own method fails on text in the place of a type; what it should write."""
    builder = NeuralNetworkBuilder([("x", datatypes.Array(3))], [("y", datatypes.Array(3))])
    builder.add_optionals([("h_in", 3), ("c_in", (1, 3))], [("h_out", 3)])
    inputs = builder.spec.description.input
    assert [f.name for f in inputs if f.type.isOptional] == ["h_in", "c_in"]
    assert [list(f.type.multiArrayType.shape) for f in inputs] == [[3], [3], [1, 3]]
    assert [f.name for f in builder.spec.description.output] == ["y", "h_out"]


def test_a_model_is_built_on(peer: Any) -> None:
    first, _ = both(peer, lambda b, m: dense(b))
    ours = NeuralNetworkBuilder(spec=first)
    theirs = peer.NeuralNetworkBuilder(spec=peer_spec(first))
    for builder in (ours, theirs):
        assert list(builder.layers) == ["fc"]
        assert list(builder.layer_specs) == ["fc"]
        builder.add_softmax("softmax", "s", "y")
    assert ours.spec is first
    assert normalized(first) == normalized(theirs.spec)


@pytest.mark.parametrize("axes", [(0, 3, 1, 2), (0, 2, 1, 3)])
@pytest.mark.parametrize("shape", [(1, 4, 5, 3), (4, 5, 3)])
def test_an_image_of_a_network_that_wants_channels_last(
    shape: tuple[int, ...], axes: tuple[int, ...]
) -> None:
    """What a network makes of an array it makes of the picture, too."""
    axes = axes if len(shape) == 4 else tuple(axis - 1 for axis in axes[1:])
    pixels = np.random.default_rng(0).integers(0, 256, (4, 5, 3)).astype(np.uint8)
    builder = NeuralNetworkBuilder(
        [("x", datatypes.Array(*shape))], [("y", None)], disable_rank5_shape_mapping=True
    )
    builder.add_transpose("turn", axes, "x", "turned")
    builder.add_clip("clip", "turned", "y", 10.0, 200.0)
    expected = np.clip(pixels.reshape(shape).transpose(axes).astype(np.float32), 10, 200)
    array = mlferry.MLModel(builder.spec).predict({"x": pixels.reshape(shape).astype(np.float32)})
    np.testing.assert_array_equal(array["y"], expected)
    builder.set_pre_processing_parameters(["x"], image_format="NHWC")
    actual = mlferry.MLModel(builder.spec).predict({"x": pixels})["y"]
    np.testing.assert_array_equal(actual, expected)
    dropped = axes == (0, 3, 1, 2)
    assert ("turn" in builder.layers) == (not dropped)


def test_a_network_inside_a_loop() -> None:
    """y = 2 ** 3 * x, with a body that is built alone."""
    builder = NeuralNetworkBuilder(
        [("x", datatypes.Array(2))], [("y", None)], disable_rank5_shape_mapping=True
    )
    builder.add_copy("start", "x", "y")
    loop = builder.add_loop("loop", max_iterations=3)
    body = NeuralNetworkBuilder(nn_spec=loop.loop.bodyNetwork)
    body.add_elementwise("double", ["y"], "twice", "MULTIPLY", alpha=2.0)
    body.add_copy("keep", "twice", "y")
    actual = mlferry.MLModel(builder.spec).predict({"x": np.array([1.0, 3.0])})
    np.testing.assert_array_equal(actual["y"], [8.0, 24.0])
    with pytest.raises(SpecError, match="no inputs, outputs or training"):
        body.set_optional_input(0)
    with pytest.raises(SpecError, match="no inputs, outputs or training"):
        body.set_epochs(1)


def built() -> NeuralNetworkBuilder:
    builder = NeuralNetworkBuilder([("x", datatypes.Array(3))], [("y", None)])
    dense(builder)
    return builder


WRONG: dict[str, tuple[Callable[[NeuralNetworkBuilder], Any], str]] = {
    "a name twice": (dense, "there is a layer 'fc' already"),
    "an unknown mode": (
        lambda b: b.add_unary("u", "x", "y", "cbrt"), "mode='cbrt': possible are 'SQRT'"
    ),
    "an enum's value": (
        lambda b: b.add_pooling("p", 2, 2, 1, 1, "MEDIAN", "VALID", "x", "y"), "is one of MAX"
    ),
    "a number for a list": (
        lambda b: b.add_transpose("t", 3, "x", "y"), "an argument does not fit"
    ),
    "missing gates": (
        lambda b: b.add_gru("g", [0, 0], [0, 0], None, 2, 3, ["x"], ["y"]),
        "2 arrays of WeightMatrix",
    ),
    "a mask too few": (
        lambda b: b.add_slice_static("s", "x", "y", [0, 0], [1, 1], [1, 1], [True], [True, True]),
        "beginIds has 2 entries, and not beginMasks",
    ),
    "a size": (lambda b: b.add_slice_by_size("s", ["x", "i"], "y", 0, 0), "at least 1"),
    "values for a shape": (
        lambda b: b.add_load_constant_nd("c", "y", np.ones(3), (2, 2)), "3 values do not fill"
    ),
    "a table too short": (
        lambda b: b.add_embedding("e", b"12", None, 1, 2, False, "x", "y", True, "lut", 2,
                                  quant_lut=[1.0]),
        "quant_lut has 4 values",
    ),
    "bits too few": (
        lambda b: b.add_convolution("c", 3, 4, 2, 5, 1, 1, "valid", 1, b"1", None, False,
                                    quantization_type="linear", quant_scale=[1.0],
                                    quant_bias=[0.0]),
        "120 weights of 8 bits are 120 bytes",
    ),
    "a misspelt option": (
        lambda b: b.add_convolution("c", 3, 4, 2, 5, 1, 1, "valid", 1, b"1", None, False,
                                    quantisation_type="linear"),
        "Did you mean 'quantization_type'",
    ),
    "an unknown layer": (lambda b: b.make_updatable(["FC"]), "Did you mean 'fc'"),
    "no softmax": (lambda b: b.set_categorical_cross_entropy_loss("l", "s"), "There is none"),
    "no pair": (lambda b: b.set_mean_squared_error_loss("l", "s"), "is a pair of a name"),
    "the other optimizer": (
        lambda b: b.set_adam_optimizer(SgdParams()), "give a AdamParams, not a SgdParams"
    ),
    "epochs": (lambda b: b.set_epochs(3, [1, 2]), "one of the set"),
    "a seed": (lambda b: b.set_shuffle("7"), "the seed is an integer"),
    "no classifier": (lambda b: b.set_class_labels(["a"]), "mode='classifier'"),
    "no such input": (lambda b: b.set_optional_input(1), "there is no input 1"),
    "no such image": (
        lambda b: b.set_pre_processing_parameters(["y"]), "there is no input 'y'"
    ),
    "no image": (
        lambda b: b.set_pre_processing_parameters(["x"]), "has 1 axes; an image has 3"
    ),
    "a shape too many": (lambda b: b.set_input(["x", "z"], [(1,), (2,)]), "the model has 1 inputs"),
    "no convolution": (lambda b: b.inspect_conv_channels("fc"), "of the kind innerProduct"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_wrong_calls(case: str) -> None:
    act, message = WRONG[case]
    builder = built()
    before = builder.spec.SerializeToString()
    with pytest.raises(SpecError, match=message):
        act(builder)
    assert builder.spec.SerializeToString() == before


def test_wrong_builders() -> None:
    network = NeuralNetwork_pb2.NeuralNetwork()
    pairs = [("x", datatypes.Array(3))]
    for arguments, message in (
        ({}, "needs input_features and output_features"),
        ({"input_features": pairs, "output_features": pairs, "mode": "x"}, "mode='x'"),
        ({"input_features": ["x"], "output_features": pairs}, "a pair of a name and a type"),
        ({"input_features": pairs * 2, "output_features": pairs}, "two features have the name 'x'"),
        ({"spec": built().spec, "nn_spec": network}, "not both"),
        ({"spec": model_pb2.Model()}, "the message of a neural network"),
    ):
        with pytest.raises(SpecError, match=message):
            NeuralNetworkBuilder(**arguments)
    with pytest.raises(TypeError, match=r"add_lrn\(\): missing a required argument"):
        built().add_lrn("l")


def test_what_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    builder = built()
    builder.add_softmax("softmax", "s", "y")
    builder.make_updatable(["fc"])
    builder.set_categorical_cross_entropy_loss("loss", "y")
    builder.set_adam_optimizer(AdamParams(batch=4))
    for show, expected in (
        (
            builder.inspect_layers,
            ["[Id: 1] Name: softmax", "[Id: 0] Name: fc (Type: innerProduct)"],
        ),
        (lambda: builder.inspect_layers(1), ["Name: softmax (Type: softmax)"]),
        (lambda: builder.inspect_layers(verbose=True), ["weights: 9 values, float32"]),
        (builder.inspect_updatable_layers, ["Name: fc (Type: innerProduct)", "['s']"]),
        (builder.inspect_loss_layers, ["Name: loss", "Loss target: y_true"]),
        (
            builder.inspect_optimizer,
            ["adamOptimizer", "miniBatchSize: 4, one of [4]", "beta1: 0.9"],
        ),
        (builder.inspect_input_features, ["[Id: 0] Name: x", "multi-array float64 3"]),
        (builder.inspect_output_features, ["[Id: 0] Name: y"]),
        (lambda: builder.inspect_innerproduct_channels("fc"), ["inputChannels: 3"]),
        (lambda: print_network_spec(builder.spec), ["(innerProduct) fc", "outputChannels = 3"]),
        (
            lambda: print_network_spec(builder.spec, style="coding"),
            ["def model(x):", "    s = innerProduct(x)", "return y"],
        ),
    ):
        show()
        shown = capsys.readouterr().out
        assert [text for text in expected if text not in shown] == []
    print_network_spec(builder.spec, interface_only=True)
    assert "innerProduct" not in capsys.readouterr().out


def peer_spec(spec: model_pb2.Model) -> Any:
    from coremltools.proto import Model_pb2

    return Model_pb2.Model.FromString(spec.SerializeToString())
