"""Bits for each weight: more where the outputs need them, under a mean for all weights.

Each weight alone is quantized with each number of bits, fitted to one half of the samples, and what
that costs is measured on the other half, at the outputs of the network. Costs are taken as
independent; the numbers of bits are then those that a Lagrangian chooses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from mlferry.errors import PredictionError, context
from mlferry.layers.kernels import Array
from mlferry.layers.sites import sites
from mlferry.models import agreement
from mlferry.models.quantization.calibration import Fit, Job, quantize, store
from mlferry.models.quantization.walks import Features, Streams, alone, later_reads
from mlferry.progress import progress
from mlferry.runtime.evaluators.network import NetworkEvaluator, probability_blob
from mlferry.runtime.session import Session
from mlferry.spec import networks
from mlferry.spec.proto import model_pb2, neural_network_pb2 as nn
from mlferry.text import logger_of

logger = logger_of(__name__)

_MEASURED = 32  # samples at most for each weight
Costs = Sequence[Sequence[float]]


def bits_for(
    spec: model_pb2.Model,
    samples: Sequence[Features],
    job: Job,
    bits: Sequence[int],
    mean: float,
) -> dict[str, int]:
    """The bits of each weight that a job quantizes, by its name as messages have it.

    Where costs are not as independent as they are taken to be, so that the same bits for all lose
    less on the samples that measure, it is these.

    Args:
        spec: of a network.
        samples: two at least.
        job: what is quantized, and how.
        bits: from which to choose, rising.
        mean: of all weights, at most.

    Raises:
        PredictionError: there are fewer samples.
    """
    names, counts, costs = _measured(spec, samples, job, bits)
    mixed = dict(zip(names, allocated(costs, counts, bits, mean), strict=True))
    same = dict.fromkeys(names, max(each for each in bits if each <= mean))
    if mixed == same:
        return same
    found = [_together(spec, samples, replace(job, each=each)) for each in (mixed, same)]
    if found[0] <= found[1]:
        return mixed
    logger.info("the same bits for all lose less: %.4g instead of %.4g", found[1], found[0])
    return same


def _together(spec: model_pb2.Model, samples: Sequence[Features], job: Job) -> float:
    """What it costs to quantize all weights, fitted to one half of the samples."""
    changed = model_pb2.Model()
    changed.CopyFrom(spec)
    quantize(changed, samples[::2], job)
    made = []
    network = networks.network_of(spec)
    assert network is not None
    outputs = _outputs(spec, network)
    for each in (spec, changed):
        evaluator = NetworkEvaluator(each, job.classes)
        given = map(evaluator.blobs, samples[1::2])
        made.append([evaluator.session.run(blobs, outputs) for blobs in given])
    return _cost(*made)


def allocated(costs: Costs, counts: Sequence[int], bits: Sequence[int], mean: float) -> list[int]:
    """The bits of each of some weights, so that the sum of their costs is small.

    The steps of the lower convex hulls of the costs are taken by what they gain for a bit, as a
    Lagrangian would (Shoham and Gersho 1988), and then single steps that still fit.

    Args:
        costs: of each weight, with each of `bits`.
        counts: how many values each has.
        bits: rising; with the first of them the mean is not above the limit.
        mean: of all values, at most.
    """
    room = mean * sum(counts) - bits[0] * sum(counts) + 1e-9 * sum(counts)
    chosen = [0] * len(counts)
    steps = []
    for index, (own, count) in enumerate(zip(costs, counts, strict=True)):
        for low, high in pairwise(_hull(own, bits)):
            size = count * (bits[high] - bits[low])
            steps.append(((own[low] - own[high]) / size, index, low, high, size))
    for _, index, low, high, size in sorted(steps, key=lambda step: (-step[0], *step[1:])):
        if chosen[index] == low and size <= room:
            chosen[index], room = high, room - size
    while True:  # what is left goes to what gains most with it
        best = None
        for index, own in enumerate(costs):
            for high in range(chosen[index] + 1, len(bits)):
                size = counts[index] * (bits[high] - bits[chosen[index]])
                gain = own[chosen[index]] - own[high]
                if size <= room and gain > 0 and (best is None or gain > best[0]):
                    best = (gain, index, high, size)
        if best is None:
            return [bits[place] for place in chosen]
        _, index, high, size = best
        chosen[index], room = high, room - size


def _hull(costs: Sequence[float], bits: Sequence[int]) -> list[int]:
    """The places on the lower convex hull of the costs, from the first on."""
    found = [0]
    for place in range(1, len(bits)):
        if costs[place] >= costs[found[-1]]:
            continue
        while len(found) > 1:
            before, last = found[-2:]
            along = (costs[last] - costs[before]) / (bits[last] - bits[before])
            if (costs[place] - costs[last]) / (bits[place] - bits[last]) > along:
                break
            found.pop()
        found.append(place)
    return found


# ---- what each costs ----------------------------------------------------------------------------


def _measured(
    spec: model_pb2.Model, samples: Sequence[Features], job: Job, bits: Sequence[int]
) -> tuple[list[str], list[int], list[list[float]]]:
    """Names, sizes and costs of the weights, in the order of the network."""
    if len(samples) < 2:
        raise PredictionError(
            "mean_bits needs two samples at least: one to fit weights, one to measure their costs"
        )
    network = networks.network_of(spec)
    assert network is not None
    evaluator = NetworkEvaluator(spec, job.classes)
    outputs = _outputs(spec, network)
    layers = list(network.layers)
    later = [reads | set(outputs) for reads in later_reads(layers)]
    blobs = [evaluator.blobs(sample) for sample in samples]
    others = range(1, len(blobs), 2 * -(-len(blobs) // (2 * _MEASURED)))
    wanted = [evaluator.session.run(blobs[at], outputs) for at in others]
    streams = Streams(blobs, [dict(each) for each in blobs])
    names, counts, costs = list[str](), list[int](), list[list[float]]()
    for index, (layer, keep) in enumerate(
        zip(progress(layers, "bits a weight", len(layers)), later, strict=True)
    ):
        before = alone(network, [layer], job.classes)
        chosen = [
            (group, place)
            for group, own in enumerate(sites(layer))
            for place, site in enumerate(own)
            if job.is_chosen(site)
        ]
        behind = alone(network, layers[index + 1 :], job.classes) if chosen else before
        some = Streams(streams.floats[::2], streams.floats[::2])
        for group, place in chosen:
            fit = Fit.of(list(sites(layer))[group][place], layer, some)
            found = []
            for each in bits:
                changed = nn.NeuralNetworkLayer()
                changed.CopyFrom(layer)
                site = list(sites(changed))[group][place]
                with context(f"quantizing {site}"):
                    store(site, fit, job.with_bits(each))
                made = _run(
                    changed, alone(network, [changed], job.classes), behind,
                    [streams.floats[at] for at in others], outputs,
                )  # fmt: skip
                found.append(_cost(wanted, made))
            names.append(str(site))
            counts.append(site.count)
            costs.append(found)
        streams.step(before, before, layer, keep)
    return names, counts, costs


def _outputs(spec: model_pb2.Model, network: networks.Network) -> list[str]:
    """The blobs of outputs; of a classifier that of the chances."""
    described = spec.description
    named = {described.predictedFeatureName, described.predictedProbabilitiesName}
    found = [each.name for each in described.output if each.name not in named]
    if isinstance(network, nn.NeuralNetworkClassifier):
        found.append(probability_blob(network))
    return list(dict.fromkeys(found))


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
        given = {name: each[name] for name in reads | writes if name in each}
        live = dict(each) | session.run(given, sorted(writes))
        inside = [name for name in outputs if name in behind.blobs]
        known = {name: array for name, array in live.items() if name in behind.blobs}
        made = live | behind.run(known, inside)
        results.append({name: made[name] for name in outputs})
    return results


def _cost(wanted: Sequence[Mapping[str, Array]], made: Sequence[Mapping[str, Array]]) -> float:
    """Of scores the mean Kullback-Leibler divergence; of others the part of the energy lost."""
    total = 0.0
    for one, other in zip(wanted, made, strict=True):
        for name, right in one.items():
            first, second = (np.asarray(each, np.float64) for each in (right, other[name]))
            if agreement.is_vector(first.shape):
                logs = (agreement.log_chances(each) for each in (first, second))
                total += agreement.divergence(*logs)
            else:
                energy = float(np.square(first).sum())
                total += float(np.square(second - first).sum()) / (energy or 1)
    return total / len(wanted)
