"""Graphs of one `ai.onnx.ml` op, or a few: what onnxruntime makes of them is compared.

A row says what a user gives where that is not the first row of each tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

DOMAIN = "ai.onnx.ml"
FLOAT, DOUBLE, INT64, STRING = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64,
                                TensorProto.STRING)  # fmt: skip
MAP = -1
DTYPES: Mapping[int, Any] = {FLOAT: np.float32, DOUBLE: np.float64, INT64: np.int64, STRING: object}
Feeds = Mapping[str, np.ndarray]


def node(op: str, inputs: Sequence[str], outputs: Sequence[str], **attrs: Any) -> Any:
    return helper.make_node(op, inputs, outputs, domain=DOMAIN, **attrs)


def plain(op: str, inputs: Sequence[str], outputs: Sequence[str], **attrs: Any) -> Any:
    return helper.make_node(op, inputs, outputs, **attrs)


def one_by_one(feeds: Feeds) -> dict[str, Any]:
    """The only value of each tensor."""
    return {name: array.reshape(-1)[0] for name, array in feeds.items()}


def by_columns(feeds: Feeds) -> dict[str, Any]:
    """Texts as inputs of their own."""
    return {f"{name}_{i}": v for name, array in feeds.items() for i, v in enumerate(array[0])}


@dataclass
class Case:
    """A graph, with values for its input `X`."""

    name: str
    nodes: Sequence[Any]
    given: Sequence[Any]
    outputs: Mapping[str, int]
    kind: int = FLOAT
    opset: int = 3
    as_given: Callable[[Feeds], dict[str, Any]] | None = None
    constants: Mapping[str, np.ndarray] | None = None
    tolerance: float = 2e-6

    def model(self) -> Any:
        width = len(self.given[0])
        graph = helper.make_graph(
            self.nodes, "case",
            [helper.make_tensor_value_info("X", self.kind, [None, width])],
            [_output(n, t) for n, t in self.outputs.items()],
            [numpy_helper.from_array(a, n) for n, a in (self.constants or {}).items()],
        )  # fmt: skip
        opsets = [helper.make_opsetid(DOMAIN, self.opset), helper.make_opsetid("", 17)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=9)

    def feeds(self) -> list[Feeds]:
        return [{"X": np.array([row], DTYPES[self.kind])} for row in self.given]


def _output(name: str, kind: int) -> Any:
    if kind != MAP:
        return helper.make_tensor_value_info(name, kind, None)
    values = helper.make_tensor_type_proto(FLOAT, [])
    entries = helper.make_map_type_proto(INT64, values)
    return helper.make_value_info(name, helper.make_sequence_type_proto(entries))


NAN = float("nan")
RANDOM = np.random.default_rng(11)
ROWS = [*(RANDOM.normal(size=(8, 3)) * 3).astype(np.float32).tolist(), [0.0, 0.0, 0.0]]
HOLES = [*ROWS, [NAN, 0.0, -3.0], [1.0, NAN, NAN]]
TEXTS = [["a"], ["b"], ["zz"]]
NUMBERS = [[1, -1, 3], [5, 3, -1]]
Y = {"y": FLOAT}
CHOICE = {"label": INT64, "scores": FLOAT}
TABLE = np.linspace(-1, 1, 9).tolist()


def linear(coefficients: Sequence[float], intercepts: Sequence[float], transform: str,
           labels: Any = None) -> Any:  # fmt: skip
    options = labels or {"classlabels_ints": [7, 8, 9][: max(2, len(intercepts))]}
    return node("LinearClassifier", ["X"], ["label", "scores"], coefficients=coefficients,
                intercepts=intercepts, post_transform=transform, **options)  # fmt: skip


def stump(mode: str = "BRANCH_LEQ", at: float = 0.5, missing: Sequence[int] = ()) -> dict[str, Any]:
    """Column 0 decides, then column 2 in the second leaf; a second tree is a leaf alone."""
    return {
        "nodes_treeids": [0] * 5 + [1], "nodes_nodeids": [0, 1, 2, 3, 4, 0],
        "nodes_modes": [mode, "LEAF", mode, "LEAF", "LEAF", "LEAF"],
        "nodes_featureids": [0, 0, 2, 0, 0, 0], "nodes_values": [at, 0.0, -at, 0.0, 0.0, 0.0],
        "nodes_truenodeids": [1, 0, 3, 0, 0, 0], "nodes_falsenodeids": [2, 0, 4, 0, 0, 0],
        **({"nodes_missing_value_tracks_true": missing} if missing else {}),
    }  # fmt: skip


def leaves(kind: str, weights: Sequence[float], ids: Sequence[int] = (0,)) -> dict[str, Any]:
    """What the four leaves add, to each of some scores."""
    places = [(0, 1), (0, 3), (0, 4), (1, 0)]
    pairs = [(place, target) for place in places for target in ids]
    return {
        f"{kind}_treeids": [tree for (tree, _), _ in pairs],
        f"{kind}_nodeids": [leaf for (_, leaf), _ in pairs],
        f"{kind}_ids": [target for _, target in pairs],
        f"{kind}_weights": [w * (1 + t) for w in weights for t in ids],
    }


SIGNED, POSITIVE = (-1.5, 0.75, 2.0, 0.125), (0.1, 0.5, 0.2, 0.05)


def trees(kind: str, *, ids: Sequence[int] = (0,), weights: Sequence[float] = SIGNED,
          of: Mapping[str, Any] | None = None, **attrs: Any) -> Any:  # fmt: skip
    name = "TreeEnsembleRegressor" if kind == "target" else "TreeEnsembleClassifier"
    outputs = ["y"] if kind == "target" else ["label", "scores"]
    inputs = {"n_targets": 1} if kind == "target" else {}
    if kind == "class" and "classlabels_strings" not in attrs:
        inputs["classlabels_int64s"] = [7, 8]
    return node(name, ["X"], outputs, **{**inputs, **(of or stump()), **leaves(kind, weights, ids),
                                         **attrs})  # fmt: skip


def ensemble(modes: Sequence[int] = (0, 1, 3), **attrs: Any) -> Any:
    """The op of opset 5: two trees, of two branches and of one."""
    inputs: dict[str, Any] = {
        "n_targets": 2, "nodes_featureids": [0, 2, 1],
        "nodes_splits": numpy_helper.from_array(np.array([0.5, -0.3, 0.0], np.float32)),
        "nodes_modes": numpy_helper.from_array(np.array(modes, np.uint8)),
        "nodes_truenodeids": [1, 0, 2], "nodes_trueleafs": [0, 1, 1],
        "nodes_falsenodeids": [1, 1, 3], "nodes_falseleafs": [1, 1, 1], "tree_roots": [0, 2],
        "leaf_targetids": [0, 1, 0, 1],
        "leaf_weights": numpy_helper.from_array(np.array([5.0, -2.0, 3.0, 0.25], np.float32)),
    }  # fmt: skip
    return node("TreeEnsemble", ["X"], ["y"], **{**inputs, **attrs})


def machine(kernel: str, labels: int, **attrs: Any) -> Any:
    """Two support vectors a class."""
    vectors = np.random.default_rng(labels).normal(size=(2 * labels, 3))
    pairs = labels * (labels - 1) // 2
    inputs = {
        "coefficients": np.linspace(-1, 1.2, 2 * labels * (labels - 1)).tolist(),
        "support_vectors": vectors.ravel().tolist(), "vectors_per_class": [2] * labels,
        "rho": np.linspace(-0.2, 0.3, pairs).tolist(), "classlabels_ints": [4, 5, 6, 7][:labels],
        "kernel_type": kernel, "kernel_params": [0.3, 0.5, 3.0],
    }  # fmt: skip
    return node("SVMClassifier", ["X"], ["label", "scores"], **{**inputs, **attrs})


def regression_machine(kernel: str, **attrs: Any) -> Any:
    inputs = {"coefficients": [1.0, -2.0], "support_vectors": [1.0, 0, 0, 0, 1, 0.5],
             "n_supports": 2, "rho": [0.5], "kernel_type": kernel,
             "kernel_params": [0.3, 0.5, 2.0]}  # fmt: skip
    return node("SVMRegressor", ["X"], ["y"], **{**inputs, **attrs})


def pairwise(labels: int) -> dict[str, Any]:
    count = labels * (labels - 1) // 2
    return {"prob_a": np.linspace(-1.5, -0.5, count).tolist(), "prob_b": [0.2] * count}


MODES = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ")
KERNELS = ("LINEAR", "RBF", "POLY", "SIGMOID")

OFFSETS = [0.1, 0.2, 0.3]

CASES = [
    # numbers
    Case("Scaler", [node("Scaler", ["X"], ["y"], offset=[1.0, 2.0, -1.0], scale=[2.0, 0.5, 3.0])],
         ROWS, Y),
    Case("Scaler of one", [node("Scaler", ["X"], ["y"], offset=[1.0], scale=[2.0])], ROWS, Y),
    *(Case(f"Normalizer {norm}", [node("Normalizer", ["X"], ["y"], norm=norm)], ROWS, Y)
      for norm in ("MAX", "L1", "L2")),
    Case("Binarizer", [node("Binarizer", ["X"], ["y"], threshold=0.5)], ROWS, Y),
    Case("Imputer", [node("Imputer", ["X"], ["y"], imputed_value_floats=[9.0, 8.0, 7.0],
                          replaced_value_float=NAN)], HOLES, Y),
    Case("Imputer of 0", [node("Imputer", ["X"], ["y"], imputed_value_floats=[9.0])], HOLES, Y),
    Case("Imputer of a number", [node("Imputer", ["X"], ["y"], imputed_value_floats=[9.0],
                                      replaced_value_float=-3.0)], HOLES, Y),
    Case("Imputer of integers", [node("Imputer", ["X"], ["y"], imputed_value_int64s=[7],
                                      replaced_value_int64=-1)], NUMBERS, {"y": INT64}, INT64),
    Case("ArrayFeatureExtractor", [node("ArrayFeatureExtractor", ["X", "at"], ["y"])], ROWS, Y,
         constants={"at": np.array([2, 0, 2])}),
    Case("FeatureVectorizer",
         [node("Scaler", ["X"], ["s"], offset=[1.0], scale=[2.0]),
          node("FeatureVectorizer", ["X", "s"], ["y"], inputdimensions=[3, 3])], ROWS, Y),
    # categories
    Case("OneHotEncoder of texts", [node("OneHotEncoder", ["X"], ["y"], cats_strings=["b", "a"])],
         TEXTS, Y, STRING, as_given=one_by_one),
    Case("OneHotEncoder of columns of texts",
         [node("OneHotEncoder", ["X"], ["y"], cats_strings=["b", "a"])],
         [["a", "b"], ["b", "zz"]], Y, STRING, as_given=by_columns),
    Case("OneHotEncoder of integers", [node("OneHotEncoder", ["X"], ["y"], cats_int64s=[5, -1, 1])],
         NUMBERS, Y, INT64),
    Case("OneHotEncoder of floats", [node("OneHotEncoder", ["X"], ["y"], cats_int64s=[-3, 1, 2])],
         [[-3.7, 1.2, 2.9], [0.5, 2.0, 9.0]], Y),
    Case("OneHotEncoder of joined floats",
         [plain("Concat", ["X", "X"], ["c"], axis=1),
          node("OneHotEncoder", ["c"], ["y"], cats_int64s=[-3, 1, 2])],
         [[-3.7, 1.2, 2.9], [0.5, 2.0, 9.0]], Y),
    Case("OneHotEncoder of large integers",
         [plain("Gather", ["X", "at"], ["g"], axis=1),
          node("OneHotEncoder", ["g"], ["y"], cats_int64s=[2**25 + 1, 2**25])],
         [[2**25 + 1, 0], [2**25, 0]], Y, INT64, constants={"at": np.array([0])}),
    Case("LabelEncoder, text to integer",
         [node("LabelEncoder", ["X"], ["y"], keys_strings=["a", "b"], values_int64s=[4, 9])],
         TEXTS, {"y": INT64}, STRING, as_given=one_by_one),
    Case("LabelEncoder, text to text",
         [node("LabelEncoder", ["X"], ["y"], keys_strings=["a", "b"], values_strings=["A", "B"],
               default_string="?")], TEXTS, {"y": STRING}, STRING, as_given=one_by_one),
    Case("LabelEncoder, text to float",
         [node("LabelEncoder", ["X"], ["y"], keys_strings=["a", "b"], values_floats=[0.1, -2.5],
               default_float=7.0)], TEXTS, Y, STRING, as_given=one_by_one),
    Case("LabelEncoder, integer to integer",
         [node("LabelEncoder", ["X"], ["y"], keys_int64s=[1, 3, 5], values_int64s=[10, 30, 50],
               default_int64=-7)], NUMBERS, {"y": INT64}, INT64),
    Case("LabelEncoder, integer to float",
         [node("LabelEncoder", ["X"], ["y"], keys_int64s=[1, 3, 5], values_floats=[0.1, 3.0, 5.0])],
         NUMBERS, Y, INT64),
    Case("LabelEncoder, integer to text",
         [node("LabelEncoder", ["X"], ["y"], keys_int64s=[1, 3], values_strings=["one", "three"])],
         [[1], [2]], {"y": STRING}, INT64, as_given=one_by_one),
    *(Case(f"LabelEncoder, float to {name}",
           [node("LabelEncoder", ["X"], ["y"], keys_floats=[1.5, -2.0, 0.1], **values)],
           [[1.5, 0.1, -2.0], [0.2, NAN, -2.0]], {"y": kind}, **more)
      for name, values, kind, more in (
          ("float", {"values_floats": [0.1, 1e7, -3.3], "default_float": 0.7}, FLOAT, {}),
          ("integer", {"values_int64s": [7, -8, 9], "default_int64": 3}, INT64, {}),
      )),
    Case("LabelEncoder, float to text",
         [node("LabelEncoder", ["X"], ["y"], keys_floats=[1.5, -2.0],
               values_strings=["a", "b"], default_string="-")], [[1.5], [-2.0], [0.5]],
         {"y": STRING}),
    Case("LabelEncoder, NaN to float",
         [node("LabelEncoder", ["X"], ["y"],
               keys_tensor=numpy_helper.from_array(np.float32([NAN, 2.0])),
               values_tensor=numpy_helper.from_array(np.float32([5.0, 6.0])),
               default_tensor=numpy_helper.from_array(np.float32([-1.0])))],
         [[NAN, 2.0, 1.0]], Y, opset=4),
    Case("LabelEncoder of tensors",
         [node("LabelEncoder", ["X"], ["y"],
               keys_tensor=helper.make_tensor("k", STRING, [2], [b"a", b"b"]),
               values_tensor=numpy_helper.from_array(np.array([4, 9])),
               default_tensor=numpy_helper.from_array(np.array([-5])))],
         TEXTS, {"y": INT64}, STRING, opset=4, as_given=one_by_one),
    Case("LabelEncoder of opset 1, to integer",
         [node("LabelEncoder", ["X"], ["y"], classes_strings=["a", "b"], default_int64=5)],
         TEXTS, {"y": INT64}, STRING, opset=1, as_given=one_by_one),
    Case("LabelEncoder of opset 1, to text",
         [node("LabelEncoder", ["X"], ["y"], classes_strings=["a", "b"], default_string="-")],
         [[0], [1], [2]], {"y": STRING}, INT64, opset=1, as_given=one_by_one),
    Case("CategoryMapper, to integer",
         [node("CategoryMapper", ["X"], ["y"], cats_strings=["a", "b"], cats_int64s=[4, 5],
               default_int64=-2)], TEXTS, {"y": INT64}, STRING, as_given=one_by_one),
    Case("CategoryMapper, to text",
         [node("CategoryMapper", ["X"], ["y"], cats_strings=["a", "b"], cats_int64s=[4, 5],
               default_string="-")], [[4], [9]], {"y": STRING}, INT64, as_given=one_by_one),
    # linear models
    Case("LinearRegressor", [node("LinearRegressor", ["X"], ["y"], coefficients=[1.0, -2.0, 0.5],
                                  intercepts=[0.25])], ROWS, Y),
    Case("LinearRegressor of two", [node("LinearRegressor", ["X"], ["y"], targets=2,
                                         coefficients=TABLE[:6])], ROWS, Y),
    *(Case(f"LinearClassifier {transform} {name}", [linear(c, i, transform)], ROWS, CHOICE)
      for transform in ("NONE", "LOGISTIC", "SOFTMAX")
      for name, c, i in (("of one score", TABLE[:3], [0.1]),
                         ("of two scores", TABLE[:6], [0.1, -0.2]),
                         ("mirrored", [0.1, 0.2, 0.3, -0.1, -0.2, -0.3], [0.1, -0.1]),
                         ("of three", TABLE, [0.1, 0.2, 0.3]))),
    Case("LinearClassifier SOFTMAX of large numbers",
         [linear(TABLE, [1e7, 0.5, 1e7 + 2], "SOFTMAX")], ROWS, CHOICE),
    Case("LinearClassifier one-vs-rest",
         [node("LinearClassifier", ["X"], ["label", "s"], coefficients=TABLE,
               intercepts=[0.1, 0.2, 0.3], classlabels_strings=["a", "b", "c"],
               post_transform="LOGISTIC"),
          node("Normalizer", ["s"], ["scores"], norm="L1")],
         ROWS, {"label": STRING, "scores": FLOAT}),
    # trees
    *(Case(f"TreeEnsembleRegressor {mode} {name}", [trees("target", of=stump(mode, missing=m))],
           [*HOLES, [0.5, 0.0, -0.5], [0.5, 0.0, 0.5]], Y)
      for mode in MODES for name, m in (("", ()), ("missing", [1, 0, 0, 0, 0, 0]))),
    Case("TreeEnsembleRegressor of two",
         [trees("target", ids=(0, 1), n_targets=2, base_values=[0.5, -0.5])], HOLES, Y),
    Case("TreeEnsembleRegressor AVERAGE", [trees("target", aggregate_function="AVERAGE",
                                                 base_values=[0.5])], ROWS, Y),
    *(Case(f"TreeEnsembleRegressor {t} of two", [trees("target", ids=(0, 1), n_targets=2,
                                                       post_transform=t)], ROWS, Y)
      for t in ("SOFTMAX", "LOGISTIC")),
    *(Case(f"TreeEnsembleClassifier {t} {name}", [trees("class", weights=w, post_transform=t, **b)],
           ROWS, CHOICE)
      for t in ("NONE", "LOGISTIC", "SOFTMAX")
      for name, w, b in (("of chances", POSITIVE, {}), ("of scores", SIGNED, {}),
                         ("with a base", SIGNED, {"base_values": [0.375]}),
                         ("of chances with a base", POSITIVE, {"base_values": [0.25]}))),
    *(Case(f"TreeEnsembleClassifier {t} of the second class {n}",
           [trees("class", ids=(1,), weights=w, post_transform=t)], ROWS, CHOICE)
      for t in ("NONE", "SOFTMAX") for n, w in (("of chances", POSITIVE), ("of scores", SIGNED))),
    *(Case(f"TreeEnsembleClassifier {t} of three",
           [trees("class", ids=(0, 1, 2), post_transform=t, classlabels_strings=["a", "b", "c"],
                  **b)], HOLES, {"label": STRING, "scores": FLOAT})
      for t in ("NONE", "LOGISTIC", "SOFTMAX") for b in ({}, {"base_values": [0.5, 0.25, -1.0]})),
    Case("TreeEnsembleClassifier of doubles", [trees("class", of=stump(at=0.5))],
         [[0.5, 0.0, -0.5], [0.5 + 1e-12, 0.0, 0.0]], CHOICE, DOUBLE),
    *(Case(f"TreeEnsembleRegressor {a} of {name}", [trees("target", aggregate_function=a, **more)],
           ROWS, Y)
      for a in ("MIN", "MAX")
      for name, more in (("one", {}), ("one with a base", {"base_values": [0.5]}),
                         ("two", {"ids": (0, 1), "n_targets": 2, "base_values": [0.5, -2.0]}),
                         ("two, LOGISTIC", {"ids": (0, 1), "n_targets": 2,
                                            "post_transform": "LOGISTIC"}))),
    *(Case(f"TreeEnsembleClassifier SOFTMAX_ZERO {name}",
           [trees("class", weights=w, post_transform="SOFTMAX_ZERO", **b)], ROWS, CHOICE)
      for name, w, b in (("of chances", POSITIVE, {}), ("of scores", SIGNED, {}),
                         ("with a base", SIGNED, {"base_values": [0.375]}))),
    *(Case(f"TreeEnsembleClassifier SOFTMAX_ZERO of the second class {n}",
           [trees("class", ids=(1,), weights=w, post_transform="SOFTMAX_ZERO")], ROWS, CHOICE)
      for n, w in (("of chances", POSITIVE), ("of scores", SIGNED))),
    Case("TreeEnsembleClassifier PROBIT of the second class",
         [trees("class", ids=(1,), weights=(-0.1, 0.5, 0.2, 0.3), post_transform="PROBIT")], ROWS,
         CHOICE, tolerance=2e-5),
    *(Case(f"TreeEnsembleClassifier {t} of three {n}",
           [trees("class", ids=(0, 1, 2), weights=w, post_transform=t,
                  classlabels_strings=["a", "b", "c"], **b)], HOLES,
           {"label": STRING, "scores": FLOAT}, tolerance=2e-5)
      for t in ("SOFTMAX_ZERO", "PROBIT")
      for n, w, b in (("of chances", POSITIVE, {}), ("of scores and 0", (-1.5, 0.0, 2.0, 0.0), {}),
                      ("with a base", POSITIVE, {"base_values": [0.5, 0.0, -0.25]}))),
    *(Case(f"TreeEnsembleRegressor SOFTMAX_ZERO {n}",
           [trees("target", ids=(0, 1), n_targets=2, post_transform="SOFTMAX_ZERO", **b)], ROWS, Y)
      for n, b in (("of two", {}), ("of the largest", {"aggregate_function": "MAX"}))),
    *(Case(f"LinearClassifier {t} of {n}", [linear(TABLE[:3 * n], OFFSETS[:n], t)], ROWS, CHOICE,
           tolerance=2e-5)
      for t in ("SOFTMAX_ZERO", "PROBIT") for n in (2, 3)),
    Case("LinearClassifier SOFTMAX_ZERO of one", [linear(TABLE[:3], [0.5], "SOFTMAX_ZERO")], ROWS,
         CHOICE),
    Case("LinearClassifier SOFTMAX_ZERO with a score of 0",
         [linear([0.0] * 3 + TABLE[:6], [0.0, 0.5, -0.5], "SOFTMAX_ZERO")], ROWS, CHOICE),
    Case("ZipMap of SOFTMAX_ZERO", [linear(TABLE, OFFSETS, "SOFTMAX_ZERO"),
                                    node("ZipMap", ["scores"], ["map"],
                                         classlabels_int64s=[7, 8, 9])],
         ROWS, {"label": INT64, "map": MAP}),
    *(Case(f"TreeEnsembleRegressor PROBIT of {name}",
           [trees("target", weights=POSITIVE, post_transform="PROBIT", **more)], ROWS, Y,
           tolerance=2e-5)
      for name, more in (("one", {}), ("two", {"ids": (0, 1), "n_targets": 2}),
                         ("the largest", {"aggregate_function": "MAX"}))),
    Case("TreeEnsemble MIN", [ensemble(n_targets=1, leaf_targetids=[0] * 4, aggregate_function=2)],
         HOLES, Y, opset=5),
    *(Case(f"TreeEnsemble of members {name}",
           [ensemble(modes, membership_values=numpy_helper.from_array(np.float32(members)))],
           [[a, b, c] for a in (0.5, 2.0, 3.0, -1.0) for b in (0.0, 1.0) for c in (-0.3, 4.0)], Y,
           opset=5)
      for name, modes, members in (("at the root", (6, 1, 3), [0.5, 2, 7]),
                                   ("twice", (6, 1, 6), [2.0, 3.0, NAN, 1.0]),
                                   ("of one", (0, 6, 6), [4.0, NAN, 1.0]))),
    Case("TreeEnsemble", [ensemble()], HOLES, Y, opset=5),
    Case("TreeEnsemble AVERAGE", [ensemble((2, 4, 5), aggregate_function=0)], HOLES, Y, opset=5),
    Case("TreeEnsemble of missing values", [ensemble(nodes_missing_value_tracks_true=[1, 0, 1])],
         HOLES, Y, opset=5),
    # support vector machines
    *(Case(f"SVMRegressor {kernel}", [regression_machine(kernel)], ROWS, Y, tolerance=1e-4)
      for kernel in KERNELS),
    Case("SVMRegressor without vectors",
         [node("SVMRegressor", ["X"], ["y"], coefficients=[1.0, -2.0, 0.5], rho=[0.25],
               n_supports=0, kernel_type="LINEAR", kernel_params=[0.0, 0.0, 0.0])], ROWS, Y),
    *(Case(f"SVMClassifier {kernel} of {n}", [machine(kernel, n)], ROWS, CHOICE, tolerance=1e-4)
      for kernel in KERNELS for n in (2, 3, 4)),
    *(Case(f"SVMClassifier {kernel} of {n} with probabilities", [machine(kernel, n, **pairwise(n))],
           ROWS, CHOICE, tolerance=5e-3 if n == 2 else 1e-4)  # see `coupled` for two classes
      for kernel in KERNELS for n in (2, 3, 4)),
    # around them
    Case("ZipMap", [linear(TABLE, [0.1, 0.2, 0.3], "SOFTMAX"),
                    node("ZipMap", ["scores"], ["map"], classlabels_int64s=[7, 8, 9])],
         ROWS, {"label": INT64, "map": MAP}),
    Case("the label of the largest score",
         [node("Scaler", ["X"], ["s"], offset=[1.0], scale=[2.0]),
          plain("ArgMax", ["s"], ["at"], axis=1),
          node("ArrayFeatureExtractor", ["names", "at"], ["n"]),
          plain("Reshape", ["n", "flat"], ["label"])],
         ROWS, {"label": STRING},
         constants={"names": np.array(["a", "b", "c"], object), "flat": np.array([-1])}),
    Case("ordinary ops between",
         [node("Scaler", ["X"], ["s"], offset=[1.0], scale=[2.0]), plain("Exp", ["s"], ["e"]),
          plain("Add", ["e", "X"], ["a"]), plain("Tanh", ["a"], ["t"]),
          node("Normalizer", ["t"], ["y"], norm="L2")], ROWS, Y),
    Case("scores in ordinary ops",
         [linear(TABLE, [0.1, 0.2, 0.3], "SOFTMAX"), plain("Log", ["scores"], ["y"])],
         ROWS, {"label": INT64, "y": FLOAT}),
    Case("a label in ordinary ops",
         [linear(TABLE, [0.1, 0.2, 0.3], "SOFTMAX"),
          plain("Mul", ["label", "label"], ["y"])], ROWS, {"y": INT64}),
    Case("constants at computed places",
         [node("Scaler", ["X"], ["s"], offset=[1.0], scale=[2.0]),
          plain("TopK", ["s", "two"], ["v", "at"], axis=1),
          node("ArrayFeatureExtractor", ["numbers", "at"], ["n"]),
          node("Normalizer", ["n"], ["y"], norm="L1")], ROWS[:-1], Y,
         constants={"two": np.array([2]), "numbers": np.array([[0.5, -2.0, 3.0]], np.float32)}),
    Case("an output that others read",
         [node("Scaler", ["X"], ["y"], offset=[1.0], scale=[2.0]),
          node("Normalizer", ["y"], ["z"], norm="L1"), plain("Identity", ["z"], ["w"])],
         ROWS, {"y": FLOAT, "z": FLOAT, "w": FLOAT}),
    Case("Concat, Gather, Flatten",
         [plain("Gather", ["X", "at"], ["g"], axis=1), plain("Concat", ["g", "X"], ["c"], axis=1),
          plain("Flatten", ["c"], ["f"]), node("Scaler", ["f"], ["y"], offset=[1.0], scale=[2.0])],
         ROWS, Y, constants={"at": np.array([2, 1])}),
]  # fmt: skip

# Graphs that cannot be converted, and what is said.
REFUSED: list[tuple[Case, str]] = [
    (Case("PROBIT of one score", [linear(TABLE[:3], [0.5], "PROBIT")], ROWS, CHOICE),
     "runtimes do not agree"),
    (Case("PROBIT of the first class", [trees("class", post_transform="PROBIT")], ROWS, CHOICE),
     "runtimes do not agree"),
    (Case("an unknown transform", [linear(TABLE, OFFSETS, "SOFTPLUS")], ROWS, CHOICE),
     "ONNX has NONE, SOFTMAX, LOGISTIC, SOFTMAX_ZERO, PROBIT"),
    (Case("transform of one target", [trees("target", post_transform="LOGISTIC")], ROWS, Y),
     "runtimes do not agree"),
    (Case("more targets than memory", [ensemble(n_targets=1 << 40, aggregate_function=2)], ROWS, Y,
          opset=5), "a leaf does not add to each of 1099511627776 targets"),
    (Case("MIDDLE", [trees("target", aggregate_function="MIDDLE")], ROWS, Y),
     "it is SUM, AVERAGE, MIN or MAX"),
    (Case("both classes", [trees("class", ids=(0, 1))], ROWS, CHOICE), "scores of both classes"),
    (Case("two base values", [trees("class", base_values=[0.1, 0.2])], ROWS, CHOICE),
     "2 base_values for two classes"),
    (Case("LOGISTIC of the second", [trees("class", ids=(1,), post_transform="LOGISTIC")], ROWS,
          CHOICE), "are not chances"),
    (Case("a column that is not there", [trees("target", of=stump() | {
        "nodes_featureids": [0, 0, 3, 0, 0, 0]})], ROWS, Y), "reads column 3 of 3"),
    (Case("a node that is not there", [trees("target", of=stump() | {
        "nodes_truenodeids": [1, 0, 9, 0, 0, 0]})], ROWS, Y), "has no node 9"),
    (Case("a circle", [trees("target", of=stump() | {
        "nodes_truenodeids": [1, 0, 0, 0, 0, 0]})], ROWS, Y), "reached by two paths"),
    (Case("lengths", [trees("target", of=stump() | {"nodes_values": [0.5]})], ROWS, Y),
     "of several lengths"),
    (Case("a leaf adds elsewhere", [trees("target", ids=(3,))], ROWS, Y), "score 3 of 1"),
    (Case("a class that is left out", [trees("class", ids=(0, 2), classlabels_int64s=[7, 8, 9])],
          ROWS, CHOICE), "onnxruntime ignores it"),
    (Case("numbers of transforms", [ensemble(post_transform=1)], ROWS, Y, opset=5),
     "onnxruntime numbers it"),
    (Case("one class", [regression_machine("RBF", one_class=1)], ROWS, Y), "one_class=1"),
    (Case("half a degree", [regression_machine("POLY", kernel_params=[1.0, 0.0, 2.5])], ROWS, Y),
     "degree=2.5"),
    (Case("vectors", [regression_machine("RBF", support_vectors=[1.0, 2.0])], ROWS, Y),
     "2 numbers of support vectors for 2 of 3"),
    (Case("rho", [machine("RBF", 3, rho=[0.5])], ROWS, CHOICE), "numbers of its classes"),
    (Case("transform of a machine", [machine("RBF", 3, post_transform="SOFTMAX")], ROWS, CHOICE),
     "only NONE is converted"),
    (Case("linear machine", [machine("LINEAR", 3, vectors_per_class=[0, 0, 0])], ROWS, CHOICE),
     "write it as a LinearClassifier"),
    (Case("coefficients", [linear([1.0, 2.0], [0.5], "NONE")], ROWS, CHOICE),
     "2 coefficients for 1 scores of 3 columns"),
    (Case("labels twice", [linear(TABLE, [0.1] * 3, "NONE", {"classlabels_ints": [1, 1, 2]})],
          ROWS, CHOICE), "a label appears twice"),
    (Case("scales", [node("Scaler", ["X"], ["y"], scale=[1.0, 2.0], offset=[0.0])], ROWS, Y),
     "scale has 2 values for 3 columns"),
    (Case("columns out of range", [node("ArrayFeatureExtractor", ["X", "at"], ["y"])], ROWS, Y,
          constants={"at": np.array([5])}), r"picks the columns \[5\] of 3"),
    (Case("a lost node", [trees("target", of=stump() | {
        "nodes_modes": ["LEAF"] * 6})], ROWS, Y), "no branch leads to node 1 of tree 0"),
    (Case("large ids", [trees("target", of=stump() | {
        "nodes_nodeids": [0, 1, 2, 3, 4, 2**40]})], ROWS, Y), "ids of trees and nodes"),
    (Case("leaves that add nothing", [trees("class", class_treeids=[0], class_nodeids=[1],
                                            class_ids=[0], class_weights=[0.5])], ROWS, CHOICE),
     "adds nothing"),
    (Case("a leaf that adds twice", [trees("target", target_nodeids=[1, 1, 4, 0])], ROWS, Y),
     "the same score twice"),
    (Case("one label", [trees("class", classlabels_int64s=[3])], ROWS, CHOICE),
     "it has one class, 3"),
    (Case("NaN among weights", [linear([NAN, *TABLE[1:]], [0.1] * 3, "NONE")], ROWS, CHOICE),
     "coefficients has the value nan"),
    (Case("no kernel parameters", [machine("POLY", 3, kernel_params=[0.5])], ROWS, CHOICE),
     "there are gamma, coef0 and degree"),
    (Case("a key twice", [node("LabelEncoder", ["X"], ["y"], keys_strings=["a", "a"],
                               values_int64s=[1, 2])], TEXTS, {"y": INT64}, STRING),
     "the key 'a' appears twice"),
    (Case("large integers", [node("Imputer", ["X"], ["y"], imputed_value_int64s=[2**40])], NUMBERS,
          {"y": INT64}, INT64), "do not fit into the 32 bits"),
    (Case("ArgMax along the samples",
          [node("Scaler", ["X"], ["s"], offset=[1.0], scale=[2.0]),
           plain("ArgMax", ["s"], ["at"], axis=0),
           node("ArrayFeatureExtractor", ["names", "at"], ["label"])], ROWS, {"label": INT64},
          constants={"names": np.array([4, 5, 6])}), "ArgMax is not along the classes"),
    (Case("float keys that are one", [node("LabelEncoder", ["X"], ["y"], keys_floats=[1.0, 1.0],
                                           values_int64s=[2, 3])], ROWS, {"y": INT64}),
     "the key 1.0 appears twice"),
    (Case("large values of float keys", [node("LabelEncoder", ["X"], ["y"], keys_floats=[1.0],
                                              values_int64s=[2**30])], ROWS, {"y": INT64}),
     "which float32 cannot hold"),
    (Case("members of nothing", [ensemble((6, 1, 3))], ROWS, Y, opset=5),
     "0 sets of membership_values for 1 nodes"),
    (Case("MIN without a candidate", [trees("target", ids=(1,), n_targets=2,
                                            aggregate_function="MIN")], ROWS, Y),
     "does not add to each of 2 targets"),
    (Case("texts as numbers", [node("Scaler", ["X"], ["y"], scale=[1.0], offset=[0.0])], TEXTS, Y,
          STRING), "it reads texts; numbers are needed"),
    (Case("a label in an op", [linear(TABLE, [0.1] * 3, "NONE",
                                      {"classlabels_strings": ["a", "b", "c"]}),
                               plain("Neg", ["label"], ["y"])], ROWS, {"y": INT64}),
     "reads the label of a classifier, a text"),
    (Case("an unknown option", [node("Scaler", ["X"], ["y"], scale=[1.0], offset=[0.0], extra=3)],
          ROWS, Y), "extra=3 cannot be converted"),
]  # fmt: skip
