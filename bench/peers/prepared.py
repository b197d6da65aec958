"""What is made once and then taken as it lies."""

import shutil
from collections.abc import Callable
from pathlib import Path


def artefact(make: Callable[[Path, Path], None], name: str, model: Path, folder: Path) -> Path:
    """The path of an artefact in `folder`, made of a checkpoint if it is not there; what is there is complete."""
    target = folder / name
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = folder / f"new-{name}"
        if unfinished.is_dir():
            shutil.rmtree(unfinished)
        make(model, unfinished)
        unfinished.rename(target)
    return target
