"""Programs/s/core of C++ verification over a grader with no sandbox, on one core.

Ours is the verifier as a fleet's actor has it, its cache off. The reference is the grader that
people write first: `g++ -O2`, then a run for each of the ten tests. `python -m
tests.perf.verify_cpp_vs_naive [PROGRAMS]`, by default all of the corpus.
"""

import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from haloforge.data.problems import STARTER_SPLITS, starter_problems
from haloforge.schema import Problem, Test
from haloforge.verify.extract import Extracted
from haloforge.verify.judges.compilation import compile_answer
from haloforge.verify.limits import run_limits
from haloforge.verify.settings import VerifySettings
from haloforge.verify.toolchains import select
from haloforge.verify.verifier import Verifier
from tests.perf.measuring import in_turn, rows, spread, tell, use_one_core

TESTS = 10
ANSWERS = 40
BLOCK = 10
SETTINGS = VerifySettings(cache=False)


def main(programs: int | None = None) -> None:
    """All programs on both sides, in turn; prints the entry."""
    use_one_core()
    bundled = references()
    verifier = Verifier(SETTINGS, {problem.problem_id: problem for problem in bundled})
    answers = codeforces(verifier)
    corpus = spread([*bundled, *answers], programs)
    verifier.problems = {problem.problem_id: problem for problem in corpus}

    def ours(problem: Problem) -> None:
        completion = f"```cpp\n{problem.reference['cpp']}\n```"
        sample = {"sample_id": "s", "problem_id": problem.problem_id, "completion": completion}
        verdict = verifier.verify(sample)
        assert verdict["tests_passed"] == TESTS, verdict

    there = f"{len(answers)} Codeforces answers with made-up inputs"
    note = (
        f"{len(corpus)} of {len(bundled)} bundled references and "
        f"{there if answers else 'no Codeforces answers (they are not here)'}, {TESTS} tests each, "
        f"-O2 -std=gnu++17 on both sides, one core, no cache, tier {verifier.sandbox.tier}"
    )
    with tempfile.TemporaryDirectory() as folder:
        pace = in_turn(corpus, BLOCK, ours, lambda problem: naive(problem, Path(folder)))
    tell(pace, "programs/s/core", note)


def naive(problem: Problem, folder: Path) -> None:
    """The reference. Its programs may do without a sandbox: most are this project's own, and those
    of a published set have each run in a box, under all its guards, before."""
    source, program = folder / "main.cpp", folder / "main"
    source.write_text(problem.reference["cpp"])
    command = ["g++", "-O2", "-std=gnu++17", "-o", str(program), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    for test in problem.tests:
        done = subprocess.run(
            [program], check=True, input=test.stdin, capture_output=True, text=True, timeout=5
        )
        assert done.stdout.split() == test.stdout.split()


def references() -> list[Problem]:
    """The bundled problems in C++, their tests repeated up to ten."""
    return [
        problem.model_copy(update={"language": "cpp", "tests": (problem.tests * TESTS)[:TESTS]})
        for split in STARTER_SPLITS
        for problem in starter_problems(split)
    ]


def codeforces(verifier: Verifier) -> list[Problem]:
    """Answers to different problems that end well on ten made-up inputs; what they print there is
    what they should print."""

    def judged() -> Iterator[Problem]:
        answers = {row["title"]: row["response"] for row in rows("codeforces_cpp.jsonl")}
        for title, code in answers.items():
            tests = made_up(verifier, code)
            if len(tests) == TESTS:
                row = {"problem_id": title, "prompt": "?", "language": "cpp", "judge": "stdio"}
                yield Problem.model_validate({**row, "tests": tests, "reference": {"cpp": code}})

    return list(islice(judged(), ANSWERS))


def made_up(verifier: Verifier, code: str) -> list[Test]:
    """Ten tests with lines of small numbers, as most of these problems have; fewer where the answer
    does not compile, or mostly fails on them, prints nothing or prints something else each time."""
    toolchain = select("gcc", "cpp", None)
    assert toolchain
    built = compile_answer(Extracted(code, "cpp"), toolchain, verifier.sandbox, SETTINGS)
    tests = list[Test]()
    for seed in range(2 * TESTS if built.program else 0):
        chosen = random.Random(seed)
        lines = [" ".join(str(chosen.randint(1, 9)) for _ in range(8)) for _ in range(50)]
        stdin = "\n".join([str(chosen.randint(2, 5)), *lines, ""])
        files, limits = {toolchain.program: built.program or b""}, run_limits(SETTINGS)
        one, other = (
            verifier.sandbox.run(toolchain.run, files, stdin.encode(), limits) for _ in range(2)
        )
        if one.clean and one.stdout.strip() and one.stdout == other.stdout:
            tests.append(Test(stdin=stdin, stdout=one.stdout.decode()))
    return tests[:TESTS]


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
