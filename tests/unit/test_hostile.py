"""Text of models: what is not drawn is shown, and what can be read stays as it is."""

import sys
import unicodedata

import pytest

from haloforge.report.hostile import clipped, decoded, first_line, telling_line, visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J", "␛[2J"),
        ("a\x00b\x07\x7f", "a␀b␇␡"),
        ("\x9b31m", "⟨U+009B⟩31m"),
        ("if \u202e admin \u2066", "if ⟨U+202E⟩ admin ⟨U+2066⟩"),
        ("a\u200bb\u200f\u061c\ufeff", "a⟨U+200B⟩b⟨U+200F⟩⟨U+061C⟩⟨U+FEFF⟩"),
        ("half \ud800", "half ⟨U+D800⟩"),
        ("one\r\ntwo\rthree", "one\ntwo␍three"),
        ("\tint é = 'ß'; // 漢字 😀\n", "\tint é = 'ß'; // 漢字 😀\n"),
        ("<script>&amp;", "<script>&amp;"),
    ],
)
def test_what_is_not_drawn_is_shown(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_nothing_in_unicode_that_controls_or_turns_text_is_left() -> None:
    left = visible("".join(map(chr, range(sys.maxunicode + 1))))
    kept = {"\t", "\n"}
    assert {c for c in left if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")} == kept
    assert not [c for c in left if unicodedata.bidirectional(c) in _TURNING]
    # Of those that format, what is drawn stays: signs over numbers, and of musical notation.
    formats = {unicodedata.name(c).split()[0] for c in left if unicodedata.category(c) == "Cf"}
    assert formats <= {"ARABIC", "SYRIAC", "KAITHI", "EGYPTIAN", "SHORTHAND", "MUSICAL"}


_TURNING = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


def test_what_is_stored_is_read_whatever_it_is() -> None:
    assert decoded(b"a\xffb") == "a\ufffdb"
    assert decoded(None) == ""


def test_long_text_is_cut_and_said_to_be() -> None:
    assert clipped("abcdef", 4) == ("abcd", 2)
    assert clipped("abc", 4) == ("abc", 0)
    assert first_line("\n  \n\x1b error: no compiler \nmore") == "␛ error: no compiler"
    assert first_line("x" * 200, 10) == "x" * 10 + "…"


@pytest.mark.parametrize(
    ("diagnostics", "told"),
    [
        (
            "main.cpp: In function 'int main()':\na.cpp:3:1: warning: x\na.cpp:8:5: error: no y",
            2,
        ),
        ("main.c:1:9: fatal error: x.h: No such file\ncompilation terminated.", 0),
        ("warning: unused\nerror[E0308]: mismatched types\n --> main.rs:2:5", 1),
        ("# command-line-arguments\n./main.go:3:19: unused declared but not used", 1),
        ('Traceback (most recent call last):\n  File "main.py", line 1\nSyntaxError: invalid', 2),
        ("/box/main.js:1\nfunction (\n\nSyntaxError: x\n    at wrapSafe", 3),
        ("main.ts(3,5): error TS2304: Cannot find name", 0),
        ("ld: main.o: in function `main':\nmain.cpp:(.text+0x5): undefined reference to `f()'", 1),
        ("main.cpp: In function 'int main()':\nmain.cpp:4:22: warning: unused", 1),
        ("test 1: died of signal 6\nmain.cpp: In function 'f':\nmain.cpp:1:1: warning: x", 0),
        ("In file included from a.h:1,\n                 from a.cpp:2:\nb.h:1:1: warning: y", 2),
        ("test 1: printed 'error'\ntest 4: printed 'Error: x'", 0),
        ("\n\nnothing of the kind", 2),
    ],
)
def test_the_line_that_tells(diagnostics: str, told: int) -> None:
    assert telling_line(diagnostics) == diagnostics.split("\n")[told]
