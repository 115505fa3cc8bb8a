"""Who may ask the sample browser, and what its pages are: text, whatever a model wrote."""

import asyncio
import html
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer
from yarl import URL

from haloforge.errors import InputError
from haloforge.view.asking import filter_of, list_url, number
from haloforge.view.filters import Filter
from haloforge.view.pages import Pages
from haloforge.view.server import TOKEN, build, token_for
from tests.raft_runs import Row, write_cycle
from tests.viewing import raft_run, spoil

SECRET = "0123456789abcdef-secret"
_Use = Callable[[Any], Awaitable[None]]


def asking(run: Path, token: str | None, use: _Use) -> None:
    """Runs `use` with a client of the app over `run`."""

    async def main() -> None:
        async with TestClient(TestServer(build(Pages(run), token))) as client:
            await use(client)

    asyncio.run(main())


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return raft_run(tmp_path / "qwen-on-secrets")


def test_no_page_of_the_web_can_have_a_browser_ask(run: Path) -> None:
    """It would ask by its own name, which leads here (DNS rebinding)."""

    async def use(client: Any) -> None:
        for host in ("127.0.0.1:8400", "localhost:9", "[::1]:8400", "LOCALHOST", "127.0.0.2"):
            assert (await client.get("/", headers={"Host": host})).status == 200, host
        for host in ("evil.example", "localhost.evil.example:80", "10.0.0.7:8400", "[::2]:1", ""):
            answer = await client.get("/", headers={"Host": host})
            assert answer.status == 403, host
            assert "sum/all" not in await answer.text()

    asking(run, None, use)


def test_nothing_is_told_without_the_token(run: Path) -> None:
    async def use(client: Any) -> None:
        paths = ("/", "/sample", "/raw", "/id", "/nothing", "/style.css/", "/..%2fstyle.css")
        cookie = f"haloforge_view=x; haloforge_view_{client.port}=x"
        for path in paths:
            for headers in ({}, {"Authorization": "Bearer x"}, {"Cookie": cookie}):
                answer = await client.get(path, headers=headers)
                assert answer.status == 401, path
                text = await answer.text()
                assert SECRET not in text and "sum/all" not in text and run.name not in text
            for wrong in ("", "x", SECRET[:-1], SECRET + "x", "\u00e9"):
                answer = await client.get(path, params={"token": wrong}, allow_redirects=False)
                assert answer.status == 401
        given = {"Authorization": f"Bearer {SECRET}"}
        assert (await client.get("/", headers=given)).status == 200
        assert (await client.get("/nothing", headers=given)).status == 404

    asking(run, SECRET, use)


def test_the_token_goes_from_the_address_into_a_cookie(run: Path) -> None:
    async def use(client: Any) -> None:
        asked = {"token": SECRET, "outcome": "passed"}
        answer = await client.get("/", params=asked, allow_redirects=False)
        assert (answer.status, answer.headers["Location"]) == (303, "/?outcome=passed")
        cookie = answer.headers["Set-Cookie"]
        assert "HttpOnly" in cookie and "SameSite=Lax" in cookie and SECRET not in cookie
        elsewhere = f"{client.make_url('')}//evil.example/?token={SECRET}".replace("///", "//")
        assert "//evil" in elsewhere
        away = await client.session.get(URL(elsewhere, encoded=True), allow_redirects=False)
        assert away.headers["Location"] == "/"
        client.session.cookie_jar.clear()
        assert (await client.get("/")).status == 401
        ticket = cookie.partition(";")[0]
        assert ticket.startswith(f"haloforge_view_{client.port}="), "ports share their cookies"
        for host, status in ((f"gpu-7.example:{client.port}", 200), ("gpu-7.example:1", 401)):
            shown = await client.get("/", headers={"Cookie": ticket, "Host": host})
            assert shown.status == status
        named: dict[str, Any] = {
            "params": {"token": SECRET},
            "headers": {"Host": "gpu-7.example"},
        }
        answer = await client.get("/", **named, allow_redirects=False)
        assert answer.headers["Set-Cookie"].startswith("haloforge_view=")

    asking(run, SECRET, use)


def test_beyond_this_machine_there_is_always_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN, raising=False)
    assert token_for("127.0.0.1") is None
    first, second = token_for("0.0.0.0"), token_for("gpu-7")
    assert first and second and first != second and len(first) >= 32
    assert token_for("localhost", required=True)
    monkeypatch.setenv(TOKEN, SECRET)
    assert token_for("0.0.0.0") == token_for("127.0.0.1") == SECRET
    monkeypatch.setenv(TOKEN, "short")
    with pytest.raises(InputError, match="16 characters at least"):
        token_for("127.0.0.1")


def test_every_answer_forbids_scripts_frames_and_caches(run: Path) -> None:
    async def use(client: Any) -> None:
        for path in ("/", "/nothing", "/?outcome=x", "/style.css", "/id?sample=x"):
            answer = await client.get(path)
            policy = answer.headers["Content-Security-Policy"]
            assert policy.startswith("default-src 'none'; ") and "unsafe" not in policy
            assert "script-src" not in policy and "frame-ancestors 'none'" in policy
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Referrer-Policy"] == "no-referrer"
            assert answer.headers["Cache-Control"] == "no-store"
        for method in ("POST", "PUT", "DELETE"):
            assert (await client.request(method, "/")).status == 405

    asking(run, None, use)


HOSTILE = (
    "</pre></span><script>alert(1)</script><img src=x onerror=alert(2)>{{7*7}}\x1b[2J\u202e\x00"
)


def test_what_a_model_wrote_is_text(tmp_path: Path) -> None:
    """In every place of both pages: the only tags are those of the templates."""
    name = f'"><b>{HOSTILE}'
    write_cycle(tmp_path, 1, [Row(name, 0, 0.0, code=HOSTILE), Row("plain", 1, 0.0, code="x")])
    spoil(
        tmp_path / "cycle_1" / "verdicts" / "000001.parquet",
        "diagnostics",
        [HOSTILE.encode() + b"\xff\xfe", b"said"],
    )
    pages: dict[str, str] = {}

    async def use(client: Any) -> None:
        for key, asked in (("list", {}), ("found", {"problem": name})):
            pages[key] = await (await client.get("/", params=asked)).text()
        first = re.search(r'href="(/sample[^"]*)"', pages["list"])
        assert first
        answer = await client.get(html.unescape(first[1]))
        assert answer.status == 200
        pages["sample"] = await answer.text()
        raw = re.search(r'href="(/raw[^"]*what=diagnostics)"', pages["sample"])
        assert raw
        answer = await client.get(html.unescape(raw[1]))
        assert await answer.read() == HOSTILE.encode() + b"\xff\xfe"
        assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert answer.headers["Content-Disposition"].startswith("attachment")

    asking(tmp_path, None, use)
    for key, page in pages.items():
        assert "<script" not in page and "onerror=alert(2)&gt;" in page, key
        assert not re.search(r"<(?:img|b>&|/pre></span)", page), key
        assert "\x1b" not in page and "\u202e" not in page and "\x00" not in page, key
        assert "⟨U+202E⟩" in page and "{{7*7}}" in page, key
        assert "style=" not in page and "javascript:" not in page, key
    assert "Not valid UTF-8: diagnostics" in pages["sample"] and "��" in pages["sample"]


def test_a_wrong_question_is_one_line(run: Path) -> None:
    async def use(client: Any) -> None:
        for path, status, told in (
            ("/?outcome=nope", 400, "unknown outcome &#39;nope&#39;; known: no_code"),
            ("/?min_reward=x", 400, "min_reward: expected a number, found &#39;x&#39;"),
            ("/?min_reward=nan", 400, "expected a number"),
            ("/?cycle=1.5", 400, "cycle: expected a whole number"),
            ("/?kept=maybe", 400, "kept: expected yes or no"),
            ("/sample?in=cycle_1&of=sum/all&n=999", 404, "no such sample"),
            ("/sample?in=../..&of=x&n=0", 404, "no such sample"),
            ("/raw?in=cycle_1&of=sum/all&n=0&what=policy", 404, "no such text"),
            ("/id?sample=none", 404, "no sample has the id"),
            ("/..%2f..%2fetc/passwd", 404, "there is no such page"),
        ):
            answer = await client.get(path)
            assert (answer.status, told in await answer.text()) == (status, True), path
        page = await (await client.get("/?page=999&source=samples")).text()
        assert "<b>160</b> of" in page and "151 to 160" in page and "page 4 of 4" in page

    asking(run, None, use)


def test_several_outcomes_stay_with_the_form(run: Path) -> None:
    """What the form sends is what was asked, until another outcome is chosen."""

    async def use(client: Any) -> None:
        page = await (await client.get("/?outcome=passed&outcome=compile_error")).text()
        (form,) = re.findall(r'<select id="outcome".*?</select>', page, re.DOTALL)
        (sent,) = re.findall(r'<option value="([^"]*)" selected>', form)
        assert form.count(" selected") == 1
        again = await (await client.get("/", params={"outcome": sent})).text()
        (told,) = re.findall(r"<b>[\d,]+</b> of", page)
        assert told in again
        (rows, both) = (set(re.findall(r"/sample[^\"]*", each)) for each in (page, again))
        assert rows == both != set()
        one = await (await client.get("/?outcome=passed")).text()
        assert told not in one and "<option selected>passed</option>" in one

    asking(run, None, use)


def test_it_is_read_again_where_shards_went(run: Path) -> None:
    """A folder that goes while it is shown is told, and is no traceback."""

    async def use(client: Any) -> None:
        assert (await client.get("/")).status == 200
        for path in (run / "cycle_1" / "samples").iterdir():
            path.rename(path.with_suffix(".gone"))
        answer = await client.get("/sample?in=cycle_1&of=sum/all&n=0")
        assert answer.status == 404, "it was looked for again, in what is left"
        answer = await client.get("/?source=samples")
        page = await answer.text()
        assert answer.status == 200 and "<b>80</b> of" in page
        assert "a committed shard cannot be read" in page and "cycle_1/samples/" in page

    asking(run, None, use)


def test_what_leads_to_other_pages_asks_for_the_same() -> None:
    wanted = Filter(min_reward=1 / 3, max_reward=1e-7, cycle=2, outcomes=("passed", "no_code"))
    asked = URL(list_url(wanted, 3)).query
    assert filter_of(asked) == wanted
    assert (number(0.5), number(1.0), number(None)) == ("0.5", "1", "")
