"""Text that a model wrote, or anybody else, made safe to look at."""

import re
from collections.abc import Sequence

_UNSEEN = re.compile(
    # Controls but for tab and line end; soft hyphen; marks, zero-width characters and fillers that
    # are not drawn or turn what is around them; separators that end a line; surrogates; what a
    # browser takes for no character at all; language tags.
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    "\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff0-\ufffb"
    "\ud800-\udfff\ufffe\uffff\U000e0000-\U000e0fff]"
)
_ERROR = re.compile(
    r"(?:^|[:\s])(?:fatal )?error(?:\[E\d+\])?: "  # gcc, clang, javac, rustc
    r"|\berror TS\d+"  # tsc
    r"|^\S+\.go:\d+:\d+: "  # Go, which has no word for it
    r"|^(?:\w+\.)*\w*(?:Error|Exception)\b"  # what a traceback ends in, Python's and Node's
    r"|\bundefined reference to "  # the linker
)
_PLACE_ONLY = re.compile(r": (?:In|At) .*:$|^In file included from |^ +from |^# ")
"""Says where what follows is: gcc's lines before an error or a warning, and Go's of the package."""
_PICTURES = 0x2400  # U+2400 to U+241F are pictures of the C0 controls, U+2421 of DEL


def visible(text: str) -> str:
    """`text` with each character that is not drawn, or that turns the text around it, as a mark:
    C0 controls as their picture (escape is ␛), others as their number (⟨U+202E⟩). Tabs and line
    ends stay; a carriage return before a line end goes. Not HTML: that is for a template to escape.
    """
    return _UNSEEN.sub(_mark, text.replace("\r\n", "\n"))


def decoded(raw: bytes | None) -> str:
    """What is stored as text, also where it is no valid UTF-8."""
    return (raw or b"").decode("utf-8", errors="replace")


def clipped(text: str, length: int) -> tuple[str, int]:
    """The first `length` characters at most, and how many more there are."""
    return text[:length], max(0, len(text) - length)


def first_line(text: str, length: int = 160) -> str:
    """The first line that says something, visible, of `length` characters at most."""
    return _one(text.splitlines(), length)


def telling_line(diagnostics: str, length: int = 160) -> str:
    """The first line that names an error, as compilers and interpreters do; else the first that
    says more than where the next is; else the first. Visible, of `length` characters at most."""
    lines = diagnostics.splitlines()
    errors = [line for line in lines if _ERROR.search(line)]
    others = [line for line in lines if not _PLACE_ONLY.search(line)]
    return _one([*errors, *others, *lines], length)


def _one(lines: Sequence[str], length: int) -> str:
    line = next((line.strip() for line in lines if line.strip()), "")
    shown, more = clipped(visible(line), length)
    return f"{shown}…" if more else shown


def _mark(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < 0x20:
        return chr(_PICTURES + code)
    if code == 0x7F:
        return "\u2421"
    return f"⟨U+{code:04X}⟩"
