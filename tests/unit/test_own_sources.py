"""A verifier of one's own is found by its content, or refused in one line."""

import importlib
import sys
from pathlib import Path

import pytest

from haloforge.errors import InputError
from haloforge.verify.own_sources import find_own
from haloforge.verify.settings import VerifySettings

GOOD = """
from haloforge.verify.own import Judgement, Outcome

class Good:
    def judge(self, code, problem, sandbox):
        return Judgement(Outcome.PASSED)
"""


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "cls", "fault"),
    [
        (GOOD, "Bad", "no class 'Bad' in that file"),
        ("import nothing_of_this_name\n", "Good", "ModuleNotFoundError"),
        ("class Good\n", "Good", "SyntaxError"),
        ("raise ValueError('one\\ntwo')\n", "Good", "ValueError: one"),
        ("", "Good", "no class 'Good' in that file"),
        ("Good = 3\n", "Good", "Good is no class"),
        ("class Good:\n    pass\n", "Good", "with a method judge"),
        ("class Good:\n    judge = 3\n", "Good", "with a method judge"),
        ("class Good:\n    def judge(self, code): ...\n", "Good", "with a method judge"),
        (f"{GOOD}\n    def __init__(self, a): ...\n", "Good", "made without arguments"),
        (None, "Good", "No such file"),
    ],
)
def test_a_wrong_class_is_refused(tmp_path: Path, text: str | None, cls: str, fault: str) -> None:
    path = tmp_path / "own.py"
    if text is not None:
        write(path, text)
    with pytest.raises(InputError) as refused:
        VerifySettings(verifier=f"{path}:{cls}")
    assert fault in str(refused.value)
    assert "own.py" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_without_a_class_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"own.py:Class"):
        VerifySettings(verifier=str(write(tmp_path / "own.py", GOOD)))


def test_the_name_tells_the_content_and_not_the_path(tmp_path: Path) -> None:
    names = []
    for folder, text in (("a", GOOD), ("b", GOOD), ("c", f"{GOOD}\n# changed\n")):
        (tmp_path / folder).mkdir()
        path = write(tmp_path / folder / "own.py", text)
        settings = VerifySettings(verifier=f"{path}:Good")
        names.append(settings.judging()["verifier"])
        assert str(tmp_path) not in str(settings.judging())
    assert names[0] == names[1] != names[2]
    assert names[0].startswith("own.py:Good ")


def test_a_toolchain_is_no_verifier_of_ones_own() -> None:
    for name in ("auto", "gcc", "python"):
        assert VerifySettings(verifier=name).own() is None
        assert VerifySettings(verifier=name).judging().get("verifier", "auto") == name
    with pytest.raises(InputError, match="unknown verifier 'gc'; did you mean 'gcc'"):
        VerifySettings(verifier="gc")


def test_a_command_brings_the_files_it_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "check.sh", "#!/bin/sh\n")
    write(tmp_path / "data.txt", "1\n")
    found = find_own("cmd:./check.sh --data data.txt --source={file}")
    assert found is not None
    assert found.argv == ("./check.sh", "--data", "./data.txt", "--source={file}")
    assert found.files == {"check.sh": b"#!/bin/sh\n", "data.txt": b"1\n"}
    plain = find_own("cmd:/usr/bin/env python3 {file}")
    assert plain is not None
    assert plain.files == {}
    find_own.cache_clear()
    write(tmp_path / "data.txt", "2\n")
    changed = find_own("cmd:./check.sh --data data.txt --source={file}")
    assert changed is not None
    assert changed.digest != found.digest


@pytest.mark.parametrize(
    ("command", "fault"),
    [
        ("cmd:./check.sh", "{file} must stand where"),
        ("cmd:", "{file} must stand where"),
        ("cmd:./none.sh {file}", "no such file or command: ./none.sh"),
        ("cmd:no-such-command {file}", "no such file or command: no-such-command"),
        ("cmd:./check.sh 'open {file}", "No closing quotation"),
        ("cmd:./check.sh more/check.sh {file}", "two files are called check.sh"),
    ],
)
def test_a_wrong_command_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, fault: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "more").mkdir()
    for name in ("check.sh", "more/check.sh"):
        write(tmp_path / name, "#!/bin/sh\n")
    with pytest.raises(InputError) as refused:
        VerifySettings(verifier=command)
    assert fault in str(refused.value)


def test_an_entry_point_is_known_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "toy_verifiers"
    package.mkdir()
    write(package / "__init__.py", "")
    write(package / "good.py", GOOD)
    dist_info = tmp_path / "toy_verifiers-1.0.dist-info"
    dist_info.mkdir()
    write(dist_info / "METADATA", "Metadata-Version: 2.1\nName: toy-verifiers\nVersion: 1.0\n")
    write(
        dist_info / "entry_points.txt",
        "[haloforge.verifiers]\ntoy = toy_verifiers.good:Good\nbad = toy_verifiers.none:Good\n",
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    first = VerifySettings(verifier="toy").own()
    assert first is not None
    assert first.load()().judge("", None, None).outcome == "passed"
    with pytest.raises(InputError, match="verifier bad: ModuleNotFoundError"):
        VerifySettings(verifier="bad")
    with pytest.raises(InputError, match=r"Known: .*toy"):
        VerifySettings(verifier="tox")
    write(package / "__init__.py", "changed = True\n")
    find_own.cache_clear()
    second = VerifySettings(verifier="toy").own()
    assert second is not None
    assert second.digest != first.digest
    for name in [name for name in sys.modules if name.startswith("toy_verifiers")]:
        monkeypatch.delitem(sys.modules, name)
