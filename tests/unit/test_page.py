"""The page of a run: one file that needs nothing else and says what was measured."""

import json
import re
from pathlib import Path

import pytest

from haloforge.benchmark.measure import Result
from haloforge.benchmark.passk import estimate
from haloforge.report.page import write_page

PROBLEMS = [f"p{i}" for i in range(10)]


def result(name: str, values: list[float]) -> Result:
    return Result(
        model=name,
        policy=name,
        problems=10,
        samples=5,
        measures={"pass@1": estimate(values, PROBLEMS, 500, 0)},
        values={"pass@1": dict(zip(PROBLEMS, values, strict=True))},
        groups={problem: problem for problem in PROBLEMS},
        shares={"no_code": 0.0, "trivial": 0.125},
        outcomes={"passed": 1},
        sandbox_tiers={"bubblewrap": 50},
        infra_errors=0,
        samples_digest="d",
        settings={
            "prompts": "<b>mine</b>.jsonl",
            "temperature": 0.3,
            "seed": 0,
            "resamples": 500,
        },
    )


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """What a run of one cycle leaves behind, as far as the page reads it."""
    for folder, losses in (("sft/final_model", [0.9, 0.5]), ("raft/cycle_1_final", [0.4])):
        path = tmp_path / folder
        path.mkdir(parents=True)
        lines = [json.dumps({"loss": loss}) for loss in losses]
        (path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    selection = {"samples": 8, "outcomes": {"passed": 2, "compile_error": 6}, "share_kept": 0.25}
    statistics = [{"cycle": 1, "selection": selection}]
    (tmp_path / "raft" / "raft_statistics.json").write_text(json.dumps(statistics))
    return tmp_path


def test_the_page_stands_alone_and_tells_the_measures(run: Path, tmp_path: Path) -> None:
    results = {
        "base": result("base", [0.0] * 9 + [0.2]),
        "raft": result("raft", [0.4] * 9 + [0.2]),
    }
    path = tmp_path / "report.html"
    write_page(path, run, results, {"sft": 75.0})
    page = path.read_text()
    assert page.count("<svg") == page.count("</svg>") == 3
    # Names of XML's own vocabularies are no addresses to load from.
    loads = re.findall(r"""(?:src|href)=["'](?!#)[^"']*""", page)
    assert [load for load in loads if "www.w3.org" not in load] == []
    assert "<script" not in page
    assert "2.0%" in page
    assert "38.0%" in page
    assert "+36.0 [" in page
    assert "12.5%" in page
    assert "bubblewrap" in page
    assert "1 min 15 s" in page
    assert "<b>mine" not in page
    again = tmp_path / "again.html"
    write_page(again, run, results, {"sft": 75.0})
    assert again.read_text() == page
