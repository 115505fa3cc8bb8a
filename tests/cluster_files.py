"""The files of `cluster/` as tests see them, and the custom resource definitions they must fit."""

import functools
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).parents[1]
KUBERAY = ROOT / "cluster" / "kuberay"
RAY_UP = ROOT / "cluster" / "ray-up"
DEFINITIONS = ROOT.parent / "shared" / "schemas" / "kuberay"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MANIFESTS = {
    "RayCluster": "raycluster.yaml",
    "RayJob": "rayjob.yaml",
    "RayService": "rayservice.yaml",
}
_SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSWORD|ACCESS_KEY|API_KEY")
_SECRET = re.compile(
    r"hf_[A-Za-z0-9]{20}|AKIA[0-9A-Z]{16}|\b[0-9a-f]{40}|PRIVATE KEY|\bauth_token=[^\"$</\s]"
)


def manifest(kind: str) -> dict[str, Any]:
    """The manifest of a kind, as Kubernetes reads it."""
    found: dict[str, Any] = yaml.safe_load((KUBERAY / MANIFESTS[kind]).read_text())
    return found


def cluster_spec(kind: str) -> dict[str, Any]:
    """What a manifest says of its Ray cluster."""
    spec: dict[str, Any] = manifest(kind)["spec"]
    return {**spec.get("rayClusterSpec", spec.get("rayClusterConfig", spec))}


def ray_up(name: str) -> dict[str, Any]:
    """A file of the cluster launcher, as it stands."""
    found: dict[str, Any] = yaml.safe_load((RAY_UP / name).read_text())
    return found


def pinned(package: str) -> str:
    """The version of a package in the GPU stack's pins."""
    [version] = re.findall(
        rf"^{package}==(\S+)$", (ROOT / "cluster/requirements-gpu.txt").read_text(), re.MULTILINE
    )
    return str(version)


def check_manifest(kind: str, found: dict[str, Any]) -> None:
    """Raises jsonschema's ValidationError where `found` does not fit its definition, or has a field
    that Kubernetes does not know and would drop. Rules in CEL are not looked at."""
    _validator_of(kind).validate(found)


@functools.cache
def _validator_of(kind: str) -> Any:
    if not DEFINITIONS.exists():
        pytest.skip(f"the definitions of KubeRay are not at {DEFINITIONS}")
    text = (DEFINITIONS / f"ray.io_{kind.lower()}s.yaml").read_text()
    definition = yaml.load(text, Loader=yaml.CSafeLoader)  # 25,000 lines: the other takes long
    versions = {each["name"]: each for each in definition["spec"]["versions"]}
    schema = versions["v1"]["schema"]["openAPIV3Schema"]
    del schema["properties"]["metadata"]  # Kubernetes' own
    strict = _strict(schema)
    strict["properties"]["metadata"] = {"required": ["name"]}
    strict["properties"]["kind"] = {"const": kind}
    strict["properties"]["apiVersion"] = {"const": "ray.io/v1"}
    strict["required"] = ["apiVersion", "kind", "metadata", "spec"]
    return jsonschema.Draft202012Validator(strict)


def _strict(schema: dict[str, Any]) -> dict[str, Any]:
    """A structural schema as JSON Schema that refuses what it does not name."""
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    strict = {**schema}
    if "items" in schema:
        strict["items"] = _strict(schema["items"])
    if schema.get("type") == "object" and not schema.get("x-kubernetes-preserve-unknown-fields"):
        named = {name: _strict(each) for name, each in schema.get("properties", {}).items()}
        others = schema.get("additionalProperties", False)
        strict["properties"] = named
        strict["additionalProperties"] = _strict(others) if isinstance(others, dict) else others
    if schema.get("nullable"):
        strict["type"] = [schema["type"], "null"]
    return strict


def secrets_in(found: Any) -> Iterator[str]:
    """What looks like a secret that stands in a parsed file, and not in a Kubernetes Secret."""
    if isinstance(found, dict):
        name = str(found.get("name", ""))
        if _SECRET_NAME.search(name) and "value" in found:
            yield f"{name}={found['value']}"
        for each in found.values():
            yield from secrets_in(each)
    elif isinstance(found, list):
        for each in found:
            yield from secrets_in(each)
    elif isinstance(found, str) and _SECRET.search(found):
        yield found


def texts() -> Iterator[tuple[Path, str]]:
    """Each file of `cluster/` with its text."""
    for path in sorted((ROOT / "cluster").rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path, path.read_text()


def shell_scripts() -> list[Path]:
    """Every shell script of the repository."""
    folders = (ROOT / name for name in (".ci", "cluster", "haloforge", "jobs", "tests"))
    files = (path for folder in folders for path in folder.rglob("*") if path.is_file())
    return sorted(
        path for path in files if re.match(rb"#!\S*[ /](ba)?sh\n", path.read_bytes()[:64])
    )
