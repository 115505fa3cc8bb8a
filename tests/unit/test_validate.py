"""Checks of a row, n-grams of words, duplicates and contamination."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner

from haloforge.cli.data import data_group
from haloforge.config import Settings
from haloforge.data.sft import to_chatml
from haloforge.data.sidecar import sidecar_path, write_sidecar
from haloforge.data.validate import stage
from haloforge.data.validate.benchmarks import at_hand
from haloforge.data.validate.contamination import GRAM, SHARED_BY, Task, forms_of, index_of
from haloforge.data.validate.duplicates import (
    SHINGLE,
    near_repeats,
    repeats,
    signatures,
    similarity,
)
from haloforge.data.validate.fix import check_outputs, rejected_path
from haloforge.data.validate.rows import FAULTS, WARNINGS, Kind, check_row
from haloforge.data.validate.validate import files_of
from haloforge.data.validate.words import grams, words
from haloforge.errors import InputError
from haloforge.schema import Message

PLACE = "rows.jsonl, line 3"
ASKED: Message = {"role": "user", "content": "Print 1."}
CODE = "```cpp\nint main() {}\n```"
ANSWER: Message = {"role": "assistant", "content": CODE}
SYSTEM: Message = {"role": "system", "content": "Be brief."}
TEXT = to_chatml([ASKED, ANSWER])
THOUGHT = TEXT.replace("```cpp", "<think>\n\n</think>\n\n```cpp")
PHI = "".join(
    f"<|im_start|>{turn['role']}<|im_sep|>{turn['content']}<|im_end|>" for turn in (ASKED, ANSWER)
)
TESTS = [{"stdin": "1", "stdout": "2"}]
PROGRAM = "n = int(input())\nfor each in range(n):\n    total = n * each\n    print(total, each)\n"


def kinds(row: Any) -> list[Kind]:
    line = row if isinstance(row, str) else json.dumps(row)
    return [kind for kind, _ in check_row(line, PLACE, None).faults]


@pytest.mark.parametrize(
    "row",
    [
        {"text": TEXT},
        {"text": TEXT, "stars": 5},
        {"messages": [SYSTEM, ASKED, ANSWER]},
        {"messages": [ASKED, ANSWER, ASKED, ANSWER]},
        {"text": TEXT, "messages": [ASKED, ANSWER]},
        {"text": to_chatml([SYSTEM, ASKED, ANSWER]), "messages": [ASKED, ANSWER]},
        {"text": "[INST] Print 1. [/INST] int main", "messages": [ASKED, ANSWER]},
        {"text": f"<|begin_of_text|>{TEXT}\n<|endoftext|>", "messages": [ASKED, ANSWER]},
        {"text": THOUGHT, "messages": [ASKED, ANSWER]},
        {"text": TEXT, "messages": [ASKED, {**ANSWER, "content": f"<think>x</think>{CODE}"}]},
        {"text": PHI, "messages": [ASKED, ANSWER]},
        {"prompt": "x", "tests": TESTS},
        {"messages": [SYSTEM, ASKED], "tests": TESTS},
        {"prefix": "def f():\n", "test_code": "assert f() == 1"},
    ],
)
def test_a_good_row_has_no_fault(row: Any) -> None:
    assert kinds(row) == []


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("{", Kind.JSON),
        ("[1]", Kind.JSON),
        ("[" * 100_000, Kind.JSON),
        ('{"text": "\\ud800"}', Kind.SCHEMA),
        ({"question": "x"}, Kind.SCHEMA),
        ({"messages": []}, Kind.SCHEMA),
        ({"messages": [{"role": "robot", "content": "x"}]}, Kind.SCHEMA),
        ({"prompt": "x", "promt": "y"}, Kind.SCHEMA),
        ({"prompt": "x", "judge": "stdio"}, Kind.SCHEMA),
        ({"messages": [{"role": "user"}], "tests": TESTS}, Kind.SCHEMA),
        ({"text": TEXT.removesuffix("<|im_end|>")}, Kind.CHATML),
        ({"text": None}, Kind.CHATML),
        ({"text": TEXT, "messages": [ASKED, {**ANSWER, "content": "no"}]}, Kind.CHATML),
        ({"text": f"<s>{TEXT}", "messages": [ASKED, {**ANSWER, "content": "no"}]}, Kind.CHATML),
        ({"text": THOUGHT, "messages": [ASKED, {**ANSWER, "content": "no"}]}, Kind.CHATML),
        ({"text": PHI, "messages": [ASKED, {**ANSWER, "content": "no"}]}, Kind.CHATML),
        ({"text": PHI, "messages": [ASKED, ANSWER, ASKED, ANSWER]}, Kind.CHATML),
        ({"text": to_chatml([ASKED, ANSWER] * 2), "messages": [ASKED, ANSWER]}, Kind.CHATML),
        ({"text": TEXT[:-10], "messages": [ASKED, ANSWER]}, Kind.CHATML),
        ({"messages": [ASKED, {**ANSWER, "content": "1<|im_end|>"}]}, Kind.CHATML),
        ({"messages": [ASKED]}, Kind.ROLES),
        ({"messages": [ANSWER]}, Kind.ROLES),
        ({"messages": [ASKED, ASKED, ANSWER]}, Kind.ROLES),
        ({"messages": [ASKED, SYSTEM, ANSWER]}, Kind.ROLES),
        ({"messages": [ASKED, {**ANSWER, "content": " \n"}]}, Kind.EMPTY),
        ({"prompt": " "}, Kind.EMPTY),
    ],
)
def test_what_is_wrong_with_a_row_is_told(row: Any, expected: Kind) -> None:
    assert kinds(row) == [expected]


def test_a_purpose_decides_what_a_row_must_be() -> None:
    problem, row = json.dumps({"prompt": "x"}), json.dumps({"messages": [ASKED, ANSWER]})
    assert check_row(problem, PLACE, "problems").faults == []
    assert [kind for kind, _ in check_row(problem, PLACE, "sft").faults] == [Kind.SCHEMA]
    assert [kind for kind, _ in check_row(row, PLACE, "problems").faults] == [Kind.ROLES]


def test_a_reason_does_not_repeat_the_place() -> None:
    [(_, why)] = check_row("{", PLACE, None).faults
    assert why.startswith("not valid JSON (")


def test_nulls_of_a_table_are_no_fields() -> None:
    line = json.dumps({"prompt": "x", "tests": None})
    assert check_row(line, "rows.parquet, row 3", None).faults == []
    assert [kind for kind, _ in check_row(line, PLACE, None).faults] == [Kind.SCHEMA]


def test_the_language_and_licence_of_a_row() -> None:
    found = check_row(json.dumps({"text": TEXT, "license": "MIT"}), PLACE, None)
    assert (found.language, found.licence) == ("cpp", "MIT")
    assert found.solutions == [("cpp", "int main() {}\n")]
    found = check_row(json.dumps({"prompt": "x", "language": "go"}), PLACE, None)
    assert (found.language, found.licence) == ("go", "not told")


def test_rows_that_are_the_same_have_one_key() -> None:
    text, both = {"text": TEXT}, {"messages": [ASKED, ANSWER], "stars": 1}
    other = {"messages": [ASKED, {**ANSWER, "content": "x"}]}
    keys = [check_row(json.dumps(row), PLACE, None).key for row in (text, both, other)]
    assert keys[0] == keys[1] != keys[2]
    [one, two] = [
        check_row(json.dumps({"prompt": "x", "tests": tests}), PLACE, None).key
        for tests in (TESTS, TESTS * 2)
    ]
    assert one == two
    prefix = json.dumps({"prefix": "x", "tests": TESTS})
    assert check_row(prefix, PLACE, None).key != one


def test_every_kind_is_a_fault_or_a_warning() -> None:
    assert {*FAULTS} | {*WARNINGS} == {*Kind}
    assert {*FAULTS} & {*WARNINGS} == set()


def test_words_are_told_by_their_letters_alone() -> None:
    found = words(["Hello, World: hello", "", "...", "world\u2014HELLO", "Éa b2_c", "éA b2 c"])
    by_text = [found.values[found.owners == place].tolist() for place in range(6)]
    hello, world, again = by_text[0]
    assert hello == again != world
    assert by_text[1] == by_text[2] == []
    assert by_text[3] == [world, hello]
    assert by_text[4] == by_text[5] and len(by_text[4]) == 3


def test_grams_stay_within_their_text() -> None:
    found = grams(words(["a b c d", "a b", "d a b c"]), 3)
    assert found.owners.tolist() == [0, 0, 2, 2]
    assert found.values[0] == found.values[3]  # a b c
    assert len({*found.values.tolist()}) == 3
    assert grams(words(["a"]), 3).values.tolist() == []


def test_the_first_of_rows_that_repeat_is_found() -> None:
    keys = np.array([5, 7, 5, 7, 5, 9], np.uint64)
    assert repeats(keys, np.arange(6)).tolist() == [-1, -1, 0, 1, 0, -1]
    assert repeats(keys, np.array([1, 2, 4])).tolist() == [-1, -1, -1, -1, 2, -1]


def varied(text: str, share: float, draw: random.Random) -> str:
    """`text` with about so many of its words changed."""
    return " ".join(
        f"new{draw.random()}" if draw.random() < share else word for word in text.split()
    )


def jaccard(one: str, two: str) -> float:
    sets = []
    for text in (one, two):
        split = text.split()
        sets.append({tuple(split[i : i + SHINGLE]) for i in range(len(split) - SHINGLE + 1)})
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def test_near_duplicates_are_those_by_the_exact_measure() -> None:
    draw = random.Random(0)
    originals = [" ".join(f"w{draw.randrange(3000)}" for _ in range(200)) for _ in range(200)]
    copies = [varied(text, draw.choice([0.0, 0.01, 0.1]), draw) for text in originals]
    texts = [*originals, *copies, "too few words", "too few words"]
    signed = signatures(grams(words(texts), SHINGLE), len(texts))
    assert signed.any.tolist() == [True] * 400 + [False] * 2
    found = near_repeats(signed.bands, signed.kept, np.flatnonzero(signed.any), 0.8)
    exact = np.array([jaccard(one, two) for one, two in zip(originals, copies, strict=True)])
    estimated = similarity(signed.kept[:200], signed.kept[200:400])
    assert np.abs(estimated - exact).max() < 0.2  # five standard errors of 128 values
    assert (found[:200] == -1).all()
    like = found[200:400]
    assert (like[exact > 0.95] == np.flatnonzero(exact > 0.95)).all()
    assert (like[exact < 0.6] == -1).all()
    assert 20 < (like >= 0).sum() < 180


def test_a_threshold_above_their_similarity_lets_rows_pass() -> None:
    draw = random.Random(1)
    text = " ".join(f"w{draw.randrange(3000)}" for _ in range(300))
    signed = signatures(grams(words([text, varied(text, 0.02, draw), text]), SHINGLE), 3)
    rows = np.arange(3)
    assert near_repeats(signed.bands, signed.kept, rows, 0.6).tolist() == [-1, 0, 0]
    assert near_repeats(signed.bands, signed.kept, rows, 0.99).tolist() == [-1, -1, 0]
    assert near_repeats(signed.bands, signed.kept, rows[1:], 0.99).tolist() == [-1, -1, -1]


BOILERPLATE = "Answer with one Python program in a block of code please and with no word more"


def tasks(count: int) -> list[Task]:
    asked = (" ".join(f"task{number}word{place}" for place in range(40)) for number in range(count))
    return [
        Task(f"t{number}", f"{prompt}\n\n{BOILERPLATE}", {"python": f"{PROGRAM}print({number})\n"})
        for number, prompt in enumerate(asked)
    ]


def test_a_row_that_holds_a_task_s_prompt_is_found() -> None:
    known = tasks(SHARED_BY + 1)
    index = index_of({"one": known[:1], "all": known})
    words_of_3 = known[3].prompt.split("\n")[0].split()
    rows = [
        f"Solve this: {known[3].prompt.upper()}!",
        " ".join(words_of_3[:36]),
        " ".join(words_of_3[:24]),
        f"Something else altogether is asked here of you today.\n\n{BOILERPLATE}",
        "",
    ]
    held = index.by_prompt(grams(words(rows), GRAM), 0.7)
    named = {row: (index.benchmarks[task], index.names[task]) for row, (task, _) in held.items()}
    assert named == {0: ("all", "t3"), 1: ("all", "t3")}
    assert held[0][1] == 1.0
    assert 0.7 < held[1][1] < 1.0
    assert {*index.by_prompt(grams(words(rows), GRAM), 0.2)} == {0, 1, 2}


def test_a_row_that_holds_a_task_s_solution_is_found() -> None:
    index = index_of({"all": tasks(3)})
    commented = f"# mine\n{PROGRAM}\n\nprint( 2 )  # done\n"
    found = index.by_solution([("python", commented)])
    assert found is not None and index.names[found] == "t2"
    assert index.by_solution([("python", PROGRAM)]) is None
    short = index_of({"all": [Task("t", "?", {"python": "print(1)"})]})
    assert short.by_solution([("python", "print(1)")]) is None


def test_prompts_that_are_too_short_are_counted() -> None:
    index = index_of({"all": [*tasks(2), Task("short", "Add two numbers.", {})], "none": []})
    assert index.short() == {"all": 1}
    assert index_of({}).by_prompt(grams(words(["a b c d e f g h i"]), GRAM), 0.7) == {}


@pytest.mark.parametrize("name", ["python3", "Python", "py"])
def test_a_solution_is_known_by_any_name_of_its_language(name: str) -> None:
    code = f'def f(n):\n    """Tells."""\n    {PROGRAM.splitlines()[1]}\n        print(n, each)\n'
    code += "    return [n, n + 1, n + 2, n + 3]  # all\n"
    index = index_of({"all": [Task("t", "?", {name: code})]})
    bare = code.replace('    """Tells."""\n', "").replace("  # all", "")
    assert index.by_solution([("python", bare)]) == 0
    assert index_of({"all": [Task("t", "?", {"python": bare})]}).by_solution([(name, code)]) == 0
    assert len(forms_of(JOINED, "C++17")) == len(forms_of(JOINED, "cpp")) == 0


JOINED = """#include <iostream>
#include <string>
using namespace std;
int main() { string a, b; cin >> a >> b; cout << a << "-" << b << endl; return 0; }
"""


def test_a_short_program_with_a_frame_is_nobody_s() -> None:
    assert forms_of(JOINED, "cpp") == []
    assert (
        len(forms_of(JOINED.replace("return", "cout << a.size() + b.size(); return"), "cpp")) == 1
    )


@pytest.mark.parametrize(
    "said", ['"""Adds up."""', "'Adds \u00e9.'  # so", 'r"""Adds\n\n    up."""']
)
def test_python_is_the_same_without_its_docstrings(said: str) -> None:
    bare = (
        f"class Empty:\n    pass\n\n\ndef total(numbers):\n    {PROGRAM.splitlines()[1]}\n        "
    )
    bare += "found = numbers[each] + 1\n    return found + len(numbers)\n"
    documented = bare.replace("    pass", f"    {said}").replace(
        "def total(numbers):", f"def total(numbers):\n    {said}"
    )
    [plain] = forms_of(bare, "python")
    assert plain in forms_of(f"{said}\n\n{documented}", "python")
    assert len(forms_of(f"{documented})", "python")) == 1  # does not parse


def test_answers_of_rows_to_compare_with_are_solutions(tmp_path: Path) -> None:
    path = tmp_path / "held.jsonl"
    answer = {"role": "assistant", "content": f"```python\n{PROGRAM}```"}
    rows = [{"messages": [ASKED, answer], "stars": 5}, {"prompt": "x", "reference": {"c": "y"}}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    [one, two] = at_hand(Settings(), [str(path)]).tasks[str(path)]
    assert (one.prompt, one.solutions) == ("Print 1.", {"python": PROGRAM})
    assert (two.prompt, two.solutions) == ("x", {"c": "y"})


def test_a_batch_is_looked_at_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "_AT_ONCE", 100)
    rows = ["x" * size for size in (40, 40, 40, 250, 1, 99)]
    pieces = [piece["row"].to_pylist() for piece in stage.slices(pa.table({"row": rows}))]
    assert [len(row) for piece in pieces for row in piece] == [40, 40, 40, 250, 1, 99]
    assert [len(piece) for piece in pieces] == [2, 1, 2, 1]
    empty = pa.table({"row": pa.array([], pa.string())})
    assert [piece.num_rows for piece in stage.slices(empty)] == [0]


def test_an_answer_of_megabytes_is_not_looked_through() -> None:
    answer = {**ANSWER, "content": f"```cpp\n{'x ' * 600_000}\n```"}
    assert check_row(json.dumps({"messages": [ASKED, answer]}), PLACE, None).solutions == []


def test_an_output_that_would_replace_something_is_refused(tmp_path: Path) -> None:
    output, rows = tmp_path / "good.jsonl", tmp_path / "rows.jsonl"
    rejected, report = rejected_path(output), tmp_path / "report.json"
    assert rejected == tmp_path / "good.rejected.jsonl"
    rows.write_text(json.dumps({"prompt": "x"}) + "\n")
    read = files_of([f"file://{rows}"])
    check_outputs(read, [], output, report)
    for fix, told in (
        (tmp_path, report),
        (rows, report),
        (output, rows),
        (output, tmp_path / "x" / ".." / "rows.jsonl"),
        (output, output),
        (output, rejected),
        (output, sidecar_path(rejected)),
        (output, tmp_path),
        (None, rows),
        (None, sidecar_path(rows)),
    ):
        with pytest.raises(InputError, match=r"is a folder|is read|stands beside|is written by"):
            check_outputs(read, [], fix, told)
    with pytest.raises(InputError, match="is read"):
        check_outputs([str(rejected)], [], output, None)
    with pytest.raises(InputError, match="is read"):
        check_outputs(read, [str(report)], None, report)


def test_good_rows_replace_only_those_of_the_same_rows(tmp_path: Path) -> None:
    output, read = tmp_path / "good.jsonl", ["a.jsonl", "b.jsonl"]
    told: dict[str, Any] = {"revision": None, "licence": None, "seed": None, "read": 1}
    told |= {"left_out": {}, "rows": 1}
    for path in (output, rejected_path(output)):
        path.write_text("{}\n")
        with pytest.raises(InputError, match=r"was not made of a\.jsonl, b\.jsonl"):
            check_outputs(read, [], output, None)
        for origin, filters in (("a.jsonl", {"similar": 0.8}), ("a.jsonl, b.jsonl", {"part": 1})):
            write_sidecar(path, origin=origin, filters=filters, **told)
            with pytest.raises(InputError, match="was not made of"):
                check_outputs(read, [], output, None)
        write_sidecar(path, origin="a.jsonl, b.jsonl", filters={"similar": 0.8}, **told)
        check_outputs(read, [], output, None)
    output.write_text("mine\n")
    with pytest.raises(InputError, match="was not made of"):
        check_outputs(read, [], output, None)


def test_a_report_replaces_no_row_and_starts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def started(*_: Any) -> None:
        raise AssertionError("Ray was started")

    monkeypatch.setattr("haloforge.session.Session.__init__", started)
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"prompt": "x"}) + "\n")
    before = rows.read_bytes()
    for more in (["--report", str(rows)], ["--fix", "g.jsonl", "--report", "g.jsonl"]):
        done = CliRunner().invoke(data_group, ["validate", str(rows), *more])
        assert isinstance(done.exception, InputError), done.output
    assert rows.read_bytes() == before
