"""Code on a page: every character is there, as text, in time that nobody else decides."""

import html
import re

import pytest
from markupsafe import Markup, escape

from haloforge.report.hostile import visible
from haloforge.view.asked import Asked
from haloforge.view.code import code_of, excerpt, shown

PYTHON = 'def f(x):\n    """a\n    b"""\n    return f"{x}" + "<b>"  # <script>\n'
CPP = '#include <vector>\n/* a\n b */ int main() { return "x</pre>"[0] < 1; }\n'


def plain(lines: list[Markup]) -> str:
    """What a reader sees of these lines."""
    return "\n".join(html.unescape(re.sub(r"<[^>]*>", "", line)) for line in lines)


@pytest.mark.parametrize(("text", "language"), [(PYTHON, "python"), (CPP, "cpp"), (CPP, "nope")])
def test_colours_change_no_character(text: str, language: str) -> None:
    found = shown(text, language)
    assert plain(found.lines) == text.rstrip("\n")
    tags = set(re.findall(r"<[^>]*>", "".join(found.lines)))
    assert tags <= {"</span>", *(f'<span class="{name}">' for name in "ktscmfp")}
    assert bool(tags) == (language != "nope")


def test_hidden_characters_are_seen_in_code_too() -> None:
    text = 'x = "\u202e\x1b[31m\u200b\ufeff"\r\ny = 1\rz\n'
    found = shown(text, "python")
    assert plain(found.lines) == visible(text).rstrip("\n")
    assert "\u202e" not in "".join(found.lines) and "⟨U+202E⟩" in plain(found.lines)


@pytest.mark.parametrize(
    "text",
    [
        "/*" * 9_990,
        "/* " * 6_000,
        '"' * 19_000,
        "(" * 19_000,
        'R"(' * 6_000,
        "\n" * 19_000,
        "#if 0\n" * 3_000,
        "a" * 5_000_000,
        "/*\n" * 6_000,
    ],
    ids=range(9),
)
@pytest.mark.parametrize("language", ["cpp", "python", "javascript", "rust"])
def test_a_text_that_makes_lexers_slow_is_shown_all_the_same(text: str, language: str) -> None:
    """Without a limit some take minutes."""
    found = shown(text, language)
    assert len(plain(found.lines)) + found.left_out >= len(text.rstrip("\n")) - 1


def test_what_is_not_coloured_in_time_is_shown_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("haloforge.view.code._COLOUR_S", -1.0)
    assert shown(CPP, "cpp").lines == [escape(line) for line in CPP.rstrip("\n").split("\n")]


def test_what_is_long_is_cut_and_counted() -> None:
    found = shown("ab\n" * 100_000, "cpp", most=3_000)
    assert (len(found.lines), found.left_out) == (1_000, 297_000)


def test_the_code_is_that_which_was_judged() -> None:
    answer = "Here:\n```cpp\nint main() {}\n```\nor\n```python\nprint(1)\n```\n"
    for language, code in (("cpp", "int main() {}\n"), ("python", "print(1)\n")):
        found = code_of(answer, Asked("?", language), "auto")
        assert found is not None and (found.code, found.language) == (code, language)
    assert code_of("I do not know.", Asked("?", "cpp"), "auto") is None
    prefix = code_of("    return 1\n", Asked("def f():\n", "python", form="prefix"), "auto")
    assert prefix is not None and prefix.code == "    return 1\n"


def test_an_excerpt_is_the_line_at_fault() -> None:
    code = "#include <iostream>\nusing namespace std;\n\nint main() {\n  int a;\n  a = b;\n}\n"
    assert excerpt(code, "main.cpp:6:7: error: 'b' was not declared") == ["6: a = b;"]
    assert excerpt(code, "") == ["  int a;", "  a = b;"]
    assert excerpt(code, "main.cpp:99:1: error") == ["  int a;", "  a = b;"]
