"""What a package needs to teach `mlferry.convert` another source.

A frontend reads a source into a `Graph` of `Node` and `Value`, and has one converter an op, in
a `Registry`. It names itself in its own `pyproject.toml`::

    [project.entry-points."mlferry.frontends"]
    tiny = "mlferry_tiny"

where `mlferry_tiny` is a `Reader`: a module with the functions ``claims(source)`` and
``read(source, functions)``. Frontends of other packages are asked before Keras's, which
takes any path.
"""

from __future__ import annotations

from mlferry.converters.frontend import Converter, Frontend
from mlferry.converters.graph import Attributes, Graph, Node, Value
from mlferry.converters.lowering import Lowering
from mlferry.converters.plugins import GROUP, Reader
from mlferry.converters.values import ANY, CHANNELS_FIRST, SOURCE, Blob
from mlferry.layers.builder import Builder
from mlferry.registry import Registry

__all__ = [
    "ANY",
    "CHANNELS_FIRST",
    "GROUP",
    "SOURCE",
    "Attributes",
    "Blob",
    "Builder",
    "Converter",
    "Frontend",
    "Graph",
    "Lowering",
    "Node",
    "Reader",
    "Registry",
    "Value",
]
