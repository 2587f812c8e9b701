"""A bill of materials of the wheel: what `pip install 'mlferry[all]'` brings, as CycloneDX.

    python scripts/write_sbom.py build/mlferry.cdx.json

The wheel goes into an empty environment with all of its light extras, and cyclonedx-bom lists what
is there: names, versions, licences, addresses.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from fresh_environment import ROOT, install, wheel_and_environment


def main(target: Path) -> None:
    """Write the bill to a path, whose folder is made."""
    with tempfile.TemporaryDirectory() as folder:
        wheel, commands = wheel_and_environment(Path(folder))
        python = commands / "python"
        install(commands, f"{wheel}[all]")
        subprocess.run(
            [python, "-m", "pip", "uninstall", "--quiet", "--yes", "setuptools", "pip"], check=True
        )
        target.parent.mkdir(parents=True, exist_ok=True)
        tool = [sys.executable, "-m", "cyclonedx_py", "environment", str(python)]
        options = ["--pyproject", str(ROOT / "pyproject.toml"), "--output-reproducible"]
        subprocess.run([*tool, *options, "-o", str(target)], check=True)
    bill = json.loads(target.read_text(encoding="utf-8"))
    names = {component["name"] for component in bill["components"]}
    assert bill["metadata"]["component"]["name"] == "mlferry", bill["metadata"]
    assert {"numpy", "protobuf"} <= names, names
    sys.stdout.write(f"{target}: {len(names)} packages\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
