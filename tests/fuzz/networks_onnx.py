"""Random ONNX graphs."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tests.fuzz import halves
from tests.fuzz.network import Half, Network, Oracle

OPSET = 18
Array = np.ndarray[Any, Any]


class Graph:
    """A graph that grows node by node; what does not fit is taken back."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.values = np.random.default_rng(rng.randrange(1 << 32))
        rank = rng.choice((1, 2, 3, 4, 4, 4))
        self.shapes: dict[str, tuple[int, ...]] = {"x": self.extents(rank)}
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def extents(self, rank: int) -> tuple[int, ...]:
        return tuple(self.rng.choice((1, 2, 3, 4, 5, 8)) for _ in range(rank))

    def constant(self, array: Any, kind: Any = np.float32) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array, kind), name))
        return name

    def normal(self, *shape: int) -> str:
        return self.constant(self.values.standard_normal(shape))

    def ints(self, *values: int) -> str:
        return self.constant(np.array(values), np.int64)

    def pick(self, *, rank: int | None = None) -> str:
        """A value of the graph, rather a late one."""
        known = [n for n, s in self.shapes.items() if rank is None or len(s) == rank]
        return known[-1] if self.rng.random() < 0.8 else self.rng.choice(known)

    def node(self, op: str, *inputs: str, **attributes: Any) -> None:
        """Add a node where onnx says that it is one; unsupported values are left out."""
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], f"n{name}", **attributes))
        try:
            actual = onnx.shape_inference.infer_shapes(self.model(name), strict_mode=True,
                                                      data_prop=True)  # fmt: skip
            tensor = actual.graph.output[0].type.tensor_type
            shape = tuple(d.dim_value for d in tensor.shape.dim)
            fits = len(shape) <= 5 and all(shape) and np.prod(shape) < 1 << 14
        except Exception:
            fits = False
        if fits and tensor.HasField("shape") and tensor.elem_type == 1:
            self.shapes[name] = shape
        else:
            self.nodes.pop()

    def model(self, *outputs: str) -> Any:
        graph = helper.make_graph(
            self.nodes, "g", [helper.make_tensor_value_info("x", 1, self.shapes["x"])],
            [helper.make_tensor_value_info(name, 1, None) for name in outputs], self.constants,
        )  # fmt: skip
        return helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8
        )


Step = Callable[[Graph], None]


def unary(op: str, **attributes: Any) -> Step:
    return lambda g: g.node(op, g.pick(), **{k: g.rng.choice(v) for k, v in attributes.items()})


def binary(op: str) -> Step:
    def step(g: Graph) -> None:
        x = g.pick()
        shape = g.shapes[x]
        if g.rng.random() < 0.4:
            same = [n for n, s in g.shapes.items() if s == shape]
            other = g.rng.choice(same)
        else:
            kept = shape[g.rng.randrange(len(shape) + 1) :]
            other = g.normal(*(n if g.rng.random() < 0.6 else 1 for n in kept))
        pair = (x, other) if g.rng.random() < 0.7 else (other, x)
        g.node(op, *pair)

    return step


def axis_of(g: Graph, x: str) -> int:
    rank = len(g.shapes[x])
    return g.rng.randrange(-rank, rank)


def along(op: str, **attributes: Any) -> Step:
    def step(g: Graph) -> None:
        x = g.pick()
        g.node(op, x, axis=axis_of(g, x), **attributes)

    return step


def reduced(op: str) -> Step:
    def step(g: Graph) -> None:
        x = g.pick()
        rank = len(g.shapes[x])
        axes = g.rng.sample(range(rank), g.rng.randint(1, rank))
        keep = g.rng.randrange(2) if len(axes) < rank else 1
        g.node(op, x, g.ints(*axes), keepdims=keep)

    return step


def transpose(g: Graph) -> None:
    x = g.pick()
    perm = list(range(len(g.shapes[x])))
    g.rng.shuffle(perm)
    g.node("Transpose", x, perm=perm)


def reshape(g: Graph) -> None:
    x = g.pick()
    size = int(np.prod(g.shapes[x]))
    shape: list[int] = []
    for _ in range(g.rng.randint(0, 3)):
        divisors = [n for n in range(1, size + 1) if size % n == 0]
        shape.append(g.rng.choice(divisors))
        size //= shape[-1]
    shape.insert(g.rng.randint(0, len(shape)), g.rng.choice((size, -1)))
    g.node("Reshape", x, g.ints(*shape))


def squeeze(g: Graph) -> None:
    x = g.pick()
    ones = [i for i, n in enumerate(g.shapes[x]) if n == 1]
    if ones and len(ones) < len(g.shapes[x]):
        g.node("Squeeze", x, g.ints(*g.rng.sample(ones, g.rng.randint(1, len(ones)))))


def unsqueeze(g: Graph) -> None:
    x = g.pick()
    rank = len(g.shapes[x])
    g.node("Unsqueeze", x, g.ints(g.rng.randrange(-rank - 1, rank + 1)))


def slice_(g: Graph) -> None:
    x = g.pick()
    axis = axis_of(g, x)
    extent = g.shapes[x][axis]
    step = g.rng.choice((1, 1, 2, -1, -2, 3))
    ends = (g.rng.randint(-extent - 1, extent), g.rng.choice((extent, 2**31 - 1, -1, -(2**31))))
    start, end = ends if step > 0 else ends[::-1]
    g.node("Slice", x, g.ints(start), g.ints(end), g.ints(axis), g.ints(step))


def concat(g: Graph) -> None:
    x = g.pick()
    axis = axis_of(g, x)
    shape = list(g.shapes[x])
    shape[axis] = g.rng.randint(1, 3)
    others = [x, g.normal(*shape)]
    g.rng.shuffle(others)
    g.node("Concat", *others, axis=axis)


def gather(g: Graph) -> None:
    x = g.pick()
    axis = axis_of(g, x)
    extent = g.shapes[x][axis]
    count = g.rng.choice(((), (1,), (2,), (2, 2)))
    indices = g.values.integers(-extent, extent, count)
    g.node("Gather", x, g.constant(indices, np.int64), axis=axis)


def gather_elements(g: Graph) -> None:
    x = g.pick()
    axis = axis_of(g, x)
    extent = g.shapes[x][axis]
    indices = g.values.integers(-extent, extent, g.shapes[x])
    g.node("GatherElements", x, g.constant(indices, np.int64), axis=axis)


def pad(g: Graph) -> None:
    x = g.pick()
    mode = g.rng.choice(("constant", "constant", "reflect", "edge"))
    amounts = [g.rng.choice((0, 0, 1, 2)) for _ in g.shapes[x] * 2]
    if mode == "reflect":
        extents = g.shapes[x] * 2
        amounts = [min(a, n - 1) for a, n in zip(amounts, extents, strict=True)]
    value = [g.constant(g.rng.choice((0.0, 1.5)))] if mode == "constant" else []
    g.node("Pad", x, g.ints(*amounts), *value, mode=mode)


def tile(g: Graph) -> None:
    x = g.pick()
    g.node("Tile", x, g.ints(*(g.rng.choice((1, 1, 2, 3)) for _ in g.shapes[x])))


def expand(g: Graph) -> None:
    x = g.pick()
    shape = [g.rng.choice((2, 3)) if n == 1 else g.rng.choice((n, 1)) for n in g.shapes[x]]
    g.node("Expand", x, g.ints(*[1] * g.rng.randrange(2), *shape))


def clip(g: Graph) -> None:
    low = g.constant(g.rng.uniform(-2, 0)) if g.rng.random() < 0.7 else ""
    high = g.constant(g.rng.uniform(0, 2)) if g.rng.random() < 0.7 else ""
    g.node("Clip", g.pick(), low, high)


def matmul(g: Graph) -> None:
    x = g.pick()
    shape = g.shapes[x]
    other = g.normal(shape[-1], g.rng.randint(1, 5))
    g.node("MatMul", x, other)


def gemm(g: Graph) -> None:
    x = g.pick()
    shape = g.shapes[x]
    if len(shape) != 2:
        return
    across, flip = g.rng.randrange(2), g.rng.randrange(2)
    inner, out = shape[1 - across], g.rng.randint(1, 5)
    other = g.normal(*((out, inner) if flip else (inner, out)))
    bias = [g.normal(*g.rng.choice(((out,), (1, out), (shape[across], out), (1,))))]
    g.node("Gemm", x, other, *bias[: g.rng.randrange(2)], transA=across, transB=flip,
           alpha=g.rng.choice((1.0, 0.5)), beta=g.rng.choice((1.0, 2.0)))  # fmt: skip


def _image(g: Graph) -> tuple[str, tuple[int, ...]] | None:
    known = [n for n, s in g.shapes.items() if len(s) in (3, 4)]
    if not known:
        return None
    return known[-1], g.shapes[known[-1]]


def _window(g: Graph, space: int) -> dict[str, Any]:
    kernel = [g.rng.choice((1, 2, 3)) for _ in range(space)]
    matches: dict[str, Any] = {
        "kernel_shape": kernel, "strides": [g.rng.choice((1, 1, 2, 3)) for _ in kernel],
    }  # fmt: skip
    way = g.rng.randrange(4)
    if way < 2:
        matches["pads"] = [g.rng.randrange(k) for k in kernel * 2]
    elif way == 2:
        matches["auto_pad"] = g.rng.choice(("SAME_UPPER", "SAME_LOWER", "VALID"))
    return matches


def conv(g: Graph) -> None:
    image = _image(g)
    if image is None:
        return
    x, shape = image
    window = _window(g, len(shape) - 2)
    if g.rng.random() < 0.3:
        window["dilations"] = [g.rng.choice((1, 2)) for _ in shape[2:]]
    groups = g.rng.choice([n for n in range(1, shape[1] + 1) if shape[1] % n == 0])
    out = groups * g.rng.randint(1, 3)
    weights = g.normal(out, shape[1] // groups, *window["kernel_shape"])
    g.node("Conv", x, weights, *[g.normal(out)][: g.rng.randrange(2)], group=groups, **window)


def conv_transpose(g: Graph) -> None:
    image = _image(g)
    if image is None:
        return
    x, shape = image
    window = _window(g, len(shape) - 2)
    groups = g.rng.choice([n for n in range(1, shape[1] + 1) if shape[1] % n == 0])
    out = g.rng.randint(1, 3)
    if g.rng.random() < 0.3 and "auto_pad" not in window:
        window["output_padding"] = [g.rng.randrange(s) for s in window["strides"]]
    weights = g.normal(shape[1], out, *window["kernel_shape"])
    bias = [g.normal(out * groups)][: g.rng.randrange(2)]
    g.node("ConvTranspose", x, weights, *bias, group=groups, **window)


def pool(op: str) -> Step:
    def step(g: Graph) -> None:
        image = _image(g)
        if image is None:
            return
        x, shape = image
        window = _window(g, len(shape) - 2)
        if "auto_pad" not in window:
            window["ceil_mode"] = g.rng.randrange(2)
        if op == "AveragePool":
            window["count_include_pad"] = g.rng.randrange(2)
        g.node(op, x, **window)

    return step


def normalization(g: Graph) -> None:
    x = g.pick()
    shape = g.shapes[x]
    if len(shape) < 2:
        return
    channels = shape[1]
    way = g.rng.randrange(4)
    if way == 0:
        positive = g.constant(g.values.uniform(0.5, 2, channels))
        g.node("BatchNormalization", x, g.normal(channels), g.normal(channels),
               g.normal(channels), positive)  # fmt: skip
    elif way == 1 and len(shape) > 2:
        g.node("InstanceNormalization", x, g.normal(channels), g.normal(channels), epsilon=0.01)
    elif way == 2:
        axis = axis_of(g, x)
        inner = shape[axis:]
        g.node("LayerNormalization", x, g.normal(*inner), g.normal(*inner), axis=axis, epsilon=0.01)
    elif len(shape) > 2:
        g.node("LRN", x, size=g.rng.choice((1, 3, 5)), alpha=0.1)


def blocks(op: str) -> Step:
    def step(g: Graph) -> None:
        image = _image(g)
        if image is not None and len(image[1]) == 4:
            options = {"mode": g.rng.choice(("DCR", "CRD"))} if op == "DepthToSpace" else {}
            g.node(op, image[0], blocksize=2, **options)

    return step


def resize(g: Graph) -> None:
    image = _image(g)
    if image is None or len(image[1]) != 4:
        return
    x, shape = image
    mode = g.rng.choice(("nearest", "linear"))
    options: dict[str, Any] = {"mode": mode, "coordinate_transformation_mode": g.rng.choice(
        ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"))}  # fmt: skip
    if mode == "nearest":
        options["nearest_mode"] = g.rng.choice(("floor", "round_prefer_floor", "ceil"))
    if g.rng.random() < 0.5:
        # extents that are no whole numbers: onnxruntime differs from ONNX's own reference
        halved = [0.5] if all(n % 2 == 0 for n in shape[2:]) else []
        choices = (1.0, 2.0, 3.0, *halved)
        scales = g.constant([1.0, 1.0, *(g.rng.choice(choices) for _ in range(2))])
        g.node("Resize", x, "", scales, **options)
    else:
        sizes = (*shape[:2], *(g.rng.randint(1, 9) for _ in range(2)))
        g.node("Resize", x, "", "", g.ints(*sizes), **options)


def where(g: Graph) -> None:
    x = g.pick()
    condition = g.constant(g.values.random(g.shapes[x]) < 0.5, bool)
    g.node("Where", condition, x, g.normal(*g.shapes[x]))


def cumsum(g: Graph) -> None:
    x = g.pick()
    g.node("CumSum", x, g.constant(axis_of(g, x), np.int64), exclusive=g.rng.randrange(2),
           reverse=g.rng.randrange(2))  # fmt: skip


def trilu(g: Graph) -> None:
    x = g.pick()
    if len(g.shapes[x]) > 1:
        g.node("Trilu", x, g.constant(g.rng.randint(-2, 2), np.int64), upper=g.rng.randrange(2))


def topk(g: Graph) -> None:
    x = g.pick()
    axis = axis_of(g, x)
    k = g.rng.randint(1, g.shapes[x][axis])
    g.node("TopK", x, g.ints(k), axis=axis, largest=g.rng.randrange(2))


STEPS: tuple[Step, ...] = (
    *(unary(op) for op in ("Relu", "Sigmoid", "Tanh", "Softplus", "Softsign", "Abs", "Neg", "Ceil",
                           "Floor", "Sign", "Sin", "Cos", "Erf", "HardSwish", "Mish", "Selu",
                           "Round", "Identity", "Atan")),
    unary("LeakyRelu", alpha=(0.1, 0.3, 1.5)), unary("Elu", alpha=(1.0, 0.5)),
    unary("Celu", alpha=(1.0, 2.0)), unary("HardSigmoid", alpha=(0.2, 0.5), beta=(0.5, 0.1)),
    unary("ThresholdedRelu", alpha=(0.5, 1.0)),
    *(binary(op) for op in ("Add", "Sub", "Mul", "Min", "Max", "Sum", "PRelu", "Add", "Mul")),
    along("Softmax"), along("LogSoftmax"), along("LpNormalization"), along("Flatten"),
    *(reduced(op) for op in ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceL1",
                             "ReduceL2", "ReduceLogSumExp", "ReduceSumSquare")),
    transpose, transpose, reshape, reshape, squeeze, unsqueeze, slice_, slice_, concat, gather,
    gather_elements, pad, tile, expand, clip, matmul, matmul, gemm, conv, conv, conv, conv,
    conv_transpose, conv_transpose, pool("MaxPool"), pool("MaxPool"), pool("AveragePool"),
    pool("AveragePool"), unary("GlobalAveragePool"), unary("GlobalMaxPool"), normalization,
    normalization, blocks("DepthToSpace"), blocks("SpaceToDepth"), resize, resize, where, cumsum,
    trilu, topk,
)  # fmt: skip


def network(rng: random.Random) -> Network:
    """A model, an input of it, and what onnxruntime makes of inputs."""
    g = Graph(rng)
    for _ in range(rng.randint(1, 9)):
        rng.choice(STEPS)(g)
    if not g.nodes:
        g.node("Relu", "x")
    outputs = list(dict.fromkeys([g.nodes[-1].output[0], rng.choice(g.nodes).output[0]]))
    model = g.model(*outputs)
    values = g.values.standard_normal(g.shapes["x"]).astype(np.float32)
    return Network(model, {"x": values}, oracle_of(model), half=lambda: in_half(model))


def session_of(model: Any) -> Any:
    """What runs a model node by node, as it is written."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options)


def oracle_of(model: Any) -> Oracle:
    session = session_of(model)
    outputs = [item.name for item in model.graph.output]
    return lambda data: [np.asarray(result) for result in session.run(outputs, dict(data))]


def in_half(model: Any) -> Half:
    half = halves.onnx_model(model)
    oracle = oracle_of(half)
    return Half(half, lambda data: oracle(halves.rounded(data)))
