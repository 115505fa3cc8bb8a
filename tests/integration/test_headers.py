"""Precompiled headers: used where a source includes them first, and never more than it includes."""

import os
import tempfile
from pathlib import Path

import pytest

from haloforge.verify.extract import Extracted
from haloforge.verify.headers import NAMES, precompile
from haloforge.verify.judges.compilation import compile_answer
from haloforge.verify.limits import compile_limits
from haloforge.verify.sandbox import Sandbox
from haloforge.verify.settings import VerifySettings
from haloforge.verify.toolchains import CPP_FLAGS, HEADERS, select

SETTINGS = VerifySettings()
SOURCES = {
    "first": '#include <iostream>\nint main() { std::cout << "x"; }\n',
    "second": '#include <cctype>\n#include <iostream>\nint main() { std::cout << "x"; }\n',
    "all": "#include <bits/stdc++.h>\nint main() { std::map<int, int> m; return m.size(); }\n",
    "nothing": "int main() { std::string s; }\n",
    "too little": "#include <iostream>\nint main() { std::map<int, int> m; return m.size(); }\n",
    "macro": "#define cout cerr\n#include <iostream>\nint main() { std::cout << 1; }\n",
    "warning": "#include <iostream>\nint main() { int unused; }\n",
    "broken": "#include <iostream>\nint main() { std::cout << undeclared; }\n",
}


@pytest.fixture(scope="module")
def plain() -> Sandbox:
    return Sandbox.probe(SETTINGS)


@pytest.fixture(scope="module")
def precompiled() -> Sandbox:
    sandbox = Sandbox.probe(SETTINGS)
    precompile(sandbox, SETTINGS)
    return sandbox


@pytest.mark.parametrize("name", SOURCES)
def test_a_source_compiles_as_without_them(plain: Sandbox, precompiled: Sandbox, name: str) -> None:
    cpp = select("gcc", "cpp", None)
    assert cpp is not None
    answer = Extracted(SOURCES[name], "cpp")
    with_them, without = (
        compile_answer(answer, cpp, sandbox, SETTINGS) for sandbox in (precompiled, plain)
    )
    assert with_them.program == without.program
    assert with_them.warnings == without.warnings
    assert with_them.diagnostics == without.diagnostics
    assert (with_them.program is None) == (name in ("nothing", "too little", "broken"))


@pytest.mark.parametrize("name", NAMES)
def test_they_are_used(precompiled: Sandbox, name: str) -> None:
    command = ("/bin/sh", "-c", f"g++ {CPP_FLAGS} -I{HEADERS} -H -fsyntax-only main.cpp")
    source = {"main.cpp": f"#include <{name}>\nint main() {{}}\n".encode()}
    result = precompiled.run(command, source, b"", compile_limits(SETTINGS))
    assert result.stderr.splitlines()[0] == f"! {HEADERS}/{name}.gch".encode()


def test_linking_needs_no_threads(precompiled: Sandbox) -> None:
    """Linkers take a thread a core, and a box bounds them."""
    cpp = select("gcc", "cpp", None)
    assert cpp is not None
    few = VerifySettings(processes=8)
    assert compile_answer(Extracted(SOURCES["first"], "cpp"), cpp, precompiled, few).program


def test_a_folder_that_goes_is_done_without() -> None:
    sandbox = Sandbox.probe(SETTINGS)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        sandbox.show_headers(Path(folder))
    cpp = select("gcc", "cpp", None)
    assert cpp is not None
    assert compile_answer(Extracted(SOURCES["first"], "cpp"), cpp, sandbox, SETTINGS).program


def test_a_folder_that_others_can_write_is_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = tmp_path / f"haloforge-headers-{os.geteuid()}"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.warns(UserWarning, match="not a folder that only this user may write to"):
        precompile(Sandbox.probe(SETTINGS), SETTINGS)


@pytest.mark.skipif(os.geteuid() != 0, reason="the box's user is another one only under root")
def test_a_folder_that_boxes_cannot_reach_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o700)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    sandbox = Sandbox.probe(SETTINGS)
    with pytest.warns(UserWarning, match="no precompiled headers"):
        precompile(sandbox, SETTINGS)
    assert sandbox.run(("/bin/echo", "yes"), {}, b"", compile_limits(SETTINGS)).stdout == b"yes\n"
