"""The error that names every op without a converter and shows the lines to write."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from mlferry.converters.graph import Graph, Node
from mlferry.errors import UnsupportedOpError
from mlferry.registry import did_you_mean

if TYPE_CHECKING:
    from mlferry.converters.lower import Frontend

_SIMPLE = (bool, int, float, str)  # what a parameter of a custom layer can be
_PARAMETERS, _ENTRIES = 8, 4  # most that an example shows


def unsupported(
    missing: Iterable[Node], graph: Graph, frontend: Frontend, unused: Sequence[str]
) -> UnsupportedOpError:
    """One error for all ops that have neither a converter nor a function."""
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
            "custom_conversion_functions has keys that match nothing: " + ", ".join(unused)
        )
    lines.append("Make custom layers of them: write a function for each and pass it:")
    for op, nodes in ops.items():
        lines += ["", *_snippet(op, nodes[0])]
    pairs = ", ".join(f"{op!r}: convert_{identifier(op)}" for op in ops)
    lines += [
        "",
        f"mlferry.convert({graph.expression}, custom_conversion_functions={{{pairs}}})",
        "",
        "or pass add_custom_layers=True to make an entry of each with its own options.",
    ]
    return UnsupportedOpError(
        "\n".join(lines), {op: [node.name for node in nodes] for op, nodes in ops.items()}
    )


def _snippet(op: str, node: Node) -> list[str]:
    parts: list[str] = []
    left: list[str] = []
    for name, value in node.get_config().items():
        if name in ("name", "trainable", "dtype") or value is None:
            continue
        read = f"node.{name}" if name.isidentifier() else "..."
        if isinstance(value, _SIMPLE):
            parts.append(f"{name!r}: {read}")
        elif _is_short(value):
            parts += [f"'{name}_{index}': {read}[{index}]" for index in range(len(value))]
        else:
            left.append(name)
    parameters = ", ".join(parts[:_PARAMETERS])
    left += [part.partition("'")[2].partition("'")[0] for part in parts[_PARAMETERS:]]
    lines = [
        f"def convert_{identifier(op)}(node):",
        "    return mlferry.CustomLayerParams(",
        f"        class_name={identifier(op)!r},",
        f"        description='what {op} does',",
        f"        parameters={{{parameters}}},",
    ]
    if left:
        lines.append(f"        # it has more options: {', '.join(left)}")
    if node.weights:
        lines.append(f"        weights=node.get_weights(),  # {', '.join(node.weights)}")
    return [*lines, "    )"]


def _is_short(value: object) -> bool:
    """A few numbers, which become a parameter each."""
    fits = isinstance(value, list | tuple) and 0 < len(value) <= _ENTRIES
    return fits and all(isinstance(item, _SIMPLE) for item in value)  # type: ignore[attr-defined]


def identifier(op: str) -> str:
    """An op's name as a Python identifier, without its package."""
    name = op.rsplit(">", 1)[-1]
    return "".join(c if c.isalnum() or c == "_" else "_" for c in name) or "Custom"
