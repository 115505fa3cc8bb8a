"""The page of a run: one file that needs nothing else, for any run folder at any moment."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from haloforge.report.page import is_run, write_page, write_report
from haloforge.report.page.gather import gather
from haloforge.report.page.run import Status
from haloforge.store.lock import hold, release
from tests.report_runs import (
    MIX,
    interval,
    write_activity,
    write_raft,
    write_samples,
    write_training,
)
from tests.results import passing

SECTIONS = {
    *("what", "held-out-problems", "came-to", "training", "answers", "who", "speed"),
    *("failures", "samples", "settings"),
}
VOID = {"meta", "br", "link", "img", "hr", "input"}


class Reader(HTMLParser):
    """Notes elements, ids and addresses; fails on tags that do not match."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.targets: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        found = {name: value or "" for name, value in attrs}
        self.ids += [found["id"]] if "id" in found else []
        for name in ("href", "src", "xlink:href", "action"):
            self.targets += [found[name]] if name in found else []
        for name in ("aria-labelledby",):
            self.targets += [f"#{each}" for each in found.get(name, "").split()]
        assert not any(name.startswith("on") for name in found)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def page_of(run: Path) -> str:
    return write_report(run).read_text(encoding="utf-8")


def warned(run: Path) -> dict[str, str]:
    """The warnings by kind, which are on the page too."""
    written = write_page(run)
    page = Reader(written.path.read_text(encoding="utf-8"))
    for warning in written.warnings:
        assert warning.text in page.text
    return {warning.kind: warning.text for warning in written.warnings}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run of two cycles."""
    return write_raft(tmp_path / "run")


def test_a_whole_run_shows_every_section(run: Path) -> None:
    rows = [interval(1e9 + 10 * n) for n in range(1, 20)]
    rows += [interval(1e9 + 190 + 10 * n, phase="train") for n in range(1, 9)]
    write_activity(run, rows)
    for cycle in (1, 2):
        folder = run / f"cycle_{cycle}" / "eval"
        folder.mkdir()
        result = passing([cycle, 5, 0, 1], 5)
        (folder / "results.json").write_text(result.model_dump_json())
    page = page_of(run)
    read = Reader(page)
    assert set(read.ids) >= SECTIONS
    assert len(read.ids) == len(set(read.ids))
    assert {target.removeprefix("#") for target in read.targets} <= set(read.ids)
    assert re.findall('<p class="empty">(.*)</p>', page) == ["No sample was lost."]
    plots = re.findall(r"<svg .*?</svg>", page, re.S)
    assert len(plots) == 10
    for plot in plots:
        assert 'role="img"' in plot
        assert re.search(r"<title [^>]*>.+?</title><desc [^>]*>.*?\d.*?</desc>", plot)
        assert "<text" in plot
        assert "#000000" not in plot  # it would not be seen in the dark
    assert page.count("<figure") == page.count("<figcaption>") == 10
    assert page.count("<table") == page.count("<caption>")


def test_it_needs_nothing_else_and_runs_nothing(run: Path) -> None:
    page = page_of(run)
    read = Reader(page)
    assert [target for target in read.targets if not target.startswith("#")] == []
    assert not {"script", "link", "img", "iframe", "object"} & set(read.tags)
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in page
    assert "@import" not in page
    assert 'url("' not in page
    for rule in ("prefers-color-scheme: dark", "@media print"):
        assert rule in page


def test_the_same_folder_gives_the_same_bytes(run: Path) -> None:
    write_activity(run, [interval(1e9 + 10 * n) for n in range(9)])
    assert page_of(run) == page_of(run)


def test_figures_are_those_of_the_samples(tmp_path: Path) -> None:
    mix = {"passed": 1, "wrong_answer": 1, "infra_error": 1}
    run = write_raft(tmp_path, cycles=1, samples=300, mix=mix)
    page = page_of(run)
    found = re.search(r"<td>300</td>((?:<td>\d+</td>)+)", page)
    assert found
    counts = list(map(int, re.findall(r"\d+", found[1])))
    assert sum(counts) == 300
    passed, wrong = counts[1], counts[0]
    mean = (passed + 0.7 * wrong) / (passed + wrong)
    assert f"{mean:.3f}" in page


def test_a_pipeline_tells_before_and_after(tmp_path: Path) -> None:
    write_raft(tmp_path / "raft")
    write_training(tmp_path / "sft" / "final_model", 6)
    for name, right in (("base", [0] * 9 + [1]), ("sft", [1] * 10), ("raft", [2] * 9 + [1])):
        result = passing(right, 5, name, settings={"benchmark.prompts": "<b>mine</b>.jsonl"})
        found = result.model_copy(update={"shares": {"no_code": 0.0, "trivial": 0.125}})
        folder = tmp_path / "benchmark" / name
        folder.mkdir(parents=True)
        (folder / "results.json").write_text(found.model_dump_json())
    (tmp_path / "seconds.json").write_text(json.dumps({"sft": 75.0, "raft": 4000.5}))
    page = page_of(tmp_path)
    for told in ("2.0% (", "38.0% (", "+36.0 [", "12.5%", "1 min 15 s", "1 h 06 min", "Before and"):
        assert told in page
    assert 'class="sure"' in page
    assert "<b>mine" not in page
    assert ">finished<" in page
    assert "6 in SFT" in warned(tmp_path)["few-steps"]


def test_a_benchmark_and_sft_have_pages_of_their_own(tmp_path: Path) -> None:
    benchmark, sft = tmp_path / "benchmark", tmp_path / "sft"
    write_samples(benchmark, 40)
    (benchmark / "results.json").write_text(passing([1, 2, 0], 5).model_dump_json())
    page = page_of(benchmark)
    assert "pass@1" in page
    assert 'id="training"' not in page
    write_training(sft / "final_model", 30)
    (sft / "run.json").write_text('{"what": "sft"}')
    page = page_of(sft)
    assert 'id="plot-loss"' in page
    assert 'id="samples"' not in page
    several = tmp_path / "several"
    for name in ("a", "b"):
        (several / name).mkdir(parents=True)
        result = passing([1, 5 if name == "b" else 0, 2], 5, name)
        (several / name / "results.json").write_text(result.model_dump_json())
    assert "b − a" in page_of(several)  # noqa: RUF001


def test_a_run_that_goes_on_shows_what_is_committed_so_far(run: Path) -> None:
    settings = json.loads((run / "config.yaml").read_text())
    settings["raft"]["cycles"] = 4
    (run / "config.yaml").write_text(json.dumps(settings))
    write_samples(run / "cycle_3", 24)
    assert "stopped at RAFT cycle 3, sampling and judging (24 samples" in warned(run)["stopped"]
    assert 'http-equiv="refresh"' not in (run / "report.html").read_text()
    hold(run)
    try:
        assert gather(run).status == Status(
            "running", "RAFT cycle 3, sampling and judging (24 samples so far)"
        )
        write_training(run / "cycle_3_final.training", 3)
        page = page_of(run)
        assert "cycle 3 (under way)" in page
        assert "RAFT cycle 3, training" in page
        assert '<meta http-equiv="refresh" content="30">' in page
    finally:
        release(run)
    (run / "cycle_3_final.training").rename(run / "cycle_3_final")
    assert gather(run).status == Status("stopped", "RAFT cycle 4")


def test_nothing_is_no_run_and_still_has_a_page(tmp_path: Path) -> None:
    assert not is_run(tmp_path)
    assert "empty" in warned(tmp_path)
    Reader(page_of(tmp_path))


def test_what_cannot_be_read_is_told_and_the_rest_shown(run: Path) -> None:
    write_activity(run, [interval(1e9), interval(1e9 + 10), {"at": "now"}], torn='{"at": 17')
    (run / "raft_statistics.json").write_text("[{")
    (run / "cycle_1" / "verdicts" / "000001.parquet").write_bytes(b"PAR1")
    (run / "cycle_2" / "commits" / "000001.json").write_text("{")
    (run / "config.yaml").write_text("a: [")
    (run / "cycle_1_final" / "metrics.jsonl").write_text('{"step": 1, "loss": 0.5}\nnull\n{"st')
    texts = [w.text for w in write_page(run).warnings if w.kind == "unreadable"]
    for name in ("raft_statistics.json", "cycle_1", "cycle_2", "config.yaml", "activity.jsonl"):
        assert any(name in text for text in texts), name
    assert 'id="plot-timeline"' in page_of(run)


def test_hostile_samples_are_text(tmp_path: Path) -> None:
    code = "// </code></pre><script>alert(1)</script> \u202e\x1b[2J\nint main() {}\n"
    run = write_raft(
        tmp_path,
        cycles=1,
        completion=f"</article><img src=x onerror=alert(1)>\n```cpp\n{code}```\n",
        diagnostics="<script>\x00</script>" + "e" * 5000,
        problem_id="<svg onload=alert(1)>",
        toolchain="{{ 7 * 7 }}",
    )
    page = page_of(run)
    read = Reader(page)  # which fails on an attribute that acts
    assert "script" not in read.tags
    assert "img" not in read.tags
    assert "⟨U+202E⟩" in read.text
    assert "␛[2J" in read.text
    assert "{{ 7 * 7 }}" in read.text
    assert not set(page) & {"\u202e", "\x1b", "\x00"}
    assert re.search(r"1,0\d\d more characters are not shown", read.text)


def test_text_that_is_no_utf8_is_shown(run: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = run / "cycle_2" / "samples" / "000001.parquet"
    table = pq.read_table(path)
    bad = pa.array([b"```cpp\nint main() {} // \xff\xfe\n```"] * len(table), pa.binary())
    place = table.schema.get_field_index("completion")
    text = pa.Array.from_buffers(pa.string(), len(bad), bad.buffers())
    pq.write_table(table.set_column(place, "completion", text), path)
    assert "// \ufffd\ufffd" in Reader(page_of(run)).text


def test_a_prompt_is_shown_where_it_is_stored(run: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    assert "<summary>Prompt" not in page_of(run)
    rows = [{"problem_id": f"p{n}", "prompt": f"Add up <{n}>."} for n in range(8)]
    pq.write_table(pa.Table.from_pylist(rows), run / "problems.parquet")
    assert re.search(r"Add up <\d>\.", Reader(page_of(run)).text)


def test_it_stays_small(tmp_path: Path) -> None:
    run = write_raft(
        tmp_path,
        cycles=5,
        samples=9000,
        steps=3000,
        mix={**MIX, "infra_error": 5},
        diagnostics="x" * 4096,
    )
    write_activity(run, [interval(1e9 + 10 * n, cycle=n // 500) for n in range(2500)])
    path = write_report(run)
    assert path.stat().st_size < 2_000_000
