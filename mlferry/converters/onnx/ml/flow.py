"""Adds the models of a pipeline, and the values between them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from google.protobuf.message import Message

from mlferry import limits
from mlferry.converters.custom_layers import CustomFunction
from mlferry.converters.graph import Graph, Node, Value
from mlferry.converters.onnx import read
from mlferry.converters.onnx.ml import types
from mlferry.converters.onnx.ml.values import (
    Cell,
    Classes,
    Held,
    Known,
    Label,
    Labels,
    Parts,
    Pending,
    Row,
    Scores,
    Sizes,
    Table,
    Zipped,
    pieces,
    size_of,
)
from mlferry.errors import ConversionError
from mlferry.layers import versions
from mlferry.layers.builder import Builder
from mlferry.spec import features, networks as kinds
from mlferry.spec.fields import fill
from mlferry.spec.proto import features_pb2 as ft, model_pb2
from mlferry.text import unused


def double() -> ft.FeatureType:
    """A double."""
    feature = ft.FeatureType()
    feature.doubleType.SetInParent()
    return feature


_CELLS: Mapping[str, Callable[[], ft.FeatureType]] = {
    "int64": features.int64,
    "string": features.string,
    "double": double,
}


def type_of(value: Row | Cell | Table) -> ft.FeatureType:
    """The type of a value's feature."""
    if isinstance(value, Row):
        return features.multi_array((value.size,), value.dtype)
    if isinstance(value, Table):
        return features.dictionary(value.string_keys)
    return _CELLS[value.kind]()


def labels_field(labels: Labels) -> dict[str, Any]:
    """The field of a classifier that holds its labels."""
    strings = isinstance(labels[0], str)
    return {"stringClassLabels" if strings else "int64ClassLabels": {"vector": list(labels)}}


class Flow:
    """The pipeline that a graph becomes.

    Attributes:
        graph: the source.
        values: what is known about ONNX's values, by name.
        models: those of the pipeline, in order.
        functions: the user's conversion functions, for the ops of networks.

    Args:
        materialize: adds the network that computes a value of ordinary ops.
    """

    def __init__(
        self,
        graph: Graph,
        functions: Mapping[str, CustomFunction],
        materialize: Callable[[Flow, Pending], Row],
    ) -> None:
        self.graph, self.functions, self._materialize = graph, functions, materialize
        self.values: dict[str, Held] = {n: Known(a) for n, a in graph.constants.items()}
        self.models: list[model_pb2.Model] = []
        self.pending: dict[str, Node] = {}
        self.constants = dict(graph.constants)
        self._taken = {value.name for node in graph.nodes for value in node.outputs}
        self._taken |= {value.name for value in graph.inputs} | set(graph.constants)
        self._rows: dict[Any, tuple[Held, Row]] = {}
        self._choices: dict[str, Classes] = {}
        self._renamed: dict[str, str] = {}

    def fresh(self, name: str) -> str:
        """A new name."""
        return unused(name, self._taken)

    # ---- models ------------------------------------------------------------------------

    def add(
        self,
        kind: str,
        params: Mapping[str, Any] | Message,
        inputs: Sequence[Row | Cell | Table],
        outputs: Mapping[str, ft.FeatureType],
        *,
        label: str = "",
        scores: str = "",
    ) -> None:
        """Add a model of any kind."""
        spec = model_pb2.Model()
        target = getattr(spec, kind)
        target.SetInParent()
        if isinstance(params, Mapping):
            fill(target, params)
        else:
            target.CopyFrom(params)
        for value in inputs:
            spec.description.input.add(name=value.feature).type.CopyFrom(type_of(value))
        for name, feature in outputs.items():
            spec.description.output.add(name=name).type.CopyFrom(feature)
        spec.description.predictedFeatureName = label
        spec.description.predictedProbabilitiesName = scores
        self.append(spec)

    def makes(self, name: str) -> bool:
        """Whether a model has an output feature of this name."""
        return any(f.name == name for model in self.models for f in model.description.output)

    def append(self, spec: model_pb2.Model) -> None:
        """Add an existing model."""
        spec.specificationVersion = versions.required(spec)
        self.models.append(spec)

    def to_row(
        self,
        kind: str,
        params: Mapping[str, Any] | Message,
        source: Row | Cell | Table,
        name: str,
        size: int,
        dtype: str = "float32",
        shape: Sizes | None = None,
    ) -> Row:
        """Add a model from one feature to a row."""
        row = Row(self.fresh(name), size, dtype, shape or (1, size))
        self.add(kind, params, [source], {row.feature: type_of(row)}, label=_target(kind, row))
        return row

    def to_cell(
        self,
        kind: str,
        params: Mapping[str, Any] | Message,
        source: Row | Cell,
        name: str,
        cell: str,
    ) -> Cell:
        """Add a model from one feature to one value."""
        result = Cell(self.fresh(name), cell)
        self.add(
            kind, params, [source], {result.feature: type_of(result)}, label=_target(kind, result)
        )
        return result

    def add_classifier(
        self,
        kind: str,
        params: Mapping[str, Any] | Message,
        source: Row | Cell,
        labels: Labels,
        label: str,
        scores: str = "",
    ) -> None:
        """Add a classifier."""
        strings = isinstance(labels[0], str)
        outputs = {label: features.string() if strings else features.int64()}
        if scores:
            outputs[scores] = features.dictionary(strings)
        self.add(kind, params, [source], outputs, label=label, scores=scores)
        fill(getattr(self.models[-1], kind), labels_field(labels))

    def add_choice(self, row: Row, labels: Labels, label: str, scores: str = "") -> None:
        """Add a classifier whose scores are those of a row: a network that computes nothing.

        Raises:
            ConversionError: the number of labels does not fit.
        """
        if len(labels) != row.size:
            raise ConversionError(f"{len(labels)} labels for {row.size} scores")
        builder = Builder()
        builder.input(row.feature, (row.size,), type_of(row))
        blob = scores or self.fresh(f"{label}_scores")
        builder.layer("activation", "scores", [row.feature], [blob], linear={"alpha": 1.0})
        spec = builder.model(
            builder.classifier(
                labels, blob, predicted_feature_name=label, predicted_probabilities_name=blob
            )
        )
        self.append(spec)

    def classes_of(self, values: Held, labels: Labels) -> Classes:
        """The model that picks the largest of some values; the same one for the same values."""
        row = self.row(values)
        if row.feature not in self._choices:
            self._choices[row.feature] = self.chosen(row, labels)
        return self._choices[row.feature]

    def rename(self, old: str, new: str, feature: ft.FeatureType) -> None:
        """Give a feature the name of an output.

        If other models read it, or it is an input, a model that changes nothing is added.
        """
        old = self._renamed.get(old, old)
        makers = [m for m in self.models if any(f.name == old for f in m.description.output)]
        readers = [m for m in self.models if any(f.name == old for f in m.description.input)]
        if len(makers) != 1 or readers or old in self._renamed.values():
            spec = model_pb2.Model()
            spec.identity.SetInParent()
            spec.description.input.add(name=old).type.CopyFrom(feature)
            spec.description.output.add(name=new).type.CopyFrom(feature)
            self.append(spec)
            return
        self._renamed[old] = new
        description = makers[0].description
        for item in description.output:
            item.name = new if item.name == old else item.name
        if description.predictedFeatureName == old:
            description.predictedFeatureName = new
        network = kinds.network_of(makers[0])
        blobs = {new: self.fresh(f"{new}_inside"), old: new}  # a blob may also have the name
        for layer in network.layers if network is not None else ():
            for names in (layer.input, layer.output):
                names[:] = [blobs.get(blob, blob) for blob in names]

    # ---- values ------------------------------------------------------------------------

    def classifier(
        self,
        node: Node,
        kind: str,
        params: Mapping[str, Any] | Message,
        source: Row | Cell,
        labels: Labels,
        *,
        is_distribution: bool = False,
    ) -> Classes:
        """A Core ML classifier that returns label and scores as ONNX does."""

        def add_both(labels: Labels, label: str, scores: str = "") -> None:
            self.add_classifier(kind, params, source, labels, label, scores)

        return Classes(
            labels,
            add_both,
            lambda: self.scores_of(add_both, len(labels), node.name),
            add_both=add_both,
            is_distribution=is_distribution,
        )

    def scores_of(self, add_both: Callable[[Labels, str, str], None], size: int, name: str) -> Row:
        """The scores as a row, from a classifier of indices, whose dictionary is joined."""
        table = Table(self.fresh(f"{name}_places"), string_keys=False)
        add_both(range(size), self.fresh(f"{name}_place"), table.feature)
        column = {"inputColumn": table.feature, "inputDimensions": size}
        return self.to_row(
            "featureVectorizer", {"inputList": [column]}, table, f"{name}_scores", size
        )

    def chosen(self, scores: Row | Pending, labels: Labels, **options: Any) -> Classes:
        """The class with the largest score; a network computes pending ones when needed."""

        def add_both(labels: Labels, label: str, shown: str = "") -> None:
            self.add_choice(self.row(scores), labels, label, shown)

        return Classes(labels, add_both, lambda: self.row(scores), add_both=add_both, **options)

    def row(self, value: Held | None) -> Row:
        """The numbers of a value as one multi-array.

        Raises:
            ConversionError: the value does not consist of numbers.
        """
        if isinstance(value, Row):
            return value
        key: Any = value
        if isinstance(value, Scores | Label):
            key = type(value), id(value.classes), value.shape
        if isinstance(value, Scores | Label | Pending | Cell | Parts) and key in self._rows:
            return self._rows[key][1]
        if isinstance(value, Scores):
            result = value.classes.scores()
        elif isinstance(value, Pending):
            result = self._materialize(self, value)
        elif isinstance(value, Label):
            result = self._joined(self._label_cell(value))
        elif isinstance(value, Cell | Parts):
            result = self._joined(value)
        else:
            raise ConversionError(f"it reads {_called(value)}; numbers are needed")
        self._rows[key] = value, result
        return result

    def _label_cell(self, label: Label) -> Cell:
        """The label as a number, [1] in ONNX."""
        labels = label.classes.labels
        if isinstance(labels[0], str):
            raise ConversionError("it reads the label of a classifier, a text; numbers are needed")
        cell = Cell(self.fresh("label"), "int64", label.shape)
        label.classes.add_label(labels, cell.feature)
        return cell

    def _joined(self, value: Cell | Parts) -> Row:
        parts = pieces(value)
        if any(isinstance(part, Cell) and part.kind == "string" for part in parts):
            raise ConversionError("it reads texts; numbers are needed")
        dtypes = {part.dtype if isinstance(part, Row) else "float64" for part in parts}
        dtype = "float32" if dtypes == {"float32"} else "float64"
        row = Row(self.fresh(f"{parts[0].feature}_joined"), size_of(value), dtype, value.shape)
        columns = [
            {"inputColumn": part.feature, "inputDimensions": size_of(part)} for part in parts
        ]
        distinct = list({part.feature: part for part in parts}.values())
        self.add("featureVectorizer", {"inputList": columns}, distinct, {row.feature: type_of(row)})
        return row

    def sample(self, value: Held | None) -> Row:
        """The values of one sample, [C] or [1, C] in ONNX, as a row.

        Raises:
            ConversionError: the tensor has more axes, or several rows.
        """
        row = self.row(value)
        if len(row.shape) > 2 or row.shape[:-1] not in ((), (1,)):
            raise ConversionError(
                f"it reads a tensor of shape {list(row.shape)} for each sample; rows [1, C] are "
                "possible"
            )
        return row

    def cells(self, value: Held | None) -> tuple[Cell, ...]:
        """The values of a tensor, each as an int64 or a string.

        Raises:
            ConversionError: the value has floats, or no single values.
        """
        if isinstance(value, Pending):
            value = self.row(value)
        if not isinstance(value, Row | Cell | Parts):
            raise ConversionError(f"it reads {_called(value)}; texts or integers are needed")
        results: list[Cell] = []
        for part in pieces(value):
            if isinstance(part, Cell):
                results.append(part)
                continue
            if part.dtype != "int32":
                raise ConversionError("it reads floats as categories; integers or texts are needed")
            limits.check("unrolled", part.size, "each column becomes models of its own; there are:")
            for index in range(part.size):
                pick = {"extractIndex": [index]}
                name = f"{part.feature}_{index}"
                results.append(self.to_cell("arrayFeatureExtractor", pick, part, name, "int64"))
        return tuple(results)

    def plain(
        self,
        op: str,
        inputs: Sequence[Held | np.ndarray[Any, Any]],
        shape: Sizes | None,
        dtype: str = "float32",
        **attrs: Any,
    ) -> Pending:
        """The result of an ordinary ONNX op for values, as if it were in the graph."""
        import onnx

        names = []
        for value in inputs:
            if isinstance(value, Pending):
                names.append(value.name)
                continue
            name = self.fresh(f"{op}_operand")
            if isinstance(value, np.ndarray):
                self.constants[name] = value
            self.values[name] = Known(value) if isinstance(value, np.ndarray) else value
            names.append(name)
        output = self.fresh(op)
        proto = onnx.helper.make_node(op, names, [output], name=output, **attrs)
        node = read.node(proto, {}, self.graph.source)
        plain_node = replace(node, outputs=(Value(output, shape, dtype),))
        self.postpone(plain_node)
        pending = self.values[output] = Pending(output, shape)
        return pending

    def postpone(self, node: Node) -> None:
        """Keep an ordinary op, with the types of values, for the network that will include it."""
        inputs = tuple(replace(v, dtype=self.dtype_of(v)) for v in node.inputs)
        dtypes = types.of_outputs(node, [value.dtype for value in inputs])
        outputs = tuple(
            replace(value, dtype=dtype) if value.dtype == "unknown" else value
            for value, dtype in zip(node.outputs, dtypes, strict=True)
        )
        for value in outputs:
            self.pending[value.name] = replace(node, inputs=inputs, outputs=outputs)

    def dtype_of(self, value: Value) -> str:
        """The type of one of ONNX's values."""
        entry = self.values.get(value.name)
        maker = self.pending.get(value.name)
        if maker is not None:
            return next(v.dtype for v in maker.outputs if v.name == value.name)
        if isinstance(entry, Known):
            return str(entry.array.dtype)
        if isinstance(entry, Label):
            return "string" if isinstance(entry.classes.labels[0], str) else "int64"
        if isinstance(entry, Row | Cell | Parts):
            kinds = {part.dtype if isinstance(part, Row) else part.kind for part in pieces(entry)}
            return "int64" if kinds <= {"int32", "int64"} else "float32"
        return "float32" if isinstance(entry, Scores) else value.dtype


def _target(kind: str, result: Row | Cell) -> str:
    return result.feature if kind.endswith("Regressor") else ""


def _called(value: Held | None) -> str:
    if isinstance(value, Table | Zipped):
        return "a dictionary"
    if isinstance(value, Known):
        return "a constant"
    return "nothing" if value is None else f"a {type(value).__name__.lower()}"
