"""The package as a whole: what importing it loads, and which way its parts depend."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import mlferry

PACKAGE = Path(mlferry.__file__).parent

# Which parts of the package a part may import.
ALLOWED = {
    "text": set(),
    "errors": {"text"},
    "lazy": set(),
    "version": set(),
    "limits": {"errors"},
    "registry": {"errors"},
    "refusals": set(),
    "rooms": {"registry"},
    "settings": set(),
    "memory": set(),
    "lanes": {"settings"},
    "numerics": {"errors", "lanes", "compiled", "numerics"},
    "compiled": {"errors", "lanes", "memory", "settings", "compiled"},
    "progress": {"text"},
    "spec": {"errors", "text", "lazy", "limits", "numerics", "progress", "registry", "spec"},
    "custom": {"errors", "text", "registry", "spec"},
    "examples": {"errors", "text"},
    "onnx_graph": {"errors", "numerics", "onnx_graph", "refusals", "version"},
    "layers": {
        "errors", "text", "lazy", "limits", "numerics", "compiled", "refusals", "registry", "rooms",
        "spec", "onnx_graph", "programs", "layers",
    },
    "programs": {
        "errors", "text", "lanes", "lazy", "limits", "numerics", "compiled", "progress", "refusals",
        "registry", "rooms", "spec", "onnx_graph", "programs",
    },
    "exporters": {
        "errors", "text", "lazy", "limits", "numerics", "refusals", "registry", "spec", "custom",
        "onnx_graph", "layers", "programs", "exporters", "version",
    },
    "runtime": {
        "errors", "text", "lanes", "lazy", "limits", "memory", "numerics", "compiled", "registry",
        "spec", "custom", "onnx_graph", "layers", "programs", "exporters", "runtime",
    },
    "training": {
        "errors", "limits", "registry", "spec", "custom", "layers", "runtime", "training",
    },
    "models": {
        "errors", "text", "lanes", "lazy", "limits", "numerics", "compiled", "progress", "registry",
        "spec", "custom", "onnx_graph", "layers", "programs", "exporters", "runtime", "training",
        "models",
    },
    "proto": {"spec", "proto"},
    "utils": {"models"},
    "optimize": {
        "errors", "text", "models", "optimize", "programs", "progress", "registry", "spec",
    },
    "frontends": {"converters", "layers", "spec", "registry"},
    "converters": {
        "errors", "text", "lazy", "limits", "numerics", "progress", "registry", "spec", "custom",
        "settings", "layers", "converters", "version",
    },
}  # fmt: skip
# Documented addresses of what lies elsewhere.
ADDRESSES = {"spec/builder.py": "layers", "spec/validate.py": "models"}
# The entry points return an MLModel; nothing else in converters/ may know of it.
RETURNS_MODELS = {
    "converters/convert.py",
    "converters/keras/api.py",
    "converters/onnx/api.py",
    "converters/tensorflow/api.py",
}


def imports_of(path: Path) -> set[str]:
    """The parts of mlferry that a module imports."""
    results = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        results |= {name.split(".")[1] for name in names if name.startswith("mlferry.")}
    return results


@pytest.mark.parametrize("part", sorted(ALLOWED))
def test_dependencies_point_one_way(part: str) -> None:
    single = PACKAGE / f"{part}.py"
    files = [single] if single.exists() else sorted((PACKAGE / part).rglob("*.py"))
    assert files
    for path in files:
        allowed = set(ALLOWED[part])
        relative = path.relative_to(PACKAGE).as_posix()
        if relative in RETURNS_MODELS:
            allowed.add("models")
        if relative in ADDRESSES:
            allowed.add(ADDRESSES[relative])
        assert imports_of(path) <= allowed, path


# Of the modules of a family, what each may import of mlferry besides its own and definitions.
ROOMS = {
    "layers/*/definition.py": {
        "layers.definitions", "layers.params", "layers.borders", "spec", "numerics",
    },
    "layers/*/kernel.py": {
        "layers.kernels", "layers.params", "layers.borders", "spec", "numerics", "compiled",
    },
    "layers/*/gradient.py": {
        "layers.gradients", "layers.kernels", "layers.params", "layers.borders", "spec", "numerics",
    },
    "layers/*/onnx.py": {
        "layers.exports", "layers.onnx_weights", "layers.params", "layers.borders", "numerics",
        "onnx_graph", "spec",
    },
    "layers/*/program.py": {
        "layers.programs", "layers.program_weights", "layers.params", "layers.borders", "numerics",
        "programs", "spec",
    },
    "layers/*/either.py": {"layers.writers", "layers.params", "numerics", "spec"},
    "programs/*/definition.py": {"programs.definitions", "programs.types", "numerics"},
    "programs/*/kernel.py": {"programs.kernels", "programs.types", "numerics", "compiled"},
    "programs/*/onnx.py": {"programs.exports", "programs.types", "numerics", "onnx_graph"},
}  # fmt: skip


@pytest.mark.parametrize("pattern", sorted(ROOMS))
def test_a_module_of_a_family_knows_its_own_concern_only(pattern: str) -> None:
    paths = sorted(PACKAGE.glob(pattern))
    package, _, name = pattern.split("/")
    assert len(paths) >= (4 if name == "either.py" else 12)
    own = {"definition", name.removesuffix(".py")}
    own |= {"either"} if name in ("onnx.py", "program.py") else set()  # of both formats
    own |= {"kernel"} if name == "gradient.py" else set()  # whose way back it is
    for path in paths:
        for module in modules_imported(path):
            part = module.removeprefix("mlferry.").split(".")
            family = len(part) == 3 and part[0] == package
            if family:
                assert part[2] in own, (path, module)
            elif part[0] not in {"errors", "limits", "refusals"}:
                near = {part[0], ".".join(part[:2])}
                assert near & ROOMS[pattern], (path, module)


def test_of_layers_only_those_that_write_programs_know_them() -> None:
    knowing = {
        path.relative_to(PACKAGE / "layers").as_posix()
        for path in (PACKAGE / "layers").rglob("*.py")
        if any(module.startswith("mlferry.programs") for module in modules_imported(path))
    }
    assert {path for path in knowing if not path.endswith("/program.py")} == {"program_weights.py"}


def modules_imported(path: Path) -> set[str]:
    """The modules of mlferry that a module imports, wherever it does so."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("mlferry"):
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                names.add(inner if inner in MODULES else str(node.module))
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names if alias.name in MODULES}
    return names


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


# those in a folder without __init__.py are files of the examples
MODULES = {
    module_name(path): path
    for path in PACKAGE.rglob("*.py")
    if (path.parent / "__init__.py").exists()
}


def test_no_circles() -> None:
    """Also none that an import inside a function, or for type checkers only, hides."""
    # a package that imports its names when they are asked for imports nothing by itself
    graph = {
        name: modules_imported(path) - {name}
        for name, path in MODULES.items()
        if not (path.name == "__init__.py" and "lazy.names" in path.read_text(encoding="utf-8"))
    }
    while True:
        needed = set().union(*graph.values())
        ends = {name for name in graph if name not in needed or not graph[name] & graph.keys()}
        if not ends:
            break
        graph = {name: graph[name] for name in graph.keys() - ends}
    assert not graph, {name: sorted(imported & graph.keys()) for name, imported in graph.items()}


def test_frontends_do_not_import_each_other() -> None:
    frontends = [p.name for p in (PACKAGE / "converters").iterdir() if (p / "read.py").exists()]
    assert frontends
    for frontend in frontends:
        text = "".join(
            p.read_text(encoding="utf-8")
            for p in (PACKAGE / "converters" / frontend).rglob("*.py")
            if p.name != "tensorflow_ops.py"  # Keras layers that hold an op of TensorFlow's
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


def modules_after(program: str) -> list[str]:
    """The modules of mlferry that a fresh process has loaded after a program."""
    program += "\nimport sys; print(*sorted(m for m in sys.modules if m.startswith('mlferry')))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def test_importing_loads_only_how_to_import() -> None:
    assert modules_after("import mlferry") == ["mlferry", "mlferry.lazy", "mlferry.version"]


def test_predicting_loads_no_converter_and_no_exporter() -> None:
    loaded = modules_after("import mlferry; mlferry.MLModel")
    unwanted = ("mlferry.converters.", "mlferry.exporters.")
    assert not [name for name in loaded if name.startswith(unwanted)]


@pytest.mark.parametrize("package", [mlferry, mlferry.models, mlferry.models.neural_network])
def test_public_names_are_what_type_checkers_see(package: ModuleType) -> None:
    tree = ast.parse(Path(str(package.__file__)).read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom)
        for alias in node.names:
            home = importlib.import_module(f"{node.module}")
            seen[alias.asname or alias.name] = getattr(home, alias.name)
    assert sorted(seen) == sorted(package.__all__)
    assert all(getattr(package, name) is value for name, value in seen.items())
    assert set(package.__all__) <= set(dir(package))


def test_modules_are_found_without_importing_them_first() -> None:
    program = "import mlferry; mlferry.spec.validate.validate; mlferry.errors.SpecError"
    assert "mlferry.spec.validate" in modules_after(program)
    with pytest.raises(AttributeError, match="module 'mlferry' has no attribute 'Convert'"):
        mlferry.Convert  # noqa: B018


@pytest.mark.parametrize("name", mlferry.__all__)
def test_public_names_exist_and_are_documented(name: str) -> None:
    assert getattr(mlferry, name).__doc__


# ---- types -------------------------------------------------------------------------------

# Parameters that may be anything; lower it with every one that gets a type. What may stay: fields
# of a message by their names (`**params`), values that a user or a file gives, to be checked
# inside, and objects of libraries without types.
MOST_UNTYPED = 43


def allows_anything(annotation: ast.expr) -> bool:
    """Whether an annotation is `Any`, or a union with it; what is inside brackets apart."""
    if isinstance(annotation, ast.BinOp):
        return allows_anything(annotation.left) or allows_anything(annotation.right)
    return isinstance(annotation, ast.Name) and annotation.id == "Any"


def test_parameters_have_types() -> None:
    untyped = []
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.name.endswith("_pb2.py"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.arg) and node.annotation and allows_anything(node.annotation):
                untyped.append(f"{path.relative_to(PACKAGE)}:{node.lineno} {node.arg}")
    assert len(untyped) <= MOST_UNTYPED, "\n".join(untyped)


# Names of classes that two modules may share, with what they are in each.
SHARED_NAMES = {
    "Call": "an operation of a program, as it is exported and as it is run",
    "Cells": "of the arithmetic of programs, and of clustered weights",
    "Definition": "what a layer kind is, and what an operation is",
    "Graph": "what a source is read into, and what is written as ONNX",
    "Linear": "weights that are stored by scales, and the mode that makes them",
    "Node": "of a source's graph, and of a graph that is written as ONNX",
    "Row": "of the report of a comparison, and of the numbers of ai.onnx.ml",
    "Table": "the mode of quantization by a table, and the columns of ai.onnx.ml",
    "TensorType": "coremltools' name of an input, and the type of a value of a program",
    "Translation": "of a network to ONNX, and of a network to a program",
    "Value": "of a source's graph, and of a program",
}


def test_two_classes_never_share_a_name() -> None:
    homes: dict[str, list[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and not path.name.endswith("_pb2.py"):
                homes.setdefault(node.name, []).append(path.relative_to(PACKAGE).as_posix())
    shared = {name: paths for name, paths in homes.items() if len(paths) > 1}
    assert shared.keys() <= SHARED_NAMES.keys(), shared
    assert SHARED_NAMES.keys() <= shared.keys(), "no longer shared: take it off the list"


PINS = sorted((PACKAGE.parent / "requirements").glob("*.txt"))


@pytest.mark.parametrize("path", PINS, ids=[path.stem for path in PINS])
def test_every_dependency_of_development_has_its_version(path: Path) -> None:
    """`make pins` writes them down; a dependency that came later needs it again."""
    text = (PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8")
    groups = re.findall(r"^(?:dev|docs|dependencies) = \[(.*?)\]$", text, re.M | re.S)
    names = {
        re.split(r"[\[<>=;]", item)[0].lower().replace("_", "-")
        for group in groups
        for item in re.findall(r'"([^"]+)"', re.sub(r"{.*?}", "", group))
    }
    lines = path.read_text(encoding="utf-8").splitlines()
    pinned = {line.partition("==")[0].lower().replace("_", "-") for line in lines}
    assert all("==" in line for line in lines)
    assert len(names) > 20
    assert names - pinned == set()
