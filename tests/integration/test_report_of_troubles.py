"""The report of a run in which an engine dies, a compiler is missing and the policy collapses."""

import html
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from haloforge.config import load_settings
from haloforge.data.chat import CHATML_TEMPLATE
from haloforge.model.adapter import AdapterInfo, finish_training
from haloforge.model.policy import Policy, resolve_policy
from haloforge.observe.observer import Observer
from haloforge.placement import Fleet
from haloforge.raft import cycle as loop
from haloforge.report.page import write_page
from haloforge.report.progress import Report
from haloforge.store.layout import REPORT
from haloforge.store.shards import read_judged
from haloforge.train.metrics import StepMetrics
from tests.sleeping_engine import pool_of
from tests.tiny import make_tiny_model
from tests.troubled import TroubledEngine

PROBLEMS = [
    {
        "problem_id": f"p{number}",
        "prompt": f"Print the sum of two numbers, please, in way {number}.",
        "tests": [{"stdin": "1 2\n", "stdout": "3\n"}],
        "judge": "stdio",
    }
    for number in range(6)
]


def fake_training(
    session: Any, policy: Policy, rows: Any, target: Path, settings: Any, **told: Any
) -> Policy:
    """Leaves an adapter's folder without weights, and the metrics of two steps."""
    cycle, base = told["cycle"], policy.base
    work = target.with_name(f"{target.name}.training")
    work.mkdir()
    (work / "adapter_config.json").write_text(json.dumps({"r": cycle}))
    steps = [StepMetrics(n, 2, 0.9 / n, 5e-5, 1.0, 90, 1.0, 90.0, 500.0) for n in (1, 2)]
    (work / "metrics.jsonl").write_text("".join(json.dumps(asdict(s)) + "\n" for s in steps))
    for step in steps:
        session.observer.trained(step, 1)
    training = {"rows": len(rows), "dropped_rows": 0, "steps": 2, "loss_first": 0.9}
    training |= {"loss_last": 0.45, "trained_tokens": 180, "seconds": 2.0, "restarts": 0}
    info = AdapterInfo(
        base=base.name,
        base_public_id=base.public_id,
        base_digest=base.digest,
        stage="raft",
        cycle=cycle,
        parent=policy.digest,
        chat_template=CHATML_TEMPLATE,
        training={**training, **told["facts"]},
    )
    finish_training(work, target, base, info, "A card.\n")
    return resolve_policy(str(target))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a run of two cycles, sampled and judged for real but for the engine."""
    folder = tmp_path_factory.mktemp("troubled")
    problems = folder / "problems.jsonl"
    problems.write_text("".join(json.dumps(problem) + "\n" for problem in PROBLEMS))
    start = resolve_policy(str(make_tiny_model(folder / "base")))
    here = str(Path(__file__).parents[2])  # which workers have on their path after the hook only
    hook = {
        "worker_process_setup_hook": "tests.troubled.without_go",
        "env_vars": {"PYTHONPATH": here},
    }
    ray.init(
        address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env=hook
    )
    engine = ray.remote(TroubledEngine).options(num_cpus=0, max_concurrency=100, max_restarts=1)
    pool = pool_of([engine.remote(start.digest)])
    flags = {"raft.prompts": str(problems), "raft.samples_per_prompt": 8, "raft.cycles": 2}
    settings = load_settings(None, {**flags, "observe.every_s": 1, "verify.cache": False})
    report = Report()
    observer = Observer(settings.observe, report)
    from transformers import AutoTokenizer

    session: Any = SimpleNamespace(
        settings=settings,
        report=report,
        observer=observer,
        fleet=Fleet(1, 2, 0.5),
        first_token_at=lambda policy: None,
        check_memory=lambda policy, *parts: None,
        tokenizer=lambda base: AutoTokenizer.from_pretrained(base.path),
    )

    def engines(policy: Policy) -> Any:
        pool.policy = policy
        observer.engines(pool)
        return pool

    session.engines = engines
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "update_policy", fake_training)
        loop.raft(session, start, folder / "run")
    observer.close()
    ray.shutdown()
    yield folder / "run"


def test_its_page_shows_each_of_them(run: Path) -> None:
    page = html.unescape((run / REPORT).read_text())
    warned = "\n".join(f"{each.kind}: {each.text}" for each in write_page(run).warnings)
    assert html.unescape((run / REPORT).read_text()) == page, "its last state, as the run wrote it"
    for told in (
        "collapse: sign of a collapse in cycle 2: the answers to a problem grow alike",
        "collapse: sign of a collapse in cycle 2: 100% of the answers can pass no test",
        "restart: engines died and were started anew 1 time",
        "missing: a compiler or another tool is missing where samples are judged: go needs go",
    ):
        assert told in warned
        assert told.partition(": ")[2] in page


def test_its_log_and_its_activity_tell_of_them(run: Path) -> None:
    lines = [json.loads(line) for line in (run / "logs" / "raft.jsonl").read_text().splitlines()]
    judged = {row.sample["sample_id"]: row.verdict for row in read_judged(run / "cycle_1")}
    lost = [line for line in lines if "sample_id" in line]
    assert lost and all(line["level"] == "warning" and line["cycle"] == 1 for line in lost)
    assert {judged[line["sample_id"]]["outcome"] for line in lost} == {"infra_error"}
    assert "go needs go: apt-get install" in lost[0]["message"]
    assert any("1 engines died" in line["message"] for line in lines)

    activity = (run / "logs" / "activity.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in activity]
    assert sum(row["restarts"].get("engine", 0) for row in rows) == 1
    counted: Counter[str] = sum((Counter(row["outcomes"]) for row in rows), Counter())
    outcomes = [row.verdict["outcome"] for n in (1, 2) for row in read_judged(run / f"cycle_{n}")]
    assert counted == Counter(outcomes)
    assert {row["phase"] for row in rows} >= {"sample_and_verify", "select", "train"}
    assert json.loads((run / "logs" / "state.json").read_text())["state"] == "finished"
