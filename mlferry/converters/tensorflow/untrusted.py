"""Checks what a TensorFlow model would do when it is merely loaded.

Loading a SavedModel runs functions of the file: those that initialize its tables and restore its
variables. They may use all of TensorFlow's ops, including those that write files and call Python.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mlferry import limits
from mlferry.converters import expansion
from mlferry.converters.tensorflow.objects import GraphDef, MetaGraph
from mlferry.errors import ModelFileError

_HARMFUL = {
    *("WriteFile", "ReadFile", "MatchingFiles", "PyFunc", "PyFuncStateless", "EagerPyFunc"),
    *("PrintV2", "WriteSummary", "WriteRawProtoSummary", "WriteGraphSummary", "ImportEvent"),
    *("CreateSummaryFileWriter", "CreateSummaryDbWriter", "DebugIdentity", "DebugIdentityV2"),
    *("DebugIdentityV3", "DebugNanCount", "DebugNumericSummary", "RegisterDataset"),
    *("DataServiceDataset", "DataServiceDatasetV2", "SendTPUEmbeddingGradients"),
    *("TFRecordReader", "TFRecordReaderV2", "WholeFileReader", "WholeFileReaderV2"),
    *("TextLineReader", "TextLineReaderV2", "LMDBReader", "RpcServerStart"),
    *("FixedLengthRecordReader", "FixedLengthRecordReaderV2", "FixedLengthRecordDataset"),
    *("FixedLengthRecordDatasetV2", "TextLineDataset", "TFRecordDataset", "TFRecordDatasetV2"),
    *("SqlDataset", "LMDBDataset", "CacheDataset", "CacheDatasetV2", "SaveDataset"),
    *("SaveDatasetV2", "LoadDataset", "SnapshotDataset", "SnapshotDatasetV2"),
    *("SymbolicGradient", "RemoteCall", "RemoteFusedGraphExecute", "Abort"),
}
# Every SavedModel has an op for saving.
_SAVING = {"Save", "SaveSlices", "SaveV2", "MergeV2Checkpoints"}
_RUN_AT_LOADING = {"_initialize", "_create_resource", "_destroy_resource", "_gather_saveables_for"}
_INIT_OP = "__saved_model_init_op"


def check_graph(graph: GraphDef, name: str) -> None:
    """Refuse a GraphDef that does more than compute, or that fills the memory.

    Raises:
        ModelFileError: it has ops that read or write files, or call Python.
        ConversionError: a function of it calls itself.
        LimitError: its functions, inlined, are too many nodes.
    """
    functions = {f.signature.name: f.node_def for f in graph.library.function}
    _refuse(_HARMFUL, (graph.node, *functions.values()), name)
    calls = {key: list(_calls(nodes)) for key, nodes in functions.items()}
    count = expansion.nodes(list(_calls(graph.node)), calls)
    limits.check("nodes", count, f"{name}: with its functions inlined, it has nodes:")


def check_saved_model(folder: Path, name: str) -> Any:
    """Refuse a SavedModel with side effects while loading; see `check_graph`.

    Returns:
        its message.

    Raises:
        ModelFileError: also if the file is damaged.
    """
    message = _message(folder, name)
    for graph in message.meta_graphs:
        check_graph(graph.graph_def, name)
        functions = {f.signature.name: f.node_def for f in graph.graph_def.library.function}
        _refuse(_SAVING, [_initializers(graph)], name)
        reached, waiting = set[str](), list(_roots(graph))
        while waiting:
            key = waiting.pop()
            if key in functions and key not in reached:
                reached.add(key)
                waiting += _calls(functions[key])
        _refuse(_SAVING, (functions[key] for key in reached), name)
    return message


def _message(folder: Path, name: str) -> Any:
    from google.protobuf import text_format
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    message = saved_model_pb2.SavedModel()
    binary = folder / "saved_model.pb"
    path = binary if binary.exists() else folder / "saved_model.pbtxt"
    data = limits.read_message(path)
    try:
        if path == binary:
            message.ParseFromString(data)
        else:
            text_format.Parse(data, message)
    except (DecodeError, text_format.ParseError, RecursionError, ValueError) as error:
        raise ModelFileError(f"{name} is cut off, damaged, or not a SavedModel: {error}") from error
    return message


def _refuse(ops: set[str], bodies: Iterable[Any], name: str) -> None:
    results = {(node.op, node.name) for nodes in bodies for node in nodes if node.op in ops}
    if results:
        listed = ", ".join(f"{op} {node!r}" for op, node in sorted(results)[:5])
        raise ModelFileError(
            f"{name} acts on files or calls code: {listed}. Such ops are not loaded; export only "
            "the part of the model that computes"
        )


def _calls(nodes: Iterable[Any]) -> Iterator[str]:
    """The op of each node, and the functions that its attributes name."""
    for node in nodes:
        yield node.op
        for value in node.attr.values():
            if value.HasField("func"):
                yield value.func.name
            yield from (item.name for item in value.list.func)


def _roots(graph: MetaGraph) -> Iterator[str]:
    """The functions that loading runs."""
    nodes = graph.object_graph_def.nodes
    for node in nodes:
        for child in node.children:
            if child.local_name in _RUN_AT_LOADING and child.node_id < len(nodes):
                yield from nodes[child.node_id].function.concrete_functions
        for saveable in node.saveable_objects.values():
            if 0 <= saveable.restore_function < len(nodes):
                yield from nodes[saveable.restore_function].function.concrete_functions
    yield from _calls(_initializers(graph))


def _initializers(graph: MetaGraph) -> Iterator[Any]:
    """The nodes of the graph itself that loading runs."""
    if _INIT_OP not in graph.signature_def:
        return
    by_name = {node.name: node for node in graph.graph_def.node}
    waiting = [item.name for item in graph.signature_def[_INIT_OP].outputs.values()]
    while waiting:
        node = by_name.pop(waiting.pop().lstrip("^").split(":")[0], None)
        if node is not None:
            waiting += node.input
            yield node
