"""Ops that the installed TensorFlow does not know: a user's own, or those of tf.contrib.

TensorFlow does not import a graph that has one. So each such node is first replaced by a node of an
op that TensorFlow knows, with the same inputs and outputs, which carries the original. TensorFlow
freezes, inlines and infers around it; whoever reads the operations gets the node back.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlferry.converters.tensorflow.objects import (
    GraphDef,
    GraphOperation,
    NodeDef,
    OpDef,
    SavedModelMessage,
)
from mlferry.errors import ConversionError

_STAND_IN = "XlaCallModule"  # any inputs and outputs, with shapes that may be open
_RESULTS = "output"
_MARK = b"mlferry"
_FLOAT, _REFERENCE = 1, 100  # of TensorFlow's enum DataType
_MOST = 1 << 16  # the most inputs or outputs that one number may stand for
# The attributes in which ops name the type of outputs.
_TYPES = ("T", "Tout", "out_type", "dtype", "output_type")

Reference = tuple[str, str, int]  # node, name of its output (or nothing), number


def original(op: GraphOperation) -> Any:
    """The node that an operation replaces, or None for any other operation."""
    if op.type != _STAND_IN or list(op.get_attr("dim_args_spec")) != [_MARK]:
        return None
    from tensorflow.core.framework import node_def_pb2

    return node_def_pb2.NodeDef.FromString(op.get_attr("module"))


def replaced(
    graph: GraphDef, references: Iterable[str] = (), described: Mapping[str, Any] | None = None
) -> Any:
    """The graph with placeholders for unknown ops; the graph itself if TensorFlow knows all.

    Args:
        graph: a GraphDef, which is not changed.
        references: tensors that are read from outside.
        described: the definitions of unknown ops by name, if the file has them.

    Raises:
        ConversionError: the order of the outputs of a node is not known.
    """
    functions = {f.signature.name: f.signature for f in graph.library.function}
    if not _has_unknown(graph, functions):
        return graph
    result = type(graph)()
    result.CopyFrom(graph)
    definitions = _Definitions(functions, described or {})
    _Body(result.node, definitions, readers=[_in_graph(name) for name in references]).replace()
    for function in result.library.function:
        bindings = {arg.name: arg.type for arg in function.signature.input_arg}
        results = {arg.name: arg.type for arg in function.signature.output_arg}
        body = _Body(function.node_def, definitions, bindings, in_function=True)
        body.replace({name: (function.ret, results[name]) for name in function.ret})
    return result


@contextmanager
def readable(folder: Path, message: SavedModelMessage) -> Iterator[Path]:
    """A SavedModel folder that TensorFlow can load: a new one if it has unknown ops.

    Args:
        folder: of the SavedModel.
        message: what its file holds.
    """
    changed = False
    for graph in message.meta_graphs:
        options = {op.name: op for op in graph.meta_info_def.stripped_op_list.op}
        ends = [t.name for s in graph.signature_def.values() for t in s.outputs.values() if t.name]
        result = replaced(graph.graph_def, ends, options)
        if result is not graph.graph_def:
            graph.graph_def.CopyFrom(result)
            changed = True
    if not changed:
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="mlferry-") as name:
        other = Path(name)
        for item in folder.iterdir():
            if item.is_dir():
                _linked(item, other / item.name)
        (other / "saved_model.pb").write_bytes(message.SerializeToString())
        yield other


def _linked(folder: Path, target: Path) -> None:
    try:
        target.symlink_to(folder.resolve(), target_is_directory=True)
    except OSError:  # the system does not allow links
        shutil.copytree(folder, target)


def _has_unknown(graph: GraphDef, functions: Mapping[str, Any]) -> bool:
    known = _Definitions(functions, {})
    bodies = [graph.node, *(f.node_def for f in graph.library.function)]
    ops = {node.op for nodes in bodies for node in nodes}
    return any(known.is_unknown(op) for op in ops)


class _Definitions:
    """The inputs and outputs of ops: TensorFlow's own, functions of the file, and others."""

    def __init__(self, functions: Mapping[str, Any], described: Mapping[str, Any]) -> None:
        from tensorflow.python.framework import op_def_registry

        self._own = op_def_registry.get
        self._functions, self._described = functions, described

    def is_unknown(self, op: str) -> bool:
        """Whether TensorFlow does not know the op."""
        return op not in self._functions and self._own(op) is None

    def find(self, op: str) -> Any:
        """An OpDef, or None."""
        return self._functions.get(op) or self._own(op) or self._described.get(op)


class _Body:
    """The nodes of a graph or of a function, with the types of their outputs.

    Args:
        nodes: messages, which `replace` changes.
        definitions: of their ops.
        given: types of the arguments by name.
        readers: tensors that are read from outside.
        in_function: references have three parts.
    """

    def __init__(
        self,
        nodes: Sequence[NodeDef],
        definitions: _Definitions,
        given: Mapping[str, int] | None = None,
        readers: Sequence[Reference] = (),
        *,
        in_function: bool = False,
    ) -> None:
        self.nodes = {node.name: node for node in nodes}
        self.definitions, self.given = definitions, given or {}
        self.parse = _in_function if in_function else _in_graph
        self.read: dict[str, dict[tuple[str, int], int | None]] = {}
        for name, output, place in readers:
            self.read.setdefault(name, {})[output, place] = None
        self.outputs: dict[str, list[tuple[str, int]]] = {}

    def replace(self, results: Mapping[str, tuple[Any, int]] | None = None) -> None:
        """Replace unknown nodes by placeholders.

        Args:
            results: of a function: by name, the map that says which tensor it is, and its type.
        """
        unknown = [n for n in self.nodes.values() if self.definitions.is_unknown(n.op)]
        if not unknown:
            return
        self._look_at_readers(results or {})
        names = {node.name for node in unknown}
        inputs = {node.name: self._input_types(node) for node in unknown}
        for node in self.nodes.values():
            self._rename(node.input, range(len(node.input)), names)
        for name, (target, _) in (results or {}).items():
            self._rename(target, [name], names)
        for node in unknown:
            _write(node, inputs[node.name], [kind for _, kind in self._made(node)])

    def _look_at_readers(self, results: Mapping[str, tuple[Any, int]]) -> None:
        for node in self.nodes.values():
            definition = self.definitions.find(node.op)
            kinds = [] if definition is None else _expanded(node, definition.input_arg, definition)
            data = [text for text in node.input if not text.startswith("^")]
            for place, text in enumerate(data):
                self._note(text, kinds[place][1] if place < len(kinds) else None)
        for name, (target, kind) in results.items():
            self._note(target[name], kind)

    def _note(self, text: str, kind: int | None) -> None:
        name, output, place = self.parse(text)
        known = self.read.setdefault(name, {})
        known[output, place] = known.get((output, place)) or kind

    def _input_types(self, node: NodeDef) -> list[int]:
        return [self._type(self.parse(text)) for text in node.input if not text.startswith("^")]

    def _type(self, reference: Reference) -> int:
        name, output, place = reference
        if name in self.given:
            return self.given[name] % _REFERENCE
        if name not in self.nodes:
            return _FLOAT  # TensorFlow will report that it is missing
        result = self._made(self.nodes[name])
        index = _index(result, output, place)
        return result[index][1] if index < len(result) else _FLOAT

    def _made(self, node: NodeDef) -> list[tuple[str, int]]:
        """Name and type of each output of a node."""
        if node.name not in self.outputs:
            definition = self.definitions.find(node.op)
            self.outputs[node.name] = (
                self._guessed(node)
                if definition is None
                else _expanded(node, definition.output_arg, definition)
            )
        return self.outputs[node.name]

    def _guessed(self, node: NodeDef) -> list[tuple[str, int]]:
        """The outputs of an op without definition: those that are read, or given."""
        references = self.read.get(node.name, {})
        names = sorted({output for output, _ in references if output})
        if len(names) > 1:
            raise ConversionError(
                f"nothing defines the order of the outputs {', '.join(names)} of {node.op} "
                f"{node.name!r}, which the installed TensorFlow does not know. Convert a "
                "SavedModel, which describes its ops"
            )
        name = names[0] if names else ""
        shapes = node.attr["_output_shapes"].list.shape if "_output_shapes" in node.attr else ()
        count = max([1, len(shapes), *(place + 1 for _, place in references)])
        kinds = _declared_types(node, count)
        for (_, place), kind in references.items():
            kinds[place] = kind or kinds[place]
        return [(name, kind % _REFERENCE) for kind in kinds]

    def _rename(
        self, target: MutableMapping[Any, str], keys: Iterable[Any], names: set[str]
    ) -> None:
        """References of a function to outputs of replaced nodes, by number."""
        if self.parse is _in_graph:
            return
        for key in keys:
            text = target[key]
            name, output, place = self.parse(text)
            if name in names and not text.startswith("^") and ":" in text:
                index = _index(self._made(self.nodes[name]), output, place)
                target[key] = f"{name}:{_RESULTS}:{index}"


def _in_graph(text: str) -> Reference:
    """``name`` or ``name:1``"""
    name, _, place = text.lstrip("^").partition(":")
    return name, "", int(place) if place.isdigit() else 0


def _in_function(text: str) -> Reference:
    """An argument, or ``name:output:0``."""
    name, _, rest = text.lstrip("^").partition(":")
    output, _, place = rest.partition(":")
    return name, output, int(place) if place.isdigit() else 0


def _index(results: Sequence[tuple[str, int]], output: str, place: int) -> int:
    """The number of an output among all outputs of its node."""
    first = next((i for i, (name, _) in enumerate(results) if name == output), 0) if output else 0
    return first + place


def _expanded(node: NodeDef, args: Iterable[Any], definition: OpDef) -> list[tuple[str, int]]:
    """The name and type of each input or output that an op's arguments describe."""
    results: list[tuple[str, int]] = []
    for arg in args:
        if arg.type_list_attr:
            kinds = list(_attr(node, arg.type_list_attr, definition).list.type)
        else:
            kind = _attr(node, arg.type_attr, definition).type if arg.type_attr else arg.type
            count = _attr(node, arg.number_attr, definition).i if arg.number_attr else 1
            kinds = [kind] * min(max(count, 0), _MOST)
        results += [(arg.name, kind % _REFERENCE) for kind in kinds]
    return results


def _attr(node: NodeDef, name: str, definition: OpDef) -> Any:
    """An attribute of a node, or its default."""
    if name in node.attr:
        return node.attr[name]
    from tensorflow.core.framework import attr_value_pb2

    result = (attr.default_value for attr in definition.attr if attr.name == name)
    return next(result, attr_value_pb2.AttrValue())


def _declared_types(node: NodeDef, count: int) -> list[int]:
    """The types of outputs from a node's attributes; float32 if there are none."""
    lists = [value.list.type for value in node.attr.values() if value.list.type]
    fitting = next((list(kinds) for kinds in lists if len(kinds) == count), None)
    if fitting:
        return fitting
    single = {name: value.type for name, value in node.attr.items() if value.type}
    named = [single[name] for name in _TYPES if name in single] + list(single.values())
    return [named[0] if named else _FLOAT] * count


def _write(node: NodeDef, inputs: Sequence[int], outputs: Sequence[int]) -> None:
    """Replace a node by its placeholder."""
    serialize_to_string = node.SerializeToString()
    shapes = list(node.attr["_output_shapes"].list.shape) if "_output_shapes" in node.attr else []
    node.op = _STAND_IN
    node.attr.clear()
    node.attr["dim_args_spec"].list.s.append(_MARK)
    node.attr["module"].s = serialize_to_string
    node.attr["version"].i = 0
    node.attr["Tin"].list.type.extend(inputs)
    node.attr["Tout"].list.type.extend(outputs)
    for place in range(len(outputs)):
        shape = node.attr["Sout"].list.shape.add(unknown_rank=True)
        if len(shapes) == len(outputs):
            shape.CopyFrom(shapes[place])
