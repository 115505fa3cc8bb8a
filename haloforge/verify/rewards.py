"""The graduated rewards: the highest rung that an answer reached."""

import re

from haloforge.schema import Outcome

NO_PROGRAM, WITH_WARNINGS, COMPILED_CLEAN, RAN, RIGHT = 0.0, 0.3, 0.5, 0.7, 1.0

STRING_OR_COMMENT = re.compile(r"\"(?:\\.|[^\"\\\n])*\"|//[^\n]*|/\*.*?\*/", re.S)
# Line markers (`# 1 "x.h" 3`) and #line can declare the rest of a file a system header.
SILENCER = re.compile(
    r"^\s*#\s*(?:line\b|\d|pragma\s+(?:GCC|clang)\s+(?:diagnostic|system_header)\b)", re.M
)
ALLOWS = {  # Rust's attributes and Java's annotations that do the same
    "rust": re.compile(r"#\s*!?\s*\[\s*(?:allow|expect|cfg_attr)\b"),
    "java": re.compile(r"@\s*(?:java\s*\.\s*lang\s*\.\s*)?SuppressWarnings\b"),
}
UNICODE_ESCAPE = re.compile(r"\\u+([0-9A-Fa-f]{4})")  # Java reads them before all else
PRAGMA_OPERATOR = re.compile(r"\b(?:_Pragma|__pragma)\b")
PRAGMA_WORDS = re.compile(r"\b(?:diagnostic|system_header)\b")


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

    Such a source is scored as if it warned. Spliced lines, digraphs and trigraphs are seen through.
    """
    if language in ALLOWS:  # in comments and strings too: what those are is easily obscured
        text = UNICODE_ESCAPE.sub(lambda match: chr(int(match[1], 16)), code)
        return bool(ALLOWS[language].search(text))
    if language not in ("c", "cpp"):
        return False
    text = code.replace("\r\n", "\n").replace("??/\n", "").replace("\\\n", "")
    text = text.replace("%:", "#").replace("??=", "#")
    if PRAGMA_OPERATOR.search(text) and PRAGMA_WORDS.search(text):
        return True  # its argument may be put together by macros
    return bool(SILENCER.search(STRING_OR_COMMENT.sub(_blank, text)))


def _blank(match: "re.Match[str]") -> str:
    return match[0] if match[0].startswith('"') else " "
