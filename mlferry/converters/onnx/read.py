"""Reads ONNX models as a `Graph`, with constants in ONNX's own types."""

from __future__ import annotations

import heapq
import math
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlferry import limits
from mlferry.converters import expansion
from mlferry.converters.graph import Attributes, Graph, Node, Value
from mlferry.converters.isolated import Refused, Worker
from mlferry.converters.onnx import element_types, native, storage, untyped
from mlferry.converters.onnx.storage import Arrays
from mlferry.errors import ConversionError, MissingDependencyError, MlferryError, ModelFileError
from mlferry.numerics.shapes import Array, Shape

if TYPE_CHECKING:
    import onnx

DEFAULT_DOMAINS = ("", "ai.onnx")
_TENSOR, _GRAPH, _TENSORS, _GRAPHS = 4, 5, 9, 10


def claims(source: object) -> bool:
    """Whether a source is an ONNX model: by its type, or by the content of the file."""
    if type(source).__name__ == "ModelProto":
        return True
    if isinstance(source, bytes):
        return True
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        return path.suffix.lower() in (".onnx", ".ort") or _looks_like_onnx(path)
    return False


def _looks_like_onnx(path: Path) -> bool:
    """An ONNX file starts with its IR version, a varint in field 1."""
    try:
        with path.open("rb") as stream:
            start = stream.read(2)
    except OSError:
        return False
    return len(start) == 2 and start[0] == 0x08 and 1 <= start[1] <= 64


def read(source: object, keep: Collection[str] = ()) -> Graph:
    """An ONNX model as a graph.

    Args:
        source: a path, the bytes of a file, or a `ModelProto`.
        keep: names of ops and nodes that the body of a function does not replace.

    Raises:
        ModelFileError: the file is damaged or not an ONNX model.
        ConversionError: the model is inconsistent, or of a newer opset than is known.
        MissingDependencyError: the onnx package is not installed.
    """
    is_file = isinstance(source, str | os.PathLike)
    isolated = limits.current().isolated
    name = str(source) if is_file else "the ONNX model"
    try:
        model, arrays = _load(source, name)
        untyped.complete(model, name)
        inferred = _prepared(model, keep, name, isolated)
        _check_layout(inferred.graph, keep, name)
        reader = _ModelReader(model, inferred.graph, name, is_file, isolated)
        return reader.graph(arrays)
    except MlferryError:
        raise
    except Exception as error:
        raise ModelFileError(f"{name} is inconsistent: {error!r:.400}") from error


def _load(source: Any, name: str) -> tuple[onnx.ModelProto, Arrays]:
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError as error:
        raise MissingDependencyError(
            "reading ONNX models needs the onnx package: pip install 'mlferry[onnx]'"
        ) from error
    if isinstance(source, str | os.PathLike):
        message, folder = storage.Message.read(Path(source)), Path(source).parent
    elif isinstance(source, bytes):
        message, folder = storage.Message(source), None
    else:
        model = onnx.ModelProto()
        model.CopyFrom(source)
        _check(model, name)
        return model, storage.arrays_of(model, None, None, name)
    model = onnx.ModelProto()
    try:
        model.ParseFromString(message.data)
    except (DecodeError, RecursionError, ValueError) as error:
        raise ModelFileError(
            f"{name} is cut off, damaged, or not an ONNX model: {error}"
        ) from error
    _check(model, name)
    return model, storage.arrays_of(model, message, folder, name)


def _check(model: onnx.ModelProto, name: str) -> None:
    import onnx

    if not model.HasField("graph") or not model.ir_version:
        raise ModelFileError(f"{name} is not an ONNX model: it has no graph")
    newest = onnx.defs.onnx_opset_version()
    for opset in model.opset_import:
        if opset.domain in DEFAULT_DOMAINS and opset.version > newest:
            raise ConversionError(
                f"{name} uses opset {opset.version}; the installed onnx package knows opsets up "
                f"to {newest}: pip install --upgrade onnx"
            )


class _ModelReader:
    def __init__(
        self,
        model: onnx.ModelProto,
        inferred: onnx.GraphProto,
        source: str,
        is_file: bool,
        isolated: bool,
    ) -> None:
        self.source, self.is_file, self.model = source, is_file, model
        self.inferred, self.isolated = inferred, isolated
        self.opsets = {o.domain: o.version for o in model.opset_import} or {"": 1}

    def graph(self, arrays: Arrays) -> Graph:
        """The graph; `arrays` are the initializers that stay in their files."""
        proto = self.model.graph
        light = self.inferred  # bodies also know their types
        types = _types(self.model.graph, light)
        element_types.complete(light, types, self.opsets)
        constants = {
            t.name: arrays[t.name] if t.name in arrays else to_array(t, self.source)
            for t in proto.initializer
        }
        inputs = [_input(v.name, v.type) for v in proto.input if v.name not in constants]
        nodes = [node(item, types, self.source) for item in light.node]
        known = {v.name for v in inputs} | set(constants)
        nodes = _ordered(nodes, known, self.source)
        results = known | {v.name for item in nodes for v in item.outputs}
        for output in proto.output:
            if output.name not in results:
                raise ConversionError(f"{self.source}: nothing makes the output {output.name!r}")
        nodes = _needed(nodes, [output.name for output in proto.output])
        opset = self.opsets.get("", self.opsets.get("ai.onnx", 1))
        values = {v.name: v for item in nodes for v in item.outputs}
        values |= {v.name: v for v in inputs}
        return Graph(
            source=self.source,
            framework="ONNX",
            version=opset,
            inputs=inputs,
            outputs=[(v.name, values.get(v.name, _value(v.name, v.type))) for v in proto.output],
            nodes=nodes,
            channels_last=False,
            release=f"opset {opset}",
            is_file=self.is_file,
            constants=constants,
            functions={(f.domain, f.name): f for f in self.model.functions},
            opsets=self.opsets,
            isolated=self.isolated,
        )


_ONNX = Worker(native.__file__, "the onnx package")
_BYTES_A_SECOND = 100_000  # bytes of nodes that add to the processor time of onnx
_COPIES = 8  # copies of a graph that onnx makes


def _prepared(model: onnx.ModelProto, keep: Collection[str], name: str, isolated: bool) -> Any:
    """Inline functions and ops that are functions but for those to keep, and infer shapes.

    The model is changed.
    """
    import onnx

    _check_functions(model)
    light = _without_weights(model)
    try:
        if isolated:
            inlined, inferred = onnx.ModelProto(), onnx.ModelProto()
            result = _ask(name, "prepare", sorted(keep), light)
            inlined.ParseFromString(result[0])
            inferred.ParseFromString(result[1])
        else:
            inlined, inferred = native.prepared(light, keep)
    except (native.CannotInline, Refused) as error:
        raise ConversionError(str(error)) from error
    if inlined != light:
        for field in ("node", "value_info"):
            target = getattr(model.graph, field)
            del target[:]
            target.extend(getattr(inlined.graph, field))
        for field in ("opset_import", "functions"):
            target = getattr(model, field)
            del target[:]
            target.extend(getattr(inlined, field))
    return inferred


_BLOCKED = "com.microsoft.nchwc"


def _check_layout(graph: onnx.GraphProto, keep: Collection[str], name: str) -> None:
    """Refuse models that onnxruntime has optimized for one kind of processor."""
    for item in graph.node:
        full = f"{item.domain}.{item.op_type}"
        if item.domain == _BLOCKED and not {full, item.name} & set(keep):
            raise ConversionError(
                f"{name} was optimized for one kind of processor: {full} {item.name!r} takes "
                "channels in its blocks. Write it again by onnxruntime with "
                "options.graph_optimization_level = "
                "onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED"
            )


def _ask(
    name: str, call: str, options: Sequence[str] | None, model: onnx.ModelProto
) -> list[bytes]:
    data = model.SerializeToString()
    seconds = limits.current().seconds + len(data) / _BYTES_A_SECOND
    return _ONNX.ask(name, call, options, [data], seconds, _COPIES * len(data))


def infer(model: onnx.ModelProto, name: str, isolated: bool) -> Any:
    """A model with the shapes of its values, including those that depend on small constants."""
    import onnx

    if not isolated:
        return native.inferred(model, data_prop=True)
    model_proto = onnx.ModelProto()
    try:
        model_proto.ParseFromString(_ask(name, "infer", None, model)[0])
    except Refused:
        return model
    return model_proto


def _check_functions(model: onnx.ModelProto) -> None:
    """Refuse functions that call themselves, and those that would fill the memory.

    Raises:
        ConversionError: a function calls itself.
        LimitError: there would be too many nodes.
    """
    bodies = {(f.domain, f.name): f.node for f in model.functions}
    calls = {
        key: [(item.domain, item.op_type) for item in _all_nodes(nodes)]
        for key, nodes in bodies.items()
    }
    main = [(item.domain, item.op_type) for item in _all_nodes(model.graph.node)]
    count = expansion.nodes(main, calls)
    limits.check("nodes", count, "with its functions inlined, the model has nodes:")


def _all_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[Any]:
    for item in nodes:
        yield item
        for attribute in item.attribute:
            if attribute.type == _GRAPH:
                yield from _all_nodes(attribute.g.node)


def _types(graph: onnx.GraphProto, inferred: onnx.GraphProto) -> dict[str, Any]:
    """The types of all values by name; those that cannot be inferred stay unknown."""
    types = {v.name: v.type for v in (*inferred.value_info, *inferred.input, *inferred.output)}
    return types | {t.name: _type_of(t) for t in graph.initializer}


_SMALL = 1024  # the most values of a shape


def _without_weights(model: onnx.ModelProto) -> Any:
    """The model with inputs in place of large tensors, as inference copies it several times."""
    import onnx

    light = onnx.ModelProto(ir_version=model.ir_version)
    light.opset_import.extend(model.opset_import)
    light.functions.extend(model.functions)
    graph, result = model.graph, light.graph
    for field in ("node", "input", "output", "value_info", "sparse_initializer"):
        getattr(result, field).extend(getattr(graph, field))
    names = {v.name for v in graph.input}
    for tensor in graph.initializer:
        if math.prod(tensor.dims) <= _SMALL:
            result.initializer.append(tensor)
        elif tensor.name not in names:
            result.input.add(name=tensor.name).type.CopyFrom(_type_of(tensor))
    return light


def _type_of(tensor: onnx.TensorProto) -> Any:
    import onnx

    return onnx.helper.make_tensor_type_proto(tensor.data_type, list(tensor.dims))


def _input(name: str, kind: onnx.TypeProto) -> Value:
    """An input of the model; some exporters write a free axis as an extent of 0 or -1."""
    value = _value(name, kind)
    shape = value.shape and tuple(None if n is None or n < 1 else n for n in value.shape)
    names = tuple(d.dim_param for d in kind.tensor_type.shape.dim)
    return replace(value, shape=shape, axes=names if any(names) else ())


def _value(name: str, kind: onnx.TypeProto) -> Value:
    tensor = kind.tensor_type
    dtype = _dtype(tensor.elem_type)
    if not tensor.HasField("shape"):
        return Value(name, None, dtype)
    shape: Shape = tuple(
        d.dim_value if d.WhichOneof("value") == "dim_value" and d.dim_value >= 0 else None
        for d in tensor.shape.dim
    )
    return Value(name, shape, dtype)


def _dtype(elem_type: int) -> str:
    import onnx

    if elem_type == onnx.TensorProto.UNDEFINED:
        return "unknown"
    return _NAMES.get(elem_type) or str(onnx.TensorProto.DataType.Name(elem_type)).lower()


_NAMES = {1: "float32", 11: "float64", 10: "float16", 16: "bfloat16", 9: "bool", 8: "string"}


def to_array(tensor: onnx.TensorProto, source: str) -> Array:
    """A tensor in ONNX's own type.

    Raises:
        ModelFileError: its bytes do not fit its shape.
    """
    import onnx

    if any(extent < 0 for extent in tensor.dims):
        raise ModelFileError(f"{source}: tensor {tensor.name!r} of shape {list(tensor.dims)}")
    if tensor.data_location:
        raise ModelFileError(f"{source}: tensor {tensor.name!r} is kept in another file")
    limits.check("weights", math.prod(tensor.dims), f"{source}: {tensor.name!r} has elements:")
    try:
        array = onnx.numpy_helper.to_array(tensor)
    except Exception as error:
        raise ModelFileError(
            f"{source}: the bytes of tensor {tensor.name!r} do not fit its shape "
            f"{list(tensor.dims)}: {error}"
        ) from error
    if array.shape != tuple(tensor.dims):
        raise ModelFileError(f"{source}: tensor {tensor.name!r} has a different size than it says")
    return array


def node(proto: onnx.NodeProto, types: Mapping[str, Any], source: str) -> Node:
    """A node with its attributes as Python values, tensors as arrays, and graphs unchanged."""
    name = proto.name or "_".join(output for output in proto.output if output) or proto.op_type
    domain = "" if proto.domain in DEFAULT_DOMAINS else proto.domain
    op = f"{domain}.{proto.op_type}" if domain else proto.op_type
    values = {
        key: _value(key, types[key]) if key in types else Value(key, None, "unknown")
        for key in (*proto.input, *proto.output)
    }
    attrs = {a.name: _attribute(a, source) for a in proto.attribute}
    return Node(
        op=op,
        name=name,
        inputs=tuple(values[key] for key in proto.input),
        outputs=tuple(values[key] for key in proto.output),
        attrs=Attributes(attrs),
        keys=tuple(dict.fromkeys((name, op, proto.op_type))),
        proto=proto,
        captures=frozenset(_captured(proto)),
    )


def _attribute(attribute: onnx.AttributeProto, source: str) -> Any:
    import onnx

    if attribute.ref_attr_name:
        raise ConversionError(f"{source}: attribute {attribute.name!r} refers to a function's")
    if attribute.type == _TENSOR:
        return to_array(attribute.t, source)
    if attribute.type == _TENSORS:
        return [to_array(t, source) for t in attribute.tensors]
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if attribute.type in (6, 7, 8):
        return [v.decode("utf-8", "replace") if isinstance(v, bytes) else v for v in value]
    return value


def _captured(proto: onnx.NodeProto) -> set[str]:
    """The values around a node that its subgraphs read."""
    results: set[str] = set()
    for attribute in proto.attribute:
        if attribute.type != _GRAPH:
            continue
        body = attribute.g
        local = {v.name for v in body.input} | {t.name for t in body.initializer} | {""}
        local |= {name for item in body.node for name in item.output}
        reads = {name for item in body.node for name in item.input}
        reads |= {v.name for v in body.output}
        for item in body.node:
            reads |= _captured(item)
        results |= reads - local
    return results


def _needed(nodes: Sequence[Node], outputs: Sequence[str]) -> list[Node]:
    """The nodes that an output of the model depends on."""
    names = set(outputs)
    remaining = []
    for item in reversed(nodes):
        if any(value.name in names for value in item.outputs if value.name):
            remaining.append(item)
            names |= {value.name for value in item.inputs} | item.captures
    return remaining[::-1]


def _ordered(nodes: Sequence[Node], known: set[str], source: str) -> list[Node]:
    """Nodes in an order in which every value exists before it is read."""
    results = {v.name for item in nodes for v in item.outputs if v.name} | known | {""}
    for item in nodes:
        for name in [*(v.name for v in item.inputs), *sorted(item.captures)]:
            if name not in results:
                raise ConversionError(f"{source}: {item} reads {name!r}, which nothing makes")
    makers = {v.name: index for index, item in enumerate(nodes) for v in item.outputs if v.name}
    waits: list[set[int]] = []
    readers: list[list[int]] = [[] for _ in nodes]
    for index, item in enumerate(nodes):
        reads = {v.name for v in item.inputs} | item.captures
        waits.append({makers[name] for name in reads if name in makers and name not in known})
        for maker in waits[index]:
            readers[maker].append(index)
    ready = [index for index, item in enumerate(waits) if not item]
    order: list[Node] = []
    while ready:
        index = heapq.heappop(ready)
        order.append(nodes[index])
        for reader in readers[index]:
            waits[reader].discard(index)
            if not waits[reader]:
                heapq.heappush(ready, reader)
    if len(order) < len(nodes):
        names = ", ".join(nodes[index].name for index, item in enumerate(waits) if item)
        raise ConversionError(f"{source}: nodes depend on each other: {names:.200}")
    return order
