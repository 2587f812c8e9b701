"""`compare_models`: how far two models agree on the same samples; `first_difference`: where not.

Either model may be an `MLModel`, an onnxruntime session, a Keras model, or any function from a
sample to outputs, so that the same report checks a quantized model and a conversion.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlferry.errors import PredictionError, UnsupportedModelError
from mlferry.models import html_page
from mlferry.models.html_page import table
from mlferry.models.model import MLModel
from mlferry.models.progress import progress
from mlferry.models.samples import Load, Unreadable, loaded, samples_for
from mlferry.models.workers import Executors, in_order
from mlferry.spec import networks
from mlferry.spec.proto import model_pb2

Outputs = Mapping[str, Any] | Sequence[Any]
_TOP = 5


@dataclass(frozen=True)
class Row:
    """One sample and one output.

    Attributes:
        sample: the name of the sample: its number, or the picture's file.
        output: the name of the output.
        numbers: the measures of this output for this sample.
        score: how well they agree, higher is better: what `worst` sorts by.
    """

    sample: str
    output: str
    numbers: dict[str, Any]
    score: float


@dataclass(frozen=True)
class OutputReport:
    """One output over all samples.

    Attributes:
        name: of the output.
        kind: "label", "probabilities" or "array" (numbers and images too).
        numbers: for labels: `top1`, the part of samples with the same label. For
            probabilities: `top1` (the same best label) and `top5` (the first model's best
            label is among the second's best five), from 0 to 1, and `largest_difference`.
            For arrays: means over the samples of `snr` and `psnr` (dB), `mean_difference` and
            `cosine`, and `largest_difference` of all.
    """

    name: str
    kind: str
    numbers: dict[str, float]

    def lines(self) -> list[str]:
        """What is printed."""
        shown = [f"  {_LABELS[key]:<20} {_show(key, value)}" for key, value in self.numbers.items()]
        title = f"Output {self.name}:"
        return [title, "-" * len(title), *shown]


_LABELS = {
    "top1": "Top 1 agreement:", "top5": "Top 5 agreement:", "snr": "SNR:", "psnr": "PSNR:",
    "largest_difference": "Largest difference:", "mean_difference": "Mean difference:",
    "cosine": "Cosine:",
}  # fmt: skip


def _show(key: str, value: float) -> str:
    if key in ("top1", "top5"):
        return f"{value:.2%}"
    if key in ("snr", "psnr"):
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
        return asdict(self)

    def __str__(self) -> str:
        lines = [f"Compared {self.count} sample{'s' * (self.count != 1)}"]
        for output in self.outputs.values():
            lines += ["", *output.lines()]
        if self.unreadable:
            lines += ["", f"Not readable: {', '.join(self.unreadable)}"]
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return html_page.fragment(self._body())

    def html(self, title: str = "Comparison") -> str:
        """A page of its own, with the numbers of every sample in it as JSON."""
        return html_page.page(self._body(), title, self.to_dict())

    def _body(self) -> str:
        outputs = self.outputs.values()
        keys = [key for key in _LABELS if any(key in output.numbers for output in outputs)]
        rows = [
            [output.name, *(_show_if_there(key, output.numbers) for key in keys)]
            for output in outputs
        ]
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


def _show_if_there(key: str, numbers: Mapping[str, float]) -> str:
    return _show(key, numbers[key]) if key in numbers else ""


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
        signal-to-noise ratio, differences and cosine; the first model is the reference.

    Raises:
        PredictionError: the samples do not fit, or the models' outputs cannot be paired.
        MissingCustomLayerError: classes of custom layers are missing.
        WorkerError: the executor cannot do it.
    """
    models = [_as_model(given) for given in (full_precision_model, quantized_model)]
    described = next((model for model in models if isinstance(model, MLModel)), None)
    samples = samples_for(described, sample_data, nested=nested)
    for model in models:
        _runner(model)  # says early what cannot be compared
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
        name: OutputReport(name, kind, _summary([r.numbers for r in rows if r.output == name]))
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
    pairs = _paired(_runner(first)(sample.data), _runner(second)(sample.data))
    rows = []
    for name, (kind, one, other) in pairs.items():
        numbers, score = _MEASURES[kind](one, other)
        rows.append((kind, Row(sample.name, name, numbers, score)))
    return rows


# ---- running ----------------------------------------------------------------------------------


def _as_model(given: Any) -> Any:
    if isinstance(given, str | os.PathLike | bytes | model_pb2.Model):
        return MLModel(given)
    return given


def _runner(model: Any) -> Callable[[Mapping[str, Any]], Outputs]:
    if isinstance(model, MLModel):
        return model.predict
    if hasattr(model, "get_inputs") and hasattr(model, "run"):
        return _onnx_runner(model)
    if hasattr(model, "predict_on_batch"):
        return lambda data: _in_order(model.predict_on_batch(_only_or_list(data)))
    if callable(model):
        return lambda data: _in_order(model(data))
    raise PredictionError(
        f"a {type(model).__name__} cannot be compared: give an MLModel, an onnxruntime session, "
        "a Keras model, or a function from a dict of inputs to outputs"
    )


def _onnx_runner(session: Any) -> Callable[[Mapping[str, Any]], Outputs]:
    described = list(session.get_inputs())
    outputs = [output.name for output in session.get_outputs()]

    def run(data: Mapping[str, Any]) -> Outputs:
        names = [one.name for one in described]
        values = [data[name] for name in names] if set(names) <= data.keys() else [*data.values()]
        if len(values) != len(names):
            raise PredictionError(f"the session takes {names}; the sample has {[*data]}")
        feed = {
            one.name: np.asarray(value, _ONNX_TYPES.get(one.type, np.float32))
            for one, value in zip(described, values, strict=True)
        }
        return dict(zip(outputs, session.run(None, feed), strict=True))

    return run


_ONNX_TYPES: dict[str, Any] = {
    "tensor(double)": np.float64, "tensor(int64)": np.int64, "tensor(int32)": np.int32,
    "tensor(uint8)": np.uint8, "tensor(float16)": np.float16, "tensor(bool)": np.bool_,
}  # fmt: skip


def _only_or_list(data: Mapping[str, Any]) -> Any:
    values = [np.asarray(value) for value in data.values()]
    return values[0] if len(values) == 1 else values


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


def _label(first: Any, second: Any) -> tuple[dict[str, Any], float]:
    same = bool(first == second)
    return {"top1": same, "first": first, "second": second}, float(same)


def _probabilities(
    first: NDArray[np.float64], second: NDArray[np.float64]
) -> tuple[dict[str, Any], float]:
    best = int(np.argmax(first))
    rank = int(np.argsort(-second.reshape(-1), kind="stable").tolist().index(best))
    largest = float(np.abs(first - second).max(initial=0))
    return {"top1": rank == 0, "top5": rank < _TOP, "largest_difference": largest}, -rank - largest


def _array(first: NDArray[np.float64], second: NDArray[np.float64]) -> tuple[dict[str, Any], float]:
    off = np.abs(first - second)
    signal, noise = float(np.square(first).mean()), float(np.square(off).mean())
    peak = float(np.abs(first).max(initial=0))
    lengths = float(np.linalg.norm(first) * np.linalg.norm(second))
    if noise == 0:
        snr, psnr, cosine = math.inf, math.inf, 1.0
    else:
        snr, psnr = _decibels(signal, noise), _decibels(peak * peak, noise)
        cosine = float((first * second).sum()) / lengths if lengths else 0.0
    numbers = {
        "snr": snr, "psnr": psnr, "largest_difference": float(off.max(initial=0)),
        "mean_difference": float(off.mean()), "cosine": cosine,
    }  # fmt: skip
    return numbers, snr if snr == snr else -math.inf  # noqa: PLR0124 - NaN is the worst


def _decibels(signal: float, noise: float) -> float:
    return 10 * math.log10(signal / noise) if signal > 0 else (-math.inf if noise else math.nan)


_MEASURES: dict[str, Callable[[Any, Any], tuple[dict[str, Any], float]]] = {
    "label": _label,
    "probabilities": _probabilities,
    "array": _array,
}


def _summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    found: dict[str, float] = {}
    for key in rows[0]:
        if key in _LABELS:
            values = [float(row[key]) for row in rows]
            found[key] = max(values) if key == "largest_difference" else _mean(values)
    return found


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed)


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
    """The first layer whose blob differs between two networks, or None.

    Args:
        a: a model with a neural network.
        b: another one, whose blobs have the same names.
        sample: as for `MLModel.predict`.
        tolerance: how large a difference may be, as a part of the largest value of the blob.

    Raises:
        UnsupportedModelError: a model is no neural network.
        PredictionError: the sample does not fit, or no blob has the same name in both.
    """
    makers = _makers(a)
    others = _makers(b)
    shared = [blob for blob in makers if blob in others]
    if not shared:
        raise PredictionError("the networks have no blob of the same name")
    ours, theirs = a.intermediate(sample, shared), b.intermediate(sample, shared)
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


def _makers(model: MLModel) -> dict[str, tuple[str, str]]:
    """Layer and kind by blob, in the order in which blobs are made."""
    network = networks.network_of(model.get_spec())
    if network is None:
        raise UnsupportedModelError("first_difference looks into neural networks, one in a model")
    return {
        blob: (layer.name, layer.WhichOneof("layer") or "")
        for layer in network.layers
        for blob in layer.output
    }
