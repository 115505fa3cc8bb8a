"""What a job takes along, what it refuses, and how it is followed; with no cluster."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

import haloforge
from haloforge import submit as module
from haloforge.cli import job as of_command
from haloforge.cli.job import job_of
from haloforge.cli.main import cli
from haloforge.cli.stages import STAGES, command_line, parsed
from haloforge.config import Settings
from haloforge.errors import InputError
from haloforge.submit import (
    Job,
    check_output,
    check_secrets,
    named_files,
    stage_upload,
)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_stage_is_its_command_or_another_of_its_group() -> None:
    assert command_line("raft", ["--cycles", "2"]) == ["raft", "train", "--cycles", "2"]
    assert command_line("benchmark", ["eval", "--suite", "x"])[:2] == ["benchmark", "eval"]
    assert command_line("benchmark", ["--k", "1"])[:2] == ["benchmark", "run"]
    assert command_line("pipeline", []) == ["pipeline"]
    assert parsed(command_line("raft", ["--cycles", "2"])).params["raft__cycles"] == 2
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
        ("benchmark", ("compare", "/a", "/b", "--output", "table.txt")),
        ("verify", ("--input", "a.jsonl", "--output", "v.parquet")),
        ("verify", ("--references", "starter", "--output", "failed.txt")),
        ("prepare", ("validate", "a.jsonl", "--report", "r.json")),
        ("raft", ("--output", "/shared/x", "--set", "train.checkpoints=runs/c")),
    ],
)
def test_an_output_that_would_be_lost_is_refused(stage: str, arguments: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match=r"relative.* gone with it; give an absolute path"):
        job_of(stage, arguments)


@pytest.mark.parametrize(
    ("stage", "arguments"),
    [
        ("benchmark", ()),
        ("benchmark", ("--model", "/shared/model")),
        ("benchmark", ("eval", "--suite", "x")),
        ("verify", ("--input", "a.jsonl")),
        ("prepare", ("--dataset", "starter")),
    ],
)
def test_a_default_that_would_be_lost_is_refused(stage: str, arguments: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match=r"--output is missing: .* gone with it; give an absolute"):
        job_of(stage, arguments)


@pytest.mark.parametrize(
    ("stage", "arguments"),
    [
        ("benchmark", ("--output", "/shared/b")),
        ("benchmark", ("compare", "/a", "/b")),
        ("pipeline", ("--output", "s3://bucket/run?endpoint_override=host:9000")),
        ("prepare", ("--list",)),
        ("sft", ("--dry-run",)),
        ("verify", ("--references", "starter")),
    ],
)
def test_what_is_kept_or_only_told_is_taken(stage: str, arguments: tuple[str, ...]) -> None:
    assert job_of(stage, arguments)[0].words[-len(arguments) :] == arguments


def test_an_address_is_an_output_where_the_command_knows_addresses() -> None:
    check_output("s3://bucket/run", "--output")
    with pytest.raises(InputError, match="writes to a path, not to an address"):
        check_output(Path("s3://bucket/run"), "--output")


def test_only_what_is_named_on_purpose_goes_along(here: Path) -> None:
    for name in ("models/sft", "models/raft", "runs/pipeline", "starter/test", "auto", "gcc", "my"):
        (here / name).mkdir(parents=True)
        (here / name / "large").write_text("x")
    config = {
        "language": "cpp",
        "raft": {"prompts": "starter", "checkpoint": "models/sft"},
        "benchmark": {"prompts": "starter/test"},
        "verify": {"verifier": "gcc"},
    }
    (here / "c.yaml").write_text(json.dumps(config))
    (here / "my data.jsonl").write_text("x")

    def names(stage: str, *arguments: str) -> set[str]:
        return {*map(str, job_of(stage, arguments)[0].files)}

    assert names("raft", "--output", "/s") == set()
    # Another stage's settings are not this one's.
    assert names("sft", "--config", "c.yaml", "--set", "sft.output=/s") == {"c.yaml"}
    given = ("--config", "c.yaml", "--output", "/s")
    assert names("raft", *given) == {"c.yaml", "models/sft"}
    assert names("benchmark", *given, "--model", "models/raft") == {"c.yaml", "models/raft"}
    assert names("verify", "--input", "my data.jsonl", "--output", "/s") == {"my data.jsonl"}
    assert names(
        "prepare", "--dataset", "my data.jsonl", "--output", "/s", "--language", "cpp"
    ) == {"my data.jsonl"}


def test_the_rows_that_an_entry_of_ones_own_names_go_along(here: Path) -> None:
    (here / "sets").mkdir()
    (here / "sets" / "rows.jsonl").write_text("x")
    entry = {
        "name": "mine",
        "origin": {"path": "rows.jsonl"},
        "splits": {"train": {"used_for": "train"}},
        "licence": "mit",
        "languages": ["cpp"],
        "uses": ["sft"],
        "adapter": "chat",
    }
    (here / "sets" / "mine.yaml").write_text(json.dumps(entry))
    job, _ = job_of("prepare", ("--dataset", "sets/mine.yaml", "--output", "/s"))
    assert {*map(str, job.files)} == {"sets/mine.yaml", "sets/rows.jsonl"}


def test_what_is_served_stays_where_it_is(here: Path) -> None:
    (here / "models" / "raft").mkdir(parents=True)
    for model in ("models/raft", "coder=models/raft"):
        with pytest.raises(InputError, match="is served from where it is; give an absolute path"):
            job_of("serve", ("--model", model))
    job, settings = job_of("serve", ("--model", str(here / "models" / "raft")))
    assert not job.files and settings.serve.models == [str(here / "models" / "raft")]


def test_each_setting_and_option_that_is_a_text_is_known_to_be_read_or_not() -> None:
    read = {
        *of_command.EVERY_STAGE_READS,
        *(name for names in of_command.READS.values() for name in names),
    }
    assert _texts_of(Settings) - read == {
        "benchmark.difficulty",
        "language",
        "observe.project",
        "output",
        "plan.architecture",
        "raft.difficulty",
        "raft.output",
        "ray.address",
        "ray.compute_resource",
        "serve.allow_origins",
        "serve.host",
        "serve.models",
        "sft.difficulty",
        "sft.output",
        "system",
        "train.checkpoints",
        "verify.resource",
    }
    known = {*of_command.INPUT_OPTIONS, *of_command.OUTPUT_OPTIONS}
    others = set()
    for group, *_ in STAGES.values():
        found = cli.commands[group]
        for command in found.commands.values() if isinstance(found, click.Group) else [found]:
            for option in command.params:
                text = isinstance(option.type, click.Path) or option.type is click.STRING
                if text and option.name not in known and "__" not in str(option.name):
                    others.add(option.name)
    others -= {"backend", "topic", "writer"}  # of `data generate`, which no job runs
    assert others == {"address", "assignments", "fields", "language", "parts", "suites"}


def _texts_of(model: Any, above: str = "") -> set[str]:
    """The settings that a text can be given for."""
    found = set()
    for name, field in model.model_fields.items():
        if hasattr(field.annotation, "model_fields"):
            found |= _texts_of(field.annotation, f"{above}{name}.")
        elif field.annotation is str or str in getattr(field.annotation, "__args__", ()):
            found.add(f"{above}{name}")
    return found


@pytest.mark.parametrize(
    "address",
    [
        "s3://KEY:XY/ZZY@bucket/run",
        "s3://KEY@bucket/run",
        "https://me:XYZZY@host:80/x",
        "s3://bucket/run?secret_key=XYZZY",
    ],
)
def test_a_secret_in_an_address_is_refused_and_not_repeated(here: Path, address: str) -> None:
    (here / "c.yaml").write_text(json.dumps({"raft": {"output": address}}))
    for arguments in (("--output", address), ("--config", "c.yaml")):
        with pytest.raises(InputError, match="holds credentials") as refused:
            job_of("raft", arguments)
        assert "XYZZY" not in str(refused.value) and "ZZY" not in str(refused.value)


def test_addresses_without_a_secret_are_taken() -> None:
    check_secrets(
        (
            "hf://datasets/a/b@refs/convert/parquet",
            "s3://bucket/a@b?endpoint_override=http://host:9000&scheme=http",
            "http://host:8265/a@b",
            "cmd:./check.sh {file}",
        )
    )


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
    size = stage_upload(Job("raft", ("raft",), (Path("a.jsonl"),)), here / "out")
    files = {str(path.relative_to(here / "out")) for path in (here / "out").rglob("*.*")}
    assert {"a.jsonl", "haloforge/__main__.py", "haloforge/session.py"} <= files
    assert not any("__pycache__" in name or name.endswith(".pyc") for name in files)
    assert 100 < size < 10 * 2**20


def test_too_much_to_upload_is_told_with_the_largest(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_UPLOAD_MB", 3)
    (here / "big.jsonl").write_bytes(b"x" * 4 * 2**20)
    (here / "out").mkdir()
    with pytest.raises(InputError, match=r"MB to upload, at most 3 are: big\.jsonl \(4 MB\)"):
        stage_upload(Job("raft", ("raft",), (Path("big.jsonl"),)), here / "out")
    assert not any((here / "out").iterdir())


def test_an_installed_package_needs_no_checkout(here: Path) -> None:
    package = Path(haloforge.__file__).parent
    skipped = shutil.ignore_patterns("__pycache__")
    shutil.copytree(package, here / "site" / package.name, ignore=skipped)
    (here / "up").mkdir()
    program = (
        "import haloforge.submit as s, pathlib;"
        "print(s.stage_upload(s.Job('verify', ('verify', '--help')), pathlib.Path('up')));"
        "print(s.Job('verify', ('verify', '--help')).entrypoint)"
    )
    alone = {**os.environ, "PYTHONPATH": str(here / "site")}
    done = subprocess.run(
        [sys.executable, "-c", program], env=alone, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    words = done.stdout.splitlines()[1].split()
    del alone["PYTHONPATH"]
    ran = subprocess.run(
        [sys.executable, *words[1:]], cwd="up", env=alone, capture_output=True, text=True
    )
    assert ran.returncode == 0 and "Scores stored samples" in ran.stdout, ran.stderr
