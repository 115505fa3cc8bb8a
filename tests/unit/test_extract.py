"""Extraction on answers as small models write them: every fence, spelling, cut-off and aside."""

import json
import re
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haloforge.verify.extract import C_PART, Extracted, extract, guess_language, program_likeness

CPP = "#include <iostream>\nint main() {\n    std::cout << 1;\n}\n"
HELPER = "int twice(int x) {\n    return 2 * x;\n}\n"
PY = "n = int(input())\nprint(n * 2)\n"
DEF = "def twice(n):\n    return n * 2\n"
C = '#include <stdio.h>\nint main(void) {\n    printf("1");\n    return 0;\n}\n'


def fenced(tag: str, code: str, fence: str = "```") -> str:
    return f"{fence}{tag}\n{code}{fence}"


# name: (completion, wanted language, code, language)
FOUND: dict[str, tuple[str, str | None, str, str]] = {
    "plain tag": (f"Here you go:\n\n{fenced('cpp', CPP)}\n", "cpp", CPP, "cpp"),
    "c++": (fenced("c++", CPP), "cpp", CPP, "cpp"),
    "C++": (fenced("C++", CPP), "cpp", CPP, "cpp"),
    "CPP": (fenced("CPP", CPP), "cpp", CPP, "cpp"),
    "cc": (fenced("cc", CPP), "cpp", CPP, "cpp"),
    "cxx": (fenced("cxx", CPP), "cpp", CPP, "cpp"),
    "cpp17": (fenced("cpp17", CPP), "cpp", CPP, "cpp"),
    "c++20 with a space": (fenced(" c++20 ", CPP), "cpp", CPP, "cpp"),
    "py": (fenced("py", PY), "python", PY, "python"),
    "python3": (fenced("python3", PY), "python", PY, "python"),
    "Python 3": (fenced("Python 3", PY), "python", PY, "python"),
    "python3.11": (fenced("python3.11", PY), None, PY, "python"),
    "c": (fenced("c", C), "c", C, "c"),
    "tilde fence": (fenced("cpp", CPP, "~~~"), "cpp", CPP, "cpp"),
    "four backticks": (fenced("cpp", CPP, "````"), "cpp", CPP, "cpp"),
    "attribute list": (fenced("{.cpp .numberLines}", CPP), "cpp", CPP, "cpp"),
    "info string": (fenced("cpp title=main.cpp", CPP), "cpp", CPP, "cpp"),
    "info string with braces": (fenced("python {linenos=true}", PY), "python", PY, "python"),
    "tag on the next line": (f"```\ncpp\n{CPP}```", "cpp", CPP, "cpp"),
    "tag on the next line, none wanted": (f"```\npython\n{PY}```", None, PY, "python"),
    "no tag": (fenced("", CPP), "cpp", CPP, "cpp"),
    "no tag, none wanted": (fenced("", PY), None, PY, "python"),
    "no tag, C recognised": (fenced("", C), None, C, "c"),
    "neutral tag": (fenced("plaintext", CPP), "cpp", CPP, "cpp"),
    "wrong tag on a whole program": (fenced("java", CPP), "cpp", CPP, "cpp"),
    "C tag where C++ is wanted": (fenced("c", CPP), "cpp", CPP, "c"),
    "windows line ends": (fenced("cpp", CPP).replace("\n", "\r\n"), "cpp", CPP, "cpp"),
    "whole file, no fence": (CPP, "cpp", CPP, "cpp"),
    "whole script, no fence": (PY, "python", PY, "python"),
    "no fence, prose around": (
        f"Sure! Here is the program.\n\n{CPP}\nThis prints one.\nHope it helps",
        "cpp",
        CPP,
        "cpp",
    ),
    "no fence, script in prose": (
        f"Here is the script:\n\nimport sys\n{DEF}print(twice(int(sys.stdin.read())))\n\n"
        "It doubles its input.",
        "python",
        f"import sys\n{DEF}print(twice(int(sys.stdin.read())))\n",
        "python",
    ),
    "fence opened by the prompt": (f"{CPP}```\n\nThis prints one.", "cpp", CPP, "cpp"),
    "fence opened by the prompt, python": (f"{PY}```\nDone.", "python", PY, "python"),
    "a heading that looks like a comment": (
        f"# Solution\nRead n with input() and double it.\n{fenced('', PY)}",
        "python",
        PY,
        "python",
    ),
    "cut off": (f"Answer:\n```cpp\n{CPP}"[:-2], "cpp", CPP[:-2], "cpp"),
    "closed at the end of a code line": (f"```cpp\n{CPP[:-1]}```", "cpp", CPP, "cpp"),
    "opened after words": (f"The code is: ```cpp\n{CPP}```", "cpp", CPP, "cpp"),
    "all on one line": (
        "Use ```python print(input())``` for it.",
        "python",
        "print(input())\n",
        "python",
    ),
    "indented in a list": (
        "1. First:\n\n   ```python\n   n = int(input())\n   print(n * 2)\n   ```\n",
        "python",
        PY,
        "python",
    ),
    "program before a snippet": (
        f"{fenced('cpp', CPP)}\nThe helper is:\n{fenced('cpp', HELPER)}",
        "cpp",
        CPP,
        "cpp",
    ),
    "last of two programs": (
        f"{fenced('cpp', CPP)}\nWait, better:\n{fenced('cpp', CPP.replace('1', '2'))}",
        "cpp",
        CPP.replace("1", "2"),
        "cpp",
    ),
    "whole before cut off": (
        f"{fenced('cpp', CPP)}\nOr shorter:\n```cpp\n#include <cstdio>\nint main() {{",
        "cpp",
        CPP,
        "cpp",
    ),
    "shell and output beside it": (
        f"{fenced('cpp', CPP)}\n{fenced('bash', 'g++ main.cpp && ./a.out' + chr(10))}\n"
        f"{fenced('', '1' + chr(10))}",
        "cpp",
        CPP,
        "cpp",
    ),
    "the wanted one of two languages": (
        f"{fenced('cpp', CPP)}\nIn Python:\n{fenced('python', PY)}",
        "cpp",
        CPP,
        "cpp",
    ),
    "script before its usage": (
        f"{fenced('python', DEF + PY)}\nExample:\n{fenced('python', 'print(twice(2))' + chr(10))}",
        "python",
        DEF + PY,
        "python",
    ),
    "second fence opened without closing": (
        f"```cpp\n{HELPER}\n```cpp\n{CPP}```",
        "cpp",
        CPP,
        "cpp",
    ),
    "reasoning dropped": (
        f"<think>Maybe\n{fenced('cpp', CPP.replace('1', '9'))}\nno</think>\n{fenced('cpp', CPP)}",
        "cpp",
        CPP,
        "cpp",
    ),
    "reasoning opened by the prompt": (
        f"Let me see {fenced('cpp', HELPER)}\n</think>\n{fenced('cpp', CPP)}",
        "cpp",
        CPP,
        "cpp",
    ),
    "end-of-turn mark": (f"{fenced('py', PY)}<|im_end|>\n<|im_start|>user", "python", PY, "python"),
    "backticks in a string": (
        fenced("python", "print('```')\nprint(input())\n", "````"),
        "python",
        "print('```')\nprint(input())\n",
        "python",
    ),
}

NOT_FOUND: dict[str, tuple[str, str | None]] = {
    "nothing": ("", "cpp"),
    "prose": ("To solve this, sort the numbers and take the first one.", "cpp"),
    "prose with a colon and names": (
        "For example, if x = 3:\nreturn the sum of all of it.",
        "python",
    ),
    "prose, none wanted": ("I cannot help with that (sorry).", None),
    "a refusal in parentheses": ("Sorry (really)", "python"),
    "unclosed reasoning": (f"<think>Let me write\n{fenced('cpp', CPP)}", "cpp"),
    "empty block": ("```cpp\n```", "cpp"),
    "another language": (fenced("python", PY), "cpp"),
    "a shell command": (fenced("bash", "pip install numpy\n"), "python"),
    "fence with prose, none wanted": (fenced("", "the answer is 42\n"), None),
    "unknown language, none wanted": (fenced("brainfuck", "++>.\n"), None),
}


@pytest.mark.parametrize("name", FOUND)
def test_found(name: str) -> None:
    completion, wanted, code, language = FOUND[name]
    assert extract(completion, wanted) == Extracted(code, language)


@pytest.mark.parametrize("name", NOT_FOUND)
def test_not_found(name: str) -> None:
    assert extract(*NOT_FOUND[name]) is None


@pytest.mark.parametrize(
    "completion", ["`" * 50_000, "(" * 50_000, "a b " * 20_000, "int f(" * 9_000]
)
@pytest.mark.parametrize("wanted", ["cpp", "python", None])
@pytest.mark.timeout(20)
def test_hostile_text_takes_no_time(completion: str, wanted: str | None) -> None:
    extract(completion, wanted)
    extract(f"```\n{completion}\n```", wanted)


def test_real_answers_are_kept_whole() -> None:
    path = Path(__file__).parents[3] / "shared" / "data" / "codeforces_cpp.jsonl"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    for line in path.read_text().splitlines():
        code = json.loads(line)["response"].strip("\n") + "\n"
        for completion in (f"Solution:\n```cpp\n{code}```\nDone.", f"```\n{code}```"):
            answer = extract(completion, "cpp")
            assert answer is not None
            assert answer.code == code.replace("\r\n", "\n")
        assert guess_language(code) in ("cpp", "c")
        assert extract(code, "cpp") is not None


OTHERS = {
    "rust": 'use std::io;\n\nfn main() {\n    println!("{}", 1);\n}\n',
    "go": 'package main\n\nimport "fmt"\n\nfunc main() {\n\tfmt.Println(1)\n}\n',
    "java": "import java.util.*;\n\npublic class Main {\n"
    "    public static void main(String[] args) {\n        System.out.println(1);\n    }\n}\n",
    "javascript": "const lines = require('fs').readFileSync(0, 'utf8').split('\\n');\n"
    "console.log(lines.length);\n",
}


@pytest.mark.parametrize("language", OTHERS)
@pytest.mark.parametrize("form", ["```{tag}\n{code}```", "```\n{code}```", "Here it is:\n\n{code}"])
@pytest.mark.parametrize("wanted", [True, False])
def test_other_languages_tagged_untagged_and_bare(language: str, form: str, wanted: bool) -> None:
    code = OTHERS[language]
    found = extract(form.format(tag=language, code=code), language if wanted else None)
    assert found is not None
    assert found.language == language
    assert found.code.strip() == code.strip()


@pytest.mark.parametrize("wanted", ["cpp", "python", *OTHERS])
def test_a_program_of_another_language_is_no_answer(wanted: str) -> None:
    for language, code in OTHERS.items():
        if language != wanted:
            assert extract(f"```{language}\n{code}```", wanted) is None, language


@given(st.text("a \n\t(){:/\u2028", max_size=25))
def test_the_head_of_a_function_is_found_as_by_the_plain_pattern(code: str) -> None:
    plain = re.compile(r"^[\w:<>*&,\s]+\([^)\n]*\)\s*\{", re.M)
    assert bool(C_PART.search(code)) == bool(plain.search(code))
    assert program_likeness(code, "cpp") == bool(plain.search(code))


@pytest.mark.parametrize(
    "part",
    [
        *("word", "word\n", "\n", " \n", "a b\n\n", "f(\n", "x.", "class a\n", "class a:"),
        *("package main\n", "public a\n", "func (a\n", "<think>", "</think>", "```a\n"),
    ],
)
def test_a_long_text_is_looked_through_at_once(part: str) -> None:
    text = (part * 100_000)[:100_000]
    begun = time.process_time()
    guess_language(text)
    for wanted in (None, "python", "java"):
        extract(text, wanted)
    assert time.process_time() - begun < 5
