"""Programs with their tests appended, in any language: the form of MultiPL-E (Cassano et al. 2023).

The tests end a failure by an exception or an abort, so the authors take the exit status for the
verdict. Here it is not enough: after the tests' last line stands one more that prints a number
drawn for this run, which a program that ends early, whatever its status, does not print.

What this cannot stop: the program shares a process with its tests. One that looks for the number
in its own file, or that redefines what the tests assert with, passes. Numbers of this judge tell
how often honest programs are right; do not train on its rewards.
"""

import re
import secrets
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from haloforge.schema import Outcome, Problem
from haloforge.verify.extract import Extracted
from haloforge.verify.judges.compilation import compile_answer, run_command
from haloforge.verify.judges.judgement import Judgement, failure, is_lasting
from haloforge.verify.limits import run_limits
from haloforge.verify.sandbox import Sandbox
from haloforge.verify.settings import VerifySettings
from haloforge.verify.toolchains import Toolchain

FAILED_TEST = re.compile(rb"(?i)\bassertion|assertionerror|^\s*--- FAIL", re.M)
"""How the languages' own assertions end a program: a wrong answer, and no crash of its own."""
GO_MAIN = """
func main() {
    all := func(_, _ string) (bool, error) { return true, nil }
    end := func(*testing.T) { fmt.Println("%s") }
    testing.Main(all, []testing.InternalTest{%s, {"end", end}}, nil, nil)
}
"""
TUPLES = ("Unit", "Pair", "Triplet", "Quartet", "Quintet")
TUPLE_CLASS = """
class {name}<{types}> {{
    private final List<Object> values;
    private {name}(Object... values) {{ this.values = Arrays.asList(values); }}
    public static <{types}> {name}<{types}> with({parameters}) {{ return new {name}<>({values}); }}
    {getters}
    public boolean equals(Object other) {{
        return other instanceof {name} && values.equals((({name}<{any}>) other).values);
    }}
    public int hashCode() {{ return values.hashCode(); }}
    public String toString() {{ return values.toString(); }}
}}
"""


def judge_program(
    answer: Extracted,
    toolchain: Toolchain,
    problem: Problem,
    sandbox: Sandbox,
    settings: VerifySettings,
) -> Judgement:
    """Compile and run the answer with the problem's `test_code` after it, as one program.

    It passes where it ends with status 0 and has printed this run's number; all tests count as one.
    Raises InfraError when the box fails.
    """
    number = secrets.token_hex(16)
    source = ASSEMBLE[toolchain.language](answer.code, problem.test_code or "", number)
    built = compile_answer(replace(answer, code=source), toolchain, sandbox, settings)
    if built.program is None:
        return built.failed(tests_total=1)
    command, limits = run_command(toolchain, run_limits(settings, problem.limits))
    if "java" in command:
        command.insert(command.index("java") + 1, "-ea")  # else it passes over all assertions
    files = {toolchain.program: built.program}
    result = sandbox.run(command, files, b"", limits, toolchain.executable)
    failed = failure(result)
    told = result.stdout + result.stderr
    asserted = FAILED_TEST.search(told) and b"\npanic: " not in told
    if failed and failed[0] is Outcome.RUNTIME_ERROR and asserted:
        failed = Outcome.WRONG_ANSWER, failed[1]
    if failed is None and number.encode() not in result.stdout:
        failed = Outcome.RUNTIME_ERROR, "ended before its tests did"
    outcome, reason = failed or (Outcome.PASSED, "")
    in_time = result.wall_ms < limits.wall_s * 1000 / 2
    return Judgement(
        outcome,
        compiled=True,
        warnings=built.warnings,
        ran=outcome in (Outcome.PASSED, Outcome.WRONG_ANSWER),
        tests_passed=int(outcome is Outcome.PASSED),
        tests_total=1,
        diagnostics="\n".join([*filter(None, [reason]), *built.diagnostics.splitlines()]),
        compile_ms=built.wall_ms,
        run_ms=result.wall_ms,
        lasting=built.lasting and is_lasting(result) and in_time,
    )


def _in_main(code: str, tests: str, number: str, statement: str, closing: int) -> str:
    """`statement` at the end of `main`, which the tests' last braces but `closing` close."""
    head, braces = tests.rstrip(), ""
    for _ in range(closing):
        head, brace, rest = head.rpartition("}")
        braces = brace + rest + braces
    return f"{code}\n{head}\n{statement % number}\n{braces}\n"


def _javascript(code: str, tests: str, number: str) -> str:
    return f'{code}\n{tests}\nconsole.log("{number}");\n'


def _go(code: str, tests: str, number: str) -> str:
    """A program out of what was a test file, for the compiler alone to build."""
    code = re.sub(r"^package \w+", "package main", code, count=1, flags=re.M)
    names = re.findall(r"^func (Test\w*)\(", tests, re.M)
    listed = ", ".join(f'{{"{name}", {name}}}' for name in names)
    return f"{code}\n{tests}\n{GO_MAIN % (number, listed)}"


def _java(code: str, tests: str, number: str) -> str:
    """With tuples of our own in the place of the package `org.javatuples`, which is not here."""
    program = _in_main(code, tests, number, 'System.out.println("%s");', 2)
    program, replaced = re.subn(r"^import org\.javatuples\.\*;\n", "", program, flags=re.M)
    return program + "".join(map(_tuple, range(1, len(TUPLES) + 1))) if replaced else program


def _tuple(size: int) -> str:
    places = range(size)
    types = [chr(ord("A") + place) for place in places]
    cast = '@SuppressWarnings("unchecked")'
    return TUPLE_CLASS.format(
        name=TUPLES[size - 1],
        types=", ".join(types),
        any=", ".join("?" * size),
        parameters=", ".join(f"{name} v{place}" for place, name in enumerate(types)),
        values=", ".join(f"v{place}" for place in places),
        getters="\n    ".join(
            f"{cast} public {name} getValue{place}() {{ return ({name}) values.get({place}); }}"
            for place, name in enumerate(types)
        ),
    )


ASSEMBLE: dict[str, Callable[[str, str, str], str]] = {
    "cpp": partial(_in_main, statement='std::cout << "%s" << std::endl;', closing=1),
    "rust": partial(_in_main, statement='println!("%s");', closing=1),
    "go": _go,
    "javascript": _javascript,
    "java": _java,
}
"""By language: the whole program out of the answer, its tests and the number."""
