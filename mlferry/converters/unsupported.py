"""The error that names every op without a converter and shows the lines to write."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mlferry import text
from mlferry.converters.graph import Graph, Node
from mlferry.errors import UnsupportedOpError
from mlferry.registry import did_you_mean

if TYPE_CHECKING:
    from mlferry.converters.frontend import Frontend

_SIMPLE = (bool, int, float, str)  # the types that a custom layer's parameter may have
# The most options in an example, and the longest list that becomes parameters.
_PARAMETERS, _ENTRIES = 8, 4
_NO_OPTIONS = ("name", "trainable", "dtype")  # options that Keras stores for every layer


def unsupported(
    missing: Iterable[Node],
    graph: Graph,
    frontend: Frontend,
    unused: Mapping[str, str],
    traceable: Sequence[str] = (),
) -> UnsupportedOpError:
    """One error for all ops that have neither a converter nor a function.

    Args:
        unused: keys of the user's functions that match nothing, with close matches as hints.
        traceable: the ops whose computation mlferry can convert.
    """
    ops: dict[str, list[Node]] = {}
    for node in missing:
        ops.setdefault(node.op, []).append(node)
    lines = [
        f"{graph.source} has {len(ops)} {frontend.name} "
        f"{'op' if len(ops) == 1 else 'ops'} that mlferry cannot convert:"
    ]
    for op, nodes in ops.items():
        names = ", ".join(node.name for node in nodes[:5])
        more = f" and {len(nodes) - 5} more" if len(nodes) > 5 else ""
        hint = did_you_mean(op, list(frontend.ops))
        count = f" ({len(nodes)})" if len(nodes) > 1 else ""
        lines.append(f"  - {op}{count}: {names}{more}{hint}")
    if unused:
        lines.append(
            "custom_conversion_functions has keys that match nothing: "
            + ", ".join(f"{key}.{hint}" if hint else key for key, hint in unused.items())
        )
    lines.append("Make custom layers of them: write a function for each and pass it:")
    for op, nodes in ops.items():
        lines += ["", *_snippet(op, nodes[0])]
    pairs = ", ".join(f"{op!r}: convert_{identifier(op)}" for op in ops)
    lines += [
        "",
        f"mlferry.convert({graph.expression}, custom_conversion_functions={{{pairs}}})",
        "",
        "or pass add_custom_layers=True to make a custom layer of each from its own options.",
    ]
    if traceable:
        pairs = ", ".join(f"{op!r}: mlferry.trace" for op in traceable)
        lines += [
            "",
            f"mlferry can also convert what {' and '.join(traceable)} computes: no class is then "
            "needed on the device:",
            f"mlferry.convert({graph.expression}, custom_conversion_functions={{{pairs}}})",
        ]
    return UnsupportedOpError(
        text.paragraph(lines), {op: [node.name for node in nodes] for op, nodes in ops.items()}
    )


def options(node: Node) -> Iterator[tuple[str, Any, str]]:
    """The options of an op, as parameters of a custom layer.

    Yields:
        the name of a parameter, its value, and how a conversion function reads it; the last is
        empty for values that cannot be parameters, such as a long list.
    """
    for name, value in node.get_config().items():
        if name in _NO_OPTIONS or value is None:
            continue
        expression = f"node.{name}" if name.isidentifier() else f"node.get_config()[{name!r}]"
        if isinstance(value, _SIMPLE):
            yield name, value, expression
        elif _is_short(value):
            for index, item in enumerate(value):
                yield f"{name}_{index}", item, f"{expression}[{index}]"
        else:
            yield name, value, ""


def _snippet(op: str, node: Node) -> list[str]:
    results = list(options(node))
    shown = [(name, expression) for name, _, expression in results if expression][:_PARAMETERS]
    left = [name for name, _, _ in results if name not in dict(shown)]
    parameters = ", ".join(f"{name!r}: {expression}" for name, expression in shown)
    lines = [
        f"def convert_{identifier(op)}(node):",
        "    return mlferry.CustomLayerParams(",
        f"        class_name={identifier(op)!r},",
        f"        description={f'what {op} does'!r},",
        f"        parameters={{{parameters}}},",
    ]
    if left:
        lines.append(f"        # it has more options: {', '.join(left)}")
    if node.weights:
        lines.append(f"        weights=node.weights,  # {', '.join(node.weights)}")
    return [*lines, "    )"]


def _is_short(value: object) -> bool:
    """A short list of numbers, each of which becomes a parameter."""
    fits = isinstance(value, list | tuple) and 0 < len(value) <= _ENTRIES
    return fits and all(isinstance(item, _SIMPLE) for item in value)  # type: ignore[attr-defined]


def identifier(op: str) -> str:
    """An op's name as a Python identifier, without its package."""
    return text.identifier(op.rsplit(">", 1)[-1] or "Custom")
