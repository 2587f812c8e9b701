"""Weights go in and come out of every encoding of the format, bit by bit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from mlferry.errors import SpecError
from mlferry.layers.builder import LAYER_KINDS
from mlferry.spec import weights
from mlferry.spec.proto import model_pb2, neural_network_pb2 as nn
from mlferry.spec.reflection import is_map, is_repeated

# Every value as the bits that the format documents: most significant bit first.
GOLDEN = [
    (1, [1, 0, 1, 1, 0, 0, 0, 1, 1], "b180"),
    (2, [3, 0, 1, 2, 3], "c6c0"),
    (3, [1, 2, 3, 4, 5, 6, 7, 0], "29cbb8"),
    (4, [1, 15, 7], "1f70"),
    (5, [1, 31, 2], "0fc4"),
    (6, [63, 0, 1], "fc0040"),
    (7, [127, 1], "fe04"),
    (8, [1, 254, 0], "01fe00"),
]
WEIGHTED = {
    "activation", "batchedMatmul", "batchnorm", "bias", "biDirectionalLSTM", "convolution",
    "convolution3d", "custom", "embedding", "embeddingND", "gru", "innerProduct",
    "layerNormalization", "loadConstant", "loadConstantND", "scale", "simpleRecurrent",
    "uniDirectionalLSTM",
}  # fmt: skip


def naive_bits(values: list[int], bits: int) -> bytes:
    """The stream of bits written as text."""
    text = "".join(f"{value:0{bits}b}" for value in values)
    text += "0" * (-len(text) % 8)
    return bytes(int(text[start : start + 8], 2) for start in range(0, len(text), 8))


@pytest.mark.parametrize(("bits", "values", "packed"), GOLDEN)
def test_documented_bit_patterns(bits: int, values: list[int], packed: str) -> None:
    assert weights.pack_bits(values, bits).hex() == packed
    assert weights.unpack_bits(bytes.fromhex(packed), bits, len(values)).tolist() == values


@st.composite
def bit_values(draw: st.DrawFn) -> tuple[int, list[int]]:
    bits = draw(st.integers(1, 8))
    return bits, draw(st.lists(st.integers(0, 2**bits - 1), max_size=70))


@given(bit_values(), st.sampled_from([8, 16, 1 << 20]), st.binary(max_size=3))
@settings(deadline=None)
def test_bits_go_in_and_come_out(sample: tuple[int, list[int]], chunk: int, behind: bytes) -> None:
    bits, values = sample
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weights, "_CHUNK", chunk)
        packed = weights.pack_bits(values, bits)
        assert packed == naive_bits(values, bits)
        assert weights.unpack_bits(packed + behind, bits, len(values)).tolist() == values


@pytest.mark.parametrize("bits", [0, 9, -1])
def test_number_of_bits_is_checked(bits: int) -> None:
    with pytest.raises(SpecError, match="1 to 8 bits"):
        weights.pack_bits([0], bits)
    with pytest.raises(SpecError, match="1 to 8 bits"):
        weights.unpack_bits(b"\0", bits, 1)


@pytest.mark.parametrize("values", [[8], [-1], [0, 255]])
def test_values_that_do_not_fit(values: list[int]) -> None:
    with pytest.raises(SpecError, match="do not fit into 3 bits"):
        weights.pack_bits(values, 3)


def test_too_few_bytes() -> None:
    with pytest.raises(SpecError, match="9 values of 3 bits need 4 bytes; the file holds 3"):
        weights.unpack_bits(b"\0\0\0", 3, 9)


FLOATS = np.array([[0.5, -1.25, 3.0], [1e-3, -0.0, 7.0]], np.float32)


def stored(kind: str) -> tuple[nn.WeightParams, np.ndarray, str]:
    """A weight of shape (2, 3), the values that it stands for, and its encoding's text."""
    message = nn.WeightParams()
    indices = np.array([[0, 1, 2], [3, 4, 5]])
    if kind == "float32":
        weights.write(message, FLOATS)
        return message, FLOATS, "float32"
    if kind == "float16":
        weights.write_half(message, FLOATS)
        return message, FLOATS.astype(np.float16).astype(np.float32), "float16"
    if kind == "linear":
        weights.write_linear(message, indices, 3, 0.5, -1)
        return message, indices * 0.5 - 1, "linear 3"
    if kind == "linear, no bias":
        weights.write_linear(message, indices, 8, [2])
        return message, indices * 2.0, "linear 8"
    if kind == "linear, channels on axis 0":
        weights.write_linear(message, indices, 3, [1, 10], [0, 5])
        return message, np.array([[0, 1, 2], [35, 45, 55]]), "linear 3"
    if kind == "lut":
        weights.write_lut(message, indices, 3, [9, 8, 7, 6, 5, 4, 3, 2])
        return message, np.array([[9, 8, 7], [6, 5, 4]]), "lut 3"
    message.int8RawValue = np.array([[-127, 0, 1], [2, 3, 127]], np.int8).tobytes()
    message.quantization.numberOfBits = 8
    message.quantization.linearQuantization.scale.append(0.5)
    return message, np.array([[-63.5, 0, 0.5], [1, 1.5, 63.5]]), "int8"


KINDS = (
    "float32", "float16", "linear", "linear, no bias", "linear, channels on axis 0", "lut", "int8",
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_written_values_are_read(kind: str) -> None:
    message, values, text = stored(kind)
    again = nn.WeightParams.FromString(message.SerializeToString())
    for source in (message, again):
        result = weights.read(source, (2, 3))
        assert result.dtype == np.float32
        np.testing.assert_array_equal(result, values.astype(np.float32))
        assert str(weights.encoding(source)) == text
        assert weights.count(source) // 6 == 1


def test_scales_along_the_second_axis() -> None:
    message = nn.WeightParams()
    weights.write_linear(message, [[0, 1, 2], [3, 4, 5]], 3, [1, 10, 100], [0, 1, 2])
    result = weights.read(message, (2, 3), channel_axis=1)
    assert result.tolist() == [[0, 11, 202], [3, 41, 502]]


@given(
    st.integers(1, 8),
    st.lists(st.integers(1, 4), min_size=1, max_size=4),
    st.data(),
)
@settings(deadline=None)
def test_linear_and_table_against_a_naive_reading(
    bits: int, shape: list[int], data: st.DataObject
) -> None:
    size = int(np.prod(shape))
    indices = data.draw(st.lists(st.integers(0, 2**bits - 1), min_size=size, max_size=size))
    axis = data.draw(st.integers(0, len(shape) - 1))
    scales = data.draw(st.lists(st.integers(-3, 3), min_size=shape[axis], max_size=shape[axis]))
    message = nn.WeightParams()
    weights.write_linear(message, indices, bits, scales, scales)
    actual = weights.read(message, shape, channel_axis=axis)
    for place in np.ndindex(*shape):
        index = indices[int(np.ravel_multi_index(place, shape))]
        assert actual[place] == index * scales[place[axis]] + scales[place[axis]]
    table = [3 * entry for entry in range(2**bits)]
    weights.write_lut(message, indices, bits, table)
    assert weights.read(message, shape).ravel().tolist() == [table[index] for index in indices]


@pytest.mark.parametrize(
    ("values", "field"),
    [
        (np.array([1.5], np.float16), "float16Value"),
        (np.array([7], np.uint8), "rawValue"),
        (np.array([1.5]), "floatValue"),
        ([1, 2, 3], "floatValue"),
        (np.array([True, False]), "floatValue"),
        (np.array([[1, 2], [3, 4]], np.float32).T, "floatValue"),
        (np.array([1.5], ">f4"), "floatValue"),
    ],
)
def test_the_type_tells_how_an_array_is_stored(values: Any, field: str) -> None:
    message = nn.WeightParams()
    weights.write(message, np.zeros(9, np.float32))
    weights.write(message, values)
    assert [actual.name for actual, _ in message.ListFields()] == [field]
    flat = weights.stored(message)
    np.testing.assert_array_equal(flat, np.asarray(values).ravel())


def test_float_runs_of_a_merged_message_are_joined() -> None:
    message = nn.WeightParams()
    for part in ([1.0, 2.0], [3.0]):
        more = nn.WeightParams(floatValue=part)
        message.MergeFromString(more.SerializeToString())
    assert weights.stored(message).tolist() == [1, 2, 3]


def test_an_empty_weight() -> None:
    message = nn.WeightParams()
    weights.write(message, [])
    assert weights.encoding(message) is None
    assert weights.count(message) == 0
    assert weights.stored(message).size == 0
    assert weights.read(message, (0, 3)).shape == (0, 3)
    with pytest.raises(SpecError, match="no values are stored, 6 are needed"):
        weights.read(message, (2, 3))


def raw(**fields: Any) -> nn.WeightParams:
    return nn.WeightParams(**fields)


def quantized(bits: int = 8, **table: Any) -> nn.QuantizationParams:
    return nn.QuantizationParams(numberOfBits=bits, **table)


LINEAR = {"linearQuantization": nn.LinearQuantizationParams(scale=[1, 2, 3])}
TABLE = {"lookupTableQuantization": nn.LookUpTableQuantizationParams(floatValue=[1, 2, 3])}
BAD = {
    "two kinds": (raw(floatValue=[1], rawValue=b"a"), "several kinds: floatValue, rawValue"),
    "no table": (raw(rawValue=b"abcdef"), "their meaning is unknown"),
    "no bits": (raw(rawValue=b"abcdef", quantization=quantized(0, **LINEAR)), "not 0"),
    "9 bits": (raw(rawValue=b"abcdef", quantization=quantized(9, **LINEAR)), "not 9"),
    "scales": (raw(rawValue=b"abcdef", quantization=quantized(**LINEAR)), "1 or 2 are possible"),
    "table": (raw(rawValue=b"abcdef", quantization=quantized(2, **TABLE)), "4 entries"),
    "bytes": (raw(rawValue=b"abcde", quantization=quantized(**LINEAR)), "need 6 bytes"),
    "floats": (raw(floatValue=[1, 2]), "2 values are stored, 6 are needed"),
    "halves": (raw(float16Value=b"abc"), "half-precision weights of 3 bytes"),
    "int8 scales": (raw(int8RawValue=b"abcdef", quantization=quantized(**LINEAR)), "one scale"),
}


@pytest.mark.parametrize("name", BAD)
def test_broken_weights_are_refused(name: str) -> None:
    message, text = BAD[name]
    with pytest.raises(SpecError, match=text):
        weights.read(message, (2, 3))


@pytest.mark.parametrize(
    ("write", "values", "text"),
    [
        (weights.write, ["a"], "must be numbers"),
        (weights.write, [1e39], "does not fit into float32"),
        (weights.write_half, [65505.0], "half precision"),
        (weights.write_half, [-7e4], "half precision"),
    ],
)
def test_values_that_cannot_be_stored(write: Any, values: Any, text: str) -> None:
    with pytest.raises(SpecError, match=text):
        write(nn.WeightParams(), values)


@pytest.mark.parametrize("write", [weights.write, weights.write_half])
def test_infinity_and_nan_stay(write: Any) -> None:
    message = nn.WeightParams()
    write(message, [np.inf, -np.inf, np.nan, 65504])
    np.testing.assert_array_equal(weights.read(message, (4,)), [np.inf, -np.inf, np.nan, 65504])


def test_a_table_has_an_entry_for_every_index() -> None:
    with pytest.raises(SpecError, match="4 entries: 3"):
        weights.write_lut(nn.WeightParams(), [0], 2, [1, 2, 3])


# ---- finding weights ---------------------------------------------------------------------------


def reaches_weights(descriptor: Any, seen: frozenset[str] = frozenset()) -> bool:
    """Whether messages of a type hold weights of their own, not those of inner networks."""
    if descriptor.name in {"WeightParams", "NeuralNetwork"} | seen:
        return bool(descriptor.name == "WeightParams")
    inner = [field.message_type for field in descriptor.fields if field.message_type]
    return any(reaches_weights(each, seen | {descriptor.name}) for each in inner)


def fill(message: Any, path: str = "") -> Iterator[str]:
    """Store a value in every weight of a message; the paths of the weights, from the schema."""
    for field in message.DESCRIPTOR.fields:
        if field.message_type is None or is_map(field) or not reaches_weights(field.message_type):
            continue
        if field.containing_oneof and message.WhichOneof(field.containing_oneof.name):
            continue
        value = getattr(message, field.name)
        item = value.add() if is_repeated(field) else value
        name = f"{path}{field.name}" + ("[0]" if is_repeated(field) else "")
        if isinstance(item, nn.WeightParams):
            item.floatValue.append(1)
            yield name
        else:
            yield from fill(item, f"{name}.")


def weighted_layer(kind: str, name: str = "layer") -> tuple[nn.NeuralNetworkLayer, list[str]]:
    layer = nn.NeuralNetworkLayer(name=name)
    params = getattr(layer, kind)
    params.SetInParent()
    return layer, list(fill(params, f"{kind}."))


def test_the_kinds_with_weights() -> None:
    layer = nn.NeuralNetworkLayer()
    matches = {kind for kind in LAYER_KINDS if reaches_weights(getattr(layer, kind).DESCRIPTOR)}
    assert matches == WEIGHTED
    assert len(matches) == 18


@pytest.mark.parametrize("kind", sorted(WEIGHTED))
def test_every_weight_of_a_layer_is_found(kind: str) -> None:
    layer, paths = weighted_layer(kind)
    assert paths
    actual = list(weights.iter_weights(layer))
    assert [weight.path for weight in actual] == paths
    assert {(weight.kind, weight.layer.name) for weight in actual} == {(kind, "layer")}


@pytest.mark.parametrize("kind", sorted(set(LAYER_KINDS) - WEIGHTED))
def test_other_kinds_hold_no_weights(kind: str) -> None:
    layer = nn.NeuralNetworkLayer(name="layer")
    getattr(layer, kind).SetInParent()
    assert list(weights.iter_weights(layer)) == []


def network_of_every_kind(network: Any, suffix: str) -> None:
    for kind in sorted(WEIGHTED):
        network.layers.append(weighted_layer(kind, f"{kind}{suffix}")[0])


def nested() -> dict[str, model_pb2.Model]:
    """A model for each way in which a network can lie in a model."""
    result = {}
    for kind in ("neuralNetwork", "neuralNetworkClassifier", "neuralNetworkRegressor"):
        result[kind] = model_pb2.Model()
        network_of_every_kind(getattr(result[kind], kind), "")
    for kind, fields in (
        ("branch", ("ifBranch", "elseBranch")),
        ("loop", ("conditionNetwork", "bodyNetwork")),
    ):
        for field in fields:
            spec = result[f"{kind}.{field}"] = model_pb2.Model()
            layer = spec.neuralNetwork.layers.add(name="outer")
            network_of_every_kind(getattr(getattr(layer, kind), field), "")
    for kind in ("pipeline", "pipelineClassifier", "pipelineRegressor"):
        spec = result[kind] = model_pb2.Model()
        pipeline = getattr(spec, kind) if kind == "pipeline" else getattr(spec, kind).pipeline
        pipeline.models.add().CopyFrom(result["loop.bodyNetwork"])
    return result


NESTED = nested()


@pytest.mark.parametrize("name", NESTED)
@pytest.mark.parametrize("first", NESTED)
def test_weights_inside_anything_are_found(
    name: str, first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever was looked through before: what is remembered of types must not mislead."""
    monkeypatch.setattr(weights, "_HOLDS_WEIGHTS", {})
    list(weights.iter_weights(NESTED[first]))
    matches = [weight.layer.name for weight in weights.iter_weights(NESTED[name])]
    assert set(matches) == WEIGHTED
    assert len(matches) == sum(len(weighted_layer(kind)[1]) for kind in WEIGHTED)


def test_both_directions_of_an_lstm() -> None:
    layer = nn.NeuralNetworkLayer()
    for _ in range(2):
        layer.biDirectionalLSTM.weightParams.add().inputGateBiasVector.floatValue.append(1)
    assert [weight.path for weight in weights.iter_weights(layer)] == [
        "biDirectionalLSTM.weightParams[0].inputGateBiasVector",
        "biDirectionalLSTM.weightParams[1].inputGateBiasVector",
    ]


def test_found_weights_can_be_changed() -> None:
    layer, _ = weighted_layer("innerProduct")
    for weight in weights.iter_weights(layer):
        weights.write(weight.message, [2, 3])
    assert list(layer.innerProduct.weights.floatValue) == [2, 3]


@pytest.mark.parametrize("size", [1, 100, 4095, 4096, 40_000, 600_000])
def test_decoded_weights_are_aligned(size: int) -> None:
    """The bytes of a message start anywhere; NumPy copies what is not aligned at each product."""
    message = nn.WeightParams()
    weights.write(message, np.arange(size, dtype=np.float32))
    decoded = weights.read(message, (size,))
    assert decoded.flags.aligned
    np.testing.assert_array_equal(decoded, np.arange(size, dtype=np.float32))
