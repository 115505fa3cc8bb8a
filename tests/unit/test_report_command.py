"""`halo-forge report` writes the page of a run again."""

import json
import subprocess
import sys
from pathlib import Path

from click.testing import CliRunner

from haloforge.cli.main import cli
from haloforge.errors import InputError
from tests.report_runs import write_raft

HEAVY = ("ray", "torch", "transformers", "pandas", "datasets")


def test_it_prints_the_path(tmp_path: Path) -> None:
    run = write_raft(tmp_path, steps=3)
    found = CliRunner().invoke(cli, ["report", str(run)], catch_exceptions=False)
    assert found.output == f"{run / 'report.html'}\n"
    assert (run / "report.html").stat().st_size > 10_000
    found = CliRunner().invoke(cli, ["report", str(run), "--json"], catch_exceptions=False)
    told = json.loads(found.output)
    assert told["report"] == str(run / "report.html")
    assert "3 in cycle 1" in told["warnings"][0]


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("none")
    for place in (tmp_path, tmp_path / "missing", tmp_path / "notes.txt"):
        found = CliRunner().invoke(cli, ["report", str(place)])
        assert isinstance(found.exception, InputError)
        assert found.exception.exit_code == 2
        assert str(place) in str(found.exception)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_it_imports_nothing_heavy(tmp_path: Path) -> None:
    run = write_raft(tmp_path)
    script = (
        "import sys; from haloforge.cli.main import cli; "
        f"cli(['report', {str(run)!r}], standalone_mode=False); "
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
