"""Build the wheel, install it into an empty environment, and use it from another folder."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = """
import sys
import mlferry
mlferry.MLModel
loaded = {"h5py", "onnx", "keras", "tensorflow", "PIL"} & set(sys.modules)
assert not loaded, f"import mlferry loads {loaded}"
assert "site-packages" in mlferry.__file__, mlferry.__file__
from mlferry.spec.builder import Builder
builder = Builder()
builder.input("x", (1, 3))
builder.layer("activation", "relu", ["x"], ["y"], ReLU={})
builder.output("y")
mlferry.MLModel(builder.model()).save("relu.mlmodel")
made = mlferry.MLModel("relu.mlmodel").predict({"x": [[-1.0, 0.0, 2.0]]})["y"]
assert made.tolist() == [[0.0, 0.0, 2.0]], made
print("the wheel works")
"""
IMPORT = """
import time
import numpy, google.protobuf.message
start = time.perf_counter()
import mlferry
print(time.perf_counter() - start)
"""
SECONDS = 0.1  # for `import mlferry`, beyond NumPy and protobuf


def main() -> None:
    """Raise where the wheel lacks anything."""
    with tempfile.TemporaryDirectory() as folder:
        there = Path(folder)
        build = [sys.executable, "-m", "build", "--wheel", "--outdir", folder, str(ROOT)]
        subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
        (wheel,) = there.glob("*.whl")
        venv.create(there / "env", with_pip=True)
        python = there / "env" / "bin" / "python"
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, str(wheel)], check=True)
        elsewhere = there / "elsewhere"
        elsewhere.mkdir()
        subprocess.run([python, "-c", PROGRAM], check=True, cwd=elsewhere)
        # the best of several: another process may hold the machine up in one of them
        took = min(
            float(subprocess.run([python, "-c", IMPORT], check=True, cwd=elsewhere,
                                 capture_output=True, text=True).stdout)
            for _ in range(5)
        )  # fmt: skip
        sys.stdout.write(f"import mlferry takes {took:.3f} s beyond NumPy and protobuf\n")
        assert took < SECONDS, f"import mlferry takes {took:.3f} s, more than {SECONDS} s"
        command = there / "env" / "bin" / "mlferry"
        bare = subprocess.run([command, "inspect", "relu.mlmodel"], cwd=elsewhere, check=False,
                              capture_output=True, text=True)  # fmt: skip
        assert bare.returncode == 1, bare
        assert "pip install 'mlferry[shell]'" in bare.stderr, bare.stderr
        subprocess.run([*pip, f"{wheel}[shell,view]"], check=True)
        for words in ("inspect relu.mlmodel", "view relu.mlmodel -o relu.html --no-open"):
            subprocess.run([command, *words.split()], check=True, cwd=elsewhere,
                           stdout=subprocess.DEVNULL)  # fmt: skip
        subprocess.run([*pip, f"{wheel}[all]"], check=True)
        empty = there / "empty"
        empty.mkdir()
        sys.path.insert(0, str(ROOT))
        from tests import doc_blocks

        readme = (ROOT / "README.md").read_text(encoding="utf-8")
        made = doc_blocks.run(readme, empty, str(python))
        for _, of, shown in doc_blocks.outputs(readme):
            assert doc_blocks.same(shown, made[of]), f"{shown}\nis\n{made[of]}"
        sys.stdout.write(f"the README runs in an empty folder: {len(made)} blocks\n")


if __name__ == "__main__":
    main()
