"""The dashboard, its alerts and the files that provision them, without Ray."""

import re
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.grafana import up
from cluster.grafana.dashboard import COLUMNS, FILE, dashboard, text
from cluster.grafana.panels import OUTCOMES, ROWS
from haloforge.observe.metrics import METRICS, Metrics
from haloforge.raft import health
from haloforge.schema import Outcome

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed"
)


def asked() -> list[str]:
    return [ask.expr for panels in ROWS.values() for panel in panels for ask in panel.asks]


def test_the_file_is_what_is_generated() -> None:
    assert FILE.read_text() == text(), "run `python -m cluster.grafana.dashboard`"


def test_every_metric_is_in_a_panel_and_no_other_is_asked_for() -> None:
    names = {name for each in asked() for name in re.findall(r"ray_(haloforge_\w+)", each)}
    assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in names} == METRICS.keys()


def test_panels_say_what_to_look_for_and_none_covers_another() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= COLUMNS
        mine = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not mine & cells, panel["title"]
        cells |= mine
        if panel["type"] != "row":
            assert len(panel["description"]) > 40, panel["title"]
            assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
            assert panel["targets"], panel["title"]


def test_every_outcome_has_a_colour() -> None:
    assert OUTCOMES.keys() == set(Outcome)


@needs_promtool
def test_prometheus_reads_the_rules_and_the_configuration(tmp_path: Path) -> None:
    up.write_files(tmp_path, "http://127.0.0.1:9090", "http://head:8265")
    for words in (("check", "rules", up.ALERTS), ("check", "config", tmp_path / "prometheus.yml")):
        done = subprocess.run(["promtool", *words], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


@needs_promtool
def test_alerts_fire_where_they_should() -> None:
    rules = Path(__file__).with_name("alerts.yaml")
    done = subprocess.run(["promtool", "test", "rules", rules], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    tested = {
        each["alertname"]
        for test in yaml.safe_load(rules.read_text())["tests"]
        for each in test["alert_rule_test"]
    }
    [group] = yaml.safe_load(up.ALERTS.read_text())["groups"]
    assert tested == {rule["alert"] for rule in group["rules"]}
    [collapse] = [rule["expr"] for rule in group["rules"] if rule["alert"] == "HaloforgeCollapse"]
    limits = [float(number) for number in re.findall(r"> ([\d.]+)", collapse)]
    assert limits == [health.DUPLICATES, health.TRIVIAL]


def test_the_token_is_in_no_file_that_others_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "very-secret")
    for _ in range(2):  # as where it is called again
        up.write_files(tmp_path, "http://127.0.0.1:9090", "http://head:8265/")
    config = yaml.safe_load((tmp_path / "prometheus.yml").read_text())
    [discovery] = config["scrape_configs"][0]["http_sd_configs"]
    assert discovery["url"] == "http://head:8265/api/prometheus/sd"
    held = Path(discovery["authorization"]["credentials_file"])
    assert held.read_text() == "very-secret"
    assert stat.S_IMODE(held.stat().st_mode) == 0o600
    holding = [f for f in tmp_path.rglob("*") if f.is_file() and "very-secret" in f.read_text()]
    assert holding == [held]


def test_what_holds_is_set_again_and_the_next_takes_its_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    metrics = Metrics()
    told: list[tuple[str, str, str, float]] = []

    class Gauge:
        def __init__(self, name: str, *_: Any, **__: Any) -> None:
            self.name = name

        def set(self, value: float, tags: dict[str, str]) -> None:
            own = next(tags[tag] for tag in ("rule", "sign", "measure", "engine") if tag in tags)
            told.append((self.name, own, tags["cycle"], value))

    monkeypatch.setattr("haloforge.observe.metrics.Gauge", Gauge)
    metrics.tags["cycle"] = "1"
    metrics.set_all("haloforge_selected", "rule", {"kept": 3, "dropped_same": 2})
    metrics.set("haloforge_engine_requests", 4, engine="engine-0")
    metrics.set("haloforge_held_out", 0.5, measure="pass@1", bound="mean")
    metrics.tags["cycle"] = "2"
    metrics.set_all("haloforge_selected", "rule", {"kept": 5})
    told.clear()
    metrics.hold()
    assert sorted(told) == [
        ("haloforge_held_out", "pass@1", "1", 0.5),
        ("haloforge_selected", "kept", "2", 5),
    ]
    metrics.forget()
    told.clear()
    metrics.hold()
    assert told == []
