#!/usr/bin/env python3
"""Makes a folder with NVIDIA's run-time compiler and disassembler, and prints where they are.

    python3 scripts/gpu/toolkit.py [FOLDER]

Both come from pinned Python packages (requirements.txt beside this file); they need neither a GPU nor a driver. FOLDER is
`target/cuda-toolkit` by default. Printed are two lines: the folder of libnvrtc, and the path of nvdisasm.
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import environment  # noqa: E402


def only(folder: Path, pattern: str) -> Path:
    """The one file of that name below the folder."""
    found = sorted(folder.glob(pattern))
    if not found:
        sys.exit(f"error: {folder} holds no {pattern}; remove the folder and run this again")
    return found[0]


def main() -> None:
    if len(sys.argv) > 2 or any(argument.startswith("-") for argument in sys.argv[1:]):
        sys.exit(__doc__)
    folder = Path(sys.argv[1]) if len(sys.argv) == 2 else HERE.parents[1] / "target" / "cuda-toolkit"
    environment.make(HERE / "requirements.txt", folder)
    print(only(folder, "lib/python*/site-packages/nvidia/**/libnvrtc.so.*").parent)
    print(only(folder, "lib/python*/site-packages/nvidia/**/nvdisasm"))


if __name__ == "__main__":
    main()
