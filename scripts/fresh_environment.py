"""The wheel of this tree in an empty environment, for the scripts that look at it there."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def wheel_and_environment(folder: Path) -> tuple[Path, Path]:
    """Build the wheel into a folder, and make an empty environment beside it.

    Returns:
        The wheel, and the folder of the environment's commands, `python` among them.
    """
    build = [sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "env", with_pip=True)
    return wheel, folder / "env" / "bin"


def install(commands: Path, *packages: str) -> None:
    """Install packages into an environment."""
    options = ["--quiet", "--disable-pip-version-check"]
    subprocess.run([commands / "python", "-m", "pip", "install", *options, *packages], check=True)
