"""Which blobs the layers of a network read before they write them, and which they always write."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mlferry.spec import networks
from mlferry.spec.proto import neural_network_pb2 as nn

Layers = Sequence[nn.NeuralNetworkLayer]
LEAVES = ("loopBreak", "loopContinue")


def leaves(layer: nn.NeuralNetworkLayer) -> bool:
    """Whether a layer may leave the current round of its loop."""
    kind = layer.WhichOneof("layer")
    if kind == "branch":
        return any(leaves(inner) for body in networks.subnetworks(layer) for inner in body.layers)
    return kind in LEAVES


def read_first(layers: Iterable[nn.NeuralNetworkLayer]) -> tuple[set[str], set[str]]:
    """The blobs that layers read before they surely wrote them, and those that they always write.

    After a layer that may leave its round nothing is certain; but if a later layer runs, all before
    it was written.
    """
    exposed: set[str] = set()
    written: set[str] = set()
    before: set[str] = set()
    sure = True
    for layer in layers:
        reads, writes = _of(layer)
        exposed |= reads - before
        before |= writes
        sure = sure and not leaves(layer)
        if sure:
            written |= writes
    return exposed, written


def read_first_in_rounds(body: Layers, condition: Layers) -> set[str]:
    """The blobs that a round and then the condition read before they were surely written."""
    exposed, written = read_first(body)
    return exposed | (read_first(condition)[0] - written)


def _of(layer: nn.NeuralNetworkLayer) -> tuple[set[str], set[str]]:
    kind = layer.WhichOneof("layer")
    reads, writes = set(layer.input), set(layer.output)
    if kind == "branch":
        branches = [read_first(body.layers) for body in networks.subnetworks(layer)]
        return reads.union(*(branch[0] for branch in branches)), branches[0][1] & branches[1][1]
    if kind == "loop":
        condition_reads, condition_writes = read_first(layer.loop.conditionNetwork.layers)
        inner, _ = read_first(layer.loop.bodyNetwork.layers)
        if layer.loop.conditionVar:
            reads |= {layer.loop.conditionVar} - condition_writes
        return reads | condition_reads | (
            inner - condition_writes
        ), condition_writes if layer.loop.conditionVar else set()
    return reads, writes


def needs(layers: Layers, after: set[str]) -> list[set[str]]:
    """For every layer, the blobs that something later may read; `after` are read at the end."""
    results: list[set[str]] = []
    needed = set(after)
    for layer in reversed(layers):
        results.append(set(needed))
        exposed, written = read_first([layer])
        needed = (needed - written) | exposed
    return results[::-1]
