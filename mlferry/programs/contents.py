"""The contents of a program: its operations and the constants that they read."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from operator import itemgetter

from mlferry.errors import MlferryError
from mlferry.programs.types import DTYPES, TensorType, type_of
from mlferry.spec.proto import mil_pb2 as mil

STORED = {  # the parameter that holds the values of a compressed constant
    "constexpr_affine_dequantize": "quantized_data",
    "constexpr_blockwise_shift_scale": "data",
    "constexpr_cast": "source_val",
    "constexpr_lut_to_dense": "indices",
    "constexpr_lut_to_sparse": "indices_nonzero_data",
    "constexpr_sparse_blockwise_shift_scale": "nonzero_data",
    "constexpr_sparse_to_dense": "nonzero_data",
}


def blocks_of(program: mil.Program) -> Iterator[mil.Block]:
    """The blocks of its functions: for each function that of its opset."""
    for name in sorted(program.functions):
        function = program.functions[name]
        if function.opset in function.block_specializations:
            yield function.block_specializations[function.opset]


def operations_of(block: mil.Block) -> Iterator[mil.Operation]:
    """Every operation; those of inner blocks follow the one that holds them."""
    for operation in block.operations:
        yield operation
        for inner in operation.blocks:
            yield from operations_of(inner)


def reads_of(operation: mil.Operation) -> list[str]:
    """The values from outside that an operation and its inner blocks read."""
    reads = dict.fromkeys(
        binding.name
        for argument in operation.inputs.values()
        for binding in argument.arguments
        if binding.WhichOneof("binding") == "name"
    )
    for block in operation.blocks:
        names = {each.name for each in block.inputs}
        for inner in block.operations:
            reads |= dict.fromkeys(name for name in reads_of(inner) if name not in names)
            names |= {each.name for each in inner.outputs}
        reads |= dict.fromkeys(name for name in block.outputs if name not in names)
    return list(reads)


def operation_counts(program: mil.Program) -> Counter[str]:
    """The number of operations of each kind; constants do not count."""
    return Counter(
        operation.type
        for block in blocks_of(program)
        for operation in operations_of(block)
        if operation.type != "const"
    )


def class_labels(program: mil.Program, function: str) -> list[str]:
    """The labels of a classifier, from its `classify` op; empty for other programs."""
    if function not in program.functions:
        return []
    constants: dict[str, mil.Value] = {}
    for block in blocks_of(mil.Program(functions={function: program.functions[function]})):
        for operation in block.operations:
            if operation.type == "const" and operation.outputs and "val" in operation.attributes:
                constants[operation.outputs[0].name] = operation.attributes["val"]
            if operation.type == "classify" and "classes" in operation.inputs:
                for binding in operation.inputs["classes"].arguments:
                    value = constants.get(binding.name, binding.value)
                    return [label for each in _elements(value) for label in each]
    return []


def _elements(value: mil.Value) -> Iterator[list[str]]:
    """The texts or integers of a list of scalars, or of one tensor."""
    for each in (value, *value.immediateValue.list.values):
        tensor = each.immediateValue.tensor
        which = tensor.WhichOneof("value")
        if which in ("strings", "ints", "longInts"):
            yield [str(label) for label in getattr(tensor, which).values]


def weight_counts(program: mil.Program) -> Counter[str]:
    """The number of values of constants, by the type in which they are stored.

    Compressed constants count as they are stored and are named after their op, such as "uint4
    constexpr_lut_to_dense". A value that several functions share counts once.
    """
    counts = Counter[str]()
    places: set[tuple[str, int]] = set()
    for block in blocks_of(program):
        for value, encoding in _constants(block):
            place = (value.blobFileValue.fileName, value.blobFileValue.offset)
            if value.WhichOneof("value") == "blobFileValue":
                if place in places:
                    continue
                places.add(place)
            count, dtype = _size(value)
            if count > 1:
                counts[f"{dtype} {encoding}".rstrip()] += count
    return counts


def half_bytes(block: mil.Block) -> int:
    """The bytes of float16 constants that are stored in a file."""
    total = 0
    for operation in operations_of(block):
        value = operation.attributes["val"] if operation.type == "const" else None
        if value is not None and value.WhichOneof("value") == "blobFileValue":
            count, dtype = _size(value)
            total += 2 * count if dtype == "fp16" else 0
    return total


def decoded_bytes(block: mil.Block) -> int:
    """The bytes of the constants that operations of a block make of others."""
    kinds = [
        type_of(each.type)
        for operation in operations_of(block)
        if operation.type.startswith("constexpr_")
        for each in operation.outputs
    ]
    return sum(
        math.prod(n or 0 for n in kind.shape or ()) * DTYPES[kind.dtype].bits // 8
        for kind in kinds
        if isinstance(kind, TensorType)
    )


def _constants(block: mil.Block) -> Iterator[tuple[mil.Value, str]]:
    """The constants of a block, each with the op that decompresses it, if there is one.

    Tables, scales and masks of compressed constants are left out.
    """
    plain: dict[str, mil.Value] = {}
    helpers: set[str] = set()
    tables = {
        binding.name
        for operation in operations_of(block)
        if operation.type in STORED
        for name, argument in sorted(operation.inputs.items(), key=itemgetter(0))
        for binding in argument.arguments
        if name != STORED[operation.type]
    }
    for operation in operations_of(block):
        if operation.type == "const" and operation.outputs:
            plain[operation.outputs[0].name] = operation.attributes["val"]
        stored = STORED.get(operation.type)
        if stored is None or any(value.name in tables for value in operation.outputs):
            continue
        if stored in operation.attributes:
            yield operation.attributes[stored], operation.type
        for name, argument in sorted(operation.inputs.items(), key=itemgetter(0)):
            for binding in argument.arguments:
                if binding.WhichOneof("binding") == "name":
                    helpers.add(binding.name)
                    value = plain.get(binding.name)
                else:
                    value = binding.value
                if name == stored and value is not None:
                    yield value, operation.type
    yield from ((value, "") for name, value in plain.items() if name not in helpers)


def _size(value: mil.Value) -> tuple[int, str]:
    """The number of values of a constant, and their type."""
    try:
        kind = type_of(value.type)
    except MlferryError:
        return 0, ""
    if not isinstance(kind, TensorType) or kind.shape is None or kind.dtype in ("string", "bool"):
        return 0, ""
    return math.prod(extent or 0 for extent in kind.shape), kind.dtype
