"""The verifier fleet on real Ray: it grows with the work, and dead actors cost no other sample."""

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from haloforge.config import load_settings
from haloforge.errors import ResourceError
from haloforge.placement import Fleet
from haloforge.schema import Outcome, Problem, Test
from haloforge.session import Session
from haloforge.verify.settings import VerifySettings
from haloforge.verify.stage import PATIENCE_S
from tests.fleets import judge, scripted
from tests.processes import wait_until

ONE, TWO = Fleet(1, 1, 0.5), Fleet(2, 2, 0.5)


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def test_a_sample_that_kills_its_verifier_costs_no_other(tmp_path: Path) -> None:
    codes = ["sleep 0.05"] * 24
    codes[4] = codes[5] = codes[17] = "die"
    verdicts = list(judge(codes, scripted(tmp_path), TWO))
    assert sorted(int(v.sample_id) for v in verdicts) == list(range(24))
    lost = [v for v in verdicts if v.outcome == "infra_error"]
    assert sorted(int(v.sample_id) for v in lost) == [4, 5, 17]
    assert all("2 verifiers died" in v.diagnostics and v.reward == 0 for v in lost)
    assert [v.outcome for v in verdicts].count(Outcome.PASSED) == 21


def test_a_killed_verifier_is_replaced_and_its_sample_tried_again(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    killed: list[int] = []

    def kill() -> None:
        if wait_until(lambda: note.exists() and note.read_text(), 120):
            killed.append(int(note.read_text()))
            os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    codes = ["sleep 0.05"] * 8
    codes[2] = f"once {note}"
    verdicts = {int(v.sample_id): v for v in judge(codes, scripted(tmp_path), ONE)}
    killer.join()
    assert killed
    assert sorted(verdicts) == list(range(8))
    assert {v.outcome for v in verdicts.values()} == {"passed"}
    judged_by = int(verdicts[2].diagnostics.split()[0])
    assert judged_by != killed[0]


def test_one_slow_program_holds_up_nobody(tmp_path: Path) -> None:
    """Real programs in one actor: the first sleeps, and is the last to be judged."""
    slow_s = 4 * PATIENCE_S
    problem = Problem(
        problem_id="p",
        prompt="?",
        language="python",
        judge="stdio",
        tests=[Test(stdin="", stdout="1\n")],
    )
    codes = [f"import time\ntime.sleep({slow_s})\nprint(1)", *["print(1)"] * 8]
    settings = VerifySettings(run_wall_s=3 * slow_s, cache=False)
    began, ends = 0.0, {}
    for verdict in judge(codes, settings, ONE, problem):
        assert verdict.outcome == "passed"
        ends[int(verdict.sample_id)] = time.monotonic()
        began = began or time.monotonic()
    assert len(ends) == 9
    assert max(ends, key=ends.__getitem__) == 0, "the others waited for it"
    assert max(end for number, end in ends.items() if number) - began < slow_s


@pytest.mark.parametrize(("fleet", "actors"), [(Fleet(1, 2, 0.5), 2), (ONE, 1)])
def test_the_fleet_grows_with_the_work(tmp_path: Path, fleet: Fleet, actors: int) -> None:
    pids, order = Counter[str](), []
    for verdict in judge(["sleep 1"] * 14, scripted(tmp_path), fleet):
        pids[verdict.diagnostics.split()[0]] += 1
        order.append(verdict.diagnostics.split()[0])
    assert len(pids) == actors
    assert order[0] == order[1], "it began with one"


def test_a_verifier_that_rests_is_kept(tmp_path: Path) -> None:
    """Work that fills two, then next to none for longer than Ray Data waits, then work again."""
    codes, pauses = ["sleep 1"] * 36, [0.0] * 14 + [1.5] * 12
    pids = {
        verdict.diagnostics.split()[0]
        for verdict in judge(codes, scripted(tmp_path), Fleet(1, 2, 0.5), pauses=pauses)
    }
    assert len(pids) == 2


def test_a_resource_that_no_node_has_is_refused() -> None:
    session = Session(load_settings(None, {"verify.resource": "boxes"}))
    with pytest.raises(ResourceError, match=r"ray start --resources='\{\"boxes\": 1\}'"):
        _ = session.fleet
    assert Session(load_settings()).fleet == Fleet(1, 2, 0.5)
