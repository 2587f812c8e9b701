"""Borders of height and width, as layers with windows store them, and their rules."""

from __future__ import annotations

from mlferry.errors import SpecError
from mlferry.layers.params import Params
from mlferry.numerics.windows import Edges
from mlferry.spec.problems import Problems, error
from mlferry.spec.proto import neural_network_pb2 as nn


def borders(params: Params, field: str = "paddingAmounts") -> tuple[Edges, Edges]:
    """A `BorderAmounts` field as ((top, bottom), (left, right)); unset is zero.

    Raises:
        SpecError: there are not amounts for two axes.
    """
    amounts = getattr(params, field).borderAmounts
    if not amounts:
        return (0, 0), (0, 0)
    if len(amounts) != 2:
        raise SpecError(f"{field} has amounts for {len(amounts)} axes; two (H, W) are needed")
    height, width = ((edge.startEdgeSize, edge.endEdgeSize) for edge in amounts)
    return height, width


def padding_is_set(
    params: nn.ConvolutionLayerParams | nn.PaddingLayerParams | nn.PoolingLayerParams,
    oneof: str,
    allowed: tuple[str, ...],
) -> Problems:
    """A type of padding is set."""
    if params.WhichOneof(oneof) is None:
        yield error(f"{oneof} is not set; possible are {', '.join(allowed)}")


def borders_are_two(amounts: nn.BorderAmounts, field: str) -> Problems:
    """There are amounts for height and width, or none."""
    count = len(amounts.borderAmounts)
    if count not in (0, 2):
        yield error(f"{field} has amounts for {count} axes; possible are 0 or 2 (H, W)")
