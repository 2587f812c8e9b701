"""Source models, run by their own libraries, without mlferry's converters."""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from mlferry.errors import MissingDependencyError, ModelFileError, PredictionError
from mlferry.numerics.shapes import Array
from mlferry.registry import Registry

Arrays = dict[str, Array]


@dataclass(frozen=True)
class RunnableSource:
    """A model in its own library.

    Attributes:
        inputs: name, shape (None if an extent is free) and element type of each.
        run: outputs, by name or in their order, for arrays by name.
        inside: the values inside by name, in the order of computation; None if the library shows
            none.
        scoped: whether a name inside stands for all that a layer computes: the last of the Core ML
            model's values that are called so, or begin with it and a slash.
    """

    inputs: Mapping[str, tuple[tuple[int | None, ...] | None, np.dtype[Any]]]
    run: Callable[[Arrays], Mapping[str, Array] | Sequence[Array]]
    inside: Callable[[Arrays], Iterator[tuple[str, Array]]] | None = None
    scoped: bool = False

    def arrays_for(self, sample: Mapping[str, Array], order: Sequence[str]) -> Arrays:
        """Map a sample of the Core ML model to the arrays of this source.

        Args:
            sample: arrays by the names of the Core ML model's inputs.
            order: these names in the order of the model's description, which is the source's
                where names differ.

        Raises:
            PredictionError: they cannot be paired.
        """
        pairs = self.counterparts([name for name in order if name in sample])
        return {
            name: _laid_out(sample[pairs[name]], shape, name).astype(dtype)
            for name, (shape, dtype) in self.inputs.items()
        }

    def counterparts(self, names: Sequence[str]) -> dict[str, str]:
        """The name of a Core ML model's input for each input of this source.

        Args:
            names: of the Core ML model's inputs, in the order of its description.

        Raises:
            PredictionError: they cannot be paired.
        """
        if set(self.inputs) <= {*names}:
            return {name: name for name in self.inputs}
        if len(names) == len(self.inputs):
            return dict(zip(self.inputs, names, strict=True))
        raise PredictionError(
            f"the source takes {', '.join(map(repr, self.inputs))}, the model "
            f"{', '.join(map(repr, names))}: they cannot be paired"
        )


def _laid_out(value: Array, shape: tuple[int | None, ...] | None, name: str) -> Array:
    """A value in the layout of the source: with its axis of samples, channels if it has them."""
    if shape is None:
        return value
    leading = next((axis for axis, n in enumerate(value.shape) if n != 1), value.ndim)
    core = value.reshape(value.shape[leading:])
    missing = len(shape) - core.ndim
    candidates = [value] if missing < 0 else [value, core.reshape((1,) * missing + core.shape)]
    for array in candidates:
        if _fits(array.shape, shape):
            return array
        if array.ndim > 2 and _fits(np.moveaxis(array, 1, -1).shape, shape):
            return np.moveaxis(array, 1, -1)
    raise PredictionError(
        f"input {name!r} of the source has shape {shape}; the sample for it has {value.shape}"
    )


def _fits(shape: tuple[int, ...], described: tuple[int | None, ...]) -> bool:
    return len(shape) == len(described) and all(
        extent in (None, own) for own, extent in zip(shape, described, strict=True)
    )


Opener = Callable[[Path], RunnableSource]
OPENERS: Registry[Opener] = Registry("kind of source")


def open_source(path: str | os.PathLike[str]) -> RunnableSource:
    """A source model, ready to run.

    Args:
        path: an `.onnx` file, a Keras file (`.keras`, `.h5`) or a SavedModel's folder. Its own
            library runs it in this process, so you should trust the file.

    Raises:
        ModelFileError: there is no such file, it is of another kind, or its library rejects it.
        MissingDependencyError: its library is not installed.
    """
    place = Path(path)
    if not place.exists():
        raise ModelFileError(f"there is no file {place}")
    kind = "SavedModel" if place.is_dir() else place.suffix.lower()
    entry = OPENERS.find(kind)
    if entry is None:
        raise ModelFileError(
            f"{place} cannot be run as a source; possible are .onnx, .keras and .h5 files and the "
            "folder of a SavedModel"
        )
    try:
        return entry.value(place)
    except (MissingDependencyError, ModelFileError):
        raise
    except Exception as error:  # each library has errors of its own
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelFileError(f"{place} cannot be run: {lines[0]}") from error


def _library(name: str, install: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingDependencyError(
            f"running this source needs {name}: pip install {install}"
        ) from error


# ---- ONNX --------------------------------------------------------------------------------

_ELEMENTS = {"float": np.float32, "double": np.float64, "float16": np.float16, "bool": np.bool_}


@OPENERS.register(".onnx")
def onnx_source(path: Path) -> RunnableSource:
    """By onnxruntime with its optimizer off, so that it follows the file."""
    runtime = _library("onnxruntime", "'mlferry[onnxruntime]'")
    session = _session(runtime, str(path))
    inputs = {
        value.name: (
            tuple(n if isinstance(n, int) and n > 0 else None for n in value.shape),
            _element(value.type),
        )
        for value in session.get_inputs()
    }
    outputs = [value.name for value in session.get_outputs()]

    def run(arrays: Arrays) -> Arrays:
        return dict(zip(outputs, session.run(None, arrays), strict=True))

    def inside(arrays: Arrays) -> Iterator[tuple[str, Array]]:
        onnx = _library("onnx", "'mlferry[onnx]'")
        model = onnx.load(str(path))
        names = [name for node in model.graph.node for name in node.output if name]
        del model.graph.output[:]
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
        opened = _session(runtime, model.SerializeToString())
        yield from zip(names, opened.run(None, arrays), strict=True)

    return RunnableSource(inputs, run, inside)


def _session(runtime: ModuleType, model: str | bytes) -> Any:
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # what fails is raised
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _element(kind: str) -> np.dtype[Any]:
    """`tensor(float)` and the like."""
    name = kind.removeprefix("tensor(").removesuffix(")")
    return np.dtype(_ELEMENTS.get(name, name))


# ---- Keras -------------------------------------------------------------------------------


@OPENERS.register(".keras", ".h5", ".hdf5")
def keras_source(path: Path) -> RunnableSource:
    """By Keras, whatever its backend is."""
    keras = _library("keras", "keras tensorflow")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = keras.saving.load_model(path, compile=False)
    inputs = {
        str(tensor.name).split(":")[0]: (tuple(tensor.shape), np.dtype(str(tensor.dtype)))
        for tensor in model.inputs
    }

    def run(arrays: Arrays) -> list[Array]:
        values = [arrays[name] for name in inputs]
        outputs = model(values if len(values) > 1 else values[0], training=False)
        return [np.asarray(value) for value in keras.tree.flatten(outputs)]

    def inside(arrays: Arrays) -> Iterator[tuple[str, Array]]:
        calls: dict[str, list[Any]] = {}
        with contextlib.ExitStack() as restored:
            for layer in model.layers:
                restored.enter_context(_recorded(layer, calls.setdefault(str(layer.name), [])))
            run(arrays)
        for name, results in calls.items():
            if len(results) == 1 and not isinstance(results[0], list | tuple | dict):
                yield name, np.asarray(results[0])

    return RunnableSource(inputs, run, inside, scoped=True)


class Callee(Protocol):
    """What is used of a layer of Keras."""

    call: Callable[..., Any]


@contextlib.contextmanager
def _recorded(layer: Callee, results: list[Any]) -> Iterator[None]:
    """Record the results of the calls of a layer."""
    call = layer.call

    def recording(*args: object, **kwargs: object) -> Any:
        results.append(call(*args, **kwargs))
        return results[-1]

    object.__setattr__(layer, "call", functools.wraps(call)(recording))
    try:
        yield
    finally:
        object.__delattr__(layer, "call")


# ---- TensorFlow --------------------------------------------------------------------------


@OPENERS.register("SavedModel")
def saved_model_source(path: Path) -> RunnableSource:
    """By TensorFlow: the signature `serving_default`, or the first one."""
    tensorflow = _library("tensorflow", "tensorflow")
    loaded = tensorflow.saved_model.load(str(path))
    signatures = dict(loaded.signatures)
    if not signatures:
        raise ModelFileError(f"{path} has no signature to call")
    function = signatures.get("serving_default") or next(iter(signatures.values()))
    specs = function.structured_input_signature[1]
    inputs = {
        name: (
            None if spec.shape.rank is None else tuple(spec.shape),
            np.dtype(spec.dtype.as_numpy_dtype),
        )
        for name, spec in specs.items()
    }

    def run(arrays: Arrays) -> Arrays:
        _ = loaded  # the function holds its variables weakly
        results = function(**{name: tensorflow.constant(value) for name, value in arrays.items()})
        return {name: np.asarray(value) for name, value in results.items()}

    return RunnableSource(inputs, run)
