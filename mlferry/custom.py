"""Custom layers, as converters and the runtime share them.

`CustomLayerParams` is what a conversion function returns; `CustomLayer` is the base class of
the Python classes that evaluate a custom layer. It mirrors Apple's `MLCustomLayer`, so that
the Swift class for the device is a direct port:

====================================  ====================================================
Python                                Swift
====================================  ====================================================
``__init__(parameters)``              ``init(parameters:)``
``set_weights(weights)``              ``setWeightData(_:)``
``output_shapes(input_shapes)``       ``outputShapes(forInputShapes:)``
``evaluate(inputs)``                  ``evaluate(inputs:outputs:)``
``backward(inputs, outputs, ...)``    none: devices do not train through custom layers
====================================  ====================================================
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlferry.errors import CustomLayerError, MlferryError
from mlferry.registry import Registry
from mlferry.spec import weights as stored_weights
from mlferry.spec.proto import neural_network_pb2 as nn, predictors_pb2

# Metadata under this key and a layer's name say in which order of axes its data come.
LAYOUT_KEY = "com.github.mlferry.custom_layer_layout."

# The parameter with the names and shapes of weights, as JSON; the format stores them flat.
WEIGHTS_KEY = "com.github.mlferry.weights"

Shape = tuple[int, ...]
ParameterValue = bool | int | float | str


@dataclass
class CustomLayerParams:
    """What the model says about a custom layer.

    Attributes:
        class_name: name of the class that evaluates the layer, in Swift and in Python.
        description: shown when the model is opened in Xcode or with ``mlferry inspect``.
        parameters: values handed to the class: bool, int, float or str (NumPy scalars too).
        weights: arrays, kept as float32, or as half or uint8 when they are given so. By their
            names (``weights=node.weights``) the model tells their shapes, too: the Python class
            then gets shaped arrays, the scaffolds say them, and others may ignore it.
        output_shapes: the shapes of the outputs, or a function from the input shapes to
            them. Only needed where later layers must know the shape and no registered
            `CustomLayer` class tells it.
        channels_first: True hands the layer Core ML's channels-first data. By default it
            gets what the layer of the source model got: same shapes, same axis order.
        takes_mask: whether the class gets the masks of its inputs, as further inputs behind
            them: 1 where a step counts, 0 elsewhere. By default it does where the layer of the
            source model computes with a mask; a file may not tell, and the conversion asks.
        passes_mask: whether the layers behind it get the mask, too. By default what the layer of
            the source model does; a file may not tell, and the conversion asks where it matters.
    """

    class_name: str
    description: str = ""
    parameters: Mapping[str, ParameterValue] = field(default_factory=dict)
    weights: Sequence[ArrayLike] | Mapping[str, ArrayLike] = ()
    output_shapes: Sequence[Shape] | Callable[[list[Shape]], Sequence[Shape]] | None = None
    channels_first: bool = False
    takes_mask: bool | None = None
    passes_mask: bool | None = None


class CustomLayer:
    """Base class of the Python classes that evaluate custom layers.

    Subclasses override `evaluate` and, when shapes change, `output_shapes`::

        @mlferry.register_custom_layer("Swish")
        class Swish(mlferry.CustomLayer):
            def evaluate(self, inputs):
                return [x / (1 + np.exp(-x)) for x in inputs]
    """

    def __init__(self, parameters: Mapping[str, ParameterValue]) -> None:
        """Receive the layer's parameters; called once, when the model is loaded."""
        self.parameters = dict(parameters)
        self.weights: list[NDArray[Any]] = []

    def set_weights(self, weights: list[NDArray[Any]]) -> None:
        """Receive the layer's weights in their stored encoding; called once.

        They are float32, float16, or uint8 if the file holds raw bytes; flat, or in shapes if the
        model records them.
        """
        self.weights = weights

    def output_shapes(self, input_shapes: list[Shape]) -> Sequence[Shape]:
        """The shapes of the outputs for those of the inputs; the same shapes by default."""
        return list(input_shapes)

    def evaluate(self, inputs: list[NDArray[np.float32]]) -> Sequence[ArrayLike]:
        """The outputs for float32 inputs, in the shapes that `output_shapes` promised."""
        raise NotImplementedError(f"{type(self).__name__}.evaluate is not written yet")

    def backward(
        self,
        inputs: list[NDArray[np.float32]],
        outputs: list[NDArray[np.float32]],
        output_gradients: list[NDArray[np.float32]],
    ) -> Sequence[ArrayLike | None]:
        """The gradient, for `MLModel.gradient` and for training layers before this one.

        It is used only here: a device does not train through custom layers.

        Args:
            inputs: those that `evaluate` received.
            outputs: what `evaluate` returned.
            output_gradients: how much some value changes with each value of the outputs.

        Returns:
            how much it changes with each value of the inputs: for each input one array of its
            shape, or None if it does not change.
        """
        raise NotImplementedError(f"{type(self).__name__}.backward is not written yet")


CUSTOM_LAYERS: Registry[type[CustomLayer]] = Registry("custom layer", replace=True)

L = TypeVar("L", bound=type[CustomLayer])


def register_custom_layer(class_name: str) -> Callable[[L], L]:
    """Class decorator: use this class for every custom layer named `class_name`.

    Registering a name again replaces the class, as re-running a notebook cell does.
    """

    def decorate(cls: L) -> L:
        CUSTOM_LAYERS.add(class_name, cls)
        return cls

    return decorate


class CustomModel:
    """Base class of the Python classes that evaluate custom models.

    It mirrors Apple's ``MLCustomModel``::

        @mlferry.register_custom_model("Summer")
        class Summer(mlferry.CustomModel):
            def predict(self, inputs):
                return {"total": sum(inputs.values())}
    """

    def __init__(self, parameters: Mapping[str, ParameterValue | bytes]) -> None:
        """Receive the model's parameters; called once, when the model is loaded."""
        self.parameters = dict(parameters)

    def predict(self, inputs: dict[str, Any]) -> Mapping[str, Any]:
        """The outputs by name for the inputs by name."""
        raise NotImplementedError(f"{type(self).__name__}.predict is not written yet")


CUSTOM_MODELS: Registry[type[CustomModel]] = Registry("custom model", replace=True)

M = TypeVar("M", bound=type[CustomModel])


def register_custom_model(class_name: str) -> Callable[[M], M]:
    """Class decorator: use this class for every custom model named `class_name`."""

    def decorate(cls: M) -> M:
        CUSTOM_MODELS.add(class_name, cls)
        return cls

    return decorate


def model_parameters_of(params: predictors_pb2.CustomModel) -> dict[str, ParameterValue | bytes]:
    """The parameters of a custom model, as Python values."""
    return _values(params)


def parameters_of(params: nn.CustomLayerParams) -> dict[str, ParameterValue]:
    """The parameters of a custom layer of a model, as Python values."""
    return _values(params)


def _values(params: predictors_pb2.CustomModel | nn.CustomLayerParams) -> dict[str, Any]:
    values = sorted(params.parameters.items())
    return {name: getattr(value, value.WhichOneof("value") or "", "") for name, value in values}


def class_parameters_of(params: nn.CustomLayerParams) -> dict[str, ParameterValue]:
    """The parameters that a class receives, without the one that describes the weights."""
    values = parameters_of(params)
    values.pop(WEIGHTS_KEY, None)
    return values


def weight_shapes_of(params: nn.CustomLayerParams) -> list[tuple[str, Shape]]:
    """The names and shapes of a custom layer's weights; empty if the model does not record them.

    Raises:
        CustomLayerError: the record is not a list of names and shapes, one for each weight.
    """
    if WEIGHTS_KEY not in params.parameters:
        return []
    try:
        entries = json.loads(params.parameters[WEIGHTS_KEY].stringValue)
        shapes = [(str(item["name"]), tuple(int(n) for n in item["shape"])) for item in entries]
        counts = [stored_weights.count(weight) for weight in params.weights]
        fits = [math.prod(shape) for _, shape in shapes] == counts
    except (ValueError, TypeError, KeyError) as error:
        raise CustomLayerError(
            f"parameter {WEIGHTS_KEY!r} of {params.className!r} does not hold names and shapes: "
            f"{error!r:.200}"
        ) from error
    if not fits:
        text = ", ".join(f"{name} {shape}" for name, shape in shapes)
        raise CustomLayerError(
            f"{params.className!r} has weights of {counts} values; parameter {WEIGHTS_KEY!r} says "
            f"{text}"
        )
    return shapes


class Instance:
    """A user's object for one custom layer; every call is guarded and its result checked.

    Args:
        name: of the layer, for messages.
        cls: the user's class.
        params: what the model says about the layer.
        outputs: how many outputs the layer has.

    Raises:
        CustomLayerError: the class raised.
    """

    def __init__(
        self, name: str, cls: type[CustomLayer], params: nn.CustomLayerParams, outputs: int
    ) -> None:
        self.name = name
        self.cls = cls
        self.outputs = outputs
        self._shapes: dict[tuple[Shape, ...], list[Shape]] = {}
        self._object: CustomLayer = self._call("__init__", cls, class_parameters_of(params))
        if params.weights:
            arrays = [stored_weights.stored(weight) for weight in params.weights]
            shapes = [shape for _, shape in weight_shapes_of(params)]
            if shapes:
                arrays = [a.reshape(s) for a, s in zip(arrays, shapes, strict=True)]
            self._call("set_weights", self._object.set_weights, arrays)

    def output_shapes(self, input_shapes: Sequence[Shape]) -> list[Shape]:
        """The promised shapes; the class is asked once for each set of input shapes.

        Raises:
            CustomLayerError: the class raised, or returned something other than shapes.
        """
        key = tuple(tuple(shape) for shape in input_shapes)
        if key not in self._shapes:
            answer = self._call("output_shapes", self._object.output_shapes, list(key))
            try:
                shapes = [tuple(int(extent) for extent in shape) for shape in answer]
            except TypeError:
                raise CustomLayerError(
                    f"{self}: output_shapes returns one shape for each output, e.g. "
                    f"[(1, 8, 8, 3)]; it returned {answer!r}"
                ) from None
            if len(shapes) != self.outputs:
                raise CustomLayerError(
                    f"{self}: output_shapes returned {len(shapes)} shapes for "
                    f"{self.outputs} outputs"
                )
            self._shapes[key] = shapes
        return self._shapes[key]

    def evaluate(self, inputs: Sequence[NDArray[np.float32]]) -> tuple[NDArray[np.float32], ...]:
        """The outputs, in the promised shapes.

        Raises:
            CustomLayerError: the class raised, or returned something else.
        """
        promised = self.output_shapes([x.shape for x in inputs])
        answer = self._call("evaluate", self._object.evaluate, list(inputs))
        if isinstance(answer, np.ndarray) or not isinstance(answer, Sequence):
            raise CustomLayerError(
                f"{self}: evaluate returns a list with one array for each output, not a "
                f"{type(answer).__name__}"
            )
        if len(answer) != self.outputs:
            raise CustomLayerError(
                f"{self}: evaluate returned {len(answer)} arrays for {self.outputs} outputs"
            )
        arrays = tuple(np.asarray(array, np.float32) for array in answer)
        for index, (array, shape) in enumerate(zip(arrays, promised, strict=True)):
            if array.shape != shape:
                raise CustomLayerError(
                    f"{self}: output {index} has shape {array.shape}; "
                    f"output_shapes promised {shape}"
                )
        return arrays

    def backward(
        self,
        inputs: Sequence[NDArray[np.float32]],
        outputs: Sequence[NDArray[np.float32]],
        gradients: Sequence[NDArray[Any]],
    ) -> list[NDArray[Any] | None]:
        """The gradients of the inputs; see `CustomLayer.backward`.

        Raises:
            CustomLayerError: the class has no such method, it raised, or returned something else.
        """
        if self.cls.backward is CustomLayer.backward:
            raise CustomLayerError(
                f"{self}: a gradient has to pass it, and the class has no `backward`. Write it:\n\n"
                "    def backward(self, inputs, outputs, output_gradients):\n"
                "        # one array for each input: how much the result changes with each value\n"
                "        return [gradient * 1.0 for gradient in output_gradients]"
            )
        answer = self._call(
            "backward", self._object.backward, list(inputs), list(outputs), list(gradients)
        )
        if isinstance(answer, np.ndarray) or not isinstance(answer, Sequence):
            raise CustomLayerError(
                f"{self}: backward returns a list with one array for each input, not a "
                f"{type(answer).__name__}"
            )
        if len(answer) != len(inputs):
            raise CustomLayerError(
                f"{self}: backward returned {len(answer)} arrays for {len(inputs)} inputs"
            )
        arrays = [None if each is None else np.asarray(each, np.float32) for each in answer]
        for index, (gradient, x) in enumerate(zip(arrays, inputs, strict=True)):
            if gradient is not None and gradient.shape != x.shape:
                raise CustomLayerError(
                    f"{self}: the gradient of input {index} has shape {gradient.shape}; the input "
                    f"has {x.shape}"
                )
        return arrays

    def _call(self, method: str, function: Callable[..., Any], *arguments: object) -> Any:
        try:
            return function(*arguments)
        except MlferryError:
            raise
        except Exception as error:
            raise CustomLayerError(
                f"{self}: {method} raised {type(error).__name__}: {error}"
            ) from error

    def __str__(self) -> str:
        return f"class {self.cls.__name__} of custom layer {self.name!r}"
