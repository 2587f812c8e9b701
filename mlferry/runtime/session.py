"""A network as a plan: resolved once, run many times."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property

import numpy as np

from mlferry import limits
from mlferry.compiled import checked, using
from mlferry.custom import CustomLayer, Instance
from mlferry.errors import MlferryError, PredictionError, SpecError
from mlferry.layers import versions
from mlferry.layers.control.definition import TRUE_ABOVE
from mlferry.layers.definitions import infer
from mlferry.layers.kernels import KERNELS, Array, Kernel
from mlferry.layers.params import Params
from mlferry.registry import did_you_mean
from mlferry.runtime.custom import CustomClasses, resolve
from mlferry.runtime.planned import regions
from mlferry.runtime.planned.region import BlobsOfEach, Region
from mlferry.runtime.steps import Step
from mlferry.runtime.threads import at_most, computing, on_numpy
from mlferry.spec import networks
from mlferry.spec.proto import neural_network_pb2 as nn

_CHECKED_MOST = 1 << 14  # sets of shapes that are remembered as checked


class Blobs(dict[str, Array]):
    """The blobs of one run.

    Attributes:
        rounds: of all its loops so far.
    """

    rounds = 0


@dataclass(frozen=True)
class Program:
    """What runs for some outputs.

    Attributes:
        constants: blobs that are the same in every run, computed already.
        parts: what runs, in order.
    """

    constants: Mapping[str, Array]
    parts: list[regions.PlannedRegion[Step]]

    @cached_property
    def first(self) -> Region | None:
        """The part that runs first, if it is planned; often it makes all that is wanted."""
        return self.parts[0].region if self.parts else None


class Ending(Enum):
    """How the steps of a network ended."""

    END = 0
    BREAK = 1
    CONTINUE = 2


class Session:
    """Evaluates one network.

    Args:
        network: a neural network message of any of the three kinds.
        custom_layers: classes for custom layers by class name; they come before registered
            ones.
        planned: whether convolutional parts are planned for their shapes; without it every
            layer runs on its own, which is slower and takes less memory.
        winograd: whether planned convolutions of 3 x 3 pixels may go by Winograd's tiles, which
            take up to a third of the time, and round about twice as much as a plain sum: some
            1e-6 of the result's range. What is not finite shows in all of its tile of 4 x 4,
            and values far larger than those beside them cost these their digits.
        compiled: whether planned parts run on kernels that Numba compiles, which are faster; by
            default where Numba is installed.
        threads: how many it uses at most; by default one per core, up to eight.

    Raises:
        MissingCustomLayerError: custom layers without a class; all are named.
        SpecError: a layer cannot be evaluated.
    """

    def __init__(
        self,
        network: networks.Network,
        custom_layers: CustomClasses | None = None,
        *,
        planned: bool = True,
        winograd: bool = True,
        compiled: bool | None = None,
        threads: int | None = None,
    ) -> None:
        self.planned, self.winograd, self.threads = planned, winograd, threads
        self.compiled = checked(compiled)
        self.rank5 = versions.uses_rank5(network)
        every = networks.layers_of(network)
        custom = [layer for layer in every if layer.WhichOneof("layer") == "custom"]
        classes = resolve(custom, custom_layers)
        self._steps = [self._step(layer, classes, False) for layer in network.layers]
        self.blobs = {blob for step in self._steps for blob in step.reads | step.writes}
        self._written = {blob for step in self._steps for blob in step.writes}
        self._programs: dict[tuple[frozenset[str], bool], Program] = {}
        self._checked: set[tuple[int, tuple[tuple[int, ...], ...]]] = set()

    def _step(
        self, layer: nn.NeuralNetworkLayer, classes: Mapping[str, type[CustomLayer]], looped: bool
    ) -> Step:
        params = Params.of(layer, rank5=self.rank5)
        kernel: Kernel | None = None
        instance: Instance | None = None
        if params.kind == "custom":
            cls = classes[layer.custom.className]
            instance = Instance(layer.name, cls, layer.custom, len(layer.output))
            kernel = _evaluating(instance)
        elif params.kind not in CONTROL_FLOW:
            entry = KERNELS.find(params.kind)
            if entry is None:
                raise SpecError(
                    f"layer {layer.name!r}: there is no kernel for the kind {params.kind!r}"
                )
            kernel = entry.value
        elif params.kind in ("loopBreak", "loopContinue") and not looped:
            raise SpecError(f"{params.kind} {layer.name!r} is not inside a loop")
        bodies = tuple(
            tuple(
                self._step(inner, classes, looped or params.kind == "loop")
                for inner in network.layers
            )
            for network in networks.subnetworks(layer)
        )
        inner = [step for body in bodies for step in body]
        reads = frozenset(layer.input).union(*(step.reads for step in inner))
        if params.kind == "loop" and params.conditionVar:
            reads |= {params.conditionVar}
        writes = frozenset(layer.output).union(*(step.writes for step in inner))
        names = (tuple(layer.input), tuple(layer.output))
        return Step(kernel, params, *names, bodies, reads, writes, instance)

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Evaluate the network.

        Args:
            inputs: float32 arrays by blob.
            outputs: the blobs wanted: outputs of the network, or any blob inside.

        Raises:
            PredictionError: a blob does not exist, or shapes do not fit a layer.
        """
        self.check_names(inputs, outputs)
        with at_most(self.threads), using(self.compiled):
            # the end of a chain looks whether its blobs are there: none may be an input
            program = self._program(frozenset(outputs), self._written.isdisjoint(inputs))
            given = {**inputs, **program.constants} if program.constants else inputs
            made = program.first.run(given) if program.first is not None else None
            if made is not None and made.keys() >= {*outputs}:
                return {name: made[name] for name in outputs}
            with on_numpy():
                return self.chosen(self._run_parts(program, given, made), outputs)

    def _run_parts(
        self, program: Program, given: Mapping[str, Array], made: Mapping[str, Array] | None
    ) -> Blobs:
        """The blobs that a program makes of what it is given, and has not freed.

        Args:
            program: what to run.
            given: inputs and constants.
            made: what its `first` part has made; None where its layers have to run one by one.
        """
        blobs = Blobs(given)
        for number, planned in enumerate(program.parts):
            if number > 0:
                made = planned.region.run(blobs) if planned.region is not None else None
            if made is not None:
                blobs.update(made)
            else:
                self.run_body(planned.steps, blobs)
            for name in planned.frees:
                blobs.pop(name, None)
        return blobs

    def run_each(self, samples: Mapping[str, Array], outputs: Sequence[str]) -> BlobsOfEach | None:
        """Evaluate several samples in one call, on the threads that are free.

        Args:
            samples: of each blob those of all samples, float32 [n, ...] in one piece.
            outputs: the blobs wanted.

        Returns:
            the outputs of each sample; None where `run` has to evaluate them.
        """
        with at_most(self.threads), using(self.compiled):
            first = self._program(frozenset(outputs)).first
            if first is None or set(outputs) != {*first.shown}:
                return None
            return first.run_each(samples)

    def check_names(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> None:
        """Raise a `PredictionError` if the network lacks a wanted blob."""
        for name in outputs:
            if name not in self.blobs and name not in inputs:
                close = did_you_mean(name, sorted(self.blobs))
                raise PredictionError(f"the network has no blob {name!r}.{close}")

    def chosen(self, blobs: Blobs, outputs: Sequence[str]) -> dict[str, Array]:
        """The wanted blobs among all.

        Raises:
            PredictionError: one was not made.
        """
        for name in outputs:
            if name not in blobs:
                raise PredictionError(f"the blob {name!r} was not made: no layer that ran makes it")
        return {name: blobs[name] for name in outputs}

    def run_layers(self, places: Iterable[int], blobs: Blobs) -> None:
        """Evaluate some layers, by their places in the network, on blobs, in place."""
        with computing(self.threads, self.compiled):
            self.run_body([self._steps[place] for place in places], blobs)

    def _run(self, step: Step, blobs: Blobs) -> Ending:
        try:
            arguments = [blobs[name] for name in step.inputs]
        except KeyError as error:
            name = error.args[0]
            raise PredictionError(f"{step} reads {name!r}, which nothing before it makes") from None
        try:
            if step.kernel is None:
                return CONTROL_FLOW[step.params.kind](self, step, blobs)
            self._evaluate(step, step.kernel, arguments, blobs)
        except MlferryError as error:
            error.add_context(f"running {step}")
            raise
        return Ending.END

    def _evaluate(
        self, step: Step, kernel: Kernel, arguments: Sequence[Array], blobs: Blobs
    ) -> None:
        self._check(step, tuple([x.shape for x in arguments]))
        try:
            output = kernel(step.params, *arguments)
        except MlferryError:
            raise
        except Exception as error:
            shapes = ", ".join(str(x.shape) for x in arguments)
            raise PredictionError(
                f"inputs of shapes {shapes} do not fit this layer: {error}"
            ) from error
        results = output if isinstance(output, tuple) else (output,)
        if len(results) < len(step.outputs):
            raise PredictionError(
                f"the layer makes {len(results)} outputs; {len(step.outputs)} are named"
            )
        for name, array in zip(step.outputs, results, strict=False):
            blobs[name] = np.asarray(array, np.float32)

    def _check(self, step: Step, shapes: tuple[tuple[int, ...], ...]) -> None:
        """Check the inputs of a layer by its shape rule, once per set of shapes."""
        key = (id(step.params), shapes)
        if key not in self._checked:
            for shape in infer(step.params, shapes) or ():
                limits.check_blob(shape)
            if len(self._checked) == _CHECKED_MOST:
                self._checked.clear()
            self._checked.add(key)

    def run_body(self, steps: Iterable[Step], blobs: Blobs) -> Ending:
        """Run the steps of an inner network on the blobs of the outer one."""
        for step in steps:
            flow = self._run(step, blobs)
            if flow is not Ending.END:
                return flow
        return Ending.END

    def needed(self, outputs: frozenset[str], known: frozenset[str] = frozenset()) -> list[Step]:
        """The steps that the wanted blobs need, some blobs being given.

        A blob that is overwritten is still needed before, as the overwriting layer may be in a
        branch that is not taken.
        """
        needed = set(outputs - known)
        steps: list[Step] = []
        for step in reversed(self._steps):
            if needed & step.writes:
                needed |= step.reads - known
                steps.append(step)
        return steps[::-1]

    def layer_params(self, steps: Sequence[Step] | None = None) -> list[Params]:
        """The parameters of all layers, or of some, with those inside of branches and loops."""
        params: list[Params] = []
        for step in self._steps if steps is None else steps:
            params.append(step.params)
            for body in step.bodies:
                params += self.layer_params(body)
        return params

    def _program(self, outputs: frozenset[str], chains: bool = True) -> Program:
        """The steps that the wanted blobs need, each with the blobs that it is the last to use."""
        key = outputs, chains
        if key not in self._programs:
            steps = self.needed(outputs)
            with on_numpy():
                constants = self._folded(steps) if self.planned else {}
            left = [step for step in steps if not (step.outputs and step.writes <= set(constants))]
            parts = regions.scheduled(
                left,
                outputs,
                constants,
                planned=self.planned,
                winograd=self.winograd,
                chains=chains,
            )
            self._programs[key] = Program(constants, parts)
        return self._programs[key]

    def _folded(self, steps: Sequence[Step]) -> dict[str, Array]:
        """The outputs of layers that depend on constants only, computed once.

        Blobs that something else writes, or that are read before, are left alone; so are layers
        that refuse their inputs: their error is raised when they run.
        """
        folded = Blobs()
        seen: set[str] = set()
        several = regions.overwritten(steps)
        for step in steps:
            folds = step.kernel is not None and _is_constant(step) and folded.keys() >= step.reads
            if folds and not step.writes & (several | seen):
                with contextlib.suppress(MlferryError):
                    blobs = Blobs(folded)
                    self._run(step, blobs)
                    folded = blobs
            seen |= step.reads
        return folded


def _is_constant(step: Step) -> bool:
    """Whether a layer always gives the same outputs for the same inputs."""
    kind = step.params.kind
    return kind != "custom" and not kind.startswith(("random", "categorical"))


def _truth(blob: Array, step: Step) -> bool:
    if blob.size != 1:
        raise PredictionError(f"the condition of {step} is one number, not of shape {blob.shape}")
    return abs(float(blob.reshape(-1)[0])) > TRUE_ABOVE


def _branch(session: Session, step: Step, blobs: Blobs) -> Ending:
    """Run the first network if the input is true, otherwise the second, which may be empty."""
    if not step.inputs:
        raise SpecError("it needs an input, the condition")
    chosen = 0 if _truth(blobs[step.inputs[0]], step) else 1
    return session.run_body(step.bodies[chosen], blobs)


def _loop(session: Session, step: Step, blobs: Blobs) -> Ending:
    """Run a number of rounds, while a condition holds, or both.

    The condition network runs before each round and once more when the count ends the loop: its
    blobs are visible outside. An input replaces `maxLoopIterations`. With a condition and no input,
    a count of 0 means no limit.
    """
    p = step.params
    body = step.bodies[1]
    limit: int | None = p.maxLoopIterations
    if step.inputs:
        count = blobs[step.inputs[0]]
        if count.size != 1:
            raise PredictionError(f"the number of rounds has shape {count.shape}")
        limit = int(count.reshape(-1)[0])
    elif limit == 0 and p.conditionVar:
        limit = None
    rounds = itertools.count() if limit is None else range(limit)
    for _ in rounds:
        blobs.rounds += 1
        limits.check("rounds", blobs.rounds, "the rounds of its loops are")
        if not _goes_on(session, step, blobs) or session.run_body(body, blobs) is Ending.BREAK:
            return Ending.END
    _goes_on(session, step, blobs)
    return Ending.END


def _goes_on(session: Session, step: Step, blobs: Blobs) -> bool:
    """Run the condition network of a loop, if there is one, and return its answer."""
    name = step.params.conditionVar
    if not name:
        return True
    session.run_body(step.bodies[0], blobs)
    if name not in blobs:
        raise PredictionError(f"nothing makes the condition {name!r}")
    return _truth(blobs[name], step)


CONTROL_FLOW: dict[str, Callable[[Session, Step, Blobs], Ending]] = {
    "branch": _branch,
    "loop": _loop,
    "loopBreak": lambda session, step, blobs: Ending.BREAK,
    "loopContinue": lambda session, step, blobs: Ending.CONTINUE,
}


def _evaluating(instance: Instance) -> Kernel:
    """An object of yours as a kernel."""

    def kernel(_: Params, *inputs: Array) -> tuple[Array, ...]:
        return instance.evaluate(inputs)

    return kernel
