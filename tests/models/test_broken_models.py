"""What looks at models never fails but with an error of our own, however broken a model is."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

import pytest

from mlferry.errors import MlferryError
from mlferry.models import flexible_shapes, utils
from mlferry.models.inspect import describe
from mlferry.models.inspect_html import page as facts_page
from mlferry.models.scaffold import python_files, swift_files
from mlferry.models.view.graph import graph_of
from mlferry.models.view.page import page
from mlferry.spec.proto import model_pb2
from tests.layers.broken_layers import LAYER_CASES, layer_model
from tests.layers.broken_models import CASES


def look(spec: model_pb2.Model) -> None:
    actual = describe(spec)
    json.dumps(actual.to_dict())
    facts_page(actual)


def draw(spec: model_pb2.Model) -> None:
    pytest.importorskip("igraph")
    page(graph_of(spec, {}, {}), "model")


def write_classes(spec: model_pb2.Model) -> None:
    swift_files(spec, gpu=True)
    python_files(spec)


def try_sizes(spec: model_pb2.Model) -> None:
    flexible_shapes.accepted_sizes(spec, most=16)


def rename(spec: model_pb2.Model) -> None:
    names = [feature.name for feature in spec.description.input]
    utils.rename_feature(spec, names[0] if names else "x", "another")


TOOLS: list[Callable[[model_pb2.Model], None]] = [look, draw, write_classes, try_sizes, rename]


@pytest.mark.parametrize("tool", TOOLS, ids=[tool.__name__ for tool in TOOLS])
def test_broken_models(tool: Callable[[model_pb2.Model], None]) -> None:
    models: list[tuple[str, Any]] = [(f"{case[0]}", case[1]()) for case in CASES]
    models += [(f"{k}: {text}", layer_model(k, params)) for k, params, _, text in LAYER_CASES]
    assert len(models) > 100
    for name, spec in models:
        try:
            with contextlib.suppress(MlferryError):
                tool(spec)
        except Exception as error:
            raise AssertionError(f"{name}: {error!r}") from error
