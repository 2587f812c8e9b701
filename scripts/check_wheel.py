"""Build the wheel, install it into an empty environment, and use it from another folder."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from fresh_environment import ROOT, install, wheel_and_environment

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
        wheel, commands = wheel_and_environment(there)
        python = commands / "python"
        install(commands, str(wheel))
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
        command = commands / "mlferry"
        bare = subprocess.run([command, "inspect", "relu.mlmodel"], cwd=elsewhere, check=False,
                              capture_output=True, text=True)  # fmt: skip
        assert bare.returncode == 1, bare
        assert "pip install 'mlferry[shell]'" in bare.stderr, bare.stderr
        install(commands, f"{wheel}[shell,view]")
        for words in ("inspect relu.mlmodel", "view relu.mlmodel -o relu.html --no-open"):
            subprocess.run([command, *words.split()], check=True, cwd=elsewhere,
                           stdout=subprocess.DEVNULL)  # fmt: skip
        install(commands, f"{wheel}[all]")
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
