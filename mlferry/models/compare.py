"""`compare_models`: how far two models agree on the same samples; `first_difference`: where not.

Either model may be an `MLModel`, an onnxruntime session, a Keras model, or any function from a
sample to outputs, so that the same report checks a quantized model and a conversion.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeGuard

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlferry.errors import PredictionError, UnsupportedModelError
from mlferry.models import agreement, compare_html, pixels
from mlferry.models.agreement import Margins
from mlferry.models.comparison import LABELS, BlobDifference, Comparison, Energy, OutputReport, Row
from mlferry.models.model import MLModel, ModelFile
from mlferry.models.samples import Load, SampleData, Samples, Unreadable, loaded, samples_for
from mlferry.models.workers import Executors, in_order
from mlferry.numerics.shapes import Array
from mlferry.progress import progress
from mlferry.spec.proto import model_pb2
from mlferry.text import logger_of

logger = logger_of(__name__)

Outputs = Mapping[str, Any] | Sequence[Any]
Sample = Mapping[str, Any]
SampleFunction = Callable[[Sample], Outputs | Array]


class OnnxPort(Protocol):
    """An input or output of a session of onnxruntime."""

    name: str
    type: str


class InferenceSession(Protocol):
    """What is used of a session of onnxruntime."""

    def get_inputs(self) -> Sequence[OnnxPort]:
        """Its inputs."""

    def get_outputs(self) -> Sequence[OnnxPort]:
        """Its outputs."""

    def run(self, names: Sequence[str] | None, feed: dict[str, Any], /) -> Sequence[Any]:
        """The values of outputs."""


class KerasModel(Protocol):
    """What is used of a model of Keras."""

    def predict_on_batch(self, x: object, /) -> Any:
        """Its outputs."""


Runnable = MLModel | InferenceSession | KerasModel | SampleFunction
Comparable = Runnable | ModelFile
"""What `compare_models` takes for a model."""


class Report(Comparison):
    """What `compare_models` found; prints as a table, in a notebook as HTML."""

    def _repr_html_(self) -> str:
        return compare_html.fragment(self)

    def html(self, title: str = "Comparison") -> str:
        """A self-contained page, with the numbers of every sample as JSON."""
        return compare_html.page({title: self}, title)


def compare_models(
    full_precision_model: Comparable,
    quantized_model: Comparable,
    sample_data: SampleData,
    *,
    nested: bool = False,
    executor: Executors | None = None,
    depth: bool = False,
    pictures: bool = True,
) -> Report:
    """Run two models on the same samples and measure how far they agree.

    Args:
        full_precision_model: an `MLModel`; or an onnxruntime session, a Keras model, or a
            function that takes a sample's dict and returns outputs: a dict by name, a
            sequence in the order of the other model's outputs, or one array.
        quantized_model: likewise.
        sample_data: a list of dicts from input names to values; for models of one input also
            an array of samples or a list of arrays; for models of one image input also a
            folder of pictures (jpg, png, bmp, webp), which are scaled to cover the input's
            size, their shape kept, and cut to the middle.
        nested: whether to include pictures in subfolders.
        executor: runs several samples at a time, see `MLModel.predict`; models that are functions
            have to be picklable then.
        depth: whether to report how far the values inside are apart, layer by layer, for the sample
            that agrees least. This needs networks or programs with blobs of the same names.
        pictures: whether to keep small pictures of the samples that agree least.

    Returns:
        A `Report`. Probabilities and labels are compared by agreement, images and arrays by
        signal-to-noise ratio (of all samples pooled, and of the worst one), differences and
        cosine; the first model is the reference.

    Raises:
        PredictionError: the samples do not fit, or the models' outputs cannot be paired.
        MissingCustomLayerError: classes of custom layers are missing.
        WorkerError: the executor cannot do it.
    """
    models = [_as_model(source) for source in (full_precision_model, quantized_model)]
    described = next((model for model in models if isinstance(model, MLModel)), None)
    spec = None if described is None else described.get_spec()
    samples = samples_for(spec, sample_data, nested=nested)
    order = _input_order(described)
    for model in models:
        _runner(model, order)  # raises early if it cannot be compared
    agreements: list[SampleRows] = []
    shared = (models[0], models[1], samples.load)
    results = in_order(_compared, shared, samples.parcels(), executor)
    for result in progress(results, "comparing", len(samples)):
        if isinstance(result, Unreadable):
            samples.add(result)
            continue
        agreements.append(result)
    if not agreements:
        raise PredictionError(
            "no picture could be read: "
            + "; ".join(f"{name}: {why}" for name, why in samples.unreadable.items())
        )
    report = report_of(agreements, samples.unreadable, _sizes(models))
    least = list(dict.fromkeys(row.sample for row in report.worst(len(report.rows))))
    if pictures:
        report.pictures.update(_pictures(samples, least[:_PICTURES]))
    if depth:
        report.depth.extend(_depth(models, samples, least[0]))
    return report


SampleRows = list[tuple[str, Row]]
"""The rows of a sample, each with the kind of its output."""


def rows_of(name: str, first: Outputs, second: Outputs) -> SampleRows:
    """How far the outputs of two models are apart for one sample.

    Args:
        name: of the sample.
        first: of the reference.
        second: of the other model.

    Raises:
        PredictionError: the outputs cannot be paired.
    """
    return [
        (pair.kind, Row(name, output, *_MEASURES[pair.kind](pair)))
        for output, pair in _paired(first, second).items()
    ]


def report_of(
    agreements: Sequence[SampleRows],
    unreadable: Mapping[str, str] | None = None,
    sizes: tuple[int, int] | None = None,
) -> Report:
    """The report of samples that were measured one by one."""
    kinds: dict[str, str] = {}
    rows: list[Row] = []
    for kind, row in itertools.chain.from_iterable(agreements):
        kinds.setdefault(row.output, kind)
        rows.append(row)
    outputs = {
        name: _output(name, kind, [row for row in rows if row.output == name])
        for name, kind in kinds.items()
    }
    return Report(len(agreements), outputs, rows, dict(unreadable or {}), sizes)


_PICTURES = 12  # the most to keep


def _sizes(models: Sequence[Runnable]) -> tuple[int, int] | None:
    one, other = (model.stored_size if isinstance(model, MLModel) else None for model in models)
    return None if one is None or other is None else (one, other)


def _pictures(samples: Samples, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Those of the samples whose inputs look like pictures."""
    for name in names:
        sample = samples.named(name)
        for value in () if sample is None else sample.data.values():
            picture = pixels.preview(value)
            if picture is not None:
                yield name, pixels.png(picture)
                break


def _depth(models: Sequence[Runnable], samples: Samples, name: str) -> list[BlobDifference]:
    sample = samples.named(name)
    a, b = models
    if sample is None or not (isinstance(a, MLModel) and isinstance(b, MLModel)):
        return []
    try:
        return differences(a, b, sample.data)
    except (PredictionError, UnsupportedModelError) as error:
        logger.info("the difference over the depth cannot be computed: %s", error)
        return []


def _compared(
    shared: tuple[Runnable, Runnable, Load], parcel: tuple[str, Any]
) -> SampleRows | Unreadable:
    """The rows of one sample, with the kind of each output."""
    first, second, load = shared
    sample = loaded(load, *parcel)
    if isinstance(sample, Unreadable):
        return sample
    order = _input_order(next((m for m in (first, second) if isinstance(m, MLModel)), None))
    one, other = (_runner(model, order)(sample.data) for model in (first, second))
    return rows_of(sample.name, one, other)


# ---- running ----------------------------------------------------------------------------------


def _as_model(model: Comparable) -> Runnable:
    if isinstance(model, str | os.PathLike | bytes | model_pb2.Model):
        return MLModel(model)
    return model


def _input_order(model: MLModel | None) -> list[str]:
    """The names of a Core ML model's inputs: a conversion keeps the order of the source's."""
    return [] if model is None else [feature.name for feature in model.spec.description.input]


def _runner(model: Runnable, order: Sequence[str]) -> Callable[[Sample], Outputs]:
    """A function that evaluates a model; `order` is that of the Core ML model beside it."""
    if isinstance(model, MLModel):
        return model.predict
    if _is_session(model):
        return _onnx_runner(model, order)
    if _is_keras_model(model):
        return _keras_runner(model, order)
    if callable(model):
        return lambda data: _in_order(model(data))
    raise PredictionError(
        f"a {type(model).__name__} cannot be compared: give an MLModel, an onnxruntime session, "
        "a Keras model, or a function from a dict of inputs to outputs"
    )


def _is_session(model: Runnable) -> TypeGuard[InferenceSession]:
    return hasattr(model, "get_inputs") and hasattr(model, "run")


def _is_keras_model(model: Runnable) -> TypeGuard[KerasModel]:
    return hasattr(model, "predict_on_batch")


def _onnx_runner(session: InferenceSession, order: Sequence[str]) -> Callable[[Sample], Outputs]:
    described = list(session.get_inputs())
    outputs = [output.name for output in session.get_outputs()]

    def run(data: Mapping[str, Any]) -> Outputs:
        values = _by_name([one.name for one in described], data, order, "the session")
        feed = {
            one.name: np.asarray(value, _ONNX_TYPES.get(one.type, np.float32))
            for one, value in zip(described, values, strict=True)
        }
        return dict(zip(outputs, session.run(None, feed), strict=True))

    return run


_ONNX_TYPES: dict[str, Any] = {
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(uint8)": np.uint8,
    "tensor(float16)": np.float16,
    "tensor(bool)": np.bool_,
}


def _keras_runner(model: KerasModel, order: Sequence[str]) -> Callable[[Sample], Outputs]:
    names = _keras_inputs(model)
    keys = _keys(model)

    def run(data: Mapping[str, Any]) -> Outputs:
        input_names = names or [name for name in order if name in data] or [*data]
        if not names and not order and len(data) > 1:
            raise PredictionError(
                "the Keras model does not name its inputs: compare a function that takes the "
                "sample's dict and calls the model"
            )
        inputs = _by_name(input_names, data, order, "the Keras model")
        values = [np.asarray(value) for value in inputs]
        if keys:
            return _in_order(model.predict_on_batch(dict(zip(keys, values, strict=True))))
        return _in_order(model.predict_on_batch(values[0] if len(values) == 1 else values))

    return run


def _keras_inputs(model: KerasModel) -> list[str]:
    """The names of a Keras model's inputs; none for a subclassed model."""
    tensors = getattr(model, "inputs", None)
    return [str(tensor.name).split(":")[0] for tensor in tensors] if tensors else []


def _keys(model: KerasModel) -> list[str]:
    """The keys of the inputs of a Keras model that takes a dict, in the order of `inputs`."""
    for name in ("_inputs_struct", "_nested_inputs"):  # of Keras 3, of Keras 2
        struct = getattr(model, name, None)
        if isinstance(struct, Mapping):
            places = {id(tensor): key for key, tensor in struct.items()}
            keys = [places.get(id(tensor)) for tensor in getattr(model, "inputs", ())]
            return [key for key in keys if key is not None]
    return []


def _by_name(
    names: Sequence[str], data: Mapping[str, Any], order: Sequence[str], whose: str
) -> list[Any]:
    """The values of a sample in the order of a model's inputs.

    If none of the names agree, both follow the same order.
    """
    if set(names) <= data.keys():
        return [data[name] for name in names]
    if len(names) == len(data) == 1:
        return [*data.values()]
    if len(names) == len(data) and not set(names) & data.keys() and set(order) == data.keys():
        return [data[name] for name in order]
    raise PredictionError(
        f"{whose} takes {', '.join(map(repr, names))}; the sample has "
        f"{', '.join(map(repr, data))}: give it the same names, or compare a function that takes "
        "the sample's dict"
    )


def _in_order(outputs: Outputs | Array) -> Outputs:
    if isinstance(outputs, Mapping | list | tuple):
        return outputs
    return [outputs]


# ---- pairing ----------------------------------------------------------------------------------


OutputValue = Mapping[str | int, float] | ArrayLike
"""Chances by label, a label, a number or an array."""


class Pair(NamedTuple):
    """The values that two models give for an output.

    Attributes:
        kind: "label", "probabilities" or "array".
        first, second: the values; of arrays and probabilities float64, of one shape.
        classes: of probabilities, their labels.
    """

    kind: str
    first: Any
    second: Any
    classes: Sequence[Any] = ()


def _paired(first: Outputs, second: Outputs) -> dict[str, Pair]:
    """Pair outputs by name where they share names, otherwise by order."""
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        shared = [name for name in first if name in second]
        if shared:
            return {name: _pair(name, first[name], second[name]) for name in shared}
    one, other = _named(first), _named(second)
    if len(one) != len(other):  # a label beside the probabilities has no partner elsewhere
        one, other = ([p for p in pairs if not _is_label(p[1])] for pairs in (one, other))
    if len(one) != len(other) or not one:
        raise PredictionError(
            f"the outputs {[name for name, _ in one]} of the first model and "
            f"{[name for name, _ in other]} of the second share no names, and differ in "
            "number: pass one of them as a function that returns a dict with the other's names"
        )
    named = one if isinstance(first, Mapping) else other
    return {
        name: _pair(name, a, b) for (name, _), (_, a), (_, b) in zip(named, one, other, strict=True)
    }


def _named(outputs: Outputs) -> list[tuple[str, Any]]:
    if isinstance(outputs, Mapping):
        return list(outputs.items())
    return [(f"output {index}", value) for index, value in enumerate(outputs)]


def _is_label(value: object) -> bool:
    return isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool))


def _pair(name: str, first: OutputValue, second: OutputValue) -> Pair:
    if isinstance(first, str) or isinstance(second, str):
        return Pair("label", first, second)
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        keys = list(first)
        if set(keys) != set(second):
            raise PredictionError(f"the labels of {name!r} are not the same in both models")
        ordered = {key: second[key] for key in keys}
        return Pair("probabilities", _floats(first), _floats(ordered), keys)
    if _is_label(first) and _is_label(second):
        return Pair("label", first, second)
    named: Any = next((each for each in (first, second) if isinstance(each, Mapping)), ())
    kind = "array" if named == () else "probabilities"
    one, other = _floats(first), _floats(second)
    if one.size != other.size:
        raise PredictionError(
            f"the output {name!r} has shape {one.shape} in the first model, {other.shape} in "
            "the second"
        )
    return Pair(kind, one, other.reshape(one.shape), [*named])


def _floats(value: OutputValue) -> NDArray[np.float64]:
    if isinstance(value, Mapping):
        value = [*value.values()]
    return np.asarray(value).astype(np.float64)


# ---- measuring --------------------------------------------------------------------------------


class Measured(NamedTuple):
    """What a `Row` stores about two values."""

    numbers: dict[str, Any]
    score: float
    energy: Energy | None = None
    margins: Margins | None = None


def _label(pair: Pair) -> Measured:
    same = bool(pair.first == pair.second)
    return Measured({"top1": same, "first": pair.first, "second": pair.second}, float(same))


def _probabilities(pair: Pair) -> Measured:
    first, second = pair.first, pair.second
    numbers, rank, margins = _scores(first, second)
    numbers["largest_difference"] = float(np.abs(first - second).max(initial=0))
    for which, values in (("first", first.reshape(-1)), ("second", second.reshape(-1))):
        best = int(np.argmax(values))
        numbers |= {which: pair.classes[best], f"{which}_score": float(values[best])}
    return Measured(numbers, -rank - numbers["largest_difference"], margins=margins)


def _scores(
    first: NDArray[np.float64], second: NDArray[np.float64]
) -> tuple[dict[str, Any], int, Margins | None]:
    """The numbers of classes' scores, the place of the best class in the second, and margins."""
    one, other = first.reshape(-1), second.reshape(-1)
    best = int(np.argmax(one))
    rank = int(np.argsort(-other, kind="stable").tolist().index(best))
    numbers: dict[str, Any] = {"top1": rank == 0, "top5": rank < agreement.TOP}
    if one.size < 2 or not (np.isfinite(one).all() and np.isfinite(other).all()):
        return numbers, rank, None
    logs = agreement.log_chances(one), agreement.log_chances(other)
    numbers["kl"] = agreement.divergence(*logs)
    return numbers, rank, agreement.margins(*logs)


def _array(pair: Pair) -> Measured:
    first, second = pair.first, pair.second
    off = np.abs(first - second)
    energy = Energy(
        float(np.square(first).sum()),
        float(np.square(off).sum()),
        float(np.abs(first).max(initial=0)),
        first.size,
    )
    lengths = float(np.linalg.norm(first) * np.linalg.norm(second))
    cosine = 1.0
    if energy.noise != 0:
        cosine = float((first * second).sum()) / lengths if lengths else 0.0
    numbers = {
        "snr": energy.snr,
        "psnr": energy.psnr,
        "largest_difference": float(off.max(initial=0)),
        "mean_difference": float(off.mean()),
        "cosine": cosine,
    }
    margins = None
    if agreement.is_vector(first.shape):
        ranks, _, margins = _scores(first, second)
        numbers = ranks | numbers
    score = -math.inf if math.isnan(energy.snr) else energy.snr
    return Measured(numbers, score, energy, margins)


_MEASURES: dict[str, Callable[[Pair], Measured]] = {
    "label": _label,
    "probabilities": _probabilities,
    "array": _array,
}


def _output(name: str, kind: str, rows: Sequence[Row]) -> OutputReport:
    """One number per measure; a mean of decibels would hide the samples that agree least."""
    energies = [row.energy for row in rows if row.energy is not None]
    margins = [row.margins for row in rows if row.margins is not None]
    alike = len(margins) == len(rows) and len({each.before.size for each in margins}) == 1
    keys = [key for key in rows[0].numbers if all(key in row.numbers for row in rows)]
    numbers: dict[str, float] = {}
    intervals = {}
    for key in keys:
        if key in _POOLED:
            numbers[key] = float(getattr(Energy.pooled(energies), key))
        elif key in LABELS:
            values = [float(row.numbers[key]) for row in rows]
            numbers[key] = float(np.max(values) if key == "largest_difference" else np.mean(values))
        if key == "snr":
            numbers["worst_snr"] = float(np.min([row.numbers[key] for row in rows]))
        if key in _PLACES:
            intervals[key] = agreement.wilson(numbers[key], len(rows))
            if alike:
                numbers[f"expected_{key}"] = agreement.expected(margins, _PLACES[key])
    return OutputReport(name, kind, numbers, intervals, len(rows))


_PLACES = {"top1": 1, "top5": agreement.TOP}
_POOLED = ("snr", "psnr")


# ---- where models differ ----------------------------------------------------------------------


@dataclass(frozen=True)
class Difference:
    """The first blob that differs between two models.

    Attributes:
        blob: its name.
        layer: the layer of the first network that makes it, and its kind.
        shapes: of the blob in both.
        largest: the largest difference; NaN where the shapes differ.
        relative: that, divided by the largest magnitude in the first network.
    """

    blob: str
    layer: str
    kind: str
    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    largest: float
    relative: float

    def __str__(self) -> str:
        if self.shapes[0] != self.shapes[1]:
            text = f"shapes {self.shapes[0]} and {self.shapes[1]}"
        else:
            text = f"by {self.largest:.4g} ({self.relative:.2%} of its largest value)"
        return f"{self.kind} {self.layer!r} is the first to differ: blob {self.blob!r}, {text}"


def first_difference(
    a: MLModel, b: MLModel, sample: Mapping[str, Any], *, tolerance: float = 1e-3
) -> Difference | None:
    """The first layer or operation whose value differs between two models, or None.

    Args:
        a: a neural network, an ML Program, or a pipeline of such models.
        b: another one, whose blobs have the same names: the same program with another
            `precision`, say, or what `to_program` has made of a network.
        sample: as for `MLModel.predict`.
        tolerance: how large a difference may be, as a part of the largest value of the blob.

    Raises:
        UnsupportedModelError: a model has neither layers nor operations.
        PredictionError: the sample does not fit, or no blob has the same name in both.
    """
    for blob, layer, kind, one, other in _shared_blobs(a, b, sample):
        if one.shape != other.shape:
            return Difference(blob, layer, kind, (one.shape, other.shape), math.nan, math.nan)
        unequal = ~((one == other) | (np.isnan(one) & np.isnan(other)))
        largest = float(np.abs(np.where(unequal, one - other, 0)).max(initial=0))
        peak = float(np.abs(one[np.isfinite(one)]).max(initial=0))
        if not largest <= tolerance * peak:
            relative = largest / peak if peak else math.inf
            return Difference(blob, layer, kind, (one.shape, other.shape), largest, relative)
    return None


def differences(a: MLModel, b: MLModel, sample: Mapping[str, Any]) -> list[BlobDifference]:
    """How far every value inside is from the value of the same name in another network.

    Args:
        a: a neural network, an ML Program, or a pipeline of such models.
        b: another one, whose blobs have the same names.
        sample: as for `MLModel.predict`.

    Raises:
        UnsupportedModelError: a model has neither layers nor operations.
        PredictionError: the sample does not fit, or no blob has the same name in both.
    """
    results = []
    for blob, layer, kind, one, other in _shared_blobs(a, b, sample):
        relative = math.nan
        if one.shape == other.shape:
            noise, signal = float(np.square(one - other).sum()), float(np.square(one).sum())
            relative = 0.0 if noise == 0 else math.sqrt(noise / signal) if signal else math.inf
        results.append(BlobDifference(blob, layer, kind, relative))
    return results


def _shared_blobs(
    a: MLModel, b: MLModel, sample: Mapping[str, Any]
) -> Iterator[tuple[str, str, str, NDArray[np.float64], NDArray[np.float64]]]:
    """Blobs of the same name: name, layer, kind, and both values."""
    makers, others = a.makers(), b.makers()
    shared = [blob for blob in makers if blob in others]
    if not shared:
        raise PredictionError("the models have no blob of the same name")
    ours, theirs = a.blobs(sample, shared), b.blobs(sample, shared)
    for blob in shared:
        one, other = np.asarray(ours[blob], np.float64), np.asarray(theirs[blob], np.float64)
        yield blob, *makers[blob], one, _aligned(other, one.shape)


def _aligned(array: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """The array in a shape that differs by axes of one entry; else as it is."""
    extents = ([n for n in each if n != 1] for each in (array.shape, shape))
    return array.reshape(shape) if next(extents) == next(extents) else array
