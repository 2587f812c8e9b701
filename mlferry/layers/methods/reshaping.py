"""Layers that change the shape, the order or the number of values."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

from mlferry.errors import SpecError
from mlferry.layers.methods.table import NewLayer, Params, method, row
from mlferry.layers.methods.values import choice_as, integers_as, positive_as

_ORDERS = {0: "CHANNEL_FIRST", 1: "CHANNEL_LAST"}

row("add_flatten(name, mode, input_name, output_name)", mode=choice_as("mode", _ORDERS))
row("add_sequence_repeat(name, nrep, input_name, output_name)", nrep="nRepetitions")
row("add_flatten_to_2d(name, input_name, output_name, axis=1)", kind="flattenTo2D")
row("add_reshape_like(name, input_names, output_name)")
row("add_reshape_static(name, input_name, output_name, output_shape)", output_shape="targetShape")
row("add_reshape_dynamic(name, input_names, output_name)")
row("add_expand_dims(name, input_name, output_name, axes)", axes=integers_as("axes"))
row(
    "add_squeeze(name, input_name, output_name, axes=None, squeeze_all=False)",
    axes=integers_as("axes"),
)
row("add_stack(name, input_names, output_name, axis=0)")
row("add_concat_nd(name, input_names, output_name, axis, interleave=False)")
row("add_get_shape(name, input_name, output_name)")
row("add_broadcast_to_like(name, input_names, output_name)")
row(
    "add_broadcast_to_static(name, input_name, output_name, output_shape)",
    output_shape="targetShape",
)
row("add_broadcast_to_dynamic(name, input_names, output_name)")
row("add_sliding_windows(name, input_name, output_name, axis, window_size, step=1)")
row("add_slice_by_size(name, input_names, output_name, axis, size)", size=positive_as("size"))


@method("add_permute(name, dim, input_name, output_name)")
def _permute(arguments: SimpleNamespace) -> Params:
    """`dim` says where the axes Seq, C, H, W come from."""
    return {"axis": _of_length(arguments.dim, (4,), "dim")}


@method("add_reshape(name, input_name, output_name, target_shape, mode)")
def _reshape(arguments: SimpleNamespace) -> Params:
    """`target_shape` is [C, H, W] or [Seq, C, H, W]; mode 0 reads channels first, 1 last."""
    return {
        "targetShape": _of_length(arguments.target_shape, (3, 4), "target_shape"),
        "mode": "CHANNEL_FIRST" if arguments.mode == 0 else "CHANNEL_LAST",
    }


def _of_length(values: Sequence[int], lengths: tuple[int, ...], subject: str) -> list[int]:
    results = [int(value) for value in values]
    if len(results) not in lengths:
        raise SpecError(
            f"{subject} has {' or '.join(map(str, lengths))} numbers, not {len(results)}"
        )
    return results


@method("add_transpose(name, axes, input_name, output_name)")
def _transpose(arguments: SimpleNamespace) -> Params:
    """Negative axes count from the last one."""
    rank = len(arguments.axes)
    return {"axes": [axis + rank if axis < 0 else axis for axis in arguments.axes]}


@method("add_rank_preserving_reshape(name, input_name, output_name, output_shape)")
def _rank_preserving_reshape(arguments: SimpleNamespace) -> NewLayer:
    """0 in `output_shape` keeps an extent, one -1 is computed."""
    shape = [int(extent) for extent in arguments.output_shape]
    declared = [{"rank": len(shape), "dimValue": shape}]
    return NewLayer(
        "rankPreservingReshape",
        {"targetShape": shape},
        {"inputTensor": declared, "outputTensor": declared},
    )


@method("add_split(name, input_name, output_names)")
def _split(arguments: SimpleNamespace) -> Params:
    """Into parts of one size along the channels."""
    return {"nOutputs": len(arguments.output_names)}


@method("add_split_nd(name, input_name, output_names, axis, num_splits=2, split_sizes=None)")
def _split_nd(arguments: SimpleNamespace) -> Params:
    """Into parts of one size, or of `split_sizes`."""
    sizes = list(arguments.split_sizes or ())
    count = len(sizes) or arguments.num_splits
    if count != len(arguments.output_names):
        raise SpecError(f"{count} parts have {len(arguments.output_names)} names in output_names")
    return {"axis": arguments.axis, "numSplits": count, "splitSizes": sizes}


_AXES = {"CHANNEL": "CHANNEL_AXIS", "HEIGHT": "HEIGHT_AXIS", "WIDTH": "WIDTH_AXIS"}


def _start(value: int) -> Params:
    if value < 0:
        raise SpecError(f"start_index is {value}; it is not negative")
    return {"startIndex": value}


row(
    "add_slice(name, input_name, output_name, axis, start_index=0, end_index=-1, stride=1)",
    axis=choice_as("axis", _AXES),
    start_index=_start,
    stride=positive_as("stride"),
)


@method(
    "add_slice_static(name, input_name, output_name, begin_ids, end_ids, strides, begin_masks, "
    "end_masks, squeeze_masks=None)"
)
def _slice_static(arguments: SimpleNamespace) -> Params:
    """Every list has an entry per axis; masks let the slice begin, or end, at the edge."""
    lists = {
        "beginIds": arguments.begin_ids,
        "endIds": arguments.end_ids,
        "strides": arguments.strides,
        "beginMasks": arguments.begin_masks,
        "endMasks": arguments.end_masks,
        **_squeezed(arguments),
    }
    rank = len(arguments.begin_ids)
    wrong = [name for name, values in lists.items() if len(values) != rank]
    if wrong:
        raise SpecError(f"beginIds has {rank} entries, and not {' and not '.join(wrong)}")
    return lists


_MOST_AXES = 5


@method(
    "add_slice_dynamic(name, input_names, output_name, end_ids=None, strides=None, "
    "begin_masks=None, end_masks=None, squeeze_masks=None)"
)
def _slice_dynamic(arguments: SimpleNamespace) -> Params:
    """Like `add_slice_static`; the second input has the starts, others the missing arguments."""
    ones, no = [1] * _MOST_AXES, [False] * _MOST_AXES
    return {
        "endIds": arguments.end_ids or ones,
        "strides": arguments.strides or ones,
        "beginMasks": arguments.begin_masks or no,
        "endMasks": arguments.end_masks or no,
        **_squeezed(arguments),
    }


def _squeezed(arguments: SimpleNamespace) -> Params:
    masks = list(arguments.squeeze_masks or ())
    return {"squeezeMasks": masks} if any(masks) else {}


@method("add_tile(name, input_name, output_name, reps=[])")
def _tile(arguments: SimpleNamespace) -> Params:
    """Repetitions along every axis; a second input may replace `reps`."""
    if not isinstance(arguments.input_name, str) and len(arguments.input_name) == 2:
        return {}
    if any(count <= 0 for count in arguments.reps):
        raise SpecError(f"reps are positive, not {list(arguments.reps)}")
    return {"reps": arguments.reps}


@method("add_reverse(name, input_name, output_name, reverse_dim=None)")
def _reverse(arguments: SimpleNamespace) -> Params:
    """`reverse_dim` says for every axis whether to reverse it."""
    return {"reverseDim": [bool(flag) for flag in arguments.reverse_dim or [1]]}


row(
    "add_reverse_sequence(name, input_names, output_name, batch_axis=0, seq_axis=-1)",
    kind="reverseSeq",
    seq_axis="sequenceAxis",
)


@method(
    "add_constant_pad(name, input_names, output_name, value=0.0, "
    "pad_to_given_output_size_mode=False, pad_amounts=[])"
)
def _constant_pad(arguments: SimpleNamespace) -> Params:
    """Amounts before and after every axis; a second input may replace `pad_amounts`."""
    single = isinstance(arguments.input_names, str) or len(arguments.input_names) == 1
    if single and len(arguments.pad_amounts) == 0:
        raise SpecError("pad_amounts is missing; one input is padded by it")
    return {
        "value": arguments.value,
        "padToGivenOutputSizeMode": arguments.pad_to_given_output_size_mode,
        "padAmounts": [int(amount) for amount in arguments.pad_amounts],
    }
