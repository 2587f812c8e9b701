"""ONNX models to a `Graph`, with constants in ONNX's own types."""

from __future__ import annotations

import heapq
import math
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from mlferry import limits
from mlferry.converters import expansion
from mlferry.converters.graph import Attributes, Graph, Node, Value
from mlferry.errors import ConversionError, MissingDependencyError, ModelFileError
from mlferry.spec.shapes.rules import Shape

DEFAULT_DOMAINS = ("", "ai.onnx")
_INLINED = "mlferry.inlined"
_TENSOR, _GRAPH, _TENSORS, _GRAPHS = 4, 5, 9, 10


def claims(source: Any) -> bool:
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


def read(source: Any, keep: Collection[str] = ()) -> Graph:
    """An ONNX model as a graph.

    Args:
        source: a path, the bytes of a file, or a `ModelProto`.
        keep: names of ops and nodes that are not replaced by the body of a function.

    Raises:
        ModelFileError: the file is damaged or no ONNX model.
        ConversionError: the model is inconsistent, or of a newer opset than is known.
        MissingDependencyError: the onnx package is not installed.
    """
    model, name = _load(source)
    model = _inlined(model, keep)
    return _Reader(model, name, isinstance(source, str | os.PathLike)).graph()


def _load(source: Any) -> tuple[Any, str]:
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError as error:
        raise MissingDependencyError(
            "reading ONNX models needs the onnx package: pip install 'mlferry[onnx]'"
        ) from error
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        data = limits.read_message(path)
        name, folder = str(path), path.parent
    elif isinstance(source, bytes):
        data, name, folder = source, "the ONNX model", None
    else:
        model = onnx.ModelProto()
        model.CopyFrom(source)
        _check(model, "the ONNX model")
        _load_external(model, None, "the ONNX model")
        return model, "the ONNX model"
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except (DecodeError, RecursionError, ValueError) as error:
        raise ModelFileError(f"{name} is cut off, damaged, or no ONNX model: {error}") from error
    _check(model, name)
    _load_external(model, folder, name)
    return model, name


def _check(model: Any, name: str) -> None:
    import onnx

    if not model.HasField("graph") or not model.ir_version:
        raise ModelFileError(f"{name} is no ONNX model: it has no graph")
    newest = onnx.defs.onnx_opset_version()
    for opset in model.opset_import:
        if opset.domain in DEFAULT_DOMAINS and opset.version > newest:
            raise ConversionError(
                f"{name} uses opset {opset.version}; the installed onnx package knows opsets up "
                f"to {newest}: pip install --upgrade onnx"
            )


def _load_external(model: Any, folder: Path | None, name: str) -> None:
    """Read tensors kept in other files: those inside the model's folder only."""
    found = [tensor for tensor in _tensors(model) if tensor.external_data]
    if not found:
        return
    if folder is None:
        location = dict(_told(found[0])).get("location")
        raise ModelFileError(
            f"{name} keeps {found[0].name!r} in the file {location!r}: give the model's path"
        )
    parts = [_External(tensor, folder.resolve(), name) for tensor in found]
    wanted = sum(part.length for part in parts)
    limits.check_model(wanted)
    limits.check("weights", wanted, f"{name}: its tensors in other files take bytes:")
    sizes = sum({part.path: part.size for part in parts}.values())
    limits.check_growth(sizes, wanted, f"{name}: its tensors in other files overlap, and take")
    for part in parts:
        part.load()


def _told(tensor: Any) -> list[tuple[str, str]]:
    return [(entry.key, entry.value) for entry in tensor.external_data]


class _External:
    """Where the values of a tensor lie."""

    def __init__(self, tensor: Any, base: Path, model: str) -> None:
        told = dict(_told(tensor))
        self.tensor, self.model, self.location = tensor, model, told.get("location", "")
        try:
            self.path = (base / self.location).resolve()
            if not self.location or not self.path.is_relative_to(base):
                raise ModelFileError(
                    f"{model} keeps {tensor.name!r} in {self.location!r}, outside the model's "
                    "folder"
                )
            if not self.path.is_file():
                raise ModelFileError(f"cannot read {self.location} of {model}: there is no file")
            self.size = self.path.stat().st_size
            self.offset = int(told.get("offset", 0))
            self.length = int(told.get("length", self.size - self.offset))
        except (OSError, ValueError) as error:
            if isinstance(error, ModelFileError):
                raise
            raise ModelFileError(f"cannot read {self.location!r} of {model}: {error}") from error
        if self.offset < 0 or self.length < 0 or self.length > self.size - self.offset:
            raise ModelFileError(f"{self.location} is too short for {tensor.name!r} of {model}")

    def load(self) -> None:
        try:
            with self.path.open("rb") as stream:
                stream.seek(self.offset)
                self.tensor.raw_data = stream.read(self.length)
        except OSError as error:
            raise ModelFileError(f"cannot read {self.location} of {self.model}: {error}") from error
        del self.tensor.external_data[:]
        self.tensor.data_location = 0


_HOLD_TENSORS = ("GraphProto", "NodeProto", "AttributeProto", "FunctionProto", "TensorProto",
                 "SparseTensorProto", "ModelProto", "TrainingInfoProto")  # fmt: skip


def _tensors(message: Any) -> Iterator[Any]:
    """Every tensor of a model, wherever it hangs."""
    if message.DESCRIPTOR.name == "TensorProto":
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is None or field.message_type.name not in _HOLD_TENSORS:
            continue
        for item in [value] if hasattr(value, "DESCRIPTOR") else value:
            yield from _tensors(item)


class _Reader:
    def __init__(self, model: Any, source: str, is_file: bool) -> None:
        self.source, self.is_file, self.model = source, is_file, model
        self.opsets = {o.domain: o.version for o in model.opset_import} or {"": 1}

    def graph(self) -> Graph:
        proto = self.model.graph
        light = _inferred(_without_weights(self.model)).graph  # bodies know their types, too
        types = _types(self.model.graph, light)
        constants = {t.name: to_array(t, self.source) for t in proto.initializer}
        inputs = [_value(v.name, v.type) for v in proto.input if v.name not in constants]
        nodes = [node(item, types, self.source) for item in light.node]
        known = {v.name for v in inputs} | set(constants)
        nodes = _ordered(nodes, known, self.source)
        made = known | {v.name for item in nodes for v in item.outputs}
        for output in proto.output:
            if output.name not in made:
                raise ConversionError(f"{self.source}: nothing makes the output {output.name!r}")
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
        )


def _inlined(model: Any, keep: Collection[str]) -> Any:
    """The model with its own functions, and ops that are functions, replaced by their bodies."""
    import onnx.inliner

    own = {(f.domain, f.name) for f in model.functions}
    found = {
        (node.domain, node.op_type)
        for node in model.graph.node
        if node.op_type not in keep
        and f"{node.domain}.{node.op_type}" not in keep
        and node.name not in keep
        and ((node.domain, node.op_type) in own or _is_function(node, model))
    }
    if not found:
        return model
    _check_functions(model)
    try:
        prepared = _with_bodies(model, {name for name in found if name not in own})
        inlined = onnx.inliner.inline_local_functions(prepared, convert_version=True)
    except Exception as error:
        raise ConversionError(f"functions of the model cannot be inlined: {error}") from error
    return inlined if inlined == model else _inlined(inlined, keep)


def _check_functions(model: Any) -> None:
    """Refuse functions that call themselves, and those that would fill the memory.

    Raises:
        ConversionError: a function needs itself.
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


def _all_nodes(nodes: Any) -> Iterator[Any]:
    for item in nodes:
        yield item
        for attribute in item.attribute:
            if attribute.type == _GRAPH:
                yield from _all_nodes(attribute.g.node)


def _with_bodies(model: Any, wanted: Collection[tuple[str, str]]) -> Any:
    """The model with the bodies of function ops as functions of its own, one a node."""
    import onnx

    types = _types(model.graph, _inferred(_without_weights(model)).graph)
    result = onnx.ModelProto()
    result.CopyFrom(model)
    for index, node in enumerate(result.graph.node):
        if (node.domain, node.op_type) not in wanted:
            continue
        version = next((o.version for o in model.opset_import if o.domain == node.domain), 1)
        schema: Any = onnx.defs.get_schema(node.op_type, version, node.domain)
        body = onnx.FunctionProto()
        if schema.has_context_dependent_function:
            given = [types.get(name, onnx.TypeProto()).SerializeToString() for name in node.input]
            data = schema.get_context_dependent_function(node.SerializeToString(), given)
        else:
            data = schema.get_function_with_opset_version(version) or schema.function_body
        body.ParseFromString(data if isinstance(data, bytes) else data.SerializeToString())
        body.domain, body.name = _INLINED, f"{node.op_type}_{index}"
        if not body.opset_import:
            body.opset_import.extend(model.opset_import)
        result.functions.append(body)
        node.domain, node.op_type = _INLINED, body.name
    if not any(o.domain == _INLINED for o in result.opset_import):
        result.opset_import.append(onnx.helper.make_opsetid(_INLINED, 1))
    return result


def _is_function(node: Any, model: Any) -> bool:
    import onnx

    version = next((o.version for o in model.opset_import if o.domain == node.domain), 1)
    try:
        schema: Any = onnx.defs.get_schema(node.op_type, version, node.domain)
    except onnx.defs.SchemaError:
        return False
    return bool(schema.has_function or schema.has_context_dependent_function)


def _types(graph: Any, inferred: Any) -> dict[str, Any]:
    """The types of all values by name; what cannot be inferred stays unknown."""
    types = {v.name: v.type for v in (*inferred.value_info, *inferred.input, *inferred.output)}
    return types | {t.name: _type_of(t) for t in graph.initializer}


_SMALL = 1024  # values: what may be a shape


def _without_weights(model: Any) -> Any:
    """The model with inputs in the place of large tensors: inference copies it several times."""
    import onnx

    light = onnx.ModelProto(ir_version=model.ir_version)
    light.opset_import.extend(model.opset_import)
    light.functions.extend(model.functions)
    graph, result = model.graph, light.graph
    for field in ("node", "input", "output", "value_info", "sparse_initializer"):
        getattr(result, field).extend(getattr(graph, field))
    given = {v.name for v in graph.input}
    for tensor in graph.initializer:
        if math.prod(tensor.dims) <= _SMALL:
            result.initializer.append(tensor)
        elif tensor.name not in given:
            result.input.add(name=tensor.name).type.CopyFrom(_type_of(tensor))
    return light


def _inferred(model: Any) -> Any:
    import onnx

    try:
        return onnx.shape_inference.infer_shapes(model, check_type=False, strict_mode=False)
    except Exception:
        # inference is a help, not a judge: it also fails on models that runtimes accept
        return model


def _type_of(tensor: Any) -> Any:
    import onnx

    return onnx.helper.make_tensor_type_proto(tensor.data_type, list(tensor.dims))


def _value(name: str, kind: Any) -> Value:
    tensor = kind.tensor_type
    dtype = _dtype(tensor.elem_type)
    if not tensor.HasField("shape"):
        return Value(name, None, dtype)
    shape: Shape = tuple(
        d.dim_value if d.WhichOneof("value") == "dim_value" else None for d in tensor.shape.dim
    )
    return Value(name, shape, dtype)


def _dtype(elem_type: int) -> str:
    import onnx

    if elem_type == onnx.TensorProto.UNDEFINED:
        return "unknown"
    return _NAMES.get(elem_type) or str(onnx.TensorProto.DataType.Name(elem_type)).lower()


_NAMES = {1: "float32", 11: "float64", 10: "float16", 16: "bfloat16", 9: "bool", 8: "string"}


def to_array(tensor: Any, source: str) -> NDArray[Any]:
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
        raise ModelFileError(f"{source}: tensor {tensor.name!r} has another size than it says")
    return array


def node(proto: Any, types: Mapping[str, Any], source: str) -> Node:
    """A node with its attributes as Python values, tensors as arrays, graphs as they are."""
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
    )


def _attribute(attribute: Any, source: str) -> Any:
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


def captured(proto: Any) -> set[str]:
    """The values around a node that its subgraphs read."""
    found: set[str] = set()
    for attribute in proto.attribute:
        if attribute.type != _GRAPH:
            continue
        body = attribute.g
        local = {v.name for v in body.input} | {t.name for t in body.initializer} | {""}
        local |= {name for item in body.node for name in item.output}
        reads = {name for item in body.node for name in item.input}
        reads |= {v.name for v in body.output}
        for item in body.node:
            reads |= captured(item)
        found |= reads - local
    return found


def _ordered(nodes: Sequence[Node], known: set[str], source: str) -> list[Node]:
    """Nodes in an order in which every value is made before it is read.

    Raises:
        ConversionError: a node reads what nothing makes, or nodes depend on each other.
    """
    made = {v.name for item in nodes for v in item.outputs if v.name} | known | {""}
    for item in nodes:
        for name in [*(v.name for v in item.inputs), *sorted(captured(item.proto))]:
            if name not in made:
                raise ConversionError(f"{source}: {item} reads {name!r}, which nothing makes")
    makers = {v.name: index for index, item in enumerate(nodes) for v in item.outputs}
    waits: list[set[int]] = []
    readers: list[list[int]] = [[] for _ in nodes]
    for index, item in enumerate(nodes):
        reads = {v.name for v in item.inputs} | captured(item.proto)
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
