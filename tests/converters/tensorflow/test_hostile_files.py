"""TensorFlow models that were made to harm: loading them runs nothing that acts on files."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlferry
from mlferry.converters import isolated
from mlferry.converters.tensorflow import apart
from mlferry.errors import LimitError, MlferryError, ModelFileError

tf = pytest.importorskip("tensorflow")


class Acting(tf.Module):  # type: ignore[misc]
    """Does what an op of a function does while it is loaded, by way of a table."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.table = _Resource(path)
        self.scale = tf.Variable([2.0])

    @tf.function(input_signature=[tf.TensorSpec([1, 1])])  # type: ignore[misc]
    def __call__(self, x: Any) -> Any:
        return x * self.scale


class _Resource(tf.lookup.StaticHashTable):  # type: ignore[misc]
    def __init__(self, path: Path) -> None:
        self.path = path
        super().__init__(tf.lookup.KeyValueTensorInitializer(["a"], [1]), 0)

    def _initialize(self) -> Any:
        tf.io.write_file(str(self.path), "was here")
        return super()._initialize()


def test_loading_does_not_write(tmp_path: Path) -> None:
    mark, folder = tmp_path / "mark", tmp_path / "model"
    tf.saved_model.save(Acting(mark), str(folder))
    mark.unlink(missing_ok=True)
    with pytest.raises(ModelFileError, match=r"acts on files or calls code: WriteFile"):
        mlferry.convert(folder)
    assert not mark.exists()


def test_an_honest_table_is_loaded(tmp_path: Path) -> None:
    class Honest(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            keys = tf.lookup.KeyValueTensorInitializer(["a"], [1])
            self.table = tf.lookup.StaticHashTable(keys, 0)
            self.scale = tf.Variable([2.0])

        @tf.function(input_signature=[tf.TensorSpec([1, 1])])  # type: ignore[misc]
        def __call__(self, x: Any) -> Any:
            return x * self.scale

    tf.saved_model.save(Honest(), str(tmp_path / "model"))
    actual = mlferry.convert(tmp_path / "model").predict({"x": np.ones((1, 1))})
    assert [array.tolist() for array in actual.values()] == [[[2.0]]]


def graph(*nodes: tuple[str, str, list[str], dict[str, Any]]) -> Any:
    result = tf.compat.v1.GraphDef()
    result.versions.producer = 1882
    for name, op, inputs, attrs in nodes:
        node = result.node.add(name=name, op=op, input=inputs)
        for key, value in attrs.items():
            node.attr[key].CopyFrom(value)
    return result


def kind(number: int = 1) -> Any:
    return tf.compat.v1.AttrValue(type=number)


def constant(array: Any) -> dict[str, Any]:
    array = np.asarray(array)
    tensor = tf.make_tensor_proto(array)
    return {"value": tf.compat.v1.AttrValue(tensor=tensor), "dtype": kind(tensor.dtype)}


X = ("x", "Placeholder", [], {"dtype": kind(),
     "shape": tf.compat.v1.AttrValue(shape=tf.TensorShape([1, 4]).as_proto())})  # fmt: skip


def writing(path: Path) -> Any:
    return graph(
        X, ("f", "Const", [], constant(str(path))), ("t", "Const", [], constant("x")),
        ("w", "WriteFile", ["f", "t"], {}), ("y", "Identity", ["x", "^w"], {"T": kind()}),
    )  # fmt: skip


def calling(levels: int, *, recursive: bool = False) -> Any:
    result = graph(X, ("y", "f0", ["x"], {}))
    for level in range(levels):
        function = result.library.function.add()
        signature = function.signature
        signature.name = f"f{level}"
        signature.input_arg.add(name="a", type=1)
        signature.output_arg.add(name="c", type=1)
        last = level == levels - 1
        op = ("f0" if recursive else "Neg") if last else f"f{level + 1}"
        for name, inputs in (("one", "a"), ("two", f"one:{'y' if op == 'Neg' else 'c'}:0")):
            node = function.node_def.add(name=name, op=op, input=[inputs])
            if op == "Neg":
                node.attr["T"].type = 1
        function.ret["c"] = f"two:{'y' if op == 'Neg' else 'c'}:0"
    return result


def test_hostile_graphs(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    giant = np.array([1 << 30, 4], np.int32)
    filled = graph(
        X, ("s", "Const", [], constant(giant)), ("v", "Const", [], constant(np.float32(1))),
        ("w", "Fill", ["s", "v"], {"T": kind(), "index_type": kind(3)}),
        ("y", "Add", ["x", "w"], {"T": kind()}),
    )  # fmt: skip
    for actual, error, message in (
        (writing(mark), ModelFileError, "acts on files or calls code: WriteFile 'w'"),
        (calling(60), LimitError, r"it has nodes: 2,305,843,[\d,]+; the limit is 200,000"),
        (calling(3, recursive=True), MlferryError, "calls itself"),
        (filled, MlferryError, "constants="),
    ):
        start = time.monotonic()
        path = tmp_path / "m.pb"
        path.write_bytes(actual.SerializeToString())
        with pytest.raises(error, match=message):
            mlferry.convert(path)
        assert time.monotonic() - start < 30
    assert not mark.exists()
    good = calling(1)
    path.write_bytes(good.SerializeToString())
    actual = mlferry.convert(path).predict({"x": np.ones((1, 4))})
    np.testing.assert_array_equal(actual["y"], np.ones((1, 4)))


LIES: dict[str, tuple[dict[str, Any], str]] = {
    "more values than its shape": ({"shape": [4]}, "cannot be read by TensorFlow.*reshape"),
    "fewer values than its shape": ({"shape": [3, 4]}, "cannot be read by TensorFlow.*reshape"),
    "a giant shape": ({"shape": [1 << 40, 4]}, r"take bytes: 17,592,186,044,416; .*weights="),
    "an overflowing shape": ({"shape": [1 << 40, 1 << 40]}, "TensorFlow"),
    "a type that is none": ({"dtype": 28}, "cannot be read by TensorFlow"),
    "bytes of half a number": ({"content": b"12345"}, "cannot be read by TensorFlow"),
}  # fmt: skip


@pytest.mark.parametrize("name", LIES)
def test_a_constant_that_lies(name: str, tmp_path: Path) -> None:
    told, message = LIES[name]
    attrs = constant(np.ones((2, 4), np.float32))
    tensor = attrs["value"].tensor
    if "shape" in told:
        tensor.tensor_shape.CopyFrom(tf.TensorShape(told["shape"]).as_proto())
    tensor.dtype = told.get("dtype", tensor.dtype)
    tensor.tensor_content = told.get("content", tensor.tensor_content)
    result = graph(X, ("c", "Const", [], attrs), ("y", "Add", ["x", "c"], {"T": kind()}))
    path = tmp_path / "m.pb"
    path.write_bytes(result.SerializeToString())
    with pytest.raises(MlferryError, match=message):
        mlferry.convert(path)


def test_what_cannot_be_handed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph that is too large for a message, say."""
    script, path = tmp_path / "worker.py", tmp_path / "m.pb"
    answers = {"raise ValueError('too large')": "cannot be frozen by TensorFlow: too large",
               "sys.stdout.buffer.write(b'{\"sizes\": [9, 9]}\\n123'); sys.stdout.flush();"
               " os._exit(0)": "TensorFlow crashed"}  # fmt: skip
    path.write_bytes(calling(1).SerializeToString())
    for statement, message in answers.items():
        script.write_text(
            f"import os, sys\ndef load(): pass\ndef read(told):\n    {statement}\n"
            'CALLS = {"read": read}\n', encoding="utf-8",
        )  # fmt: skip
        monkeypatch.setattr(apart, "_WORKER", isolated.Worker(str(script), "TensorFlow"))
        with pytest.raises(ModelFileError, match=message):
            mlferry.convert(path)


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes(b"\x0a\xff\xff")
    with pytest.raises(ModelFileError, match="not a SavedModel"):
        mlferry.convert(tmp_path)
    (tmp_path / "saved_model.pb").unlink()
    (tmp_path / "saved_model.pbtxt").write_text("a {" * 5000, encoding="ascii")
    with pytest.raises(ModelFileError, match="not a SavedModel"):
        mlferry.convert(tmp_path)
    (tmp_path / "saved_model.pbtxt").unlink()
    os.mkfifo(tmp_path / "saved_model.pb")
    with pytest.raises(ModelFileError, match="not a plain file"):
        mlferry.convert(tmp_path)
