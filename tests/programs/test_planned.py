"""Planned convolutional parts of programs: the same numbers as operation by operation."""

from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlferry
from mlferry.errors import RegistrationError
from mlferry.programs.definitions import Operand, Operands, definition_of
from mlferry.programs.types import TensorType
from mlferry.programs.values import Weights
from mlferry.runtime.planned.map_region import MapRegion
from mlferry.runtime.program_session import ProgramSession
from mlferry.runtime.threads import blas
from mlferry.spec.proto import mil_pb2 as mil
from tests.programs import by_hand

RNG = np.random.default_rng(23)
SIZE = (11, 9)
OPSET = 8


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(0, 0.4, shape).astype(np.float32)


class Net:
    """A function whose values are named by number; every method returns a name."""

    def __init__(self, half: bool, batch: int = 1) -> None:
        self.dtype = "fp16" if half else "fp32"
        self.operations: list[mil.Operation] = []
        self.shapes: dict[str, Any] = {}
        self.inputs: dict[str, Any] = {}
        self.input("x", (batch, 6, *SIZE))

    def input(self, name: str, shape: Any) -> str:
        self.shapes[name] = shape
        self.inputs[name] = by_hand.tensor(self.dtype, shape)
        return name

    def literal(self, value: Any) -> mil.Value:
        if isinstance(value, str):
            return by_hand.literal("string", value)
        array = np.asarray(value)
        if array.dtype.kind == "b":
            return by_hand.literal("bool", value)
        if array.dtype.kind in "iu":
            return by_hand.literal("int32", value)
        if self.dtype == "fp32":
            return by_hand.literal("fp32", value)
        result = mil.Value(type=by_hand.tensor("fp16", array.shape))
        result.immediateValue.tensor.bytes.values = array.astype("<f2").tobytes()
        return result

    def _operand(self, value: Any) -> Any:
        if isinstance(value, list) and isinstance(value[0], str):
            return [self._operand(each) for each in value]
        if isinstance(value, str) and value in self.shapes:
            return Operand(TensorType(self.dtype, self.shapes[value]))
        array = np.asarray(value)
        kind = {"U": "string", "b": "bool", "i": "int32", "f": self.dtype}[array.dtype.kind]
        return Operand(TensorType(kind, array.shape), value)

    def op(self, kind: str, **inputs: Any) -> str:
        name = f"{kind}_{len(self.operations)}"
        definition = definition_of(kind, OPSET)
        known = {
            key: Operand(TensorType("fp32", ()), p.default) if p.default is not None else None
            for key, p in definition.parameters.items()
        }
        known |= {key: self._operand(value) for key, value in inputs.items()}
        types = definition.rule(Operands(known))
        several = types if isinstance(types, tuple) else (types,)
        outputs = {name if not n else f"{name}_{n}": each for n, each in enumerate(several)}
        self.shapes |= {output: each.shape for output, each in outputs.items()}
        result = by_hand.operation(
            kind, {output: by_hand.tensor(t.dtype, t.shape) for output, t in outputs.items()}
        )
        for key, value in inputs.items():
            for each in value if isinstance(value, list) and isinstance(value[0], str) else [value]:
                binding = result.inputs[key].arguments.add()
                if isinstance(each, str) and each in self.shapes:
                    binding.name = each
                else:
                    binding.value.CopyFrom(self.literal(each))
        self.operations.append(result)
        return name

    def conv(self, x: str, count: int, kernel: Any = (3, 3), groups: int = 1, **how: Any) -> str:
        inside = self.shapes[x][1] // groups
        options = {"pad_type": "same", "strides": [1, 1], "dilations": [1, 1]} | how
        return self.op("conv", x=x, weight=normal(count, inside, *kernel), bias=normal(count),
                       groups=groups, **options)  # fmt: skip

    def norm(self, x: str) -> str:
        c = self.shapes[x][1]
        return self.op("batch_norm", x=x, mean=normal(c), variance=np.abs(normal(c)) + 0.2,
                       gamma=normal(c), beta=normal(c), epsilon=1e-3)  # fmt: skip

    def relu(self, x: str) -> str:
        return self.op("relu", x=x)

    def session(self, outputs: list[str], **options: Any) -> ProgramSession:
        spec = by_hand.model(self.inputs, self.operations, outputs, OPSET)
        function = spec.mlProgram.functions["main"]
        precision = "half" if self.dtype == "fp16" else "exact"
        return ProgramSession(function, Weights(), precision=precision, **options)


def residual(n: Net) -> str:
    a = n.relu(n.conv("x", 6))
    return n.relu(n.op("add", x=n.norm(n.conv(a, 6)), y=a))


def difference(n: Net) -> str:
    """Combined in both orders with what is there already, after an activation."""
    a = n.conv("x", 6)
    b = n.op("sub", x=n.relu(n.conv(a, 6)), y=a)
    c = n.op("sub", x=a, y=n.relu(n.conv(b, 6)))
    return n.op("mul", x=n.op("maximum", x=c, y=b), y=n.op("minimum", x=n.conv(c, 6), y=a))


def fire(n: Net) -> str:
    s = n.relu(n.conv("x", 4, (1, 1)))
    both = n.op("concat", values=[n.relu(n.conv(s, 5, (1, 1))), n.relu(n.conv(s, 3))], axis=1,
                interleave=False)  # fmt: skip
    return n.op("max_pool", x=both, kernel_sizes=[3, 3], strides=[2, 2], pad_type="valid",
                pad=[0, 0, 0, 0])  # fmt: skip


def squeeze_and_excite(n: Net) -> str:
    a = n.conv("x", 8, strides=[2, 2])
    g = n.op("reduce_mean", x=a, axes=[2, 3], keep_dims=True)
    g = n.op("sigmoid", x=n.conv(n.relu(n.conv(g, 4, (1, 1))), 8, (1, 1)))
    return n.conv(n.op("mul", x=a, y=g), 5)


def inverted(n: Net) -> str:
    a = n.op("relu6", x=n.norm(n.conv("x", 12, (1, 1))))
    p = n.op("pad", x=a, pad=[0, 0, 0, 0, 0, 1, 0, 1], mode="constant", constant_val=0.0)
    d = n.op("relu6", x=n.conv(p, 12, groups=12, pad_type="valid", strides=[2, 2]))
    return n.norm(n.conv(d, 6, (1, 1)))


def pools(n: Net) -> str:
    a = n.relu(n.conv("x", 6))
    result = []
    for kind, more in (
        ("max_pool", {"pad_type": "same"}),
        ("max_pool", {"pad_type": "custom", "pad": [1, 1, 1, 1], "ceil_mode": True}),
        ("avg_pool", {"pad_type": "custom", "pad": [1, 1, 1, 1], "ceil_mode": True}),
        ("avg_pool", {"pad_type": "custom", "pad": [1, 0, 0, 1],
                      "exclude_padding_from_average": True}),
        ("avg_pool", {"pad_type": "same_lower"}),
    ):  # fmt: skip
        result.append(n.op(kind, x=a, kernel_sizes=[3, 3], strides=[2, 2], **more))
    same = [m for m in result if n.shapes[m] == n.shapes[result[0]]]
    return n.conv(n.op("concat", values=same, axis=-3, interleave=False), 3)


def constants(n: Net) -> str:
    x = n.conv("x", 6)
    for kind in ("add", "sub", "mul"):
        x = n.op(kind, x=x, y=normal(6, 1, 1))
        x = n.op(kind, x=normal(1, 6, 1, 1), y=x)
        x = n.op(kind, x=n.conv(x, 6, (1, 1)), y=0.75)
    x = n.op("real_div", x=x, y=3.0)
    x = n.op("real_div", x=1.5, y=n.op("exp", x=x))
    x = n.op("maximum", x=x, y=0.1)
    x = n.op("minimum", x=0.9, y=n.conv(x, 6))
    x = n.op("real_div", x=x, y=np.abs(normal(6, 1, 1)) + 1)
    return n.conv(n.op("add", x=x, y=normal(1, 6, *SIZE)), 3)


def functions(n: Net) -> str:
    x = n.conv("x", 6)
    for kind, options in (
        ("leaky_relu", {"alpha": 0.2}), ("elu", {"alpha": 1.5}), ("tanh", {}), ("silu", {}),
        ("linear_activation", {"alpha": 2.0, "beta": 0.5}), ("sigmoid_hard", {"alpha": 0.3,
         "beta": 0.4}), ("gelu", {"mode": "EXACT"}), ("softplus", {}), ("clip", {"alpha": 0.1,
         "beta": 0.7}), ("prelu", {"alpha": normal(6)}), ("square", {}), ("sqrt", {}),
        ("rsqrt", {"epsilon": 0.5}), ("abs", {}), ("thresholded_relu", {"alpha": 0.4}),
        ("identity", {}),
    ):  # fmt: skip
        x = n.op(kind, x=n.conv(x, 6, (1, 1)) if kind == "prelu" else x, **options)
    return n.conv(x, 4)


def channel_of_a_concatenation(n: Net) -> str:
    one = n.conv("x", 1)
    both = n.op("concat", values=[one, n.conv("x", 3)], axis=1, interleave=False)
    y = n.op("add", x=n.op("sigmoid", x=one), y=n.op("maximum", x=n.conv("x", 1), y=one))
    return n.conv(n.op("mul", x=both, y=n.relu(y)), 2)


NETS: dict[str, Callable[[Net], str]] = {
    "residual": residual,
    "difference": difference,
    "fire": fire,
    "squeeze and excite": squeeze_and_excite,
    "inverted": inverted,
    "pools": pools,
    "constants": constants,
    "functions": functions,
    "strides and dilations": lambda n: n.conv(
        n.conv("x", 4, (3, 2), strides=[2, 3]), 5, (2, 2), dilations=[2, 1], pad_type="valid"
    ),
    "groups": lambda n: n.conv(n.relu(n.conv("x", 8, groups=2)), 4, groups=4),
    "multiplier": lambda n: n.relu(n.conv("x", 12, groups=6)),
    "depthwise": lambda n: n.relu(n.conv("x", 6, groups=6, strides=[2, 2])),
    "custom padding": lambda n: n.conv("x", 4, pad_type="custom", pad=[2, 1, 0, 3]),
    "same lower": lambda n: n.conv(n.conv("x", 4, (2, 4), pad_type="same_lower"), 3, (4, 2)),
    "instance normalization": lambda n: n.relu(
        n.op("instance_norm", x=n.conv("x", 4), gamma=normal(4), beta=normal(4), epsilon=1e-3)
    ),
    "functions of a channel of a concatenation": channel_of_a_concatenation,
    "upsampling": lambda n: n.conv(
        n.op("upsample_nearest_neighbor", x=n.conv("x", 4), scale_factor_height=2,
             scale_factor_width=3), 3
    ),
    "rows and columns that are no channels": lambda n: n.conv(
        n.op("mul", x=n.conv("x", 6), y=normal(SIZE[1])), 3
    ),
    **{
        f"transposed {options}": lambda n, o=options: n.relu(
            n.op("conv_transpose", x=n.conv("x", 4), weight=normal(4, 3, 3, 4), bias=normal(3), **o)
        )
        for options in (
            {"pad_type": "valid", "strides": [2, 3]},
            {"pad_type": "custom", "pad": [1, 0, 0, 1], "strides": [2, 2]},
            {"pad_type": "same", "strides": [3, 2]},
            {"pad_type": "same_lower", "strides": [2, 2]},
        )
    },
    "larger": lambda n: n.relu(n.conv(n.conv(n.conv("x", 24, (1, 1)), 32), 48)),
}  # fmt: skip


def agree(net: Net, inputs: dict[str, np.ndarray], expected: list[str]) -> int:
    """Run both ways; returns how many regions the plan has."""
    planned = net.session(expected)
    plain = net.session(expected, planned=False)
    half = net.dtype == "fp16"
    ways = [planned, planned, *([net.session(expected, widened=False)] if half else [])]
    right = plain.run(inputs)
    for session in ways:  # the second time on buffers that are full
        actual = session.run(inputs)
        for name in expected:
            assert actual[name].dtype == right[name].dtype == (np.float16 if half else np.float32)
            one, other = (np.asarray(each[name], np.float64) for each in (actual, right))
            assert one.shape == other.shape
            assert np.abs(one - other).max() <= (4e-3 if half else 1e-5) * max(np.ptp(other), 1e-3)
    (parts,) = planned._plan.schedules.values()
    return sum(item.region is not None for item in parts)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", NETS)
def test_planned_and_plain_agree(name: str, batch: int, half: bool) -> None:
    net = Net(half, batch)
    last = NETS[name](net)
    inputs = {"x": normal(batch, 6, *SIZE)}
    assert agree(net, inputs, [last])
    assert agree(net, inputs, [value.name for each in net.operations for value in each.outputs])


WHOLE = ("residual", "difference", "fire", "squeeze and excite", "inverted", "pools", "functions")


@pytest.mark.parametrize("name", WHOLE)
def test_whole_nets_are_one_region(name: str) -> None:
    net = Net(half=False)
    session = net.session([NETS[name](net)])
    session.run({"x": normal(1, 6, *SIZE)})
    ((item,),) = session._plan.schedules.values()
    assert item.region is not None
    assert not item.region.pool.refused


COUNTS = (1, 2, 3, 6, 17, 33)  # channels: fewer than a vector has lanes, and more


@pytest.mark.parametrize("seed", range(90))
def test_programs_put_together_at_random(seed: int) -> None:
    rng = np.random.default_rng(seed)
    net = Net(half=bool(seed % 2), batch=int(rng.integers(1, 3)))
    names = ["x"]
    for _ in range(int(rng.integers(4, 14))):
        x = str(rng.choice(names[-4:]))
        alike = [n for n in names if net.shapes[n] == net.shapes[x]]
        other = str(rng.choice(alike))
        count = net.shapes[x][1]
        makers: list[Callable[[], str]] = [
            lambda x=x: net.relu(x),
            lambda x=x: net.norm(x),
            lambda x=x, y=other: net.op(str(rng.choice(["add", "sub", "maximum"])), x=x, y=y),
            lambda x=x, y=other: net.op("concat", values=[x, y], axis=1, interleave=False),
            lambda x=x: net.op(str(rng.choice(["max_pool", "avg_pool"])), x=x, strides=[1, 1],
                               kernel_sizes=[3, 3], pad_type="same"),
            lambda x=x, c=count: net.conv(x, c, groups=c),
            lambda x=x: net.op("mul", x=x, y=0.5),
            lambda x=x: net.conv(x, int(rng.choice(COUNTS)), (1, 1)),
            lambda x=x: net.conv(x, int(rng.choice(COUNTS))),
            lambda x=x: net.op(str(rng.choice(["sigmoid", "tanh"])), x=x),
            lambda x=x: net.op("mul", x=x, y=net.op("sigmoid", x=net.conv(x, 1, (1, 1)))),
            lambda x=x, c=count: net.op(
                "instance_norm", x=x, gamma=normal(c), beta=normal(c), epsilon=1e-1
            ),
            lambda x=x: net.op("upsample_nearest_neighbor", x=x, scale_factor_height=2,
                               scale_factor_width=1) if net.shapes[x][2] < 20 else net.relu(x),
        ]  # fmt: skip
        names.append(makers[int(rng.integers(len(makers)))]())
    expected = sorted({names[-1], *map(str, rng.choice(names[1:], 2))})
    agree(net, {"x": normal(*net.shapes["x"])}, expected)


def test_every_value_is_rounded_where_the_program_rounds_it() -> None:
    """A sum that float16 loses on the way: planned or not, it stays lost."""
    net = Net(half=True)
    large = net.op("add", x=net.conv("x", 6), y=2048.0)
    last = net.op("sub", x=large, y=2048.0)
    inputs = {"x": normal(1, 6, *SIZE)}
    assert agree(net, inputs, [last])
    actual = net.session([last]).run(inputs)[last].astype(np.float32)
    assert set(np.unique(actual % 1)) <= {0.0}  # steps of float16 beyond 1024: 1, beyond 2048: 2
    assert len(np.unique(actual)) > 2


def test_other_shapes() -> None:
    net = Net(half=False)
    net.inputs["x"] = by_hand.tensor("fp32", (None, 6, None, None))
    last = residual(net)
    for each in net.operations:
        for value in each.outputs:
            value.type.CopyFrom(by_hand.tensor("fp32", (None, 6, None, None)))
    spec = by_hand.model(net.inputs, net.operations, [last], OPSET)
    function = spec.mlProgram.functions["main"]
    planned, plain = (
        ProgramSession(function, Weights(), precision="exact", planned=each)
        for each in (True, False)
    )
    for shape in ((1, 6, 5, 7), (2, 6, 8, 8), (1, 6, 5, 7), (0, 6, 4, 4)):
        x = normal(*shape)
        actual, right = (each.run({"x": x})[last] for each in (planned, plain))
        np.testing.assert_allclose(actual, right, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("shortcut", [False, True])
def test_compiled_tiles_of_winograd(
    shortcut: bool, half: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Larger maps, whose convolutions go by tiles, and round to float16 where the program does."""
    pytest.importorskip("numba", reason="Numba is not installed")
    from mlferry.runtime.planned import compiled_winograd

    net = Net(half)
    net.input("big", (1, 32, 25, 30))
    a = net.relu(net.conv("big", 48))
    b = net.norm(net.conv(a, 48))
    last = net.relu(net.op("add", x=b, y=a) if shortcut else b)
    tiled = []
    convolved = compiled_winograd.convolved
    monkeypatch.setattr(
        compiled_winograd, "convolved", lambda *given: tiled.append(given) or convolved(*given)
    )
    assert agree(net, {"x": normal(1, 6, *SIZE), "big": normal(1, 32, 25, 30)}, [last])
    assert tiled


@pytest.mark.parametrize("refused", [False, True])
def test_operations_multiply_on_one_thread(refused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """And never warn: those beside a planned part, and those of one that cannot run."""
    seen, number = [], [4]
    monkeypatch.setattr(
        blas, "control", lambda: blas.Control(lambda: number[0], lambda n: number.__setitem__(0, n))
    )
    operate = ProgramSession._operate

    def watched(session: ProgramSession, operation: Any, scope: Any) -> None:
        seen.append((number[0], {*np.geterr().values()}))
        operate(session, operation, scope)

    monkeypatch.setattr(ProgramSession, "_operate", watched)
    net = Net(half=False)
    last = fire(net)
    if refused:
        monkeypatch.setattr(MapRegion, "run", lambda self, blobs: None)
    else:
        last = net.op("cumsum", x=last, axis=1, exclusive=False, reverse=False)
    net.session([last]).run({"x": normal(1, 6, *SIZE)})
    assert seen
    assert all(each == (1, {"ignore"}) for each in seen)
    assert number == [4]


def test_one_session_in_many_threads() -> None:
    net = Net(half=True)
    last = inverted(net)
    session, plain = net.session([last]), net.session([last], planned=False)
    samples = [normal(1, 6, *SIZE) for _ in range(24)]
    results: dict[int, np.ndarray] = {}

    def work(start: int) -> None:
        for index in range(start, len(samples), 4):
            results[index] = session.run({"x": samples[index]})[last]

    threads = [threading.Thread(target=work, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, x in enumerate(samples):
        right = plain.run({"x": x})[last]
        np.testing.assert_allclose(results[index], right, rtol=0, atol=4e-3 * np.ptp(right))


def large(folder: Path) -> tuple[Any, int]:
    """A model of convolutions and products with float16 weights in a file, and their bytes."""
    count, depth = 384, 4
    shape = by_hand.tensor("fp16", (1, count, 4, 4))
    blobs = [normal(count, count, 3, 3) / 24 for _ in range(depth)] + [normal(count, count) / 8]
    file, offsets = by_hand.weight_file(*((1, b.astype("<f2").tobytes()) for b in blobs))
    operations, x = [], "x"
    for index, (blob, offset) in enumerate(zip(blobs, offsets, strict=True)):
        operations.append(by_hand.constant(f"w{index}", by_hand.stored("fp16", blob.shape, offset)))
    for index in range(depth):
        same = by_hand.literal("string", "same")
        inputs = {"x": x, "weight": f"w{index}", "pad_type": same}
        operations.append(by_hand.operation("conv", {f"c{index}": shape}, inputs))
        operations.append(by_hand.operation("relu", {f"r{index}": shape}, {"x": f"c{index}"}))
        x = f"r{index}"
    flat = by_hand.tensor("fp16", (1, count))
    axes = by_hand.literal("int32", [2, 3])
    operations.append(by_hand.operation("reduce_mean", {"m": flat}, {"x": x, "axes": axes}))
    inputs = {"x": "m", "weight": f"w{depth}"}
    operations.append(by_hand.operation("linear", {"y": flat}, inputs))
    spec = by_hand.model({"x": shape}, operations, ["y"], 7)
    path = by_hand.write(folder / "large.mlpackage", spec, file)
    return path, sum(2 * blob.size for blob in blobs)


@pytest.mark.parametrize("precision", ["half", "exact"])
@pytest.mark.parametrize(("widened", "most"), [(True, 2.6), (False, 1.6)])
def test_memory_of_weights(widened: bool, most: float, precision: str, tmp_path: Path) -> None:
    """What is kept after a prediction beside the file, which is mapped, by size of the weights."""
    path, size = large(tmp_path)
    inputs = {"x": normal(1, 384, 4, 4)}
    right = mlferry.MLModel(path, precision=precision).predict(inputs)["y"]
    tracemalloc.start()
    model = mlferry.MLModel(path, precision=precision, widened=widened)
    actual = model.predict(inputs)["y"]
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_allclose(actual, right, rtol=0, atol=2e-3 * np.ptp(right))
    workspace = 8 << 20
    assert kept - workspace < most * size
    assert widened == (kept - workspace > 1.9 * size)


def test_large_weights_are_not_kept_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless you ask, what stays widened depends on how much it is."""
    path, size = large(tmp_path)
    inputs = {"x": normal(1, 384, 4, 4)}
    kept = {}
    for most in (size, size - 1):
        monkeypatch.setattr("mlferry.runtime.program_session._WIDENED_MOST", most)
        tracemalloc.start()
        model = mlferry.MLModel(path)
        model.predict(inputs)
        kept[most], _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert kept[size] > 1.9 * size
    assert kept[size - 1] < kept[size] - 0.7 * size


def test_widening_is_an_option_of_numpy(tmp_path: Path) -> None:
    path, _ = large(tmp_path)
    with pytest.raises(RegistrationError, match="leave it out"):
        mlferry.MLModel(path, engine="onnxruntime", widened=False)


def test_infinite_weights_are_not_widened_bit_by_bit() -> None:
    net = Net(half=True)
    last = net.conv("x", 4)
    weight = net.operations[0].inputs["weight"].arguments[0].value.immediateValue.tensor
    values = np.frombuffer(weight.bytes.values, "<f2").copy()
    values[:3] = np.inf, -np.inf, np.nan
    weight.bytes.values = values.tobytes()
    inputs = {"x": normal(1, 6, *SIZE)}
    plain, lean = net.session([last], planned=False), net.session([last], widened=False)
    np.testing.assert_array_equal(
        np.isfinite(lean.run(inputs)[last]), np.isfinite(plain.run(inputs)[last])
    )
