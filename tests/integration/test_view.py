"""The sample browser in a real Chromium, over a server that was started as a user does."""

import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from playwright.sync_api import Browser, Page

from haloforge.store.shards import ShardWriter
from tests.browsers import Scheme, Watched, chromium, opened
from tests.processes import wait_until
from tests.raft_runs import Row, stored
from tests.viewing import PROBLEMS, SAMPLES, raft_run, rows_of, viewing

SCHEMES = pytest.mark.parametrize("scheme", ["light", "dark"])
_Picks = Callable[[int, Row], bool]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return raft_run(tmp_path_factory.mktemp("runs") / "tiny-run")


@pytest.fixture(scope="module")
def site(run: Path) -> Iterator[str]:
    with viewing(run) as (address, _):
        yield address


def listed(page: Page) -> tuple[int, list[str]]:
    """How many samples the list says that there are, and the names of those on its page."""
    told = page.locator("table.samples caption b").inner_text()
    names = page.locator("table.samples tbody th").all_inner_texts()
    return int(told.replace(",", "")), [name.replace("\n", " ") for name in names]


def wanted(picks: _Picks) -> Counter[str]:
    """The names of the samples of both cycles that a filter takes, counted by the test itself."""
    return Counter(
        f"{row.problem} #{row.number}"
        for cycle in (1, 2)
        for row in rows_of(cycle)
        if picks(cycle, row)
    )


def all_pages(page: Page) -> Counter[str]:
    """The names on this page of the list and on those that follow."""
    found = Counter(listed(page)[1])
    while page.get_by_role("link", name="Next", exact=True).count():
        page.get_by_role("link", name="Next", exact=True).click()
        found.update(listed(page)[1])
    return found


FILTERS: dict[str, tuple[dict[str, str], _Picks]] = {
    "cycle": ({"#cycle": "2"}, lambda cycle, row: cycle == 2),
    "outcome": ({"#outcome": "compile_error"}, lambda cycle, row: row.reward == 0),
    "problem": ({"#problem": "sum/odd"}, lambda cycle, row: row.problem == "sum/odd"),
    "part of it": ({"#problem": "COUNT/"}, lambda cycle, row: row.problem.startswith("count/")),
    "reward": (
        {"#min_reward": "0.5", "#max_reward": "0.7"},
        lambda cycle, row: 0.5 <= row.reward <= 0.7,
    ),
    "several": (
        {"#cycle": "1", "#outcome": "passed", "#problem": "sum"},
        lambda cycle, row: cycle == 1 and row.reward == 1 and "sum" in row.problem,
    ),
}


@SCHEMES
@pytest.mark.parametrize("name", FILTERS)
def test_each_filter_shows_what_it_says(
    name: str, scheme: Scheme, browser: Browser, site: str
) -> None:
    fields, picks = FILTERS[name]
    with opened(browser, scheme) as watched:
        page = watched.page
        page.goto(site)
        for place, value in {"#source": "samples", **fields}.items():
            if page.locator(place).evaluate("each => each.tagName") == "SELECT":
                page.select_option(place, value)
            else:
                page.fill(place, value)
        page.get_by_role("button", name="Filter").click()
        expected = wanted(picks)
        assert listed(page)[0] == sum(expected.values()) > 0
        assert all_pages(page) == expected
        watched.check(site)


def test_kept_is_what_was_trained_on(browser: Browser, site: str, run: Path) -> None:
    trained = Counter(
        f"{row['problem_id']} #{row['index']}"
        for cycle in (1, 2)
        for row in pq.read_table(run / f"cycle_{cycle}" / "trained.parquet").to_pylist()
        if row["cycle"] == cycle
    )
    with opened(browser) as watched:
        page = watched.page
        page.goto(site)
        for kept, expected in (
            ("yes", trained),
            ("no", wanted(lambda cycle, row: True) - trained),
        ):
            page.select_option("#kept", kept)
            page.get_by_role("button", name="Filter").click()
            assert all_pages(page) == expected
            page.goto(site)
        watched.check(site)


def test_outcomes_are_counted_and_lead_to_theirs(browser: Browser, site: str) -> None:
    counts = Counter(row.reward for cycle in (1, 2) for row in rows_of(cycle))
    with opened(browser) as watched:
        page = watched.page
        page.goto(f"{site}?source=samples")
        section = page.locator("section.outcomes")
        told = section.locator("a").all_inner_texts()
        assert any(re.match(rf"passed {counts[1.0]}\b", text) for text in told)
        section.get_by_text("wrong_answer").click()
        assert listed(page)[0] == counts[0.7]
        assert set(page.locator("td.outcome").all_inner_texts()) == {"wrong_answer"}
        section.get_by_text("wrong_answer").click()
        assert listed(page)[0] == sum(counts.values()), "a second click takes it back"
        watched.check(site)


def test_samples_are_ordered_and_paged(browser: Browser, site: str) -> None:
    with opened(browser) as watched:
        page = watched.page
        page.goto(f"{site}?source=samples")
        page.select_option("#sort", "-reward")
        page.get_by_role("button", name="Filter").click()
        rewards: list[float] = []
        pages = 0
        while True:
            pages += 1
            rewards += map(float, page.locator("td.reward").all_inner_texts())
            following = page.get_by_role("link", name="Next", exact=True)
            if not following.count():
                break
            following.click()
        assert pages == 4 and len(rewards) == 2 * len(PROBLEMS) * SAMPLES
        assert rewards == sorted(rewards, reverse=True)
        page.get_by_role("link", name="First").click()
        assert "1 to 50" in page.locator("caption").inner_text()
        watched.check(site)


@SCHEMES
def test_a_sample_is_told_whole(scheme: Scheme, browser: Browser, site: str) -> None:
    row = next(row for row in rows_of(2) if (row.problem, row.number) == ("sum/all", 3))
    with opened(browser, scheme) as watched:
        page = watched.page
        page.goto(f"{site}?cycle=2&source=samples&problem=sum%2Fall")
        page.get_by_role("link", name="sum/all #3", exact=True).click()
        assert page.locator("h1").inner_text() == "sum/all #3"
        assert page.locator("#code pre").inner_text().strip() == "int main() { return 3 + 200; }"
        colour = "each => getComputedStyle(each).color"
        keyword = page.locator("#code .k", has_text="return").evaluate(colour)
        assert keyword != page.locator("#code .line").evaluate(colour), "it is highlighted"
        assert page.locator("#prompt pre").inner_text().strip() == "Do sum/all."
        strip = page.locator("dl.strip").inner_text()
        for part in ("cycle 2", "0/1", f"{row.tokens}", f"{row.reward:g}"):
            assert part in strip
        page.get_by_text("Whole answer").click()
        assert "```cpp" in page.locator("#answer pre").inner_text()
        facts = page.locator("#facts").inner_text()
        for part in ("policy 2", "gcc", "bubblewrap", "stop", "1 ms"):
            assert part in facts
        page.get_by_role("link", name="Next").click()
        assert page.locator("h1").inner_text() == "sum/all #4"
        assert "5 of 20" in page.locator("nav.steps").inner_text()
        page.get_by_role("link", name="Previous").click()
        page.get_by_role("link", name="List").click()
        assert listed(page)[0] == SAMPLES, "the filter is still there"
        watched.check(site)


def test_the_same_problem_side_by_side_and_where_a_sample_went(
    browser: Browser, site: str, run: Path
) -> None:
    trained = pq.read_table(run / "cycle_2" / "trained.parquet").to_pylist()
    first = next(row for row in trained if row["cycle"] == 1)  # by `train_on: all`
    with opened(browser) as watched:
        page = watched.page
        page.goto(f"{site}id?sample={first['sample_id']}")
        assert page.locator("h1").inner_text() == f"{first['problem_id']} #{first['index']}"
        others = page.locator("#others article")
        assert others.locator("h3").all_inner_texts() == ["cycle 1", "cycle 2"]
        for place, cycle in enumerate((1, 2)):
            rewards = [row.reward for row in rows_of(cycle) if row.problem == first["problem_id"]]
            told = others.nth(place).locator("ul.counts").inner_text()
            assert re.search(rf"passed\s*{rewards.count(1.0)}\b", told)
            assert "int main()" in others.nth(place).locator("pre").inner_text()
        lineage = page.locator("#lineage li").all_inner_texts()
        assert lineage[0] == "base a/base, b4se"
        assert lineage[1].startswith("written by the policy that the run began from, policy 1")
        assert "cycle_1/samples/" in lineage[2]
        own = pq.read_table(run / "cycle_1" / "trained.parquet").to_pylist()
        rank = next(row["rank"] for row in own if row["sample_id"] == first["sample_id"])
        assert lineage[3] == f"trained on in cycle 1 rank {rank + 1}, gave cycle_1_final"
        assert lineage[4] == f"trained on in cycle 2 rank {first['rank'] + 1}, gave cycle_2_final"
        page.get_by_role("link", name="cycle 2", exact=True).click()
        assert listed(page)[0] == SAMPLES
        watched.check(site)


def test_a_run_that_goes_on_grows_on_the_page(browser: Browser, tmp_path: Path) -> None:
    run = raft_run(tmp_path / "run")
    with viewing(run) as (site, _), opened(browser) as watched:
        page = watched.page
        page.goto(site)
        before = listed(page)[0]
        with ShardWriter(run / "cycle_3") as shards:
            for number in range(5):
                shards.add(*stored(Row("sum/all", number, 1.0), 3))

        def grown() -> bool:
            page.reload()
            return listed(page)[0] == before + 5

        assert wait_until(grown, 30)
        page.select_option("#cycle", "3")
        page.get_by_role("button", name="Filter").click()
        assert listed(page)[0] == 5
        watched.check(site)


LABELLED = """() => [...document.querySelectorAll('input, select, button')].filter(
    each => !each.labels?.length && !each.ariaLabel && !each.textContent.trim()).length"""


@SCHEMES
@pytest.mark.parametrize("width", [400, 1400])
def test_it_fits_and_is_used_by_keyboard(
    width: int, scheme: Scheme, browser: Browser, site: str
) -> None:
    with opened(browser, scheme, width) as watched:
        page = watched.page
        for path in ("", "sample?in=cycle_1&of=sum%2Fall&n=1", "?outcome=nope"):
            page.goto(f"{site}{path}")
            assert not watched.overflows(), path
            assert page.evaluate(LABELLED) == 0
            assert page.locator("h1").count() == 1
            page.keyboard.press("Tab")
            assert page.evaluate("document.activeElement.className") == "skip"
        watched.logged.clear()  # Chromium logs the 400 of the last
        page.goto(site)
        page.focus("#problem")
        page.keyboard.type("sum/odd")
        with page.expect_navigation():
            page.keyboard.press("Enter")
        assert page.url.startswith(site) and "problem=sum%2Fodd" in page.url
        watched.check(site)


CONTRAST = """() => {
  const root = getComputedStyle(document.documentElement);
  const light = name => {
    const hex = root.getPropertyValue(name).trim().slice(1);
    const parts = [0, 2, 4].map(at => parseInt(hex.slice(at, at + 2), 16) / 255);
    const line = parts.map(p => p <= 0.04045 ? p / 12.92 : ((p + 0.055) / 1.055) ** 2.4);
    return 0.2126 * line[0] + 0.7152 * line[1] + 0.0722 * line[2];
  };
  const names = ['text', 'dim', 'link', 'keyword', 'type', 'string', 'comment', 'number',
    'function', 'pre'];
  const found = {};
  for (const back of ['--back', '--raised']) for (const name of names) {
    const [a, b] = [light(back), light('--' + name)].sort((x, y) => y - x);
    found[name + ' on ' + back] = (a + 0.05) / (b + 0.05);
  }
  return found;
}"""


@SCHEMES
def test_text_stands_out_enough_to_be_read(scheme: Scheme, browser: Browser, site: str) -> None:
    """4.5 to 1, as WCAG 2 asks for at level AA."""
    with opened(browser, scheme) as watched:
        watched.page.goto(site)
        ratios: dict[str, float] = watched.page.evaluate(CONTRAST)
        assert len(ratios) == 20
        for name, ratio in ratios.items():
            assert ratio >= 4.5, f"{name}: {ratio}"  # NaN too, of a colour that is not there


def test_a_token_in_a_real_browser(browser: Browser, run: Path) -> None:
    secret = "a-secret-of-this-test"
    with viewing(run, HALOFORGE_VIEW_TOKEN=secret) as (address, _), opened(browser) as watched:
        site = address.partition("?")[0]
        page = watched.page
        assert address == f"{site}?token={secret}"
        answer = page.goto(site)
        assert answer is not None and answer.status == 401
        assert "token is needed" in page.locator("h1").inner_text()
        assert len(watched.logged) == 1 and "401" in watched.logged.pop()
        page.goto(address)
        assert page.url == site, "the token is not in the address any more"
        page.get_by_role("link", name="Next").click()
        assert listed(page)[1]
        assert page.evaluate("document.cookie") == ""
        watched.check(site)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_when_it_is_told(number: signal.Signals, run: Path) -> None:
    with viewing(run) as (address, process):
        assert address.startswith("http://127.0.0.1:")
        process.send_signal(number)
        assert process.wait(30) == 0


def test_what_keeps_it_from_starting_is_one_line(run: Path, tmp_path: Path, site: str) -> None:
    port = site.rpartition(":")[2].strip("/")

    def started(*arguments: str) -> Any:
        command = [sys.executable, "-m", "haloforge", "view", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    taken = started(str(run), "--port", port)
    assert (taken.returncode, taken.stderr.count("\n")) == (3, 1)
    assert f"cannot listen at 127.0.0.1:{port}" in taken.stderr and "--port" in taken.stderr
    nowhere = started(str(tmp_path / "nowhere"))
    assert (nowhere.returncode, nowhere.stderr.count("\n")) == (2, 1)
    assert "no run folder is here" in nowhere.stderr


def test_watching_a_page_tells_its_faults(browser: Browser) -> None:
    """What the tests above rely on."""
    with opened(browser) as watched:
        watched.page.set_content("<script>console.error('e1'); throw new Error('e2')</script>")
        watched.page.set_content("<img src='http://127.0.0.1:1/x.png'>", wait_until="load")
        assert isinstance(watched, Watched)
        told = " ".join(watched.logged)
        assert "e1" in told and "e2" in told and watched.failed == ["http://127.0.0.1:1/x.png"]
        with pytest.raises(AssertionError):
            watched.check("http://127.0.0.1:2/")
