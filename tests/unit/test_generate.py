"""`data generate` as a whole, but for the verifier, which a stand-in takes the place of: killed and
gone on with, what is kept, and the command."""

import hashlib
import json
import os
import random
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from haloforge.cli.data import data_group
from haloforge.config import load_settings
from haloforge.data.generate import generate as command
from haloforge.data.generate.answers import Answer, Answers
from haloforge.data.generate.generate import Plan, generate, open_answers, plan
from haloforge.data.generate.keeping import WRITING, Kept, keep
from haloforge.data.generate.probes import Judge, Told
from haloforge.data.generate.slots import messages
from haloforge.data.problems import read_problems
from haloforge.data.sft import read_sft
from haloforge.data.sidecar import read_sidecar
from haloforge.data.validate.rows import Kind, check_row
from haloforge.errors import InputError
from haloforge.report.progress import Report
from haloforge.store.lock import release
from tests.scripted_llm import Act, ScriptedLLM, exercise
from tests.unit.test_generate_topics import OWN

Faults = Callable[[dict[str, Any]], tuple[Kind, str] | None]


@contextmanager
def stand_in(faults: Faults = lambda row: None) -> Iterator[Judge]:
    """Judges by the candidate's row alone; a probe passes no test."""

    def judge(files: Sequence[str], counts: Any, told: Told) -> int:
        rows = [json.loads(line) for line in Path(files[0]).read_text().splitlines()]
        assert len(rows) == len(counts) == counts.sum()
        for number, row in enumerate(rows):
            fault = faults(row)
            if fault is None and "/probe" in row["problem_id"]:
                fault = Kind.REFERENCE, "wrong_answer"
            if fault is not None:
                told(fault[0], number, fault[1])
        return len(rows)

    yield judge


def planned(folder: Path, url: str, count: int, **options: Any) -> Plan:
    topic = folder.parent / "sums.yaml"
    topic.write_text(yaml.safe_dump(OWN))
    settings = load_settings(None, {"generate.in_flight": 8, "generate.retries": 8})
    return plan(str(topic), url, folder / "out.jsonl", settings, "m", count, **options)


def run(made: Plan) -> Kept:
    with open_answers(made) as answers:
        asked, kept = generate(made, answers, Report(), stand_in)
    release(made.folder)
    assert not asked.given_up
    return kept


def unsteady(words: str, time: int) -> Act:
    """Some fail at first, some are never any good."""
    kind = hashlib.sha256(words.encode()).digest()[0] % 8
    first: dict[int, Act] = {0: "500", 1: "dropped", 2: "half_body"}
    ever: dict[int, Act] = {3: "half_json", 4: "nothing"}
    return first[kind] if time == 0 and kind in first else ever.get(kind, "ok")


def test_killed_ten_times_it_ends_as_undisturbed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("haloforge.data.generate.asking._FIRST_WAIT_S", 0.01)
    count = 240
    with ScriptedLLM(unsteady).serving() as llm:
        whole = planned(tmp_path / "whole", llm.url, count)
        undisturbed = run(whole)
    assert 0 < undisturbed.rows < undisturbed.read == count
    draw = random.Random(7)
    with ScriptedLLM(unsteady, seconds=0.06).serving() as llm:
        made = planned(tmp_path / "killed", llm.url, count)
        words = {
            slot.request: "\n".join(turn["content"] for turn in messages(made.topic, slot))
            for slot in made.wanted.slots()
        }
        sent_then: dict[str, int] = {}
        counts = []
        for _ in range(10):
            child = os.fork()
            if not child:
                try:
                    run(made)
                finally:
                    os._exit(0)
            enough = sum(llm.answered.values()) + draw.randint(0, 20)
            while sum(llm.answered.values()) < enough:
                time.sleep(0.01)
            time.sleep(draw.uniform(0, 0.1))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            if not made.folder.exists():
                continue
            with Answers(made.folder) as answers:
                counts.append(len(answers))
                for request in words:
                    if request in answers:
                        sent_then.setdefault(words[request], llm.sent[words[request]])
        assert counts == sorted(counts) and 0 < counts[-1] < count
        killed = run(made)
        assert {each: llm.sent[each] for each in sent_then} == sent_then
        before = sum(llm.sent.values())
        again = run(made)  # nothing is left to ask
        assert sum(llm.sent.values()) == before
    assert killed == again == undisturbed
    assert (tmp_path / "killed" / "out.jsonl").read_bytes() == whole.output.read_bytes()


def test_more_can_be_asked_for_later(tmp_path: Path) -> None:
    with ScriptedLLM().serving() as llm:
        assert run(planned(tmp_path / "a", llm.url, 5)).rows == 5
        assert run(planned(tmp_path / "a", llm.url, 9)).rows == 9
        assert set(llm.sent.values()) == {1}
        assert run(planned(tmp_path / "a", llm.url, 3)).rows == 3


def test_a_run_of_other_choices_is_refused(tmp_path: Path) -> None:
    with ScriptedLLM().serving() as llm:
        made = planned(tmp_path / "a", llm.url, 2)
        run(made)
        other = made.backend.model_copy(update={"model": "n"})
        changed = Plan(made.topic, other, made.settings, made.output, 2, "sft")
        with pytest.raises(InputError, match="model: was m, is now n"):
            open_answers(changed)
        release(made.folder)


def test_rows_are_what_the_stages_after_read(tmp_path: Path) -> None:
    with ScriptedLLM().serving() as llm:
        run(planned(tmp_path / "a", llm.url, 4))
        run(planned(tmp_path / "b", llm.url, 4, purpose="problems"))
    rows = tmp_path / "a" / "out.jsonl"
    turns = list(read_sft(str(rows)))
    assert len(turns) == 4 and turns[0][-1]["content"].startswith("```python\n# ")
    of_sft, problems = read_problems(str(rows)), read_problems(str(tmp_path / "b" / "out.jsonl"))
    assert [p.problem_id for p in of_sft] == [p.problem_id for p in problems]
    assert all(len(p.tests) == 5 and p.language == "python" for p in [*of_sft, *problems])
    assert all(p.reference and p.difficulty in OWN["levels"] for p in problems)
    for file in ("a", "b"):
        for line in (tmp_path / file / "out.jsonl").read_text().splitlines():
            assert not check_row(line, "row, line 1", None).faults
    beside = read_sidecar(rows)
    assert beside is not None and (beside.rows, beside.read, beside.licence) == (4, 4, None)
    assert beside.filters["topic"] == "sums" and beside.origin == "sums, written by m"


def committed(made: Plan, texts: Sequence[str]) -> Answers:
    answers = open_answers(made)
    for slot, text in zip(made.wanted.slots(), texts, strict=True):
        answers.commit(Answer(slot.request, text, "stop", 1, 2))
    return answers


def test_what_is_not_kept_stands_beside_with_its_reason(tmp_path: Path) -> None:
    texts = [exercise(f"words {n}") for n in range(6)]
    texts[1] = '{"problem": "Add'
    texts[3] = texts[0].replace("Read two", "Take two")  # but for a word the first, which fails
    texts[5] = texts[4].replace("Read two", "Take two")
    made = planned(tmp_path / "a", "http://localhost:1/v1", 6)
    ids = [slot.request for slot in made.wanted.slots()]

    def faults(row: dict[str, Any]) -> tuple[Kind, str] | None:
        if row["problem_id"] == ids[0]:
            return Kind.REFERENCE, "wrong_answer"
        return (Kind.UNJUDGED, "no compiler") if row["problem_id"] == ids[2] else None

    with committed(made, texts) as answers:
        kept = keep(made.wanted, answers, made.output, lambda: stand_in(faults))
    release(made.folder)
    assert (kept.read, kept.rows) == (6, 2)
    assert kept.left_out == {"json": 1, "reference": 1, "unjudged": 1, "near_duplicate": 1}
    rows = [json.loads(line) for line in made.output.read_text().splitlines()]
    assert [row["problem_id"] for row in rows] == [ids[3], ids[4]]
    rejected = made.output.with_name("out.rejected.jsonl")
    bad = [json.loads(line) for line in rejected.read_text().splitlines()]
    assert [(row["request"], row["reasons"][0]["fault"]) for row in bad] == [
        (ids[0], "reference"),
        (ids[1], "json"),
        (ids[2], "unjudged"),
        (ids[5], "near_duplicate"),
    ]
    assert [row["answer"] for row in bad] == [texts[0], texts[1], texts[2], texts[5]]
    assert bad[3]["reasons"][0]["why"] == f"very like problem {ids[4]}"
    beside = read_sidecar(rejected)
    assert beside is not None and (beside.rows, beside.left_out) == (4, {"kept": 2})
    assert sorted(path.name for path in made.folder.iterdir() if path.name[0] != ".") == [
        "answers.jsonl",
        "run.json",
    ]


def test_tests_that_a_probe_passes_are_worthless(tmp_path: Path) -> None:
    made = planned(tmp_path / "a", "http://localhost:1/v1", 4)
    ids = [slot.request for slot in made.wanted.slots()]

    @contextmanager
    def judging() -> Iterator[Judge]:
        def judge(files: Sequence[str], counts: Any, told: Told) -> int:
            for number, line in enumerate(Path(files[0]).read_text().splitlines()):
                of, _, probe = json.loads(line)["problem_id"].partition("/")
                if of == ids[0] or (probe and of == ids[3]):
                    told(Kind.REFERENCE, number, "wrong_answer")
                elif probe and of == ids[2]:
                    told(Kind.UNJUDGED, number, "infra_error (no box)")
            return len(counts)

        yield judge

    with committed(made, [exercise(f"words {n}") for n in range(4)]) as answers:
        kept = keep(made.wanted, answers, made.output, judging)
    release(made.folder)
    assert kept.left_out == {"reference": 1, "trivial": 1, "unjudged": 1} and kept.rows == 1
    [row] = [json.loads(line) for line in made.output.read_text().splitlines()]
    assert row["problem_id"] == ids[3]
    rejected = made.output.with_name("out.rejected.jsonl").read_text().splitlines()
    reasons = [json.loads(line)["reasons"][0] for line in rejected]
    assert reasons[1] == {
        "fault": "trivial",
        "why": "its tests are passed by a program that prints what the first one expects",
    }
    assert reasons[2]["why"] == "infra_error (no box)"


def test_nothing_is_judged_where_nothing_can_be(tmp_path: Path) -> None:
    made = planned(tmp_path / "a", "http://localhost:1/v1", 2)

    def never() -> Any:
        raise AssertionError("nothing is to be judged")

    with committed(made, ["", "no"]) as answers:
        kept = keep(made.wanted, answers, made.output, never)
    release(made.folder)
    assert (kept.rows, kept.left_out) == (0, {"empty": 1, "incomplete": 1})
    assert made.output.read_text() == ""


def test_only_what_it_wrote_is_replaced(tmp_path: Path) -> None:
    url = "http://localhost:1/v1"
    made = planned(tmp_path / "a", url, 1)
    made.output.parent.mkdir()
    made.output.write_text("mine\n")
    with pytest.raises(InputError, match="was not written by this command as it stands"):
        planned(tmp_path / "a", url, 1)
    made.output.unlink()
    with committed(made, [exercise("a")]) as answers:
        keep(made.wanted, answers, made.output, stand_in)
    release(made.folder)
    planned(tmp_path / "a", url, 1)
    made.output.write_text(made.output.read_text() + "mine\n")
    with pytest.raises(InputError, match="was not written by this command as it stands"):
        planned(tmp_path / "a", url, 1)
    (made.folder / WRITING).touch()  # killed between a file and what stands beside it
    planned(tmp_path / "a", url, 1)


def invoked(*words: str) -> str:
    done = CliRunner().invoke(data_group, ["generate", *words], catch_exceptions=True)
    return f"{done.output}{done.exception or ''}"


def test_the_command_lists_and_says_what_it_costs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DEEPSEEK_API_KEY", raising=False)
    listed = invoked("--list")
    for name in ("topic: rust_async", "backend: deepseek", "key: DEEPSEEK_API_KEY", "model: gpt-"):
        assert name in listed
    output = tmp_path / "a" / "out.jsonl"
    words = ("--topic", "rust_async", "--backend", "deepseek", "--output", str(output))
    told = invoked(*words, "--dry-run", "--count", "1000")
    assert told.startswith("1000 requests to deepseek-") and "2,000,000 to write: about 0." in told
    assert not output.parent.exists()
    assert "set DEEPSEEK_API_KEY in the environment" in invoked(*words)
    assert not output.parent.exists()
    assert "give --topic, --backend and --output" in invoked("--topic", "rust_async")
    assert "no topic 'rust'" in invoked("--topic", "rust", *words[2:])
    assert "generate.in_flight" in invoked(*words, "--in-flight", "0")


def test_a_dry_run_counts_what_is_answered(tmp_path: Path) -> None:
    with ScriptedLLM().serving() as llm:
        made = planned(tmp_path / "a", llm.url, 4)
        run(made)
        cost = command.dry_run(planned(tmp_path / "a", llm.url, 10), fresh=False)
        release(made.folder)
        assert (cost.requests, cost.input_tokens, cost.output_tokens) == (6, 60, 120)
        assert command.dry_run(planned(tmp_path / "a", llm.url, 10), fresh=True).requests == 10
        assert sum(llm.sent.values()) == 4
