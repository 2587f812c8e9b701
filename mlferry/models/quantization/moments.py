"""What a layer's weights are multiplied with: the second moments of its inputs.

One class a family of layer kinds: it takes the weights apart into [groups, inputs, outputs]
matrices, puts them together again, and adds up the moments from blobs.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlferry.errors import PredictionError
from mlferry.layers.borders import borders
from mlferry.layers.kernels import Array
from mlferry.layers.params import Params
from mlferry.layers.sites import Site
from mlferry.models.quantization.in_turn import Floats
from mlferry.models.quantization.rounding import Dense, Diagonal, Moments
from mlferry.numerics import windows

Weights = Any  # arrays: of the weights, or of their indices
_LARGEST_BLOCK = 4608  # inputs whose moments are held in one matrix
_ROWS = (24576, 65536)  # at least and at most so many rows of inputs are added up
_BATCH = 4096  # rows in one product
_SHORTENED = (1e-25, 1e38)  # between these, sums are sent as float32


class Sums(NamedTuple):
    """What a `Product` adds up, over some of the samples; as it is sent, with few digits.

    Attributes:
        own: for each block of inputs, of what goes in in the quantized model.
        cross: likewise, with what goes in in the float model; None where they are the same.
        rows: how many there are.
    """

    own: Sequence[NDArray[np.floating]]
    cross: Sequence[NDArray[np.floating]] | None
    rows: int


class Product(ABC):
    """A layer whose outputs are products of its inputs with its weights.

    Args:
        site: the weights.
        samples: how many samples there are, of which some, or all, will be added.
        seed: of the choice of rows.
    """

    groups = 1

    def __init__(self, site: Site, samples: int, seed: int = 0) -> None:
        self.shape = site.shape
        self.params = Params.of(site.layer)
        self.random = np.random.default_rng(seed)
        self.inputs = self.matrices(np.empty(site.shape, np.bool_)).shape[1]
        rows = min(max(_ROWS[0], 8 * self.inputs), _ROWS[1])
        self.quota = -(-rows // max(1, samples))
        count = -(-self.inputs // _LARGEST_BLOCK)
        edges = np.linspace(0, self.inputs, count + 1).astype(int)
        self.blocks = [slice(a, b) for a, b in itertools.pairwise(edges)]
        self._own = [self._zeros(block) for block in self.blocks]
        self._cross: list[Floats] | None = None
        self._waiting: list[tuple[Array, Array]] = []
        self._waits = self._rows = 0

    def _zeros(self, block: slice) -> Floats:
        size = block.stop - block.start
        return np.zeros((self.groups, size, size))

    @abstractmethod
    def matrices(self, weights: Weights) -> Weights:
        """The weights as [groups, inputs, outputs]."""

    @abstractmethod
    def weights(self, matrices: Weights) -> Weights:
        """Matrices in the stored shape."""

    @abstractmethod
    def rows(self, x: Array, other: Array) -> tuple[Array, Array]:
        """Some rows of inputs as [groups, inputs, rows], at the same places of both blobs."""

    def add(self, x: Array, quantized: Array) -> None:
        """Take a sample's input in the float model, and in the quantized one."""
        if self._cross is None and x is not quantized:
            self._flush()
            self._cross = [own.copy() for own in self._own]
        self._waiting.append(self.rows(x, quantized))
        self._waits += self._waiting[-1][0].shape[2]
        if self._waits >= _BATCH:
            self._flush()

    def _flush(self) -> None:
        if not self._waiting:
            return
        x, quantized = (np.concatenate(each, axis=2) for each in zip(*self._waiting, strict=True))
        with np.errstate(over="ignore", invalid="ignore"):  # `moments` says so
            for index, block in enumerate(self.blocks):
                part = quantized[:, block]
                self._own[index] += part @ part.swapaxes(1, 2)
                if self._cross is not None:
                    self._cross[index] += x[:, block] @ part.swapaxes(1, 2)
        self._rows += self._waits
        self._waiting, self._waits = [], 0

    def sums(self) -> Sums:
        """The sums over what was added; nothing can be added after it."""
        self._flush()
        own, cross = (_shortened(sums) for sums in (self._own, self._cross or []))
        return Sums(own, cross or None, self._rows)

    def take(self, part: Sums) -> None:
        """Add the sums over other samples."""
        if self._cross is None and part.cross is not None:
            self._cross = [own.copy() for own in self._own]
        if self._cross is not None:
            for cross, more in zip(self._cross, part.cross or part.own, strict=True):
                np.add(cross, more, out=cross)
        for own, more in zip(self._own, part.own, strict=True):
            np.add(own, more, out=own)
        self._rows += part.rows

    def moments(self) -> Moments:
        """The moments of all that was added; nothing can be added after it.

        Raises:
            PredictionError: a value, or its square, was infinite or no number.
        """
        self._flush()
        if not all(np.isfinite(sums).all() for sums in (*self._own, *(self._cross or ()))):
            raise PredictionError(
                "with the sample data, its inputs or their squares are infinite or no numbers "
                "(NaN), which tells nothing about its weights: leave out such samples"
            )
        for sums in (*self._own, *(self._cross or ())):
            np.divide(sums, max(1, self._rows), out=sums)
        return Dense(self._own, self._cross, self.blocks)

    def _some(self, count: int) -> NDArray[np.intp]:
        if count <= self.quota:
            return np.arange(count)
        return np.sort(self.random.choice(count, self.quota, replace=False))


def _shortened(sums: Sequence[Floats]) -> list[NDArray[np.floating]]:
    return [each.astype(np.float32) if _fits_float32(each) else each for each in sums]


def _fits_float32(sums: Floats) -> bool:
    """Whether the squares of inputs, added up, keep their digits in float32."""
    largest = np.abs(sums).max(initial=0)
    return bool(largest == 0 or _SHORTENED[0] < largest < _SHORTENED[1])


class Matrix(Product):
    """Weights [outputs, inputs]; every vector along the inputs' axis is a row."""

    def matrices(self, weights: Weights) -> Weights:
        """The weights as [1, inputs, outputs]."""
        return weights.T[None]

    def weights(self, matrices: Weights) -> Weights:
        """Matrices in the stored shape."""
        return matrices[0].T

    def rows(self, x: Array, other: Array) -> tuple[Array, Array]:
        """Some of the vectors."""
        vectors = x.reshape(-1, self.inputs)
        pick = self._some(len(vectors))
        others = other.reshape(-1, self.inputs)[pick]
        return vectors[pick].T[None], others.T[None]


class Embedding(Matrix):
    """Weights [outputs, entries]; an input is the index of an entry."""

    def __init__(self, site: Site, samples: int, seed: int = 0) -> None:
        self._met = np.zeros((1, site.shape[1]))
        super().__init__(site, samples, seed)

    def _zeros(self, block: slice) -> Floats:
        return np.zeros((1, 0, 0))

    def add(self, x: Array, quantized: Array) -> None:
        """Count the entries that are looked up."""
        self._met[0] += np.bincount(
            quantized.reshape(-1).astype(np.intp), minlength=self._met.shape[1]
        )[: self._met.shape[1]]

    def sums(self) -> Sums:
        """How often each entry is looked up, as it is counted."""
        return Sums([self._met], None, 0)

    def take(self, part: Sums) -> None:
        """Add the counts of other samples."""
        self._met += part.own[0]

    def moments(self) -> Moments:
        """How often each entry is looked up."""
        return Diagonal(self._met / max(1, self._met.sum()))


class Convolution(Product):
    """Weights [outputs, inputs / groups, kH, kW]; every window of the input is a row."""

    transposed = False

    def __init__(self, site: Site, samples: int, seed: int = 0) -> None:
        self.groups = site.layer.convolution.nGroups or 1
        super().__init__(site, samples, seed)

    def matrices(self, weights: Weights) -> Weights:
        """The weights as [groups, inputs / groups * kH * kW, outputs / groups]."""
        first = self.shape[0] // self.groups
        return weights.reshape(self.groups, first, -1).swapaxes(1, 2)

    def weights(self, matrices: Weights) -> Weights:
        """Matrices in the stored shape."""
        return matrices.swapaxes(1, 2).reshape(self.shape)

    def rows(self, x: Array, other: Array) -> tuple[Array, Array]:
        """Some of the windows."""
        maps, others = (each.reshape(-1, *each.shape[-3:]) for each in (x, other))
        size = maps.shape[-2:]
        out = self._positions(size)
        pick = self._some(len(maps) * out[0] * out[1])
        sample, place = np.divmod(pick, out[0] * out[1])
        taps = self._taps(size, out, place)
        return self._gathered(maps, sample, taps), self._gathered(others, sample, taps)

    def _gathered(self, maps: Array, sample: NDArray[np.intp], taps: NDArray[np.intp]) -> Array:
        """Values at `taps` [kH * kW, rows], flat in a map; -1 is padding."""
        count, channels = maps.shape[:2]
        flat = maps.reshape(count, channels, -1)
        values: Array = flat[0][:, taps] if count == 1 else np.moveaxis(flat[sample, :, taps], 2, 0)
        values[:, taps < 0] = 0
        return values.reshape(self.groups, -1, taps.shape[1])

    def _positions(self, size: tuple[int, ...]) -> tuple[int, int]:
        p = self.params
        edges = self._edges(size)
        rows, columns = (
            windows.slide(extent, (k - 1) * d + 1, s, edge) or 0
            for extent, k, s, d, edge in zip(
                size, p.kernelSize, p.stride, p.dilationFactor, edges, strict=True
            )
        )
        return rows, columns

    def _edges(self, size: tuple[int, ...]) -> tuple[windows.Edges, ...]:
        p = self.params
        if p.which("ConvolutionPaddingType") != "same":
            return borders(p.valid)
        return tuple(
            windows.same_edges(extent, (k - 1) * d + 1, s, p.same.asymmetryMode)
            for extent, k, s, d in zip(size, p.kernelSize, p.stride, p.dilationFactor, strict=True)
        )

    def _taps(
        self, size: tuple[int, ...], out: tuple[int, int], place: NDArray[np.intp]
    ) -> NDArray[np.intp]:
        """Where in a flat map each tap of the kernel lies for each output; -1 is padding."""
        p = self.params
        edges = self._edges(size)
        along = []
        for axis, at in enumerate(np.divmod(place, out[1])):
            taps = np.arange(p.kernelSize[axis])[:, None] * p.dilationFactor[axis]
            places = at * p.stride[axis] + taps - edges[axis][0]
            along.append(np.where((places >= 0) & (places < size[axis]), places, -1))
        return _flat(along[0], along[1], size[1])


def _flat(rows: NDArray[np.intp], columns: NDArray[np.intp], width: int) -> NDArray[np.intp]:
    both = rows[:, None] * width + columns[None]
    inside = (rows[:, None] >= 0) & (columns[None] >= 0)
    return np.where(inside, both, -1).reshape(-1, rows.shape[1])


class Deconvolution(Convolution):
    """Weights [inputs, outputs / groups, kH, kW]; a row is what reaches one output, before
    what lies in the padding is cut off.
    """

    def matrices(self, weights: Weights) -> Weights:
        """The weights as [groups, inputs / groups * kH * kW, outputs / groups]."""
        inputs, outputs = self.shape[:2]
        apart = weights.reshape(self.groups, inputs // self.groups, outputs, -1)
        return apart.swapaxes(2, 3).reshape(self.groups, -1, outputs)

    def weights(self, matrices: Weights) -> Weights:
        """Matrices in the stored shape."""
        inputs, outputs = self.shape[:2]
        apart = matrices.reshape(self.groups, inputs // self.groups, -1, outputs)
        return apart.swapaxes(2, 3).reshape(self.shape)

    def _positions(self, size: tuple[int, ...]) -> tuple[int, int]:
        p = self.params
        rows, columns = (
            (extent - 1) * s + (k - 1) * d + 1
            for extent, k, s, d in zip(size, p.kernelSize, p.stride, p.dilationFactor, strict=True)
        )
        return rows, columns

    def _taps(
        self, size: tuple[int, ...], out: tuple[int, int], place: NDArray[np.intp]
    ) -> NDArray[np.intp]:
        """Where in a flat map each tap's input lies for each output; -1 is none."""
        p = self.params
        along = []
        for axis, at in enumerate(np.divmod(place, out[1])):
            taps = np.arange(p.kernelSize[axis])[:, None] * p.dilationFactor[axis]
            places, rest = np.divmod(at - taps, p.stride[axis])
            inside = (rest == 0) & (places >= 0) & (places < size[axis])
            along.append(np.where(inside, places, -1))
        return _flat(along[0], along[1], size[1])


def _convolution(site: Site, samples: int, seed: int = 0) -> Product:
    kind = Deconvolution if site.layer.convolution.isDeconvolution else Convolution
    return kind(site, samples, seed)


PRODUCTS = {
    "convolution": _convolution,
    "innerProduct": Matrix,
    "batchedMatmul": Matrix,
    "embedding": Embedding,
    "embeddingND": Embedding,
}
