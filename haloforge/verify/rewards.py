"""The graduated rewards: the highest rung that an answer reached."""

import re

from haloforge.schema import Outcome

NO_PROGRAM, WITH_WARNINGS, COMPILED_CLEAN, RAN, RIGHT = 0.0, 0.3, 0.5, 0.7, 1.0

NEWLINE = re.compile(r"\r\n?")  # each is one to compilers
SPLICE = re.compile(r"\\[ \t\v\f]*\n")
# A pragma that silences has a word of each row, and macros, those of headers too, can put together
# any word from pieces. Looked for in comments and strings too: `_Pragma` takes a string.
PRAGMA_WORDS = (("GCC", "clang"), ("diagnostic", "system_header"))
# Line markers (`# 1 "x.h" 3`) can declare the rest of a file a system header. A comment may stand
# before each part.
BLANK = r"[ \t\v\f]*"
MARKER = re.compile(
    rf"(?:^|\*/){BLANK}#{BLANK}\d|\*/{BLANK}[\d']+(?:[ \t]+[A-Za-z_]|{BLANK}(?:\"|/\*))", re.M
)
# Comments and raw strings, in which no line is a directive. The rest of a line is kept from a quote
# or a # on: what looks like the beginning of a comment there may be none. So may an R that follows
# more than a blank or `(<=,`: it may be the end of a name, a number or a suffix.
NOISE = re.compile(
    r"//.*$"
    r"|/\*[\s\S]*?(?:\*/|\Z)"
    r"|(?<![^\s(<=,])(?:u8|[uUL])?R\"([^()\\\s]{0,16})\([\s\S]*?(?:\)\1\"|\Z)"
    r"|(?P<kept>[\"'#].*$)",
    re.M,
)
ALLOWS = {  # Rust's attributes and Java's annotations that do the same
    "rust": re.compile(
        r"\b(?:allow|cfg_attr)\s*(?:\(|/[*/])|#\s*!?\s*\[\s*expect\b"
        rf"|(?:\*/|\n|r#){BLANK}expect\b"
    ),
    "java": re.compile(r"\bSuppressWarnings\b"),
}
UNICODE_ESCAPE = re.compile(r"\\u+([0-9A-Fa-f]{4})")  # Java reads them before all else


def reward(outcome: Outcome, warnings: bool, ran: bool) -> float:
    """The reward of an outcome, in [0, 1]. An `INFRA_ERROR` has none: its 0.0 must not be used."""
    if outcome is Outcome.PASSED:
        return RIGHT
    if outcome in (Outcome.NO_CODE, Outcome.COMPILE_ERROR, Outcome.INFRA_ERROR):
        return NO_PROGRAM
    if ran:
        return RAN
    return WITH_WARNINGS if warnings else COMPILED_CLEAN


def silences_warnings(code: str, language: str) -> bool:
    """Whether a source switches warnings off: C and C++ by pragma or by line markers, Rust and Java
    by attributes.

    Such a source is scored as if it warned. Spliced lines and digraphs are seen through.
    """
    if language in ALLOWS:
        text = UNICODE_ESCAPE.sub(lambda match: chr(int(match[1], 16)), code)
        return bool(ALLOWS[language].search(text))
    if language not in ("c", "cpp"):
        return False
    lines = NEWLINE.sub("\n", code.lstrip("\ufeff"))
    text = SPLICE.sub("", lines).replace("%:", "#")
    if MARKER.search(_bare(text, exact=lines == text)):
        return True
    pieces = set(re.findall(r"\w+", text))
    return all(any(_spells(pieces, word) for word in words) for words in PRAGMA_WORDS)


def _bare(text: str, exact: bool) -> str:
    """C or C++ without its comments and raw strings; all of it where those are not certain, as raw
    strings are only if the text is exactly what was written."""
    bare = NOISE.sub(lambda found: found["kept"] or " ", text)
    return text if "/*" in bare or 'R"' in (bare if exact else text) else bare


def _spells(pieces: set[str], word: str) -> bool:
    """Whether some of the pieces, put together, are the word."""
    pieces = {piece for piece in pieces if piece in word}
    starts = [piece for piece in pieces if word.startswith(piece)]
    return not word or any(_spells(pieces, word[len(piece) :]) for piece in starts)
