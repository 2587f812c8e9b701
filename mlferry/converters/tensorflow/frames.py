"""Translates conditions and loops of TensorFlow 1 to those of TensorFlow 2.

In TensorFlow 1 a `Switch` sends a value one of two ways and a `Merge` takes whatever arrives; a
loop is a frame, which values enter by `Enter`, repeat by `NextIteration` and leave by `Exit`. Here,
each `Merge` of two ways is the result of an `If`, and each frame is a `While`. Their branches and
bodies are parts of the same graph, from some of its tensors to others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from mlferry.converters.tensorflow.objects import GraphOperation, GraphTensor
from mlferry.errors import ConversionError

_SWITCH = {"Switch", "RefSwitch"}
_MERGE = {"Merge", "RefMerge"}
_ENTER, _EXIT, _NEXT = {"Enter", "RefEnter"}, {"Exit", "RefExit"}, {"NextIteration"}
LEGACY = frozenset(_SWITCH | _MERGE | _ENTER | _EXIT | _NEXT | {"LoopCond", "RefNextIteration"})

Way = tuple[str, int]  # a condition by its tensor's name, and the output of a Switch


@dataclass(frozen=True)
class FramePart:
    """A part of a graph, with the interface of a function's graph.

    Attributes:
        inputs: tensors that it starts from.
        outputs: tensors that it ends with.
    """

    inputs: list[Any]
    outputs: list[Any]


@dataclass(frozen=True)
class Whole:
    """An operation of TensorFlow 2 in place of several operations of TensorFlow 1.

    Attributes:
        op: "If" or "While".
        name: of the frame, or of the `Merge`.
        inputs: tensors.
        outputs: tensors; None for an output that nothing reads.
        parts: branches, or condition and body, by their names in "If" and "While".
    """

    op: str
    name: str
    inputs: list[Any]
    outputs: list[Any]
    parts: dict[str, FramePart]


def _behind(tensors: Iterable[Any], ends: set[str]) -> Iterator[Any]:
    """The operations that these tensors need, back to tensors that are ends."""
    done: set[str] = set()
    waiting = [t for t in tensors if t.name not in ends]
    while waiting:
        op = waiting.pop().op
        if op.name in done:
            continue
        done.add(op.name)
        yield op
        waiting += [t for t in op.inputs if t.name not in ends]


@dataclass
class Frames:
    """The conditions and loops of one graph.

    Attributes:
        source: of the graph, for messages.
    """

    source: str
    _found: dict[str, Whole] = field(default_factory=dict)
    _ways: dict[str, frozenset[Way]] = field(default_factory=dict)

    def whole(self, op: GraphOperation) -> Whole | None:
        """The condition or loop of which an operation is a result; None for any other operation.

        Raises:
            ConversionError: it is an unconnected part of a condition or a loop.
        """
        if op.type not in LEGACY:
            return None
        if op.name not in self._found:
            if op.type not in _EXIT | _MERGE:
                raise self._odd(op)
            self._found[op.name] = self._loop(op) if op.type in _EXIT else self._condition(op)
        return self._found[op.name]

    def _odd(self, op: GraphOperation) -> ConversionError:
        return ConversionError(
            f"{self.source}: {op.type} {op.name!r} is not part of a condition or loop that "
            "mlferry can follow; export the model again after tf.compat.v1.enable_control_flow_v2()"
        )

    # ---- loops -------------------------------------------------------------------------

    def _loop(self, op: GraphOperation) -> Whole:
        """The whole frame that an Exit leaves."""
        switch = op.inputs[0].op
        if switch.type not in _SWITCH or switch.inputs[1].op.type != "LoopCond":
            raise self._odd(op)
        condition = switch.inputs[1].op
        switches = [
            reader
            for reader in condition.outputs[0].consumers()
            if reader.type in _SWITCH and reader.inputs[0].op.type in _MERGE
        ]
        merges = [reader.inputs[0].op for reader in switches]
        enters, rounds = zip(*(self._entered(merge) for merge in merges), strict=True)
        frame = enters[0].get_attr("frame_name")
        ends = {t.name for merge in merges for t in merge.outputs}
        ends |= {t.name for reader in switches for t in reader.outputs}
        results = [condition.inputs[0], *(r.inputs[0] for r in rounds)]
        remaining = [
            inner.outputs[0]
            for inner in _behind(results, ends)
            if inner.type in _ENTER and inner.get_attr("frame_name") == frame
        ]
        inputs = [e.inputs[0] for e in enters] + [t.op.inputs[0] for t in remaining]
        exits = [
            next((r.outputs[0] for r in reader.outputs[0].consumers() if r.type in _EXIT), None)
            for reader in switches
        ]
        tested = FramePart([m.outputs[0] for m in merges] + remaining, [condition.inputs[0]])
        body = FramePart(
            [reader.outputs[1] for reader in switches] + remaining,
            [r.inputs[0] for r in rounds] + remaining,
        )
        return Whole(
            "While",
            condition.name,
            inputs,
            [*exits, *(None for _ in remaining)],
            {"cond": tested, "body": body},
        )

    def _entered(self, merge: GraphOperation) -> tuple[Any, Any]:
        """How a loop variable enters, and how it repeats."""
        enter = next((t.op for t in merge.inputs if t.op.type in _ENTER), None)
        around = next((t.op for t in merge.inputs if t.op.type in _NEXT), None)
        if enter is None or around is None:
            raise self._odd(merge)
        return enter, around

    # ---- conditions --------------------------------------------------------------------

    def _condition(self, merge: GraphOperation) -> Whole:
        """A value that comes from one of two branches."""
        if len(merge.inputs) != 2 or merge.outputs[1].consumers():
            raise self._odd(merge)
        first, second = (self._way(t) for t in merge.inputs)
        results = [(name, side) for name, side in first if (name, 1 - side) in second]
        if len(results) != 1:
            raise self._odd(merge)
        name, side = results[0]
        ways = list(merge.inputs)[:: 1 if side else -1]  # the way that is taken if true, the other
        graph = merge.graph
        condition = graph.get_tensor_by_name(name)
        bindings = {
            t.name: t
            for tensor, branch in zip(ways, (1, 0), strict=True)
            for t in self._ends(tensor, (name, branch))
        }
        tensors = list(bindings.values())
        operands = [t.op.inputs[0] if _is_switched(t.op, name) else t for t in tensors]
        then, otherwise = (FramePart(tensors, [tensor]) for tensor in ways)
        return Whole(
            "If",
            merge.name,
            [condition, *operands],
            [merge.outputs[0]],
            {"then_branch": then, "else_branch": otherwise},
        )

    def _ends(self, result: GraphTensor, way: Way) -> list[Any]:
        """The tensors from which a branch starts: switched ones, and those from outside."""
        entries: dict[str, Any] = {}
        waiting, done = [result], set()
        while waiting:
            tensor = waiting.pop()
            if tensor.name in done:
                continue
            done.add(tensor.name)
            if _is_switched(tensor.op, way[0]) or way not in self._way(tensor):
                entries[tensor.name] = tensor
                continue
            inner = self.whole(tensor.op)
            waiting += tensor.op.inputs if inner is None else inner.inputs
        return list(entries.values())

    def _way(self, tensor: GraphTensor) -> frozenset[Way]:
        """The conditions under which a tensor has a value."""
        if tensor.name not in self._ways:
            self._walk(tensor)
        return self._ways[tensor.name]

    def _walk(self, tensor: GraphTensor) -> None:
        """Find the conditions of all that a tensor needs; no recursion, as graphs may be deep."""
        waiting: list[tuple[Any, bool]] = [(tensor.op, False)]
        while waiting:
            op, ready = waiting.pop()
            if _ran(op) in self._ways:
                continue
            if ready:
                self._note(op)
                continue
            waiting.append((op, True))
            before = [*(t.op for t in _data(op)), *op.control_inputs]
            waiting += [(other, False) for other in before if _ran(other) not in self._ways]

    def _note(self, op: GraphOperation) -> None:
        data = [self._ways[t.name] for t in _data(op)]
        whole = _merged(data) if op.type in _MERGE and len(data) > 1 else _union(data)
        whole |= _union(self._ways[_ran(other)] for other in op.control_inputs)
        self._ways[_ran(op)] = whole
        is_switch = op.type in _SWITCH and op.inputs[1].op.type != "LoopCond"
        for place, tensor in enumerate(op.outputs):
            way = {(_shown(op.inputs[1]).name, place)} if is_switch else set()
            self._ways[tensor.name] = whole | way


def _shown(tensor: GraphTensor) -> Any:
    """Look through identities."""
    while tensor.op.type == "Identity":
        tensor = tensor.op.inputs[0]
    return tensor


def _is_switched(op: GraphOperation, condition: str) -> bool:
    return op.type in _SWITCH and _shown(op.inputs[1]).name == condition


def _ran(op: GraphOperation) -> str:
    """A name that says an operation has run; no tensor has it."""
    return f"^{op.name}"


def _data(op: GraphOperation) -> list[Any]:
    """The inputs of an operation, except for those that a loop repeats."""
    inputs = list(op.inputs)
    return [t for t in inputs if t.op.type not in _NEXT] if op.type in _MERGE else inputs


def _union(ways: Iterable[frozenset[Way]]) -> frozenset[Way]:
    return frozenset().union(*ways)


def _merged(ways: list[frozenset[Way]]) -> frozenset[Way]:
    """The conditions of a value from either branch: those of both, except for the branch's own."""
    first, second = ways[0], _union(ways[1:])
    own = {(name, side) for name, side in first if (name, 1 - side) in second}
    return (first | second) - own - {(name, 1 - side) for name, side in own}
