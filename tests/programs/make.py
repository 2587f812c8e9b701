"""Programs as coremltools writes them, without its passes over them."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import mlferry
from mlferry.spec.proto import model_pb2

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    import coremltools as ct
    from coremltools.converters.mil.mil import Builder, types
    from coremltools.converters.mil.mil.passes.pass_registry import PASS_REGISTRY

    logging.disable(logging.NOTSET)

mb = Builder
NAMES = "xyzw"
_SHOWN = {"bool": "int32", "int8": "int32", "uint8": "int32", "int16": "int32", "uint16": "int32"}


def target(opset: int) -> Any:
    """coremltools' name of an opset."""
    return getattr(ct.target, "iOS26" if opset == 9 else f"iOS{opset + 10}")


def program(
    build: Callable[..., Any], inputs: Sequence[Any], opset: int, *, half: bool = False
) -> Any:
    """coremltools' program.

    Args:
        build: makes the outputs, of the builder and of as many inputs; they are called x, y, z, w.
        inputs: arrays, or (shape, type) with symbols in the shape.
        opset: 5 to 9.
        half: whether float32 inside becomes float16.
    """
    specs = [mb.TensorSpec(shape=shape, dtype=_type(dtype)) for shape, dtype in map(_end, inputs)]

    def whole(*sample: Any) -> Any:
        result = build(mb, *sample)
        outputs = result if isinstance(result, tuple | list) else (result,)
        shown = [_shown(value) for value in outputs]
        return tuple(shown) if len(shown) > 1 else shown[0]

    function = {  # coremltools counts the parameters, and names inputs after them
        0: lambda: whole(),  # noqa: PLW0108
        1: lambda x: whole(x),  # noqa: PLW0108
        2: lambda x, y: whole(x, y),  # noqa: PLW0108
        3: lambda x, y, z: whole(x, y, z),  # noqa: PLW0108
        4: lambda x, y, z, w: whole(x, y, z, w),  # noqa: PLW0108
    }[len(specs)]
    result = mb.program(input_specs=specs, opset_version=target(opset))(function)
    if half:
        for name in ("add_fp16_cast", "const_elimination", "dead_code_elimination"):
            PASS_REGISTRY[f"common::{name}"](result)
    return result


def _end(inputs: Any) -> tuple[Any, Any]:
    if isinstance(inputs, np.ndarray):
        return inputs.shape, {"f": "fp32", "i": "int32"}[inputs.dtype.kind]
    shape, dtype = inputs
    return shape, dtype


def _type(name: str) -> Any:
    return types.string_to_builtin(name)


def _shown(value: Any) -> Any:
    """An output that a model may have."""
    dtype = types.builtin_to_string(value.dtype) if not types.is_list(value.sym_type) else ""
    return mb.cast(x=value, dtype=_SHOWN[dtype]) if dtype in _SHOWN else value


def message(result: Any, opset: int, folder: Path) -> model_pb2.Model:
    """The message of a program, whose weights are written into a folder."""
    from coremltools.converters.mil.backend.mil.load import load

    theirs = load(result, str(folder), specification_version=opset + 1)
    spec = model_pb2.Model()
    spec.ParseFromString(theirs.SerializeToString())
    return spec


def package(
    build: Callable[..., Any],
    inputs: Sequence[Any],
    path: Path,
    opset: int = 6,
    *,
    half: bool = False,
) -> Path:
    """A package with such a program."""
    with tempfile.TemporaryDirectory() as folder:
        spec = message(program(build, inputs, opset, half=half), opset, Path(folder))
        return mlferry.models.utils.save_spec(spec, path, weights_dir=folder)


def model(
    build: Callable[..., Any], inputs: Sequence[Any], folder: Path, opset: int = 6, **options: Any
) -> mlferry.MLModel:
    """A model of such a program; its weights are in a folder.

    Args:
        build: as for `program`.
        inputs: likewise.
        folder: for the weights.
        opset: 5 to 9.
        options: of `MLModel`, and `half`.
    """
    half = options.pop("half", False)
    spec = message(program(build, inputs, opset, half=half), opset, folder)
    return mlferry.MLModel(spec, weights_dir=folder, **options)
