"""The node test suite of the installed onnx package, through convert and the runtime."""

from __future__ import annotations

import argparse
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

import mlferry
from mlferry.errors import MlferryError
from tests import programs_too

LEDGER = Path(__file__).parents[3] / "docs" / "onnx-node-suite.txt"
# Inputs that exporters write as constants: op to places. The harness freezes them.
CONSTANTS: dict[str, tuple[int, ...]] = {
    "BatchNormalization": (1, 2, 3, 4), "CenterCropPad": (1,), "Clip": (1, 2),
    "Compress": (1,), "ConstantOfShape": (0,), "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "CumProd": (1,), "CumSum": (1,), "DequantizeLinear": (1, 2), "Dropout": (1, 2), "Expand": (1,),
    "GatherND": (1,), "GRU": (1, 2, 3, 4), "LSTM": (1, 2, 3, 4, 7), "RNN": (1, 2, 3, 4),
    "NonMaxSuppression": (2, 3, 4), "OneHot": (1, 2), "Pad": (1, 2, 3),
    "QuantizeLinear": (1, 2), "Range": (0, 1, 2), "ReduceL1": (1,), "ReduceL2": (1,),
    "ReduceLogSum": (1,), "ReduceLogSumExp": (1,), "ReduceMax": (1,), "ReduceMean": (1,),
    "ReduceMin": (1,), "ReduceProd": (1,), "ReduceSum": (1,), "ReduceSumSquare": (1,),
    "Reshape": (1,), "Resize": (1, 2, 3), "ReverseSequence": (1,), "ScatterElements": (1,),
    "ScatterND": (1,), "Scatter": (1,), "Slice": (1, 2, 3, 4), "Split": (1,), "Squeeze": (1,),
    "Tile": (1,), "TopK": (1,), "Trilu": (1,), "Unsqueeze": (1,), "Upsample": (1,),
    "AffineGrid": (1,), "DFT": (1, 2), "STFT": (1, 2, 3), "Col2Im": (1, 2),
    "MaxUnpool": (1, 2), "GridSample": (),
}  # fmt: skip
# float16, double, and integers of 8 to 64 bits, beside the four that most models have
TYPES = {1: np.float32, 6: np.int32, 7: np.int64, 9: np.bool_, 10: np.float16, 11: np.float64,
         2: np.uint8, 3: np.int8, 4: np.uint16, 5: np.int16, 12: np.uint32,
         13: np.uint64}  # fmt: skip
# Cases of these ops, or of training, are not for comparing.
LEFT_OUT = {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli",
            "Multinomial", "Adagrad", "Adam", "Momentum", "Gradient"}  # fmt: skip


@dataclass
class Outcome:
    """What became of a case: "agrees", "refused", "differs" or "crashed", and why."""

    name: str
    result: str
    reason: str = ""


def cases() -> list[Any]:
    """Every case of the suite, generated."""
    from onnx.backend.test import loader

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return loader.load_model_tests(kind="node")


def is_numeric(case: Any) -> bool:
    """Whether inputs and outputs are tensors of numbers; nothing random, no training."""
    graph = case.model.graph
    if "training" in case.name or any(node.op_type in LEFT_OUT for node in graph.node):
        return False
    return all(
        v.type.WhichOneof("value") == "tensor_type" and v.type.tensor_type.elem_type in TYPES
        for v in (*graph.input, *graph.output)
    )


def arrays(case: Any, place: int) -> list[Any]:
    """What a case is given (0), or makes (1); some cases hold messages."""
    return [
        onnx.numpy_helper.to_array(x) if isinstance(x, onnx.TensorProto) else x
        for x in case.data_sets[0][place]
    ]


def frozen(case: Any) -> tuple[onnx.ModelProto, list[np.ndarray], list[str]]:
    """The model with the inputs of `CONSTANTS` as initializers, and what is still given."""
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    inputs = arrays(case, 0)
    named = dict(zip([v.name for v in model.graph.input], inputs, strict=False))
    fixed = {
        node.input[place]
        for node in model.graph.node
        for place in CONSTANTS.get(node.op_type, ())
        if place < len(node.input)
    }
    fixed |= {name for name, array in named.items() if not np.size(array)}  # no input holds it
    kept = [v for v in model.graph.input if v.name not in fixed]
    if not kept:  # a network needs an input
        fixed, kept = set(), list(model.graph.input)
    for name in fixed & set(named):
        model.graph.initializer.append(onnx.numpy_helper.from_array(named[name], name))
    del model.graph.input[:]
    model.graph.input.extend(kept)
    names = [v.name for v in kept]
    return model, [named[name] for name in names if name in named], names


@dataclass
class Attempt:
    """A case that was tried.

    Attributes:
        case: of the suite.
        outcome: what became of it.
        model: what runs, if it converts.
        inputs: by name.
    """

    case: Any
    outcome: Outcome
    model: mlferry.MLModel | None
    inputs: dict[str, Any]


def attempt(case: Any, *, freeze: bool = True) -> Attempt:
    """Convert, run and compare one case."""
    if freeze:
        model, inputs, names = frozen(case)
    else:
        model, inputs = case.model, arrays(case, 0)
        names = [v.name for v in model.graph.input]
    data = dict(zip(names, inputs, strict=False))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            converted = mlferry.convert(model)
            actual = converted.predict(data)
    except MlferryError as error:
        reason = str(error).split("\n")[0][:200]
        return Attempt(case, Outcome(case.name, "refused", reason), None, data)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"[:300]
        return Attempt(case, Outcome(case.name, "crashed", reason), None, data)
    for expected, got in zip(arrays(case, 1), actual.values(), strict=True):
        problem = difference(np.asarray(expected), np.asarray(got), case)
        if problem:
            return Attempt(case, Outcome(case.name, "differs", problem), converted, data)
    return Attempt(case, Outcome(case.name, "agrees"), converted, data)


def difference(expected: np.ndarray, got: np.ndarray, case: Any) -> str:
    """Why two results differ; a value without axes comes as shape (1,)."""
    shape = expected.shape or (1,)
    if got.shape != shape:
        return f"shape {got.shape}, not {shape}"
    left = got.astype(np.float64)
    right = expected.astype(np.float64).reshape(shape)
    if expected.dtype.kind in "iub":  # exact, as far as float32 is
        close = np.abs(left - right) <= np.abs(right) * 2.0**-23 * (np.abs(right) > 2**24)
        return "" if close.all() else f"integers differ, by {np.abs(left - right).max():g}"
    close = np.isclose(left, right, rtol=max(case.rtol, 1e-3), atol=max(case.atol, 1e-5),
                       equal_nan=True)  # fmt: skip
    return "" if close.all() else f"values differ, by {np.nanmax(np.abs(left - right)):g}"


def attempts(*, freeze: bool = True) -> Iterator[Attempt]:
    """Every case of numbers."""
    for case in cases():
        if is_numeric(case):
            yield attempt(case, freeze=freeze)


def as_program(case: Any) -> Outcome | None:
    """Try the network of a case as an ML Program; None where there is no network to try."""
    model, inputs, names = frozen(case)
    data = dict(zip(names, inputs, strict=False))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            converted = mlferry.convert(model)
            actual = converted.predict(data)
    except MlferryError:
        return None
    try:
        tried = programs_too.check(converted, data, actual)
    except MlferryError as error:
        return Outcome(case.name, "crashed", f"{type(error).__name__}: {error}"[:300])
    except AssertionError as error:
        return Outcome(case.name, "differs", str(error)[:300])
    if tried.half:
        return Outcome(case.name, "right, but not in half", tried.half)
    return Outcome(case.name, tried.result, tried.reason)


def heading() -> str:
    """The release that a ledger is for."""
    return f"# onnx {onnx.__version__}: cases of the node suite that are refused, and why"


def ledger(outcomes: list[Outcome]) -> str:
    """Every case that does not agree."""
    lines = [heading()]
    lines += [f"{o.name}: {o.result}: {o.reason}" for o in outcomes if o.result != "agrees"]
    return "\n".join(lines) + "\n"


def programs() -> None:
    """Print what becomes of the networks of all cases as ML Programs; the ledger stays."""
    matches = [as_program(case) for case in cases() if is_numeric(case)]
    tried = [outcome for outcome in matches if outcome is not None]
    for outcome in tried:
        if outcome.result != "right":
            print(f"{outcome.name}: {outcome.result}: {' '.join(outcome.reason.split())}")
    counts = Counter(outcome.result for outcome in tried)
    print(len(matches), "cases,", len(tried), "networks, as programs:", dict(counts))


def main() -> None:
    """Write the ledger and print the counts; with --programs, see `programs`."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--programs", action="store_true")
    if parser.parse_args().programs:
        programs()
        return
    frozen_cases = [tried.outcome for tried in attempts()]
    LEDGER.write_text(ledger(frozen_cases), encoding="utf-8")
    print(
        len(frozen_cases), "cases, constants frozen:", dict(Counter(o.result for o in frozen_cases))
    )
    plain = Counter(tried.outcome.result for tried in attempts(freeze=False))
    print("the same as stored:", dict(plain))


if __name__ == "__main__":
    main()
