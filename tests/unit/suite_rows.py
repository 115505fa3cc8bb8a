"""Rows of our own in the form of each suite's data, and where tests put them."""

import base64
import gzip
import json
import pickle
import zlib
from pathlib import Path
from typing import Any

HUMANEVAL: dict[str, Any] = {
    "task_id": "HumanEval/0",
    "prompt": 'def twice(n: int) -> int:\n    """ Twice n.\n    """\n',
    "entry_point": "twice",
    "canonical_solution": "    return 2 * n\n",
    "test": "\n\ndef check(candidate):\n    assert candidate(2) == 4\n",
}
HUMANEVAL_PLUS: dict[str, Any] = {
    "task_id": "HumanEval/0",
    "prompt": "\n" + HUMANEVAL["prompt"],
    "entry_point": "twice",
    "canonical_solution": "\n    return 2 * n\n",
    "contract": "\n    assert type(n) is int # $_CONTRACT_$\n",
    "base_input": [[2]],
    "plus_input": [[-1], [10**20]],
    "atol": 0,
}
MBPP_PLUS: dict[str, Any] = {
    "task_id": "Mbpp/2",
    "prompt": '"""\nWrite a function to find what two tuples share.\n'
    'assert set(similar_elements((1, 2),(2, 3))) == set((2,))\n"""\n',
    "entry_point": "similar_elements",
    "canonical_solution": "\ndef similar_elements(a, b):\n"
    "  assert isinstance(a, tuple)\n  return tuple(set(a) & set(b))\n",
    "base_input": [[[1, 2], [2, 3]]],
    "plus_input": [[[4, 5, 6], [6, 4]]],
    "atol": 0,
    "contract": "",
    "assertion": "assert set(similar_elements((1, 2),(2, 3))) == set((2,))\n",
}


def mbpp(task_id: int, factor: int = 2) -> dict[str, Any]:
    return {
        "task_id": task_id,
        "text": f"Write a function to multiply by {factor}.",
        "code": f"def times(n):\r\n  return {factor} * n",
        "test_list": [f"assert times(1) == {factor}", f"assert times(2) == {2 * factor}"],
        "test_setup_code": "",
        "challenge_test_list": [],
    }


def lcb_packed(tests: list[dict[str, str]]) -> str:
    return base64.b64encode(zlib.compress(pickle.dumps(json.dumps(tests)))).decode()


def livecodebench(day: str, **fields: Any) -> dict[str, Any]:
    public = [{"input": "1\n", "output": "2\n", "testtype": "stdin"}]
    return {
        "question_title": "Twice",
        "question_content": "Print twice the number.",
        "platform": "atcoder",
        "question_id": f"q{day}",
        "contest_id": "c",
        "contest_date": f"{day}T00:00:00",
        "starter_code": "",
        "difficulty": "easy",
        "public_test_cases": json.dumps(public),
        "private_test_cases": lcb_packed([{**public[0], "input": "5", "output": "10.0 "}]),
        "metadata": "{}",
        **fields,
    }


def lcb_functional() -> dict[str, Any]:
    case = {"input": '[1, 2]\n"x"', "output": '["x", 3]', "testtype": "functional"}
    return livecodebench(
        "2024-05-01",
        question_id="f",
        starter_code="class Solution:\n    def join(self, a: List[int], b: str) -> List[int]:\n",
        public_test_cases=json.dumps([case]),
        private_test_cases=json.dumps([{**case, "input": '[]\n"y"', "output": '["y", 0]'}]),
        metadata='{"func_name": "join"}',
    )


def multipl_e(language: str = "cpp") -> dict[str, Any]:
    return {
        "name": "HumanEval_0_twice",
        "language": language,
        "prompt": "#include<assert.h>\n#include<bits/stdc++.h>\nlong twice(long n) {\n",
        "doctests": "transform",
        "original": "HumanEval_0_twice.py",
        "prompt_terminology": "reworded",
        "tests": "}\nint main() {\n    auto candidate = twice;\n"
        "    assert(candidate((2)) == (4));\n}\n",
        "stop_tokens": ["\n}"],
    }


def write(path: Path, *rows: dict[str, Any]) -> Path:
    """The rows as JSON lines, packed where the name says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(f"{json.dumps(row)}\n" for row in rows).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path
