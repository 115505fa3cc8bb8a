"""Text of models: what is not drawn is shown, and what can be read stays as it is."""

import sys
import unicodedata

import pytest

from haloforge.report.hostile import clipped, decoded, first_line, visible


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
