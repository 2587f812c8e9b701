"""Write the support tables of docs/ from the registries. Run by ``make docs``."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from mlferry.converters.keras.ops import OPS as KERAS
from mlferry.converters.onnx.ml import OPS as PREDICTORS
from mlferry.converters.onnx.ops import OPS as ONNX
from mlferry.converters.tensorflow.ops import OPS as TENSORFLOW
from mlferry.exporters.onnx.network import SPECIAL
from mlferry.layers import versions
from mlferry.layers.builder import LAYER_KINDS
from mlferry.layers.definitions import DEFINITIONS
from mlferry.layers.exports import OPS as EXPORTS
from mlferry.layers.kernels import KERNELS
from mlferry.layers.programs import PROGRAM_OPS
from mlferry.runtime.session import CONTROL_FLOW
from mlferry.spec.proto import neural_network_pb2 as nn

DOCS = Path(__file__).resolve().parent.parent / "docs"
CONTROL = {*CONTROL_FLOW, "custom"}
NOTE = "<!-- written by `make docs`; do not edit -->"


def table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def keras_page() -> str:
    """What becomes of every layer class of Keras, activation and function."""
    sys.path.insert(0, str(DOCS.parent))
    import keras

    from tests.converters.keras import support

    rows = support.table(keras)
    done, counting = support.share(rows)
    functions = [name.removeprefix("keras.ops.") for name in KERAS if name.startswith("keras.ops")]
    others = [name.removeprefix("tf.") for name in KERAS if name.startswith("tf.")]
    activations = [name for name in KERAS if "." not in name and not name[0].isupper()]
    return "\n\n".join(
        [
            NOTE,
            "# Keras support",
            "Every option of these layers is carried over or refused with an error. For every "
            "other layer, pass a function in `custom_conversion_functions`.",
            f"## Layers\n\nEvery class of `keras.layers`. Of the "
            f"{counting} that compute with numbers when a model predicts, {done} convert "
            f"({100 * done // counting} %). Recurrent layers become Core ML's own where these "
            "compute the same, and are composed step by step otherwise. Masks are carried over.",
            table(
                ("layer", "", "how, or why not"),
                ((f"`{row.name}`", row.status, row.remark) for row in rows),
            ),
            "Layers of Keras 1 and 2 convert under their old names, too, and so does "
            "`ThresholdedReLU`.",
            f"## Activations ({len(activations)})",
            ", ".join(f"`{name}`" for name in activations),
            f"## Functions of `keras.ops` in functional models ({len(functions)})",
            ", ".join(f"`{name}`" for name in functions),
            f"## Functions of TensorFlow in functional models of Keras 2 ({len(others)})",
            ", ".join(f"`{name}`" for name in others),
            '## Quantized models\n\nWeights of `model.quantize("int8")` and `"int4"` keep their '
            "integers. Activations are rounded as in Keras, or not at all with "
            '`activation_quantization="drop"`.\n',
        ]
    )


def onnx_page() -> str:
    """The ops of ONNX that convert."""
    ledger = Path(__file__).resolve().parent.parent / "docs/onnx-node-suite.txt"
    refused = ledger.read_text(encoding="utf-8").count(": refused: ")
    return "\n\n".join(
        [
            NOTE,
            "# ONNX support",
            "mlferry reads every opset. Every attribute of these ops is carried over or refused "
            "with an error. Ops that are functions in ONNX are converted by their bodies, and "
            "everything that can be computed during the conversion is. For every other op, pass a "
            "function in `custom_conversion_functions`.",
            f"Of the node suite of the onnx package, with all types of numbers, {refused} cases "
            "are refused, each with its reason in [the ledger](onnx-node-suite.txt). All others "
            "agree.",
            "Ops of the domain `com.microsoft` are those that onnxruntime's optimizer and its "
            "quantizers write. Your `custom_conversion_functions` take precedence over them, by "
            "either name.",
            f"## Ops ({len(ONNX)})",
            ", ".join(f"`{name}`" for name in ONNX),
            "## Types\n\nInteger and boolean inputs and outputs become int32 multi-arrays, double "
            "stays double, and float16 becomes float32. Core ML computes in float32, so constant "
            "integers above 2**24 are refused. A scalar is an array of shape (1,).",
            "## Quantization\n\nWeights behind `DequantizeLinear` of 8 or 4 bits, per tensor or per"
            " output channel, stay quantized; those with a scale for each block become floats. "
            'Activations are rounded as in ONNX; `activation_quantization="drop"` leaves the '
            "rounding out.",
            "## Shapes that vary\n\n`RangeDim` and `EnumeratedShapes` work through convolutions, "
            "pooling, upsampling, normalization and everything that computes value by value, for "
            "arrays and for images; through transformers of any length, and through resizes to "
            "the size of another map. Shapes, and operands of `Slice`, `Pad`, `Tile`, `Expand`, "
            "`Range`, `TopK` and `OneHot`, may be computed from other shapes. If an op needs a "
            "fixed extent, the error says so. If a file leaves shapes open, the error suggests "
            "some that fit together.",
            "## Control flow\n\nConditions with known values are resolved, and loops without "
            "weights of up to eight rounds are unrolled. Others become Core ML's branch and loop,"
            " if shapes stay the same; the weights of a loop's body are stored once. If a "
            "condition depends on an input that is always the same, fix it: "
            '`mlferry.TensorType("rate", value=16000)`.',
            predictors(),
        ]
    )


_MADE = {
    "ArrayFeatureExtractor": "arrayFeatureExtractor; at an `ArgMax`, the label of a classifier; at "
    "other computed places a neural network",
    "Binarizer": "a neural network",
    "CategoryMapper": "categoricalMapping",
    "DictVectorizer": "dictVectorizer and featureVectorizer",
    "FeatureVectorizer": "featureVectorizer",
    "Imputer": "imputer",
    "LabelEncoder": "categoricalMapping; with float values oneHotEncoder and glmRegressor, too; "
    "with float keys a neural network",
    "LinearClassifier": "glmClassifier; scores that are not a distribution: a neural network",
    "LinearRegressor": "glmRegressor; for several targets, a neural network",
    "Normalizer": "normalizer; MAX, the largest value and not the largest magnitude: a neural "
    "network; L1 behind LOGISTIC scores: glmClassifier, one-vs-rest",
    "OneHotEncoder": "oneHotEncoder, one for each column",
    "SVMClassifier": "supportVectorClassifier, one for the label and one for the probabilities; "
    "without those supportVectorRegressor for the decision of each pair",
    "SVMRegressor": "supportVectorRegressor",
    "Scaler": "scaler",
    "TreeEnsemble": "treeEnsembleRegressor; with a neural network for MIN, MAX and PROBIT",
    "TreeEnsembleClassifier": "treeEnsembleClassifier",
    "TreeEnsembleRegressor": "treeEnsembleRegressor; with a neural network for MIN, MAX and PROBIT",
    "ZipMap": "the dictionary of a classifier's probabilities",
}
_NOT_MADE = {
    "LabelEncoder": "integers above 2**24 for float keys",
    "LinearClassifier": "PROBIT, SOFTMAX_ZERO",
    "LinearRegressor": "`post_transform`",
    "SVMClassifier": "`post_transform`; linear machines without support vectors",
    "SVMRegressor": "`post_transform`, `one_class`",
    "TreeEnsemble": "`post_transform` except PROBIT",
    "TreeEnsembleClassifier": "PROBIT, SOFTMAX_ZERO; two classes with weights of both, or with "
    "two `base_values`",
    "TreeEnsembleRegressor": "SOFTMAX_ZERO; `post_transform` of one target except PROBIT",
}


def predictors() -> str:
    """The ops of the domain `ai.onnx.ml`, and what becomes of them."""
    rows = [f"| `{name}` | {_MADE[name]} | {_NOT_MADE.get(name, '')} |" for name in PREDICTORS]
    return "\n".join(
        [
            "## scikit-learn, XGBoost, LightGBM\n",
            "Their models come as ONNX files (skl2onnx, onnxmltools) in the domain `ai.onnx.ml`. "
            "Such a file becomes Core ML's own predictors: one model, or a pipeline in which "
            "ordinary ops become neural networks. `predict` returns onnxruntime's labels and "
            "scores.\n",
            "| op | becomes | refused, with an error |",
            "|---|---|---|",
            *rows,
            "",
            "- A prediction takes one sample: a tensor [N, C] is the multi-array [C]; text or "
            "int64 columns [N, 1] are single values; texts [N, C] are the inputs `name_0`, "
            "`name_1`, ...",
            "- The label is a string or int64, and scores are a dictionary by label, with or "
            "without `ZipMap`. Both are those of onnxruntime, even where they disagree with each "
            "other, as they may for support vector machines with probabilities.",
            "- Trees are added in float32, one after another, as onnxruntime does with one "
            "thread, so that ties fall the same way. With several threads, onnxruntime's own "
            "labels may change.",
            "- A NaN goes where `nodes_missing_value_tracks_true` says.",
            "- Probabilities of a support vector machine for two classes differ from "
            "onnxruntime's by up to 0.005, because onnxruntime iterates where Core ML uses a "
            "formula.",
            "- What runtimes disagree on is refused, and so is what Core ML has no counterpart "
            "for. One error names all such nodes.\n",
        ]
    )


def tensorflow_page() -> str:
    """The ops of TensorFlow that convert."""
    return "\n\n".join(
        [
            NOTE,
            "# TensorFlow support",
            "A SavedModel's folder, a frozen graph (`.pb`, `.pbtxt` or `GraphDef`), a "
            "`tf.function`, a concrete function, or a Keras model that is your own class. "
            "TensorFlow itself freezes variables and inlines functions: "
            "`pip install 'mlferry[tensorflow]'`.",
            "```python\nimport mlferry\nimport numpy as np\nimport tensorflow as tf\n\n\n"
            "@tf.function(autograph=False)\n"
            "def net(image):\n    return tf.nn.softmax(tf.reduce_mean(image, (1, 2)))\n\n\n"
            "model = mlferry.convert(net, inputs=[mlferry.TensorType(shape=(1, 8, 8, 3))])\n"
            'model.predict({"image": np.zeros((1, 8, 8, 3))})\n```',
            'Choose the outputs of a frozen graph with `outputs=["scope/name"]`, and the '
            'signature of a SavedModel with `signature="serving_default"`; its keys are the names'
            " of the features. Names of features have no slashes or colons: names without them "
            "stay the same, and `scope/x` becomes `scope_x`, or `scope_x_1` if there is a "
            "`scope_x` already. You may use either name for inputs and outputs. Images are "
            "channels-last in TensorFlow and channels-first in Core ML. mlferry adds transposes "
            "only where the order really changes, and none inside a convolutional network.",
            f"## Ops ({len(TENSORFLOW)})",
            ", ".join(f"`{name}`" for name in TENSORFLOW),
            "Everything that depends only on known values is computed during the conversion, by "
            "TensorFlow itself, whatever the op. For every other op, mlferry looks into "
            "`custom_conversion_functions`, by the name of the node or by the op. This includes "
            "ops that the installed TensorFlow does not know: your own, or those of tf.contrib, "
            "such as `Resampler`.",
            "Core ML computes in float32, also in place of float16 and bfloat16. Casts to 8-bit "
            "and 16-bit integers, and their sums and products, overflow as in TensorFlow.",
            "## Control flow\n\nConditions with known values are resolved, and loops of up to eight"
            " rounds are unrolled; others become Core ML's branch and loop. So do recurrent Keras"
            " layers that come through TensorFlow: their weights are stored once, however many "
            "steps there are. The control flow of TensorFlow 1 (`Switch`, `Merge`, `Enter`, "
            "`Exit`, `TensorArray`) is read in the same way. Functions that change a variable are"
            " refused, because Core ML's networks keep no state.",
            "## Quantization\n\nWeights behind `FakeQuantWithMinMaxVars` of up to 8 bits stay "
            "quantized. Activations are rounded as in TensorFlow; "
            '`activation_quantization="drop"` leaves the rounding out.\n',
        ]
    )


def _tested() -> Counter[tuple[str, bool]]:
    """How many rows of the tests each kind has, in exact mapping and in rank 5."""
    sys.path.insert(0, str(DOCS.parent))
    from tests.layers.test_kernels import CASES

    return Counter((case.kind, case.mapping == "rank5") for case in CASES)


def layers_page() -> str:
    """The layer kinds of Core ML that have a kernel and a shape rule."""
    tested = _tested()
    rows = []
    for kind in LAYER_KINDS:
        layer = nn.NeuralNetworkLayer()
        getattr(layer, kind).SetInParent()
        version = versions.layer_version(layer)
        by_session = kind in CONTROL
        rows.append(
            (
                f"`{kind}`",
                str(version),
                "session" if by_session else "yes" if kind in KERNELS else "no",
                "session" if by_session else "yes" if kind in DEFINITIONS else "no",
                str(tested[(kind, False)] or ""),
                str(tested[(kind, True)] or ""),
            )
        )
    done = sum(row[2] != "no" for row in rows)
    return "\n\n".join(
        [
            NOTE,
            "# Core ML layers that run here",
            f"{done} of {len(rows)} layer kinds have a kernel. The session runs control flow and "
            "custom layers, which have their own tests. Where Apple does not document the "
            "behaviour, [these choices](device-choices.md) apply.",
            table(
                ("kind", "version", "kernel", "shape rule", "tests, exact", "tests, rank 5"), rows
            )
            + "\n",
        ]
    )


BY_THE_WALKER = {
    "custom": ("an op of the domain `ai.mlferry.custom`", ""),
    "branch": ("`If`", "a blob that only one way writes and something after it reads"),
    "loop": ("`Loop`", "a blob that its rounds may not write and something after it reads"),
    "loopBreak": ("`If` around the rest of the round", ""),
    "loopContinue": ("`If` around the rest of the round", ""),
}


def _nodes() -> dict[str, Counter[str]]:
    """The nodes that every kind becomes in the rows of the tests: in how many rows each."""
    sys.path.insert(0, str(DOCS.parent))
    from tests.exporters.onnx.support import nodes_of
    from tests.layers.test_kernels import CASES

    found: dict[str, Counter[str]] = {}
    for case in CASES:
        found.setdefault(case.kind, Counter()).update(nodes_of(case))
    return found


def exported_page() -> str:
    """What every layer kind becomes in ONNX."""
    tested, nodes = _tested(), _nodes()
    rows = []
    for kind in LAYER_KINDS:
        entry = EXPORTS.find(kind)
        if entry is None:
            shown, limits = BY_THE_WALKER[kind] if kind in SPECIAL else ("no", "not exported")
        else:
            ranked = sorted(nodes[kind].items(), key=lambda item: (-item[1], item[0]))
            shown = ", ".join(f"`{name}`" for name, _ in ranked)
            shown = shown or ("nothing" if kind == "copy" else "a constant")
            limits = entry.options.get("limits", "")
        rows.append(
            (
                f"`{kind}`",
                shown,
                str(tested[(kind, False)] or ""),
                str(tested[(kind, True)] or ""),
                limits,
            )
        )
    done = sum(row[1] != "no" for row in rows)
    return "\n\n".join(
        [
            NOTE,
            "# Core ML layers in ONNX",
            f"{done} of {len(rows)} layer kinds become ONNX nodes of opset 18: see "
            "[exporting](exporting.md). The nodes are those of the test rows, the most frequent "
            "first; onnxruntime runs every row, and the result is compared with an expected value. "
            "Control flow and custom layers have their own tests. A refusal is an error that names "
            'the layer; with `engine="onnxruntime"`, such layers run on NumPy.',
            table(("kind", "nodes", "tests, exact", "tests, rank 5", "refused"), rows) + "\n",
        ]
    )


def _operations() -> dict[str, Counter[str]]:
    """The operations of a program that the rows of the tests of each kind become."""
    sys.path.insert(0, str(Path(__file__).parent.parent))
    from tests.exporters.program.support import operations_of
    from tests.layers.test_kernels import CASES

    found: dict[str, Counter[str]] = {}
    for case in (row for row in CASES if row.mapping == "exact"):
        found.setdefault(case.kind, Counter()).update(operations_of(case))
    return found


def programs_page() -> str:
    """What every layer kind becomes in an ML Program."""
    operations = _operations()
    rows = []
    for kind in LAYER_KINDS:
        entry = PROGRAM_OPS.find(kind)
        if entry is None:
            shown, limits = IN_PROGRAMS[kind]
        else:
            ranked = sorted(operations[kind].items(), key=lambda item: (-item[1], item[0]))
            shown = ", ".join(f"`{name}`" for name, _ in ranked)
            shown = shown or ("nothing" if kind == "copy" else "a constant")
            limits = entry.options.get("limits", "")
        rows.append((f"`{kind}`", shown, limits))
    return "\n\n".join(
        [
            NOTE,
            "# Core ML layers in ML Programs",
            f"What the {len(rows)} layer kinds become when a network is [written as an ML "
            "Program](programs.md#write). The operations are those of the test rows, the most "
            "frequent first, before passes merge them. Every row is checked, read by coremltools, "
            "run by both engines and compared with an expected value. A refusal is an error that "
            "names the layer.",
            table(("kind", "operations", "refused"), rows) + "\n",
        ]
    )


IN_PROGRAMS = {
    "branch": ("`cond`", ""),
    "loop": ("`while_loop`", ""),
    "loopBreak": ("the flag of a `while_loop`", ""),
    "loopContinue": ("the flag of a `while_loop`", ""),
    "custom": ("a network of its own, in a pipeline", "blobs around it whose size varies"),
}


def names_page() -> str:
    """Every name of coremltools 2 to 5, and what mlferry has of it."""
    sys.path.insert(0, str(Path(__file__).parent))
    from coremltools_names import table as names

    rows = names()
    counts = Counter(row.status for row in rows)
    return "\n\n".join(
        [
            NOTE,
            "# Names of coremltools",
            f"Every public function, class and method of coremltools 2 to 5 for Keras, ONNX and "
            f"neural networks, with its arguments, and what mlferry has under the same name: of "
            f"{len(rows)}, {counts['same']} are the same, {counts['differs']} differ, and "
            f"{counts['left out']} are left out. See also [coming from coremltools]"
            "(coming-from-coremltools.md).",
            table(
                ("name, arguments", "releases", "", "how, or why"),
                ((f"`{r.name}({r.arguments})`", r.releases, r.status, r.remark) for r in rows),
            )
            + "\n",
        ]
    )


PAGES = {
    "coremltools-names.md": names_page,
    "keras.md": keras_page,
    "onnx.md": onnx_page,
    "tensorflow.md": tensorflow_page,
    "layers.md": layers_page,
    "exported-layers.md": exported_page,
    "program-layers.md": programs_page,
}


def main() -> None:
    """Write every page."""
    DOCS.mkdir(exist_ok=True)
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
