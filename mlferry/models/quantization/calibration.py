"""Quantize layer by layer, with sample data, against the outputs of the float model.

Two streams of blobs go through the network, one through the float layers, one through those
quantized so far; each layer's weights are chosen to make the float layer's outputs from the
quantized stream. Every layer is run once for every sample and stream, and only blobs that a
later layer reads are held; where they would take more than `_BUDGET`, fewer samples are used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlferry.errors import context
from mlferry.layers.kernels import Array
from mlferry.layers.sites import Site, sites
from mlferry.models.model import MLModel
from mlferry.models.quantization import modes
from mlferry.models.quantization.codes import WHOLE, Code
from mlferry.models.quantization.in_turn import Floats
from mlferry.models.quantization.moments import PRODUCTS, Product
from mlferry.models.quantization.rounding import (
    Grid,
    LinearGrid,
    Moments,
    Sharing,
    TableGrid,
    VectorGrid,
    best_range,
    choose,
)
from mlferry.models.quantization.walks import (
    Features,
    SampleInputs,
    Streams,
    WalkedNetwork,
    Walks,
    alone,
    later_reads,
)
from mlferry.models.samples import SampleData, samples_for
from mlferry.models.workers import Executors
from mlferry.progress import progress
from mlferry.runtime.evaluators import prepare
from mlferry.runtime.evaluators.network import NetworkEvaluator
from mlferry.runtime.evaluators.registry import CustomClasses
from mlferry.spec import networks, weights as stored_weights
from mlferry.spec.proto import model_pb2, neural_network_pb2 as nn
from mlferry.text import logger_of

logger = logger_of(__name__)

TABLES = ("linear_lut", "kmeans")  # the modes with tables
_FLOAT_BITS, _HALF_BITS = 32, 16  # of networks, and of the programs that are made of them
_BUDGET = 1 << 30  # bytes of blobs that both streams hold together


@dataclass(frozen=True)
class Job:
    """What is to be done.

    Attributes:
        mode: linear, linear_symmetric, linear_lut or kmeans.
        code: of every weight; vectors go along its outputs, and only kmeans has them and blocks.
        is_chosen: whether a weight is quantized.
        classes: of custom layers and models.
        as_floats: whether the values that tables stand for are stored as floats, for tables that
            networks do not have.
        each: the codes of some weights, by their names in messages.
    """

    mode: str
    code: Code
    is_chosen: Callable[[Site], bool]
    classes: CustomClasses
    as_floats: bool = False
    each: Mapping[str, Code] = field(default_factory=dict)

    @property
    def bits(self) -> int:
        """Of an index."""
        return self.code.bits

    def with_code(self, code: Code) -> Job:
        """The same with one code for every weight."""
        return replace(self, code=code, each={})

    def code_of(self, site: Site) -> Code:
        """That of a weight; single values where vectors would save nothing."""
        code = self.each.get(str(site), self.code)
        return code.or_single(site.count, tables_of(site, code), self.entry_bits)

    @property
    def entry_bits(self) -> int:
        """Of a value in a table; 0 for modes without tables that take space."""
        if self.mode not in TABLES:
            return 0
        return _HALF_BITS if self.as_floats else _FLOAT_BITS


def divides(site: Site, code: Code) -> bool:
    """Whether a weight has nothing but whole blocks and vectors of a code."""
    if code.block == WHOLE and code.length == 1:
        return True
    outputs, inputs = channels(site)
    groups = site.layer.convolution.nGroups if site.kind == "convolution" else 1
    if groups > 1 and site.layer.convolution.isDeconvolution:  # stored the other way round
        return False
    return code.block.divides(outputs, inputs) and outputs // max(1, groups) % code.length == 0


def channels(site: Site) -> tuple[int, int]:
    """The outputs and inputs of a weight, as it is stored; the inputs of a vector are one."""
    shape = (*site.shape, 1)
    return shape[site.read_axis], shape[1 - site.read_axis]


def tables_of(site: Site, code: Code) -> int:
    """How many tables a weight has."""
    return 1 if code.block == WHOLE else math.prod(code.block.counts(*channels(site)))


def calibrate(
    model: MLModel,
    spec: model_pb2.Model,
    sample_data: SampleData,
    job: Job,
    executor: Executors | None = None,
) -> None:
    """Quantize every chosen weight of `spec`, a copy of the model's specification.

    Args:
        model: the float model.
        spec: is changed.
        sample_data: as for `compare_models`.
        job: what is to be done.
        executor: runs the layers for several samples at a time.

    Raises:
        PredictionError: the data does not fit, or there is none.
        WorkerError: the executor cannot do it.
    """
    features = [dict(sample.data) for sample in samples_for(model.spec, sample_data)]
    if executor is not None:
        job = replace(job, classes=model.classes_to_send)
    quantize(spec, features, job, executor)


def quantize(
    spec: model_pb2.Model, samples: Sequence[Features], job: Job, executor: Executors | None = None
) -> None:
    """Quantize every chosen weight of a specification, in place; see `calibrate`."""
    features = list(samples)
    _quantize_model(spec, features, features, job, executor, last=True)


def _quantize_model(
    spec: model_pb2.Model,
    floats: list[Features],
    quantized: list[Features],
    job: Job,
    executor: Executors | None,
    *,
    last: bool,
) -> tuple[list[Features], list[Features]]:
    """Quantize a model; its outputs before and after, unless it is the last one."""
    before = None if last else _outputs(spec, floats, job)
    pipeline = networks.pipeline_of(spec)
    if networks.network_of(spec) is not None:
        _quantize_network(spec, floats, quantized, job, executor)
    elif pipeline is not None:
        known, known_quantized = floats, quantized
        for index, inner in enumerate(pipeline.models):
            results = _quantize_model(
                inner,
                _inputs(inner, known),
                _inputs(inner, known_quantized),
                job,
                executor,
                last=index == len(pipeline.models) - 1,
            )
            known = [old | new for old, new in zip(known, results[0], strict=False)]
            known_quantized = [
                old | new for old, new in zip(known_quantized, results[1], strict=False)
            ]
    if before is None:
        return [], []
    return before, _outputs(spec, quantized, job)


def _inputs(spec: model_pb2.Model, known: list[Features]) -> list[Features]:
    names = [feature.name for feature in spec.description.input]
    return [{name: one[name] for name in names if name in one} for one in known]


def _outputs(spec: model_pb2.Model, samples: list[Features], job: Job) -> list[Features]:
    evaluate = prepare(spec, job.classes)
    return [evaluate(features) for features in samples]


# ---- one network ------------------------------------------------------------------------------


def _quantize_network(
    spec: model_pb2.Model,
    floats: list[Features],
    quantized: list[Features],
    job: Job,
    executor: Executors | None,
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
    end = 1 + max(index for index, sites_of_layer in enumerate(chosen) if sites_of_layer)
    places = _as_many_as_fit(spec, floats, end, job)
    source = WalkedNetwork(spec, job.classes, end, len(places))
    samples = [SampleInputs(floats[place], quantized[place]) for place in places]
    stops = [
        index
        for index, (layer, own) in enumerate(zip(layers, chosen, strict=True))
        if any(_is_of_product(site, layer) for site in own)
    ]
    with Walks(source, samples, stops, executor) as walks:
        work = list(enumerate(zip(layers[:end], chosen[:end], strict=True)))
        for index, (layer, sites_of_layer) in progress(
            work, f"{job.mode}, {job.bits} bits", len(work)
        ):
            if not sites_of_layer:
                continue
            products = walks.products(
                index, [site for site in sites_of_layer if _is_of_product(site, layer)]
            )
            for site in sites_of_layer:
                with context(f"quantizing {site}"):
                    product = products.get(site.field)
                    fit = None if product is None else Fit(product, product.moments())
                    store(site, fit, job.with_code(job.code_of(site)))
            walks.change(index, layer)


def _as_many_as_fit(
    spec: model_pb2.Model, floats: Sequence[Features], end: int, job: Job
) -> list[int]:
    """Which of the samples are used: evenly spread, as many as `_BUDGET` holds."""
    network = networks.network_of(spec)
    assert network is not None
    layers = list(network.layers)[:end]
    blobs = NetworkEvaluator(spec, job.classes).blobs(floats[0])
    peak = _size(blobs)
    one = Streams([dict(blobs)], [dict(blobs)])
    for layer, keep in zip(layers, later_reads(layers), strict=True):
        session = alone(network, [layer], job.classes)
        one.step(session, session, layer, keep)
        peak = max(peak, _size(one.floats[0]))
    count = len(floats)
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
        if not _is_of_product(site, layer):
            return None
        product: Product = PRODUCTS[site.kind](site, len(streams.floats))
        name = layer.input[0]
        for one, other in zip(streams.floats, streams.quantized, strict=True):
            product.add(one[name], other[name])
        return cls(product, product.moments())


def _is_of_product(site: Site, layer: nn.NeuralNetworkLayer) -> bool:
    own = not networks.subnetworks(layer)
    return own and site.field == "weights" and site.kind in PRODUCTS


def store(site: Site, fit: Fit | None, job: Job) -> None:
    """Quantize a weight: by the data where it tells something, else by its values."""
    values = site.read()
    if fit is None and not job.as_floats:
        by_values(values, site, job).write(site.message, job.bits)
        return
    if fit is None:
        rows = modes.by_channel(values, site.read_axis).T[None].astype(np.float64)
        near = _table(rows, site, job).near(rows)[0].T
        floats = modes.from_channels(near.astype(np.float32), values.shape, site.read_axis)
        stored_weights.write(site.message, floats)
        return
    product = fit.product
    matrices: Floats = product.matrices(values).astype(np.float64)
    grid, quantized = choose(matrices, fit.moments, lambda t, i: _grid(t, i, site, job))
    if job.as_floats:
        stored_weights.write(site.message, product.weights(quantized).astype(np.float32))
        return
    indices = product.weights(grid.indices(quantized))
    _stored(indices, grid, job).write(site.message, job.bits)


def _grid(target: Floats, importance: Floats, site: Site, job: Job) -> Grid:
    if job.mode == "kmeans":
        return _table(target, site, job)
    shared = job.mode == "linear_lut" or site.axis is None
    centre = 1 << (job.bits - 1) if job.mode == "linear_symmetric" else None
    return LinearGrid.fitted(target, importance, job.bits, shared=shared, centre=centre)


def _table(target: Floats, site: Site, job: Job) -> TableGrid:
    block = job.code.block
    sharing = Sharing(block.outputs, block.inputs, math.prod(site.shape[2:]))
    if job.code.length > 1:
        return VectorGrid.of_vectors(target, job.bits, job.code.length, sharing)
    return TableGrid.fitted(target, job.bits, sharing)


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
