"""Branches and loops as `cond` and `while_loop`.

Core ML's networks show the blobs of an inner network outside of it; programs show only the outputs
of a block. So each blob that something later may read becomes an output. A branch that may leave
the round of its loop takes the rest of the round into both of its paths.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from mlferry.errors import SpecError
from mlferry.exporters.liveness import LEAVES, leaves, needs, read_first, read_first_in_rounds
from mlferry.exporters.program.translation import Special, Translation
from mlferry.layers.control.definition import TRUE_ABOVE
from mlferry.layers.programs import refuse
from mlferry.programs.graph import Block, Value
from mlferry.programs.types import TensorType
from mlferry.spec import networks
from mlferry.spec.proto import neural_network_pb2 as nn

Layer = nn.NeuralNetworkLayer


def outside(translation: Translation, layer: Layer, live: set[str]) -> None:
    """Refuse a break or continue that stands in no loop."""
    raise SpecError(f"{layer.WhichOneof('layer')} {layer.name!r} is not inside a loop")


def _truth(translation: Translation, blob: str) -> Value:
    """A scalar that says whether a blob of one value is true."""
    builder = translation.builder
    value = translation.whole(blob)
    if value.dtype == "bool":
        flag = value
    elif value.dtype == "int32":
        flag = builder.op("not_equal", x=value, y=0)
    else:
        flag = builder.op("greater", x=builder.op("abs", x=value), y=np.float32(TRUE_ABOVE))
    return builder.reshape(flag, [])


def branch(translation: Translation, layer: Layer, live: set[str]) -> None:
    """Run the first network if the input is true, else the second, which may be empty."""
    condition = _truth(translation, layer.input[0])
    blobs = sorted(networks.touched(layer)[1] & live)
    ways: list[Block] = []
    results: list[list[Value]] = []
    for network in networks.subnetworks(layer):
        with translation.inside() as block:
            translation.run(network.layers, set(live))
            missing = [blob for blob in blobs if blob not in translation.values]
            if missing:
                raise refuse(f"one of its ways leaves {missing[0]!r}, which is read later, unmade")
            results.append([translation.whole(blob) for blob in blobs])
        ways.append(block)
    if not blobs:
        return
    _join(translation, ways, results)
    translation.builder.layer = layer.name
    values = translation.builder.ops("cond", pred=condition, blocks=ways)
    for blob, value in zip(blobs, values, strict=True):
        translation.add_input(blob, value)


def _join(translation: Translation, ways: list[Block], results: list[list[Value]]) -> None:
    """Give both paths results of the same types, each made inside its own block."""
    for place, pair in enumerate(zip(*results, strict=True)):
        dtypes = {value.dtype for value in pair}
        dtype = dtypes.pop() if len(dtypes) == 1 else ("int32" if "fp32" not in dtypes else "fp32")
        for way, value in enumerate(pair):
            results[way][place] = _in_block(translation, ways[way], value, dtype)
    for block, values in zip(ways, results, strict=True):
        block.outputs = values


def _in_block(translation: Translation, block: Block, value: Value, dtype: str) -> Value:
    """A value as the output of a block: of that type, and made by an operation of the block."""
    own = {output for operation in block.operations for output in operation.outputs}
    with translation.builder.within(block):
        if value.dtype != dtype:
            value = translation.builder.cast(value, dtype)
            own = {output for operation in block.operations for output in operation.outputs}
        if value not in own or value in block.outputs:
            value = translation.builder.op("identity", x=value, folded=False)
    return value


def loop(translation: Translation, layer: Layer, live: set[str]) -> None:
    """A loop that is counted, or that runs while a condition holds, or both.

    The condition network runs before each round and, when the count ends the loop, once more. So it
    is written twice: before the operation, and at the end of a round. A flag and a number of rounds
    are carried along with the blobs.
    """
    builder = translation.builder
    params = layer.loop
    condition_layers = list(params.conditionNetwork.layers) if params.conditionVar else []
    body = list(params.bodyNetwork.layers)
    limit: Value | None = None
    if layer.input:
        limit = builder.reshape(builder.as_integer(translation.whole(layer.input[0])), [])
    elif params.maxLoopIterations or not params.conditionVar:
        limit = builder.constant(np.int32(params.maxLoopIterations))
    exposed = read_first_in_rounds(body, condition_layers)
    go = builder.constant(np.bool_(True))
    if params.conditionVar:
        translation.run(condition_layers, live | exposed | {params.conditionVar})
        go = _truth(translation, params.conditionVar)
    writes = {blob for inner in [*body, *condition_layers] for blob in networks.touched(inner)[1]}
    states = sorted(writes & (live | exposed))
    builder.layer = layer.name
    first = [_start(translation, layer, blob, exposed) for blob in states]
    kinds = [value.tensor for value in first]
    while True:  # each round knows less about the types, until one changes nothing
        blocks, ends = _round(translation, layer, condition_layers, body, states, kinds, limit)
        after = [_widened(kind, end) for kind, end in zip(kinds, ends, strict=True)]
        if after == kinds:
            break
        kinds = after
    if not states:
        return
    builder.layer = layer.name
    started = [builder.cast(value, kind.dtype) for value, kind in zip(first, kinds, strict=True)]
    carried = [builder.constant(np.int32(0)), go, *started]
    outputs = builder.ops("while_loop", loop_vars=carried, blocks=blocks)
    for blob, value, kind in zip(states, outputs[2:], kinds, strict=True):
        value.type = kind
        translation.add_input(blob, value)


def _widened(one: TensorType, two: TensorType) -> TensorType:
    """A type that covers both: extents that differ are open, a float wins over an integer."""
    dtype = one.dtype
    if one.dtype != two.dtype:
        dtype = "fp32" if "fp32" in (one.dtype, two.dtype) else "int32"
    if one.shape is None or two.shape is None or len(one.shape) != len(two.shape):
        raise refuse("a blob of its rounds changes the number of its axes")
    pairs = zip(one.shape, two.shape, strict=True)
    return TensorType(dtype, tuple(a if a == b else None for a, b in pairs))


def _start(translation: Translation, layer: Layer, blob: str, exposed: set[str]) -> Value:
    """The value of a blob before the first round.

    A blob that only the rounds write has none there, which is correct if a round surely runs.
    """
    if blob in translation.values:
        return translation.whole(blob)
    params = layer.loop
    body = params.bodyNetwork.layers
    sure = params.maxLoopIterations > 0 and not layer.input and not params.conditionVar
    if blob in exposed or not sure or blob not in read_first(body)[1]:
        raise refuse(f"its rounds may leave {blob!r}, which is read later, unmade")
    kind = _made_by(translation, body, blob)
    shape = [extent if extent is not None else 1 for extent in kind.shape or ()]
    return translation.builder.constant(np.zeros(shape, np.float32), kind.dtype)


def _made_by(translation: Translation, body: Sequence[Layer], blob: str) -> TensorType:
    """The type that a blob has after one round."""
    with translation.inside():
        translation.run(body, {blob})
        return translation.whole(blob).tensor


def _round(
    translation: Translation,
    layer: Layer,
    condition_layers: list[Layer],
    body: list[Layer],
    states: list[str],
    kinds: Sequence[TensorType],
    limit: Value | None,
) -> tuple[list[Block], list[TensorType]]:
    """The blocks of a `while_loop`, and the types of the blobs after a round."""
    builder = translation.builder
    scalar, flag = TensorType("int32", ()), TensorType("bool", ())
    with translation.inside() as condition:
        count = builder.input(builder.fresh(f"{layer.name}_round"), scalar)
        go = builder.input(builder.fresh(f"{layer.name}_go"), flag)
        for blob, kind in zip(states, kinds, strict=True):
            builder.input(builder.fresh(f"{layer.name}_{blob}"), kind)
        if limit is not None:
            go = builder.op("logical_and", x=go, y=builder.op("less", x=count, y=limit))
    condition.outputs = [_in_block(translation, condition, go, "bool")]
    ends: list[list[TensorType]] = []
    with translation.inside() as rounds:
        count = builder.input(builder.fresh(f"{layer.name}_round"), scalar)
        builder.input(builder.fresh(f"{layer.name}_go"), flag)
        for blob, kind in zip(states, kinds, strict=True):
            translation.add_input(blob, builder.input(builder.fresh(f"{layer.name}_{blob}"), kind))
        following = builder.op("add", x=count, y=np.int32(1))

        def finish() -> list[Value]:
            translation.run(condition_layers, {*states, layer.loop.conditionVar})
            if condition_layers:
                return leave(_truth(translation, layer.loop.conditionVar))
            return leave(builder.constant(np.bool_(True)))

        def leave(go_on: Value) -> list[Value]:
            values = [translation.whole(blob) for blob in states]
            ends.append([value.tensor for value in values])
            dtypes = ["bool", *(kind.dtype for kind in kinds)]
            return [
                value if value.dtype == dtype else builder.cast(value, dtype)
                for value, dtype in zip([go_on, *values], dtypes, strict=True)
            ]

        condition_reads, _ = read_first(condition_layers)
        values = _steps(translation, body, {*states, *condition_reads}, finish, leave)
    dtypes = ["int32", "bool", *(kind.dtype for kind in kinds)]
    for value, dtype in zip([following, *values], dtypes, strict=True):
        rounds.outputs.append(_in_block(translation, rounds, value, dtype))
    types = list(ends[0])
    for other in ends[1:]:
        types = [_widened(a, b) for a, b in zip(types, other, strict=True)]
    return [condition, rounds], types


def _steps(
    translation: Translation,
    layers: Sequence[Layer],
    after: set[str],
    finish: Callable[[], list[Value]],
    leave: Callable[[Value], list[Value]],
) -> list[Value]:
    """The rest of a round: whether another one follows, and the new blobs."""
    builder = translation.builder
    for index, (layer, live) in enumerate(zip(layers, needs(layers, after), strict=True)):
        kind = layer.WhichOneof("layer")
        if kind in LEAVES:
            stop = kind == "loopBreak"
            return leave(builder.constant(np.bool_(False))) if stop else finish()
        if kind != "branch" or not leaves(layer):
            translation.layer(layer, live)
            continue
        condition = _truth(translation, layer.input[0])
        ways: list[Block] = []
        results: list[list[Value]] = []
        for network in networks.subnetworks(layer):
            with translation.inside() as block:
                rest = [*network.layers, *layers[index + 1 :]]
                results.append(_steps(translation, rest, after, finish, leave))
            ways.append(block)
        _join(translation, ways, results)
        builder.layer = layer.name
        return list(builder.ops("cond", pred=condition, blocks=ways))
    return finish()


CONTROL_FLOW: Mapping[str, Special] = {
    "branch": branch,
    "loop": loop,
    "loopBreak": outside,
    "loopContinue": outside,
}
