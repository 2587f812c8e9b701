"""Where half precision fails in an ML Program, by comparing both precisions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, TypeGuard

import numpy as np

from mlferry.errors import UnsupportedModelError
from mlferry.lanes import in_slices
from mlferry.models.model import MLModel
from mlferry.models.precision_html import fragment, page, percent
from mlferry.models.samples import Load, SampleData, Unreadable, loaded, samples_for
from mlferry.models.workers import Executors, in_order
from mlferry.numerics.shapes import Array
from mlferry.programs.types import TensorType
from mlferry.runtime.evaluators.program import ProgramEvaluator
from mlferry.spec import networks
from mlferry.text import paragraph

LARGEST_HALF = 65504.0
_LOSES_MOST = 4.0  # times the error of its inputs: the operation itself loses digits
_LOSES_SOME = 1.5  # likewise, if values vanish as well
_TOO_FAR = 1e-2  # of the largest value: about two digits are left
_ROUNDING = 2.0**-11  # of float16, relative to a value
_SHOWN = 10


@dataclass(frozen=True)
class _Statistics:
    """What one sample tells of a value; see `OperationPrecision`."""

    error: float
    count: int = 0
    overflows: int = 0
    vanishes: int = 0
    largest: float = 0.0


@dataclass
class OperationPrecision:
    """The effect of half precision on the values of one operation, over all samples.

    Attributes:
        name: of the value that it makes.
        kind: of the operation.
        largest: the largest magnitude that it has in exact arithmetic.
        overflows: how many finite values become infinite or NaN in half precision.
        vanishes: how many values become 0 in half precision.
        count: how many values there are.
        error: the largest difference, divided by `largest`.
        error_of_inputs: the largest such error of its operands.
        is_half: whether the program says float16 here.
        is_cause: whether the operation should stay in float32.
    """

    name: str
    kind: str
    largest: float = 0.0
    overflows: int = 0
    vanishes: int = 0
    count: int = 0
    error: float = 0.0
    error_of_inputs: float = 0.0
    is_half: bool = True

    is_cause: bool = False

    def add(self, other: _Statistics) -> None:
        """Add what another sample tells."""
        self.count += other.count
        self.overflows += other.overflows
        self.vanishes += other.vanishes
        self.largest = max(self.largest, other.largest)
        self.error = max(self.error, other.error)

    @property
    def growth(self) -> float:
        """The error relative to that of the operands."""
        return self.error / max(self.error_of_inputs, _ROUNDING)

    @property
    def loses(self) -> bool:
        """Whether the error grows here until few digits are left."""
        vanishing = self.vanishes > 0.01 * max(self.count, 1)
        return self.error > _TOO_FAR and self.growth > (_LOSES_SOME if vanishing else _LOSES_MOST)

    def __str__(self) -> str:
        notes = []
        if self.overflows:
            notes.append(f"{self.overflows:,} of {self.count:,} values overflow")
        if self.vanishes:
            notes.append(f"{self.vanishes:,} vanish")
        notes.append(f"largest value {self.largest:.4g}")
        notes.append(f"error {percent(self.error)}, of its inputs {percent(self.error_of_inputs)}")
        return f"{self.kind} {self.name!r}: {', '.join(notes)}"


@dataclass
class PrecisionReport:
    """The cost of half precision for a program; prints as text.

    Attributes:
        operations: in the order in which they run.
        outputs: the error that arrives at each output, divided by its largest value.
        samples: how many were run.
    """

    operations: list[OperationPrecision]
    outputs: dict[str, float]
    samples: int = 0
    title: str = field(default="Half precision", repr=False)

    @property
    def ranked(self) -> list[OperationPrecision]:
        """The operations, the worst first: overflows, then those that lose most digits."""
        return sorted(
            (each for each in self.operations if each.is_half),
            key=lambda each: (each.overflows > 0, each.is_cause, each.growth * each.error),
            reverse=True,
        )

    @property
    def keep_in_float32(self) -> list[str]:
        """The names of the values whose operations should stay in float32."""
        return [each.name for each in self.operations if each.is_cause]

    def to_dict(self) -> dict[str, Any]:
        """Everything, as plain dicts, lists, numbers and strings."""
        return {
            "samples": self.samples,
            "outputs": {name: _number(error) for name, error in self.outputs.items()},
            "keep_in_float32": self.keep_in_float32,
            "operations": [
                {key: _number(value) for key, value in asdict(each).items()}
                for each in self.operations
            ],
        }

    def _repr_html_(self) -> str:
        return fragment(self)

    def html(self) -> str:
        """A self-contained page, with the error over the depth of the program."""
        return page(self)

    def __str__(self) -> str:
        lines = [f"half precision over {self.samples} sample{'s' if self.samples != 1 else ''}"]
        lines += [
            f"  output {name!r}: error {percent(error)}" for name, error in self.outputs.items()
        ]
        causes = [each for each in self.ranked if each.is_cause]
        if causes:
            lines.append("operations that go wrong, the worst first:")
            lines += [f"  {each}" for each in causes[:_SHOWN]]
            lines.append(f"keep in float32: {self.keep_in_float32}")
        else:
            lines.append("no operation goes wrong; those that lose most:")
            lines += [f"  {each}" for each in self.ranked[:3]]
        return paragraph(lines)


def _number(value: object) -> Any:
    """JSON has no infinity."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def check_precision(
    model: MLModel, samples: SampleData, *, executor: Executors | None = None
) -> PrecisionReport:
    """Find where an ML Program loses accuracy by computing in float16.

    The program runs twice for each sample: rounding every value of float16 as a device does, and
    in float32 throughout.

    Args:
        model: an ML Program with values of float16.
        samples: as for `compare_models`: a dict or a list of dicts from input names to values, an
            array, or a folder of pictures or of arrays (.npz, .npy).
        executor: runs several samples at a time; see `MLModel.predict`.

    Raises:
        UnsupportedModelError: the model is not an ML Program, or has no float16 values.
        PredictionError: the samples do not fit.
        WorkerError: the executor cannot do it.
    """
    models = [model.with_precision(precision) for precision in ("half", "exact")]
    half, _ = (_evaluator(each) for each in models)
    types = half.session.types()
    if not any(isinstance(kind, TensorType) and kind.dtype == "fp16" for kind in types.values()):
        raise UnsupportedModelError(
            "the program computes in float32 throughout: half precision costs it nothing"
        )
    made_by = half.session.makers()
    operations = {
        name: OperationPrecision(name, kind, is_half=_is_half(types[name]))
        for name, (_, kind) in made_by.items()
    }
    reads = half.session.reads()
    outputs = dict.fromkeys(half.session.outputs, 0.0)
    count = 0
    set_of_samples = samples_for(model.spec, samples)
    shared = (models[0], models[1], set_of_samples.load)
    for result in in_order(_of_sample, shared, set_of_samples.parcels(), executor):
        if isinstance(result, Unreadable):
            set_of_samples.add(result)
            continue
        errors = {name: each.error for name, each in result.items()}
        for name, operation in operations.items():
            operation.add(result[name])
            before = max((errors.get(operand, 0.0) for operand in reads[name]), default=0.0)
            operation.error_of_inputs = max(operation.error_of_inputs, before)
        for name in outputs:
            outputs[name] = max(outputs[name], errors.get(name, 0.0))
        count += 1
    _mark_causes(operations, reads)
    return PrecisionReport(list(operations.values()), outputs, count)


def _of_sample(
    shared: tuple[MLModel, MLModel, Load], parcel: tuple[str, Any]
) -> dict[str, _Statistics] | Unreadable:
    """What a sample tells of each input and each operation."""
    half, exact = (_evaluator(model) for model in shared[:2])
    sample = loaded(shared[2], *parcel)
    if isinstance(sample, Unreadable):
        return sample
    values = half.values(sample.data)
    names = [*half.session.inputs, *half.session.makers()]
    one, two = (
        evaluate.session.run(values, names, evaluate.make_state()) for evaluate in (half, exact)
    )
    return {name: _statistics(one[name], two[name]) for name in names}


def _mark_causes(
    operations: Mapping[str, OperationPrecision], reads: Mapping[str, set[str]]
) -> None:
    """Tell which operations should stay in float32.

    Their values are too large, or they lose many digits at once. The loss may come from rounded
    operands, as in a difference of large values: then the operations that make these should stay,
    too, and so should those that read values beyond float16.
    """
    readers: dict[str, list[OperationPrecision]] = {}
    for name, operation in operations.items():
        for operand in reads[name]:
            readers.setdefault(operand, []).append(operation)
    for operation in operations.values():
        # Values that fit are infinite here because those read are: a fault of the one before.
        beyond = operation.largest > LARGEST_HALF or math.isfinite(operation.error_of_inputs)
        if operation.overflows and beyond:
            for each in (operation, *readers.get(operation.name, ())):
                each.is_cause |= each.is_half
        elif operation.loses and math.isfinite(operation.error_of_inputs):
            affected = readers.get(operation.name, ()) if operation.vanishes else ()
            for each in (operation, *affected):
                each.is_cause |= each.is_half
            _mark_rounded(operation.name, operation.largest * _TOO_FAR / 4, operations, reads)


def _mark_rounded(
    name: str,
    harm: float,
    operations: Mapping[str, OperationPrecision],
    reads: Mapping[str, set[str]],
) -> None:
    """Mark operands, and theirs in turn, whose rounding is larger than `harm`."""
    waiting, seen = [name], {name}
    while waiting:
        for operand in reads[waiting.pop()] & operations.keys() - seen:
            seen.add(operand)
            if operations[operand].largest * _ROUNDING > harm:
                operations[operand].is_cause |= operations[operand].is_half
                waiting.append(operand)


def _evaluator(model: MLModel) -> ProgramEvaluator:
    evaluate = model.evaluator
    if not isinstance(evaluate, ProgramEvaluator):
        kind = model.spec.WhichOneof("Type")
        if networks.pipeline_of(model.spec) is not None:
            raise UnsupportedModelError(
                f"the model is a {kind}: check its programs one by one, "
                "mlferry.MLModel(spec.pipeline.models[0], weights_dir=...)"
            )
        raise UnsupportedModelError(
            f"the model is a {kind}, whose values are all of float32; ML Programs have others"
        )
    return evaluate


def _is_half(kind: object) -> bool:
    return isinstance(kind, TensorType) and kind.dtype == "fp16"


def _statistics(half: object, exact: object) -> _Statistics:
    """What half precision does to a value; nothing if it is not of floats."""
    if not (_is_floats(half) and _is_floats(exact)) or half.shape != exact.shape:
        return _Statistics(0.0)
    one, two = half.reshape(-1), exact.reshape(-1)
    parts = in_slices(lambda part: _differences(one[part], two[part]), one)
    overflows = sum(part.overflows for part in parts)
    vanishes = sum(part.vanishes for part in parts)
    largest = max((part.largest for part in parts), default=0.0)
    apart = max((part.apart for part in parts), default=0.0)
    if overflows:
        error = math.inf
    elif largest:
        error = apart / largest
    else:
        error = math.inf if apart else 0.0
    return _Statistics(error, one.size, overflows, vanishes, largest)


def _is_floats(value: object) -> TypeGuard[Array]:
    return isinstance(value, np.ndarray) and value.dtype.kind == "f"


class _Differences(NamedTuple):
    """Of some values in both precisions.

    Attributes:
        overflows: how many finite values are not finite in half precision.
        vanishes: how many become 0 there.
        largest: the largest finite magnitude.
        apart: the largest difference from a finite value; 0 or more.
    """

    overflows: int
    vanishes: int
    largest: float
    apart: float


def _differences(half: Array, exact: Array) -> _Differences:
    """Of as many values as stay in the cache."""
    sound = np.isfinite(exact)
    overflows = int(np.count_nonzero(sound & ~np.isfinite(half)))
    vanishes = int(np.count_nonzero((exact != 0) & (half == 0)))
    one, two = (np.where(sound, each.astype(np.float64), 0) for each in (half, exact))
    return _Differences(
        overflows, vanishes, float(np.abs(two).max()), float(np.abs(one - two).max())
    )
