"""Problems that are continued with no template: how they are written, asked and read."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from haloforge.config import load_settings
from haloforge.data.chat import encode_prefix
from haloforge.data.problems import answer_start, prompts_digest, read_problems
from haloforge.data.samples import survey
from haloforge.errors import InputError
from haloforge.preflight import check_raft
from haloforge.schema import Problem
from tests.unit.suite_rows import write

PREFIX = "def twice(n):\n"
ROW = {"prefix": PREFIX, "test_code": "assert twice(2) == 4", "stop": ["\ndef"]}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"prompt": "Add."}, "give 'prompt', 'messages' or 'prefix', one of them"),
        ({"answer_start": "x"}, "'prefix' must end with 'answer_start'"),
        ({"stop": [""]}, "'stop' must hold no empty string"),
        ({"judge": "program", "language": "python"}, "judge 'program' needs a 'language' of cpp"),
    ],
)
def test_what_is_wrong_is_told(fields: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValidationError, match=expected):
        Problem.model_validate({"problem_id": "p", "judge": "function", **ROW, **fields})


def test_a_prefix_is_read_from_a_file_and_tells_its_problem_apart(tmp_path: Path) -> None:
    other = {**ROW, "prefix": "def thrice(n):\n"}
    one, two = read_problems(str(write(tmp_path / "p.jsonl", ROW, other, ROW)))
    assert (one.prefix, one.judge, one.language, one.stop) == (
        PREFIX,
        "function",
        "python",
        ROW["stop"],
    )
    assert one.problem_id != two.problem_id
    assert answer_start(one) == PREFIX
    assert prompts_digest([one]) != prompts_digest([one.model_copy(update={"stop": []})])


def test_what_the_answer_begins_with_can_be_less_than_the_prefix() -> None:
    row = {"problem_id": "p", "prefix": "Twice n:\ndef f(n):\n", "answer_start": "def f(n):\n"}
    assert answer_start(Problem.model_validate(row)) == "def f(n):\n"
    assert answer_start(Problem.model_validate({**row, "answer_start": ""})) == ""


def test_raft_refuses_what_is_no_conversation(tmp_path: Path) -> None:
    path = str(write(tmp_path / "p.jsonl", ROW))
    with pytest.raises(InputError, match="RAFT trains on conversations"):
        check_raft(load_settings(None, {"raft.prompts": path}))


def test_stored_samples_may_hold_it(tmp_path: Path) -> None:
    path = write(tmp_path / "s.jsonl", {**ROW, "completion": f"{PREFIX}    return 2 * n\n"})
    assert (survey(path, None).rows, survey(path, None).unused) == (1, set())


def test_a_prefix_is_encoded_with_what_a_text_begins_with(tiny_model: Path) -> None:
    from tokenizers import processors
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    plain = encode_prefix(tokenizer, PREFIX)
    assert tokenizer.decode(plain) == PREFIX
    start = tokenizer.convert_tokens_to_ids("<|im_start|>")
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", start)]
    )
    assert encode_prefix(tokenizer, PREFIX) == [start, *plain]
