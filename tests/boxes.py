"""Boxes of every tier, and the programs that are run in them and beside them."""

import functools
import math
import os
import subprocess
import textwrap
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from haloforge.verify.limits import BoxLimits, Guards
from haloforge.verify.process import RunResult
from haloforge.verify.sandbox import BUBBLEWRAP, LANDLOCK, TIERS, Sandbox
from haloforge.verify.settings import VerifySettings
from haloforge.verify.toolchains import PYTHON, box_python

LIMITS = BoxLimits(
    wall_s=20,
    cpu_s=math.inf,
    memory_mb=256,
    processes=16,
    output_kb=64,
    file_mb=4,
    files=1024,
    single_process=True,
)
MANY = replace(LIMITS, single_process=False)
HELD = (BUBBLEWRAP, LANDLOCK)
"""The tiers that hold hostile programs."""


@functools.cache
def bubblewrap() -> str:
    """The bubblewrap that works here."""
    sandbox = Sandbox.probe(VerifySettings())
    assert sandbox.tier == BUBBLEWRAP, "these tests need a machine with user namespaces"
    sandbox.close()
    return sandbox._bubblewrap


@functools.cache
def sandbox(tier: str) -> Sandbox:
    """One sandbox of a tier for all tests."""
    return Sandbox(tier, bubblewrap() if TIERS[tier].namespaces else "")


@functools.cache
def guarded(guards: Guards) -> Sandbox:
    """A sandbox with these guards alone. It may let hostile programs do what they like."""
    return Sandbox(BUBBLEWRAP, bubblewrap() if guards.namespaces else "", guards=guards)


def boxed(box: Sandbox, code: str, limits: BoxLimits = LIMITS, stdin: bytes = b"") -> RunResult:
    """A Python program in a fresh box."""
    source = textwrap.dedent(code).encode()
    return box.run([*PYTHON, "main.py"], {"main.py": source}, stdin, limits)


def bare(code: str) -> str:
    """What the same program prints as an ordinary process of the user that it is in a box."""
    argv = [*as_box_user(), box_python(), "-I", "-c", textwrap.dedent(code)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60).stdout.strip()


def processes_with(marker: str) -> list[int]:
    """The host's processes that carry `marker` on their command line."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and marker.encode() in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def eventually(condition: Callable[[], bool], seconds: float = 10) -> bool:
    """Whether `condition` came true within `seconds`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.01)
    return False


def as_box_user() -> list[str]:
    """What a command starts with to run as the user that programs in boxes are."""
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    return nobody if os.geteuid() == 0 else []
