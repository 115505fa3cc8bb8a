"""The suites of attacks, and of right programs, again as an ordinary user where root runs tests.

Root's boxes belong to another user than root; an ordinary user's are that same user's.
"""

import os
import subprocess
import sysconfig
from pathlib import Path
from types import ModuleType

import pytest

from haloforge.verify.toolchains import box_python
from tests.attacking import open_folder
from tests.integration import test_right_languages, test_right_programs, test_sandbox
from tests.integration.test_attack_table import SUITES

ROOT = Path(__file__).parents[2]
USER = 54321  # has no name, and nothing else runs as it


def as_user(home: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Python as an ordinary user, which finds this checkout and our packages."""
    return subprocess.run(
        [
            *("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"),
            *(box_python(), "-B", *arguments),
        ],
        cwd=ROOT,
        env={
            "PATH": os.defpath,
            "HOME": str(home),
            "PYTHONPATH": f"{ROOT}:{sysconfig.get_path('purelib')}",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    "suite",
    [*SUITES, test_sandbox, test_right_programs, test_right_languages],
    ids=lambda suite: suite.__name__.rpartition(".")[2],
)
def test_an_ordinary_user_is_as_safe(suite: ModuleType) -> None:
    if os.geteuid() != 0:
        pytest.skip("this is an ordinary user already")
    with open_folder() as home:
        found = as_user(home, "-c", f"import {suite.__name__}")
        if "No module named" in found.stdout or "Permission denied" in found.stdout:
            pytest.skip(f"it cannot read this installation: {found.stdout.splitlines()[-1]}")
        found = as_user(home, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(suite.__file__))
    print(found.stdout)
    assert found.returncode == 0
    assert " passed" in found.stdout.splitlines()[-1]
