"""`prune_weights`: weights of ML Programs that are stored without their zeros."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mlferry.errors import SpecError
from mlferry.models.model import MLModel, ModelFile
from mlferry.models.programs import to_program
from mlferry.models.quantization import selectors
from mlferry.models.quantization.programs import recoded
from mlferry.programs import compressed
from mlferry.programs.builder import NewerOpsetError
from mlferry.programs.compressed import Compressed
from mlferry.programs.sites import Floats, ProgramSite
from mlferry.spec import networks

Prune = Callable[[ProgramSite], Floats]


def prune_weights(
    model: MLModel | ModelFile,
    *,
    sparsity: float | None = None,
    threshold: float | None = None,
    n_m_ratio: tuple[int, int] | None = None,
    selector: object = None,
    joint_compression: bool = False,
) -> MLModel:
    """A copy of an ML Program whose smallest weights are zero, and are not stored.

    A neural network is made a program first (`to_program`), in half precision. Programs with sparse
    weights need iOS 16.

    Args:
        model: an `MLModel`, or what it takes.
        sparsity: which part of each weight becomes zero, 0 to 1: the values that are nearest to it.
        threshold: values whose magnitude is not above it become zero.
        n_m_ratio: (n, m): of m inputs one after another, the n nearest to zero become zero; where
            fewer than m are left at the end, the others count as zeros.
        selector: which weights, see `mlferry.models.quantization.selectors`; by default matrices
            of more than 2,048 values.
        joint_compression: what is in fewer bits already stays so (iOS 18): of its codes, or indices
            of a table, those that are left are stored.

    Returns:
        the program. A weight that would take more room so stays as it is.

    Raises:
        SpecError: not exactly one of the three is given, or it is out of range.
    """
    options = {"sparsity": sparsity, "threshold": threshold, "n_m_ratio": n_m_ratio}
    names = [name for name, value in options.items() if value is not None]
    if len(names) != 1:
        raise SpecError(
            "prune_weights takes one of sparsity=0.5, threshold=1e-3 and n_m_ratio=(2, 4), "
            f"not {' and '.join(names) or 'none'}"
        )
    prune = _WAYS[names[0]](options[names[0]])
    loaded = model if isinstance(model, MLModel) else MLModel(model)
    if networks.network_of(loaded.spec) is not None:
        loaded = to_program(loaded)
    chosen = selectors.resolve(selector, selectors.matrices)

    def encode(site: ProgramSite, opset: int) -> Compressed | None:
        pruned = prune(site)
        zeros = 1 - np.count_nonzero(pruned) / max(1, pruned.size)
        bits = 16 if site.value.dtype == "fp16" else 32
        plain = site.value.maker is None or not joint_compression
        if plain and zeros * bits <= 1:  # the mask takes a bit for each value
            return None
        return stored_sparse(site, opset, pruned, joint=joint_compression)

    return recoded(loaded, chosen, encode, "pruning")


def stored_sparse(site: ProgramSite, opset: int, pruned: Floats, *, joint: bool) -> Compressed:
    """What is not zero of a weight, in floats; or, of a compressed one, as it was.

    Raises:
        NewerOpsetError: it needs a newer opset.
        SpecError: what is compressed cannot be pruned.
    """
    parts = site.parts if joint else None
    if parts is None:
        return compressed.sparse(opset, pruned, site.value.dtype)
    if opset < compressed.BLOCKS:
        raise NewerOpsetError("joint compression", compressed.BLOCKS)
    return parts.pruned(pruned != 0).written(opset, pruned, site.value.dtype)


def _by_sparsity(sparsity: float) -> Prune:
    if isinstance(sparsity, bool) or not 0 <= sparsity <= 1:
        raise SpecError(f"sparsity is {sparsity!r}; it is a part, from 0 to 1")
    return lambda site: without_smallest(site.array, np.abs(site.array), sparsity)


def without_smallest(array: Floats, sizes: Floats, part: float) -> Floats:
    """An array in which the part that has the smallest sizes is zero."""
    count = int(np.floor(part * array.size))
    if not count:
        return np.array(array, np.float32)
    least = float(np.partition(sizes, count - 1, axis=None)[count - 1])
    kept = np.greater(sizes, least)
    more = array.size - count - np.count_nonzero(kept)
    if more:  # of equal ones, the last are kept
        kept.reshape(-1)[np.flatnonzero(sizes == least)[-more:]] = True
    pruned: Floats = array * kept
    return pruned


def _by_threshold(threshold: float) -> Prune:
    if isinstance(threshold, bool) or not threshold >= 0:
        raise SpecError(f"threshold is {threshold!r}; it is a magnitude, 0 or more")
    limit = np.float32(threshold)

    def prune(site: ProgramSite) -> Floats:
        pruned: Floats = np.where(np.abs(site.array) <= limit, np.float32(0), site.array)
        return pruned

    return prune


def _by_ratio(ratio: Sequence[int]) -> Prune:
    try:
        n, m = (int(each) for each in ratio)
    except (TypeError, ValueError):
        raise SpecError(f"n_m_ratio is {ratio!r}; it is a pair such as (2, 4)") from None
    if not 0 <= n <= m or m < 1:
        raise SpecError(f"n_m_ratio is {ratio!r}; of m values n become zero, and n is not above m")

    return lambda site: without_n_of_m(site.array, site.input_axis, n, m)


def without_n_of_m(array: Floats, axis: int, n: int, m: int) -> Floats:
    """An array in which of each m values along an axis the n nearest to zero are zero."""
    lines = np.moveaxis(array, axis, -1)
    rest = -lines.shape[-1] % m
    filled = np.pad(lines, [(0, 0)] * (lines.ndim - 1) + [(0, rest)])
    groups = filled.reshape(-1, m).copy()
    order = np.argsort(np.abs(groups), axis=1, kind="stable")[:, :n]
    np.put_along_axis(groups, order, 0, axis=1)
    pruned = groups.reshape(filled.shape)[..., : lines.shape[-1]]
    return np.ascontiguousarray(np.moveaxis(pruned, -1, axis))


_WAYS: dict[str, Callable[[Any], Prune]] = {
    "sparsity": _by_sparsity,
    "threshold": _by_threshold,
    "n_m_ratio": _by_ratio,
}
