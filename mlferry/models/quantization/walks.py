"""Walk through a network layer by layer, with the blobs of many samples, in one process or several.

The samples are dealt into four groups. A group belongs to the process that began with it, which
holds its blobs; what is asked in a round is asked of whoever holds a group that has not answered.
Where a process was lost, another begins anew with its groups. Sums over samples are those over the
groups, in their order, so that they are the same however many work.
"""

from __future__ import annotations

import itertools
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

from mlferry.errors import PredictionError
from mlferry.layers import versions
from mlferry.layers.kernels import Array
from mlferry.layers.sites import Site, sites
from mlferry.models.quantization.moments import PRODUCTS, Product, Sums
from mlferry.models.workers import Executors, Team
from mlferry.runtime.evaluators.network import NetworkEvaluator
from mlferry.runtime.evaluators.registry import CustomClasses
from mlferry.runtime.session import Session
from mlferry.spec import networks
from mlferry.spec.proto import model_pb2, neural_network_pb2 as nn

Blobs = dict[str, Array]
Features = dict[str, Any]
GROUPS = 4
_NOBODY = 3  # rounds without an answer after which a group is lost
_PAUSE = 2e-3  # seconds for which who has no group leaves the question to others


class SampleInputs(NamedTuple):
    """The inputs of a sample in both networks; one object where they are the same."""

    floats: Features
    quantized: Features


class Streams:
    """The blobs of every sample in the float and in the quantized network.

    A blob that is the same in both is one object.
    """

    def __init__(self, floats: list[Blobs], quantized: list[Blobs]) -> None:
        self.floats, self.quantized = floats, quantized
        self.ahead: list[Blobs] | None = None  # what the next layer makes in the float network

    def look_ahead(self, session: Session, layer: nn.NeuralNetworkLayer, keep: set[str]) -> None:
        """Run the next layer as it was, before it is known how it will be."""
        self.ahead = [_made(session, one, layer, keep) for one in self.floats]

    def step(
        self, before: Session, after: Session, layer: nn.NeuralNetworkLayer, keep: set[str]
    ) -> None:
        """Run a layer, as it was and as it is, and drop what no later layer reads."""
        names = set().union(*networks.touched(layer))
        ahead, self.ahead = self.ahead, None
        for place, (one, other) in enumerate(zip(self.floats, self.quantized, strict=True)):
            same = before is after and all(
                one[name] is other.get(name) for name in names if name in one
            )
            results = _made(before, one, layer, keep) if ahead is None else ahead[place]
            moved = results if same else _made(after, other, layer, keep)
            one.update(results)
            other.update(moved)
            for blobs in (one, other):
                for name in blobs.keys() - keep:
                    del blobs[name]


def _made(session: Session, blobs: Blobs, layer: nn.NeuralNetworkLayer, keep: set[str]) -> Blobs:
    """What a layer makes of blobs, as far as it is kept."""
    reads, writes = networks.touched(layer)
    shown = sorted(writes & keep)
    inputs = {name: blobs[name] for name in reads | writes if name in blobs}
    return session.run(inputs, shown) if shown else {}


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
    part = nn.NeuralNetwork(layers=layers)
    if not versions.uses_rank5(network):
        part.arrayInputShapeMapping = nn.EXACT_ARRAY_MAPPING
    return Session(part, classes.layers)


class WalkedNetwork:
    """What every process needs to walk through a network.

    Args:
        spec: of the float model; it is copied.
        classes: of custom layers.
        end: how many layers are walked through.
        count: how many samples there are.
        token: tells it from others of the same network, so that a process which has walked before
            does not go on with what it held then; by default a new one.
    """

    def __init__(
        self,
        spec: model_pb2.Model,
        classes: CustomClasses,
        end: int,
        count: int,
        token: str | None = None,
    ) -> None:
        self.spec = model_pb2.Model()
        self.spec.CopyFrom(spec)
        self.classes, self.end, self.count = classes, end, count
        self._token = token or uuid.uuid4().hex
        self._walks: dict[int, _SampleGroup] = {}
        self._lock = threading.Lock()
        self._until = 0
        self._sessions: dict[tuple[int, bool], Session] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        """What it was made of; not how far anybody has walked."""
        data = self.spec.SerializeToString()
        return _source, (data, self.classes, self.end, self.count, self._token)

    @cached_property
    def network(self) -> networks.Network:
        """The float network."""
        network = networks.network_of(self.spec)
        if network is None:
            raise PredictionError("only neural networks are quantized with samples")
        return network

    @cached_property
    def _layers(self) -> list[nn.NeuralNetworkLayer]:
        return list(self.network.layers)[: self.end]

    @cached_property
    def _later(self) -> list[set[str]]:
        return later_reads(self._layers)

    @cached_property
    def _evaluator(self) -> NetworkEvaluator:
        return NetworkEvaluator(self.spec, self.classes)

    def begin(self, group: int, samples: Sequence[SampleInputs]) -> _SampleGroup:
        """Begin, or begin anew, with a group of samples."""
        floats = [self._evaluator.blobs(sample.floats) for sample in samples]
        moved = [
            one if sample.floats is sample.quantized else self._evaluator.blobs(sample.quantized)
            for sample, one in zip(samples, floats, strict=True)
        ]
        streams = Streams(floats, [dict(blobs) for blobs in moved])
        walk = _SampleGroup(streams, threading.get_ident(), busy=True)
        with self._lock:
            self._walks[group] = walk
        return walk

    def may_begin(self, most: int) -> bool:
        """Whether this thread has begun with fewer groups than it may."""
        with self._lock:
            owners = [walk.owner for walk in self._walks.values()]
        return owners.count(threading.get_ident()) < most

    def claimed(self, position: int, *, ahead: bool = False) -> tuple[int, _SampleGroup] | None:
        """A group that is here, at a position, with nobody working on it.

        Args:
            position: in front of which layer.
            ahead: whether it has not looked ahead.
        """
        with self._lock:
            for group, walk in self._walks.items():
                if walk.position != position or walk.busy:
                    continue
                if not ahead or walk.streams.ahead is None:
                    walk.busy = True
                    return group, walk
        return None

    def advance(self, walk: _SampleGroup, until: int, changed: Mapping[int, bytes]) -> None:
        """Run the layers before one, as they were and as they are.

        Args:
            walk: of a group.
            until: the number of the layer.
            changed: the quantized layers that lie on the way.
        """
        for index in range(walk.position, until):
            before = after = self._session(until, index, None)
            if index in changed:
                after = self._session(until, index, changed[index])
            walk.streams.step(before, after, self._layers[index], self._later[index])
        walk.position = until

    def look_ahead(self, walk: _SampleGroup, until: int) -> None:
        """Run the next layer as it was, for the round that goes on to layer `until`."""
        index = walk.position
        session = self._session(until, index, None)
        walk.streams.look_ahead(session, self._layers[index], self._later[index])

    def _session(self, until: int, index: int, changed: bytes | None) -> Session:
        with self._lock:
            if until != self._until:  # the sessions of another round
                self._until = until
                self._sessions.clear()
            key = index, changed is not None
            if key not in self._sessions:
                layer = self._layers[index]
                if changed is not None:
                    layer = nn.NeuralNetworkLayer.FromString(changed)
                self._sessions[key] = alone(self.network, [layer], self.classes)
            return self._sessions[key]

    def sums(
        self, group: int, walk: _SampleGroup, index: int, weight_fields: Sequence[str]
    ) -> list[Sums]:
        """The sums over a group of what some weights of a layer are multiplied with."""
        layer = self._layers[index]
        own = {site.field: site for some in sites(layer) for site in some}
        name = layer.input[0]
        results = []
        for each in weight_fields:
            site = own[each]
            product: Product = PRODUCTS[site.kind](site, self.count, group)
            for one, other in zip(walk.streams.floats, walk.streams.quantized, strict=True):
                product.add(one[name], other[name])
            results.append(product.sums())
        return results


def _source(data: bytes, classes: CustomClasses, end: int, count: int, token: str) -> WalkedNetwork:
    return WalkedNetwork(model_pb2.Model.FromString(data), classes, end, count, token)


@dataclass
class _SampleGroup:
    """How far a group has come: the layers in front of `position` have run."""

    streams: Streams
    owner: int
    position: int = 0
    busy: bool = False


@dataclass(frozen=True)
class _Ask:
    """A question to whoever holds a group.

    Attributes:
        position: where the group is, before the first layer for one to begin with.
        until: the number of the layer before which to stop.
        wanted: the fields of its weights that are asked about.
        changed: quantized layers on the way.
        group: to begin with; None for one that is there.
        samples: of this group.
        most: groups that one who is asked to begin may have, so that all have as many.
    """

    position: int
    until: int
    wanted: tuple[str, ...]
    changed: Mapping[int, bytes] = field(default_factory=dict)
    group: int | None = None
    samples: Sequence[SampleInputs] = ()
    most: int = GROUPS


@dataclass(frozen=True)
class _LookAhead:
    """Run the next layer as it was, for a group that waits for the layer as it will be.

    Attributes:
        position: where the group is.
        until: where it goes on to in the next round.
    """

    position: int
    until: int


def _answered(source: WalkedNetwork, ask: _Ask | _LookAhead) -> tuple[int, list[Sums]] | None:
    """The sums over one group; None where none is that could be asked."""
    if isinstance(ask, _LookAhead):
        _look_ahead(source, ask)
        return None
    if ask.group is not None and not source.may_begin(ask.most):
        time.sleep(_PAUSE)
        return None
    if ask.group is not None:
        group, walk = ask.group, source.begin(ask.group, ask.samples)
    else:
        claimed = source.claimed(ask.position)
        if claimed is None:
            time.sleep(_PAUSE)
            return None
        group, walk = claimed
    try:
        source.advance(walk, ask.until, ask.changed)
        return group, source.sums(group, walk, ask.until, ask.wanted)
    finally:
        walk.busy = False


def _look_ahead(source: WalkedNetwork, ask: _LookAhead) -> None:
    claimed = source.claimed(ask.position, ahead=True)
    if claimed is None:
        time.sleep(_PAUSE)
        return
    _, walk = claimed
    try:
        source.look_ahead(walk, ask.until)
    finally:
        walk.busy = False


class Walks:
    """All groups, walking through a network together.

    Args:
        source: the network.
        samples: all of them.
        stops: the numbers of the layers whose products are wanted, in order.
        executor: whose workers walk; None for this process.
    """

    def __init__(
        self,
        source: WalkedNetwork,
        samples: Sequence[SampleInputs],
        stops: Sequence[int],
        executor: Executors | None,
    ) -> None:
        self._source, self._samples, self._position = source, samples, -1
        self._following = dict(itertools.pairwise(stops))
        self._looks: Iterable[object] = ()
        self._has_workers = executor is not None
        self._changed: dict[int, bytes] = {}
        self._groups = [*range(min(GROUPS, source.count))]
        self._team = Team(_answered, source, executor, chunk_size=1)

    def __enter__(self) -> Walks:
        return self

    def __exit__(self, *_: object) -> None:
        self._team.close()

    def change(self, index: int, layer: nn.NeuralNetworkLayer) -> None:
        """Tell how a layer is from now on in the quantized network."""
        self._changed[index] = layer.SerializeToString(deterministic=True)

    def products(self, index: int, weights: Sequence[Site]) -> dict[str, Product]:
        """What some weights of a layer are multiplied with, over all samples.

        Args:
            index: the number of the layer, which rises from call to call.
            wanted: weights of it.

        Returns:
            them by the fields of the weights.
        """
        names = tuple(site.field for site in weights)
        if not names:
            return {}
        products: list[Product] = [
            PRODUCTS[site.kind](site, self._source.count) for site in weights
        ]
        waiting: dict[int, list[Sums]] = {}
        following = 0
        for group, sums in self._round(index, names):
            waiting[group] = sums
            while following in waiting:  # sums depend on the order in the last digits
                for product, part in zip(products, waiting.pop(following), strict=True):
                    product.take(part)
                following += 1
        self._position = index
        if self._has_workers and index in self._following:
            look = _LookAhead(index, self._following[index])
            self._looks = self._team.run([look] * len(self._groups))
        return dict(zip(names, products, strict=True))

    def _round(
        self, index: int, weight_fields: tuple[str, ...]
    ) -> Iterator[tuple[int, list[Sums]]]:
        for _ in self._looks:
            pass
        missing = set(self._groups)
        recent = {at: data for at, data in self._changed.items() if at >= self._position}
        here = _Ask(self._position, index, weight_fields, recent)
        anew = [
            _Ask(0, index, weight_fields, self._changed, group, self._samples[group::GROUPS])
            for group in self._groups
        ]
        share = -(-len(self._groups) // self._team.workers)
        first = [replace(ask, most=share) for ask in anew]
        is_first = self._position < 0
        asks = first if is_first else [here] * len(missing)
        silent = 0
        while missing:
            before = len(missing)
            for answer in self._team.run(asks):
                if answer is not None and answer[0] in missing:
                    missing.discard(answer[0])
                    yield answer
            silent = 0 if len(missing) < before else silent + 1
            if silent >= _NOBODY:
                asks = [anew[group] for group in sorted(missing)]
            elif is_first:
                asks = [first[group] for group in sorted(missing)]
            else:
                asks = [here] * len(missing)
