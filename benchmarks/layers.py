"""Single layers beside onnxruntime: one row a layer kind, the slowest first.

    python benchmarks/layers.py [--runs 15] [--only KIND ...] [--docs]

Each network has one layer on blobs of usual sizes and is exported to ONNX for the peer. Both get
the same inputs in one process, by turns, one thread each; the ratio is the median over
neighbouring runs. A call of either costs some microseconds, whatever the layer: rows that take
less than 50 microseconds in both say nothing about the layer.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

os.environ |= dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"), "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from benchmarks.pages import write_table
from benchmarks.runtime import difference, measured

RNG = np.random.default_rng(0)
IMAGE, SEQUENCE, VOLUME = (1, 64, 56, 56), (8, 64, 256), (1, 16, 12, 28, 28)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(0, 1, shape).astype(np.float32)


def positive(*shape: int) -> np.ndarray:
    return RNG.uniform(0.1, 2, shape).astype(np.float32)


def unit(*shape: int) -> np.ndarray:
    return RNG.uniform(-0.9, 0.9, shape).astype(np.float32)


def places(most: int, *shape: int) -> np.ndarray:
    return RNG.integers(0, most, shape).astype(np.float32)


class Row(NamedTuple):
    """A layer kind, what sets this row apart from others of the kind, inputs and parameters."""

    kind: str
    what: str
    inputs: Sequence[np.ndarray]
    params: dict[str, Any]
    outputs: int = 1


def _convolution(what: str, size: int, groups: int = 1, x: Any = None, **params: Any) -> Row:
    x = normal(*IMAGE) if x is None else x
    count = x.shape[1]
    transposed = params.get("isDeconvolution", False)
    shape = (count // groups, count, size, size)
    weights = normal(*shape) if transposed else normal(shape[1], shape[0], size, size)
    return Row("convolution", what, [x], {
        "outputChannels": count, "kernelChannels": count if transposed else count // groups,
        "nGroups": groups, "kernelSize": (size, size), "stride": (1, 1), "same": {},
        "weights": weights, **params,
    })  # fmt: skip


def _pooling(what: str, **params: Any) -> Row:
    size = {"kernelSize": (3, 3), "stride": (2, 2), "valid": {}}
    return Row("pooling", what, [normal(*IMAGE)], {**size, **params})


def _activation(name: str, **params: Any) -> Row:
    return Row("activation", name, [normal(*IMAGE)], {name: params})


def _recurrent(kind: str, outputs: int, **params: Any) -> Row:
    sizes = {"inputVectorSize": 64, "outputVectorSize": 128}
    return Row(kind, "40 steps", [normal(40, 4, 64, 1, 1)], {**sizes, **params}, outputs)


def _gates(names: Sequence[str], suffixes: Sequence[str]) -> dict[str, np.ndarray]:
    shapes = ((128, 64), (128, 128), (128,))
    return {
        f"{name}{suffix}": normal(*shape) / 10
        for name in names
        for suffix, shape in zip(suffixes, shapes, strict=True)
    }


def _lstm() -> dict[str, Any]:
    names = ("inputGate", "forgetGate", "outputGate", "blockInput")
    return _gates(names, ("WeightMatrix", "RecursionMatrix", "BiasVector"))


def _boxes_in_the_unit_square(count: int) -> np.ndarray:
    """[count, 1, 5, 1, 1]: the image, then the corners."""
    corners = np.sort(positive(count, 4) / 2.1)
    found = np.concatenate([np.zeros((count, 1)), corners], axis=1)
    return found.astype(np.float32).reshape(count, 1, 5, 1, 1)


UNARY = (
    "sin", "cos", "tan", "sinh", "cosh", "tanh", "atan", "asinh", "exp2", "erf", "gelu", "ceil",
    "floor", "round", "sign",
)  # fmt: skip
BINARY = (
    "addBroadcastable", "subtractBroadcastable", "multiplyBroadcastable", "divideBroadcastable",
    "maxBroadcastable", "minBroadcastable", "modBroadcastable", "floorDivBroadcastable",
    "greaterThan", "lessEqual", "equal", "logicalAnd", "logicalXor",
)  # fmt: skip
REDUCTIONS = (
    "reduceSum", "reduceMean", "reduceMax", "reduceMin", "reduceProd", "reduceL1", "reduceL2",
    "reduceSumSquare", "reduceLogSumExp",
)  # fmt: skip


def rows() -> list[Row]:
    """The layers: names and parameters of Core ML."""
    tanh_sigmoid = [{"sigmoid": {}}, {"tanh": {}}, {"tanh": {}}]
    lstm = {"params": {"sequenceOutput": True, "hasBiasVectors": True}}
    gru_names = ("GateWeightMatrix", "GateRecursionMatrix", "GateBiasVector")
    boxes = np.concatenate([unit(1, 300, 2) * 50 + 60, positive(1, 300, 2) * 20], axis=-1)
    return [
        _convolution("1 x 1", 1),
        _convolution("3 x 3", 3),
        _convolution("3 x 3, step 2", 3, stride=(2, 2)),
        _convolution("3 x 3, dilated", 3, dilationFactor=(2, 2)),
        _convolution("3 x 3, depthwise", 3, 64),
        _convolution("3 x 3, 8 groups", 3, 8),
        _convolution("3 x 3, transposed", 3, isDeconvolution=True, stride=(2, 2)),
        Row("convolution3d", "3 x 3 x 3", [normal(*VOLUME)], {
            "outputChannels": 16, "inputChannels": 16, "nGroups": 1, "kernelDepth": 3,
            "kernelHeight": 3, "kernelWidth": 3, "weights": normal(16, 16, 3, 3, 3),
            "paddingType": "SAME",
        }),
        _pooling("maximum", type="MAX"),
        _pooling("average", type="AVERAGE"),
        _pooling("L2", type="L2"),
        _pooling("everywhere", type="AVERAGE", globalPooling=True),
        Row("pooling3d", "maximum", [normal(*VOLUME)], {
            "type": "MAX", "kernelDepth": 2, "kernelHeight": 2, "kernelWidth": 2, "strideDepth": 2,
            "strideHeight": 2, "strideWidth": 2,
        }),
        Row("globalPooling3d", "average", [normal(*VOLUME)], {"type": "AVERAGE"}),
        Row("innerProduct", "512 rows", [normal(512, 256)], {
            "inputChannels": 256, "outputChannels": 256, "weights": normal(256, 256),
        }),
        Row("innerProduct", "one row", [normal(1, 1024)], {
            "inputChannels": 1024, "outputChannels": 1000, "weights": normal(1000, 1024),
        }),
        Row("batchedMatmul", "", [normal(8, 64, 128), normal(8, 128, 64)], {}),
        Row("embedding", "", [places(500, 256, 1, 1, 1)], {
            "inputDim": 500, "outputChannels": 128, "weights": normal(128, 500),
        }),
        Row("embeddingND", "", [places(500, 256, 1)], {
            "vocabSize": 500, "embeddingSize": 128, "weights": normal(128, 500),
        }),
        Row("batchnorm", "", [normal(*IMAGE)], {
            "channels": 64, "gamma": normal(64), "beta": normal(64), "mean": normal(64),
            "variance": positive(64),
        }),
        Row("batchnorm", "of the instance", [normal(*IMAGE)], {
            "channels": 64, "computeMeanVar": True, "instanceNormalization": True,
            "gamma": normal(64), "beta": normal(64),
        }),
        Row("layerNormalization", "", [normal(*SEQUENCE)], {
            "normalizedShape": (256,), "gamma": normal(256), "beta": normal(256),
        }),
        Row("l2normalize", "", [normal(*IMAGE)], {}),
        Row("lrn", "", [normal(*IMAGE)], {"alpha": 1e-4, "beta": 0.75, "localSize": 5, "k": 1.0}),
        Row("mvn", "", [normal(*IMAGE)], {"normalizeVariance": True}),
        Row("scale", "", [normal(*IMAGE)], {
            "shapeScale": (64, 1, 1), "scale": normal(64), "hasBias": True,
            "shapeBias": (64, 1, 1), "bias": normal(64),
        }),
        Row("softmaxND", "", [normal(*SEQUENCE)], {"axis": -1}),
        Row("softmax", "", [normal(*IMAGE)], {}),
        _activation("ReLU"),
        _activation("leakyReLU", alpha=0.1),
        _activation("PReLU", alpha=positive(64)),
        _activation("sigmoid"),
        _activation("tanh"),
        _activation("ELU", alpha=1.0),
        _activation("softplus"),
        _activation("softsign"),
        _activation("sigmoidHard", alpha=0.2, beta=0.5),
        Row("clip", "", [normal(*IMAGE)], {"minVal": -1.0, "maxVal": 1.0}),
        *(Row(kind, "", [normal(*IMAGE)], {}) for kind in UNARY),
        *(Row(kind, "", [unit(*IMAGE)], {}) for kind in ("asin", "acos", "atanh")),
        Row("acosh", "", [positive(*IMAGE) + 1], {}),
        Row("unary", "square root", [positive(*IMAGE)], {"type": "SQRT"}),
        Row("unary", "logarithm", [positive(*IMAGE)], {"type": "LOG"}),
        Row("unary", "exponential", [normal(*IMAGE)], {"type": "EXP"}),
        *(Row(kind, "", [normal(*IMAGE), normal(*IMAGE)], {}) for kind in BINARY),
        Row("powBroadcastable", "", [positive(*IMAGE), normal(*IMAGE)], {}),
        Row("addBroadcastable", "a bias a channel", [normal(*IMAGE), normal(64, 1, 1)], {}),
        Row("logicalNot", "", [places(2, *IMAGE)], {}),
        Row("whereBroadcastable", "", [places(2, *IMAGE), normal(*IMAGE), normal(*IMAGE)], {}),
        *(
            Row(kind, f"axis {axis}", [positive(*SEQUENCE)], {"axes": (axis,), "keepDims": True})
            for kind in REDUCTIONS
            for axis in (1, 2)
        ),
        Row("reduceMean", "height and width", [normal(*IMAGE)], {"axes": (2, 3), "keepDims": True}),
        Row("argMax", "", [normal(*SEQUENCE)], {"axis": -1}),
        Row("topK", "5", [normal(*SEQUENCE)], {"axis": -1, "K": 5}, 2),
        Row("argSort", "", [normal(*SEQUENCE)], {"axis": 2}),
        Row("cumSum", "", [normal(*SEQUENCE)], {"axis": -1}),
        Row("transpose", "channels last", [normal(*IMAGE)], {"axes": (0, 2, 3, 1)}),
        Row("transpose", "of matrices", [normal(*SEQUENCE)], {"axes": (0, 2, 1)}),
        Row("concatND", "", [normal(*IMAGE), normal(*IMAGE)], {"axis": 1}),
        Row("splitND", "", [normal(*IMAGE)], {"axis": 1, "numSplits": 2}, 2),
        Row("stack", "", [normal(*SEQUENCE), normal(*SEQUENCE)], {"axis": 1}),
        Row("tile", "", [normal(*SEQUENCE)], {"reps": (1, 2, 2)}),
        Row("constantPad", "", [normal(*IMAGE)], {"padAmounts": (0, 0, 0, 0, 1, 1, 1, 1)}),
        Row("padding", "reflected", [normal(*IMAGE)], {
            "reflection": {}, "paddingAmounts": {
                "borderAmounts": [{"startEdgeSize": 2, "endEdgeSize": 2}] * 2,
            },
        }),
        Row("sliceStatic", "", [normal(*IMAGE)], {
            "beginIds": (0, 0, 3, 3), "endIds": (1, 64, 50, 50), "strides": (1, 1, 1, 1),
            "beginMasks": (False,) * 4, "endMasks": (False,) * 4, "squeezeMasks": (False,) * 4,
        }),
        Row("reverse", "", [normal(*SEQUENCE)], {"reverseDim": (False, True, False)}),
        Row("reorganizeData", "space to depth", [normal(*IMAGE)], {
            "mode": "SPACE_TO_DEPTH", "blockSize": 2,
        }),
        Row("reorganizeData", "depth to space", [normal(*IMAGE)], {
            "mode": "DEPTH_TO_SPACE", "blockSize": 2,
        }),
        Row("upsample", "nearest", [normal(*IMAGE)], {"scalingFactor": (2, 2), "mode": "NN"}),
        Row("upsample", "bilinear", [normal(*IMAGE)], {
            "scalingFactor": (2, 2), "mode": "BILINEAR",
        }),
        Row("resizeBilinear", "", [normal(*IMAGE)], {
            "targetSize": (80, 80), "mode": {"samplingMethod": "UPSAMPLE_MODE"},
        }),
        Row("cropResize", "", [
            normal(1, *IMAGE), _boxes_in_the_unit_square(16),
        ], {
            "targetSize": (14, 14), "normalizedCoordinates": True,
            "mode": {"samplingMethod": "ALIGN_ENDPOINTS_MODE"},
            "boxIndicesMode": {"boxMode": "CORNERS_HEIGHT_FIRST"}, "spatialScale": 1.0,
        }),
        Row("gather", "", [normal(500, 128), places(500, 256)], {"axis": 0}),
        Row("gatherND", "", [normal(500, 128), places(500, 256, 1)], {}),
        Row("gatherAlongAxis", "", [normal(*SEQUENCE), places(64, *SEQUENCE)], {"axis": 1}),
        Row("scatter", "", [normal(500, 128), places(500, 64), normal(64, 128)], {
            "axis": 0, "mode": "SCATTER_UPDATE",
        }),
        Row("scatterND", "", [normal(500, 128), places(500, 64, 1), normal(64, 128)], {
            "mode": "SCATTER_ADD",
        }),
        Row("oneHot", "", [places(100, 8, 64)], {"oneHotVectorSize": 100, "axis": -1,
            "onValue": 1.0, "offValue": 0.0}),
        Row("whereNonZero", "", [places(2, 64, 64)], {}),
        Row("slidingWindows", "", [normal(*SEQUENCE)], {"axis": 1, "windowSize": 8, "step": 4}),
        Row("matrixBandPart", "", [normal(8, 128, 128)], {"numLower": 2, "numUpper": 3}),
        Row("upperTriangular", "", [normal(8, 128, 128)], {"k": 0}),
        Row("NonMaximumSuppression", "300 boxes", [
            boxes.astype(np.float32), RNG.uniform(0, 1, (1, 300, 4)).astype(np.float32),
        ], {"iouThreshold": 0.5, "scoreThreshold": 0.1, "maxBoxes": 50}, 4),
        _recurrent("simpleRecurrent", 2, activation={"tanh": {}}, sequenceOutput=True,
            weightMatrix=normal(128, 64) / 10, recursionMatrix=normal(128, 128) / 10),
        _recurrent("gru", 2, activations=tanh_sigmoid[:2], sequenceOutput=True,
            hasBiasVectors=True, **_gates(("update", "reset", "output"), gru_names)),
        _recurrent("uniDirectionalLSTM", 3, activations=tanh_sigmoid, weightParams=_lstm(), **lstm),
        _recurrent("biDirectionalLSTM", 5, activationsForwardLSTM=tanh_sigmoid,
            activationsBackwardLSTM=tanh_sigmoid, weightParams=[_lstm(), _lstm()], **lstm),
    ]  # fmt: skip


def compared(row: Row, runs: int) -> dict[str, Any]:
    import onnxruntime as ort

    from mlferry.exporters.onnx import export
    from mlferry.layers.builder import Builder
    from mlferry.runtime.session import Session

    builder = Builder()
    given = {f"x{index}": x for index, x in enumerate(row.inputs)}
    if row.kind == "simpleRecurrent":  # the one kind that needs a state
        given["state"] = np.zeros((1, 4, 128, 1, 1), np.float32)
    for name, x in given.items():
        builder.input(name, x.shape)
    outputs = [f"y{index}" for index in range(row.outputs)]
    builder.layer(row.kind, "layer", list(given), outputs, **row.params)
    builder.output("y0")
    spec = builder.model()
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    peer = ort.InferenceSession(export(spec).SerializeToString(), options)
    session = Session(spec.neuralNetwork, threads=1)
    made, (wanted,) = session.run(given, ["y0"])["y0"], peer.run(["y0"], given)
    found = measured(lambda: session.run(given, ["y0"]), lambda: peer.run(["y0"], given), runs)
    return {**found, "difference": difference(made, np.asarray(wanted, np.float32))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--only", nargs="+", default=())
    parser.add_argument("--docs", action="store_true", help="write the table of docs/speed.md")
    arguments = parser.parse_args()
    found = []
    for row in rows():
        if not arguments.only or row.kind in arguments.only:
            name = f"{row.kind}, {row.what}" if row.what else row.kind
            found.append((name, compared(row, arguments.runs)))
    found.sort(key=lambda pair: -pair[1]["ratio"])
    table = [
        (
            name, f"{r['ratio']:.2f}", f"{r['mlferry_ms']:.3f} ms", f"{r['peer_ms']:.3f} ms",
            f"{r['difference']:.0e}",
        )
        for name, r in found
    ]  # fmt: skip
    for line in table:
        print(f"{line[0]:<44}{line[1]:>8}{line[2]:>14}{line[3]:>14}{line[4]:>9}")
    if arguments.docs:
        write_table("layers", ("Layer", "Ratio", "mlferry", "onnxruntime", "Difference"), table)


if __name__ == "__main__":
    main()
