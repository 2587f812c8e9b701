"""`compare_models`: how far two models agree on the same samples; `first_difference`: where not.

Either model may be an `MLModel`, an onnxruntime session, a Keras model, or any function from a
sample to outputs, so that the same report checks a quantized model and a conversion.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlferry.errors import PredictionError
from mlferry.models import agreement, html_page
from mlferry.models.agreement import Margins
from mlferry.models.html_page import table
from mlferry.models.model import MLModel
from mlferry.models.progress import progress
from mlferry.models.samples import Load, Unreadable, loaded, samples_for
from mlferry.models.workers import Executors, in_order
from mlferry.spec.proto import model_pb2
from mlferry.text import paragraph

Outputs = Mapping[str, Any] | Sequence[Any]


@dataclass(frozen=True)
class Energy:
    """What the signal-to-noise ratio of some values is made of.

    Attributes:
        signal: the sum of the squares of the first model's values.
        noise: the sum of the squares of the differences.
        peak: the largest magnitude of the first model's values.
        count: how many values there are.
    """

    signal: float
    noise: float
    peak: float
    count: int

    @classmethod
    def pooled(cls, parts: Sequence[Energy]) -> Energy:
        """Of all values of several arrays."""
        return cls(
            sum(part.signal for part in parts),
            sum(part.noise for part in parts),
            float(np.max([part.peak for part in parts])),  # keeps NaN
            sum(part.count for part in parts),
        )

    @property
    def snr(self) -> float:
        """Signal over noise, in dB."""
        return math.inf if self.noise == 0 else _decibels(self.signal, self.noise)

    @property
    def psnr(self) -> float:
        """The square of the peak over the mean noise, in dB."""
        if self.noise == 0:
            return math.inf
        return _decibels(self.peak * self.peak, self.noise / self.count)


@dataclass(frozen=True)
class Row:
    """One sample and one output.

    Attributes:
        sample: the name of the sample: its number, or the picture's file.
        output: the name of the output.
        numbers: the measures of this output for this sample.
        score: how well they agree, higher is better: what `worst` sorts by.
        energy: of an array, what its ratios are made of.
        margins: of scores, what their expected agreement is made of.
    """

    sample: str
    output: str
    numbers: dict[str, Any]
    score: float
    energy: Energy | None = None
    margins: Margins | None = field(default=None, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """All but the margins, as plain dicts, numbers and strings."""
        return asdict(replace(self, margins=None))


@dataclass(frozen=True)
class OutputReport:
    """One output over all samples.

    Attributes:
        name: of the output.
        kind: "label", "probabilities" or "array" (numbers and images too).
        numbers: for labels: `top1`, the part of samples with the same label. For
            probabilities: `top1` (the same best label) and `top5` (the first model's best
            label is among the second's best five), from 0 to 1; `expected_top1` and
            `expected_top5`, the same from the margins between the scores, which are nearer to
            what other samples give; `kl`, the mean Kullback-Leibler divergence of the second
            model's scores from the first's, in nats; and `largest_difference`.
            For arrays: `snr` and `psnr` (dB) of the values of all samples together, `worst_snr`
            of the sample with the smallest one, means over the samples of `mean_difference` and
            `cosine`, and `largest_difference` of all. Vectors have the numbers of probabilities,
            too, as they may be the scores of classes: those that are no chances go through softmax.
        intervals: of `top1` and `top5`, from where to where they lie in 95 % of cases
            (`mlferry.models.agreement.wilson`).
    """

    name: str
    kind: str
    numbers: dict[str, float]
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """What is printed."""
        shown = [f"  {_LABELS[key]:<20} {self.shown(key)}" for key in self.numbers]
        title = f"Output {self.name}:"
        return [title, "-" * len(title), *shown]

    def shown(self, key: str) -> str:
        """A number with its unit, a rate with its interval; nothing where there is none."""
        if key not in self.numbers:
            return ""
        text = _show(key, self.numbers[key])
        if key not in self.intervals:
            return text
        low, high = self.intervals[key]
        return f"{text} ({100 * low:.1f} to {high:.1%})"


_LABELS = {
    "top1": "Top 1 agreement:",
    "top5": "Top 5 agreement:",
    "expected_top1": "Top 1, expected:",
    "expected_top5": "Top 5, expected:",
    "kl": "KL divergence:",
    "snr": "SNR:",
    "worst_snr": "SNR, worst sample:",
    "psnr": "PSNR:",
    "largest_difference": "Largest difference:",
    "mean_difference": "Mean difference:",
    "cosine": "Cosine:",
}


def _show(key: str, value: float) -> str:
    if key.endswith(("top1", "top5")):
        return f"{value:.2%}"
    if key in ("snr", "worst_snr", "psnr"):
        return f"{value:.2f} dB"
    return f"{value:.6f}" if key == "cosine" else f"{value:.4g}"


@dataclass(frozen=True)
class Report:
    """What `compare_models` found; prints as a table, in a notebook as HTML.

    Attributes:
        count: how many samples were compared.
        outputs: a report by output.
        rows: every sample and output.
        unreadable: pictures that could not be read, with the reason.
    """

    count: int
    outputs: dict[str, OutputReport]
    rows: list[Row]
    unreadable: dict[str, str] = field(default_factory=dict)

    @property
    def top1(self) -> float:
        """The part of samples with the same best label.

        Raises:
            KeyError: no output is a label.
        """
        return self._first("top1")

    @property
    def top5(self) -> float:
        """The part of samples whose best label in the first model is in the second's best five.

        Raises:
            KeyError: no output is a dictionary of probabilities.
        """
        return self._first("top5")

    def _first(self, key: str) -> float:
        for output in self.outputs.values():
            if key in output.numbers:
                return output.numbers[key]
        raise KeyError(f"no output has {key}; they have {[*self.outputs]}")

    def worst(self, count: int = 5, output: str | None = None) -> list[Row]:
        """The rows that agree least, the worst one first."""
        rows = [row for row in self.rows if output in (None, row.output)]
        return sorted(rows, key=lambda row: row.score)[:count]

    def to_dict(self) -> dict[str, Any]:
        """Everything, as plain dicts, lists, numbers and strings."""
        return asdict(replace(self, rows=[])) | {"rows": [row.to_dict() for row in self.rows]}

    def __str__(self) -> str:
        lines = [f"Compared {self.count} sample{'s' * (self.count != 1)}"]
        for output in self.outputs.values():
            lines += ["", *output.lines()]
        if self.unreadable:
            lines += ["", f"Not readable: {', '.join(self.unreadable)}"]
        return paragraph(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return html_page.fragment(self._body())

    def html(self, title: str = "Comparison") -> str:
        """A page of its own, with the numbers of every sample in it as JSON."""
        return html_page.page(self._body(), title, self.to_dict())

    def _body(self) -> str:
        outputs = self.outputs.values()
        keys = [key for key in _LABELS if any(key in output.numbers for output in outputs)]
        rows = [[output.name, *(output.shown(key) for key in keys)] for output in outputs]
        names = [_LABELS[key].rstrip(":") for key in keys]
        parts = [f"<h2>Compared {self.count} samples</h2>", table(rows, ["Output", *names])]
        if self.count > 1:
            worst = [
                [row.sample, row.output, ", ".join(_shown(row.numbers))] for row in self.worst()
            ]
            parts.append("<h2>Agree least</h2>" + table(worst, ["Sample", "Output", ""]))
        if self.unreadable:
            parts.append("<h2>Not readable</h2>" + table(self.unreadable.items()))
        return "".join(parts)


def _shown(numbers: Mapping[str, Any]) -> list[str]:
    """The measures of one sample."""
    return [
        f"{_LABELS.get(key, f'{key}:')} {_show(key, value) if key in _LABELS else value}"
        for key, value in numbers.items()
    ]


def compare_models(
    full_precision_model: Any,
    quantized_model: Any,
    sample_data: Any,
    *,
    nested: bool = False,
    executor: Executors | None = None,
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
        nested: whether pictures in folders of the folder count.
        executor: works on several samples at a time, see `MLModel.predict`; models that are
            functions have to pickle then.

    Returns:
        A `Report`. Probabilities and labels are compared by agreement, images and arrays by
        signal-to-noise ratio (of all samples pooled, and of the worst one), differences and
        cosine; the first model is the reference.

    Raises:
        PredictionError: the samples do not fit, or the models' outputs cannot be paired.
        MissingCustomLayerError: classes of custom layers are missing.
        WorkerError: the executor cannot do it.
    """
    models = [_as_model(given) for given in (full_precision_model, quantized_model)]
    described = next((model for model in models if isinstance(model, MLModel)), None)
    spec = None if described is None else described.get_spec()
    samples = samples_for(spec, sample_data, nested=nested)
    order = _input_order(described)
    for model in models:
        _runner(model, order)  # says early what cannot be compared
    rows: list[Row] = []
    kinds: dict[str, str] = {}
    count = 0
    shared = (models[0], models[1], samples.load)
    made = in_order(_compared, shared, samples.parcels(), executor)
    for found in progress(made, "comparing", len(samples)):
        if isinstance(found, Unreadable):
            samples.add(found)
            continue
        count += 1
        for kind, row in found:
            kinds.setdefault(row.output, kind)
            rows.append(row)
    if not count:
        raise PredictionError(
            "no picture could be read: "
            + "; ".join(f"{name}: {why}" for name, why in samples.unreadable.items())
        )
    outputs = {
        name: _output(name, kind, [row for row in rows if row.output == name])
        for name, kind in kinds.items()
    }
    return Report(count, outputs, rows, samples.unreadable)


def _compared(
    shared: tuple[Any, Any, Load], parcel: tuple[str, Any]
) -> list[tuple[str, Row]] | Unreadable:
    """The rows of one sample, with the kind of each output."""
    first, second, load = shared
    sample = loaded(load, *parcel)
    if isinstance(sample, Unreadable):
        return sample
    order = _input_order(next((m for m in (first, second) if isinstance(m, MLModel)), None))
    made = (_runner(model, order)(sample.data) for model in (first, second))
    pairs = _paired(*made)
    rows = []
    for name, (kind, one, other) in pairs.items():
        rows.append((kind, Row(sample.name, name, *_MEASURES[kind](one, other))))
    return rows


# ---- running ----------------------------------------------------------------------------------


def _as_model(given: Any) -> Any:
    if isinstance(given, str | os.PathLike | bytes | model_pb2.Model):
        return MLModel(given)
    return given


def _input_order(model: MLModel | None) -> list[str]:
    """The names of a Core ML model's inputs: a conversion keeps the order of the source's."""
    return [] if model is None else [feature.name for feature in model.spec.description.input]


def _runner(model: Any, order: Sequence[str]) -> Callable[[Mapping[str, Any]], Outputs]:
    """What evaluates a model for a sample; `order` is that of a Core ML model beside it."""
    if isinstance(model, MLModel):
        return model.predict
    if hasattr(model, "get_inputs") and hasattr(model, "run"):
        return _onnx_runner(model, order)
    if hasattr(model, "predict_on_batch"):
        return _keras_runner(model, order)
    if callable(model):
        return lambda data: _in_order(model(data))
    raise PredictionError(
        f"a {type(model).__name__} cannot be compared: give an MLModel, an onnxruntime session, "
        "a Keras model, or a function from a dict of inputs to outputs"
    )


def _onnx_runner(session: Any, order: Sequence[str]) -> Callable[[Mapping[str, Any]], Outputs]:
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


def _keras_runner(model: Any, order: Sequence[str]) -> Callable[[Mapping[str, Any]], Outputs]:
    names = _keras_inputs(model)
    keys = _keys(model)

    def run(data: Mapping[str, Any]) -> Outputs:
        wanted = names or [name for name in order if name in data] or [*data]
        if not names and not order and len(data) > 1:
            raise PredictionError(
                "the Keras model does not name its inputs: compare a function that takes the "
                "sample's dict and calls the model"
            )
        found = _by_name(wanted, data, order, "the Keras model")
        values = [np.asarray(value) for value in found]
        if keys:
            return _in_order(model.predict_on_batch(dict(zip(keys, values, strict=True))))
        return _in_order(model.predict_on_batch(values[0] if len(values) == 1 else values))

    return run


def _keras_inputs(model: Any) -> list[str]:
    """The names of a Keras model's inputs; none where it is a class of its own."""
    tensors = getattr(model, "inputs", None)
    return [str(tensor.name).split(":")[0] for tensor in tensors] if tensors else []


def _keys(model: Any) -> list[str]:
    """The keys of the inputs of a Keras model that takes a dict, in the order of `inputs`."""
    for name in ("_inputs_struct", "_nested_inputs"):  # of Keras 3, of Keras 2
        struct = getattr(model, name, None)
        if isinstance(struct, Mapping):
            places = {id(tensor): key for key, tensor in struct.items()}
            keys = [places.get(id(tensor)) for tensor in model.inputs]
            return [key for key in keys if key is not None]
    return []


def _by_name(
    names: Sequence[str], data: Mapping[str, Any], order: Sequence[str], whose: str
) -> list[Any]:
    """The values of a sample in the order of a model's inputs.

    Where the model has other names than the sample, all of them, both follow one order.
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


def _in_order(made: Any) -> Outputs:
    if isinstance(made, Mapping | list | tuple):
        return made
    return [made]


# ---- pairing ----------------------------------------------------------------------------------


def _paired(first: Outputs, second: Outputs) -> dict[str, tuple[str, Any, Any]]:
    """Outputs by name with their kind: by name where names are shared, else by order."""
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
            f"{[name for name, _ in other]} of the second have no names in common, and are not "
            "as many: let one of them be a function that returns a dict with the other's names"
        )
    named = one if isinstance(first, Mapping) else other
    return {
        name: _pair(name, a, b) for (name, _), (_, a), (_, b) in zip(named, one, other, strict=True)
    }


def _named(made: Outputs) -> list[tuple[str, Any]]:
    if isinstance(made, Mapping):
        return list(made.items())
    return [(f"output {index}", value) for index, value in enumerate(made)]


def _is_label(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool))


def _pair(name: str, first: Any, second: Any) -> tuple[str, Any, Any]:
    if isinstance(first, str) or isinstance(second, str):
        return "label", first, second
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        keys = list(first)
        if set(keys) != set(second):
            raise PredictionError(f"the labels of {name!r} are not the same in both models")
        return "probabilities", _floats(first), _floats({key: second[key] for key in keys})
    if _is_label(first) and _is_label(second):
        return "label", first, second
    kind = "probabilities" if isinstance(first, Mapping) or isinstance(second, Mapping) else "array"
    one, other = _floats(first), _floats(second)
    if one.size != other.size:
        raise PredictionError(
            f"the output {name!r} has shape {one.shape} in the first model, {other.shape} in "
            "the second"
        )
    return kind, one, other.reshape(one.shape)


def _floats(value: Any) -> NDArray[np.float64]:
    if isinstance(value, Mapping):
        value = list(value.values())
    return np.asarray(value).astype(np.float64)


# ---- measuring --------------------------------------------------------------------------------


class Measured(NamedTuple):
    """What a `Row` has of two values."""

    numbers: dict[str, Any]
    score: float
    energy: Energy | None = None
    margins: Margins | None = None


def _label(first: Any, second: Any) -> Measured:
    same = bool(first == second)
    return Measured({"top1": same, "first": first, "second": second}, float(same))


def _probabilities(first: NDArray[np.float64], second: NDArray[np.float64]) -> Measured:
    numbers, rank, margins = _scores(first, second)
    numbers["largest_difference"] = float(np.abs(first - second).max(initial=0))
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


def _array(first: NDArray[np.float64], second: NDArray[np.float64]) -> Measured:
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


def _decibels(signal: float, noise: float) -> float:
    return 10 * math.log10(signal / noise) if signal > 0 else (-math.inf if noise else math.nan)


_MEASURES: dict[str, Callable[[Any, Any], Measured]] = {
    "label": _label,
    "probabilities": _probabilities,
    "array": _array,
}


def _output(name: str, kind: str, rows: Sequence[Row]) -> OutputReport:
    """One number a measure: a mean of decibels would hide the samples that agree least."""
    energies = [row.energy for row in rows if row.energy is not None]
    margins = [row.margins for row in rows if row.margins is not None]
    alike = len(margins) == len(rows) and len({each.before.size for each in margins}) == 1
    keys = [key for key in rows[0].numbers if all(key in row.numbers for row in rows)]
    found: dict[str, float] = {}
    intervals = {}
    for key in keys:
        if key in _POOLED:
            found[key] = float(getattr(Energy.pooled(energies), key))
        elif key in _LABELS:
            values = [float(row.numbers[key]) for row in rows]
            found[key] = float(np.max(values) if key == "largest_difference" else np.mean(values))
        if key == "snr":
            found["worst_snr"] = float(np.min([row.numbers[key] for row in rows]))
        if key in _PLACES:
            intervals[key] = agreement.wilson(found[key], len(rows))
            if alike:
                found[f"expected_{key}"] = agreement.expected(margins, _PLACES[key])
    return OutputReport(name, kind, found, intervals)


_PLACES = {"top1": 1, "top5": agreement.TOP}
_POOLED = ("snr", "psnr")


# ---- where models differ ----------------------------------------------------------------------


@dataclass(frozen=True)
class Difference:
    """The first blob that differs between two networks.

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
            what = f"shapes {self.shapes[0]} and {self.shapes[1]}"
        else:
            what = f"by {self.largest:.4g} ({self.relative:.2%} of its largest value)"
        return f"{self.kind} {self.layer!r} is the first to differ: blob {self.blob!r}, {what}"


def first_difference(
    a: MLModel, b: MLModel, sample: Mapping[str, Any], *, tolerance: float = 1e-3
) -> Difference | None:
    """The first layer or operation whose value differs between two models, or None.

    Args:
        a: a neural network or an ML Program.
        b: another one, whose blobs have the same names: the same program with another
            `precision`, say.
        sample: as for `MLModel.predict`.
        tolerance: how large a difference may be, as a part of the largest value of the blob.

    Raises:
        UnsupportedModelError: a model is neither a neural network nor an ML Program.
        PredictionError: the sample does not fit, or no blob has the same name in both.
    """
    makers, others = a.makers(), b.makers()
    shared = [blob for blob in makers if blob in others]
    if not shared:
        raise PredictionError("the networks have no blob of the same name")
    ours, theirs = a.blobs(sample, shared), b.blobs(sample, shared)
    for blob in shared:
        one, other = np.asarray(ours[blob], np.float64), np.asarray(theirs[blob], np.float64)
        layer, kind = makers[blob]
        if one.shape != other.shape:
            return Difference(blob, layer, kind, (one.shape, other.shape), math.nan, math.nan)
        unequal = ~((one == other) | (np.isnan(one) & np.isnan(other)))
        largest = float(np.abs(np.where(unequal, one - other, 0)).max(initial=0))
        peak = float(np.abs(one[np.isfinite(one)]).max(initial=0))
        if not largest <= tolerance * peak:
            relative = largest / peak if peak else math.inf
            return Difference(blob, layer, kind, (one.shape, other.shape), largest, relative)
    return None
