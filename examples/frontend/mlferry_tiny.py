"""A frontend of another package: `mlferry.convert` reads `.tiny` files once it is installed.

A `.tiny` file is JSON: ``{"tiny": 1, "size": 3, "steps": [["scale", 2.0], ["relu"]]}``.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from mlferry.errors import ModelFileError
from mlferry.frontends import (
    ANY,
    Attributes,
    Blob,
    Converter,
    Frontend,
    Graph,
    Lowering,
    Node,
    Registry,
    Value,
)

OPS: Registry[Converter] = Registry("tiny step")
FRONTEND = Frontend("Tiny", OPS)


def claims(source: Any) -> bool:
    """Whether it is the path of a `.tiny` file."""
    return isinstance(source, str | Path) and str(source).endswith(".tiny")


def read(source: Any, functions: Collection[str]) -> tuple[Graph, Frontend]:
    """The graph of a file."""
    try:
        model = json.loads(Path(source).read_text(encoding="utf-8"))
        shape, steps = (1, model["size"]), model["steps"]
    except (OSError, ValueError, KeyError) as error:
        raise ModelFileError(f"cannot read {source}: {error}") from error
    values = [Value(f"value_{index}", shape) for index in range(len(steps) + 1)]
    nodes = [
        Node(
            op=op,
            name=f"{op}_{index}",
            inputs=(values[index],),
            outputs=(values[index + 1],),
            attrs=Attributes({"by": parameters[0]} if parameters else {}),
            keys=(f"{op}_{index}", op),
        )
        for index, (op, *parameters) in enumerate(steps)
    ]
    graph = Graph(
        source=str(source),
        framework="Tiny",
        version=model["tiny"],
        inputs=[values[0]],
        outputs=[("result", values[-1])],
        nodes=nodes,
        channels_last=False,
    )
    return graph, FRONTEND


@OPS.register("scale", layouts=ANY)
def scale(context: Lowering, node: Node, x: Blob) -> Blob:
    """Every value times a number."""
    return context.layer("activation", x, layout=x.layout, linear={"alpha": node.attrs["by"]})


@OPS.register("relu", layouts=ANY)
def relu(context: Lowering, node: Node, x: Blob) -> Blob:
    """Negative values become zero."""
    return context.layer("activation", x, layout=x.layout, ReLU={})
