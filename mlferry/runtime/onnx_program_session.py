"""A function of an ML Program run by onnxruntime, through the exporter.

Operations that ONNX cannot express, that draw random values or that give labels stay on NumPy: the
program is split there. Compiled parts are kept per set of input shapes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mlferry.errors import MlferryError, PredictionError
from mlferry.exporters.onnx.program_parts import ProgramPart, Source, split
from mlferry.onnx_graph.graph import serialized
from mlferry.programs.arguments import name_of
from mlferry.programs.types import StateType, TensorType, ValueType
from mlferry.programs.values import Weights
from mlferry.runtime.onnx_session import (
    check_rounds,
    import_onnxruntime,
    inference_session,
    rounds_now,
)
from mlferry.runtime.program_session import ProgramSession, Scope, State, Values
from mlferry.spec.proto import mil_pb2 as mil

_PLANS_MOST = 16  # sets of shapes for which compiled parts are kept
_SEEN_LEAST = 3  # sets of shapes after which extents are left open
Key = tuple[tuple[tuple[str, tuple[int, ...]], ...], tuple[str, ...]]


@dataclass(frozen=True)
class CompiledProgramPart:
    """A part as an onnxruntime session.

    Attributes:
        part: what runs.
        session: the `InferenceSession`.
        dtypes: NumPy's types of the inputs of the graph.
        kinds: what runs here, for messages.
    """

    part: ProgramPart
    session: Any
    dtypes: Mapping[str, str]
    kinds: str

    def run(self, values: Mapping[str, Any]) -> list[Any]:
        """The outputs, then the states, for values by the names of the program."""
        feeds = {
            port: np.ascontiguousarray(values[name], self.dtypes[port])
            for name, port in self.part.inputs.items()
            if port in self.dtypes
        }
        names = [*self.part.outputs.values(), *self.part.states.values()]
        try:
            outputs: list[Any] = self.session.run(names, feeds)
        except Exception as error:
            check_rounds(error)
            shapes = ", ".join(f"{name} {x.shape}" for name, x in feeds.items())
            raise PredictionError(
                f"onnxruntime cannot evaluate {self.kinds} for {shapes}: {error}\n"
                'MLModel(..., engine="numpy") names the operation'
            ) from error
        return outputs


class OnnxProgramSession(ProgramSession):
    """A function of a program, evaluated by onnxruntime.

    Args:
        function: its message.
        weights: the files of its constants.
        precision: as for `ProgramSession`.
        seed: of random ops, which NumPy evaluates.
        threads: how many onnxruntime uses; None is as many as there are cores.

    Raises:
        MissingDependencyError: onnx or onnxruntime is not installed.
        SpecError: the function breaks the rules of the format.
    """

    def __init__(
        self,
        function: mil.Function,
        weights: Weights,
        *,
        precision: str = "half",
        seed: int | None = None,
        threads: int | None = None,
    ) -> None:
        import_onnxruntime()
        super().__init__(function, weights, precision=precision, seed=seed, threads=threads)
        self._source = Source(function, weights, precision, rounds_now())
        self._made = self.types()
        self._compiled: dict[Key, list[CompiledProgramPart | ProgramPart]] = {}
        self._opened: dict[tuple[str, ...], list[CompiledProgramPart | ProgramPart]] = {}

    def run(
        self,
        values: Mapping[str, Any],
        outputs: Sequence[str] | None = None,
        state: State | None = None,
    ) -> dict[str, Any]:
        """The values of some outputs, or of any values inside; see `ProgramSession.run`."""
        scope = self._started(values, state)
        names = tuple(self.outputs if outputs is None else outputs)
        chain = Scope({**self._plan.constants, **scope}, None)
        with np.errstate(all="ignore"):
            for part in self._parts(scope, names):
                if isinstance(part, CompiledProgramPart):
                    self._evaluate(part, chain)
                else:
                    for place in part.places:
                        self._operate(self._plan.operations[place], chain)
        return self._chosen(chain.values, names)

    def on_numpy(
        self, values: Mapping[str, Any], outputs: Sequence[str] | None = None
    ) -> list[str]:
        """The operations that NumPy evaluates for some inputs, as "op 'name'"."""
        names = tuple(self.outputs if outputs is None else outputs)
        return [
            str(self._plan.operations[place])
            for part in self._parts(self._started(values, None), names)
            if isinstance(part, ProgramPart)
            for place in part.places
        ]

    def _evaluate(self, compiled: CompiledProgramPart, chain: Scope) -> None:
        inputs = {
            name: chain.values[name].value if name in self.states else chain.find(name)
            for name in compiled.part.inputs
        }
        results = compiled.run(inputs)
        count = len(compiled.part.outputs)
        for name, value in zip(compiled.part.outputs, results[:count], strict=True):
            kind = self._made[name]
            assert isinstance(kind, TensorType)
            chain.values[name] = self._fitted(name, kind, value)
        for name, value in zip(compiled.part.states, results[count:], strict=True):
            cell = chain.values[name]
            if value.shape != cell.value.shape:
                raise PredictionError(
                    f"the state {name!r} of shape {cell.value.shape} gets shape {value.shape}"
                )
            cell.value = value.astype(cell.value.dtype)

    # ---- parts -------------------------------------------------------------------------------

    def _parts(
        self, scope: Values, outputs: tuple[str, ...]
    ) -> list[CompiledProgramPart | ProgramPart]:
        """The parts that make some values, compiled for the shapes of the inputs.

        After several sets of shapes they are compiled once more with open extents and kept for all
        shapes, unless this leaves more of them to NumPy.
        """
        if self._source.most_rounds != rounds_now():
            self._source = replace(self._source, most_rounds=rounds_now())
            self._compiled, self._opened = {}, {}
        shapes = tuple((name, np.shape(scope[name])) for name in self.inputs)
        key = shapes, outputs
        if key in self._compiled:
            return self._compiled[key]
        if outputs in self._opened:
            return self._opened[outputs]
        inputs = {name: _with_shape(kind, dict(shapes)[name]) for name, kind in self.inputs.items()}
        parts = self._planned(inputs, outputs)
        if len(self._compiled) == _PLANS_MOST:
            del self._compiled[next(iter(self._compiled))]
        self._compiled[key] = parts
        if sum(others == outputs for _, others in self._compiled) >= _SEEN_LEAST:
            self._open(outputs, parts)
        return parts

    def _open(
        self, outputs: tuple[str, ...], last: list[CompiledProgramPart | ProgramPart]
    ) -> None:
        try:
            general = self._planned(self.inputs, outputs)
        except MlferryError:  # a size has to be known somewhere: those of its own serve
            return
        if [type(part) for part in general] == [type(part) for part in last]:
            self._opened[outputs] = general

    def _planned(
        self, inputs: Mapping[str, ValueType], outputs: Sequence[str]
    ) -> list[CompiledProgramPart | ProgramPart]:
        operations = self._source.operations
        parts: list[CompiledProgramPart | ProgramPart] = []
        states: dict[str, StateType] = {
            name: kind for name, kind in self.states.items() if isinstance(kind, StateType)
        }
        for part in split(self._source, {**inputs, **states}, outputs):
            if part.graph is None:
                parts.append(part)
                continue
            kinds = [f"{operations[i].type} {name_of(operations[i])!r}" for i in part.places]
            description = ", ".join(kinds if len(kinds) <= 3 else (kinds[0], "...", kinds[-1]))
            session = inference_session(serialized(part.graph.message()), description, self.threads)
            dtypes = {port.name: port.dtype for port in part.graph.inputs}
            parts.append(CompiledProgramPart(part, session, dtypes, description))
        return parts


def _with_shape(kind: ValueType, shape: tuple[int, ...]) -> ValueType:
    return TensorType(kind.dtype, shape) if isinstance(kind, TensorType) else kind
