"""ML Programs: one of their functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlferry.errors import PredictionError, SpecError, UnsupportedModelError
from mlferry.programs.contents import operations_of
from mlferry.programs.types import TensorType, ValueType
from mlferry.registry import did_you_mean
from mlferry.runtime import features as values, images, inputs
from mlferry.runtime.evaluators.parallel import Parallel
from mlferry.runtime.evaluators.registry import (
    CustomClasses,
    Evaluator,
    Features,
    RunOptions,
    evaluator,
)
from mlferry.runtime.program_session import ProgramSession, State
from mlferry.spec import features
from mlferry.spec.proto import features_pb2 as ft, model_pb2


def description_of(model: model_pb2.Model, function: str | None) -> tuple[str, Any]:
    """The function to run, and the description of its inputs, outputs and states.

    Raises:
        SpecError: there is no such function.
    """
    described = model.description
    if not described.functions:
        name = function or "main"
        if name not in model.mlProgram.functions:
            known = sorted(model.mlProgram.functions)
            raise SpecError(
                f"the program has no function {name!r}.{did_you_mean(name, known)} It has "
                f"{', '.join(known)}"
            )
        return name, described
    name = function or described.defaultFunctionName
    functions = {each.name: each for each in described.functions}
    if name not in functions:
        raise SpecError(
            f"the model has no function {name!r}.{did_you_mean(name, list(functions))} It has "
            f"{', '.join(functions)}: "
            f"mlferry.MLModel(path, function_name={next(iter(functions))!r})"
        )
    return name, functions[name]


class ProgramEvaluator(Parallel):
    """A function with its inputs and outputs.

    Attributes:
        session: the plan; `run` takes the names of any values as outputs.
    """

    def __init__(self, model: model_pb2.Model, classes: CustomClasses) -> None:
        options = classes.program
        name, self._described = description_of(model, options.function)
        function = model.mlProgram.functions[name]
        self.session = classes.engine.for_program(function, options.weights, options.precision)
        kinds = [
            each.type for each in operations_of(function.block_specializations[function.opset])
        ]
        in_order = bool(self.session.states) or any(kind.startswith("random_") for kind in kinds)
        keeps = type(self.session) is ProgramSession and self.session.widened
        super().__init__(self.session.threads, shares=keeps and not in_order)
        self._inputs = {feature.name: feature.type for feature in self._described.input}
        self._outputs = {feature.name: feature.type for feature in self._described.output}

    def make_state(self) -> State:
        """The state before the first prediction."""
        return self.session.make_state()

    def values(self, data: Features) -> dict[str, Any]:
        """What the function gets for the features of a sample."""
        inputs.check_names(data, self._described)
        return {
            name: _input(name, data[name], kind, self.session.inputs[name])
            if data.get(name) is not None
            else _default(kind)
            for name, kind in self._inputs.items()
        }

    def makers(self) -> dict[str, tuple[str, str]]:
        """The name and kind of the operation that makes each value; not inside of blocks."""
        return self.session.makers()

    def inside(self, data: Features, names: Sequence[str]) -> dict[str, Any]:
        """See `Transparent`."""
        return self.session.run(self.values(data), list(names))

    def __call__(self, data: Features, state: State | None = None) -> dict[str, Any]:
        """The outputs for the features of a sample.

        Raises:
            PredictionError: a name, shape or value does not fit.
        """
        if self.session.states and state is None:
            raise PredictionError(
                "the model has a state: state = model.make_state(), and model.predict(data, state)"
            )
        if state is not None and not self.session.states:
            raise UnsupportedModelError("the model has no state: model.predict(data)")
        outputs = self.session.run(self.values(data), list(self._outputs), state)
        return {name: _output(name, outputs[name], kind) for name, kind in self._outputs.items()}


def _input(name: str, value: NDArray[Any], feature: ft.FeatureType, kind: ValueType) -> Any:
    form = feature.WhichOneof("Type")
    if form == "imageType":
        return images.to_blob(name, value, feature.imageType)
    if form == "multiArrayType":
        array = _checked(name, value, kind)
        shape = kind.shape if isinstance(kind, TensorType) else None
        if shape == ():
            return values.fitted(name, np.atleast_1d(array), feature).reshape(())
        return values.fitted(name, array, feature)
    return values.to_feature(name, value, feature)


def _checked(name: str, value: NDArray[Any], kind: ValueType) -> Any:
    """An array of numbers, checked against the type of an input."""
    array = values.numbers(name, value)
    dtype = kind.dtype if isinstance(kind, TensorType) else "fp32"
    if dtype.startswith(("int", "uint")) and array.dtype.kind == "f":
        with np.errstate(invalid="ignore"):
            whole = array.astype(np.int64)
        if not np.array_equal(whole, array):
            raise PredictionError(f"input {name!r} takes {dtype}; its value has fractions")
        array = whole
    if dtype == "int32" and array.size and not _is_int32(array):
        raise PredictionError(f"input {name!r} has values that int32 cannot hold")
    return array


def _is_int32(array: NDArray[Any]) -> bool:
    bounds = np.iinfo(np.int32)
    return bool(array.min() >= bounds.min and array.max() <= bounds.max)


def _default(feature: ft.FeatureType) -> Any:
    """The value of an optional input that is not given."""
    shape = tuple(feature.multiArrayType.shape)
    dtype = features.DTYPES.get(feature.multiArrayType.dataType, "float32")
    return np.full(shape, features.default_of(feature), dtype)


def _output(name: str, value: NDArray[Any], feature: ft.FeatureType) -> Any:
    if isinstance(value, np.ndarray) and value.shape == ():
        value = value.reshape(1)
    if feature.WhichOneof("Type") == "stringType" and isinstance(value, np.ndarray):
        return str(value.item())
    return inputs.to_user(name, value, feature)


def check_precision(precision: str) -> None:
    """Raise a `SpecError` where there is no such precision."""
    if precision not in ("half", "exact"):
        raise SpecError(f"precision={precision!r}: half or exact")


def check_options(model: model_pb2.Model, options: RunOptions) -> None:
    """Raise where options for programs do not fit a model.

    Raises:
        SpecError: there is no such function, or no such precision.
        UnsupportedModelError: the model is not a program, and has no functions.
    """
    check_precision(options.precision)
    if options.function is None:
        return
    if model.WhichOneof("Type") != "mlProgram":
        raise UnsupportedModelError(
            f"function_name={options.function!r}: the model is a {model.WhichOneof('Type')}; "
            "ML Programs have functions"
        )
    description_of(model, options.function)


@evaluator("mlProgram")
def program(model: model_pb2.Model, classes: CustomClasses) -> Evaluator:
    """A function of an ML Program."""
    return ProgramEvaluator(model, classes)
