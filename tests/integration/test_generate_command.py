"""`halo-forge data generate` as a user runs it: the LLM is a script, Ray and the verifier are real.

Runs are killed, with every process of their Ray, and run again. What the LLM was asked for is
counted by the LLM; what was committed at each kill is read from the disk.
"""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from dataclasses import field as of
from pathlib import Path

import psutil
import pytest
import yaml

from haloforge.config import load_settings
from haloforge.data.generate.generate import generate, open_answers, plan
from haloforge.data.generate.keeping import PROBES
from haloforge.data.generate.slots import messages, slots
from haloforge.data.generate.topic import find_topic
from haloforge.data.problems import read_problems
from haloforge.preflight import check_raft
from haloforge.report.progress import Report
from haloforge.store.lock import release
from tests.integration.test_generate_judged import in_this_process
from tests.processes import family, living, names, wait_until
from tests.scripted_llm import ScriptedLLM, exercise
from tests.unit.test_generate import unsteady
from tests.unit.test_generate_topics import OWN

Written = tuple[bytes, list[tuple[str, str]]]
"""The rows, and of the others the request and the reason."""
RIGHT = "print(sum(map(int, input().split())))"


def unlike(words: str) -> str:
    """Every exercise at level hard has a solution that its tests refuse, and of the others some are
    passed by any program that prints 0, or are nearly one and the same."""
    text = exercise(words)
    if "difficulty: hard" in words:
        return text.replace(RIGHT, f"{RIGHT[:-1]} + 1)")
    kind = hashlib.sha256(words.encode()).digest()[1] % 3
    if kind == 0:
        tests = [{"stdin": f"{n} {-n}\n", "stdout": "0\n"} for n in range(5)]
        begin, end = text.index("["), text.index("]") + 1
        return text[:begin] + json.dumps(tests) + text[end:]
    return exercise("all the same") if kind == 1 else text


@dataclass
class Runs:
    """The command in a folder of its own, asking `llm` for `count` answers, two at once.
    `sent_then` is how often what was committed at a kill had been sent by then, by its words."""

    folder: Path
    llm: ScriptedLLM
    count: int
    sent_then: dict[str, int] = of(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir()
        (self.folder / "sums.yaml").write_text(yaml.safe_dump(OWN))
        topic = find_topic(str(self.folder / "sums.yaml"))
        self.words = {
            slot.request: "\n".join(turn["content"] for turn in messages(topic, slot))
            for slot in slots(topic, "m", 0, self.count)
        }

    def start(self) -> "subprocess.Popen[str]":
        words = ["--topic", "sums.yaml", "--backend", self.llm.url, "--model", "m"]
        flags = ["--output", "out.jsonl", "--count", str(self.count), "--in-flight", "2"]
        return subprocess.Popen(
            [sys.executable, "-m", "haloforge", "data", "generate", *words, *flags],
            cwd=self.folder,
            env={**os.environ, "HALOFORGE_CACHE": str(self.folder / "cache")},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def end(self) -> str:
        """Runs it to its end, which must be a good one; what it printed."""
        run = self.start()
        told, errors = run.communicate(timeout=400)
        assert run.returncode == 0, errors
        return told

    def committed(self) -> set[str]:
        """The requests whose answer is on the disk."""
        answers = self.folder / "out.jsonl.answers" / "answers.jsonl"
        lines = answers.read_bytes().split(b"\n")[:-1] if answers.exists() else []
        return {json.loads(line)["request"] for line in lines}

    def kill(self, run: "subprocess.Popen[str]") -> None:
        """Ends it and all that descends from it, at once."""
        processes = family(run.pid)
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        run.communicate()
        assert wait_until(lambda: not living(processes), 30), names(processes)
        for request in self.committed():
            words = self.words[request]
            self.sent_then.setdefault(words, self.llm.sent[words])

    def written(self) -> Written:
        lines = (self.folder / "out.rejected.jsonl").read_text().splitlines()
        rejected = [json.loads(line) for line in lines]
        told = [(each["request"], each["reasons"][0]["fault"]) for each in rejected]
        return (self.folder / "out.jsonl").read_bytes(), told

    def check_asked_once(self) -> None:
        assert {words: self.llm.sent[words] for words in self.sent_then} == self.sent_then


def undisturbed(folder: Path, count: int) -> Written:
    """What is written where nobody kills anything, and no Ray is there."""
    with ScriptedLLM(unsteady, unlike).serving() as llm:
        whole = Runs(folder, llm, count)
        topic, output = str(folder / "sums.yaml"), folder / "out.jsonl"
        made = plan(topic, llm.url, output, load_settings(None, {}), "m", count)
        with open_answers(made) as answers:
            generate(made, answers, Report(), in_this_process)
        release(made.folder)
    check_all_is_there(whole.written(), count)
    return whole.written()


def check_all_is_there(written: Written, count: int) -> None:
    rows, rejected = written
    assert 0 < len(rows.splitlines()) == count - len(rejected)
    assert {reason for _, reason in rejected} == {
        *("reference", "trivial", "near_duplicate", "empty", "json")
    }


def test_killed_while_asking_and_while_judging_it_ends_as_undisturbed(
    tmp_path: Path, tiny_model: Path
) -> None:
    count = 40
    expected = undisturbed(tmp_path / "whole", count)
    with ScriptedLLM(unsteady, unlike, seconds=0.2).serving() as llm:
        runs = Runs(tmp_path / "killed", llm, count)
        moments: list[Callable[[], object]] = [
            lambda: len(runs.committed()) >= count // 3,
            (runs.folder / "out.jsonl.answers" / PROBES).exists,  # solutions are judged by then
        ]
        for reached in moments:
            run = runs.start()
            assert wait_until(reached, 200), run.communicate()
            runs.kill(run)
        assert len(runs.sent_then) == count
        before = sum(llm.sent.values())
        told = runs.end()
        assert sum(llm.sent.values()) == before
        runs.check_asked_once()
    assert runs.written() == expected
    assert told.startswith("0 requests to m, ")
    number = len(expected[0].splitlines())
    assert f"out.jsonl: {number} conversations of {count} answers" in told
    _feeds_what_follows(runs.folder / "out.jsonl", tiny_model)


def _feeds_what_follows(rows: Path, model: Path) -> None:
    command = ["sft", "train", "--model", str(model), "--data", str(rows), "--dry-run"]
    done = subprocess.run(
        [sys.executable, "-m", "haloforge", *command, "--output", str(rows.parent / "sft")],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    number = len(rows.read_text().splitlines())
    assert f"rows           {number}" in done.stdout
    check_raft(load_settings(None, {"raft.prompts": str(rows)}))
    problems = read_problems(str(rows))
    assert len(problems) == number
    for problem in problems:
        asked = str(problem.turns())
        assert len(problem.tests) == 5 and RIGHT not in asked and "stdin" not in asked


@pytest.mark.slow
def test_killed_ten_times_at_random_it_ends_as_undisturbed(tmp_path: Path) -> None:
    count = 48
    with ScriptedLLM(unsteady, unlike, seconds=0.3).serving() as llm:
        whole = Runs(tmp_path / "whole", llm, count)
        began = time.monotonic()
        whole.end()
        seconds = time.monotonic() - began
    check_all_is_there(whole.written(), count)
    seed = int.from_bytes(os.urandom(4))
    print(f"seed {seed}")
    draw, kills, committed = random.Random(seed), 0, []
    with ScriptedLLM(unsteady, unlike, seconds=0.3).serving() as llm:
        runs = Runs(tmp_path / "killed", llm, count)
        for _ in range(40):
            run = runs.start()
            with suppress(subprocess.TimeoutExpired):
                run.wait(draw.uniform(0, 0.8 * seconds))
            if run.poll() is None:
                runs.kill(run)
                kills += 1
                committed.append(len(runs.committed()))
            if kills == 10:
                break
        assert kills == 10 and committed == sorted(committed), committed
        runs.end()
        runs.check_asked_once()
        assert runs.committed() == set(runs.words)
    print(f"committed at each kill: {committed}")
    assert runs.written() == whole.written()


def test_sigterm_ends_it_as_ctrl_c_does(tmp_path: Path) -> None:
    with ScriptedLLM(seconds=0.2).serving() as llm:
        runs = Runs(tmp_path / "run", llm, 200)
        run = runs.start()
        assert wait_until(lambda: len(runs.committed()) >= 4, 120)
        run.send_signal(signal.SIGTERM)
        _, errors = run.communicate(timeout=30)
        assert run.returncode == 130, errors
        assert "stopped; the same command goes on from here" in errors
        assert "Traceback" not in errors
        assert 4 <= len(runs.committed()) < 200
