"""A real Chromium, and what a page makes it do: what it logs, asks for, and fails at."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Dialog, Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
Scheme = Literal["light", "dark"]


@contextmanager
def chromium() -> Iterator[Browser]:
    """The system's Chromium without a window; where there is none the test is skipped."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip(f"no Chromium here: none of {', '.join(NAMES)} is installed")
    with sync_playwright() as playwright:
        # Its own sandbox wants what containers keep from it; a page has no script to hold.
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@dataclass
class Watched:
    """A page, and what has been seen of it since it was opened."""

    page: Page
    logged: list[str] = field(default_factory=list)
    """Errors and warnings on the console, uncaught exceptions, dialogs."""
    failed: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    """The address of each request."""

    def check(self, origin: str) -> None:
        """Nothing was logged, nothing failed, and nothing but `origin` was asked."""
        assert self.logged == []
        assert self.failed == []
        assert [each for each in self.asked if not each.startswith((origin, "data:"))] == []

    def overflows(self) -> bool:
        """Whether the page is wider than its window."""
        return bool(
            self.page.evaluate("document.documentElement.scrollWidth > window.innerWidth + 1")
        )


@contextmanager
def opened(browser: Browser, scheme: Scheme = "light", width: int = 1200) -> Iterator[Watched]:
    """A new page in a profile of its own, `width` pixels wide."""
    context = browser.new_context(
        color_scheme=scheme, viewport={"width": width, "height": 900}, accept_downloads=True
    )
    watched = Watched(page := context.new_page())

    def told(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            watched.logged.append(message.text)

    def asked_by_a_dialog(dialog: Dialog) -> None:
        watched.logged.append(dialog.message)
        dialog.dismiss()

    page.on("console", told)
    page.on("dialog", asked_by_a_dialog)
    page.on("pageerror", lambda error: watched.logged.append(str(error)))
    page.on("request", lambda request: watched.asked.append(request.url))
    page.on("requestfailed", lambda request: watched.failed.append(request.url))
    yield watched
    context.close()
