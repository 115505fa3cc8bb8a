"""`halo-forge samples`: the same samples in a terminal."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from haloforge.cli.main import cli
from haloforge.errors import InputError
from haloforge.store.shards import read_judged
from tests.raft_runs import Row, write_cycle
from tests.viewing import raft_run, rows_of, spoil

HOSTILE = "\x1b]0;owned\x07\x1b[2J\u202e[bold]x[/bold]\x9b31m"


def samples(*arguments: object) -> Result:
    """What the command prints; an error of ours is raised."""
    result = CliRunner().invoke(cli, ["samples", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


def test_the_same_filters_as_in_the_browser(tmp_path: Path) -> None:
    run = raft_run(tmp_path / "run")
    failed = [row for cycle in (1, 2) for row in rows_of(cycle) if row.reward == 0]
    shown = samples(run, "--source", "samples", "--outcome", "compile_error").stdout
    assert f"20 of {len(failed)} samples" in shown and shown.count("compile_error") == 20
    both = samples(
        *(run, "--source", "samples", "--cycle", 2, "--problem", "sum/", "--limit", 99),
        *("--outcome", "compile_error", "--outcome", "passed", "--sort", "-tokens", "--json"),
    )
    rows = [json.loads(line) for line in both.stdout.splitlines()]
    wanted = [row for row in rows_of(2) if row.reward in (0, 1) and row.problem.startswith("sum/")]
    assert sorted((row["problem_id"], row["index"]) for row in rows) == sorted(
        (row.problem, row.number) for row in wanted
    )
    tokens = [row["num_tokens"] for row in rows]
    assert tokens == sorted(tokens, reverse=True)
    kept = samples(run, "--kept", "--limit", 500, "--json").stdout.splitlines()
    not_kept = samples(run, "--not-kept", "--limit", 500, "--json").stdout.splitlines()
    assert {json.loads(line)["kept"] for line in kept} == {True}
    assert len(kept) + len(not_kept) == len(rows_of(1)) + len(rows_of(2))


def test_a_line_of_json_has_all_of_a_sample(tmp_path: Path) -> None:
    run = raft_run(tmp_path / "run")
    lines = samples(run, "--source", "samples", "--limit", 500, "--json").stdout.splitlines()
    rows = {json.loads(line)["sample_id"]: json.loads(line) for line in lines}
    written = [row for cycle in (1, 2) for row in read_judged(run / f"cycle_{cycle}")]
    assert len(rows) == len(written)
    for row in written:
        told = rows[row.sample["sample_id"]]
        for name, value in {**row.sample, **row.verdict}.items():
            if name != "cycle":  # in an evaluation's rows it is 0
                assert told[name] == value, name
        assert told["prompt"] == f"Do {row.sample['problem_id']}."
        assert told["code"] in row.sample["completion"] and told["code_language"] == "cpp"
        assert told["kept"] == (told["rank"] is not None)


def test_full_prints_prompt_code_and_diagnostics(tmp_path: Path) -> None:
    run = raft_run(tmp_path / "run")
    verdicts = run / "cycle_1" / "verdicts" / "000001.parquet"
    spoil(verdicts, "diagnostics", [b"line one\nline two", *[b""] * 29])
    shown = samples(run, "--source", "samples", "--limit", 1, "--full").stdout
    for part in ("count/vowels #0", "Do count/vowels.", "int main()", "line one\nline two"):
        assert part in shown


def test_a_line_tells_the_error_and_the_code_that_it_is_in(tmp_path: Path) -> None:
    write_cycle(tmp_path, 1, [Row("p", 0, 0.0, code="int main() {\n  return nothing;\n}")])
    said = b"main.cpp: In function 'int main()':\nmain.cpp:2:10: error: 'nothing' is not declared"
    spoil(tmp_path / "cycle_1" / "verdicts" / "000001.parquet", "diagnostics", [said])
    shown = samples(tmp_path).stdout
    assert "2: return nothing;" in shown and "'nothing' is not declared" in shown
    assert "In function" not in shown


def test_a_warning_is_not_taken_for_the_end_of_a_program(tmp_path: Path) -> None:
    write_cycle(tmp_path, 1, [Row("p", 0, 0.5, code="int main() {\n  int u;\n  abort();\n}")])
    said = b"test 1: died of signal 6 (Aborted)\nmain.cpp:2:7: warning: unused variable"
    spoil(tmp_path / "cycle_1" / "verdicts" / "000001.parquet", "diagnostics", [said])
    shown = samples(tmp_path).stdout
    assert "died of signal 6 (Aborted)" in shown
    assert "unused variable" not in shown and "2: int u;" not in shown


@pytest.mark.parametrize("how", [[], ["--full"], ["--json"]])
def test_nothing_of_a_model_controls_the_terminal(how: list[str], tmp_path: Path) -> None:
    write_cycle(tmp_path, 1, [Row(HOSTILE, 0, 0.0, code=HOSTILE)])
    spoil(
        tmp_path / "cycle_1" / "verdicts" / "000001.parquet",
        "diagnostics",
        [HOSTILE.encode() + b"\xff"],
    )
    shown = samples(tmp_path, *how).stdout
    assert "owned" in shown and "[bold]x" in shown
    assert not {"\x1b", "\x07", "\u202e", "\x9b"} & set(shown)


def test_what_nothing_is_called_is_refused(tmp_path: Path) -> None:
    run = raft_run(tmp_path / "run")
    with pytest.raises(InputError, match="unknown outcome 'x'; known: no_code, compile_error"):
        samples(run, "--outcome", "x")
    with pytest.raises(InputError, match="no run folder is here"):
        samples(tmp_path / "nowhere")
    with pytest.raises(InputError, match="expected a path on this machine, not an address"):
        samples("s3://bucket/run")


def test_they_start_without_ray_and_torch(tmp_path: Path) -> None:
    """Which take seconds to import."""
    run = raft_run(tmp_path / "run")
    code = (
        "import sys\nfrom haloforge.cli.main import cli\n"
        f"cli(['samples', {str(run)!r}, '--full'], standalone_mode=False)\n"
        "import haloforge.view.server\n"
        "print({'ray', 'torch', 'transformers', 'vllm', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"
