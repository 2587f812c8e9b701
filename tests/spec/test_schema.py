"""The schema is Core ML's: compared, message by message, with that of coremltools."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib import util
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2

import mlferry
from mlferry.layers.builder import LAYER_KINDS
from mlferry.spec.proto import (
    apple_pb2,
    features_pb2,
    mil_pb2,
    model_pb2,
    neural_network_pb2,
    predictors_pb2,
    transforms_pb2,
)

ROOT = Path(mlferry.__file__).parent.parent
MODULES = (
    apple_pb2, features_pb2, mil_pb2, model_pb2, neural_network_pb2, predictors_pb2,
    transforms_pb2,
)  # fmt: skip
OURS, THEIRS = "mlferry.spec", "CoreML.Specification"
NUMBERS = set(range(1, 9)) | set(range(13, 19))  # the field types that can be packed

# coremltools' own __init__ imports much that has nothing to do with the schema.
LOAD_THEIRS = """
import sys, types
from importlib import util
package = types.ModuleType("coremltools")
package.__path__ = list(util.find_spec("coremltools").submodule_search_locations)
sys.modules["coremltools"] = package
from coremltools.proto import Model_pb2
theirs, waiting = {}, [Model_pb2.DESCRIPTOR]
while waiting:
    file = waiting.pop()
    theirs[file.name] = file.serialized_pb.hex()
    waiting += [found for found in file.dependencies if found.name not in theirs]
"""


def run(code: str) -> str:
    """What a script prints in a process of its own, without its warnings."""
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def needs_coremltools() -> None:
    if util.find_spec("coremltools") is None:
        pytest.skip("coremltools is not installed; its schema is the reference")


def described(files: list[bytes], package: str) -> dict[str, Any]:
    """Messages and enums by their name without the package; see `message_facts`."""
    results: dict[str, Any] = {}
    for data in files:
        file = descriptor_pb2.FileDescriptorProto.FromString(data)
        assert file.syntax == "proto3"
        scope = file.package.removeprefix(package)
        for message in file.message_type:
            add_message(results, f"{scope}.{message.name}", message, package)
        for enum in file.enum_type:
            results[f"{scope}.{enum.name}"] = enum_facts(enum)
    return results


def add_message(
    actual: dict[str, Any], name: str, message: descriptor_pb2.DescriptorProto, package: str
) -> None:
    actual[name] = message_facts(message, package)
    for inner in message.nested_type:
        add_message(actual, f"{name}.{inner.name}", inner, package)
    for enum in message.enum_type:
        actual[f"{name}.{enum.name}"] = enum_facts(enum)


def message_facts(message: descriptor_pb2.DescriptorProto, package: str) -> dict[str, Any]:
    facts: dict[str, Any] = {"map": message.options.map_entry}
    for field in message.field:
        repeated = field.label == field.LABEL_REPEATED
        packable = repeated and field.type in NUMBERS
        packed = field.options.packed if field.options.HasField("packed") else packable
        oneof = message.oneof_decl[field.oneof_index].name if field.HasField("oneof_index") else ""
        facts[field.name] = [
            field.number,
            field.type,
            field.label,
            field.type_name.removeprefix(f".{package}"),
            oneof,
            packed,
            field.proto3_optional,
        ]
    return facts


def enum_facts(enum: descriptor_pb2.EnumDescriptorProto) -> dict[str, Any]:
    return {value.name: value.number for value in enum.value}


MINE = described([module.DESCRIPTOR.serialized_pb for module in MODULES], OURS)


@pytest.fixture(scope="module")
def reference() -> dict[str, Any]:
    needs_coremltools()
    files = json.loads(run(f"{LOAD_THEIRS}import json; print(json.dumps(theirs))"))
    assert "NeuralNetwork.proto" in files
    return described([bytes.fromhex(text) for text in files.values()], THEIRS)


def test_nothing_is_missing_and_nothing_is_extra(reference: dict[str, Any]) -> None:
    assert set(MINE) == set(reference)
    assert len(MINE) > 350


@pytest.mark.parametrize("name", sorted(MINE))
def test_message_or_enum_is_the_same(name: str, reference: dict[str, Any]) -> None:
    assert MINE[name] == reference.get(name)


def test_every_layer_kind_is_there() -> None:
    assert len(LAYER_KINDS) == 158
    assert len(set(LAYER_KINDS)) == 158


@pytest.mark.parametrize("ours_first", [True, False])
def test_both_schemas_live_in_one_process(ours_first: bool) -> None:
    needs_coremltools()
    parts = ["from mlferry.spec.proto import model_pb2", LOAD_THEIRS]
    code = "\n".join(parts if ours_first else parts[::-1]) + (
        "\n"
        "one = model_pb2.Model(specificationVersion=4)\n"
        "one.neuralNetwork.layers.add(name='a').softmax.SetInParent()\n"
        "two = Model_pb2.Model.FromString(one.SerializeToString())\n"
        "print(two.neuralNetwork.layers[0].WhichOneof('layer'), type(one) is type(two))\n"
    )
    assert run(code).split() == ["softmax", "False"]


@pytest.mark.parametrize(
    "name",
    sorted(path.name for path in (ROOT / "mlferry/spec/proto").glob("*_pb2.py*")),
)
def test_generated_module_is_not_stale(name: str, generated: Path) -> None:
    committed = ROOT / "mlferry" / "spec" / "proto" / name
    assert (generated / name).read_bytes() == committed.read_bytes(), "run `make schema`"


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    beside = Path(sys.executable).with_name("protoc")
    protoc = str(beside) if beside.exists() else shutil.which("protoc")
    if protoc is None:
        pytest.skip("protoc is not installed")
    folder = tmp_path_factory.mktemp("generated")
    sources = sorted(
        path.relative_to(ROOT).as_posix() for path in (ROOT / "mlferry/spec/proto").glob("*.proto")
    )
    command = [protoc, "-I.", f"--python_out={folder}", f"--pyi_out={folder}", *sources]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "mlferry" / "spec" / "proto"


def test_every_schema_file_is_compared(generated: Path) -> None:
    result = {path.name for path in generated.iterdir()}
    assert result == {path.name for path in (ROOT / "mlferry/spec/proto").glob("*_pb2.py*")}
    assert {module.__name__.rpartition(".")[2] + ".py" for module in MODULES} <= result
