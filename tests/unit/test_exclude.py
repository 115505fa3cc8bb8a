"""Which problems a run takes: those named in a file are left out, before a limit is applied."""

import json
from pathlib import Path
from typing import Any

import pytest

from haloforge.benchmark.measure import _title
from haloforge.config import Settings, load_settings
from haloforge.data.problems import choose_problems, read_ids
from haloforge.errors import InputError
from haloforge.model.bases import Base
from haloforge.model.policy import Policy
from haloforge.raft.cycle import _open
from haloforge.report.progress import Report
from tests.observing import unobserved
from tests.results import passing

POLICY = Policy("toy", Base("toy", "toy", Path("toy"), "base"), None, "digest")


class Session:
    """What RAFT needs of a session before it samples."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.report = Report()
        self.observer = unobserved()


def settings(folder: Path, **flags: Any) -> Settings:
    rows = [{"problem_id": f"p{n}", "prompt": f"Print {n}."} for n in range(6)]
    (folder / "problems.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return load_settings(None, {"raft.prompts": str(folder / "problems.jsonl"), **flags})


def chosen(folder: Path, exclude: str, limit: int | None = None) -> tuple[list[str], int]:
    path = folder / ("ids.jsonl" if exclude.startswith("{") else "ids.txt")
    path.write_text(exclude)
    found = settings(folder, **{"raft.exclude": str(path), "raft.limit": limit})
    problems, excluded = choose_problems(found.raft, None)
    return [problem.problem_id for problem in problems], excluded


def test_ids_in_lines_or_in_json(tmp_path: Path) -> None:
    left = (["p0", "p2", "p3", "p5"], 2)
    assert chosen(tmp_path, "p1\np4\nof another set\n") == left
    rows = [{"problem_id": name, "outcome": "timeout"} for name in ("p1", "p4", "p4")]
    assert chosen(tmp_path, "\n".join(map(json.dumps, rows))) == left
    assert chosen(tmp_path, "") == ([f"p{n}" for n in range(6)], 0)
    (tmp_path / "empty.jsonl").write_text("")
    assert read_ids(tmp_path / "empty.jsonl") == set()


def test_a_limit_is_of_what_is_left(tmp_path: Path) -> None:
    first, _ = chosen(tmp_path, "", limit=3)
    rest, excluded = chosen(tmp_path, f"{first[0]}\n", limit=3)
    assert (len(rest), excluded) == (3, 1)
    assert set(first[1:]) < set(rest)


def test_a_wrong_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"ids.jsonl, line 1: field 'problem_id' is missing"):
        chosen(tmp_path, '{"id": "p1"}')
    with pytest.raises(InputError, match=r"ids.txt: leaves out every problem"):
        chosen(tmp_path, "".join(f"p{n}\n" for n in range(6)))


def test_the_number_is_printed_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "ids.txt").write_text("p1\np4\n")
    session: Any = Session(settings(tmp_path, **{"raft.exclude": str(tmp_path / "ids.txt")}))
    run = _open(session, POLICY, tmp_path / "run", fresh=False)
    assert len(run.problems) == 4
    assert json.loads((tmp_path / "run" / "run.json").read_text())["excluded"] == 2
    assert "raft: 2 problems left out" in " ".join(capsys.readouterr().err.split())
    session = Session(settings(tmp_path))
    with pytest.raises(InputError, match="excluded: was 2, is now not set"):
        _open(session, POLICY, tmp_path / "run", fresh=False)
    measured = passing([2], 2)
    told = measured.settings.model_copy(update={"excluded": 2})
    assert "(2 left out)" in _title(measured.model_copy(update={"settings": told}))


def test_problems_that_can_be_cheated_are_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(judge: str, language: str, **fields: str) -> str:
        (tmp_path / judge).mkdir()
        path = tmp_path / judge / "own.jsonl"
        row = {"problem_id": "p", "prompt": "Write f.", "judge": judge, "language": language}
        path.write_text(json.dumps(row | fields) + "\n")
        session: Any = Session(load_settings(None, {"raft.prompts": str(path)}))
        _open(session, POLICY, tmp_path / judge / "run", fresh=False)
        return " ".join(capsys.readouterr().err.split())

    cheated = told("program", "cpp", test_code="int main() { assert(f() == 1); }")
    assert "1 problems have judge 'program'" in cheated
    asserts = "def check(f):\n    assert f() == 1"
    assert "judge 'program'" not in told("function", "python", test_code=asserts, entry_point="f")
