"""Facts about the values of a weight: their distribution, and the values themselves if few."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mlferry.errors import MlferryError
from mlferry.models.compression import FoundWeight
from mlferry.text import logger_of

logger = logger_of(__name__)

Key = tuple[str, str]  # a layer and its parameter, or a function and a constant of it
_FEW = 24  # values that are written out
_MOST = 1 << 24  # values to look at: more take too long
_BINS = 32


@dataclass(frozen=True)
class WeightDetail:
    """A weight.

    Attributes:
        shape: of its values.
        encoding: how they are stored.
        numbers: facts about the values, as label and value.
        bins: a histogram of them, in equal bins from the least to the greatest.
        values: themselves, if few.
    """

    shape: tuple[int, ...]
    encoding: str
    numbers: dict[str, str] = field(default_factory=dict)
    bins: list[int] = field(default_factory=list)
    values: str = ""

    @property
    def brief(self) -> str:
        """Shape and encoding, as a box shows them."""
        text = "\N{MULTIPLICATION SIGN}".join(map(str, self.shape))
        return f"{text} {self.encoding}".strip()


def weight_details(entries: Iterable[FoundWeight]) -> dict[Key, WeightDetail]:
    """By layer and parameter, or by function and constant."""
    details: dict[Key, WeightDetail] = {}
    for each in entries:
        try:
            details[each.place] = _detail(each)
        except MlferryError as error:
            logger.info("the values of a weight cannot be read: %s", error)
    return details


def _detail(each: FoundWeight) -> WeightDetail:
    if each.count > _MOST:
        note = {"values": f"{each.count:,}; details only up to {_MOST:,}"}
        return WeightDetail(each.shape, each.encoding, note)
    values = np.asarray(each.values(), np.float64).reshape(-1)
    finite = values[np.isfinite(values)]
    if not finite.size:
        return WeightDetail(each.shape, each.encoding, {"values": f"{values.size:,}, none finite"})
    numbers: dict[str, Any] = {
        "values": f"{values.size:,}",
        "range": f"{finite.min():.4g} to {finite.max():.4g}",
        "mean": f"{finite.mean():.4g}",
        "standard deviation": f"{finite.std():.4g}",
        "zeros": f"{np.count_nonzero(values == 0) / values.size:.1%}",
    }
    if finite.size < values.size:
        numbers["not finite"] = f"{values.size - finite.size:,}"
    few = values.size <= _FEW
    text = ", ".join(f"{value:.6g}" for value in values) if few else ""
    bins = [] if few else np.histogram(finite, _BINS)[0].tolist()
    return WeightDetail(each.shape, each.encoding, numbers, bins, text)
