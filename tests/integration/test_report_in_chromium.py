"""The report in a real Chromium: it needs nothing but itself, and what models wrote is text."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from haloforge.report.page import write_report
from tests.browsers import Scheme, chromium, opened
from tests.hostile_run import ATTACKS, write_hostile_run
from tests.report_runs import interval, write_activity, write_raft

MOST_BYTES = 5_000_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of five cycles."""
    run = tmp_path_factory.mktemp("runs") / "usual"
    write_raft(run, cycles=5, samples=200)
    write_activity(run, [interval(1e9 + 10 * n) for n in range(100)])
    return write_report(run)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "hostile"
    write_hostile_run(run)
    return write_report(run)


@pytest.mark.parametrize("width", [1200, 400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_stands_alone_and_fits(
    usual: Path, browser: Browser, scheme: Scheme, width: int
) -> None:
    assert usual.stat().st_size < MOST_BYTES
    with opened(browser, scheme, width) as watched:
        watched.page.goto(usual.as_uri())
        watched.check(usual.as_uri())
        plots = watched.page.locator("svg[role=img]")
        assert plots.count() >= 8
        for number in range(plots.count()):
            box = plots.nth(number).bounding_box()
            assert box is not None and box["width"] > 200 and box["height"] > 100
            assert plots.nth(number).get_attribute("aria-label") or plots.nth(number).get_attribute(
                "aria-labelledby"
            )
        assert not watched.overflows()
        # Of the page in the dark the text of plots is light too.
        colours = watched.page.evaluate(
            "[getComputedStyle(document.body).color,"
            " getComputedStyle(document.querySelector('svg[role=img] text')).fill]"
        )
        assert colours[0] == colours[1]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_models_wrote_is_text(hostile: Path, browser: Browser, scheme: Scheme) -> None:
    assert hostile.stat().st_size < MOST_BYTES
    with opened(browser, scheme) as watched:
        page = watched.page
        page.goto(hostile.as_uri())
        page.wait_for_timeout(200)
        watched.check(hostile.as_uri())
        assert page.evaluate("window.ran") is None and "owned" not in page.title()
        tags = "script, iframe, img, link, form, textarea, button, [onerror], [onload], [onfocus]"
        assert page.locator(tags).count() == 0
        shown = page.locator("body").inner_text()
        assert any(text[:40] in shown for text in (ATTACKS["script"], ATTACKS["break-out"]))
