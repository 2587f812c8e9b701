"""Runs a network forward, remembers what the backward pass reads, and then runs it backward."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mlferry.errors import MlferryError, PredictionError, UnsupportedModelError
from mlferry.layers.gradients import GRADIENTS, Array, LayerRun, has_none, kept
from mlferry.layers.kernels import Kernel
from mlferry.runtime.planned import regions
from mlferry.runtime.session import Blobs, Session
from mlferry.runtime.steps import Step

# The weights that are trained: fields by the name of the layer.
Trained = Mapping[str, frozenset[str]]


@dataclass(frozen=True)
class Recorded:
    """A layer that has run.

    Attributes:
        step: the layer.
        run: what its gradient reads.
    """

    step: Step
    run: LayerRun


class Recording(Blobs):
    """The blobs of one run, and the layers that a gradient may pass through.

    Attributes:
        live: the blobs that depend on what is differentiated.
        sources: blobs whose gradients are wanted.
        trained: weights whose gradients are wanted.
        runs: the layers that ran, in order, as far as they depend on these.
    """

    def __init__(self, blobs: Mapping[str, Array], sources: Iterable[str], trained: Trained):
        super().__init__(blobs)
        self.sources, self.trained = frozenset(sources), trained
        self.live = set(self.sources & self.keys())
        self.runs: list[Recorded] = []

    def note(self, step: Step, inputs: Sequence[Array], outputs: Sequence[Array]) -> None:
        """Remember what the gradient of a layer reads; the layer has just run."""
        wanted = [name in self.live for name in step.inputs]
        trained = self.trained.get(step.params.name, frozenset())
        kind = step.params.kind
        live = (any(wanted) and not has_none(kind)) or bool(trained)
        if live:
            keeps = "xy"
            if kind in GRADIENTS:
                keeps = kept(kind, step.params, trained=bool(trained))
            run = LayerRun(
                step.params,
                inputs if "x" in keeps else [None] * len(inputs),
                outputs if "y" in keeps else [None] * len(outputs),
                [x.shape for x in inputs],
                [y.shape for y in outputs],
                wanted,
                trained,
            )
            self.runs.append(Recorded(step, run))
            self.live.update(step.outputs)
        else:
            self.live.difference_update(step.outputs)
        self.live.update(self.sources.intersection(step.outputs))


@dataclass(frozen=True)
class Found:
    """The gradients that a backward pass computed.

    Attributes:
        blobs: gradients by blob.
        weights: gradients by layer and field, in the order in which the weight is stored.
    """

    blobs: dict[str, Array]
    weights: dict[tuple[str, str], Array]


class Tape(Session):
    """Evaluates a network and remembers enough for the backward pass."""

    def record(
        self,
        inputs: Mapping[str, Array],
        names: Sequence[str],
        sources: Iterable[str] = (),
        trained: Trained | None = None,
    ) -> tuple[dict[str, Array], Recording]:
        """Evaluate the network.

        Args:
            inputs: blobs by name: inputs, or blobs inside the network; the layers before those do
                not run.
            names: the blobs to evaluate.
            sources: blobs to differentiate with respect to.
            trained: weights to differentiate with respect to.

        Returns:
            the blobs, and the recording that `back` takes.

        Raises:
            PredictionError: a blob does not exist, or shapes do not fit a layer.
        """
        self.check_names(inputs, [*names, *sources])
        blobs = Recording(inputs, sources, trained or {})
        steps = self.needed(frozenset(names), frozenset(inputs))
        with np.errstate(all="ignore"):
            parts = regions.scheduled(steps, frozenset(names), {}, planned=False, winograd=False)
            for part in parts:
                self.run_body(part.steps, blobs)
                for name in part.frees:
                    blobs.pop(name, None)
        return self.chosen(blobs, names), blobs

    def _evaluate(
        self, step: Step, kernel: Kernel, arguments: Sequence[Array], blobs: Blobs
    ) -> None:
        super()._evaluate(step, kernel, arguments, blobs)
        if isinstance(blobs, Recording):
            blobs.note(step, arguments, [blobs[name] for name in step.outputs])

    def back(self, recording: Recording, seeds: Mapping[str, Array]) -> Found:
        """Run backward, once: the recording is used up, which frees memory as it goes.

        Args:
            recording: of `record`.
            seeds: the gradients to start with, by blob.

        Raises:
            UnsupportedModelError: a gradient has to pass a layer that has none.
        """
        gradients = dict(seeds)
        results = Found({}, {})
        with np.errstate(all="ignore"):
            while recording.runs:
                recorded = recording.runs.pop()
                names = recorded.step.outputs
                behind = [gradients.pop(name, None) for name in names]
                for name, gradient in zip(names, behind, strict=True):
                    if name in recording.sources and gradient is not None:
                        results.blobs.setdefault(name, gradient)
                if any(gradient is not None for gradient in behind):
                    self._pass(recorded, behind, gradients, results)
        for name in recording.sources & gradients.keys():
            results.blobs.setdefault(name, gradients[name])
        return results

    def _pass(
        self,
        recorded: Recorded,
        behind: Sequence[Array | None],
        gradients: dict[str, Array],
        results: Found,
    ) -> None:
        step, run = recorded.step, recorded.run
        dtype = next(x for x in behind if x is not None).dtype
        full = [
            np.zeros(shape, dtype) if gradient is None else gradient
            for gradient, shape in zip(behind, run.output_shapes, strict=True)
        ]
        try:
            behind_each = _gradient(step, run, full)
        except MlferryError as error:
            error.add_context(f"computing the gradient of {step}")
            raise
        for name, gradient, is_wanted in zip(step.inputs, behind_each, run.wanted, strict=False):
            if gradient is not None and is_wanted:
                before = gradients.get(name)
                gradients[name] = gradient if before is None else before + gradient
        for field, gradient in run.weights.items():
            key = (step.params.name, field)
            before = results.weights.get(key)
            results.weights[key] = gradient if before is None else before + gradient


def _gradient(step: Step, run: LayerRun, behind: list[Array]) -> Sequence[Array | None]:
    kind = step.params.kind
    if kind == "custom":
        if step.instance is None:
            raise UnsupportedModelError("it has no class")
        return step.instance.backward(run.inputs, run.outputs, behind)
    entry = GRADIENTS.find(kind)
    if entry is None:
        raise UnsupportedModelError(
            f"layer {step.params.name!r} is a {kind}, which has no gradient: layers "
            "before it can be neither trained nor explained"
        )
    try:
        output = entry.value(run, *behind)
    except MlferryError:
        raise
    except Exception as error:
        shapes = ", ".join(map(str, run.input_shapes))
        raise PredictionError(
            f"inputs of shapes {shapes} do not fit the gradient of this layer: {error}"
        ) from error
    return output if isinstance(output, tuple) else (output,)
