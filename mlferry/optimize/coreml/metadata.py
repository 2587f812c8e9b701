"""`get_weights_metadata`: the weights of programs, and what reads them."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlferry.errors import SpecError
from mlferry.models.model import MLModel
from mlferry.models.problems import has_programs
from mlferry.programs.graph import Operation, Value
from mlferry.programs.reading import read_function
from mlferry.programs.sites import ProgramSite, sites
from mlferry.programs.types import DTYPES
from mlferry.spec import networks

_ZERO = 1e-12  # values up to this magnitude count as zero


@dataclass(frozen=True)
class CoreMLOpMetaData:
    """An operation that reads a weight.

    Attributes:
        op_type: the op.
        name: of the operation.
        params_name_mapping: the weights that it reads, by parameter.
    """

    op_type: str
    name: str
    params_name_mapping: dict[str, str]

    def __str__(self) -> str:
        read = "".join(f", {name}={value}" for name, value in self.params_name_mapping.items())
        return f"{self.op_type}(name={self.name}{read}, ...)"


@dataclass(frozen=True)
class CoreMLWeightMetaData:
    """A weight.

    Attributes:
        val: its values, decoded.
        child_ops: the operations that read it.
    """

    val: NDArray[Any]
    child_ops: list[CoreMLOpMetaData] = field(default_factory=list)

    @property
    def sparsity(self) -> float:
        """The part of values whose magnitude is not above 1e-12."""
        return float((np.abs(self.val) <= _ZERO).mean())

    @property
    def unique_values(self) -> int:
        """How many different values it has."""
        return int(np.unique(self.val).size)

    def __str__(self) -> str:
        lines = [
            f"  val: np.ndarray(shape={self.val.shape}, dtype={self.val.dtype})",
            f"  sparsity: {self.sparsity}",
            f"  unique_values: {self.unique_values}",
            "  child_ops: [",
            *(f"    {child}" for child in self.child_ops),
            "  ]",
        ]
        return "\n".join(["[", *lines, "]"])


class _Weights(OrderedDict[str, CoreMLWeightMetaData]):
    """Weights by name; prints one after another."""

    def __str__(self) -> str:
        return "\n".join(f"{name}\n{weight}" for name, weight in self.items())


def get_weights_metadata(
    mlmodel: Any, weight_threshold: int = 2048
) -> OrderedDict[str, CoreMLWeightMetaData]:
    """The weights of a program, by the names that `op_name_configs` takes.

    Args:
        mlmodel: an `MLModel`, or what it takes.
        weight_threshold: the least number of values of a weight to list it.

    Returns:
        every float constant with its values, decoded if it is compressed. If functions, or the
        programs of a pipeline, share a name, the first one counts.

    Raises:
        SpecError: the model has no program.
    """
    model = mlmodel if isinstance(mlmodel, MLModel) else MLModel(mlmodel)
    if not has_programs(model.spec):
        raise SpecError(
            "get_weights_metadata takes ML Programs; for networks, print(model.describe())"
        )
    weights = _Weights()
    for inner in networks.models_in(model.spec):
        for name in sorted(inner.mlProgram.functions):
            block, opset = read_function(inner.mlProgram.functions[name], model.program_weights)
            listed = [site for site in sites(block, opset) if site.count >= weight_threshold]
            names = {site.value: site.value.name for site in listed}
            for site in listed:
                weights.setdefault(site.value.name, _of(site, names))
    return weights


def _of(site: ProgramSite, names: dict[Value, str]) -> CoreMLWeightMetaData:
    values = site.array.astype(DTYPES[site.value.dtype].array)
    return CoreMLWeightMetaData(values, [_reader(each, names) for each in site.readers])


def _reader(operation: Operation, names: dict[Value, str]) -> CoreMLOpMetaData:
    read = {
        parameter: names[value]
        for parameter, value in operation.arguments.items()
        if isinstance(value, Value) and value in names
    }
    name = operation.outputs[0].name if operation.outputs else operation.source
    return CoreMLOpMetaData(operation.op, name, read)
