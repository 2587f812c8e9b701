"""Products with a matrix of weights."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlferry.converters.einsums import einsum, parsed
from mlferry.converters.graph import Node
from mlferry.converters.keras.ops.registry import op
from mlferry.converters.layout import SOURCE, Blob
from mlferry.converters.lower import Lowering
from mlferry.converters.operands import shaped
from mlferry.spec.shapes.rules import product


def projected(
    low: Lowering, x: Blob, node: Node, matrix: NDArray[np.float32], bias: Any = None
) -> Blob:
    """x @ matrix + bias along the last axis, of a blob of any rank.

    Args:
        low: the lowering.
        x: [..., n], in the source's order of axes.
        node: whose weights these are.
        matrix: [n, m].
        bias: of m values, in any shape, or None.
    """
    extra: dict[str, Any] = {} if bias is None else {"hasBias": True, "bias": np.ravel(bias)}
    outer = x.known[:-1]
    given = x if x.rank <= 3 else low.reshape(x, (product(outer), len(matrix)), layout=SOURCE)
    made = low.layer(
        "innerProduct", given, layout=SOURCE, inputChannels=matrix.shape[0],
        outputChannels=matrix.shape[1], weights=np.ascontiguousarray(matrix.T), **extra,
    )  # fmt: skip
    return made if x.rank <= 3 else low.reshape(made, (*outer, matrix.shape[1]), layout=SOURCE)


@op("EinsumDense", layouts=(SOURCE,))
def einsum_dense(low: Lowering, node: Node, x: Blob) -> Blob:
    """An inner product where the equation is one, the general way elsewhere."""
    equation = node.attrs["equation"]
    node.attrs.get("output_shape")
    kernel = node.weight("kernel")
    bias = node.weight("bias") if node.attrs.get("bias_axes") else None
    (left, right), wanted = parsed(equation, [x.rank, kernel.ndim])
    inner = [c for c in left if c in right]
    kept = [c for c in left if c not in right]
    new = [c for c in right if c not in left]
    sizes = dict(zip(right, kernel.shape, strict=True))
    outputs = tuple(sizes[c] for c in new)
    plain = "".join(kept + inner) == left and "".join(kept + new) == wanted
    if plain and kept and (bias is None or bias.shape == outputs):
        rows = int(np.prod([sizes[c] for c in inner]))
        matrix = kernel.transpose([right.index(c) for c in inner + new]).reshape(rows, -1)
        outer = x.known[: len(kept)]
        made = projected(low, shaped(low, x, (*outer, rows)), node, matrix, bias)
        return shaped(low, made, (*outer, *outputs))
    made = einsum(low, f"{left},{right}->{wanted}", [x, low.constant(kernel)])
    # the bias has the axes of the output from its own first one on
    return made if bias is None else low.layer("addBroadcastable", made, low.constant(bias))
