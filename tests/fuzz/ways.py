"""The ways of a model that must not change what it computes, each with what it may round.

A way that only moves a model gives the same bits. One that adds in another order, or rounds values
to half precision, may be so many roundings apart as there are on the way from the inputs to the
outputs, each of them as far as the format rounds, amplified as the model amplifies such a change of
its inputs. For half precision that is measured: a program runs several times with each rounding as
far as it may be up or down (stochastic arithmetic), and its outputs may be as far apart as these
are. A model that jumps, as at an argmax, is asked whether it jumps by itself.

Beside the same network in half precision, run by its own framework, outputs may also be as far
apart as that is from its framework's single precision: its own roundings. A `GraphDef` in half
precision is one whose float types are all replaced; TensorFlow has no such kernels for some ops.
"""

from __future__ import annotations

import contextlib
import math
import pickle
import tempfile
import unittest.mock
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cache, cached_property
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

import mlferry
from mlferry.errors import ExportError, UnsupportedLayersError
from mlferry.models.problems import validate
from mlferry.models.utils import change_input_output_types, rename_feature
from mlferry.numerics import half
from mlferry.runtime.evaluators.pipeline import PipelineEvaluator
from mlferry.runtime.evaluators.program import ProgramEvaluator
from mlferry.runtime.program_session import ProgramSession
from mlferry.runtime.session import Session
from mlferry.spec import networks
from tests.fuzz import halves
from tests.fuzz.network import Half, Network, Oracle

Array = np.ndarray[Any, Any]
Data = Mapping[str, Array]
Run = Callable[[Data], Mapping[str, Array]]

SINGLE, HALF = 2.0**-24, 2.0**-11  # the largest relative error of one rounding
_LEAST_ROUNDINGS = 64  # of functions such as exp, which libraries round several times inside
NOISE = 16  # times a rounding: how far inputs are moved to see what the model makes of it


def apart(one: Array, other: Array) -> float:
    """How far two arrays are from each other, beside the size of their values; 0 to infinity."""
    if one.shape != (other.shape or (1,)):  # an output of a model has at least one axis
        return float("inf")
    other = other.reshape(one.shape)
    one, other = one.astype(np.float64), other.astype(np.float64)
    same = (one == other) | (np.isnan(one) & np.isnan(other))
    if same.all():
        return 0.0
    with np.errstate(all="ignore"):
        scale = max(float(np.abs(other[np.isfinite(other)]).max(initial=0)), 1e-3)
        distance = np.where(same, 0, np.abs(one - other)) / scale
    return float("inf") if not np.isfinite(distance).all() else float(distance.max())


def moved(data: Data, relative: float, seed: int) -> dict[str, Array]:
    """The inputs with another last digit; whole numbers stay."""
    noise = np.random.default_rng(seed)
    return {
        name: x
        if x.dtype.kind != "f" or np.array_equal(x, np.round(x))
        else (x * (1 + relative * noise.uniform(-1, 1, x.shape))).astype(np.float32)
        for name, x in data.items()
    }


@dataclass
class Source:
    """What a model was converted from.

    Attributes:
        network: in its own framework.
        inputs: its inputs by the names of those of the model.
    """

    network: Network
    inputs: Mapping[str, str]

    @cached_property
    def half(self) -> Half | None:
        """The network in half precision, where its framework has it."""
        if self.network.half is None:
            return None
        try:
            half = self.network.half()
            half.oracle(self.network.inputs)
        except Exception:  # not every op of a framework takes halves
            return None
        return half

    def run(self, oracle: Oracle, outputs: Iterable[str]) -> Run:
        """What a framework computes, by the names of the model."""

        def run(data: Data) -> Mapping[str, Array]:
            values = {self.inputs[name]: x for name, x in data.items()}
            return dict(zip(outputs, oracle(values), strict=True))

        return run


@dataclass
class Subject:
    """A converted model with a sample.

    Attributes:
        model: the network.
        data: the sample by the names of the model's inputs.
        outputs: what the model makes of it.
        folder: for files.
        source: what it was converted from.
    """

    model: Any
    data: Data
    outputs: Mapping[str, Array]
    folder: Path
    source: Source | None = None
    _amplified: dict[float, float] = field(default_factory=dict)
    _compressed: dict[int, Any] = field(default_factory=dict)
    _programs: dict[tuple[str, int], Any] = field(default_factory=dict)
    _spreads: dict[Callable[[Subject], float], float] = field(default_factory=dict)

    def run(self, data: Data) -> dict[str, Array]:
        """The outputs of the model itself."""
        actual = self.model.predict(data)
        return {name: np.asarray(actual[name]) for name in self.outputs}

    @cached_property
    def spec(self) -> Any:
        """A copy of the model's message."""
        return self.model.get_spec()

    @cached_property
    def roundings(self) -> int:
        """How many sums and products one after another round a value: the terms of each layer."""
        network = networks.network_of(self.spec)
        assert network is not None
        return max(_LEAST_ROUNDINGS, sum(map(_terms, networks.layers_of(network))))

    def amplified(self, unit: float) -> float:
        """How many times larger than it a small change of the inputs arrives; 1 at least.

        Infinite where outputs jump.
        """
        if unit not in self._amplified:
            change, worst = NOISE * unit, 1.0
            for seed, factor in ((0, 1), (0, -1), (1, 3), (2, 9)):
                near = self.run(moved(self.data, factor * change, seed))
                distance = max(apart(near[n], self.outputs[n]) for n in self.outputs)
                worst = max(worst, distance / (abs(factor) * change))
            self._amplified[unit] = worst
        return self._amplified[unit]

    def compressed(self, bits: int) -> Any:
        """The model with weights of so many bits; 0 for the model itself."""
        if not bits:
            return self.model
        if bits not in self._compressed:
            self._compressed[bits] = mlferry.quantize_weights(self.model, bits)
        return self._compressed[bits]

    def program(self, precision: str, bits: int = 0) -> Any:
        """The model as an ML Program without faults; None where it cannot be one."""
        key = precision, bits
        if key not in self._programs:
            self._programs[key] = _checked_program(self.compressed(bits), precision)
        return self._programs[key]

    @cached_property
    def exactly(self) -> Any:
        """The half-precision program, whose constants are rounded, without rounding its values."""
        return self.program("float16").with_precision("exact")


def _once(measure: Callable[[Subject], float]) -> Callable[[Subject], float]:
    """The measure, taken once of each subject."""

    def measured(subject: Subject) -> float:
        if measure not in subject._spreads:
            subject._spreads[measure] = measure(subject)
        return subject._spreads[measure]

    return measured


def _checked_program(model: Any, precision: str) -> Any:
    try:
        program = mlferry.to_program(model, compute_precision=precision)
    except ExportError:
        return None
    problems = validate(program.spec, program.program_weights)
    errors = [str(p) for p in problems if p.severity == "error"]
    assert not errors, errors[0]
    return program


def _terms(layer: Any) -> int:
    """The numbers that are added for one result of a layer."""
    params = getattr(layer, layer.WhichOneof("layer"))
    counts = [1]
    for name in ("inputChannels", "kernelChannels", "inputVectorSize", "outputVectorSize"):
        counts.append(int(getattr(params, name, 0) or 0))
    kernel = math.prod(getattr(params, "kernelSize", ()) or (1,))
    reduced = 256 if layer.WhichOneof("layer") in _REDUCING else 1
    return max(*counts, reduced) * int(kernel)


_REDUCING = {
    "batchedMatmul", "softmax", "softmaxND", "layerNormalization", "mvn", "l2normalize",
    "reduceSum", "reduceMean", "reduceL2", "reduceSumSquare", "reduceLogSum", "reduceLogSumExp",
    "reduceProd", "cumSum", "batchnorm", "lrn", "pooling", "globalPooling3d", "pooling3d",
}  # fmt: skip


@dataclass(frozen=True)
class Way:
    """A way of a model.

    Attributes:
        name: for messages.
        walk: gives what runs at its end, or None where the model cannot go that way.
        unit: the largest relative error of one rounding; 0 where the bits are the same.
        measured: gives how far the roundings of a format may move the outputs; without it that is
            counted.
        beside: gives what it is compared with, where that is not the model.
        jumps: whether the first value inside that is further apart than that is made by an
            operation that jumps, such as floor: a rounding may put its operand across the step.
    """

    name: str
    walk: Callable[[Subject], Run | None]
    unit: float = 0.0
    measured: Callable[[Subject], float] | None = None
    beside: Callable[[Subject], Run] | None = None
    jumps: Callable[[Subject, float], bool] | None = None

    def disagreement(self, subject: Subject) -> str:
        """What is wrong, or nothing."""
        run = self.walk(subject)
        if run is None:
            return ""
        right = subject.outputs if self.beside is None else self.beside(subject)(subject.data)
        actual = run(subject.data)
        for name in subject.outputs:
            distance = apart(np.asarray(actual[name]), np.asarray(right[name]))
            most = self.tolerance(subject, distance)
            if distance > most and not (self.jumps is not None and self.jumps(subject, most)):
                return f"{name} is another {self.name}: {distance:.2g} apart"
        return ""

    def tolerance(self, subject: Subject, distance: float) -> float:
        """How far the outputs may be apart, as a part of the largest value."""
        if not self.unit:
            return 0.0
        if self.measured is not None:
            least = 4 * self.unit
            return least if distance <= least else max(least, 2 * self.measured(subject))
        most = self.unit * (subject.roundings + 1)
        return most if distance <= most else most * subject.amplified(self.unit)


# ---- the same bits -----------------------------------------------------------------------------


def _loaded(subject: Subject) -> Run:
    path = subject.model.save(subject.folder / "model.mlmodel")
    return mlferry.MLModel(path).predict  # type: ignore[return-value] # a sample at a time


def _pickled(subject: Subject) -> Run:
    again = pickle.loads(pickle.dumps(subject.model))
    return again.predict


@cache
def _pool() -> Executor:
    return ProcessPoolExecutor(1, mp_context=get_context("spawn"))


def _in_a_worker(subject: Subject) -> Run:
    def run(data: Data) -> Mapping[str, Array]:
        first, second = subject.model.predict([data, data], executor=_pool())
        for name in subject.outputs:
            np.testing.assert_array_equal(first[name], second[name])
        return first

    return run


def _renamed(subject: Subject) -> Run:
    spec = subject.model.get_spec()
    names = {name: f"{name}/renamed" for name in (next(iter(subject.data)), [*subject.outputs][-1])}
    for old, new in names.items():
        rename_feature(spec, old, new)
    return _under(mlferry.MLModel(spec), names)


def _under(model: Any, names: Mapping[str, str]) -> Run:
    """The model of other names for its features, under the old ones."""

    def run(data: Data) -> Mapping[str, Array]:
        actual = model.predict({names.get(name, name): x for name, x in data.items()})
        back = {new: old for old, new in names.items()}
        return {back.get(name, name): x for name, x in actual.items()}

    return run


def _of_doubles(subject: Subject) -> Run:
    types = dict.fromkeys((*subject.data, *subject.outputs), "float64")
    other = change_input_output_types(subject.model, types)

    def run(data: Data) -> Mapping[str, Array]:
        actual = other.predict(data)
        return {name: np.asarray(actual[name]).astype(np.float32) for name in subject.outputs}

    return run


def _renaming(spec: Any, other: Any) -> dict[str, str]:
    """The features of another model of the same network, by the names of the first."""
    return {
        old.name: new.name
        for ends in ("input", "output")
        for old, new in zip(
            getattr(spec.description, ends), getattr(other.description, ends), strict=True
        )
    }


# ---- sums in another order -----------------------------------------------------------------------


def _by_onnxruntime(subject: Subject) -> Run:
    other = mlferry.MLModel(subject.spec, engine="onnxruntime", threads=1)
    return other.predict


def _exported(subject: Subject) -> Run | None:
    """By onnxruntime alone, from the file that `export_onnx` writes."""
    import onnxruntime

    network = networks.network_of(subject.spec)
    assert network is not None
    if any(layer.WhichOneof("layer") == "custom" for layer in networks.layers_of(network)):
        return None  # onnxruntime alone has no class of it
    path = subject.folder / "model.onnx"
    try:
        mlferry.export_onnx(subject.model, path)
    except (ExportError, UnsupportedLayersError):
        return None
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    session = onnxruntime.InferenceSession(str(path), options)
    ends = [(end.name, end.type, end.shape) for end in session.get_inputs()]

    def run(data: Data) -> Mapping[str, Array]:
        inputs = {
            name: np.asarray(data[name], _ONNX_TYPES[kind]).reshape(
                [n if isinstance(n, int) else -1 for n in shape]
                if sum(not isinstance(n, int) for n in shape) < 2
                else np.shape(data[name])
            )
            for name, kind, shape in ends
        }
        names = [end.name for end in session.get_outputs()]
        actual = dict(zip(names, session.run(None, inputs), strict=True))
        return {
            name: np.asarray(actual[name]).reshape(np.shape(subject.outputs[name]))
            if np.size(actual[name]) == np.size(subject.outputs[name])
            else actual[name]
            for name in subject.outputs
        }

    return run


_ONNX_TYPES = {
    "tensor(float)": np.float32, "tensor(int32)": np.int32, "tensor(double)": np.float64,
    "tensor(int64)": np.int64, "tensor(float16)": np.float16, "tensor(bool)": np.bool_,
}  # fmt: skip


def _session(**options: bool) -> Callable[[Subject], Run]:
    def walk(subject: Subject) -> Run:
        network = networks.network_of(subject.spec)
        assert network is not None
        session = Session(network, **options)

        def run(data: Data) -> Mapping[str, Array]:
            actual = session.run(subject.model._network().blobs(data), list(subject.outputs))
            return {n: x.reshape(subject.outputs[n].shape) for n, x in actual.items()}

        return run

    return walk


# ---- in fewer bits -------------------------------------------------------------------------------


def _compressed(bits: int) -> Callable[[Subject], Run]:
    def walk(subject: Subject) -> Run:
        small = subject.compressed(bits)
        return small.predict

    return walk


def _dequantized(bits: int) -> Callable[[Subject], Run]:
    def walk(subject: Subject) -> Run:
        small = subject.compressed(bits)
        back = mlferry.quantize_weights(small, 32, "dequantization")
        return back.predict

    return walk


# ---- as ML Programs ----------------------------------------------------------------------------


def _program(
    precision: str = "float32", engine: str = "numpy", bits: int = 0
) -> Callable[[Subject], Run | None]:
    def walk(subject: Subject) -> Run | None:
        program = subject.program(precision, bits)
        if program is None:
            return None
        names = _renaming(subject.spec, program.spec)
        if engine != "numpy":
            path = program.save(subject.folder / "model.mlpackage")
            program = mlferry.MLModel(path, engine=engine, threads=1)
        return _under(program, names)

    return walk


def _half_exactly(subject: Subject) -> Run:
    return _under(subject.exactly, _renaming(subject.spec, subject.exactly.spec))


# ---- beside the source in half precision ---------------------------------------------------------


def _of_halves(walk: Callable[[Subject], Run | None]) -> Callable[[Subject], Run | None]:
    """The way of a model, of inputs that halves hold, where its source has a half."""

    def only(subject: Subject) -> Run | None:
        run = walk(subject) if _own_spread(subject) < _BROKEN else None
        return None if run is None else lambda data: run(_as_halves(data))

    return only


def _as_halves(data: Data) -> Data:
    return {name: x.astype(np.float32) for name, x in halves.rounded(data).items()}


_BROKEN = 0.2  # beyond it, a framework's half is wrong: TensorFlow's einsum of halves mixes rows


@_once
def _own_spread(subject: Subject) -> float:
    """How far the half of the source is from the source; infinite where it has none."""
    if subject.source is None or subject.source.half is None:
        return np.inf
    data = _as_halves(subject.data)
    half = _half_of_source(subject)(data)
    single = subject.source.run(subject.source.network.oracle, subject.outputs)(data)
    return max(apart(half[name], single[name]) for name in subject.outputs)


def _half_of_source(subject: Subject) -> Run:
    assert subject.source is not None
    assert subject.source.half is not None
    return subject.source.run(subject.source.half.oracle, subject.outputs)


def _converted_half(subject: Subject, **options: Any) -> Run:
    """The half of the source, converted."""
    assert subject.source is not None
    assert subject.source.half is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = mlferry.convert(
            subject.source.half.source, **subject.source.network.options, **options
        )
    return _under(model, _renaming(subject.spec, model.get_spec()))


def _converted_half_to_network(subject: Subject) -> Run | None:
    """None where there is no program to tell how far roundings move its outputs."""
    return None if subject.program("float16") is None else _converted_half(subject)


def _converted_half_to_program(subject: Subject) -> Run | None:
    try:
        return _converted_half(subject, convert_to="mlprogram")
    except ExportError:
        return None


def _spread_beside_source(subject: Subject) -> float:
    """How far the program's roundings move its outputs, and those of the source its own.

    Where only the program leaves the range of halves, that is no rounding.
    """
    spread = _spread_in_half(subject)
    return (spread if np.isfinite(spread) else 1.0) + _own_spread(subject) / 2


_DRAWS = 5


@_once
def _spread_in_half(subject: Subject) -> float:
    """How far outputs of a half-precision program go with roundings up or down at random."""
    right = _half_exactly(subject)(subject.data)
    run = _half_by_operations(subject)
    real, noise, worst = half.rounded, np.random.default_rng(11), 0.0

    def moved_and_rounded(array: Array) -> Array:
        factors = 1 + HALF * noise.choice([-1.0, 1.0], np.shape(array))
        with np.errstate(all="ignore"):
            return real((array * factors).astype(np.float32))

    with unittest.mock.patch.object(half, "rounded", moved_and_rounded):
        for _ in range(_DRAWS):
            actual = run(subject.data)
            distances = (
                apart(np.asarray(actual[n]), np.asarray(right[n])) for n in subject.outputs
            )
            worst = max(worst, *distances)
    return worst


def _half_by_operations(subject: Subject) -> Run:
    """The program in half precision, each value rounded by `half.rounded`."""
    program = subject.program("float16")
    with unittest.mock.patch.dict(
        ProgramSession.__init__.__kwdefaults__, {"planned": False, "compiled": False}
    ):
        program = program.with_precision("half")
        sessions = list(_program_sessions(program.evaluator))
    assert {(session.planned, session.compiled) for session in sessions} == {(False, False)}
    return _under(program, _renaming(subject.spec, program.spec))


def _program_sessions(evaluator: object) -> Iterator[ProgramSession]:
    """That of a program, or those of the programs of a pipeline."""
    if isinstance(evaluator, PipelineEvaluator):
        for member in evaluator._members:
            yield from _program_sessions(member.evaluate)
    elif isinstance(evaluator, ProgramEvaluator):
        yield evaluator.session


_STEPS = {
    "floor", "ceil", "round", "sign", "floor_div", "mod", "equal", "not_equal", "less", "greater",
    "less_equal", "greater_equal", "reduce_argmax", "reduce_argmin", "argsort", "topk", "non_zero",
    "threshold", "cast",
}  # fmt: skip


def _jumps_in_half(subject: Subject, most: float) -> bool:
    """Whether rounding to half makes an operation jump before any other is further apart."""
    rounding, exact = subject.program("float16"), subject.exactly
    makers = rounding.makers()
    data = dict(
        zip(
            [feature.name for feature in rounding.spec.description.input],
            [subject.data[feature.name] for feature in subject.spec.description.input],
            strict=True,
        )
    )
    rounded, right = (each.blobs(data, list(makers)) for each in (rounding, exact))
    for name, (_, kind) in makers.items():
        one, other = np.asarray(rounded[name]), np.asarray(right[name])
        if one.shape != other.shape or apart(one, other) > most:
            return kind in _STEPS
    return False


WAYS = [
    Way("by saving and loading", _loaded),
    Way("pickled", _pickled),
    Way("in a worker", _in_a_worker),
    Way("with other names", _renamed),
    Way("with other types", _of_doubles, SINGLE),
    Way("by onnxruntime", _by_onnxruntime, SINGLE),
    Way("exported to ONNX", _exported, SINGLE),
    Way("unplanned", _session(planned=False), SINGLE),
    Way("without tiles", _session(winograd=False), SINGLE),
    Way("dequantized from 8 bits", _dequantized(8), SINGLE, beside=_compressed(8)),
    Way("dequantized from halves", _dequantized(16), SINGLE, beside=_compressed(16)),
    Way("as a program", _program(), SINGLE),
    Way("as a program by onnxruntime", _program(engine="onnxruntime"), SINGLE),
    Way("as a program of 8 bits", _program(bits=8), SINGLE, beside=_compressed(8)),
    Way("as a program in half", _program("float16"), HALF, _spread_in_half, _half_exactly,
        _jumps_in_half),
    Way("as a program in half by onnxruntime", _program("float16", "onnxruntime"), HALF,
        _spread_in_half, _half_exactly, _jumps_in_half),
    Way("as a program beside the half of its source", _of_halves(_program("float16")), HALF,
        _spread_beside_source, _half_of_source, _jumps_in_half),
    Way("converted from the half of its source", _of_halves(_converted_half_to_network), HALF,
        _spread_beside_source, _half_of_source, _jumps_in_half),
    Way("as a program converted from the half of its source",
        _of_halves(_converted_half_to_program), HALF,
        _spread_beside_source, _half_of_source, _jumps_in_half),
]  # fmt: skip


@contextlib.contextmanager
def subject_of(model: Any, data: Data, source: Source | None = None) -> Iterator[Subject]:
    """A model with a sample, in a folder that goes."""
    with tempfile.TemporaryDirectory(prefix="mlferry-paths-") as folder:
        actual = model.predict(data)
        names = [item.name for item in model.spec.description.output]
        outputs = {name: np.asarray(actual[name]) for name in names}
        yield Subject(model, data, outputs, Path(folder), source)
