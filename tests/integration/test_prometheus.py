"""A real Prometheus beside a real run: it finds all that the dashboard asks for, and it is true."""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from math import isnan
from pathlib import Path
from typing import NamedTuple

import pytest

from cluster.grafana.dashboard import dashboard
from cluster.grafana.panels import ROWS
from haloforge.observe.metrics import METRICS
from haloforge.store.shards import read_judged
from tests.prometheus import Prometheus, needs_prometheus, prometheus
from tests.watched_run import ENGINES, LAST_S

pytestmark = needs_prometheus
ROOT = Path(__file__).parents[2]
GRAFANAS = {  # what it puts in for its variables, where all is chosen and a point is a second
    "$run": ".*",
    "$stage": ".*",
    "$cycle": ".*",
    "$__rate_interval": "10s",
    "$__range": "5m",
}


class Watched(NamedTuple):
    """A run that has ended in `run`, and what Prometheus kept of it, from `start` to `end`."""

    run: Path
    prometheus: Prometheus
    start: float
    end: float

    def last(self, metric: str, *by: str) -> dict[tuple[str, ...], float]:
        """The last value of each series of a metric, by these labels."""
        series = self.prometheus.over(metric, self.start, self.end)
        return {
            tuple(each["metric"].get(label, "") for label in by): float(each["values"][-1][1])
            for each in series
        }


@pytest.fixture(scope="module")
def watched(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("watched")
    with (
        tempfile.TemporaryDirectory(prefix="hf", dir="/tmp") as rays,  # a short path, for sockets
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("RAY_TMPDIR", rays)
        (Path(rays) / "ray").mkdir()
        environment = {
            **os.environ,
            "HALOFORGE_CACHE": str(folder / "cache"),
            "RAY_metrics_report_interval_ms": "1000",
        }
        with prometheus(folder / "prometheus") as found:
            start = time.time()
            command = [sys.executable, "-m", "tests.watched_run", str(tiny_model), str(folder)]
            done = subprocess.run(
                command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=400
            )
            assert done.returncode == 0, done.stderr
            yield Watched(folder / "run", found, start, time.time())


def test_every_metric_is_found(watched: Watched) -> None:
    ours = '{__name__=~"ray_haloforge_.*"}'
    series = watched.prometheus.ask("series", {"match[]": ours, "start": watched.start})
    names = {each["__name__"].removeprefix("ray_") for each in series}
    found = {re.sub(r"_(bucket|sum|count)$", "", name) for name in names}
    assert found == METRICS.keys()


@pytest.mark.parametrize("row", ROWS)
def test_each_expression_of_the_dashboard_finds_series(watched: Watched, row: str) -> None:
    for panel in ROWS[row]:
        for ask in panel.asks:
            expression = ask.expr
            for variable, value in GRAFANAS.items():
                expression = expression.replace(variable, value)
            series = watched.prometheus.over(expression, watched.start, watched.end)
            values = [float(value) for each in series for _, value in each["values"]]
            assert any(not isnan(value) for value in values), (panel.title, expression)


def test_variables_are_filled(watched: Watched) -> None:
    known = {"run": {str(watched.run)}, "stage": {"sft", "raft"}, "cycle": {"1"}}
    for variable in dashboard()["templating"]["list"][1:]:
        name = variable["name"]
        [(selector, label)] = re.findall(r"label_values\((.*), (\w+)\)", variable["definition"])
        for other, value in GRAFANAS.items():
            selector = selector.replace(other, value)
        found = watched.prometheus.ask(
            f"label/{label}/values", {"match[]": selector, "start": watched.start}
        )
        assert known[name] <= set(found) <= known[name] | {"", "pipeline"}, name


def test_values_are_those_of_the_run(watched: Watched) -> None:
    judged = list(read_judged(watched.run / "raft" / "cycle_1"))
    outcomes = Counter(row.verdict["outcome"] for row in judged)
    assert min(outcomes[name] for name in ("passed", "wrong_answer", "infra_error")) > 0
    samples = watched.last("ray_haloforge_samples_total", "stage", "cycle", "outcome")
    of_cycle = {key[2]: value for key, value in samples.items() if key[:2] == ("raft", "1")}
    assert of_cycle == outcomes
    assert watched.last("ray_haloforge_failures_total", "cycle") == {
        ("1",): of_cycle["infra_error"]
    }
    rewards = [r.verdict["reward"] for r in judged if r.verdict["outcome"] != "infra_error"]
    tokens = watched.last("ray_haloforge_tokens_total", "cycle")
    assert tokens["1",] == len(rewards)  # one each; of failures of ours none count

    sums = watched.last("ray_haloforge_reward_sum", "cycle")
    counts = watched.last("ray_haloforge_reward_count", "cycle")
    assert counts["1",] == len(rewards)
    assert sums["1",] == pytest.approx(sum(rewards), abs=0.001 * len(rewards))

    engines = watched.last("ray_haloforge_engine_capacity", "engine")
    assert engines == {(f"engine-{rank}",): 8 for rank in range(ENGINES)}
    assert watched.last("ray_haloforge_restarts_total", "part") == {("engine",): 1}


def test_what_a_run_came_to_stays_until_the_next(watched: Watched) -> None:
    """Ray forgets a gauge two seconds after it was set, here; a score was set long before."""
    results = json.loads((watched.run / "raft" / "start_eval" / "results.json").read_text())
    mean = 'ray_haloforge_held_out{measure="pass@1",bound="mean"}'
    [score] = watched.prometheus.over(mean, watched.start, watched.end)
    assert {float(value) for _, value in score["values"]} == {results["measures"]["pass@1"]["mean"]}
    first, last = score["values"][0][0], score["values"][-1][0]
    assert last - first > LAST_S + 2
    busy = watched.prometheus.over("ray_haloforge_verifiers", watched.start, watched.end)
    assert max(each["values"][-1][0] for each in busy) < last  # what goes on ends with its phase
    kept = watched.last("ray_haloforge_selected", "cycle", "rule")
    assert kept["1", "kept"] > 0


def test_tasks_have_names_that_say_what_they_do(watched: Watched) -> None:
    names = watched.prometheus.ask("label/Name/values", {"match[]": "ray_tasks"})
    assert {"select cycle 1", "MapBatches(rollout)"} <= set(names)


def test_rules_are_understood(watched: Watched) -> None:
    [group] = watched.prometheus.ask("rules")["groups"]
    assert {rule["health"] for rule in group["rules"]} == {"ok"}
