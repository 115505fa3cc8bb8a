"""The program in an answer, and its highlighting. No code is run: it is a stranger's text."""

import re
import time
from collections.abc import Iterator
from typing import NamedTuple

from markupsafe import Markup, escape
from pygments.lexers import get_lexer_by_name
from pygments.token import Comment, Keyword, Name, Number, Operator, Punctuation, String, _TokenType
from pygments.util import ClassNotFound

from haloforge.report.hostile import clipped, visible
from haloforge.verify.extract import Extracted, as_it_stands, extract, last_block
from haloforge.verify.toolchains import default_language
from haloforge.view.asked import Asked

MOST_SHOWN = 200_000
_MOST_LOOKED_AT = 1_000_000
_MOST_COLOURED = 20_000
_LONGEST_LINE = 2_000
_MOST_LINES = 4_000
_COLOUR_S = 0.25
_EXCERPT_LINES = 2
_PLACE = re.compile(r":(\d{1,6}):|\bline (\d{1,6})\b")
_USUAL = re.compile(
    r"\s*(?:#\s*include|using\b|import\b|from \w|package\b|use \w|int main\(|def main\(|\}|#|//)"
)
_STYLES: dict[_TokenType, str] = {
    Comment.Preproc: "p",
    Comment.PreprocFile: "s",
    Comment: "c",
    Keyword.Type: "t",
    Keyword: "k",
    Operator.Word: "k",
    String: "s",
    Number: "m",
    Name.Function: "f",
    Name.Class: "f",
    Name.Builtin: "t",
    Name.Decorator: "p",
    Punctuation: "",
}


class Shown(NamedTuple):
    """Text as it stands on a page, and how many characters of it are left out."""

    lines: list[Markup]
    left_out: int
    language: str | None


def code_of(answer: str, asked: Asked, verifier: str) -> Extracted | None:
    """The program that was judged, as the verifier finds it; None where the answer has none."""
    text = answer[:_MOST_LOOKED_AT]
    wanted = default_language(verifier, asked.language)
    if asked.form == "prefix":
        return as_it_stands(text, wanted)
    return extract(text, wanted) or last_block(text)


def shown(text: str, language: str | None = None, most: int = MOST_SHOWN) -> Shown:
    """`text` in lines of HTML, coloured where it is short code in a language that is known."""
    text, left_out = clipped(text, most)
    text = visible(text)
    coloured = _coloured(text, language) if language and not left_out else None
    if coloured is None:
        lines = text.split("\n")
        if len(lines) > _MOST_LINES:  # a page of so many elements would be slow
            lines = [*lines[:_MOST_LINES], "\n".join(lines[_MOST_LINES:])]
        coloured = [escape(line) for line in lines]
    if coloured and not coloured[-1]:
        coloured.pop()  # what follows the last line end
    return Shown(coloured, left_out, language)


def excerpt(code: str, said: str) -> list[str]:
    """The line that the diagnostics name, else the first that are more than a program's usual head
    and foot."""
    lines = code.split("\n")
    place = int(found[1] or found[2]) - 1 if (found := _PLACE.search(said)) else -1
    if 0 <= place < len(lines) and lines[place].strip():
        return [f"{place + 1}: {lines[place].strip()}"]
    return [line for line in lines if line.strip() and not _USUAL.match(line)][:_EXCERPT_LINES]


def _coloured(text: str, language: str) -> list[Markup] | None:
    """None where that would take long: lexers look far ahead, and an answer may know that."""
    lines = text.split("\n")
    long = len(text) > _MOST_COLOURED or len(lines) > _MOST_LINES
    if long or max(map(len, lines)) > _LONGEST_LINE:
        return None
    try:
        pieces = list(_in_time(text, language))
    except (ClassNotFound, TimeoutError):
        return None
    found: list[list[Markup]] = [[]]
    for style, piece in pieces:
        for number, part in enumerate(piece.split("\n")):
            if number:
                found.append([])
            if part:
                html = Markup('<span class="{}">{}</span>').format(style, part)
                found[-1].append(html if style else escape(part))
    return [Markup("").join(line) for line in found]


def _in_time(text: str, language: str) -> Iterator[tuple[str, str]]:
    """Pieces of `text` with the name of their style. Raises TimeoutError."""
    lexer = get_lexer_by_name(language, stripnl=False, ensurenl=False)
    until = time.monotonic() + _COLOUR_S
    for kind, piece in lexer.get_tokens(text):
        if time.monotonic() > until:
            raise TimeoutError
        yield _style(kind), piece


def _style(kind: _TokenType) -> str:
    while kind.parent is not None:
        if kind in _STYLES:
            return _STYLES[kind]
        kind = kind.parent
    return ""
