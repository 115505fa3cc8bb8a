"""What says that a killed RAFT run trained on the right set: it agrees with selection, and sees a
row that is missing, foreign or there twice; and one run that fails does not end those after it."""

import random
import subprocess
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from haloforge.config import load_settings
from haloforge.data.problems import read_problems
from haloforge.raft.select import select
from haloforge.schema import digest, sample_id
from haloforge.store.shards import ShardWriter, read_judged
from tests import chaos as module
from tests.chaos import CYCLES, PROBLEMS, SAMPLES, Chaos, Ledger
from tests.raft_runs import Row, stored

# Few, so that many are the same but for a comment; two have no code.
CODES = [f"x = {n}{note}" for n in range(12) for note in ("", "  # so", "\n# and so")] + ["", " "]


@pytest.fixture
def ended(tmp_path: Path) -> Chaos:
    """A run as one that has ended, with the samples drawn at random and selection's own choice."""
    chaos = Chaos(tmp_path / "chaos", tmp_path / "model", "transformers")
    settings = load_settings(chaos.config, {})
    chaos.run.mkdir()
    (chaos.run / "run.json").write_text('{"made": "up"}\n')
    problems = list(read_problems(settings.raft.prompts))
    draw = random.Random(1)
    for cycle in range(1, CYCLES + 1):
        with ShardWriter(chaos.run / f"cycle_{cycle}") as shards:
            for number in draw.sample(range(PROBLEMS * SAMPLES), PROBLEMS * SAMPLES):
                shards.add(*judged(f"p{number // SAMPLES}", number % SAMPLES, cycle, draw))
                if draw.random() < 0.02:
                    shards.commit()
        select(chaos.run, cycle, problems, settings.raft, settings.verify, settings.seed)
        adapter = chaos.run / f"cycle_{cycle}_final"
        adapter.mkdir()
        (adapter / "adapter_model.safetensors").touch()
        (adapter / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}\n')
    (chaos.run / "raft_statistics.json").write_text('[{"cycle": 1}, {"cycle": 2}]')
    return chaos


def judged(
    name: str, index: int, cycle: int, draw: random.Random
) -> tuple[dict[str, Any], dict[str, Any]]:
    """An answer and its verdict, as the verifier of those runs has it."""
    code = draw.choice(CODES)
    right = zlib.crc32(f"{code}\n".encode()) % 2
    found = ("passed", 1.0) if right else ("wrong_answer", 0.5)
    if not code.strip():
        found = "no_code", 0.0
    elif draw.random() < 0.05:
        found = "infra_error", 0.0
    finish = "length" if draw.random() < 0.2 else "stop"
    row = Row(name, index, found[1], code, finish, found[0])
    sample, verdict = stored(row, cycle)
    identity = {"sample_id": sample_id(digest('{"made": "up"}'), cycle, name, index)}
    text = f"```python\n{code}\n```\n"
    return {**sample, **identity, "completion": text}, {**verdict, **identity}


def check(chaos: Chaos, folder: Path) -> None:
    with Ledger(chaos.run, folder / "ledger.jsonl") as ledger:
        pass
    chaos.check(ledger)


def doubled(rows: list[dict[str, Any]], _: dict[str, Any]) -> list[dict[str, Any]]:
    return [*rows, {**rows[3], "rank": len(rows)}]


def foreign(rows: list[dict[str, Any]], other: dict[str, Any]) -> list[dict[str, Any]]:
    return [*rows, {**rows[3], **other, "rank": len(rows)}]


def test_what_selection_chose_is_right(ended: Chaos, tmp_path: Path) -> None:
    check(ended, tmp_path)
    passed = [row for row in read_judged(ended.run / "cycle_1") if row.verdict["reward"] == 1]
    trained = pq.read_metadata(ended.run / "cycle_1" / "trained.parquet").num_rows
    whole = sum(row.sample["finish_reason"] == "stop" for row in passed)
    assert 20 < trained < whole < len(passed), "each rule drops some"


@pytest.mark.parametrize(
    ("change", "dropped", "told"),
    [
        (lambda rows, _: rows[:-1], "wrong", "is not trained on"),
        (lambda rows, _: rows[1:], "wrong", "is not trained on"),
        (doubled, "wrong", "is trained on 2 times"),
        (foreign, "cut off", "must not be trained on"),
        (foreign, "wrong", "must not be trained on"),
        (foreign, "the same", "must not be trained on"),
        (lambda rows, other: foreign(rows[:-1], other), "wrong", "must not be trained on"),
        (lambda rows, _: foreign(rows, {"sample_id": "?"}), "wrong", "must not be trained on"),
        (lambda rows, _: [rows[1], rows[0], *rows[2:]], "wrong", "in another order"),
        (lambda rows, _: [{**rows[0], "index": 77}, *rows[1:]], "wrong", "as it is stored"),
    ],
)
def test_another_set_is_seen(
    change: Callable[..., list[dict[str, Any]]],
    dropped: str,
    told: str,
    ended: Chaos,
    tmp_path: Path,
) -> None:
    path = ended.run / "cycle_2" / "trained.parquet"
    table = pq.read_table(path)
    names = set(table["sample_id"].to_pylist())
    kinds = {}
    for row in read_judged(ended.run / "cycle_2"):
        good = row.verdict["reward"] == 1, row.sample["finish_reason"] == "stop"
        kind = {(True, False): "cut off", (False, True): "wrong", (True, True): "the same"}
        if row.sample["sample_id"] not in names:
            kinds[kind.get(good)] = {"sample_id": row.sample["sample_id"]}
    rows = change(table.to_pylist(), kinds[dropped])
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)
    with pytest.raises(AssertionError, match=told):
        check(ended, tmp_path)


def test_a_verdict_that_is_another_samples_is_seen(ended: Chaos, tmp_path: Path) -> None:
    path = max((ended.run / "cycle_1" / "verdicts").iterdir(), key=lambda one: one.stat().st_size)
    table = pq.read_table(path)
    order = [*range(1, table.num_rows), 0]
    pq.write_table(table.take(pa.array(order)), path)
    with pytest.raises(AssertionError, match="was judged"):
        check(ended, tmp_path)


def test_a_run_that_fails_does_not_end_the_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ends = iter(
        (
            *(subprocess.TimeoutExpired("halo-forge", 900), psutil.NoSuchProcess(7), None),
            *(AssertionError("a sample is gone"), FileNotFoundError("trained.parquet"), None),
        )
    )
    added: list[int] = []
    cluster = SimpleNamespace(
        address="", worker_nodes=[], add_node=lambda num_cpus: added.append(1)
    )

    @contextmanager
    def nodes() -> Iterator[SimpleNamespace]:
        yield cluster

    def finish(self: Chaos, address: str) -> int:
        end = next(ends)
        if end:
            raise end
        return 0

    kills = iter([module.Kill("node", 1, "sampling", 1, 1)])  # nothing to kill: not counted
    usual = module.Kill("node", 1, "sampling", 3, 400, ("engine", "verifier"))
    monkeypatch.setattr(module, "two_nodes", nodes)
    monkeypatch.setattr(module, "make_tiny_model", lambda folder: folder)
    monkeypatch.setattr(Chaos, "start", lambda chaos, address: chaos.log_file.touch())
    monkeypatch.setattr(Chaos, "kill", lambda *_: usual if len(added) < 2 else next(kills, usual))
    monkeypatch.setattr(Chaos, "finish", finish)
    monkeypatch.setattr(Chaos, "check", lambda *_: None)
    with pytest.raises(SystemExit) as ended:
        module.main(5)
    assert ended.value.code == 1
    printed = capsys.readouterr().out
    for reason in (
        "TimeoutExpired: Command 'halo-forge' timed out after 900 seconds",
        *("NoSuchProcess: ", "AssertionError: a sample is gone", "FileNotFoundError: trained"),
    ):
        assert f"FAILED: {reason}" in printed
    assert "nothing was at work, another is drawn" in printed
    assert "at 3 of 400 sampling with engine and verifier on it" in printed
    assert printed.endswith("1 of 5 ended with the right set\n")
    assert len(added) == 4, "each that failed had lost its node"


def test_what_a_node_holds_is_told_by_its_raylets_family(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["raylet --x", "ray::IDLE", "ray::DashboardAgent", "ray::_StatsActor"]
    monkeypatch.setattr(module, "_command_lines", lambda pid: [(pid, line) for line in lines])
    node = SimpleNamespace(all_processes={"raylet": [SimpleNamespace(process=psutil.Process())]})
    assert module.parts_on(node) == ()
    lines += ["ray::MapWorker(MapBatches(VerifierActor))", "ray::EngineActor.step"]
    assert module.parts_on(node) == ("engine", "verifier")
