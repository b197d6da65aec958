"""The binary as a server of tiny models, for scripts that ask it. Standard library only."""

import json
import os
import re
import shutil
import subprocess
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FIXTURES = ROOT / "crates" / "testkit" / "fixtures"
CASES = [FIXTURES / "cases.json", FIXTURES / "pipelines" / "cases.json"]
# Seconds that models may take to load, far above what they need.
PATIENCE = 120


def tiny_model(case: str, folder: Path, edit=None) -> Path:
    """Writes the model of a case, as the testkit does; `edit` may change its configuration."""
    cases = [case for file in CASES for case in json.loads(file.read_text())]
    files = next(found for found in cases if found["name"] == case)
    for path, fixture in files["copy"].items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(FIXTURES / fixture, folder / path)
    for path, content in files["write"].items():
        if edit and path == "config.json":
            edit(content)
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(json.dumps(content))
    return folder


class Server:
    """`centuple serve` on a free port of this machine, until the block that it is used in ends."""

    def __init__(self, binary: Path, models: list[Path], *flags: str):
        nowhere = models[0].parent / "no-cache"
        environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(nowhere), "CENTUPLE_HOME": str(nowhere)}
        environment["PATH"] = os.environ.get("PATH", "")
        command = [str(binary), "serve", "--port", "0", *flags, *map(str, models)]
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command, env=environment, **pipes)
        self.log: list[str] = []
        self.ready = threading.Event()
        self.url = ""
        threading.Thread(target=self.listen, args=(len(models),), daemon=True).start()
        if not self.ready.wait(PATIENCE) or not self.url:
            self.process.kill()
            raise SystemExit("error: the server did not start:\n" + "".join(self.log))

    def listen(self, models: int) -> None:
        """Keeps what the server logs; it is ready once it has named every model."""
        for line in self.process.stderr:
            self.log.append(line)
            if found := re.search(r" on (http://\S+)", line):
                models -= 1
                self.url = found[1]
                if models == 0:
                    self.ready.set()
        self.ready.set()

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_) -> None:
        self.process.terminate()
        self.process.wait(PATIENCE)


def default_binary() -> Path:
    """The release build of this repository."""
    return ROOT / "target" / "release" / "centuple"
