"""Products with a matrix of weights."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mlferry.converters.einsums import einsum, parsed
from mlferry.converters.graph import Node
from mlferry.converters.keras.ops.registry import op
from mlferry.converters.keras.quantization import QuantizedMatrix, matrix, mode
from mlferry.converters.lowering import Lowering
from mlferry.converters.operands import shaped
from mlferry.converters.slices import sliced
from mlferry.converters.values import SOURCE, Blob
from mlferry.errors import ConversionError
from mlferry.numerics.shapes import product


def projected(
    context: Lowering, x: Blob, node: Node, matrix: QuantizedMatrix, bias: ArrayLike | None = None
) -> Blob:
    """x @ matrix + bias along the last axis, of a blob of any rank.

    Args:
        x: [..., n], in the source's order of axes.
        node: whose weights these are.
        matrix: [n, m]; if stored in groups of rows, it becomes a sum of products.
        bias: of m values, in any shape, or None.
    """
    outer, (rows, columns) = x.known[:-1], matrix.floats.shape
    blob = x if x.rank <= 3 else context.reshape(x, (product(outer), rows), layout=SOURCE)
    if matrix.parts and context.rounds_activations and _rounds(node):
        blob = _rounded(context, blob)
    extra: dict[str, Any] = {} if bias is None else {"hasBias": True, "bias": np.ravel(bias)}
    parts: Any = matrix.parts or ((0, rows, np.ascontiguousarray(matrix.floats.T)),)
    output: Blob | None = None
    for first, last, weights in parts:
        part = blob
        if len(parts) > 1:
            part = sliced(context, blob, [first], [last], [-1], None)
        term = context.layer(
            "innerProduct",
            part,
            layout=SOURCE,
            inputChannels=last - first,
            outputChannels=columns,
            weights=weights,
            **extra,
        )
        output = term if output is None else context.layer("add", output, term, layout=SOURCE)
        extra = {}
    assert output is not None
    return output if x.rank <= 3 else context.reshape(output, (*outer, columns), layout=SOURCE)


def _rounds(node: Node) -> bool:
    """Whether the layer rounds its input to 8 bits, by its config or its mode."""
    quantization = node.get_config().get("quantization_config")
    if isinstance(quantization, dict) and isinstance(quantization.get("config"), dict):
        quantizer = quantization["config"].get("activation_quantizer")
        if quantizer is not None and quantizer.get("class_name") != "AbsMaxQuantizer":
            raise ConversionError(f"an activation_quantizer {quantizer.get('class_name')!r}")
        return quantizer is not None
    return mode(node.get_config()) == "int8"


def _rounded(context: Lowering, x: Blob) -> Blob:
    """Round each row to 255 steps of its largest magnitude."""
    size = context.emit("unary", x, type="ABS")
    most = context.reduce("reduceMax", size, (-1,))
    step = context.emit("activation", most, linear={"alpha": 1 / 127, "beta": 1e-7 / 127})
    scaled = context.divide(x, step)
    whole = context.emit("round", scaled)
    inside = context.emit("clip", whole, minVal=-127.0, maxVal=127.0)
    return context.multiply(inside, step)


@op("EinsumDense", layouts=(SOURCE,))
def einsum_dense(context: Lowering, node: Node, x: Blob) -> Blob:
    """An inner product if the equation is one, else a general product."""
    equation = node.attrs["equation"]
    term = equation.replace(" ", "").partition("->")[0].partition(",")[2]
    output = node.attrs.get("output_shape")
    output = list(output) if isinstance(output, list | tuple) else [output]
    bias = node.weight("bias") if node.attrs.get("bias_axes") else None
    (left, right), target = parsed(equation, [x.rank, len(term.replace("...", ""))])
    inner = [c for c in left if c in right]
    remaining = [c for c in left if c not in right]
    new = [c for c in right if c not in left]
    sizes = dict(zip(left, x.known, strict=True))
    kernel = node.weights.get("kernel")
    if kernel is not None and kernel.ndim == len(right) and mode(node.get_config()) != "int4":
        sizes |= dict(zip(right, kernel.shape, strict=True))
    else:  # a packed kernel has the sizes of input and output
        sizes |= {c: n for c, n in zip(target[::-1], output[::-1], strict=False) if n}
    outputs = [sizes.get(c) or 0 for c in new]
    rows = math.prod(sizes.get(c) or 0 for c in inner)
    plain = "".join(remaining + inner) == left and "".join(remaining + new) == target
    ordered = list(right) == inner + new and (bias is None or list(bias.shape) == outputs)
    if plain and remaining and ordered and rows and all(outputs):
        outer = x.known[: len(remaining)]
        weights = matrix(node, rows, math.prod(outputs))
        result = projected(context, shaped(context, x, (*outer, rows)), node, weights, bias)
        return shaped(context, result, (*outer, *outputs))
    if mode(node.get_config()):
        raise ConversionError(f"a quantized layer with the equation {equation!r}")
    result = einsum(
        context, f"{left},{right}->{target}", [x, context.constant(node.weight("kernel"))]
    )
    # the bias has the axes of the output from its own first one on
    if bias is None:
        return result
    return context.layer("addBroadcastable", result, context.constant(bias))
