"""Users' conversion functions, and the custom layers that they make."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from google.protobuf.message import Message

from mlferry.converters import classic_functions, layout as layouts
from mlferry.converters.graph import Node
from mlferry.converters.unsupported import identifier, options
from mlferry.converters.values import CHANNELS_FIRST, SOURCE, Blob, Constant, Layout
from mlferry.custom import CUSTOM_LAYERS, LAYOUT_KEY, WEIGHTS_KEY, CustomLayerParams, Instance
from mlferry.errors import ConversionError, MlferryError
from mlferry.layers.trace import declare
from mlferry.numerics.shapes import Shape
from mlferry.spec import weights
from mlferry.spec.proto import neural_network_pb2 as nn

if TYPE_CHECKING:
    from mlferry.converters.lowering import Lowering

CustomFunction = Callable[..., Any]


class Trace:
    """`mlferry.trace`: use it as a conversion function to convert what a layer computes."""

    def __call__(self, *arguments: object) -> Any:
        """Explain that this is not a function.

        Raises:
            ConversionError: always.
        """
        raise ConversionError(
            "mlferry.trace is a value of custom_conversion_functions, not a function to call: "
            "custom_conversion_functions={'MyLayer': mlferry.trace}"
        )

    def __repr__(self) -> str:
        return "mlferry.trace"


def call_user(
    context: Lowering,
    node: Node,
    inputs: Sequence[Any],
    function: CustomFunction,
    channels_first: bool,
) -> tuple[Blob, ...]:
    """Convert a node with a user's function.

    The function takes one argument (the node) or two (the node and the builder), or has the
    signature of the framework's converter of 2018.
    """
    if classic_functions.is_classic(function, context.graph.framework):
        return _classic(context, node, inputs, function)
    inputs = offered(context, node, inputs)
    arity = _arity(function)
    if arity == 1:
        answer = _guarded(function, node)
        return add_custom(context, node, inputs, _as_params(answer, node, function), channels_first)
    if arity == 2:
        return _compose(context, node, inputs, function)
    raise ConversionError(
        f"{name_of(function)} takes {'no' if arity == 0 else arity} arguments. A conversion "
        "function takes the node, or the node and the builder:\n"
        f"    def convert_{identifier(node.op)}(node):\n"
        f"        return mlferry.CustomLayerParams(class_name={node.op!r}, parameters={{...}})"
    )


def _arity(function: CustomFunction) -> int:
    """The number of positional arguments that a function needs; keyword-only ones do not count."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return 1
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    needed = [p for p in parameters if p.kind in positional and p.default is p.empty]
    if any(p.kind == p.VAR_POSITIONAL for p in parameters):
        return max(1, len(needed))
    return len(needed) or min(1, sum(p.kind in positional for p in parameters))


def _guarded(function: CustomFunction, *arguments: object) -> Any:
    try:
        return function(*arguments)
    except MlferryError:
        raise
    except Exception as error:
        raise ConversionError(
            f"the conversion function {name_of(function)} raised {type(error).__name__}: {error}"
        ) from error


def _classic(
    context: Lowering, node: Node, inputs: Sequence[Any], function: CustomFunction
) -> tuple[Blob, ...]:
    """Call a function of 2018, which uses the source's names of values."""
    blobs = {
        value.name: context.source_order(x)
        for value, x in zip(node.inputs, inputs, strict=True)
        if isinstance(x, Blob)
    }
    results = {value.name: context.builder.unused_blob(value.name) for value in node.outputs}
    by_name = {blob.name: blob for blob in blobs.values()}

    def shapes_of(message: nn.CustomLayerParams, names: Sequence[str]) -> list[Shape] | None:
        values = [
            by_name.get(name) or Blob(name, context.builder.shapes.get(name)) for name in names
        ]
        return _custom_shapes(node, message, message, values, SOURCE)

    names = {name: blob.name for name, blob in blobs.items()} | results
    builder = classic_functions.ClassicBuilder(context.builder, names, shapes_of)
    framework = context.graph.framework
    classic_functions.run(function, node, builder, inputs, framework, _guarded)
    lacking = [name for name, blob in results.items() if blob not in context.builder.shapes]
    if lacking:
        raise ConversionError(
            f"{name_of(function)} made no value {lacking[0]!r}: the last layer that it adds writes "
            "the node's outputs"
        )
    return tuple(
        Blob(blob, context.builder.shapes[blob], SOURCE, node.name) for blob in results.values()
    )


def _compose(
    context: Lowering, node: Node, inputs: Sequence[Blob], function: CustomFunction
) -> tuple[Blob, ...]:
    """Call ``function(node, builder)``, which adds layers itself in the layout that it wants."""
    layout = layout_of(context, function)
    values = [layouts.arrange(context, x, layout) for x in inputs]
    names = [context.builder.unused_blob(value.name) for value in node.outputs]
    node.__dict__["input_names"] = [x.name for x in values]
    node.__dict__["mask_names"] = [x.name for x in mask_blobs(context, node)]
    node.__dict__["output_names"] = names
    _guarded(function, node, context.builder)
    lacking = [name for name in names if name not in context.builder.shapes]
    if lacking:
        raise ConversionError(
            f"{name_of(function)} made no blob {lacking[0]!r}; its last layer writes "
            "node.output_names:\n"
            "    builder.layer('activation', node.name, node.input_names, node.output_names, "
            "ReLU={})"
        )
    return tuple(Blob(name, context.builder.shapes[name], layout, node.name) for name in names)


F = TypeVar("F", bound=CustomFunction)


def channels_first(function: F) -> F:
    """Let a composed function ``(node, builder)`` have Core ML's own order of axes.

    Its inputs are then [batch, channels, height, width], as Core ML's layers compute, and so are
    its outputs: no transposes are needed around a `batchnorm`, say::

        @mlferry.channels_first
        def instance_normalization(node, builder):
            ...
    """
    function.__dict__["channels_first"] = True
    return function


def layout_of(context: Lowering, function: CustomFunction) -> Layout:
    """The layout that a composed function asks for; channels-first sources already have it."""
    asks = getattr(function, "channels_first", False)
    return CHANNELS_FIRST if asks and context.graph.channels_last else SOURCE


def _as_params(
    answer: object, node: Node, function: CustomFunction
) -> CustomLayerParams | nn.CustomLayerParams:
    if isinstance(answer, CustomLayerParams):
        return answer
    if isinstance(answer, Message) and answer.DESCRIPTOR.name == "CustomLayerParams":
        return nn.CustomLayerParams.FromString(answer.SerializeToString())
    raise ConversionError(
        f"{name_of(function)} returned {answer!r}; return mlferry.CustomLayerParams("
        f"class_name={node.op!r}, description='...', parameters={{...}})"
    )


def automatic(node: Node) -> CustomLayerParams:
    """A custom layer from the options and arrays of an unknown op.

    Parameters have the names that the suggested function gives them; other values are written as
    JSON, and arrays follow the weights.
    """
    parameters: dict[str, Any] = {}
    arrays: dict[str, Any] = dict(node.weights)
    for name, value, expression in options(node):
        if isinstance(value, np.ndarray):
            arrays[name] = value
        else:
            parameters[name] = value if expression else json.dumps(value, default=str)
    return CustomLayerParams(
        class_name=identifier(node.op),
        description=f"custom layer for {node.op} {node.name}",
        parameters=parameters,
        weights=arrays,
    )


def add_custom(
    context: Lowering,
    node: Node,
    inputs: Sequence[Blob],
    params: CustomLayerParams | nn.CustomLayerParams,
    channels_first: bool,
) -> tuple[Blob, ...]:
    """Add a custom layer; its data are in the source\'s order of axes, or channels-first."""
    if isinstance(params, CustomLayerParams):
        message = custom_message(params)
        first = params.channels_first or channels_first
    else:
        message, first = params, channels_first
    if not message.className:
        raise ConversionError("the custom layer has no class name")
    if node.elementwise:
        values = list(inputs)
        layout = values[0].layout
    else:
        # a channels-first source already has that order
        target = CHANNELS_FIRST if first and context.graph.channels_last else SOURCE
        values = [layouts.arrange(context, _unflattened(context, x), target) for x in inputs]
        layout = target
    if isinstance(params, CustomLayerParams):
        node.passes_mask = params.passes_mask
        values += _masks(context, node, params.takes_mask)
    else:
        values += _masks(context, node, None)
    shapes = _custom_shapes(node, params, message, values, layout)
    count = len(node.outputs)
    blobs = context.outputs(
        count, "custom", *values, layout=layout, output_shapes=shapes, **_fields(message)
    )
    layer = context.builder.network.layers[-1]
    input_shapes = [x.shape for x in values if x.shape is not None and None not in x.shape]
    if shapes and len(input_shapes) == len(values) and not any(None in shape for shape in shapes):
        declare(layer, input_shapes, shapes)
    name = layer.name
    if not node.elementwise:
        context.metadata[LAYOUT_KEY + name] = "channels first" if first else "source"
    return tuple(
        replace(
            blob,
            hidden_by=name,
            layout=SOURCE if blob.shape is not None and len(blob.shape) < 3 else blob.layout,
        )
        if blob.layout.kind != "flat"
        else blob
        for blob in blobs
    )


def mask_blobs(context: Lowering, node: Node) -> list[Blob]:
    """The masks of the inputs that have one, in the inputs' order."""
    outputs = [mask.blob(context) for mask in node.masks if mask is not None]
    return [blob for blob in outputs if blob is not None]


def _masks(context: Lowering, node: Node, takes: bool | None) -> list[Blob]:
    """The masks that a custom layer receives as additional inputs."""
    results = [mask for mask in node.masks if mask is not None]
    if takes is None and not all(mask.is_certain for mask in results):
        origins = ", ".join(repr(mask.origin) for mask in results)
        raise ConversionError(
            f"the mask of {origins} reaches this layer, and a file does not tell whether the "
            "layer computes with it. Say so in its conversion function: mlferry.CustomLayerParams"
            "(..., takes_mask=True) makes the mask a further input of the custom layer, "
            "takes_mask=False leaves it out"
        )
    return [] if takes is False else mask_blobs(context, node)


def _unflattened(context: Lowering, x: Blob) -> Blob:
    """A blob in its own order: custom layers never see permuted vectors."""
    return context.source_order(x) if x.layout.kind == "flat" else x


def _fields(message: nn.CustomLayerParams) -> dict[str, Any]:
    return {
        "className": message.className,
        "description": message.description,
        "parameters": dict(message.parameters),
        "weights": list(message.weights),
    }


def _custom_shapes(
    node: Node,
    params: CustomLayerParams | nn.CustomLayerParams,
    message: nn.CustomLayerParams,
    inputs: Sequence[Blob],
    layout: Layout,
) -> list[Shape] | None:
    """The output shapes from the function, the registered class, or the source, in this order."""
    if node.elementwise:
        return None if inputs[0].shape is None else [inputs[0].shape]
    shapes = [x.shape for x in inputs]
    fixed = [tuple(e for e in shape if e is not None) for shape in shapes if shape is not None]
    known = len(fixed) == len(shapes) and all(
        shape is not None and None not in shape for shape in shapes
    )
    declared = params.output_shapes if isinstance(params, CustomLayerParams) else None
    if declared is not None and not callable(declared):
        return _checked(declared, node)
    if declared is not None and known:
        return _checked(_guarded(declared, list(fixed)), node)
    entry = CUSTOM_LAYERS.find(message.className)
    if entry is not None and known:
        instance = Instance(node.name, entry.value, message, len(node.outputs))
        return list(instance.output_shapes(fixed))
    source = node.output_shapes
    if source is None:
        return None
    batch = next((s[0] for s in shapes if s), None)
    return [layout.to_blob((batch, *shape[1:]) if shape[0] is None else shape) for shape in source]


def _checked(shapes: Sequence[Sequence[int]], node: Node) -> list[Shape]:
    try:
        results = [tuple(int(extent) for extent in shape) for shape in shapes]
    except TypeError:
        raise ConversionError(
            f"output_shapes is {shapes!r}; it has one shape for each output: [(1, 30, 30, 1)]"
        ) from None
    if len(results) != len(node.outputs):
        raise ConversionError(f"{len(results)} output_shapes for {len(node.outputs)} outputs")
    return list(results)


def custom_message(params: CustomLayerParams) -> nn.CustomLayerParams:
    """The protobuf form of `CustomLayerParams`.

    Raises:
        ConversionError: a parameter is not a bool, int, float or str.
    """
    message = nn.CustomLayerParams(className=params.class_name, description=params.description)
    wrong = []
    for name, value in params.parameters.items():
        if not _set_parameter(message.parameters[name], value):
            wrong.append(f"{name}={value!r} ({type(value).__name__})")
    if wrong:
        raise ConversionError(
            f"parameters of a custom layer are bool, int, float or str, not {', '.join(wrong)}; "
            "write lists as text (json.dumps) or as weights"
        )
    if isinstance(params.weights, Mapping):
        arrays = {name: np.asarray(array) for name, array in params.weights.items()}
        if arrays:
            values = [{"name": name, "shape": list(array.shape)} for name, array in arrays.items()]
            message.parameters[WEIGHTS_KEY].stringValue = json.dumps(values)
    else:
        arrays = {str(index): np.asarray(array) for index, array in enumerate(params.weights)}
    for array in arrays.values():
        weights.write(message.weights.add(), array)
    return message


def _set_parameter(
    target: nn.CustomLayerParams.CustomLayerParamValue, value: float | str | Sequence[int]
) -> bool:
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, bool):
        target.boolValue = value
    elif isinstance(value, int) and -(2**31) <= value < 2**31:
        target.intValue = value
    elif isinstance(value, int) and -(2**63) <= value < 2**63:
        target.longValue = value
    elif isinstance(value, float):
        target.doubleValue = value
    elif isinstance(value, str):
        target.stringValue = value
    else:
        return False
    return True


def offered(context: Lowering, node: Node, inputs: Sequence[Any]) -> list[Blob]:
    """The blobs that a custom layer reads; constants become weights of the node."""
    constants = [x for x in inputs if isinstance(x, Constant)]
    if constants:
        node.weights = {**node.weights, **{x.name: x.array for x in constants}}
    blobs = [x for x in inputs if isinstance(x, Blob)]
    if not blobs:
        blobs = [context.stored(x) for x in constants[:1]]
    return blobs


def name_of(function: CustomFunction) -> str:
    """The name of a function, for messages."""
    return getattr(function, "__name__", repr(function))
