"""Quantize layer by layer, with sample data, against the outputs of the float model.

Two streams of blobs go through the network, one through the float layers, one through those
quantized so far; each layer's weights are chosen to make the float layer's outputs from the
quantized stream. Every layer is run once for every sample and stream, and only blobs that a
later layer reads are held; where they would take more than `_BUDGET`, fewer samples are used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlferry.errors import context
from mlferry.layers import versions
from mlferry.layers.kernels import Array
from mlferry.layers.sites import Site, sites
from mlferry.models.model import MLModel
from mlferry.models.quantization import modes
from mlferry.models.quantization.moments import PRODUCTS, Product
from mlferry.models.quantization.rounding import (
    Floats,
    Grid,
    LinearGrid,
    Moments,
    TableGrid,
    VectorGrid,
    best_range,
    choose,
)
from mlferry.models.samples import SampleData, samples_for
from mlferry.progress import progress
from mlferry.runtime.evaluators import prepare
from mlferry.runtime.evaluators.network import NetworkEvaluator
from mlferry.runtime.evaluators.registry import CustomClasses
from mlferry.runtime.session import Session
from mlferry.spec import networks, weights as stored_weights
from mlferry.spec.proto import model_pb2, neural_network_pb2 as nn
from mlferry.text import logger_of

logger = logger_of(__name__)

_BUDGET = 1 << 30  # bytes of blobs that both streams hold together
Blobs = dict[str, Array]
Features = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """What is to be done.

    Attributes:
        mode: linear, linear_symmetric, linear_lut or kmeans.
        bits: 1 to 8.
        is_chosen: whether a weight is quantized.
        classes: of custom layers and models.
        together: of kmeans: how many outputs share a table; None for all. Networks have no tables
            for some of them: the values that the tables stand for are stored as floats.
        vector: of kmeans: how many outputs one after another an entry of a table stands for; of
            more than one, floats are stored, too.
        each: the bits of some weights, by their names in messages; of others it is `bits`.
    """

    mode: str
    bits: int
    is_chosen: Callable[[Site], bool]
    classes: CustomClasses
    together: int | None = None
    vector: int = 1
    each: Mapping[str, int] = field(default_factory=dict)

    def with_bits(self, bits: int) -> Job:
        """The same with the same bits for every weight."""
        return replace(self, bits=bits, each={})

    @property
    def as_floats(self) -> bool:
        """Whether networks cannot store the tables."""
        return self.together is not None or self.vector > 1


def calibrate(model: MLModel, spec: model_pb2.Model, sample_data: SampleData, job: Job) -> None:
    """Quantize every chosen weight of `spec`, a copy of the model's specification.

    Raises:
        PredictionError: the data does not fit, or there is none.
    """
    quantize(
        spec, [dict(sample.data) for sample in samples_for(model.get_spec(), sample_data)], job
    )


def quantize(spec: model_pb2.Model, samples: Sequence[Features], job: Job) -> None:
    """Quantize every chosen weight of a specification, in place; see `calibrate`."""
    given = list(samples)
    _quantize_model(spec, given, given, job, last=True)


def _quantize_model(
    spec: model_pb2.Model,
    floats: list[Features],
    quantized: list[Features],
    job: Job,
    *,
    last: bool,
) -> tuple[list[Features], list[Features]]:
    """Quantize a model; its outputs before and after, unless it is the last one."""
    before = None if last else _outputs(spec, floats, job)
    pipeline = networks.pipeline_of(spec)
    if networks.network_of(spec) is not None:
        _quantize_network(spec, floats, quantized, job)
    elif pipeline is not None:
        known, known_quantized = floats, quantized
        for index, inner in enumerate(pipeline.models):
            made = _quantize_model(
                inner,
                _inputs(inner, known),
                _inputs(inner, known_quantized),
                job,
                last=index == len(pipeline.models) - 1,
            )
            known = [old | new for old, new in zip(known, made[0], strict=False)]
            known_quantized = [
                old | new for old, new in zip(known_quantized, made[1], strict=False)
            ]
    if before is None:
        return [], []
    return before, _outputs(spec, quantized, job)


def _inputs(spec: model_pb2.Model, known: list[Features]) -> list[Features]:
    names = [feature.name for feature in spec.description.input]
    return [{name: one[name] for name in names if name in one} for one in known]


def _outputs(spec: model_pb2.Model, given: list[Features], job: Job) -> list[Features]:
    evaluate = prepare(spec, job.classes)
    return [evaluate(features) for features in given]


# ---- one network ------------------------------------------------------------------------------


class Streams:
    """The blobs of every sample in the float and in the quantized network.

    A blob that is the same in both is one object.
    """

    def __init__(self, floats: list[Blobs], quantized: list[Blobs]) -> None:
        self.floats, self.quantized = floats, quantized

    def step(
        self, before: Session, after: Session, layer: nn.NeuralNetworkLayer, keep: set[str]
    ) -> None:
        """Run a layer, as it was and as it is, and drop what no later layer reads."""
        reads, writes = networks.touched(layer)
        for one, other in zip(self.floats, self.quantized, strict=True):
            given = {name: one[name] for name in reads | writes if name in one}
            moved = {name: other[name] for name in reads | writes if name in other}
            wanted = [name for name in sorted(writes) if name in keep]
            same = before is after and all(given[name] is moved.get(name) for name in given)
            made = before.run(given, wanted) if wanted else {}
            one.update(made)
            other.update(made if same or not wanted else after.run(moved, wanted))
            for blobs in (one, other):
                for name in blobs.keys() - keep:
                    del blobs[name]


def later_reads(layers: Sequence[nn.NeuralNetworkLayer]) -> list[set[str]]:
    """For each layer, what the layers after it read, or may leave as it was."""
    later: list[set[str]] = []
    needed: set[str] = set()
    for layer in reversed(layers):
        later.append(set(needed))
        reads, writes = networks.touched(layer)
        needed |= reads
        if networks.subnetworks(layer):
            needed |= writes
    return later[::-1]


def alone(
    network: networks.Network, layers: Sequence[nn.NeuralNetworkLayer], classes: CustomClasses
) -> Session:
    """A session of some layers, in the network's mapping of arrays."""
    made = nn.NeuralNetwork(layers=layers)
    if not versions.uses_rank5(network):
        made.arrayInputShapeMapping = nn.EXACT_ARRAY_MAPPING
    return Session(made, classes.layers)


def _quantize_network(
    spec: model_pb2.Model, floats: list[Features], quantized: list[Features], job: Job
) -> None:
    network = networks.network_of(spec)
    assert network is not None
    layers = list(network.layers)
    chosen = [
        [site for group in sites(layer) for site in group if job.is_chosen(site)]
        for layer in layers
    ]
    if not any(chosen):
        return
    end = 1 + max(index for index, found in enumerate(chosen) if found)
    evaluator = NetworkEvaluator(spec, job.classes)
    later = later_reads(layers[:end])
    sessions = [alone(network, [layer], job.classes) for layer in layers[:end]]
    picked = _as_many_as_fit(layers[:end], sessions, later, evaluator.blobs(floats[0]), len(floats))
    first = [evaluator.blobs(floats[index]) for index in picked]
    moved = [
        one if floats[index] is quantized[index] else evaluator.blobs(quantized[index])
        for index, one in zip(picked, first, strict=True)
    ]
    streams = Streams(first, [dict(blobs) for blobs in moved])
    work = list(zip(layers[:end], chosen[:end], sessions, later, strict=True))
    sessions.clear()
    for layer, found, before, keep in progress(work, f"{job.mode}, {job.bits} bits", len(work)):
        old = layer
        if found:
            old = nn.NeuralNetworkLayer()
            old.CopyFrom(layer)
            before = alone(network, [old], job.classes)  # noqa: PLW2901 - `layer` changes below
            for site in found:
                with context(f"quantizing {site}"):
                    own = job.each.get(str(site), job.bits)
                    store(site, Fit.of(site, layer, streams), job.with_bits(own))
        after = alone(network, [layer], job.classes) if found else before
        streams.step(before, after, old, keep)


def _as_many_as_fit(
    layers: Sequence[nn.NeuralNetworkLayer],
    sessions: Sequence[Session],
    later: Sequence[set[str]],
    blobs: Blobs,
    count: int,
) -> list[int]:
    """Which of `count` samples are used: evenly spread, as many as `_BUDGET` holds."""
    peak = _size(blobs)
    one = Streams([dict(blobs)], [dict(blobs)])
    for layer, session, keep in zip(layers, sessions, later, strict=True):
        one.step(session, session, layer, keep)
        peak = max(peak, _size(one.floats[0]))
    fit = max(1, min(count, _BUDGET // max(1, 2 * peak)))
    if fit < count:
        logger.info("%d of %d samples are used: more would not fit into memory", fit, count)
    return [index * count // fit for index in range(fit)]


def _size(blobs: Mapping[str, Array]) -> int:
    return sum(array.nbytes for array in blobs.values())


# ---- one weight -------------------------------------------------------------------------------


class Fit(NamedTuple):
    """What data tells of a weight: the product that it is of, and its inputs' moments."""

    product: Product
    moments: Moments

    @classmethod
    def of(cls, site: Site, layer: nn.NeuralNetworkLayer, streams: Streams) -> Fit | None:
        """None where the weight is no product's."""
        is_own = not networks.subnetworks(layer)
        if not (is_own and site.field == "weights" and site.kind in PRODUCTS):
            return None
        product: Product = PRODUCTS[site.kind](site, len(streams.floats))
        name = layer.input[0]
        for one, other in zip(streams.floats, streams.quantized, strict=True):
            product.add(one[name], other[name])
        return cls(product, product.moments())


def store(site: Site, fit: Fit | None, job: Job) -> None:
    """Quantize a weight: by the data where it tells something, else by its values."""
    values = site.read()
    if fit is None and not job.as_floats:
        by_values(values, site, job).write(site.message, job.bits)
        return
    if fit is None:
        rows = modes.by_channel(values, site.read_axis).T[None].astype(np.float64)
        near = _table(rows, job).near(rows)[0].T
        floats = modes.from_channels(near.astype(np.float32), values.shape, site.read_axis)
        stored_weights.write(site.message, floats)
        return
    product = fit.product
    matrices: Floats = product.matrices(values).astype(np.float64)
    grid, made = choose(matrices, fit.moments, lambda t, i: _grid(t, i, site, job))
    if job.as_floats:
        stored_weights.write(site.message, product.weights(made).astype(np.float32))
        return
    indices = product.weights(grid.indices(made))
    _stored(indices, grid, job).write(site.message, job.bits)


def _grid(target: Floats, importance: Floats, site: Site, job: Job) -> Grid:
    if job.mode == "kmeans":
        return _table(target, job)
    shared = job.mode == "linear_lut" or site.axis is None
    centre = 1 << (job.bits - 1) if job.mode == "linear_symmetric" else None
    return LinearGrid.fitted(target, importance, job.bits, shared=shared, centre=centre)


def _table(target: Floats, job: Job) -> TableGrid:
    if job.vector > 1:
        return VectorGrid.of_vectors(target, job.bits, job.vector, job.together)
    return TableGrid.fitted(target, job.bits, job.together)


def _stored(indices: NDArray[np.uint8], grid: Grid, job: Job) -> modes.Quantized:
    if isinstance(grid, TableGrid):
        return modes.Table(indices, grid.table.astype(np.float32))
    assert isinstance(grid, LinearGrid)
    if job.mode == "linear_lut":
        table = np.arange(1 << job.bits) * grid.scale.item() + grid.bias.item()
        return modes.Table(indices, table.astype(np.float32))
    return modes.Linear(indices, grid.scale.reshape(-1), grid.bias.reshape(-1))


def by_values(values: modes.Floats, site: Site, job: Job) -> modes.Quantized:
    """Without data about a weight: the table of k-means, or the range of least error."""
    if job.mode == "kmeans":
        return modes.MODES["kmeans"](values, site.axis, job.bits)
    axis = None if job.mode == "linear_lut" else site.axis
    rows = modes.by_channel(values, axis)
    centre = 1 << (job.bits - 1) if job.mode == "linear_symmetric" else None
    low, high = rows.min(axis=1), rows.max(axis=1)
    if centre is not None:
        high = np.maximum(-low, high)
        low = -high
    scale, bias = best_range(rows, np.ones_like(rows), (low, high), job.bits, centre)
    steps = modes.to_grid(rows, scale.astype(np.float32), bias.astype(np.float32), job.bits)
    grid = LinearGrid(scale[None], bias[None], job.bits, centre)
    return _stored(modes.from_channels(steps, values.shape, axis), grid, job)
