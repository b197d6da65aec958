#!/usr/bin/env python3
"""Holds a running server against its own OpenAPI document.

    scripts/check_openapi.py [BINARY] [--examples N] [--only PATH]

The document must be valid, every example in it must be answered with 200, and whatever Schemathesis sends to the
routes must be answered as the document says: no 5xx, no status, type or shape that it does not tell of. Once with one
model, once with several and a key, once with leave to load and unload them. Makes its own environment below target/.
Exit code 1 if anything is wrong.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import environment  # noqa: E402
import serving  # noqa: E402

KEY = "key-of-the-check"
SEVERAL = ["embedder", "bert-tiny", "sparse", "classify", "nli", "ranker", "ner", "qa", "mlm"]
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
# Their examples need a receipt, or take away the model that the others ask.
LEFT_OUT = {"/report", "/report.json", "/v2/repository/models/{name}/unload"}
# Seconds that a run of Schemathesis may take.
PATIENCE = 300


def ask(method: str, url: str, body=None, key: str | None = None) -> tuple[int, bytes]:
    """Status and body of an answer."""
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, headers, method=method.upper())
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def fill(path: str, operation: dict) -> str:
    """A path with the examples of its parameters."""
    for parameter in operation.get("parameters", []):
        if parameter["in"] == "path":
            path = path.replace("{" + parameter["name"] + "}", parameter["example"])
    return path


def check_examples(url: str, document: dict, key: str | None, left_out: set[str]) -> list[str]:
    """Sends every example; what is not answered with 200 is wrong."""
    wrong = []
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            bodies = [example["value"] for example in content.get("examples", {}).values()] or [None]
            if path in left_out or (bodies == [None] and operation.get("requestBody", {}).get("required")):
                print(f"  {method} {path}: no model here can be asked")
                continue
            for body in bodies:
                status, reply = ask(method, url + fill(path, operation), body, key)
                if status != 200:
                    wrong.append(f"{method} {path} {json.dumps(body)}: {status} {reply[:300].decode(errors='replace')}")
    return wrong


def check_methods(url: str, document: dict, key: str | None) -> list[str]:
    """Every method that the document does not tell of is refused; a path of one model may also not be there."""
    wrong = []
    for path, methods in document["paths"].items():
        for method in {"get", "post", "put", "patch", "delete"} - set(methods):
            status, _ = ask(method, url + fill(path, next(iter(methods.values()))), None, key)
            if status != 405:
                wrong.append(f"{method} {path}: {status} instead of 405")
    return wrong


def fuzz(url: str, examples: int, key: str | None, only: str | None, pattern: str | None) -> bool:
    """Whether Schemathesis finds nothing."""
    tool = Path(sys.executable).parent / "schemathesis"
    command = [str(tool), "run", f"{url}/openapi.json", "--checks", CHECKS, "--max-examples", str(examples)]
    command += ["--seed", "1", "--generation-database", "none", "--phases", "examples,coverage,fuzzing"]
    command += ["--continue-on-failure", "--request-timeout", "30", "--no-color"]
    command += ["--header", f"Authorization: Bearer {key}"] if key else []
    command += ["--include-path", only] if only else []
    command += ["--include-path-regex", pattern] if pattern else []
    finished = subprocess.run(command, timeout=PATIENCE, capture_output=True, text=True, cwd=tempfile.gettempdir())
    print(finished.stdout[-12000:] + finished.stderr[-2000:])
    return finished.returncode == 0


def check(binary: Path, models: list[Path], key: str | None, control: bool, arguments: argparse.Namespace) -> list[str]:
    from openapi_spec_validator import validate

    flags = [*(["--api-key", key] if key else []), *(["--model-control"] if control else [])]
    # Of the routes that come and go with it only these are new.
    pattern = "^/v2/repository/" if control else None
    with serving.Server(binary, models, *flags) as server:
        status, text = ask("get", f"{server.url}/openapi.json")
        if status != 200:
            return [f"/openapi.json: {status}"]
        document = json.loads(text)
        validate(document)
        wrong = check_examples(server.url, document, key, LEFT_OUT | only_for_one(models))
        wrong += check_methods(server.url, document, key)
        if key and ask("get", f"{server.url}/info")[0] != 401:
            wrong.append("/info needs no key")
        if not fuzz(server.url, arguments.examples, key, arguments.only, pattern):
            wrong.append("Schemathesis found something")
        panics = [line for line in server.log if "panicked" in line]
        return wrong + panics


def only_for_one(models: list[Path]) -> set[str]:
    """Paths without a name of the model, which answer while one is served."""
    return {"/", "/invocations"} if len(models) > 1 else set()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", type=Path, nargs="?", default=serving.default_binary())
    parser.add_argument("--examples", type=int, default=25, help="what Schemathesis makes up for each route, at most")
    parser.add_argument("--only", metavar="PATH", help="look at this route only")
    arguments = parser.parse_args()
    environment.enter(HERE / "requirements-serve.txt", serving.ROOT / "target" / "serve-env")
    wrong = []
    with tempfile.TemporaryDirectory() as folder:
        models = [serving.tiny_model(case, Path(folder) / case) for case in SEVERAL]
        rounds = [
            ("one model", models[:1], None, False),
            ("several models and a key", models, KEY, False),
            ("a model that is loaded and unloaded", models[:1], None, True),
        ]
        for title, served, key, control in rounds:
            print(f"{title}:")
            found = check(arguments.binary, served, key, control, arguments)
            wrong += [f"{title}: {what}" for what in found]
    print("\n".join(wrong) or "the server is what its document says")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
