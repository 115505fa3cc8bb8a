"""`results.json`: its schema, what is refused, and that a finished benchmark stays as it is."""

import json
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from click.testing import CliRunner

from haloforge.benchmark import measure
from haloforge.benchmark.measure import benchmark, benchmark_all, output_folders
from haloforge.benchmark.results import Environment, Hardware, Result, read_result
from haloforge.cli.benchmark import benchmark_group
from haloforge.config import load_settings
from haloforge.errors import InputError
from haloforge.model.bases import Base
from haloforge.model.policy import Policy
from haloforge.preflight import check_benchmark
from haloforge.session import Session
from haloforge.store.shards import ShardWriter
from tests.observing import unobserved
from tests.results import POLICY, judged, passing

SCHEMA = Path(measure.__file__).with_name("results.schema.json")
PROBLEM = {"prompt": "?", "language": "cpp", "tests": [{"stdin": "1\n", "stdout": "1\n"}]}


def saved(folder: Path, result: Result) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(result.model_dump_json())
    return folder


def test_the_schema_is_the_published_one() -> None:
    """Where this fails after a wanted change: write the new schema there, and raise
    SCHEMA_VERSION if what was written before is no longer read."""
    assert json.loads(SCHEMA.read_text()) == Result.model_json_schema()


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    result = passing([1, 0, 2], 2, lost=1)
    assert read_result(saved(tmp_path, result)) == result
    assert read_result(tmp_path / "results.json").values == result.values


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 2}, "field 'schema_version': 2, but this haloforge reads version 1"),
        ({"schema_version": None}, "field 'schema_version': missing"),
        ({"problems": "three"}, "field 'problems': Input should be a valid integer"),
        ({"surprise": 1}, "field 'surprise': Extra inputs are not permitted"),
        ({"complete": False}, "'complete' does not agree with 'infra_errors'"),
        (
            {"per_problem": {"p0": {"group": "p0"}}},
            r"field 'per_problem.p0.tested': Field required",
        ),
    ],
)
def test_what_is_not_of_the_schema_is_refused_by_file_and_field(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    tree = {**passing([1], 1).model_dump(mode="json"), **change}
    if tree["schema_version"] is None:
        del tree["schema_version"]
    path = tmp_path / "results.json"
    path.write_text(json.dumps(tree))
    with pytest.raises(InputError) as caught:
        read_result(tmp_path)
    assert str(caught.value).startswith(f"{path}: {message}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[1]"])
def test_a_file_that_is_no_result_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(InputError, match=r"results\.json"):
        read_result(tmp_path)
    with pytest.raises(InputError, match="cannot be read"):
        read_result(tmp_path / "nowhere")


class Sampling:
    """Stands for engines and verifiers: commits rows as they would, once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
        self.policies: list[str] = []
        self.machine = "first"
        told = SimpleNamespace(say=lambda line: None, result=lambda line: None)
        session = SimpleNamespace(
            settings=settings,
            report=told,
            observer=unobserved(),
            chats_with=lambda policy: True,
        )
        self.session = cast(Session, session)
        monkeypatch.setattr(measure, "sample_and_judge", self)
        monkeypatch.setattr(measure, "environment", self.environment)

    def __call__(
        self, session: Any, policy: Policy, problems: Any, samples: int, sampling: Any, *rest: Any
    ) -> None:
        folder: Path = rest[2]
        self.policies.append(policy.name)
        if (folder / "commits").exists():
            return
        with ShardWriter(folder) as shards:
            for index in reversed(range(samples)):
                for number in reversed(range(len(problems))):
                    row = judged(number, index, "passed" if number == index else "wrong_answer")
                    shards.add(row.sample, row.verdict)

    def environment(self) -> Environment:
        hardware = Hardware(
            cpu=self.machine,
            cores=2,
            memory_gb=8,
            ray_nodes=1,
            ray_cpus=2,
            ray_gpus=0,
            accelerators=[],
        )
        return Environment(versions={"python": "3"}, hardware=hardware)


@pytest.fixture
def sampling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sampling:
    prompts = tmp_path / "problems.jsonl"
    rows = [{**PROBLEM, "problem_id": f"p{i}", "prompt": f"{i}?"} for i in range(3)]
    prompts.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    given = {"benchmark.prompts": str(prompts), "benchmark.samples": 2, "benchmark.k": [1, 2]}
    return Sampling(monkeypatch, load_settings(None, given))


def test_a_finished_benchmark_run_again_writes_the_same_bytes(
    tmp_path: Path, sampling: Sampling
) -> None:
    output = tmp_path / "out"
    result = benchmark(sampling.session, POLICY, output)
    files = {path.name: path.read_bytes() for path in output.iterdir() if path.is_file()}
    sampling.machine = "second"
    assert benchmark(sampling.session, POLICY, output) == result
    assert {path.name: path.read_bytes() for path in output.iterdir() if path.is_file()} == files
    found = read_result(output)
    assert found.environment is not None
    assert found.environment.hardware.cpu == "first"
    assert found.throughput is not None
    assert found.throughput.generated_tokens == 3 * 2 * 7
    assert found.toolchains == {"gcc 12": 6}
    assert found.sandbox_tiers == {"bubblewrap": 6}
    assert found.limits["run_wall_s"] == 5
    assert found.config["model"] == "toy"
    # A file of another version is no obstacle: the samples are there.
    (output / "results.json").write_text('{"schema_version": 0}')
    assert benchmark(sampling.session, POLICY, output).measures == result.measures


def test_samples_are_exported_by_problem_and_index(tmp_path: Path, sampling: Sampling) -> None:
    benchmark(sampling.session, POLICY, tmp_path / "out")
    rows = [
        [json.loads(line) for line in (tmp_path / "out" / name).read_text().splitlines()]
        for name in ("samples.jsonl", "samples-raw.jsonl")
    ]
    for lines, field in zip(rows, ("solution", "completion"), strict=True):
        assert [row["task_id"] for row in lines] == ["p0", "p0", "p1", "p1", "p2", "p2"]
        assert all(set(row) == {"task_id", field} for row in lines)
    assert rows[0][0]["solution"].startswith("int main()")
    assert rows[1][0]["completion"].startswith("```cpp\n")


def test_models_of_one_base_are_measured_one_after_the_other(
    tmp_path: Path, sampling: Sampling
) -> None:
    bases = [Base(name, name, Path(name), name) for name in ("one", "two")]
    policies = [
        Policy(name, bases[base], None, name)
        for name, base in (("a/final", 0), ("b", 1), ("c/final", 0))
    ]
    folders = output_folders(policies, tmp_path)
    assert folders == {name: tmp_path / name for name in ("a--final", "b", "c--final")}
    results = benchmark_all(sampling.session, policies, folders)
    assert sampling.policies == ["a/final", "c/final", "b"]
    assert list(results) == list(folders)
    assert [result.model for result in results.values()] == ["a/final", "b", "c/final"]
    assert all((folder / "results.json").is_file() for folder in folders.values())


def test_the_command_measures_several_models_and_compares_them(
    tmp_path: Path, sampling: Sampling, monkeypatch: pytest.MonkeyPatch
) -> None:
    def policy(name: str) -> Policy:
        return Policy(name, POLICY.base, None, name)

    session = SimpleNamespace(**vars(sampling.session), policy=policy)
    monkeypatch.setattr("haloforge.session.Session", lambda _: nullcontext(session))
    names = ("smollm2-135m", "mine/first", "mine/second")
    models = [part for name in names for part in ("--model", name)]
    run = CliRunner().invoke(
        benchmark_group,
        ["run", *models, "--output", str(tmp_path / "out"), "--samples", "2", "--k", "1"],
        catch_exceptions=False,
    )
    assert run.exit_code == 0
    assert sampling.policies == list(names)
    for line in ("first - smollm2-135m", "second - smollm2-135m", "wins", str(tmp_path / "out")):
        assert line in run.stdout
    assert "second - first" not in run.stdout
    read = [read_result(tmp_path / "out" / Path(name).name).model for name in names]
    assert read == list(names)


def test_engines_start_once_a_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    session, calls = Session(load_settings()), list[str]()

    def start(policy: Policy) -> Any:
        calls.append(f"start {policy.base.name}")
        session._pool_base = policy.base
        return SimpleNamespace(
            engines=[],
            stop=lambda: calls.append("stop"),
            set_policy=lambda policy: calls.append(policy.name),
        )

    monkeypatch.setattr(session, "_start_engines", start)
    monkeypatch.setattr(session, "tokenizer", lambda base: SimpleNamespace(eos_token_id=2))
    monkeypatch.setattr("haloforge.session.end_of_turn_ids", lambda tokenizer: [2])
    layers = {"one": 30, "whole": 30, "two": 24}  # `whole` is `one`, trained without an adapter
    for name, count in layers.items():
        (tmp_path / name).mkdir()
        config = {"num_hidden_layers": count, "_name_or_path": name}
        (tmp_path / name / "config.json").write_text(json.dumps(config))
    one, whole, two = (Base(name, name, tmp_path / name, name) for name in layers)
    asked = (("a", one), ("b", one), ("c", one), ("w", whole), ("d", two))
    for name, base in asked:
        session.engines(Policy(name, base, None, name))
    assert calls == ["start one", "a", "b", "c", "w", "stop", "start two", "d"]
    assert "d has another base, so they are started anew" in capsys.readouterr().err


def test_k_above_the_samples_is_refused_with_the_reason() -> None:
    settings = load_settings(None, {"benchmark.samples": 4, "benchmark.k": [1, 5]})
    with pytest.raises(InputError, match="k=5 cannot be estimated from 4 samples a problem"):
        check_benchmark(settings)


@pytest.mark.parametrize(("samples", "k"), [(1, (1,)), (5, (1, 5)), (9, (1, 5)), (20, (1, 5, 10))])
def test_k_is_by_default_as_far_as_the_samples_go(samples: int, k: tuple[int, ...]) -> None:
    assert load_settings(None, {"benchmark.samples": samples}).benchmark.k == k


def test_a_model_that_cannot_be_is_refused_before_anything_starts() -> None:
    with pytest.raises(InputError, match="model '/nowhere': no such folder"):
        check_benchmark(load_settings(), ["smollm2-135m", "/nowhere"])


@pytest.mark.parametrize("form", ["terminal", "markdown", "json"])
def test_the_command_compares_folders(tmp_path: Path, form: str) -> None:
    folders = [
        saved(tmp_path / name, passing(right, 2, name))
        for name, right in (("base", [0, 1, 2, 0]), ("raft", [2, 2, 0, 0]))
    ]
    run = CliRunner().invoke(
        benchmark_group, ["compare", *map(str, folders), "--format", form], catch_exceptions=False
    )
    assert run.exit_code == 0
    if form == "json":
        tree = json.loads(run.stdout)
        assert tree["reference"] == "base"
        found = tree["differences"]["raft"]
        assert found["differences"]["pass@1"]["mean"] == pytest.approx(0.125)
        assert (found["wins"], found["losses"], found["ties"]) == (
            {"p0": [0.0, 1.0], "p1": [0.5, 1.0]},
            {"p2": [1.0, 0.0]},
            1,
        )
    else:
        assert "+12.5 [" in run.stdout
        assert "p0" in run.stdout
    output = tmp_path / "out.txt"
    CliRunner().invoke(
        benchmark_group,
        ["compare", *map(str, folders), "--format", form, "--output", str(output)],
        catch_exceptions=False,
    )
    assert output.read_text() == run.stdout
