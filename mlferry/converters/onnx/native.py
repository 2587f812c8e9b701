"""What the onnx package does in C++: inlining functions and inferring shapes.

It aborts on some hostile models. So untrusted files go through a separate process
(`mlferry.converters.worker`), which loads only this module; it imports nothing of mlferry.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx

INLINED = "mlferry.inlined"


class CannotInline(Exception):
    """The functions of a model do not fit together."""


def prepared(model: onnx.ModelProto, keep: Collection[str]) -> tuple[Any, Any]:
    """The model without functions, and the same with its shapes inferred.

    Raises:
        CannotInline: a function cannot be inlined.
    """
    model = inlined(model, keep)
    return model, inferred(model)


def inlined(model: onnx.ModelProto, keep: Collection[str]) -> Any:
    """The model with its own functions, and ops that are functions, replaced by their bodies."""
    import onnx.inliner

    own = {(f.domain, f.name) for f in model.functions}
    while True:
        results = {
            (node.domain, node.op_type)
            for graph in graphs(model.graph)
            for node in graph.node
            if node.op_type not in keep
            and f"{node.domain}.{node.op_type}" not in keep
            and node.name not in keep
            and ((node.domain, node.op_type) in own or _is_function(node, model))
        }
        if not results:
            return model
        try:
            ready = _with_bodies(model, {name for name in results if name not in own})
            result = onnx.inliner.inline_local_functions(ready, convert_version=True)
        except Exception as error:
            raise CannotInline(f"functions of the model cannot be inlined: {error}") from error
        if result == model:
            return model
        model, own = result, {(f.domain, f.name) for f in result.functions}


def graphs(graph: onnx.GraphProto) -> Iterator[Any]:
    """A graph and those in the attributes of its nodes: branches, and bodies of loops."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from graphs(inner)


def inferred(model: onnx.ModelProto, data_prop: bool = False) -> Any:
    """The model with the shapes of its values that onnx can infer."""
    import onnx.shape_inference

    try:
        return onnx.shape_inference.infer_shapes(
            model, check_type=False, strict_mode=False, data_prop=data_prop
        )
    except Exception:
        # inference only helps: it also fails on models that runtimes accept
        return model


def _with_bodies(model: onnx.ModelProto, keys: Collection[tuple[str, str]]) -> Any:
    """The model with the bodies of function ops as its own functions, one per node."""
    import onnx

    types: dict[str, Any] = {}
    for graph in graphs(inferred(model).graph):
        types |= {v.name: v.type for v in (*graph.value_info, *graph.input, *graph.output)}
        for tensor in graph.initializer:
            kind = onnx.helper.make_tensor_type_proto(tensor.data_type, list(tensor.dims))
            types[tensor.name] = kind
    result = onnx.ModelProto()
    result.CopyFrom(model)
    for index, node in enumerate([n for graph in graphs(result.graph) for n in graph.node]):
        if (node.domain, node.op_type) not in keys:
            continue
        version = next((o.version for o in model.opset_import if o.domain == node.domain), 1)
        schema: Any = onnx.defs.get_schema(node.op_type, version, node.domain)
        _spell_defaults(node, schema)
        body = onnx.FunctionProto()
        if schema.has_context_dependent_function:
            values = [types.get(name, onnx.TypeProto()).SerializeToString() for name in node.input]
            data = schema.get_context_dependent_function(node.SerializeToString(), values)
        else:
            data = schema.get_function_with_opset_version(version) or schema.function_body
        body.ParseFromString(data if isinstance(data, bytes) else data.SerializeToString())
        body.domain, body.name = INLINED, f"{node.op_type}_{index}"
        if not body.opset_import:
            body.opset_import.extend(model.opset_import)
        result.functions.append(body)
        node.domain, node.op_type = INLINED, body.name
    if not any(o.domain == INLINED for o in result.opset_import):
        result.opset_import.append(onnx.helper.make_opsetid(INLINED, 1))
    return result


def _spell_defaults(node: onnx.NodeProto, schema: onnx.defs.OpSchema) -> None:
    """Attributes that a node omits, with their defaults, as its body may refer to them."""
    names = {attribute.name for attribute in node.attribute}
    for name, attribute in schema.attributes.items():
        if name not in names and attribute.default_value.type:
            node.attribute.append(attribute.default_value)


def _is_function(node: onnx.NodeProto, model: onnx.ModelProto) -> bool:
    import onnx

    version = next((o.version for o in model.opset_import if o.domain == node.domain), 1)
    try:
        schema: Any = onnx.defs.get_schema(node.op_type, version, node.domain)
    except (onnx.defs.SchemaError, TypeError):  # unknown, or its version is not a 32-bit number
        return False
    return bool(schema.has_function or schema.has_context_dependent_function)


# ---- as a process ------------------------------------------------------------------------------


def _parsed(data: bytes) -> Any:
    import onnx

    model = onnx.ModelProto()
    model.ParseFromString(data)
    return model


def _prepare(keep: Collection[str], data: bytes) -> list[bytes]:
    return [m.SerializeToString() for m in prepared(_parsed(data), keep)]


def _infer(options: object, data: bytes) -> list[bytes]:
    return [inferred(_parsed(data), data_prop=True).SerializeToString()]


CALLS: dict[str, Callable[..., list[bytes]]] = {"prepare": _prepare, "infer": _infer}


def load() -> None:
    """Load libraries in advance, which takes time and memory."""
    import onnx.inliner
    import onnx.shape_inference  # noqa: F401 - loaded before memory is limited
