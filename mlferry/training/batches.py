"""Several samples in one run of a network, if the network allows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mlferry.errors import MlferryError
from mlferry.layers.gradients import Array
from mlferry.training.tape import Tape

Blobs = Mapping[str, Array]


class Batches:
    """Joins the blobs of samples along the batch axis of a network.

    That is the second axis of the classic mapping and the first of the exact mapping. Nothing in
    the format says that the first axis is a batch, so two samples are tried together and alone.

    Args:
        tape: the network.
        wanted: the blobs that must be the same either way.
    """

    def __init__(self, tape: Tape, outputs: Sequence[str]) -> None:
        self.tape, self.wanted = tape, list(outputs)
        self.axis = 1 if tape.rank5 else 0
        self._joins: bool | None = None
        # a reshape to [1, ...] accepts any number of samples
        self._reshapes = [
            (params, params.targetShape)
            for params in tape.layer_params()
            if params.kind == "reshapeStatic" and params.targetShape[:1] == (1,)
        ]

    def joined(self, samples: Sequence[Blobs]) -> Blobs:
        """Join the blobs of several samples into those of one run."""
        for params, shape in self._reshapes:
            params.__dict__["targetShape"] = (len(samples), *shape[1:])
        if len(samples) == 1:
            return samples[0]
        return {
            name: np.concatenate([sample[name] for sample in samples], axis=self.axis)
            for name in samples[0]
        }

    def parts(self, samples: Sequence[Blobs]) -> list[range]:
        """The places of samples that run together: all of them, or each alone."""
        whole = [range(len(samples))]
        if len(samples) < 2:
            return whole
        shapes = {tuple((name, x.shape) for name, x in sorted(one.items())) for one in samples}
        if len(shapes) == 1:
            if self._joins is None:
                self._joins = self._try(samples[:2])
            if self._joins:
                return whole
        return [range(place, place + 1) for place in range(len(samples))]

    def _try(self, pair: Sequence[Blobs]) -> bool:
        if any(x.ndim <= self.axis or x.shape[self.axis] != 1 for x in pair[0].values()):
            return False
        alone = [self._made([one]) for one in pair]
        try:
            both = self._made(pair)
        except MlferryError:
            return False
        for name in self.wanted:
            actual, expected = both[name], [result[name].reshape(1, -1) for result in alone]
            if actual.size != 2 * expected[0].size or actual.size != sum(x.size for x in expected):
                return False
            least = 1e-5 * max(np.abs(x).max() for x in expected)
            if not np.allclose(actual.reshape(2, -1), np.concatenate(expected), 1e-3, least):
                return False
        return True

    def _made(self, samples: Sequence[Blobs]) -> dict[str, Array]:
        return self.tape.record(self.joined(samples), self.wanted)[0]
