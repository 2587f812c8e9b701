"""What branches and loops need in every format.

Core ML's networks show the blobs of an inner network outside of it; other formats show only the
outputs of a body. So each blob that something later may read becomes an output. A branch that may
leave the round of its loop takes the rest of the round into both of its paths.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mlferry.errors import SpecError
from mlferry.exporters.liveness import LEAVES, leaves, needs, read_first, read_first_in_rounds
from mlferry.exporters.walk import B, Layer, LayerWalk, Special, V
from mlferry.refusals import refuse
from mlferry.spec import networks


def control_flow(loop: Special) -> Mapping[str, Special]:
    """What writes the layers of control flow, by kind, with the format's own loop."""
    return {"branch": branch, "loop": loop, "loopBreak": outside, "loopContinue": outside}


def outside(walk: LayerWalk[V, B], layer: Layer, live: set[str]) -> None:
    """Refuse a break or continue that stands in no loop."""
    raise SpecError(f"{layer.WhichOneof('layer')} {layer.name!r} is not inside a loop")


def branch(walk: LayerWalk[V, B], layer: Layer, live: set[str]) -> None:
    """Run the first network if the input is true, else the second, which may be empty."""
    condition = walk.truth(layer.input[0])
    counters = walk.counters(layer)
    blobs = sorted(networks.touched(layer)[1] & live) + counters

    def write(network: networks.Network) -> list[V]:
        walk.run(network.layers, {*live, *counters})
        unmade = [blob for blob in blobs if blob not in walk.values]
        if unmade:
            raise refuse(f"one of its branches leaves {unmade[0]!r}, which is read later, unmade")
        return [walk.whole(blob) for blob in blobs]

    bodies, results = _branches(walk, layer, write)
    if blobs:
        for blob, value in zip(blobs, walk.choose(layer, condition, bodies, results), strict=True):
            walk.become(blob, value)


def _branches(
    walk: LayerWalk[V, B], layer: Layer, write: Callable[[networks.Network], list[V]]
) -> tuple[list[B], list[list[V]]]:
    """The bodies of both networks of a branch, and the values that each of them leaves."""
    bodies, results = [], []
    for network in networks.subnetworks(layer):
        with walk.inside() as body:
            results.append(write(network))
        bodies.append(body)
    return bodies, results


@dataclass(frozen=True)
class LoopParts:
    """The networks of a loop, the blobs that a round reads first, and those that it carries."""

    condition: list[Layer]
    body: list[Layer]
    exposed: set[str]
    states: list[str]

    @property
    def needed(self) -> set[str]:
        """The blobs that something reads after a round."""
        return {*self.states, *read_first(self.condition)[0]}


def loop_parts(layer: Layer, live: set[str]) -> LoopParts:
    """What a loop consists of; `live` are the blobs that something later may read."""
    condition = list(layer.loop.conditionNetwork.layers) if layer.loop.conditionVar else []
    body = list(layer.loop.bodyNetwork.layers)
    exposed = read_first_in_rounds(body, condition)
    writes = {blob for inner in [*body, *condition] for blob in networks.touched(inner)[1]}
    return LoopParts(condition, body, exposed, sorted(writes & (live | exposed)))


def check_written(walk: LayerWalk[V, B], layer: Layer, blob: str, parts: LoopParts) -> None:
    """Refuse a blob that has no value before a loop, unless a round is certain to write it.

    Raises:
        CannotExpressError: the loop may leave it without a value.
    """
    params = layer.loop
    sure = params.maxLoopIterations > 0 and not layer.input and not params.conditionVar
    if blob in parts.exposed or not sure or blob not in read_first(parts.body)[1]:
        raise refuse(f"its rounds may leave {blob!r}, which is read later, unmade")


def rest_of_round(
    walk: LayerWalk[V, B],
    layers: Sequence[Layer],
    after: set[str],
    finish: Callable[[], list[V]],
    leave: Callable[[V], list[V]],
) -> list[V]:
    """The rest of a round: whether another one follows, and the new states."""
    for index, (layer, live) in enumerate(zip(layers, needs(layers, after), strict=True)):
        kind = layer.WhichOneof("layer")
        if kind in LEAVES:
            return leave(walk.flag(False)) if kind == "loopBreak" else finish()
        if kind != "branch" or not leaves(layer):
            walk.layer(layer, live)
            continue
        condition = walk.truth(layer.input[0])
        rest = layers[index + 1 :]

        def write(network: networks.Network, rest: Sequence[Layer] = rest) -> list[V]:
            return rest_of_round(walk, [*network.layers, *rest], after, finish, leave)

        return list(walk.choose(layer, condition, *_branches(walk, layer, write)))
    return finish()
