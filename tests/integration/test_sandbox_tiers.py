"""Choosing the sandbox's tier: what is trusted, what is refused, and what the message says."""

import functools
import importlib.util
import os
import resource
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from haloforge.errors import InfraError, ResourceError
from haloforge.verify import canaries, sandbox
from haloforge.verify.sandbox import CANARY_LIMITS, Sandbox
from haloforge.verify.settings import VerifySettings
from haloforge.verify.toolchains import box_python

LIMITS = CANARY_LIMITS
SETTINGS = VerifySettings()
NOBODY = ["--reuid=65534", "--regid=65534", "--clear-groups"]


def test_a_box_that_cannot_be_made_is_our_failure() -> None:
    with pytest.raises(InfraError, match="the box failed"):
        Sandbox(sandbox.BUBBLEWRAP, "/bin/false").run(["/bin/true"], {}, b"", LIMITS)
    with pytest.raises(InfraError, match=r"cannot start|the box failed"):
        Sandbox(sandbox.BUBBLEWRAP, "/nonexistent").run(["/bin/true"], {}, b"", LIMITS)


@pytest.mark.parametrize("make", [sandbox._packaged_bubblewrap, sandbox._copied_bubblewrap])
def test_the_packaged_bubblewrap_holds_too(make: Callable[[], Sandbox | None]) -> None:
    packaged = make()
    assert packaged is not None
    run = functools.partial(packaged.run, limits=CANARY_LIMITS)
    assert canaries.attack(run, box_python(), CANARY_LIMITS.memory_mb, CANARY_LIMITS.file_mb) == []


def test_canaries_see_through_a_tier_without_namespaces() -> None:
    with pytest.warns(UserWarning, match="unsafe_no_sandbox"):
        unsafe = Sandbox.probe(VerifySettings(unsafe_no_sandbox=True))
    assert unsafe.tier == "unsafe"
    run = functools.partial(unsafe.run, limits=CANARY_LIMITS)
    holes = canaries.attack(run, box_python(), CANARY_LIMITS.memory_mb, CANARY_LIMITS.file_mb)
    assert {"reading a host file", "TCP to the host", "starting a process"} <= set(holes)
    assert "writing a host file (seen from the host)" in holes
    assert "more memory than its limit" not in holes


def test_unsafe_tier_runs_and_stops_programs() -> None:
    unsafe = Sandbox(sandbox.UNSAFE, None)
    assert unsafe.run(["/bin/cat", "x", "-"], {"x": b"in "}, b"hi", LIMITS).stdout == b"in hi"
    assert unsafe.run(["/bin/sleep", "60"], {}, b"", replace(LIMITS, wall_s=0.5)).timed_out


def test_no_tier_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name, path=None: None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(sandbox, "_drop_root", list)
    with pytest.raises(ResourceError, match="apt-get install bubblewrap"):
        Sandbox.probe(SETTINGS)


def test_a_leaking_box_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        sandbox, "_root_folders", lambda: ["--bind", "/", "/", "--dev-bind", "/dev", "/dev"]
    )
    with pytest.raises(ResourceError, match="no sandbox works here"):
        Sandbox.probe(SETTINGS)


def test_an_ordinary_user_has_the_same_box() -> None:
    if os.geteuid() != 0:
        pytest.skip("this is an ordinary user already")
    root = Path(__file__).parents[2]
    packages = [path for path in sys.path if path.endswith("site-packages")]
    script = """
        import os
        from haloforge.verify.sandbox import CANARY_LIMITS, Sandbox
        from haloforge.verify.settings import VerifySettings
        box = Sandbox.probe(VerifySettings())
        assert os.getuid() == 65534
        print(box.tier, box.run(["/bin/echo", "ran"], {}, b"", CANARY_LIMITS).stdout)
    """
    done = subprocess.run(
        ["setpriv", *NOBODY, box_python(), "-c", textwrap.dedent(script)],
        env={"PYTHONPATH": ":".join([str(root), *packages]), "PATH": "/usr/bin:/bin"},
        cwd="/",
        capture_output=True,
        text=True,
    )
    if "No module named" in done.stderr or "Permission denied" in done.stderr:
        pytest.skip(f"nobody cannot read this installation: {done.stderr.splitlines()[-1]}")
    assert done.stdout == "bubblewrap b'ran\\n'\n", done.stderr


def test_limits_stay_below_the_hosts_hard_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    real = resource.getrlimit
    low = {resource.RLIMIT_STACK: (1 << 20, 1 << 20)}
    monkeypatch.setattr(resource, "getrlimit", lambda key: low.get(key) or real(key))
    assert f"--stack={1 << 20}" in sandbox._prlimit(LIMITS, own_user_namespace=True)
