"""What a model may write to attack its reader is text in a real Chromium, and does nothing."""

import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.browsers import Scheme, chromium, opened
from tests.hostile_run import ATTACKS, HUGE, NAMES, write_hostile_run
from tests.viewing import viewing


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A run of attacks: each is its answer, its diagnostics, its prompt and its problem's name."""
    run = tmp_path_factory.mktemp("runs") / "hostile"
    write_hostile_run(run)
    with viewing(run) as (address, _):
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", NAMES)
def test_it_is_shown_and_does_nothing(
    name: str, scheme: Scheme, browser: Browser, site: str
) -> None:
    number = NAMES.index(name)
    with opened(browser, scheme) as watched:
        page = watched.page
        page.goto(site)
        assert page.locator("table.samples tbody tr").count() == len(NAMES), "no row broke out"
        page.locator("table.samples tbody th a").nth(number).click()
        page.locator("#answer summary").click()
        page.wait_for_timeout(200)  # for what would come later
        assert page.evaluate("window.ran") is None
        title = page.title()
        assert title.startswith(name) and title.endswith("haloforge")
        assert page.url.startswith(f"{site}sample?")
        tags = "script, iframe, img, style, form, textarea, meta[http-equiv], [onerror], [onfocus]"
        assert page.locator(tags).count() == 0
        for place in ("#code", "#answer", "#diagnostics", "#prompt"):
            shown = page.locator(f"{place} pre").inner_text()
            assert _as_seen(name, place) in shown, place
            assert page.locator(f"{place} pre").is_visible()
        watched.check(site)


def _as_seen(name: str, place: str) -> str:
    """What a reader must find in that place of the page."""
    if name == "huge":
        return ("y" if place == "#diagnostics" else "x") * 1_000
    if name == "bytes":
        return {"#diagnostics": "�� bad �(", "#prompt": "x"}.get(place, "int a; // �(�(")
    return {
        "bidi": "user⟨U+202E⟩ ⟨U+2066⟩// admin only⟨U+2069⟩ ⟨U+2066⟩",
        "controls": "␛[2J␛]0;owned␇␀␈␡⟨U+200B⟩⟨U+2028⟩⟨U+FEFF⟩ end",
    }.get(name) or ATTACKS[name]


def test_a_huge_answer_is_cut_and_there_as_plain_text(browser: Browser, site: str) -> None:
    with opened(browser) as watched:
        page = watched.page
        page.goto(site)
        page.locator("table.samples tbody th a").nth(NAMES.index("huge")).click()
        page.locator("#answer summary").click()
        shown = page.locator("#answer pre").inner_text()
        assert 199_000 < len(shown) < 201_000
        left = HUGE + len("```cpp\nint a; // \n```\n") - 200_000
        assert f"{left:,} more characters are not shown" in page.locator("#answer").inner_text()
        assert len(page.content()) < 2_000_000
        watched.check(site)
        with page.expect_download() as download:
            page.get_by_role("link", name="Answer as plain text").click()
        assert download.value.suggested_filename == "answer.txt"
        assert Path(download.value.path()).stat().st_size > HUGE


def test_what_is_no_text_is_told_and_kept(browser: Browser, site: str) -> None:
    with opened(browser) as watched:
        page = watched.page
        page.goto(site)
        page.locator("table.samples tbody th a").nth(NAMES.index("bytes")).click()
        told = page.locator("p.faults").inner_text()
        assert told.startswith("Not valid UTF-8: completion, diagnostics.")
        assert "�� bad �(" in page.locator("#diagnostics pre").inner_text()
        assert "int a; // �(�(" in page.locator("#code pre").inner_text()
        raw = page.get_by_role("link", name="Diagnostics as plain text").get_attribute("href")
        with urllib.request.urlopen(f"{site}{str(raw).lstrip('/')}") as answer:
            assert answer.read() == b"\xff\xfe bad \xc3("
            assert answer.headers["Content-Disposition"].startswith("attachment")
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
        watched.check(site)


def test_text_that_runs_right_to_left_does_not_move_what_is_beside_it(
    browser: Browser, site: str
) -> None:
    with opened(browser) as watched:
        page = watched.page
        page.goto(site)
        row = page.locator("table.samples tbody tr").nth(NAMES.index("bidi"))
        places = [
            row.locator(part).bounding_box() for part in ("th a", ".outcome", ".reward", ".said")
        ]
        lefts = [place["x"] for place in places if place]
        assert len(lefts) == 4 and lefts == sorted(lefts)
        assert row.locator(".index").inner_text() == f"#{NAMES.index('bidi')}"
        watched.check(site)
