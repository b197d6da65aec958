"""Runs a script inside its own virtual environment, made on first use from pinned requirements.

Standard library only: this file is what runs before anything is installed.
"""

import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path


def enter(requirements: Path, folder: Path) -> None:
    """Replaces this process by the same command line under the Python of the environment in `folder`.

    The environment is made anew when `requirements` has changed since it was made. Returns at once when
    the process already runs in it.
    """
    if Path(sys.prefix).resolve() == folder.resolve():
        return
    make(requirements, folder)
    python = str(folder / "bin" / "python")
    os.execv(python, [python, *sys.argv])


def make(requirements: Path, folder: Path) -> None:
    """Makes the environment in `folder`, unless it already holds exactly these requirements."""
    wanted = hashlib.sha256(requirements.read_bytes()).hexdigest()
    stamp = folder / "requirements.sha256"
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    print(f"making the Python environment {folder} from {requirements}", file=sys.stderr)
    venv.create(folder, with_pip=True, clear=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, "-r", str(requirements)], check=True)
    stamp.write_text(wanted)
