"""The same source gives the same bytes, in every process and thread."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Prints the digests of what is made of several sources, each by one of four threads.
SCRIPT = '''
import concurrent.futures, hashlib, json, sys, tempfile, warnings
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

import mlferry

warnings.simplefilter("ignore")


def digest(path):
    """Of a file, or of every file of a folder with its name."""
    path, found = Path(path), hashlib.sha256()
    for each in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if each.is_file():
            found.update(str(each.relative_to(path)).encode() + each.read_bytes())
    return found.hexdigest()


def several_outputs():
    """Branches that merge, equal constants, names that collide, outputs of every kind."""
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=(8, 8, 3, 3)).astype(np.float32) for _ in range(2)]
    held = [numpy_helper.from_array(w, f"w{i}") for i, w in enumerate([*weights, weights[0]])]
    nodes, last = [], "x"
    for i in range(3):
        nodes.append(helper.make_node("Conv", [last, f"w{i}"], [f"c{i}"], pads=[1] * 4))
        nodes.append(helper.make_node("Relu", [f"c{i}"], [f"r{i}"]))
        last = f"r{i}"
    nodes.append(helper.make_node("Concat", ["r0", "r1", "r2"], ["y"], axis=1))
    nodes.append(helper.make_node("GlobalAveragePool", ["y"], ["y/mean"]))
    nodes.append(helper.make_node("Softmax", ["y/mean"], ["y_mean"], axis=1))
    value = lambda name, shape: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
    outputs = [value("y", [1, 24, 9, 9]), value("y/mean", [1, 24, 1, 1]),
               value("y_mean", [1, 24, 1, 1])]
    graph = helper.make_graph(nodes, "g", [value("x", [1, 8, 9, 9])], outputs, held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def sampler(node):
    size = {"output_height": node.output_height, "output_width": node.output_width}
    return mlferry.CustomLayerParams("GridSampler", parameters=size)


def reader(**options):
    functions = {"GridSampler": sampler}
    source = mlferry.examples.path("digits_stn.h5")
    return mlferry.convert(source, custom_conversion_functions=functions, **options)


def saved(make, suffix):
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/model{suffix}"
        make(path)
        return digest(path)


graph = several_outputs().SerializeToString()
WAYS = {
    "Keras": lambda: saved(lambda p: reader().save(p), ".mlmodel"),
    "Keras, a pipeline of programs": lambda: saved(
        lambda p: reader(convert_to="mlprogram").save(p), ".mlpackage"),
    "ONNX": lambda: saved(lambda p: mlferry.convert(graph).save(p), ".mlmodel"),
    "ONNX, a program": lambda: saved(
        lambda p: mlferry.convert(graph, convert_to="mlprogram").save(p), ".mlpackage"),
    "exported": lambda: saved(lambda p: mlferry.export_onnx(mlferry.convert(graph), p), ".onnx"),
    "k-means": lambda: saved(
        lambda p: mlferry.quantize_weights(mlferry.convert(graph), 4, "kmeans").save(p),
        ".mlmodel"),
    "a program of 4 bits": lambda: saved(
        lambda p: mlferry.quantize_weights(
            mlferry.convert(graph, convert_to="mlprogram"), 4, "kmeans").save(p),
        ".mlpackage"),
    "a page": lambda: saved(
        lambda p: mlferry.visualize_spec(mlferry.convert(graph), path=p, open_browser=False),
        ".html"),
}

with concurrent.futures.ThreadPoolExecutor(4) as threads:
    waiting = {name: threads.submit(WAYS[name]) for name in sys.argv[1:] or WAYS}
    print(json.dumps({name: future.result() for name, future in waiting.items()}))
'''


@pytest.mark.filterwarnings("ignore")
def test_the_same_bytes_in_every_process() -> None:
    digests = []
    for seed in ("0", "1", "4242"):
        result = subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stderr[-2000:]
        digests.append(json.loads(result.stdout))
    assert len(set(digests[0].values())) == len(digests[0]) == 8
    for other in digests[1:]:
        assert other == digests[0]
