"""One form for programs that differ in comments and white space alone.

Token by token with regular expressions, a few microseconds a line. Pygments, which is installed
too, takes 1 ms for a C++ program of ten lines and reads `"x // y"` in a `#define` as a comment.
"""

import re
from collections.abc import Callable
from functools import lru_cache

_STRING = r'"(?:\\.|[^"\\\n])*"'
_CHAR = r"'(?:\\.|[^'\\\n])*'"
_COMMENTS = r"//(?:\\\n|[^\n])*|/\*(?:.*?\*/|.*)"
_NESTED_COMMENTS = r"//[^\n]*|/\*(?:/\*.*?\*/|(?!\*/).)*(?:\*/|$)"
_C_RAW = r'(?:u8|[uUL])?R"(?P<mark>[^()\\\s]{0,16})\(.*?\)(?P=mark)"'
_C_NUMBER = r"\b\d[\w.]*(?:'[\w.]+)+"  # 1'000: no character begins there
_RUST_RAW = r'\b[bc]?r(?P<mark>#*)".*?"(?P=mark)'
_RUST_CHAR = r"'(?:\\[^'\n]*.|[^'\\\n])'"  # 'a alone is a lifetime
_TEMPLATE = r"`(?:\\.|\$\{(?:[^`{}]|`[^`]*`|\{[^{}]*\})*+\}|[^`\\])*+`"
_JS_REGEX = (
    r"(?:(?<=[(,=:\[!&|?{};\n])|(?<=[(,=:\[!&|?{};] )|(?<=\breturn ))"
    # Bounded, or a text made for that would take seconds.
    r"/(?![*/])(?:\\.|\[(?:\\.|[^\]\\\n]){0,200}+\]|[^/\\\[\n]){1,400}+/"
)
_TRIPLE = r'"""(?:\\.|[^\\])*?"""'
_PYTHON = rf"{_TRIPLE}|'''(?:\\.|[^\\])*?'''|\"(?:\\.|[^\"\\\n])*\"|{_CHAR}"
_DIRECTIVE = rf"#(?:\\\n|{_STRING}|{_CHAR}|//[^\n]*|/\*.*?\*/|[^\n])*\n?"


def _pattern(literals: str, comments: str = _COMMENTS, directives: str = "") -> re.Pattern[str]:
    """`literal` is kept as it stands, `gap` is a run of white space and comments."""
    directive = f"|(?P<directive>{directives})" if directives else ""
    return re.compile(rf"(?P<literal>{literals}){directive}|(?P<gap>(?:\s+|{comments})+)", re.S)


_C = _pattern(rf"{_C_RAW}|{_C_NUMBER}|{_STRING}|{_CHAR}", directives=_DIRECTIVE)
_PATTERNS = {
    "c": _C,
    "cpp": _C,
    "rust": _pattern(rf'{_RUST_RAW}|"(?:\\.|[^"\\])*"|{_RUST_CHAR}', _NESTED_COMMENTS),
    "go": _pattern(rf"`[^`]*`|{_STRING}|{_CHAR}"),
    "java": _pattern(rf"{_TRIPLE}|{_STRING}|{_CHAR}"),
    "javascript": _pattern(rf"{_TEMPLATE}|{_STRING}|{_CHAR}|{_JS_REGEX}"),
    "python": _pattern(_PYTHON, r"#[^\n]*|\\\n"),
}
_IN_DIRECTIVE = re.compile(
    rf"(?P<literal>{_STRING}|{_CHAR})|(?P<gap>(?:\s|\\\n|{_COMMENTS})+)", re.S
)
_WORD = re.compile(r"[\w\"'`$]")
# Two characters that, side by side, are another token or a part of one in some language.
_JOINED = re.compile(
    r"([-+&|<>=:/.*#?])\1|[-+*/%&|^<>=!:]=|[-=]>|/\*|\*/|\.\*|\?\.|<[:%]|[:%]>|%:|&\^"
)


def normalise(code: str, language: str | None) -> str:
    """`code` without comments, and without white space that means nothing in `language`.

    String and character literals stay as they are, docstrings among them; of Python its
    indentation stays, of Go and JavaScript the ends of lines. Code in no known language is only
    stripped. Programs with the same form are the same program; of one program there may be two
    forms (`vector<vector<int> >` and `vector<vector<int>>`).
    """
    pattern = _PATTERNS.get(language or "")
    if pattern is None:
        return code.strip()
    gap = _GAPS.get(language or "", _gap)

    def kept(match: re.Match[str]) -> str:
        if match.lastgroup == "literal":
            return match[0]
        if match.lastgroup == "directive":
            inner = _IN_DIRECTIVE.sub(lambda part: part["literal"] or " ", match[0])
            return f"\n#{inner[1:].strip()}\n"
        begin, end = match.span()
        return gap(match[0], text[begin - 1 : begin] if begin else "", text[end : end + 1])

    text = f"\n{code}\n"
    return pattern.sub(kept, text).strip("\n")


def without_comments(code: str, language: str | None) -> str:
    """`code` without the comments of `language`, its lines and their indentation as they were.

    Literals stay as they are, docstrings among them; so does code in no known language.
    """
    pattern = _PATTERNS.get(language or "")
    if pattern is None:
        return code

    def kept(match: re.Match[str]) -> str:
        if match.lastgroup == "literal":
            return match[0]
        if match.lastgroup == "directive":
            return _IN_DIRECTIVE.sub(lambda part: part["literal"] or _blank(part[0]), match[0])
        return _blank(match[0])

    return pattern.sub(kept, code)


def _blank(gap: str) -> str:
    """A run of white space and comments as white space."""
    if gap.isspace():
        return gap
    ends = gap.count("\n")
    last = gap.rpartition("\n")[2]
    return "\n" * ends + (last if last.isspace() else " " if not ends else "")


def _gap(gap: str, before: str, after: str) -> str:
    return _between(before, after)


@lru_cache(10_000)  # a few hundred pairs make up most programs
def _between(before: str, after: str) -> str:
    """A space where the tokens that end and begin so would be one without it."""
    words = _WORD.match(before) and _WORD.match(after)
    return " " if words or _JOINED.fullmatch(before + after) else ""


def _line_gap(gap: str, before: str, after: str) -> str:
    if "\n" in gap:
        return "\n"
    return " " if before + after == "<-" else _between(before, after)  # Go's channels


def _python_gap(gap: str, before: str, after: str) -> str:
    """A line's end with the next line's indentation, or as `_gap`."""
    lines = re.sub(r"#[^\n]*", "", gap).replace("\\\n", " ").split("\n")
    if len(lines) == 1:
        return _between(before, after)
    return f"\n{lines[-1]}" if after else "\n"


# The end of a line may end a statement in these.
_GAPS: dict[str, Callable[[str, str, str], str]] = {
    "go": _line_gap,
    "javascript": _line_gap,
    "python": _python_gap,
}
