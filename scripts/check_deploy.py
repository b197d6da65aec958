#!/usr/bin/env python3
"""Checks what is in `deploy/` as far as that goes without a cluster or a container engine.

    scripts/check_deploy.py [--binary target/release/centuple]

Manifests are checked strictly against the schemas of Kubernetes, KEDA and KServe; settings and arguments by the binary itself;
times to stop against each other; the unit by systemd-analyze, where there is one; the Containerfile's paths against the repository.
Makes its own Python environment in `target/`.
"""

import argparse
import ast
import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

import environment

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"
# The oldest release of Kubernetes that the manifests are for; the newest that the schemas have comes too.
OLDEST = "1.30"
# What --drain-delay and --drain-timeout are where nothing is said.
DEFAULT_DRAIN = {"drain-delay": 0, "drain-timeout": 30}
# Seconds that Kubernetes waits where nothing is said.
DEFAULT_GRACE = 30

wrong = []


def expect(holds, message) -> None:
    """Notes what is wrong."""
    if not holds:
        wrong.append(message)


def kubernetes(document: dict, where: str) -> None:
    import kubernetes_validate

    for version in [OLDEST, kubernetes_validate.latest_version()]:
        try:
            kubernetes_validate.validate(document, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            wrong.append(f"{where}: {'.'.join(map(str, error.path))}: {error.message} (Kubernetes {version})")


def definitions() -> dict:
    """The types of Kubernetes that types of KServe are made of."""
    import kubernetes_validate

    folder = files("kubernetes_validate") / "kubernetes-json-schema"
    newest = f"v{kubernetes_validate.latest_version()}"
    strict = next(schema for schema in folder.iterdir() if schema.name.startswith(newest) and schema.name.endswith("strict"))
    return json.loads((strict / "_definitions.json").read_text())["$defs"]


def keda(document: dict, where: str) -> None:
    import cloudcoil.models.keda.v1alpha1 as models

    schema = getattr(models, document["kind"]).model_json_schema(by_alias=True)
    for part in [schema, *schema.get("$defs", {}).values()]:
        if "properties" in part:
            part["additionalProperties"] = False
    valid(document, schema, where)


def valid(value, schema: dict, where: str) -> None:
    import jsonschema

    for error in jsonschema.Draft202012Validator(schema).iter_errors(value):
        wrong.append(f"{where}: {'.'.join(map(str, error.path))}: {error.message}")


class KServe:
    """KServe's types, read out of the Python package's classes without running them."""

    def __init__(self):
        self.types = {}
        for file in (Path(find_spec("kserve").submodule_search_locations[0]) / "models").glob("v1*.py"):
            for node in ast.parse(file.read_text()).body:
                if isinstance(node, ast.ClassDef):
                    self.types[node.name] = self.fields(node)
        self.core = definitions()

    @staticmethod
    def fields(node: ast.ClassDef) -> tuple:
        tables, required = {}, set()
        for part in node.body:
            if isinstance(part, ast.Assign) and part.targets[0].id in ("openapi_types", "attribute_map"):
                tables[part.targets[0].id] = ast.literal_eval(part.value)
            if isinstance(part, ast.FunctionDef) and part.name == "__init__":
                # What must be there is set whatever it is.
                targets = [line.targets[0] for line in part.body if isinstance(line, ast.Assign)]
                required = {target.attr for target in targets if isinstance(target, ast.Attribute)}
        names = tables["attribute_map"]
        types = {names[name]: kind for name, kind in tables["openapi_types"].items()}
        return types, {names[name] for name in required if name in names}

    def check(self, value, kind: str, where: str) -> None:
        plain = {"str": str, "int": int, "bool": bool, "float": (int, float), "object": object}
        if kind in plain:
            expect(isinstance(value, plain[kind]), f"{where}: {value!r} is no {kind}")
        elif kind.startswith("list["):
            expect(isinstance(value, list), f"{where}: is no list")
            for place, part in enumerate(value):
                self.check(part, kind[5:-1], f"{where}.{place}")
        elif kind.startswith("dict(str, "):
            for key, part in value.items():
                self.check(part, kind[10:-1], f"{where}.{key}")
        elif kind in self.types:
            types, required = self.types[kind]
            for missing in required - value.keys():
                wrong.append(f"{where}: {missing} is missing")
            for key, part in value.items():
                if key in types:
                    self.check(part, types[key], f"{where}.{key}")
                else:
                    wrong.append(f"{where}: {key} is no field of {kind}")
        else:
            name = kind.removeprefix("V1")
            found = [known for known in self.core if known.endswith(f".v1.{name}")]
            expect(len(found) == 1, f"{where}: {kind} is no type that is known")
            for known in found:
                schema = {"$ref": f"#/$defs/{known}", "$defs": self.core}
                valid(value, schema, where)

    def __call__(self, document: dict, where: str) -> None:
        version = document["apiVersion"].split("/")[1]
        self.check(document, f"{version[0].upper()}{version[1:]}{document['kind']}", where)


def settings(binary: Path, arguments: list, where: str) -> dict:
    """What the binary understands of arguments."""
    command = [str(binary), "serve", *arguments, "--print-config"]
    shown = subprocess.run(command, capture_output=True, text=True, env={}, timeout=60)
    if shown.returncode != 0:
        wrong.append(f"{where}: {shown.stderr.strip()}")
        return {}
    return tomllib.loads(shown.stdout)


def in_file(binary: Path, text: str, where: str) -> dict:
    """What the binary understands of a file of settings."""
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(text)
        file.flush()
        return settings(binary, ["--config", file.name], where)


def ends_in(understood: dict, grace: int, where: str) -> None:
    drain = sum(understood.get(name, default) for name, default in DEFAULT_DRAIN.items())
    expect(drain < grace, f"{where}: the server takes up to {drain} s to end and is killed after {grace} s")


def manifests(binary: Path) -> None:
    import yaml

    kserve, maps, pods = KServe(), {}, []
    for file in sorted(DEPLOY.rglob("*.yaml")):
        for document in yaml.safe_load_all(file.read_text()):
            where = f"{file.relative_to(ROOT)}: {document['kind']} {document['metadata']['name']}"
            group = document["apiVersion"].split("/")[0]
            {"keda.sh": keda, "serving.kserve.io": kserve}.get(group, kubernetes)(document, where)
            if document["kind"] == "ConfigMap":
                maps |= document["data"]
            if document["kind"] == "Deployment":
                pods.append((where, document["spec"]["template"]["spec"]))
            if document["kind"] == "ServingRuntime":
                pods.append((where, document["spec"]))
    for where, pod in pods:
        for container in pod["containers"]:
            arguments = container["args"][1:]
            expect(container["args"][0] == "serve", f"{where}: the command is not serve")
            if arguments[0] == "--config":
                understood = in_file(binary, maps[Path(arguments[1]).name], where)
            else:
                understood = settings(binary, arguments, where)
            ends_in(understood, pod.get("terminationGracePeriodSeconds", DEFAULT_GRACE), where)
            served = {understood.get("port"), understood.get("grpc-port")}
            for port in container["ports"]:
                expect(port.get("containerPort") in served, f"{where}: nothing is served on {port}")


def unit(binary: Path) -> None:
    file = DEPLOY / "systemd" / "centuple.service"
    where, text = file.relative_to(ROOT), file.read_text()
    understood = in_file(binary, (DEPLOY / "systemd" / "centuple.toml").read_text(), str(where))
    ends_in(understood, int(text.split("TimeoutStopSec=")[1].split()[0]), str(where))
    if not shutil.which("systemd-analyze"):
        print("skipped: there is no systemd-analyze to check the unit with")
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / file.name
        copy.write_text(text.replace("/usr/local/bin/centuple", str(binary.resolve())))
        for command in [["verify", "--man=no"], ["security", "--offline=true", "--threshold=20", "--no-pager"]]:
            done = subprocess.run(["systemd-analyze", *command, str(copy)], capture_output=True, text=True, timeout=60)
            # What it does not know, it only tells.
            expect(done.returncode == 0 and not done.stderr, f"{where}: systemd-analyze {command[0]}: {done.stderr.strip()}")


def container() -> None:
    file = DEPLOY / "container" / "Containerfile"
    where = file.relative_to(ROOT)
    lines = [line.split() for line in file.read_text().replace("\\\n", " ").splitlines() if line and line[0] != "#"]
    for words in lines:
        if words[0] == "COPY" and words[1].startswith("--from"):
            path = Path(words[2])
            made = path.is_relative_to("/source/target/release") or (ROOT / path.relative_to("/source")).exists()
            expect(made, f"{where}: {path} is not there")
    users = [words[1] for words in lines if words[0] == "USER"]
    expect(users and users[-1].split(":")[0].isdigit() and users[-1][0] != "0", f"{where}: the user must be a number, not root's")
    metadata = subprocess.run(["cargo", "metadata", "--format-version=1", "--no-deps"], cwd=ROOT, capture_output=True, check=True)
    binaries = {(package["name"], target["name"]) for package in json.loads(metadata.stdout)["packages"] for target in package["targets"] if "bin" in target["kind"]}
    build = next(words for words in lines if words[:3] == ["RUN", "cargo", "build"])
    named = (build[build.index("--package") + 1], build[build.index("--bin") + 1])
    expect(named in binaries, f"{where}: there is no binary {named}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", type=Path, default=ROOT / "target" / "release" / "centuple")
    binary = parser.parse_args().binary
    os.environ["PIP_NO_DEPS"] = "1"
    environment.enter(ROOT / "scripts" / "requirements-deploy.txt", ROOT / "target" / "deploy-environment")
    manifests(binary)
    unit(binary)
    container()
    for message in wrong:
        print(f"wrong: {message}", file=sys.stderr)
    if wrong:
        sys.exit(1)
    print("deploy/ is as its schemas and the binary want it")


if __name__ == "__main__":
    main()
