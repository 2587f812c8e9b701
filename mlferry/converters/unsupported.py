"""The error that names every op without a converter and shows the lines to write."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from mlferry.converters.graph import Graph, Node
from mlferry.errors import UnsupportedOpError
from mlferry.registry import did_you_mean

if TYPE_CHECKING:
    from mlferry.converters.lower import Frontend


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
    config = node.get_config()
    simple = [
        name
        for name, value in config.items()
        if isinstance(value, bool | int | float | str)
        and name not in ("name", "trainable", "dtype")
    ]
    parameters = ", ".join(
        f"{name!r}: node.{name}" if name.isidentifier() else f"{name!r}: ..." for name in simple[:6]
    )
    lines = [
        f"def convert_{identifier(op)}(node):",
        "    return mlferry.CustomLayerParams(",
        f"        class_name={identifier(op)!r},",
        f"        description='what {op} does',",
        f"        parameters={{{parameters}}},",
    ]
    if node.weights:
        lines.append(f"        weights=node.get_weights(),  # {', '.join(node.weights)}")
    return [*lines, "    )"]


def identifier(op: str) -> str:
    """An op's name as a Python identifier, without its package."""
    name = op.rsplit(">", 1)[-1]
    return "".join(c if c.isalnum() or c == "_" else "_" for c in name) or "Custom"
