"""A source model and a Core ML model side by side."""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlferry.errors import MlferryError, PredictionError, UnsupportedModelError
from mlferry.models import html_page
from mlferry.models.compare import Difference, Report, compare_models
from mlferry.models.comparison import Row
from mlferry.models.model import MLModel
from mlferry.models.samples import SampleData, samples_for
from mlferry.models.verify.sources import RunnableSource, open_source
from mlferry.numerics.shapes import Array
from mlferry.programs.contents import blocks_of, operations_of
from mlferry.spec import features, networks
from mlferry.spec.proto import features_pb2 as ft, mil_pb2 as mil, model_pb2
from mlferry.text import paragraph

Prepare = Callable[[Mapping[str, Any]], dict[str, Array]]
EXACT, HALF = 1e-3, 2e-2  # tolerances: for float32, and for programs that compute in float16
_SMALL = 1e-3  # the least peak: below it, no digit need be right
_LONGEST = 64  # extent of an unbounded axis in random samples


@dataclass(frozen=True)
class Verification:
    """The result of `verify`; prints as text, true if the model gives what its source gives.

    Attributes:
        report: the numbers of `compare_models`, the source first.
        tolerance: how large a difference may be, as a part of an output's largest value.
        wrong: the rows beyond it, the worst first.
        first: where the worst sample begins to differ, if both models have values of the same
            names.
        sizes: the shapes of the inputs that were tried, by input.
    """

    report: Report
    tolerance: float
    wrong: Sequence[Row]
    first: Difference | None
    sizes: Mapping[str, Sequence[tuple[int, ...]]]

    def __bool__(self) -> bool:
        return not self.wrong

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain dicts, lists, numbers and strings."""
        return {
            "agrees": bool(self),
            "tolerance": self.tolerance,
            "wrong": [row.to_dict() for row in self.wrong],
            "first_difference": None if self.first is None else vars(self.first),
            "sizes": {
                name: [list(shape) for shape in shapes] for name, shapes in self.sizes.items()
            },
            "report": self.report.to_dict(),
        }

    def __str__(self) -> str:
        lines = [str(self.report), ""]
        lines = "\n".join(lines).split("\n")
        for name, shapes in self.sizes.items():
            if len(shapes) > 1:
                lines.append(f"{name}: tried with {', '.join(map(str, shapes))}")
        if self:
            lines.append(f"The model gives what its source gives, within {self.tolerance:g}.")
            return paragraph(lines)
        count = len({row.sample for row in self.wrong})
        lines.append(
            f"The model differs from its source in {count} of {self.report.count} "
            f"sample{'s' * (self.report.count != 1)}, by more than {self.tolerance:g}:"
        )
        lines += [f"  {row.sample}, output {row.output!r}: {_how(row)}" for row in self.wrong[:5]]
        if self.first is not None:
            lines.append(str(self.first))
        return paragraph(lines)

    def _repr_html_(self) -> str:
        verdict = "gives what its source gives" if self else "differs from its source"
        rows = [("tolerance", f"{self.tolerance:g} of an output's largest value")]
        rows += [(name, f"tried with {_sizes(shapes)}") for name, shapes in self.sizes.items()]
        rows += [(row.sample, f"{row.output}: {_how(row)}") for row in self.wrong[:5]]
        if self.first is not None:
            rows.append(("first difference", str(self.first)))
        body = f"<h2>The model {verdict}</h2>{html_page.table(rows)}"
        return html_page.fragment(body) + self.report._repr_html_()


def _sizes(shapes: Sequence[tuple[int, ...]]) -> str:
    return ", ".join(" x ".join(map(str, shape)) for shape in shapes)


def verify(
    source: str | os.PathLike[str],
    model: MLModel | str | os.PathLike[str],
    samples: SampleData | None = None,
    *,
    tolerance: float | None = None,
    prepare: Prepare | None = None,
    count: int = 3,
    seed: int = 0,
) -> Verification:
    """Run a source model and a Core ML model side by side and compare them.

    The source runs in its own library: onnxruntime, Keras or TensorFlow. Nothing is converted.

    Args:
        source: an `.onnx`, `.keras` or `.h5` file, or the folder of a SavedModel, that you trust.
        model: the Core ML model, or its path.
        samples: as for `compare_models`: dicts by the names of the model's inputs, or a folder of
            pictures or arrays. Without them random samples are used; if sizes vary, with the
            default, the least and a larger size.
        tolerance: how large a difference may be, as a part of the largest value of an output (or
            of 0.001, where all values are smaller); by default 1e-3, and 0.02 for ML Programs that
            compute in float16.
        prepare: maps a sample to the arrays of the source, by the source's names. By default,
            arrays are laid out like the source's, and images are prepared as the network does. ML
            Programs with image inputs need it, as they prepare pixels by ordinary operations.
        count: how many random samples of each size.
        seed: of the random samples.

    Raises:
        ModelFileError: the source cannot be read.
        MissingDependencyError: its library is not installed.
        PredictionError: inputs or outputs of both cannot be paired, or a model refuses a sample.
    """
    opened = open_source(source)
    loaded = model if isinstance(model, MLModel) else MLModel(model)
    spec = loaded.get_spec()
    if samples is None:
        described = list(spec.description.input)
        pairs = opened.counterparts([feature.name for feature in described])
        whole = {pairs[name] for name, (_, dtype) in opened.inputs.items() if dtype.kind in "iub"}
        samples = [*_random_samples(described, whole, count, seed)]
    prepared = prepare or _translator(opened, loaded)
    sizes: dict[str, list[tuple[int, ...]]] = {}

    def run(data: Mapping[str, Any]) -> Mapping[str, Array] | Sequence[Array]:
        for name, value in data.items():
            shapes = sizes.setdefault(name, [])
            shapes += [np.shape(value)] if np.shape(value) not in shapes else []
        return opened.run(prepared(data))

    report = compare_models(run, loaded, samples)
    allowed = _tolerance(loaded) if tolerance is None else tolerance
    wrong = sorted(
        (row for row in report.rows if not _agrees(row, allowed)), key=lambda row: row.score
    )
    first = None
    if wrong:
        worst = next(s.data for s in samples_for(spec, samples) if s.name == wrong[0].sample)
        first = _first_difference(opened, loaded, worst, prepared(worst), allowed)
    return Verification(report, allowed, wrong, first, sizes)


def _tolerance(model: MLModel) -> float:
    """The tolerance for the number format of a model."""
    if model.precision != "half":
        return EXACT
    halves = (
        output.type.tensorType.dataType == mil.FLOAT16
        for inner in networks.models_in(model.spec)
        for block in blocks_of(inner.mlProgram)
        for operation in operations_of(block)
        for output in operation.outputs
    )
    return HALF if any(halves) else EXACT


def _relative(row: Row) -> float:
    """The largest difference as a part of the largest value; of probabilities as it is."""
    largest = float(row.numbers.get("largest_difference", 0.0))
    return largest / (1.0 if row.energy is None else max(row.energy.peak, _SMALL))


def _agrees(row: Row, tolerance: float) -> bool:
    if "first" in row.numbers:  # labels
        return bool(row.numbers["top1"])
    return _relative(row) <= tolerance


def _how(row: Row) -> str:
    if "first" in row.numbers:
        return f"{row.numbers['second']!r} instead of {row.numbers['first']!r}"
    return f"{_relative(row):.2%} of its largest value"


# ---- samples -----------------------------------------------------------------------------


def _random_samples(
    inputs: Sequence[model_pb2.FeatureDescription], whole: Container[str], count: int, seed: int
) -> Iterator[dict[str, Any]]:
    """So many samples of random values at each size of the inputs; integers (`whole`) are 0 or 1.

    Raises:
        PredictionError: an input has a type without random values.
    """
    random = np.random.default_rng(seed)
    shapes = {feature.name: _shapes(feature.type, feature.name) for feature in inputs}
    for index in range(max(map(len, shapes.values()), default=1)):
        for _ in range(count):
            yield {
                feature.name: _random(
                    feature.type,
                    shapes[feature.name][index % len(shapes[feature.name])],
                    random,
                    whole=feature.name in whole,
                )
                for feature in inputs
            }


def _shapes(kind: ft.FeatureType, name: str) -> list[tuple[int, ...]]:
    """The default shape, the least and a larger one; of an image (height, width)."""
    if kind.HasField("imageType"):
        image = kind.imageType
        shapes: list[tuple[int, ...]] = [(image.height, image.width)]
        if image.HasField("enumeratedSizes"):
            shapes += [(size.height, size.width) for size in image.enumeratedSizes.sizes]
        if image.HasField("imageSizeRange"):
            bounds = image.imageSizeRange
            shapes += _extremes([bounds.heightRange, bounds.widthRange], shapes[0])
        return [*dict.fromkeys(shapes)]
    if kind.HasField("multiArrayType"):
        array = kind.multiArrayType
        shapes = [tuple(array.shape)] if array.shape else []
        if array.HasField("enumeratedShapes"):
            shapes += [tuple(each.shape) for each in array.enumeratedShapes.shapes]
        if array.HasField("shapeRange"):
            shapes += _extremes(array.shapeRange.sizeRanges, shapes[0] if shapes else ())
        return [*dict.fromkeys(shapes)]
    raise PredictionError(
        f"input {name!r} is {features.show(kind)}, of which no random sample can be made: give "
        "samples"
    )


def _extremes(ranges: Sequence[ft.SizeRange], usual: Sequence[int]) -> list[tuple[int, ...]]:
    least = tuple(max(1, each.lowerBound) for each in ranges)
    most = tuple(
        max(low, min(each.upperBound, 2 * own) if each.upperBound >= 0 else min(_LONGEST, 2 * own))
        for low, each, own in zip(least, ranges, usual or least, strict=True)
    )
    return [least, most]


def _random(
    kind: ft.FeatureType, shape: tuple[int, ...], random: np.random.Generator, *, whole: bool
) -> Any:
    if kind.HasField("imageType"):
        grey = features.CHANNELS[features.LAYOUTS[kind.imageType.colorSpace]] == 1
        size = shape if grey else (*shape, 3)
        return random.integers(0, 256, size).astype(np.uint8)
    dtype = np.dtype(features.DTYPES[kind.multiArrayType.dataType])
    if whole or dtype.kind in "iu":
        return random.integers(0, 2, shape).astype(dtype)
    return random.normal(size=shape).astype(dtype)


# ---- values for the source ---------------------------------------------------------------


def _translator(source: RunnableSource, model: MLModel) -> Prepare:
    """Map a sample to the arrays of the source, with images prepared as the network does."""
    described = list(model.spec.description.input)
    order = [feature.name for feature in described]
    pictures = {feature.name for feature in described if feature.type.HasField("imageType")}

    if pictures and networks.network_of(model.spec) is None:
        raise PredictionError(
            f"the image input {min(pictures)!r} is not of a neural network, which would tell how "
            "its pixels are prepared: mlferry.verify(..., prepare=function from a sample to the "
            "arrays that the source takes)"
        )

    def translate(data: Mapping[str, Any]) -> dict[str, Array]:
        prepared = model.blobs(data, sorted(pictures)) if pictures else {}
        return source.arrays_for({**data, **prepared}, order)

    return translate


# ---- where they differ -------------------------------------------------------------------


def _first_difference(
    source: RunnableSource,
    model: MLModel,
    sample: Mapping[str, Any],
    inputs: dict[str, Array],
    tolerance: float,
) -> Difference | None:
    """The first value inside that differs, among those of the same name."""
    if source.inside is None:
        return None
    try:
        makers = model.makers()
    except UnsupportedModelError:
        return None
    try:
        theirs = [
            (blob, value)
            for name, value in source.inside(inputs)
            if (blob := _counterpart(name, makers, scoped=source.scoped)) is not None
        ]
    except (MlferryError, MemoryError):
        raise
    except Exception:  # the library shows no values inside
        return None
    ours = model.blobs(sample, [name for name, _ in theirs])
    for name, value in theirs:
        one, other = np.asarray(value, np.float64), np.asarray(ours[name], np.float64)
        alike = _alike(one, other)
        if alike is None:
            continue
        largest = float(np.abs(one - alike).max(initial=0))
        relative = largest / max(float(np.abs(one).max(initial=0)), _SMALL)
        if not relative <= tolerance:
            layer, kind = makers[name]
            return Difference(name, layer, kind, (one.shape, one.shape), largest, relative)
    return None


def _counterpart(name: str, makers: Mapping[str, object], *, scoped: bool) -> str | None:
    """What the Core ML model calls a value of the source."""
    if not scoped:
        return name if name in makers else None
    own = [blob for blob in makers if blob == name or blob.startswith(f"{name}/")]
    return own[-1] if own else None


def _alike(one: Array, other: Array) -> Array | None:
    """A value of the network in the layout of the source; None if its shape is another."""
    if one.size != other.size:
        return None
    flat = other.reshape([n for n in other.shape if n > 1])
    extents = [n for n in one.shape if n > 1]
    if list(flat.shape) == extents:
        return flat.reshape(one.shape)
    if flat.ndim > 1 and list(np.moveaxis(flat, 0, -1).shape) == extents:
        return np.moveaxis(flat, 0, -1).reshape(one.shape)
    return None
