"""Rows of our own in the form of each data set, all columns there, as its reader gives them."""

import json
from typing import Any

from haloforge.data.catalogue import Entry, entries
from tests.unit.suite_rows import HUMANEVAL, HUMANEVAL_PLUS, MBPP_PLUS, livecodebench, mbpp

MBPP_SANITIZED: dict[str, Any] = {
    "source_file": "a file",
    "task_id": 602,
    "prompt": "Write a function to double a point.",
    "code": "import math\r\nclass Point:\r\n  pass\r\ndef double(p):\r\n  return p",
    "test_imports": ["import math"],
    "test_list": ["assert double(3) == 6", "assert double(Point()) == math.floor(2)"],
}
EVALPLUS_TEST = """\
import numpy as np

def is_floats(x) -> bool:
    if isinstance(x, float):
        return True
    if isinstance(x, np.ndarray):
        return x.dtype == np.float64 or x.dtype == np.float32
    return False

def assertion(out, exp, atol):
    if atol == 0 and is_floats(exp):
        atol = 1e-6
    if out != exp and atol != 0:
        assert np.allclose(out, exp, rtol=1e-07, atol=atol)
    else:
        assert out == exp

"""
MBPP_PLUS_HUB: dict[str, Any] = {
    **MBPP_SANITIZED,
    "task_id": 603,
    "test_imports": [],
    "test_list": ["assert double(3) == 6"],
    "test": EVALPLUS_TEST
    + "inputs = [[3], [0.5]]\nresults = [6, 1.0]\n"
    + "for inp, exp in zip(inputs, results):\n    assertion(double(*inp), exp, 0)\n",
}
MBPP_SOLVED: dict[str, Any] = {
    "task_id": 604,
    "prompt": "Write a function to count pairs.",
    "tests": "def test_solution():\n    assert pairs([1, 1]) == 1\n    assert pairs([]) == zero",
    "entry_point": "helper",
    "test_count": 2,
    "solution": "zero = 0\ndef helper(a):\n    return len(a)\n"
    "def pairs(a):\n    return helper(a) // 2",
}
HUMANEVAL_PLUS_HUB: dict[str, Any] = {
    **HUMANEVAL,
    "test": EVALPLUS_TEST
    + "def check(candidate):\n    assertion(candidate(2), 4, 0)\n"
    + "    assertion(0.1 + 0.2, 0.3, 0)\n",
}
STATEMENT: dict[str, Any] = {
    "id": "12/B",
    "aliases": ["11/D", "12/B"],
    "contest_id": "12",
    "contest_name": "Round 12",
    "contest_type": "CF",
    "contest_start": 1267117200,
    "contest_start_year": 2010,
    "index": "B",
    "time_limit": 2.0,
    "memory_limit": 256.0,
    "title": "Twice",
    "description": "Print twice the number.",
    "input_format": "A number.",
    "output_format": "Its double.",
    "interaction_format": None,
    "note": None,
    "examples": [{"input": "1\n", "output": "2\n"}],
    "editorial": None,
}
COTS: dict[str, Any] = {
    **STATEMENT,
    "prompt": "Please solve this.",
    "generation": "<think>\n```cpp\nint wrong;\n```\n</think>\nSo:\n```cpp\n"
    "#include <iostream>\nint main() { int n; std::cin >> n; std::cout << 2 * n; }\n```\n",
    "finish_reason": "stop",
    "api_metadata": {"completion_tokens": 9, "prompt_tokens": 9, "total_tokens": 18},
    "messages": [{"role": "user", "content": "Please solve this."}],
    "problem_type": None,
    "accepted_solutions": None,
    "failed_solutions": None,
    "public_tests": {"input": ["1\n"], "output": ["2\n"]},
    "public_tests_ms": [{"input": "1\n", "output": "2\n"}],
    "private_tests": {"input": ["3\n"], "output": ["6\n"]},
    "generated_tests": None,
}
CODEFORCES: dict[str, Any] = {
    **STATEMENT,
    "rating": 800,
    "tags": ["math"],
    "testset_size": 2,
    "official_tests": [{"input": "1\n", "output": "2\n"}, {"input": "4\n", "output": "8\n"}],
    "official_tests_complete": True,
    "input_mode": "stdio",
    "generated_checker": None,
    "executable": True,
    "generated_tests": 0,
}
SAMPLE: dict[str, Any] = {
    "prompt": "Print 1.",
    "response": "int main() { puts(1); }",
    "title": "One",
    "difficulty": "A",
}
CODE_CONTESTS: dict[str, Any] = {
    "name": "12_B. Twice",
    "description": "Print twice the number.",
    "public_tests": {"input": ["1\n"], "output": ["2\n"]},
    "private_tests": {"input": [], "output": []},
    "generated_tests": {"input": ["5\n", "1\n"], "output": ["10\n", "2\n"]},
    "source": 2,
    "difficulty": 8,
    "solutions": {"language": [1, 2, 3, 2], "solution": ["print 1", "a\r\nb", "c", "d"]},
    "incorrect_solutions": {"language": [], "solution": []},
    "cf_contest_id": 12,
    "cf_index": "B",
    "cf_points": 0.0,
    "cf_rating": 1100,
    "cf_tags": ["math", ""],
    "is_description_translated": False,
    "untranslated_description": "",
    "time_limit": {"seconds": 1, "nanos": 500000000},
    "memory_limit_bytes": 256000000,
    "input_file": "",
    "output_file": "",
}
APPS: dict[str, Any] = {
    "problem_id": 7,
    "question": "Print twice the number.",
    "solutions": json.dumps(["n = int(input())\r\nprint(2 * n)\r\n", "pass"]),
    "input_output": json.dumps({"inputs": ["1\n", ["4", ""]], "outputs": ["2\n", ["8"]]}),
    "difficulty": "interview",
    "url": "https://codeforces.com/problemset/problem/12/B",
    "starter_code": "",
}
APPS_CALLED: dict[str, Any] = {
    **APPS,
    "input_output": json.dumps(
        {"fn_name": "swap", "inputs": [[[1, 2]], [{"1": 2}]], "outputs": [[[2, 1]], [{"2": 1}]]}
    ),
}
SELF_OSS: dict[str, Any] = {"instruction": "Write f.", "response": "Here:\n```python\nf = 1\n```"}
OPEN_CODE: dict[str, Any] = {
    "id": "a",
    "input": "Write f.",
    "output": "f = 1",
    "domain": "generic",
    "generation_algorithm": "self-instruct",
    "llm_judgement": "{}",
    "unit_tests": "[]",
    "tests_execution_status": "[]",
    "average_test_score": "1.0",
}
OF_EACH: list[tuple[str, dict[str, Any]]] = [
    ("starter", {"prompt": "Print 1.", "reference": {"cpp": "int main() {}"}, "language": "cpp"}),
    ("mbpp", mbpp(601)),
    ("mbpp", MBPP_SANITIZED),
    ("mbpp", MBPP_SOLVED),
    ("mbpp_plus", MBPP_PLUS_HUB),
    ("mbpp_plus", MBPP_PLUS),
    ("humaneval", HUMANEVAL),
    ("humaneval_plus", HUMANEVAL_PLUS_HUB),
    ("humaneval_plus", HUMANEVAL_PLUS),
    ("livecodebench", livecodebench("2024-05-01")),
    ("codeforces_cpp", COTS),
    ("codeforces_cpp", SAMPLE),
    ("codeforces_python", {**COTS, "generation": "```python\nprint(2 * int(input()))\n```"}),
    ("codeforces", CODEFORCES),
    ("codeforces_rust", CODEFORCES),
    ("code_contests", CODE_CONTESTS),
    ("apps", APPS),
    ("apps", APPS_CALLED),
    ("self_oss_instruct", SELF_OSS),
    ("open_code_instruct", OPEN_CODE),
]


def entry(name: str) -> Entry:
    return entries()[name]
