"""The graduated rewards: the highest rung that an answer reached."""

import re

from haloforge.schema import Outcome

NO_PROGRAM, WITH_WARNINGS, COMPILED_CLEAN, RAN, RIGHT = 0.0, 0.3, 0.5, 0.7, 1.0

# Looked for in comments and strings too: what those are is easily obscured. Hundreds of real
# answers have none of it.
SPLICE = re.compile(r"\\[ \t\v\f]*\r?\n")
PRAGMA = re.compile(r"[Pp]ragma\b")
PRAGMA_WORDS = re.compile(r"\b(?:diagnostic|system_header)\b")
# Macros can put together any word from pieces of it.
PASTE = re.compile(r"##(?!\s*__VA_ARGS__)")
# Line markers (`# 1 "x.h" 3`) and #line can declare the rest of a file a system header. A comment
# may stand before each part.
BLANK = r"[ \t\v\f]*"
MARKER = re.compile(
    rf"(?:^|\*/){BLANK}#{BLANK}(?:\d|line\b)"
    rf"|\*/{BLANK}(?:line\b|\d+(?:[ \t]+[A-Za-z_]|{BLANK}(?:\"|/\*)))",
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
    text = SPLICE.sub("", code).replace("%:", "#")
    if PASTE.search(text) or MARKER.search(text):
        return True
    return bool(PRAGMA.search(text) and PRAGMA_WORDS.search(text))
