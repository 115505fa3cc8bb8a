"""What a job takes along, what it refuses, and how it is followed; with no cluster."""

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from ray.job_submission import JobStatus

from haloforge import submit as module
from haloforge.cli.main import cli
from haloforge.cli.stages import STAGES, command_line, parsed
from haloforge.cli.submit import job_of
from haloforge.errors import InfraError, InputError
from haloforge.submit import Job, follow, named_files, stage_upload, submit


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_stage_is_its_command_or_another_of_its_group() -> None:
    assert command_line("raft", ["--cycles", "2"]) == ["raft", "train", "--cycles", "2"]
    assert command_line("benchmark", ["eval", "--suite", "x"])[:2] == ["benchmark", "eval"]
    assert command_line("benchmark", ["--k", "1"])[:2] == ["benchmark", "run"]
    assert command_line("pipeline", []) == ["pipeline"]
    assert parsed(command_line("raft", ["--cycles", "2"]))["raft__cycles"] == 2
    root = Path(__file__).parents[2]
    assert {*STAGES} == {path.stem for path in (root / "jobs").glob("*.py")}


def test_files_that_the_command_or_its_settings_name_go_along(here: Path) -> None:
    for name in ("a.jsonl", "judge.py", "check.sh", "data/eval.jsonl", "unnamed.jsonl"):
        (here / name).parent.mkdir(exist_ok=True)
        (here / name).write_text("x")
    config = {"raft": {"prompts": "a.jsonl", "eval_prompts": "data/eval.jsonl"}}
    (here / "c.yaml").write_text(json.dumps(config))
    job, _ = job_of("raft", ("--config", "c.yaml", "--output", "/shared/raft"))
    assert {*map(str, job.files)} == {"c.yaml", "a.jsonl", "data/eval.jsonl"}
    assert named_files(["judge.py:Judge"]) == (Path("judge.py"),)
    assert named_files(["cmd:./check.sh {file}"]) == (Path("check.sh"),)
    assert named_files([str(here / "a.jsonl"), "none.jsonl", "", "."]) == ()
    with pytest.raises(InputError, match=r"^data/\.\./a\.jsonl is outside this folder"):
        named_files(["data/../a.jsonl"])


@pytest.mark.parametrize(
    ("stage", "arguments"),
    [
        ("raft", ()),
        ("raft", ("--output", "runs/x")),
        ("sft", ("--set", "sft.output=runs/x")),
        ("pipeline", ()),
        ("prepare", ("--dataset", "starter", "--output", "train.jsonl")),
        ("benchmark", ("--output", "x")),
    ],
)
def test_an_output_that_would_be_lost_is_refused(stage: str, arguments: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match="relative"):
        job_of(stage, arguments)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("raft", "--cycles", "x"), "is not a valid integer"),
        (("raft", "--cyles", "3"), "No such option"),
        (("rft",), "unknown stage 'rft'"),
        (("raft", "--set", "raft.cyles=3"), "did you mean 'raft.cycles'"),
    ],
)
def test_what_the_stage_would_refuse_is_refused_before_anything_is_sent(
    arguments: tuple[str, ...], told: str
) -> None:
    done = CliRunner().invoke(cli, ["submit", *arguments, "--address", "127.0.0.1:1"])
    assert done.exit_code != 0
    assert told in f"{done.output} {done.exception}"


def test_what_is_uploaded_is_the_package_and_what_is_named(here: Path) -> None:
    (here / "a.jsonl").write_text("x" * 100)
    (here / "out").mkdir()
    size = stage_upload(Job("raft", (), (Path("a.jsonl"),)), here / "out")
    files = {str(path.relative_to(here / "out")) for path in (here / "out").rglob("*.*")}
    assert {"a.jsonl", "jobs/raft.py", "haloforge/session.py"} <= files
    assert not any("__pycache__" in name or name.endswith(".pyc") for name in files)
    assert 100 < size < 10 * 2**20


def test_too_much_to_upload_is_told_with_the_largest(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_UPLOAD_MB", 3)
    (here / "big.jsonl").write_bytes(b"x" * 4 * 2**20)
    (here / "out").mkdir()
    with pytest.raises(InputError, match=r"MB to upload, at most 3 are: big\.jsonl \(4 MB\)"):
        stage_upload(Job("raft", (), (Path("big.jsonl"),)), here / "out")
    assert not any((here / "out").iterdir())


class Client:
    """Stands for a cluster's job server: `says` are the words of each time that its log is read, an
    exception in their place breaks off there."""

    def __init__(self, says: list[list[Any]], code: int | None, status: str, message: str) -> None:
        self.says, self.submitted = says, dict[str, Any]()
        self.jobs: list[Any] = []
        self.ended = SimpleNamespace(
            status=JobStatus(status), driver_exit_code=code, message=message
        )

    def list_jobs(self) -> list[Any]:
        return self.jobs

    def submit_job(self, **asked: Any) -> str:
        self.submitted = asked
        folder = Path(asked["runtime_env"]["working_dir"])
        self.uploaded = {str(path.relative_to(folder)) for path in folder.rglob("*")}
        return str(asked["submission_id"])

    async def tail_job_logs(self, name: str) -> AsyncIterator[str]:
        for words in self.says.pop(0):
            if isinstance(words, Exception):
                raise words
            yield words

    def get_job_info(self, name: str) -> Any:
        running = SimpleNamespace(status=JobStatus.RUNNING)
        return running if self.says else self.ended


def followed(
    says: list[list[Any]], code: int | None = 0, status: str = "SUCCEEDED", message: str = ""
) -> tuple[str, int]:
    heard: list[str] = []
    ended = follow(Client(says, code, status, message), "raft-1", heard.append)
    return "".join(heard), ended


def test_a_job_is_followed_to_its_end_and_its_exit_code_is_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_AGAIN_S", 0)
    assert followed([["a\n", "b\n"]], 3, "FAILED") == ("a\nb\n", 3)
    # The log is read from its beginning again, and nothing is told twice.
    broken = RuntimeError("WebSocket connection closed unexpectedly")
    assert followed([["a\n", broken], ["a\nb", "c\n"]]) == ("a\nbc\n", 0)
    assert followed([["a\n"], ["a\nb\n"]]) == ("a\nb\n", 0)


def test_a_job_without_an_exit_code_is_a_failure_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_AGAIN_S", 0)
    with pytest.raises(InfraError, match=r"^job raft-1 failed: no such package$"):
        followed([["a\n"]], None, "FAILED", "no such package\nat line 1")
    with pytest.raises(InfraError, match=r"^job raft-1 stopped"):
        followed([["a\n"]], None, "STOPPED")


def test_a_cluster_that_is_gone_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_AGAIN_S", 0)
    monkeypatch.setattr(module, "_PATIENCE_S", 0)
    gone = ConnectionError("refused")
    with pytest.raises(InfraError, match=r"raft-1 answers no more \(refused\)"):
        followed([[gone], [gone], [gone]])


def test_the_same_job_is_not_started_twice(say: Callable[[str], None] = print) -> None:
    job = Job("raft", ("--cycles", "2"))
    client = Client([], 0, "SUCCEEDED", "")
    first = submit(client, job, say)
    assert first == f"{job.name}-1"
    assert client.submitted["entrypoint"] == "python jobs/raft.py --cycles 2"
    assert "jobs/raft.py" in client.uploaded
    client.submitted = {}
    running = SimpleNamespace(submission_id=first, status=JobStatus.RUNNING)
    client.jobs = [SimpleNamespace(submission_id=None, status=JobStatus.RUNNING), running]
    assert submit(client, job, say) == first and not client.submitted
    running.status = JobStatus.FAILED
    assert submit(client, job, say) == f"{job.name}-2"
    assert Job("raft", ("--cycles", "3")).name != job.name
