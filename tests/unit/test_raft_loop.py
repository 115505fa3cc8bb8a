"""The loop over cycles itself, with stand-ins for sampling, training and scoring."""

import json
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

from haloforge.benchmark.results import Result
from haloforge.config import load_settings
from haloforge.errors import HaloforgeError, InfraError, InputError
from haloforge.model.adapter import AdapterInfo, finish_training
from haloforge.model.policy import Policy, resolve_policy
from haloforge.raft import cycle as loop
from haloforge.raft import held_out
from haloforge.report.progress import Report
from haloforge.schema import Problem
from haloforge.store.layout import STATISTICS
from haloforge.store.shards import committed_ids
from tests.observing import unobserved
from tests.raft_runs import Row, problem, write_cycle
from tests.results import passing

PROBLEMS = ("p0", "p1")
SAMPLES = 4  # of each, every other of which passes
ADAPTERS = [f"cycle_{cycle}_final" for cycle in range(1, 6)]
FIVE_RATES = pytest.approx([5e-5 * 0.85**before for before in range(5)])
TRAINED = {"dropped_rows": 0, "steps": 3, "loss_first": 0.9, "loss_last": 0.4}
TRAINED |= {"trained_tokens": 90, "seconds": 7.5, "restarts": 0}


class Training(NamedTuple):
    """What one training was asked to do; `policy` is the digest of what it began from."""

    cycle: int
    policy: str
    rate: float
    answers: list[str]


class Run:
    """A run of RAFT in `folder`, with what its heavy parts were asked for.

    `scores` are how many of ten held-out samples the start and each cycle pass.
    """

    def __init__(self, folder: Path, scores: Sequence[int]) -> None:
        self.output, self._scores = folder / "run", scores
        self._problems, base = folder / "problems.jsonl", folder / "base"
        rows = [problem(name).model_dump_json(exclude_defaults=True) for name in PROBLEMS]
        self._problems.write_text("\n".join(rows))
        base.mkdir()
        (base / "config.json").write_text("{}")
        self.start = resolve_policy(str(base))
        self.dies_in: int | None = None  # the cycle whose training does
        self.asked: list[tuple[int, str]] = []  # cycles to sample, with the policy's digest
        self.drawn: list[int] = []  # those of them whose samples were not there yet
        self.trained: list[Training] = []
        self.scored: list[tuple[str, str]] = []  # folders, with the policy's digest
        self.records_when_scored: list[int] = []

    def go(self, **raft: Any) -> Policy:
        """Runs it, or goes on with it, to its end."""
        flags = {"prompts": str(self._problems), "samples_per_prompt": SAMPLES, **raft}
        flags |= {"keep_top_percent": 1.0}
        session: Any = SimpleNamespace(
            report=Report(),
            observer=unobserved(),
            first_token_at=lambda policy: None,
            check_memory=lambda policy, *parts: None,
        )
        session.settings = load_settings(None, {f"raft.{key}": flags[key] for key in flags})
        with session.report.open():
            return loop.raft(session, self.start, self.output)

    @property
    def adapters(self) -> list[str]:
        return sorted(path.name for path in self.output.glob("cycle_*_final*"))

    @property
    def records(self) -> list[dict[str, Any]]:
        path = self.output / STATISTICS
        return list(json.loads(path.read_text())) if path.exists() else []

    @property
    def best(self) -> str | None:
        link = self.output / held_out.BEST
        return link.resolve(strict=True).name if link.is_symlink() else None

    def digest_after(self, cycle: int) -> str:
        """Of the policy that the next cycle begins from."""
        return resolve_policy(str(self.output / f"cycle_{cycle}_final")).digest

    def sample_and_judge(
        self, session: Any, policy: Policy, problems: Sequence[Problem], samples: int, *told: Any
    ) -> None:
        """Commits the samples that are not there yet."""
        _, _, cycle, folder, _ = told
        self.asked.append((cycle, policy.digest))
        if committed_ids(folder):
            return
        self.drawn.append(cycle)
        numbered = product((each.problem_id for each in problems), range(samples))
        write_cycle(folder.parent, cycle, [Row(name, n, float(n % 2)) for name, n in numbered])

    def update_policy(
        self, session: Any, policy: Policy, rows: Any, target: Path, settings: Any, **told: Any
    ) -> None:
        """Leaves an adapter's folder without weights."""
        cycle, base = told["cycle"], policy.base
        if cycle == self.dies_in:
            raise InfraError("the workers died")
        answers = [row[-1]["content"] for row in rows]
        self.trained.append(Training(cycle, policy.digest, settings.learning_rate, answers))
        work = target.with_name(f"{target.name}.training")
        work.mkdir()
        (work / "adapter_config.json").write_text(json.dumps({"r": cycle}))
        fields = {"base": base.name, "base_public_id": base.public_id, "base_digest": base.digest}
        training = {"rows": len(rows), **TRAINED, **told["facts"]}
        info = AdapterInfo(
            **fields, stage="raft", parent=policy.digest, chat_template="", training=training
        )
        finish_training(work, target, base, info, "A card.\n")

    def benchmark(
        self, session: Any, policy: Policy, output: Path, settings: Any, on_card: bool
    ) -> Result:
        """What the scores say of the cycle whose folder this is in."""
        name = str(output.relative_to(self.output))
        self.scored.append((name, policy.digest))
        self.records_when_scored.append(len(self.records))
        cycle = 0 if name == "start_eval" else int(name.split("/")[0].removeprefix("cycle_"))
        return passing([self._scores[cycle]], 10)


@pytest.fixture
def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    """Makes a run with these scores. Selection is a task of Ray's else; here it is a call."""
    task = SimpleNamespace(
        get_runtime_context=lambda: SimpleNamespace(get_node_id=lambda: "0" * 56),
        remote=lambda **options: lambda function: SimpleNamespace(remote=function),
    )
    monkeypatch.setenv("HALOFORGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(loop, "ray", task)
    monkeypatch.setattr(loop, "call", lambda results, failed: results)

    def begin(*scores: int) -> Run:
        run = Run(tmp_path, scores)
        monkeypatch.setattr(loop, "sample_and_judge", run.sample_and_judge)
        monkeypatch.setattr(loop, "update_policy", run.update_policy)
        monkeypatch.setattr(held_out, "benchmark", run.benchmark)
        return run

    return begin


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().err.split())


def test_each_cycle_goes_on_from_the_one_before(begun: Callable[..., Run]) -> None:
    run = begun(4, 3, 6, 5, 9, 7)
    last = run.go(cycles=5, eval_prompts="x.jsonl")
    assert run.adapters == ADAPTERS
    digests = [run.start.digest, *map(run.digest_after, range(1, 6))]
    assert len(set(digests)) == 6 and last.digest == digests[5]
    assert run.asked == list(enumerate(digests[:5], 1))
    assert [(each.cycle, each.policy) for each in run.trained] == run.asked
    assert [each.rate for each in run.trained] == FIVE_RATES
    folders = ["start_eval", *(f"cycle_{cycle}/eval" for cycle in range(1, 6))]
    assert run.scored == list(zip(folders, digests, strict=True))
    for each in run.trained:  # on its own samples that passed, of both problems
        passed = [f"```cpp\nint main() {{ return {n} + {each.cycle}00; }}\n```" for n in (1, 3)]
        assert sorted(each.answers) == sorted(passed * len(PROBLEMS))


def test_each_cycle_has_its_record_and_best_leads_to_the_best(begun: Callable[..., Run]) -> None:
    run = begun(4, 3, 6, 5, 9, 7)
    run.go(cycles=5, eval_prompts="x.jsonl")
    assert [record["cycle"] for record in run.records] == [1, 2, 3, 4, 5]
    assert [record["learning_rate"] for record in run.records] == FIVE_RATES
    means = [record["held_out"]["measures"]["pass@1"]["mean"] for record in run.records]
    assert means == pytest.approx([0.3, 0.6, 0.5, 0.9, 0.7])
    stages = {"sample_and_verify", "select", "train", "evaluate"}
    assert all(record["seconds"].keys() == stages for record in run.records)
    assert run.records_when_scored == [0, 0, 1, 2, 3, 4], "written when a cycle ends"
    assert run.best == "cycle_4_final"


def test_the_rate_falls_no_lower_than_its_floor(begun: Callable[..., Run]) -> None:
    run = begun()
    run.go(cycles=4, learning_rate_decay=0.1, min_learning_rate=2e-6)
    assert [each.rate for each in run.trained] == pytest.approx([5e-5, 5e-6, 2e-6, 2e-6])


def test_a_run_that_stopped_in_a_training_goes_on_there(begun: Callable[..., Run]) -> None:
    run = begun(4, 6, 5, 3, 9, 7)
    given = {"cycles": 5, "eval_prompts": "x.jsonl"}
    run.dies_in = 3
    with pytest.raises(InfraError, match="the workers died"):
        run.go(**given)
    assert (run.adapters, run.best, len(run.records)) == (ADAPTERS[:2], "cycle_1_final", 2)
    run.dies_in, run.asked = None, []
    run.go(**given)
    assert [cycle for cycle, _ in run.asked] == [3, 4, 5]
    assert run.asked[0] == (3, run.digest_after(2))
    assert run.drawn == [1, 2, 3, 4, 5], "the samples of cycle 3 were there"
    assert [each.cycle for each in run.trained] == [1, 2, 3, 4, 5]
    assert [each.rate for each in run.trained] == FIVE_RATES
    assert (run.adapters, run.best) == (ADAPTERS, "cycle_4_final")
    assert [record["cycle"] for record in run.records] == [1, 2, 3, 4, 5]


def test_the_newest_adapter_is_trained_anew_where_a_disk_has_spoilt_it(
    begun: Callable[..., Run], capsys: pytest.CaptureFixture[str]
) -> None:
    """An older one stays an error, as what was drawn by it cannot be drawn again."""
    run = begun(4, 5, 6, 7)
    run.go(cycles=2, eval_prompts="x.jsonl")
    first, second = (run.output / name / "haloforge.json" for name in ADAPTERS[:2])
    whole = first.read_text()
    first.write_text(whole[:40])
    with pytest.raises(InputError, match=r"cycle_1_final/haloforge.json"):
        run.go(cycles=2, eval_prompts="x.jsonl")
    first.write_text(whole)
    second.write_text(second.read_text()[:40])
    (run.output / "cycle_2" / "eval").mkdir()  # of the policy that is gone
    run.go(cycles=2, eval_prompts="x.jsonl")
    assert "it is set aside as" in said(capsys)
    assert (run.output / "cycle_2_final.old-1").is_dir()
    assert (run.output / "cycle_2" / "eval.old-1").is_dir()
    assert [each.cycle for each in run.trained] == [1, 2, 2]
    assert run.drawn == [1, 2]


def test_a_run_that_ended_stays_as_it_is(begun: Callable[..., Run]) -> None:
    run = begun(4, 6, 5, 9)
    run.go(cycles=3, eval_prompts="x.jsonl")
    run.records_when_scored.clear()
    assert run.go(cycles=3, eval_prompts="x.jsonl").digest == run.digest_after(3)
    assert run.records_when_scored == [3, 3, 3, 3], "they went back in between"
    assert [record["cycle"] for record in run.records] == [1, 2, 3]
    assert (len(run.asked), len(run.trained)) == (3, 3)


def test_it_stops_when_cycles_bring_no_better_score(
    begun: Callable[..., Run], capsys: pytest.CaptureFixture[str]
) -> None:
    run = begun(4, 6, 5, 6, 9)
    last = run.go(cycles=9, eval_prompts="x.jsonl", patience=2)
    assert last.digest == run.digest_after(3)
    assert (run.adapters, run.best, run.drawn) == (ADAPTERS[:3], "cycle_1_final", [1, 2, 3])
    assert [record["cycle"] for record in run.records] == [1, 2, 3]
    assert "raft: stops after cycle 3: 2 cycles brought no better score" in said(capsys)


def test_without_held_out_problems_it_says_that_it_is_not_scored(
    begun: Callable[..., Run], capsys: pytest.CaptureFixture[str]
) -> None:
    run = begun()
    run.go(cycles=2)
    assert "raft: cycles are not scored on problems that are not trained on" in said(capsys)
    assert (run.scored, run.best, run.adapters) == ([], None, ADAPTERS[:2])
    assert [record["held_out"] for record in run.records] == [None, None]


def test_too_few_samples_to_learn_from_stop_it_and_are_kept(begun: Callable[..., Run]) -> None:
    run = begun()
    with pytest.raises(HaloforgeError) as caught:
        run.go(cycles=2, min_samples=5)
    told = "raft cycle 1: 4 samples are good enough to learn from, raft.min_samples=5"
    assert str(caught.value).startswith(told) and "\n" not in str(caught.value)
    assert (run.trained, run.adapters, run.records) == ([], [], [])
    assert len(committed_ids(run.output / "cycle_1")) == len(PROBLEMS) * SAMPLES
    run.go(cycles=2, min_samples=4)
    assert (run.drawn, run.adapters) == ([1, 2], ADAPTERS[:2])


def test_the_report_knows_cycles_and_phases(
    begun: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    original = Run.update_policy

    def update_policy(run: Run, session: Any, *given: Any, **told: Any) -> None:
        tree = session.report._tree
        cycles = [(node.name, node.told()) for node in tree.root.children if node.ended is not None]
        phases = [(node.name, node.told()) for node in tree.current.parent.children]
        to_come = [node.name for node in tree.root.children if node.began is None]
        seen.append((cycles, phases, to_come, tree.current.name))
        original(run, session, *given, **told)

    monkeypatch.setattr(Run, "update_policy", update_policy)
    begun(4, 3, 6).go(cycles=2, eval_prompts="x.jsonl")
    phases = [("sample and verify", ""), ("select", "4 kept"), ("train", ""), ("evaluate", "")]
    assert seen == [
        ([], phases, ["cycle 2"], "train"),
        ([("cycle 1", "4 kept")], phases, [], "train"),
    ]
