"""`halo-forge doctor` as a user runs it, and against a real Ray head that wants a token."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.ray_head import TOKEN, ray_head


def doctor(
    *arguments: str, cwd: Path, environment: dict[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "haloforge", "doctor", *arguments],
        cwd=cwd,
        env=environment or dict(os.environ),
        capture_output=True,
        text=True,
        timeout=300,
    )


def checks(done: "subprocess.CompletedProcess[str]") -> dict[str, Any]:
    """By name; their document is all that is on standard output."""
    return {each["name"]: each for each in json.loads(done.stdout)["checks"]}


def test_this_machine(tmp_path: Path) -> None:
    done = doctor("--json", cwd=tmp_path)
    found = checks(done)
    assert done.returncode == (0 if json.loads(done.stdout)["ok"] else 3), done.stderr
    for name in ("python", "packages", "sandbox", "toolchain gcc", "toolchain python"):
        assert found[name]["status"] in ("ok", "warning"), found[name]
    assert "programs in cpp, c, python compile and run in it" in found["sandbox"]["found"]
    assert not any("could not be checked" in each["found"] for each in found.values())
    text = doctor(cwd=tmp_path)
    assert text.returncode == done.returncode and "Traceback" not in text.stderr
    for name in found:
        assert f"  {name} " in text.stdout


def test_settings_and_toolchains_that_are_not_there(tmp_path: Path) -> None:
    done = doctor("--verifier", "gc", cwd=tmp_path)
    assert done.returncode == 2 and "did you mean 'gcc'" in done.stderr
    done = doctor("--json", "--set", "verify.unsafe_no_sandbox=true", cwd=tmp_path)
    assert done.returncode == 3 and checks(done)["sandbox"]["status"] == "fault"
    assert done.stderr.startswith("halo-forge: error: what runs need is missing or wrong: ")
    assert done.stderr.count("\n") == 1


def test_a_ray_with_a_right_a_wrong_and_no_token(tmp_path: Path) -> None:
    with ray_head() as head:
        right = head.client
        for address, name in ((head.address, "ray cluster"), (head.job_server, "ray job server")):
            done = doctor("--json", "--address", address, cwd=tmp_path, environment=right)
            assert checks(done)[name]["status"] == "ok", checks(done)[name]
            assert checks(done)["ray token"]["found"] == "from RAY_AUTH_TOKEN"
            assert TOKEN not in done.stdout + done.stderr
            wrong = {**right, "RAY_AUTH_TOKEN": "another"}
            done = doctor("--json", "--address", address, cwd=tmp_path, environment=wrong)
            assert done.returncode == 3
            assert "refuses the token" in checks(done)[name]["found"]
        assert (
            "1 node(s) live"
            in checks(doctor("--json", "--address", head.address, cwd=tmp_path, environment=right))[
                "ray cluster"
            ]["found"]
        )
        home = {**right, "HOME": str(tmp_path)}  # in which there is no token either
        del home["RAY_AUTH_TOKEN"]
        done = doctor("--json", "--address", head.address, cwd=tmp_path, environment=home)
        assert done.returncode == 3 and "Traceback" not in done.stderr
        assert checks(done)["ray cluster"]["status"] == "fault"
        assert checks(done)["ray token"]["status"] == "fault"
