"""Packages: what is read, refused, kept and replaced."""

from __future__ import annotations

import copy
import json
import os
import pickle
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlferry
from mlferry.errors import ModelFileError, ValidationError
from mlferry.models.utils import load_spec, make_pipeline, rename_feature, save_spec
from mlferry.spec import package
from mlferry.spec.proto import model_pb2
from tests.layers import broken_models
from tests.programs import by_hand

POSIX = pytest.mark.skipif(os.name != "posix", reason="signals and links are POSIX's")
ROOT = Path(__file__).parents[2]
X = {"x": np.zeros((3, 4), np.float32)}
INSIDE = "Data/com.apple.CoreML"
WEIGHT = f"{INSIDE}/weights/weight.bin"


def adder(path: Path, value: float = 1.0) -> Path:
    return by_hand.write(path, *by_hand.adder(value))


def added(model: mlferry.MLModel | Path, name: str = "y") -> float:
    """What a model adds to its input in the first place, if it is whole."""
    whole = model if isinstance(model, mlferry.MLModel) else mlferry.MLModel(model)
    actual = whole.predict(X)[name].ravel()
    np.testing.assert_array_equal(actual - actual[0], np.arange(12))
    return float(actual[0])


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


# ---- reading -----------------------------------------------------------------------------------


def test_a_package_is_read(tmp_path: Path) -> None:
    path = adder(tmp_path / "m.mlpackage", 5)
    assert added(path) == 5
    assert load_spec(path) == mlferry.MLModel(path).spec == by_hand.adder(5)[0]
    assert mlferry.MLModel(path).weights_dir == str(path / INSIDE / "weights")
    assert added(mlferry.MLModel(path / INSIDE / "model.mlmodel")) == 5


def changed(change: Callable[[dict[str, Any]], Any]) -> str:
    manifest = by_hand.manifest()
    change(manifest)
    return json.dumps(manifest)


def with_path(path: Any) -> str:
    def change(manifest: dict[str, Any]) -> None:
        manifest["itemInfoEntries"]["aaaa"]["path"] = path

    return changed(change)


NAMES_NONE = "does not name the model of the package"
NO_PATH = "the entry of the model has no path"
LEADS_OUT = "leads out of the package"
NOT_THERE = "which is not in the package"
WHOLE = json.dumps(by_hand.manifest())
MANIFESTS: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "cannot be read"),
    "cut off": (WHOLE[:-7], "cannot be read"),
    "half": (WHOLE[: len(WHOLE) // 2], "cannot be read"),
    "no text": (b"\xff\xfe\x00{", "cannot be read"),
    "bytes of zero": (bytes(64), "cannot be read"),
    "deep": ("[" * 100_000 + "]" * 100_000, "cannot be read"),
    "a list": ("[]", "is not a JSON object"),
    "a text": ('"x"', "is not a JSON object"),
    "null": ("null", "is not a JSON object"),
    "a number": ("1e400", "is not a JSON object"),
    "a number of many digits": ('{"a": ' + "9" * 10_000 + "}", "m.mlpackage"),
    "an empty object": ("{}", NAMES_NONE),
    "no entries": (changed(lambda m: m.pop("itemInfoEntries")), NAMES_NONE),
    "entries in a list": (changed(lambda m: m.update(itemInfoEntries=[])), NAMES_NONE),
    "entries null": (changed(lambda m: m.update(itemInfoEntries=None)), NAMES_NONE),
    "entries empty": (changed(lambda m: m.update(itemInfoEntries={})), NAMES_NONE),
    "no root": (changed(lambda m: m.pop("rootModelIdentifier")), NAMES_NONE),
    "root null": (changed(lambda m: m.update(rootModelIdentifier=None)), NAMES_NONE),
    "root a number": (changed(lambda m: m.update(rootModelIdentifier=1)), NAMES_NONE),
    "root a list": (changed(lambda m: m.update(rootModelIdentifier=["aaaa"])), NAMES_NONE),
    "root an object": (changed(lambda m: m.update(rootModelIdentifier={"a": 1})), NAMES_NONE),
    "root unknown": (changed(lambda m: m.update(rootModelIdentifier="zzzz")), NAMES_NONE),
    "root entry gone": (changed(lambda m: m["itemInfoEntries"].pop("aaaa")), NAMES_NONE),
    "root entry a text": (changed(lambda m: m["itemInfoEntries"].update(aaaa="x")), NO_PATH),
    "root entry null": (changed(lambda m: m["itemInfoEntries"].update(aaaa=None)), NO_PATH),
    "root entry without path": (
        changed(lambda m: m["itemInfoEntries"]["aaaa"].pop("path")), NO_PATH,
    ),
    "path null": (with_path(None), NO_PATH),
    "path empty": (with_path(""), NO_PATH),
    "path a number": (with_path(3), NO_PATH),
    "path a list": (with_path(["a"]), NO_PATH),
    "path up": (with_path("../m.mlmodel"), LEADS_OUT),
    "path up inside": (with_path(f"com.apple.CoreML/../{by_hand.MODEL}"), LEADS_OUT),
    "path far up": (with_path("../" * 40 + "etc/passwd"), LEADS_OUT),
    "path absolute": (with_path("/etc/passwd"), LEADS_OUT),
    "path of Windows": (with_path("C:\\m.mlmodel"), LEADS_OUT),
    "path with a drive": (with_path("C:m.mlmodel"), LEADS_OUT),
    "path with a backslash": (with_path("com.apple.CoreML\\model.mlmodel"), LEADS_OUT),
    "path of a share": (with_path("//host/share/m"), LEADS_OUT),
    "path not there": (with_path("com.apple.CoreML/other.mlmodel"), NOT_THERE),
    "path a folder": (with_path("com.apple.CoreML"), NOT_THERE),
    "path a dot": (with_path("."), NOT_THERE),
    "path of a file as a folder": (with_path(f"{by_hand.MODEL}/x"), NOT_THERE),
    "path with a zero": (with_path("com.apple\x00/m"), NOT_THERE),
    "path too long": (with_path("a" * 5000), NOT_THERE),
    "path of odd text": (with_path("\ud800"), NOT_THERE),
    "doubled key": (WHOLE[:-1] + ', "rootModelIdentifier": "bbbb"}', "'rootModelIdentifier'"),
    "doubled entry": (
        WHOLE.replace('"bbbb"', '"aaaa"', 1), "the key 'aaaa' appears twice",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_broken_manifest(name: str, tmp_path: Path) -> None:
    text, message = MANIFESTS[name]
    path = by_hand.write(tmp_path / "m.mlpackage", *by_hand.adder(), text)
    with pytest.raises(ModelFileError, match=re.escape(message)) as caught:
        mlferry.MLModel(path)
    assert "m.mlpackage" in str(caught.value)
    with pytest.raises(ModelFileError):
        load_spec(path)


SANE = {
    "spaces": json.dumps(by_hand.manifest(), indent=8),
    "path with a dot": with_path(f"./{by_hand.MODEL}"),
    "the model alone": changed(
        lambda m: [m["itemInfoEntries"].pop(key) for key in ("bbbb", "cccc")]
    ),
    "no version": changed(lambda m: m.pop("fileFormatVersion")),
    "odd entries": changed(lambda m: m["itemInfoEntries"].update(dddd=None, eeee={"path": 1})),
}


@pytest.mark.parametrize("name", SANE)
def test_a_sane_manifest(name: str, tmp_path: Path) -> None:
    assert added(by_hand.write(tmp_path / "m.mlpackage", *by_hand.adder(3), SANE[name])) == 3


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


GONE = {
    "Manifest.json": "is a folder without a Manifest.json",
    "Data": "is not in the package",
    INSIDE: "is not in the package",
    f"{INSIDE}/model.mlmodel": "is not in the package",
}


@pytest.mark.parametrize("name", GONE)
def test_a_part_that_is_gone(name: str, tmp_path: Path) -> None:
    path = adder(tmp_path / "m.mlpackage")
    remove(path / name)
    with pytest.raises(ModelFileError, match=GONE[name]):
        mlferry.MLModel(path)


@pytest.mark.parametrize("name", [WEIGHT, f"{INSIDE}/weights"])
def test_weights_that_are_gone(name: str, tmp_path: Path) -> None:
    path = adder(tmp_path / "m.mlpackage")
    remove(path / name)
    with pytest.raises(ValidationError, match=r"const 'w': .*weight.bin cannot be read: No such"):
        mlferry.MLModel(path)


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 127, 128, 175])
def test_weights_that_are_cut_off(size: int, tmp_path: Path) -> None:
    path = adder(tmp_path / "m.mlpackage")
    weights = path / WEIGHT
    weights.write_bytes(weights.read_bytes()[:size])
    with pytest.raises(ValidationError, match="const 'w': "):
        mlferry.MLModel(path)


@POSIX
@pytest.mark.parametrize(
    "name", ["Data", "Data/com.apple.CoreML", f"{INSIDE}/model.mlmodel", WEIGHT]
)
def test_links_are_refused(name: str, tmp_path: Path) -> None:
    path = adder(tmp_path / "m.mlpackage")
    (path / name).rename(tmp_path / "elsewhere")
    (path / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises((ModelFileError, ValidationError), match=r"is a link|not a regular file"):
        mlferry.MLModel(path)


@POSIX
@pytest.mark.parametrize("name", ["Data", "Manifest.json", f"{INSIDE}/model.mlmodel", WEIGHT])
def test_links_that_go_in_circles(name: str, tmp_path: Path) -> None:
    path = adder(tmp_path / "m.mlpackage")
    remove(path / name)
    (path / name).symlink_to(path / name)
    with pytest.raises((ModelFileError, ValidationError)):
        mlferry.MLModel(path)


@POSIX
@pytest.mark.parametrize("name", ["Manifest.json", f"{INSIDE}/model.mlmodel", WEIGHT])
def test_pipes_are_refused(name: str, tmp_path: Path) -> None:
    path = adder(tmp_path / "m.mlpackage")
    remove(path / name)
    os.mkfifo(path / name)
    with pytest.raises((ModelFileError, ValidationError)):
        mlferry.MLModel(path)


@POSIX
def test_the_folder_of_weights_is_no_link(tmp_path: Path) -> None:
    path = adder(tmp_path / "m.mlpackage")
    folder = path / INSIDE / "weights"
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValidationError, match="is a link"):
        mlferry.MLModel(path)


FOREIGN = {
    "up": "@model_path/../weight.bin",
    "up inside": "@model_path/weights/../../../weight.bin",
    "absolute": "/etc/passwd",
    "absolute behind": "@model_path//etc/passwd",
    "bare": "weights/weight.bin",
    "backslash": "@model_path\\weights\\weight.bin",
    "mixed": "@model_path/weights\\weight.bin",
    "empty": "",
    "prefix alone": "@model_path/",
    "prefix without": "@model_path",
    "folder": "@model_path/weights",
    "zero": "@model_path/weights/\x00",
    "long": "@model_path/" + "a" * 5000,
    "other case": "@MODEL_PATH/weights/weight.bin",
}


@pytest.mark.parametrize("name", FOREIGN)
def test_files_of_weights_lie_beside_the_model(name: str, tmp_path: Path) -> None:
    spec, weights = by_hand.adder()
    value = by_hand.block_of(spec).operations[0].attributes["val"]
    value.blobFileValue.fileName = FOREIGN[name]
    path = by_hand.write(tmp_path / "m.mlpackage", spec, weights)
    with pytest.raises(ValidationError, match="const 'w': "):
        mlferry.MLModel(path)


# ---- other kinds of models inside --------------------------------------------------------------


@pytest.mark.parametrize("name", ["plain", "classifier", "regressor", "legacy"])
def test_other_models_in_a_package(name: str, tmp_path: Path) -> None:
    spec = getattr(broken_models, name)()
    path = by_hand.write(tmp_path / "m.mlpackage", spec)
    model = mlferry.MLModel(path)
    assert model.spec == spec
    alone = mlferry.MLModel(spec)
    (inputs,) = spec.description.input
    data = {inputs.name: np.ones(list(inputs.type.multiArrayType.shape), np.float32)}
    saved = mlferry.MLModel(model.save(tmp_path / "again.mlpackage"))
    single = mlferry.MLModel(model.save(tmp_path / "single.mlmodel"))
    for each in (model, saved, single):
        assert str(each.predict(data)) == str(alone.predict(data))
    fresh = alone.save(tmp_path / "fresh.mlpackage")
    assert sorted(files(fresh)) == [f"{INSIDE}/model.mlmodel", "Manifest.json"]
    manifest = json.loads((fresh / "Manifest.json").read_text(encoding="utf-8"))
    assert [entry["path"] for entry in manifest["itemInfoEntries"].values()] == [by_hand.MODEL]


# ---- saving ------------------------------------------------------------------------------------


def test_what_is_not_known_is_kept(tmp_path: Path) -> None:
    path = adder(tmp_path / "m.mlpackage")
    (path / "Data" / "other").mkdir()
    (path / "Data" / "other" / "notes.txt").write_text("notes", encoding="utf-8")
    model = mlferry.MLModel(path)
    model.author = "me"
    saved = model.save(tmp_path / "n.mlpackage")
    before, after = files(path), files(saved)
    changed = f"{INSIDE}/model.mlmodel"
    assert before.keys() == after.keys()
    for name in before.keys() - {changed, "Manifest.json"}:
        assert before[name] == after[name]
    assert json.loads(after["Manifest.json"]) == by_hand.manifest()
    assert load_spec(saved).description.metadata.author == "me"
    assert added(saved) == 1


def test_a_new_package_is_as_coremltools_writes_it(tmp_path: Path) -> None:
    spec, weights = by_hand.adder()
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "weight.bin").write_bytes(weights)
    path = save_spec(spec, tmp_path / "m.mlpackage", weights_dir=tmp_path / "weights")
    manifest = json.loads((path / "Manifest.json").read_text(encoding="utf-8"))
    assert manifest["fileFormatVersion"] == "1.0.0"
    entries = manifest["itemInfoEntries"]
    assert entries[manifest["rootModelIdentifier"]] == {
        "author": "com.apple.CoreML",
        "description": "CoreML Model Specification",
        "name": "model.mlmodel",
        "path": "com.apple.CoreML/model.mlmodel",
    }
    (other,) = (v for key, v in entries.items() if key != manifest["rootModelIdentifier"])
    assert other == {
        "author": "com.apple.CoreML",
        "description": "CoreML Model Weights",
        "name": "weights",
        "path": "com.apple.CoreML/weights",
    }
    assert files(path).keys() == {"Manifest.json", f"{INSIDE}/model.mlmodel", WEIGHT}
    assert (path / WEIGHT).read_bytes() == weights


def test_coremltools_reads_what_is_written(tmp_path: Path, library: Callable[[str], Any]) -> None:
    ct = library("coremltools")
    saved = mlferry.MLModel(adder(tmp_path / "m.mlpackage", 4)).save(tmp_path / "n.mlpackage")
    theirs = ct.models.MLModel(str(saved), skip_model_load=True)
    read, written = theirs.get_spec(), by_hand.adder(4)[0]
    assert read.SerializeToString(deterministic=True) == written.SerializeToString(
        deterministic=True
    )
    assert (Path(theirs.weights_dir) / "weight.bin").read_bytes() == by_hand.adder(4)[1]


def test_a_package_is_replaced_by_itself(tmp_path: Path) -> None:
    """Its weights are read while it is replaced."""
    path = adder(tmp_path / "m.mlpackage", 6)
    model = mlferry.MLModel(path)
    for index in range(3):
        model.short_description = f"number {index}"
        assert model.save(path) == path
        assert added(model) == added(path) == 6
        assert load_spec(path).description.metadata.shortDescription == f"number {index}"
    assert [each.name for each in tmp_path.iterdir()] == ["m.mlpackage"]


def test_a_package_is_replaced_by_another(tmp_path: Path) -> None:
    one, two = adder(tmp_path / "1.mlpackage", 1), adder(tmp_path / "2.mlpackage", 2)
    kept = mlferry.MLModel(one)
    assert added(kept) == 1
    mlferry.MLModel(two).save(one)
    assert added(one) == 2
    assert added(kept) == 1  # it has its weights open
    assert sorted(each.name for each in tmp_path.iterdir()) == ["1.mlpackage", "2.mlpackage"]


def test_what_is_no_package_is_not_replaced(tmp_path: Path) -> None:
    model = mlferry.MLModel(adder(tmp_path / "m.mlpackage"))
    folder = tmp_path / "photos.mlpackage"
    folder.mkdir()
    (folder / "cat.png").write_bytes(b"cat")
    with pytest.raises(ModelFileError, match="what exists there is not a package"):
        model.save(folder)
    assert files(folder) == {"cat.png": b"cat"}
    file = tmp_path / "file.mlpackage"
    file.write_bytes(b"x")
    with pytest.raises(ModelFileError, match="what exists there is not a package"):
        model.save(file)
    assert file.read_bytes() == b"x"


PLACES = {
    "m.zip": r"model.save\('.*m.mlpackage'\)",
    "m.mlmodel": r"model.save\('.*m.mlpackage'\)",
    "missing/m.mlpackage": "No such file",
    "m.mlpackage/Data/n/m.mlpackage": "No such file",
}


@pytest.mark.parametrize("name", PLACES)
def test_places_that_cannot_be_written(name: str, tmp_path: Path) -> None:
    model = mlferry.MLModel(adder(tmp_path / "m.mlpackage"))
    with pytest.raises(ModelFileError, match=PLACES[name]):
        model.save(tmp_path / name)
    assert [each.name for each in tmp_path.iterdir()] == ["m.mlpackage"]


@POSIX
def test_a_package_behind_a_link_is_replaced(tmp_path: Path) -> None:
    """The link stays, and leads to the new one."""
    path = adder(tmp_path / "real.mlpackage", 1)
    link = tmp_path / "m.mlpackage"
    link.symlink_to(path)
    assert added(link) == 1
    mlferry.MLModel(adder(tmp_path / "2.mlpackage", 2)).save(link)
    assert added(link) == added(path) == 2
    assert sorted(each.name for each in tmp_path.iterdir()) == [
        "2.mlpackage", "m.mlpackage", "real.mlpackage",
    ]  # fmt: skip


@POSIX
def test_links_are_not_followed_when_a_package_is_copied(tmp_path: Path) -> None:
    path, secret = adder(tmp_path / "m.mlpackage"), tmp_path / "secret"
    secret.mkdir()
    (secret / "key.txt").write_text("secret", encoding="utf-8")
    (path / "Data" / "folder").symlink_to(secret)
    (path / "Data" / "file").symlink_to(secret / "key.txt")
    (path / INSIDE / "weights" / "other.bin").symlink_to(secret / "key.txt")
    model = mlferry.MLModel(path)
    for saved in (
        model.save(tmp_path / "n.mlpackage"),
        mlferry.MLModel(path / INSIDE / "model.mlmodel").save(tmp_path / "o.mlpackage"),
    ):
        assert added(saved) == 1
        assert not [
            each for each in saved.rglob("*")
            if each.is_file() and not each.is_symlink() and each.read_bytes() == b"secret"
        ]  # fmt: skip


def downloaded(hub: Path, value: float = 1.0) -> Path:
    """A package as the cache of a hub of models has it: every file is a link into `blobs`."""
    path = adder(hub / "models--a--b" / "snapshots" / "0123abcd" / "m.mlpackage", value)
    blobs = path.parents[2] / "blobs"
    blobs.mkdir(exist_ok=True)
    for index, file in enumerate(sorted(each for each in path.rglob("*") if each.is_file())):
        blob = blobs / f"{index:040x}"
        file.rename(blob)
        file.symlink_to(os.path.relpath(blob, file.parent))
    return path


@POSIX
def test_a_package_in_a_cache_of_downloads(tmp_path: Path) -> None:
    path = downloaded(tmp_path / "hub")
    before = files(path.parents[2] / "blobs")
    assert len(before) == 4
    model = mlferry.MLModel(path)
    assert added(model) == added(pickle.loads(pickle.dumps(model))) == 1
    for saved in (
        model.save(tmp_path / "n.mlpackage"),
        mlferry.MLModel(path / INSIDE / "model.mlmodel").save(tmp_path / "o.mlpackage"),
    ):
        assert added(saved) == 1
        assert not [each for each in saved.rglob("*") if each.is_symlink()]
        assert (saved / INSIDE / "Metadata.json").read_text(encoding="utf-8") == '{"a": 1}'
    assert files(path.parents[2] / "blobs") == before


@POSIX
def test_saving_never_writes_through_a_link(tmp_path: Path) -> None:
    """Not over the files of a cache, nor over those of the package that is replaced."""
    path = downloaded(tmp_path / "hub")
    blobs = path.parents[2] / "blobs"
    before = files(blobs)
    model = mlferry.MLModel(path)
    rename_feature(model.spec, "y", "z")
    mlferry.MLModel(model.spec, weights_dir=path / INSIDE / "weights").save(path)
    assert files(blobs) == before
    assert added(path, "z") == 1
    again = downloaded(tmp_path / "other")
    mlferry.MLModel(adder(tmp_path / "2.mlpackage", 2)).save(again)
    assert added(again) == 2
    assert files(again.parents[2] / "blobs") == before
    foreign = adder(tmp_path / "3.mlpackage", 3)
    secret = tmp_path / "secret.mlmodel"
    secret.write_bytes(b"secret")
    loaded = mlferry.MLModel(foreign)
    (foreign / INSIDE / "model.mlmodel").unlink()
    (foreign / INSIDE / "model.mlmodel").symlink_to(secret)
    loaded.save(tmp_path / "4.mlpackage")
    assert secret.read_bytes() == b"secret"


@POSIX
@pytest.mark.parametrize("name", ["Manifest.json", f"{INSIDE}/model.mlmodel", WEIGHT])
@pytest.mark.parametrize("place", ["secret", "hub/models--a--b/secret", "hub/models--a--b/refs/x",
                                   "hub/models--a--b/blobs/deep/x", "hub/blobs/x"])  # fmt: skip
def test_links_out_of_a_cache_are_refused(place: str, name: str, tmp_path: Path) -> None:
    path = downloaded(tmp_path / "hub")
    target = tmp_path / place
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path / name, target)
    (path / name).unlink()
    (path / name).symlink_to(target)
    with pytest.raises((ModelFileError, ValidationError), match="is a link to") as caught:
        mlferry.MLModel(path)
    copied = re.search(r"cp -RL (\S+) copy.mlpackage", str(caught.value))
    assert copied is not None
    subprocess.run(["cp", "-RL", copied[1], "copy.mlpackage"], cwd=tmp_path, check=True)
    assert added(tmp_path / "copy.mlpackage") == 1


@POSIX
def test_links_inside_of_a_package(tmp_path: Path) -> None:
    path = adder(tmp_path / "m.mlpackage")
    (path / WEIGHT).rename(path / INSIDE / "weights" / "real.bin")
    (path / WEIGHT).symlink_to("real.bin")
    assert added(path) == 1
    assert added(mlferry.MLModel(path).save(tmp_path / "n.mlpackage")) == 1


# ---- killed ------------------------------------------------------------------------------------

WORK = """
import sys
from pathlib import Path
import mlferry
folder = Path(sys.argv[1])
models = [mlferry.MLModel(folder / f"{n}.mlpackage") for n in (1, 2)]
print("ready", flush=True)
while True:
    for model in models:
        model.save(folder / "saved.mlpackage")
"""


@POSIX
def test_processes_that_are_killed(tmp_path: Path) -> None:
    for value in (1, 2):
        adder(tmp_path / f"{value}.mlpackage", value)
    rng, actual = random.Random(5), []
    for _ in range(8):
        with subprocess.Popen(
            [sys.executable, "-c", WORK, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            time.sleep(rng.uniform(0.01, 0.15))
            process.send_signal(signal.SIGKILL)
        if (tmp_path / "saved.mlpackage").exists():
            actual.append(added(tmp_path / "saved.mlpackage"))
    assert set(actual) <= {1, 2}
    assert len(actual) >= 6


STEPS = ("fsync", "mkdir", "rename", "rmtree")


@POSIX
@pytest.mark.parametrize("swaps", [True, False], ids=["exchange", "two renames"])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_killed_at_each_step(step: str, when: str, swaps: bool, tmp_path: Path) -> None:
    path, other = adder(tmp_path / "1.mlpackage", 1), adder(tmp_path / "2.mlpackage", 2)
    new = mlferry.MLModel(other)
    child = os.fork()
    if child == 0:
        owner = {"fsync": os, "rmtree": shutil}.get(step, Path)
        real: Callable[..., Any] = getattr(owner, step)

        def dying(*arguments: Any, **named: Any) -> None:
            if when == "after":
                real(*arguments, **named)
            os.kill(os.getpid(), signal.SIGKILL)

        setattr(owner, step, dying)
        if not swaps:
            package._exchanged = lambda one, two: False
        new.save(path)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    between = not swaps and step == "rename" and when == "after"
    if between:  # where the system cannot exchange two folders, the old one lies beside it
        assert not path.exists()
        (old,) = tmp_path.glob(".1.mlpackage.*.old")
        assert added(old) == 1
    else:
        assert added(path) == (2 if step == "rmtree" or (step == "rename" and swaps) else 1)
    assert os.WIFEXITED(status) == (swaps and step == "rename")
    new.save(path)
    assert added(path) == 2


@pytest.mark.parametrize("step", ["fsync", "rename"])
def test_a_step_that_fails(step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, new = adder(tmp_path / "1.mlpackage", 1), adder(tmp_path / "2.mlpackage", 2)

    def full(*arguments: Any, **named: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os if step == "fsync" else Path, step, full)
        patched.setattr(package, "_exchanged", lambda one, two: False)
        with pytest.raises(ModelFileError, match="No space left on device"):
            mlferry.MLModel(new).save(path)
    assert added(path) == 1
    assert sorted(each.name for each in tmp_path.iterdir()) == ["1.mlpackage", "2.mlpackage"]


# ---- models in memory --------------------------------------------------------------------------


def weights_folder(folder: Path, value: float) -> tuple[model_pb2.Model, Path]:
    spec, data = by_hand.adder(value)
    folder.mkdir()
    (folder / "weight.bin").write_bytes(data)
    return spec, folder


def test_the_folder_of_weights_is_told(tmp_path: Path) -> None:
    spec, folder = weights_folder(tmp_path / "w", 7)
    for inputs in (spec, spec.SerializeToString()):
        model = mlferry.MLModel(inputs, weights_dir=folder)
        assert added(model) == 7
        saved = model.save(tmp_path / "m.mlpackage")
        assert added(saved) == 7
    again = mlferry.MLModel(saved)
    assert added(mlferry.MLModel(again.get_spec(), weights_dir=again.weights_dir)) == 7
    with pytest.raises(
        ValidationError, match=r"comes from no folder: .*weights_dir=model\.weights_dir"
    ):
        mlferry.MLModel(spec)
    for wrong in ("missing", "w/weight.bin"):
        with pytest.raises(ModelFileError, match="is no folder"):
            mlferry.MLModel(spec, weights_dir=tmp_path / wrong)


def test_validating_what_has_weights_in_a_file(tmp_path: Path) -> None:
    """By path, or as a message with its folder; without it there is one problem for all."""
    validate = mlferry.spec.validate.validate
    path = adder(tmp_path / "m.mlpackage")
    model = mlferry.MLModel(path)
    block = by_hand.block_of(model.spec)
    for index in range(3):
        block.operations.insert(
            0, by_hand.constant(f"more{index}", block.operations[0].attributes["val"])
        )
    spec = model.get_spec()
    for inputs in (
        validate(path),
        validate(str(path)),
        validate(spec, model.weights_dir),
        validate(spec.SerializeToString(), weights_dir=model.weights_dir),
        validate(model.spec, model.program_weights),
    ):
        assert not [each for each in inputs if each.severity == "error"]
    (alone,) = (each for each in validate(spec) if each.severity == "error")
    assert alone.message.endswith("weights_dir=model.weights_dir (and 3 more constants)")
    with pytest.raises(ModelFileError, match="is no folder"):
        validate(spec, tmp_path / "missing")


def test_save_spec(tmp_path: Path) -> None:
    spec, folder = weights_folder(tmp_path / "w", 8)
    path = save_spec(spec, tmp_path / "m.mlpackage", weights_dir=folder)
    assert added(path) == 8
    for name in ("m.mlmodel", "m", "n.mlpackage"):
        with pytest.raises(ModelFileError, match=r"weights_dir=model\.weights_dir"):
            save_spec(spec, tmp_path / name)
    with pytest.raises(ModelFileError, match=r"weights_dir=model\.weights_dir"):
        save_spec(spec, tmp_path / "m.mlmodel", weights_dir=folder)
    with pytest.raises(ModelFileError, match="is no folder"):
        save_spec(spec, tmp_path / "n.mlpackage", weights_dir=tmp_path / "missing")
    network = save_spec(broken_models.plain(), tmp_path / "network.mlpackage")
    assert load_spec(network) == broken_models.plain()
    save_spec(spec, path, auto_set_specification_version=True, weights_dir=folder)
    assert load_spec(path).specificationVersion == 7
    assert sorted(each.name for each in tmp_path.iterdir()) == [
        "m.mlpackage", "network.mlpackage", "w",
    ]  # fmt: skip


@pytest.mark.parametrize("how", ["pickle", "copy", "deepcopy"])
def test_copies_have_the_weights(how: str, tmp_path: Path) -> None:
    spec, folder = weights_folder(tmp_path / "w", 3)
    copied: dict[str, Callable[[Any], Any]] = {
        "pickle": lambda m: pickle.loads(pickle.dumps(m)),
        "copy": copy.copy,
        "deepcopy": copy.deepcopy,
    }
    path = adder(tmp_path / "m.mlpackage", 4)
    for model, value in (
        (mlferry.MLModel(path), 4),
        (mlferry.MLModel(spec, weights_dir=folder), 3),
    ):
        again = copied[how](model)
        assert added(again) == value
        assert added(again.save(tmp_path / "again.mlpackage")) == value


def test_a_pipeline_of_two_packages(tmp_path: Path) -> None:
    one, two = (mlferry.MLModel(adder(tmp_path / f"{n}.mlpackage", n)) for n in (1, 20))
    spec = two.get_spec()
    rename_feature(spec, "y", "z")
    rename_feature(spec, "x", "y")
    renamed = two.with_spec(spec)
    joined = make_pipeline(one, renamed)
    result = np.arange(12).reshape(3, 4) * 2 + 21
    np.testing.assert_array_equal(joined.predict(X)["z"], result)
    saved = joined.save(tmp_path / "both.mlpackage")
    for name in ("1", "20"):
        shutil.rmtree(tmp_path / f"{name}.mlpackage")
    loaded = mlferry.MLModel(saved)
    np.testing.assert_array_equal(loaded.predict(X)["z"], result)
    again = mlferry.MLModel(loaded.save(tmp_path / "again.mlpackage"))
    np.testing.assert_array_equal(again.predict(X)["z"], result)
    revived = pickle.loads(pickle.dumps(again))
    np.testing.assert_array_equal(revived.predict(X)["z"], result)
    assert sorted(name for name in files(saved) if "weights" in name) == [
        f"{INSIDE}/weights/0-0-weight.bin", f"{INSIDE}/weights/1-0-weight.bin",
    ]  # fmt: skip
    assert os.fspath(saved).endswith("both.mlpackage")


def test_a_pipeline_of_a_network_and_a_package(tmp_path: Path) -> None:
    from mlferry.layers.builder import Builder

    builder = Builder()
    builder.input("a", (3, 4))
    builder.layer("activation", "double", ["a"], ["x"], linear={"alpha": 2})
    builder.output("x")
    network = mlferry.MLModel(builder.model())
    joined = make_pipeline(network, mlferry.MLModel(adder(tmp_path / "m.mlpackage", 1)))
    loaded = mlferry.MLModel(joined.save(tmp_path / "both.mlpackage"))
    actual = loaded.predict({"a": np.ones((3, 4))})["y"]
    np.testing.assert_array_equal(actual, np.arange(12).reshape(3, 4) + 3)
