"""The networks of the runtime's benchmark as ONNX models with random weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import onnx
from onnx import helper, numpy_helper

OPSET = 17


class Net:
    """Nodes one after another; every method returns the name of what it makes."""

    def __init__(self, inputs: dict[str, Sequence[int]], integers: Sequence[str] = ()) -> None:
        self.inputs, self.integers = inputs, set(integers)
        self.nodes: list[onnx.NodeProto] = []
        self.arrays: dict[str, np.ndarray] = {}
        self.rng = np.random.default_rng(0)

    def constant(self, array: np.ndarray) -> str:
        name = f"c{len(self.arrays)}"
        self.arrays[name] = array
        return name

    def weights(self, *shape: int, fan: int | None = None) -> str:
        spread = np.sqrt(2 / (fan or int(np.prod(shape[1:]))))
        return self.constant(self.rng.normal(0, spread, shape).astype(np.float32))

    def put(self, op: str, *inputs: str, outputs: int = 1, **attributes: object) -> str:
        names = [f"v{len(self.nodes)}_{index}" for index in range(outputs)]
        self.nodes.append(helper.make_node(op, list(inputs), names, **attributes))
        return names[0]

    def conv(
        self, x: str, before: int, after: int, size: int = 3, stride: int = 1, groups: int = 1,
        act: str = "Relu", norm: bool = False, pad: int | None = None,
        gain: float = 0.75,
    ) -> str:  # fmt: skip
        edge = size // 2 if pad is None else pad
        w = self.weights(after, before // groups, size, size)
        bias = [] if norm else [self.constant(np.zeros(after, np.float32))]
        y = self.put("Conv", x, w, *bias, strides=[stride] * 2, pads=[edge] * 4, group=groups)
        if norm:
            ones = self.constant(self.rng.uniform(0.5, 1.0, after).astype(np.float32))
            shift = self.constant(self.rng.normal(0, 0.1, after).astype(np.float32))
            factor = self.constant(np.full(after, gain, np.float32))
            y = self.put("BatchNormalization", y, factor, shift, shift, ones)
        if act == "Relu6":
            bounds = [self.constant(np.float32(v)) for v in (0, 6)]
            return self.put("Clip", y, *bounds)
        return self.put(act, y) if act else y

    def dense(self, x: str, before: int, after: int) -> str:
        w, b = self.weights(before, after, fan=before), self.constant(np.zeros(after, np.float32))
        return self.put("Add", self.put("MatMul", x, w), b)

    def classified(self, x: str, before: int, after: int = 1000) -> str:
        pooled = self.put("Flatten", self.put("GlobalAveragePool", x))
        w = self.weights(after, before)
        return self.put("Softmax", self.put("Gemm", pooled, w, transB=1))

    def model(self, result: str) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "net",
            [
                helper.make_tensor_value_info(n, 7 if n in self.integers else 1, s)
                for n, s in self.inputs.items()
            ],
            [helper.make_tensor_value_info(result, 1, None)],
            [numpy_helper.from_array(a, n) for n, a in self.arrays.items()],
        )
        opsets = [helper.make_opsetid("", OPSET)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def squeezenet(batch: int) -> onnx.ModelProto:
    n = Net({"x": (batch, 3, 227, 227)})
    x = n.conv("x", 3, 64, 3, 2, pad=0)
    before = 64
    for index, (narrow, wide) in enumerate(
        [(16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256)]
    ):
        if index in (0, 2, 4):
            x = n.put("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2])
        s = n.conv(x, before, narrow, 1)
        x = n.put("Concat", n.conv(s, narrow, wide, 1), n.conv(s, narrow, wide, 3), axis=1)
        before = 2 * wide
    x = n.conv(x, before, 1000, 1)
    return n.model(n.put("Softmax", n.put("Flatten", n.put("GlobalAveragePool", x))))


def resnet50(batch: int) -> onnx.ModelProto:
    n = Net({"x": (batch, 3, 224, 224)})
    x = n.conv("x", 3, 64, 7, 2, norm=True)
    x = n.put("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    before = 64
    for narrow, count, first in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for index in range(count):
            stride = first if index == 0 else 1
            shortcut = x
            if index == 0:
                shortcut = n.conv(x, before, 4 * narrow, 1, stride, act="", norm=True)
            y = n.conv(x, before, narrow, 1, norm=True)
            y = n.conv(y, narrow, narrow, 3, stride, norm=True)
            y = n.conv(y, narrow, 4 * narrow, 1, act="", norm=True, gain=0.2)
            x, before = n.put("Relu", n.put("Add", y, shortcut)), 4 * narrow
    return n.model(n.classified(x, before))


def mobilenet_v2(batch: int) -> onnx.ModelProto:
    n = Net({"x": (batch, 3, 224, 224)})
    x, before = n.conv("x", 3, 32, 3, 2, norm=True, act="Relu6"), 32
    for factor, after, count, first in (
        (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2),
        (6, 320, 1, 1),
    ):  # fmt: skip
        for index in range(count):
            stride, inner = first if index == 0 else 1, before * factor
            y = n.conv(x, before, inner, 1, norm=True, act="Relu6") if factor > 1 else x
            y = n.conv(y, inner, inner, 3, stride, inner, norm=True, act="Relu6")
            y = n.conv(y, inner, after, 1, act="", norm=True)
            x = n.put("Add", x, y) if stride == 1 and before == after else y
            before = after
    return n.model(n.classified(n.conv(x, 320, 1280, 1, norm=True, act="Relu6"), 1280))


def style(batch: int) -> onnx.ModelProto:
    n = Net({"x": (batch, 3, 256, 256)})

    def normed(x: str, count: int, act: str = "Relu") -> str:
        ones, zero = (n.constant(np.full(count, v, np.float32)) for v in (1, 0))
        y = n.put("InstanceNormalization", x, ones, zero)
        return n.put(act, y) if act else y

    def up(x: str, before: int, after: int) -> str:
        w = n.weights(before, after, 3, 3)
        return n.put("ConvTranspose", x, w, strides=[2, 2], pads=[0, 0, 1, 1])

    x = normed(n.conv("x", 3, 32, 9, act=""), 32)
    x = normed(n.conv(x, 32, 64, 3, 2, act=""), 64)
    x = normed(n.conv(x, 64, 128, 3, 2, act=""), 128)
    for _ in range(5):
        y = normed(n.conv(x, 128, 128, act=""), 128)
        x = n.put("Add", x, normed(n.conv(y, 128, 128, act=""), 128, ""))
    x = normed(up(x, 128, 64), 64)
    x = normed(up(x, 64, 32), 32)
    return n.model(normed(n.conv(x, 32, 3, 9, act=""), 3, "Tanh"))


def unet(batch: int) -> onnx.ModelProto:
    n = Net({"x": (batch, 3, 128, 128)})
    sizes, kept, x, before = (32, 64, 128), [], "x", 3
    for size in sizes:
        x = n.conv(n.conv(x, before, size), size, size)
        kept.append((x, size))
        x, before = n.put("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]), size
    x = n.conv(n.conv(x, 128, 256), 256, 256)
    before = 256
    for shortcut, size in reversed(kept):
        x = n.put("ConvTranspose", x, n.weights(before, size, 2, 2), strides=[2, 2])
        x = n.conv(n.conv(n.put("Concat", x, shortcut, axis=1), 2 * size, size), size, size)
        before = size
    return n.model(n.conv(x, 32, 2, 1, act="Sigmoid"))


def lstm_tagger(batch: int) -> onnx.ModelProto:
    n = Net({"x": (batch, 40)}, ["x"])
    hidden, width = 128, 64
    x = n.put("Gather", n.weights(2000, width, fan=1), "x")
    x = n.put("Transpose", x, perm=[1, 0, 2])
    w = n.weights(2, 4 * hidden, width, fan=width)
    r, b = n.weights(2, 4 * hidden, hidden, fan=hidden), n.weights(2, 8 * hidden, fan=400)
    y = n.put("LSTM", x, w, r, b, hidden_size=hidden, direction="bidirectional")
    y = n.put("Transpose", y, perm=[2, 0, 1, 3])
    y = n.put("Reshape", y, n.constant(np.array([0, 0, -1])))
    return n.model(n.put("Softmax", n.dense(y, 2 * hidden, 20), axis=-1))


def transformer(
    batch: int, size: int = 128, heads: int = 4, steps: int = 64, count: int = 4
) -> onnx.ModelProto:
    n = Net({"x": (batch, steps, size)})
    split = n.constant(np.array([batch, steps, heads, size // heads]))
    merge = n.constant(np.array([batch, steps, size]))
    scale = n.constant(np.float32(1 / np.sqrt(size // heads)))

    def norm(x: str) -> str:
        ones, zero = (n.constant(np.full(size, v, np.float32)) for v in (1, 0))
        return n.put("LayerNormalization", x, ones, zero)

    def headed(x: str, perm: list[int]) -> str:
        return n.put("Transpose", n.put("Reshape", n.dense(x, size, size), split), perm=perm)

    x = "x"
    for _ in range(count):
        q, k, v = headed(x, [0, 2, 1, 3]), headed(x, [0, 2, 3, 1]), headed(x, [0, 2, 1, 3])
        chances = n.put("Softmax", n.put("Mul", n.put("MatMul", q, k), scale), axis=-1)
        mixed = n.put("Transpose", n.put("MatMul", chances, v), perm=[0, 2, 1, 3])
        x = norm(n.put("Add", x, n.dense(n.put("Reshape", mixed, merge), size, size)))
        inner = n.put("Relu", n.dense(x, size, 4 * size))
        x = norm(n.put("Add", x, n.dense(inner, 4 * size, size)))
    return n.model(x)


NETWORKS: dict[str, Callable[[int], onnx.ModelProto]] = {
    "SqueezeNet 1.1": squeezenet,
    "ResNet-50": resnet50,
    "MobileNetV2": mobilenet_v2,
    "style": style,
    "U-Net": unet,
    "LSTM tagger": lstm_tagger,
    "transformer encoder": transformer,
    "wide transformer": partial(transformer, size=768, heads=12, steps=128, count=2),
}
