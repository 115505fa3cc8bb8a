"""Tests that are appended to the program: what passes, what does not, and how programs cheat."""

import re
from typing import Any

import pytest

from haloforge.errors import InputError
from haloforge.schema import PROGRAM_LANGUAGES, Problem
from haloforge.verify.judges.program import ASSEMBLE
from haloforge.verify.settings import VerifySettings
from haloforge.verify.verifier import Verifier

# Rows of our own, in the form of MultiPL-E's data: its prompts end in an open body.
SETS = {
    "cpp": (
        "#include<assert.h>\n#include<bits/stdc++.h>\nlong twice(long n) {\n",
        "}\nint main() {\n    auto candidate = twice;\n    assert(candidate((2)) == (4));\n"
        "    assert(candidate((0)) == (0));\n}\n",
        {
            "right": "    return 2 * n;",
            "wrong": "    return n;",
            "ends": "    exit(0);",
            "crashes": "    return *(volatile long *)8;",
            "broken": "    return n +;",
        },
    ),
    "rust": (
        "/// Twice n\nfn twice(n: isize) -> isize {\n",
        "}\n\nfn main() {\n    let candidate = twice;\n    assert_eq!(candidate(2), 4);\n"
        "    assert_eq!(candidate(0), 0);\n}\n",
        {
            "right": "    2 * n",
            "wrong": "    n",
            "ends": "    std::process::exit(0)",
            "crashes": "    let none: Option<isize> = None; none.unwrap() + n",
            "broken": "    n +",
        },
    ),
    "go": (
        'package twice_test\n\nimport (\n    "testing"\n    "fmt"\n)\n\nfunc twice(n int) int {\n',
        "func TestTwice(t *testing.T) {\n  candidate := twice\n\ttype test struct {\n"
        "\t\tactual   interface{}\n\t\texpected interface{}\n\t}\n   tests := []test{\n"
        "     { actual: candidate(2), expected: 4 },\n   }\n\n\tfor i, tc := range tests {\n"
        '\t\tt.Run(fmt.Sprintf("test num % d", i), func(t *testing.T) {\n'
        '\t\t\tif fmt.Sprintf("%v", tc.actual) != fmt.Sprintf("%v", tc.expected) {\n'
        "\t\t\t\tt.Errorf(\"expected '%s', got '%s'\", tc.expected, tc.actual)\n\t\t\t}\n\t\t})\n"
        "\t}\n}\n",
        {
            "right": "    return 2 * n\n}",
            "wrong": "    return n\n}",
            "ends": "    panic(nil)\n}",
            "crashes": "    var none []int\n    return none[n]\n}",
            "broken": "    return n +\n}",
        },
    ),
    "javascript": (
        "//Twice n\nfunction twice(n){\n",
        "const assert = require('node:assert');\n\n\nfunction test() {\n  let candidate = twice;\n"
        "  assert.deepEqual(candidate(2),4);\n}\n\ntest();",
        {
            "right": "  return 2 * n;\n}",
            "wrong": "  return n;\n}",
            "ends": "  process.exit(0);\n}",
            "crashes": "  return none.there;\n}",
            "broken": "  return n +;\n}",
        },
    ),
    "java": (
        "import java.util.*;\nimport java.lang.reflect.*;\nimport org.javatuples.*;\n"
        "import java.security.*;\nimport java.math.*;\nimport java.io.*;\n"
        "import java.util.stream.*;\nclass Problem {\n    // Twice n, and n\n"
        "    public static Pair<Long, Long> twice(long n) {\n",
        "    }\n    public static void main(String[] args) {\n"
        "    assert(twice((2l)).equals((Pair.with(4l, 2l))));\n    }\n\n}\n",
        {
            "right": "        Pair<Long, Long> p = Pair.with(n, n);\n"
            "        return Pair.with(p.getValue0() + p.getValue1(), n);",
            "wrong": "        return Pair.with(n, n);",
            "ends": "        System.exit(0);\n        return null;",
            "crashes": "        return Pair.with(((Long) null) + n, n);",
            "broken": "        return n +;",
        },
    ),
}
OUTCOMES = {
    "right": "passed",
    "wrong": "wrong_answer",
    "ends": "runtime_error",
    "crashes": "runtime_error",
    "broken": "compile_error",
}
SETTINGS = VerifySettings(cache=False, run_wall_s=15, compile_wall_s=60)


def judge(language: str, answer: str) -> dict[str, Any]:
    prefix, tests, _ = SETS[language]
    problem = Problem(
        problem_id="p", prefix=prefix, language=language, judge="program", test_code=tests
    )
    verifier = Verifier(SETTINGS, {"p": problem})
    sample = {"sample_id": "s", "problem_id": "p", "completion": prefix + answer}
    return verifier.verify(sample)


@pytest.mark.parametrize("language", SETS)
def test_only_the_right_program_passes(language: str) -> None:
    answers = SETS[language][2]
    found = {name: judge(language, answer) for name, answer in answers.items()}
    outcomes = {name: verdict["outcome"] for name, verdict in found.items()}
    assert outcomes == OUTCOMES, found
    assert found["right"]["tests_passed"] == found["right"]["tests_total"] == 1


def test_a_status_of_0_alone_would_pass_what_ends_early() -> None:
    """The attack works where the number is not asked for."""
    verdict = judge("javascript", SETS["javascript"][2]["ends"])
    assert (verdict["outcome"], verdict["diagnostics"]) == (
        "runtime_error",
        "ended before its tests did",
    )


def test_its_languages_and_no_others() -> None:
    assert set(ASSEMBLE) == set(SETS) == set(PROGRAM_LANGUAGES)
    prefix, tests, _ = SETS["rust"]
    problem = Problem(
        problem_id="p", prefix=prefix, language="rust", judge="program", test_code=tests
    )
    with pytest.raises(InputError, match="tests are in rust, but --verifier gcc judges cpp"):
        Verifier(VerifySettings(verifier="gcc"), {"p": problem})


def test_an_old_number_is_of_no_use() -> None:
    """What one run printed is not what the next must print."""
    prefix, tests, answers = SETS["cpp"]
    one, other = (ASSEMBLE["cpp"](prefix + answers["right"], tests, n) for n in ("n1", "n2"))
    assert one != other
    assert re.sub("n1", "n2", one) == other
    guess = '    std::cout << "0123456789abcdef0123456789abcdef"; exit(0);'
    assert judge("cpp", guess)["outcome"] == "runtime_error"
