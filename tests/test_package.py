"""The package as a whole: what importing it loads, and which way its parts depend."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import mlferry

PACKAGE = Path(mlferry.__file__).parent

# Which parts of the package a part may import.
ALLOWED = {
    "errors": set(),
    "limits": {"errors"},
    "registry": {"errors"},
    "spec": {"errors", "limits", "registry", "spec"},
    "custom": {"errors", "registry", "spec"},
    "exporters": {"errors", "limits", "registry", "spec", "custom", "exporters", "version"},
    "runtime": {"errors", "limits", "registry", "spec", "custom", "exporters", "runtime"},
    "models": {"errors", "limits", "registry", "spec", "custom", "exporters", "runtime", "models"},
    "proto": {"spec", "proto"},
    "utils": {"models"},
    "frontends": {"converters", "spec", "registry"},
    "converters": {"errors", "limits", "registry", "spec", "custom", "converters", "version"},
}
# The entry points return an MLModel; nothing else in converters/ may know of it.
RETURNS_MODELS = {
    "converters/convert.py",
    "converters/keras/api.py",
    "converters/onnx/api.py",
    "converters/tensorflow/api.py",
}


def imports_of(path: Path) -> set[str]:
    """The parts of mlferry that a module imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        found |= {name.split(".")[1] for name in names if name.startswith("mlferry.")}
    return found


@pytest.mark.parametrize("part", sorted(ALLOWED))
def test_dependencies_point_one_way(part: str) -> None:
    single = PACKAGE / f"{part}.py"
    files = [single] if single.exists() else sorted((PACKAGE / part).rglob("*.py"))
    assert files
    for path in files:
        allowed = set(ALLOWED[part])
        if path.relative_to(PACKAGE).as_posix() in RETURNS_MODELS:
            allowed.add("models")
        assert imports_of(path) <= allowed, path


def test_frontends_do_not_import_each_other() -> None:
    frontends = [p.name for p in (PACKAGE / "converters").iterdir() if (p / "read.py").exists()]
    assert frontends
    for frontend in frontends:
        text = "".join(
            p.read_text(encoding="utf-8") for p in (PACKAGE / "converters" / frontend).rglob("*.py")
        )
        for other in set(frontends) - {frontend}:
            assert f"converters.{other}" not in text


def test_import_loads_numpy_and_protobuf_only() -> None:
    program = (
        "import sys, mlferry; heavy = {'h5py', 'onnx', 'keras', 'tf_keras', 'tensorflow', 'torch',"
        " 'PIL', 'coremltools', 'onnxruntime'}; print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_no_prints_in_the_library() -> None:
    for path in PACKAGE.rglob("*.py"):
        if path.name.endswith("_pb2.py"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            called = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
            assert not (called and node.func.id == "print"), path


@pytest.mark.parametrize("name", mlferry.__all__)
def test_public_names_exist_and_are_documented(name: str) -> None:
    assert getattr(mlferry, name).__doc__
