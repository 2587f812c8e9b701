"""A network as a plan: resolved once, run many times."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mlferry.custom import Instance
from mlferry.errors import PredictionError, SpecError, context
from mlferry.registry import did_you_mean
from mlferry.runtime.custom import CustomClasses, resolve
from mlferry.runtime.kernels import KERNELS, Array
from mlferry.runtime.kernels.registry import Kernel
from mlferry.spec import networks
from mlferry.spec.params import Params
from mlferry.spec.proto import neural_network_pb2 as nn


@dataclass(frozen=True)
class Step:
    """One call of a kernel: blobs that it reads, blobs that it makes, blobs then free."""

    kernel: Kernel
    params: Params
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    frees: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.params.kind} {self.params.name!r}"


class Session:
    """Evaluates one network.

    Args:
        network: a neural network message of any of the three kinds.
        custom_layers: classes for custom layers by class name; they come before registered
            ones.

    Raises:
        MissingCustomLayerError: custom layers without a class; all are named.
        SpecError: a layer cannot be evaluated.
    """

    def __init__(
        self, network: networks.Network, custom_layers: CustomClasses | None = None
    ) -> None:
        self.rank5 = networks.uses_rank5(network)
        every = networks.layers_of(network)
        custom = [layer for layer in every if layer.WhichOneof("layer") == "custom"]
        classes = resolve(custom, custom_layers)
        self._steps = [self._step(layer, classes) for layer in network.layers]
        self.blobs = {blob for step in self._steps for blob in (*step.inputs, *step.outputs)}
        self._plans: dict[frozenset[str], list[Step]] = {}

    def _step(self, layer: nn.NeuralNetworkLayer, classes: CustomClasses) -> Step:
        params = Params.of(layer, rank5=self.rank5)
        if params.kind == "custom":
            cls = classes[layer.custom.className]
            instance = Instance(layer.name, cls, layer.custom, len(layer.output))
            kernel: Kernel = lambda _, *inputs: instance.evaluate(inputs)  # noqa: E731
        else:
            entry = KERNELS.find(params.kind)
            if entry is None:
                raise SpecError(
                    f"layer {layer.name!r}: there is no kernel for the kind {params.kind!r} yet"
                )
            kernel = entry.value
        return Step(kernel, params, tuple(layer.input), tuple(layer.output), ())

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Evaluate the network.

        Args:
            inputs: float32 arrays by blob.
            outputs: the blobs wanted: outputs of the network, or any blob inside.

        Raises:
            PredictionError: a blob does not exist, or shapes do not fit a layer.
        """
        for name in outputs:
            if name not in self.blobs and name not in inputs:
                close = did_you_mean(name, sorted(self.blobs))
                raise PredictionError(f"the network has no blob {name!r}.{close}")
        blobs: dict[str, Array] = dict(inputs)
        for step in self._plan(frozenset(outputs)):
            self._run(step, blobs)
            for name in step.frees:
                del blobs[name]
        return {name: blobs[name] for name in outputs}

    def _run(self, step: Step, blobs: dict[str, Array]) -> None:
        missing = [name for name in step.inputs if name not in blobs]
        if missing:
            raise PredictionError(f"{step} reads {missing[0]!r}, which nothing before it makes")
        with context(f"running {step}"), np.errstate(all="ignore"):
            arguments = [blobs[name] for name in step.inputs]
            try:
                made = step.kernel(step.params, *arguments)
            except (ValueError, IndexError, TypeError) as error:
                if isinstance(error, PredictionError | SpecError):
                    raise
                shapes = ", ".join(str(x.shape) for x in arguments)
                raise PredictionError(
                    f"inputs of shapes {shapes} do not fit this layer: {error}"
                ) from error
        results = made if isinstance(made, tuple) else (made,)
        for name, array in zip(step.outputs, results, strict=False):
            blobs[name] = np.asarray(array, np.float32)

    def _plan(self, wanted: frozenset[str]) -> list[Step]:
        """The steps that the wanted blobs need, each with the blobs that it is the last to use."""
        if wanted not in self._plans:
            needed = set(wanted)
            last_use: set[str] = set(wanted)
            plan: list[Step] = []
            for step in reversed(self._steps):
                if not needed.intersection(step.outputs):
                    continue
                needed.update(step.inputs)
                used = _unique((*step.inputs, *step.outputs))
                frees = tuple(name for name in used if name not in last_use)
                last_use.update(used)
                plan.append(Step(step.kernel, step.params, step.inputs, step.outputs, frees))
            self._plans[wanted] = plan[::-1]
        return self._plans[wanted]


def _unique(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))
