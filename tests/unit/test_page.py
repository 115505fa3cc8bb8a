"""The page of a run: one file that needs nothing else and says what was measured."""

import json
import re
from pathlib import Path

import pytest

from haloforge.benchmark.results import Result
from haloforge.report.page import write_page
from tests.results import passing


def result(name: str, right: list[int]) -> Result:
    """Of each problem so many of five samples passed."""
    found = passing(right, 5, name, settings={"benchmark.prompts": "<b>mine</b>.jsonl"})
    return found.model_copy(update={"shares": {"no_code": 0.0, "trivial": 0.125}})


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
        "base": result("base", [0] * 9 + [1]),
        "raft": result("raft", [2] * 9 + [1]),
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
    assert "1 min 15 s" in page
    assert "<b>mine" not in page
    again = tmp_path / "again.html"
    write_page(again, run, results, {"sft": 75.0})
    assert again.read_text() == page
