"""What a generator of random networks gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Oracle = Callable[[Mapping[str, Array]], list[Array]]


@dataclass
class Half:
    """A network in half precision.

    Attributes:
        source: what is converted, with the options of the network in single precision.
        oracle: its outputs, in the same order; it rounds its inputs itself.
    """

    source: Any
    oracle: Oracle


@dataclass
class Network:
    """A network, and what its own framework makes of inputs.

    Attributes:
        source: what is converted.
        inputs: values by the names of the inputs.
        oracle: the outputs for such values, in the order of the source.
        options: how it is converted.
        names: of the outputs, where the source tells them.
        others: inputs of other sizes that the conversion allows.
        close: how far the values may be apart, beside their size.
        rounding: relative error of the coarsest rounding inside, for networks that jump.
        half: makes the same network in half precision, with an oracle that takes the same values;
            fails where the framework has no such network.
    """

    source: Any
    inputs: Mapping[str, Array]
    oracle: Oracle
    options: Mapping[str, Any] = field(default_factory=dict)
    names: Sequence[str] | None = None
    others: Sequence[Mapping[str, Array]] = ()
    close: float = 1e-4
    rounding: float = 1e-6
    half: Callable[[], Half] | None = None
