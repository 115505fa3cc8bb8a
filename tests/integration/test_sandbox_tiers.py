"""Choosing the sandbox's tier: what is trusted, what is refused, and what the message says."""

import importlib.util
import os
import resource
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from haloforge.errors import InfraError, ResourceError
from haloforge.verify import canaries, sandbox
from haloforge.verify.limits import Guards, rlimits
from haloforge.verify.sandbox import (
    BUBBLEWRAP,
    CANARY_LIMITS,
    LANDLOCK,
    TIERS,
    UNSAFE,
    Sandbox,
)
from haloforge.verify.settings import VerifySettings
from haloforge.verify.toolchains import box_python
from tests import boxes

LIMITS = CANARY_LIMITS
SETTINGS = VerifySettings()
NOBODY = ["--reuid=65534", "--regid=65534", "--clear-groups"]


def test_a_box_that_cannot_be_made_is_our_failure() -> None:
    for broken in ("/bin/false", "/nonexistent"):
        with pytest.raises(InfraError, match="the box failed"):
            Sandbox(BUBBLEWRAP, broken).run(["/bin/true"], {}, b"", LIMITS)


@pytest.mark.parametrize("make", [sandbox._packaged_bubblewrap, sandbox._copied_bubblewrap])
def test_the_packaged_bubblewrap_holds_too(make: Callable[[], Sandbox | None]) -> None:
    packaged = make()
    assert packaged is not None
    assert canaries.attack(packaged, CANARY_LIMITS) == []
    packaged.close()


def test_canaries_see_through_a_tier_without_namespaces() -> None:
    with pytest.warns(UserWarning, match="unsafe_no_sandbox"):
        unsafe = Sandbox.probe(VerifySettings(unsafe_no_sandbox=True))
    assert unsafe.tier == "unsafe"
    holes = set(canaries.attack(unsafe, CANARY_LIMITS))
    assert {"reading a host file", "TCP to the host", "starting a process"} <= holes
    assert {"another box's priority", "another box's limits", "killing another box"} <= holes
    seen = {hole.partition(" (seen")[0] for hole in holes if "seen from the host" in hole}
    assert {"writing a host file", "changing a host file", "changing another box"} <= seen
    assert "a connection" in seen
    assert "more memory than its limit" not in holes


def test_unsafe_tier_runs_and_stops_programs() -> None:
    unsafe = Sandbox(UNSAFE)
    assert unsafe.run(["/bin/cat", "x", "-"], {"x": b"in "}, b"hi", LIMITS).stdout == b"in hi"
    assert unsafe.run(["/bin/sleep", "60"], {}, b"", replace(LIMITS, wall_s=0.5)).timed_out


@pytest.mark.parametrize("tier", TIERS)
def test_a_box_inherits_what_it_is_given_and_no_more(tier: str) -> None:
    box = boxes.sandbox(tier)
    (into, to_box), (from_box, out) = os.pipe(), os.pipe()
    os.write(to_box, b"hello")
    code = (
        "import os\nos.write(3, os.read(4, 5))\n"
        "for fd in range(5, 200):\n    try:\n        os.fstat(fd)\n        print(fd)\n"
        "    except OSError:\n        pass"
    )
    argv = [box_python(), "-I", "-c", code]
    with box.start(argv, {}, b"", LIMITS, streams={4: into, 3: out}) as started:
        result = started.wait()
    assert os.read(from_box, 99) == b"hello"
    assert (result.clean, result.stdout) == (True, b"")
    for fd in (into, to_box, from_box, out):  # still ours to close
        os.close(fd)


def test_no_tier_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "_installed_bubblewrap", lambda: None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(sandbox, "landlock_version", lambda: 0)
    with pytest.raises(ResourceError, match=r"no Landlock.*apt-get install bubblewrap"):
        Sandbox.probe(SETTINGS)


def test_without_bubblewrap_the_second_tier_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "_installed_bubblewrap", lambda: None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.warns(UserWarning, match=r"landlock, .* version \d+ \(bubblewrap: not installed"):
        box = Sandbox.probe(SETTINGS)
    assert box.tier == LANDLOCK
    box.close()


def test_a_leaking_box_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = sandbox._bubblewrap

    def leaking(*arguments: Any) -> list[str]:
        argv = whole(*arguments)
        at = argv.index("/tmp")
        return [*argv[: at - 2], "--bind", "/tmp", *argv[at:]]

    monkeypatch.setattr(sandbox, "_bubblewrap", leaking)
    monkeypatch.setitem(TIERS, BUBBLEWRAP, replace(Guards(), landlock=False))
    with pytest.warns(UserWarning, match="bubblewrap: let through: reading a host file, writing"):
        assert Sandbox.probe(SETTINGS).tier == LANDLOCK
    monkeypatch.setitem(TIERS, LANDLOCK, TIERS[UNSAFE])
    # On a slow machine it is stopped while it fills the folder that it may not write to.
    refused = r"no sandbox works here .*landlock: (let through|.* disk_full=True)"
    with pytest.raises(ResourceError, match=refused):
        Sandbox.probe(SETTINGS)


@pytest.mark.parametrize("tier", [BUBBLEWRAP, LANDLOCK])
def test_an_ordinary_user_has_the_same_box(tier: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("this is an ordinary user already")
    root = Path(__file__).parents[2]
    packages = [path for path in sys.path if path.endswith("site-packages")]
    script = f"""
        import os
        from haloforge.verify import canaries
        from haloforge.verify.sandbox import CANARY_LIMITS, Sandbox
        from haloforge.verify.settings import VerifySettings
        box = Sandbox.probe(VerifySettings())
        assert os.getuid() == 65534
        if box.tier != {tier!r}:
            box = Sandbox({tier!r})
            assert canaries.attack(box, CANARY_LIMITS) == []
        print(box.tier, box.run(["/bin/echo", "ran"], {{}}, b"", CANARY_LIMITS).stdout)
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
    assert done.stdout == f"{tier} b'ran\\n'\n", done.stderr


def test_limits_stay_below_the_hosts_hard_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    real = resource.getrlimit
    low = {resource.RLIMIT_STACK: (1 << 20, 1 << 20), resource.RLIMIT_NOFILE: (20, 20)}
    monkeypatch.setattr(resource, "getrlimit", lambda key: low.get(key) or real(key))
    found = rlimits(LIMITS, namespaces=True)
    assert found[resource.RLIMIT_STACK] == 1 << 20
    assert found[resource.RLIMIT_NOFILE] == 20
    assert found[resource.RLIMIT_AS] == LIMITS.memory_mb << 20
