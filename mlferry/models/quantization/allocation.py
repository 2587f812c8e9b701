"""A code for each weight: more bits where the outputs need them, under a mean for all weights.

Each weight alone is quantized with each code, fitted to one half of the samples, and what that
costs is measured on the other half, at the outputs of the network. Costs are taken as independent;
the codes are then those that a Lagrangian chooses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from mlferry.errors import PredictionError, SpecError, context
from mlferry.layers.kernels import Array
from mlferry.layers.sites import Site, sites
from mlferry.models import agreement
from mlferry.models.quantization.calibration import (
    Fit,
    Job,
    divides,
    quantize,
    store,
    tables_of,
)
from mlferry.models.quantization.codes import Code, TableBlock, table_size
from mlferry.models.quantization.walks import Features, Streams, alone, later_reads
from mlferry.progress import progress
from mlferry.runtime.evaluators.network import NetworkEvaluator, probability_blob
from mlferry.runtime.session import Session
from mlferry.spec import networks
from mlferry.spec.proto import model_pb2, neural_network_pb2 as nn
from mlferry.text import logger_of

logger = logger_of(__name__)

_MEASURED = 32  # samples at most for each weight
_TABLES = 0.125  # of the size of indices: more for several tables is never tried


def codes_for(
    spec: model_pb2.Model, samples: Sequence[Features], job: Job, codes: Sequence[Code], mean: float
) -> dict[str, Code]:
    """The code of each weight that a job quantizes, by its name as messages have it.

    Together the weights take no more than each would with one table (or those of its groups) and
    indices of `mean` bits for single values; so tables count. Where costs are not as independent as
    they are taken to be, so that the same code for all loses less on the samples that measure, it
    is that.

    Args:
        spec: of a network.
        samples: two at least.
        job: what is quantized, and how.
        codes: from which to choose.
        mean: bits of a value, at most on average.

    Raises:
        PredictionError: there are fewer samples.
        SpecError: even the smallest codes take more.
    """
    if len(samples) < 2:
        raise PredictionError(
            "mean_bits needs two samples at least: one to fit weights, one to measure their costs"
        )
    places = _places(spec, job, codes)
    limit = _limit(places, job, codes, mean)
    costs = _costs(spec, samples, job, places)
    sizes = [place.sizes for place in places]
    mixed = _chosen(places, allocated(costs, sizes, limit))
    candidates = [_chosen(places, same) for same in _same_for_all(places, codes, limit)]
    if not candidates or mixed in candidates:
        return mixed
    others = [_together(spec, samples, replace(job, each=each)) for each in candidates]
    own = _together(spec, samples, replace(job, each=mixed))
    best = int(np.argmin(others))
    if own <= others[best]:
        return mixed
    code = next(iter(candidates[best].values()))
    logger.info("%s for all lose less: %.4g instead of %.4g", code, others[best], own)
    return candidates[best]


class _WeightChoices(NamedTuple):
    """A weight, with the codes that it may have and the bits that it then takes."""

    layer: int
    group: int
    place: int
    site: Site
    codes: list[Code]
    sizes: list[float]


def _places(spec: model_pb2.Model, job: Job, codes: Sequence[Code]) -> list[_WeightChoices]:
    """The weights that a job quantizes, in the order of the network."""
    network = networks.network_of(spec)
    assert network is not None
    choices = []
    for index, layer in enumerate(network.layers):
        for group, own in enumerate(sites(layer)):
            for place, site in enumerate(own):
                if not job.is_chosen(site):
                    continue
                fitting = [
                    job.with_code(code).code_of(site) for code in codes if divides(site, code)
                ]
                known = _worth(site, list(dict.fromkeys(fitting)), job)
                sizes = [
                    code.size(site.count, tables_of(site, code), job.entry_bits) for code in known
                ]
                choices.append(_WeightChoices(index, group, place, site, known, sizes))
    return choices


def _worth(site: Site, codes: Sequence[Code], job: Job) -> list[Code]:
    """The codes whose tables take no more than `_TABLES` of the indices, and those with fewest."""
    least = min((tables_of(site, code) for code in codes), default=0)

    def pays(code: Code) -> bool:
        tables = tables_of(site, code)
        indices = site.count * code.rate
        size = code.size(site.count, tables, job.entry_bits)
        return tables == least or size <= (1 + _TABLES) * indices

    return [code for code in codes if pays(code)]


def _limit(places: Sequence[_WeightChoices], job: Job, codes: Sequence[Code], mean: float) -> float:
    """The bits that all weights may take."""
    tables = sum(min(tables_of(p.site, code) for code in p.codes) for p in places)
    values = sum(place.site.count for place in places)
    limit = values * mean + table_size(mean, tables, job.entry_bits)
    least = sum(min(place.sizes) for place in places)
    if least > limit * (1 + 1e-9):
        raise SpecError(
            f"mean_bits is {mean!r}; the smallest of {', '.join(map(str, codes))} take "
            f"{least / values:.3g} bits a weight with their tables: raise mean_bits, or give "
            "smaller nbits"
        )
    return limit


def _chosen(places: Sequence[_WeightChoices], indices: Sequence[int]) -> dict[str, Code]:
    return {str(place.site): place.codes[own] for place, own in zip(places, indices, strict=True)}


def _same_for_all(
    places: Sequence[_WeightChoices], codes: Sequence[Code], limit: float
) -> list[list[int]]:
    """Of each length of vectors and block the code with most bits that fits, if all may have it."""
    found: dict[tuple[int, TableBlock], list[int]] = {}
    for code in sorted(codes):
        if not all(code in place.codes for place in places):
            continue
        indices = [place.codes.index(code) for place in places]
        if sum(p.sizes[own] for p, own in zip(places, indices, strict=True)) <= limit * (1 + 1e-9):
            found[code.length, code.block] = indices
    return list(found.values())


def _together(spec: model_pb2.Model, samples: Sequence[Features], job: Job) -> float:
    """What it costs to quantize all weights, fitted to one half of the samples."""
    changed = model_pb2.Model()
    changed.CopyFrom(spec)
    quantize(changed, samples[::2], job)
    costs = []
    network = networks.network_of(spec)
    assert network is not None
    outputs = _outputs(spec, network)
    for each in (spec, changed):
        evaluator = NetworkEvaluator(each, job.classes)
        streams = map(evaluator.blobs, samples[1::2])
        costs.append([evaluator.session.run(blobs, outputs) for blobs in streams])
    return _cost(*costs)


def allocated(
    costs: Sequence[Sequence[float]], sizes: Sequence[Sequence[float]], limit: float
) -> list[int]:
    """Which of its codes each of some weights gets, so that the sum of their costs is small.

    The steps of the lower convex hulls of the costs over the sizes are taken by what they gain for
    a bit, as a Lagrangian would (Shoham and Gersho 1988), and then single changes that still fit.

    Args:
        costs: of each weight, with each of its codes.
        sizes: likewise; the smallest ones together are within the limit.
        limit: of the sum of sizes.
    """
    hulls = [_hull(*each) for each in zip(costs, sizes, strict=True)]
    chosen = [hull[0] for hull in hulls]
    room = limit * (1 + 1e-9) - sum(own[at] for own, at in zip(sizes, chosen, strict=True))
    steps = []
    for index, (own, size, hull) in enumerate(zip(costs, sizes, hulls, strict=True)):
        for low, high in pairwise(hull):
            more = size[high] - size[low]
            steps.append(((own[low] - own[high]) / more, index, low, high, more))
    for _, index, low, high, more in sorted(steps, key=lambda step: (-step[0], *step[1:])):
        if chosen[index] == low and more <= room:
            chosen[index], room = high, room - more
    while True:  # what is left goes to what gains most with it
        best = None
        for index, (own, size) in enumerate(zip(costs, sizes, strict=True)):
            at = chosen[index]
            for other in range(len(own)):
                gain, more = own[at] - own[other], size[other] - size[at]
                if more <= room and gain > 0 and (best is None or gain > best[0]):
                    best = (gain, index, other, more)
        if best is None:
            return chosen
        _, index, other, more = best
        chosen[index], room = other, room - more


def _hull(costs: Sequence[float], sizes: Sequence[float]) -> list[int]:
    """The places on the lower convex hull of costs over sizes, from the smallest size on."""
    order = sorted(range(len(costs)), key=lambda place: (sizes[place], costs[place]))
    hull = order[:1]
    for place in order[1:]:
        if costs[place] >= costs[hull[-1]]:
            continue
        while len(hull) > 1:
            before, last = hull[-2:]
            along = (costs[last] - costs[before]) / (sizes[last] - sizes[before])
            if (costs[place] - costs[last]) / (sizes[place] - sizes[last]) > along:
                break
            hull.pop()
        hull.append(place)
    return hull


# ---- what each costs ----------------------------------------------------------------------------


def _costs(
    spec: model_pb2.Model, samples: Sequence[Features], job: Job, places: Sequence[_WeightChoices]
) -> list[list[float]]:
    """What each weight costs with each of its codes."""
    network = networks.network_of(spec)
    assert network is not None
    evaluator = NetworkEvaluator(spec, job.classes)
    outputs = _outputs(spec, network)
    layers = list(network.layers)
    later = [reads | set(outputs) for reads in later_reads(layers)]
    blobs = [evaluator.blobs(sample) for sample in samples]
    others = range(1, len(blobs), 2 * -(-len(blobs) // (2 * _MEASURED)))
    expected = [evaluator.session.run(blobs[at], outputs) for at in others]
    streams = Streams(blobs, [dict(each) for each in blobs])
    costs = list[list[float]]()
    for index, (layer, keep) in enumerate(
        zip(progress(layers, "bits a weight", len(layers)), later, strict=True)
    ):
        before = alone(network, [layer], job.classes)
        chosen = [place for place in places if place.layer == index]
        behind = alone(network, layers[index + 1 :], job.classes) if chosen else before
        some = Streams(streams.floats[::2], streams.floats[::2])
        for weight in chosen:
            fit = Fit.of(weight.site, layer, some)
            every_cost = []
            for code in weight.codes:
                changed = nn.NeuralNetworkLayer()
                changed.CopyFrom(layer)
                site = list(sites(changed))[weight.group][weight.place]
                with context(f"quantizing {site}"):
                    store(site, fit, job.with_code(code))
                actual = _run(
                    changed, alone(network, [changed], job.classes), behind,
                    [streams.floats[at] for at in others], outputs,
                )  # fmt: skip
                every_cost.append(_cost(expected, actual))
            costs.append(every_cost)
        streams.step(before, before, layer, keep)
    return costs


def _outputs(spec: model_pb2.Model, network: networks.Network) -> list[str]:
    """The blobs of outputs; of a classifier that of the chances."""
    described = spec.description
    named = {described.predictedFeatureName, described.predictedProbabilitiesName}
    names = [each.name for each in described.output if each.name not in named]
    if isinstance(network, nn.NeuralNetworkClassifier):
        names.append(probability_blob(network))
    return list(dict.fromkeys(names))


def _run(
    layer: nn.NeuralNetworkLayer,
    session: Session,
    behind: Session,
    blobs: Sequence[Mapping[str, Array]],
    outputs: Sequence[str],
) -> list[dict[str, Array]]:
    """The outputs of a network one layer of which is another one."""
    reads, writes = networks.touched(layer)
    results = []
    for each in blobs:
        inputs = {name: each[name] for name in reads | writes if name in each}
        live = dict(each) | session.run(inputs, sorted(writes))
        inside = [name for name in outputs if name in behind.blobs]
        known = {name: array for name, array in live.items() if name in behind.blobs}
        own = live | behind.run(known, inside)
        results.append({name: own[name] for name in outputs})
    return results


def _cost(expected: Sequence[Mapping[str, Array]], actual: Sequence[Mapping[str, Array]]) -> float:
    """Of scores the mean Kullback-Leibler divergence; of others the part of the energy lost."""
    total = 0.0
    for one, other in zip(expected, actual, strict=True):
        for name, right in one.items():
            first, second = (np.asarray(each, np.float64) for each in (right, other[name]))
            if agreement.is_vector(first.shape):
                logs = (agreement.log_chances(each) for each in (first, second))
                total += agreement.divergence(*logs)
            else:
                energy = float(np.square(first).sum())
                total += float(np.square(second - first).sum()) / (energy or 1)
    return total / len(expected)
