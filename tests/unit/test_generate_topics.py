"""Topics, backends, slots and what is asked in them; what it will cost."""

import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from haloforge.data.generate.answers import Answer, Answers
from haloforge.data.generate.backends import ANY_KEY, backends, find_backend
from haloforge.data.generate.cost import expected, told
from haloforge.data.generate.slots import messages, slots
from haloforge.data.generate.topic import Rule, Topic, find_topic, topics
from haloforge.data.normalise import without_comments
from haloforge.errors import InputError
from tests.scripted_llm import ScriptedLLM

OWN: dict[str, Any] = {
    "name": "sums",
    "about": "sums",
    "language": "python",
    "judge": "stdio",
    "categories": {"ints": {"about": "whole numbers"}, "floats": {"about": "others"}},
    "levels": {"easy": "two of them", "hard": "many"},
    "themes": ["a shop", "a ship"],
}
MESSAGE = [{"role": "user", "content": "x" * 400}]


def test_the_topics_that_are_promised_are_there() -> None:
    found = topics()
    assert {name: (t.language, t.judge) for name, t in found.items()} == {
        "cpp_algorithms": ("cpp", "stdio"),
        "go_concurrency": ("go", "stdio"),
        "python_testing": ("python", "pytest"),
        "rust_async": ("rust", "stdio"),
    }
    assert all(len(t.themes) == len(set(t.themes)) > 5 for t in found.values())


def test_patterns_are_looked_for_in_code_and_not_in_comments() -> None:
    topic = find_topic("rust_async")
    good = "use std::sync::mpsc;\nfn main() { let (a, b) = mpsc::channel::<i32>(); }"
    assert topic.broken(good, "channels") is None
    hidden = "// mpsc\nfn main() { /* mpsc */ }"
    assert topic.broken(hidden, "channels") == (
        "required and not there: a channel of std::sync::mpsc is used"
    )
    assert topic.broken(f"{good} // unsafe", "channels") is None
    assert topic.broken(f"{good} unsafe {{}}", "channels") == (
        "forbidden and there: no unsafe code"
    )
    go = find_topic("go_concurrency")
    code = 'package main\nimport "os/exec"\nfunc main() { c := make(chan int); go f(c) }'
    assert go.broken(code, "pipelines") == "forbidden and there: no unsafe, os/exec, net or syscall"
    assert go.broken(code.replace('"os/exec"', '"fmt" // "os/exec"'), "pipelines") is None


def test_comments_go_and_lines_stay() -> None:
    python = "def f():\n    # why\n    return '#1'  # that\n"
    assert without_comments(python, "python") == "def f():\n\n    return '#1'\n"
    assert without_comments("#include <a> // b\nint x;/* y */int z;", "cpp") == (
        "#include <a>\nint x; int z;"
    )
    assert without_comments("10 REM x", "basic") == "10 REM x"


def test_a_pattern_takes_linear_time() -> None:
    began = time.monotonic()
    assert not Rule(pattern=r"(a+)+b$", says="-").fits("a" * 200_000)
    assert Rule(pattern="x", says="-").fits("\ud800x")  # half a surrogate pair
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"judge": "sql"}, "field 'judge': Input should be"),
        ({"language": "cobol"}, "field 'language': unknown language 'cobol'; known: c, cpp"),
        ({"judge": "pytest", "language": "go"}, "'pytest' is for language python"),
        ({"judge": "program"}, "'program' is for languages cpp"),
        ({"categories": {}}, "field 'categories': Dictionary should have at least 1 item"),
        ({"colour": "red"}, "field 'colour': Extra inputs are not permitted"),
        (
            {"required": [{"pattern": r"(?=x)", "says": "-"}]},
            "field 'required.0.pattern': expected a regular expression of RE2 (",
        ),
        ({"levels": None}, "field 'levels': Input should be a valid dictionary"),
    ],
)
def test_a_topic_that_is_none_is_refused_in_one_line(
    tmp_path: Path, change: dict[str, Any], why: str
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({**OWN, **change}))
    with pytest.raises(InputError) as refused:
        find_topic(str(path))
    assert str(refused.value).startswith(f"{path}: ") and why in str(refused.value)
    assert "\n" not in str(refused.value)


def test_an_unknown_topic_names_those_that_are_known(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no topic 'rust'; known: cpp_algorithms, go_"):
        find_topic("rust")
    with pytest.raises(InputError, match=r"none\.yaml: cannot be read \(No such file"):
        find_topic(str(tmp_path / "none.yaml"))
    (tmp_path / "torn.yaml").write_text("name: [a\nb: c")
    with pytest.raises(InputError, match=r"torn\.yaml, line 2: not valid YAML"):
        find_topic(str(tmp_path / "torn.yaml"))


def test_slots_are_the_same_in_every_run_and_spread_evenly() -> None:
    topic = Topic.model_validate(OWN)
    few, many = list(slots(topic, "m", 0, 6)), list(slots(topic, "m", 0, 100))
    assert many[:6] == few and len({slot.request for slot in many}) == 100
    assert [(s.category, s.level, s.number) for s in few] == [
        ("ints", "easy", 0),
        ("floats", "easy", 0),
        ("ints", "hard", 0),
        ("floats", "hard", 0),
        ("ints", "easy", 1),
        ("floats", "easy", 1),
    ]
    assert {slot.theme for slot in many} == {"a shop", "a ship"}
    others = [slots(topic, "n", 0, 6), slots(topic, "m", 1, 6)]
    others.append(slots(topic.model_copy(update={"about": "x"}), "m", 0, 6))
    assert not {s.request for each in others for s in each} & {s.request for s in few}


@pytest.mark.parametrize("name", ["rust_async", "python_testing"])
def test_what_is_asked_says_all_that_is_checked(name: str) -> None:
    topic = find_topic(name)
    for slot in slots(topic, "m", 0, len(topic.categories) * len(topic.levels)):
        system, user = messages(topic, slot)
        assert (system["role"], user["role"]) == ("system", "user")
        rules = [*topic.required_in(slot.category), *topic.forbidden_in(slot.category)]
        for said in [*topic.rules, *(rule.says for rule in rules), topic.levels[slot.level]]:
            assert said in user["content"]
        assert "{count}" not in user["content"] and str(slot.theme) in user["content"]
    assert messages(topic, slot) == messages(topic, slot)


def test_every_backend_has_what_it_needs() -> None:
    known = backends()
    assert {name: each.key for name, each in known.items()} == {
        "openai": "OPENAI_API_KEY",
        "deepseek": "DEEPSEEK_API_KEY",
        "anthropic": "ANTHROPIC_API_KEY",
        "ollama": None,
        "haloforge": ANY_KEY,
    }
    assert all(each.price is not None and each.priced for each in known.values())
    of_ones_own = find_backend("ollama", "of-tomorrow").price
    assert of_ones_own is not None and of_ones_own.output == 0


def test_a_server_of_ones_own_is_asked_which_model_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ANY_KEY, raising=False)
    with ScriptedLLM().serving() as llm:
        assert find_backend(llm.url, None).model == "scripted"
        assert find_backend(llm.url, "another").model == "another"
        monkeypatch.setenv(ANY_KEY, "k")
        find_backend(llm.url, None)
        assert llm.keys == {"Bearer none", "Bearer k"}
        llm.lists = ()
        with pytest.raises(InputError, match=r"lists no model \(no list of models\)"):
            find_backend(llm.url, None)
    with pytest.raises(InputError, match=r"lists no model \(.*refused\); is it up"):
        find_backend(llm.url, None)


@pytest.mark.parametrize("key", ["one\ntwo", "clé", "a\x00"])
def test_a_key_that_cannot_be_sent_is_one_line(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setattr("os.environ", {"DEEPSEEK_API_KEY": key})
    with pytest.raises(InputError, match="DEEPSEEK_API_KEY holds what no key does") as refused:
        find_backend("deepseek", None).api_key()
    assert key not in str(refused.value)


def test_a_missing_key_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DEEPSEEK_API_KEY", raising=False)
    with pytest.raises(InputError, match="set DEEPSEEK_API_KEY in the environment"):
        find_backend("deepseek", None).api_key()
    monkeypatch.setenv("DEEPSEEK_API_KEY", " ")
    with pytest.raises(InputError, match="DEEPSEEK_API_KEY"):
        find_backend("deepseek", None).api_key()
    monkeypatch.setenv("DEEPSEEK_API_KEY", "k")
    assert find_backend("deepseek", None).api_key() == "k"
    assert find_backend("ollama", None).api_key() == "none"


def test_any_address_is_a_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "not for others")
    monkeypatch.delenv(ANY_KEY, raising=False)
    found = find_backend("http://localhost:8000/v1/", "mine")
    assert (found.url, found.model, found.price) == ("http://localhost:8000/v1", "mine", None)
    assert found.api_key() == "none"
    monkeypatch.setenv(ANY_KEY, "k")
    assert found.api_key() == "k"
    for name, model, why in (
        ("http://me:secret@host/v1", "m", "holds credentials"),
        ("http://host/v1?api_key=secret", "m", "holds credentials"),
        ("ftp://host/v1", "m", "expected an address such as"),
        ("http://host:99999/v1", "m", "expected an address such as"),
        ("http://[::1/v1", "m", "expected an address such as"),
        ("http://local host/v1", "m", "expected an address such as"),
        ("http:///v1", "m", "expected an address such as"),
        ("mistral", None, "no backend 'mistral'; known: openai"),
    ):
        with pytest.raises(InputError, match=why) as refused:
            find_backend(name, model)
        assert "secret" not in str(refused.value)


def test_the_cost_is_told_or_said_not_to_be_known(tmp_path: Path) -> None:
    deepseek = find_backend("deepseek", "deepseek-v4-flash")
    cost = expected(deepseek, MESSAGE, 1000, 1500, None)
    assert (cost.input_tokens, cost.output_tokens) == (100_000, 1_500_000)
    assert cost.usd == pytest.approx(0.1 * 0.14 + 1.5 * 0.28)
    assert "about 0.43 USD (DeepSeek's own page" in told(cost, deepseek)
    other = find_backend("deepseek", "of-tomorrow")
    unknown = expected(other, MESSAGE, 1000, 1500, None)
    assert unknown.usd is None and "cost not known" in told(unknown, other)
    with Answers(tmp_path) as answers:
        answers.commit(Answer("a", "x", "stop", 300, 700))
        answers.commit(Answer("b", "x", "stop", 100, 300))
        after = expected(deepseek, MESSAGE, 10, 1500, answers)
    assert (after.input_tokens, after.output_tokens) == (2000, 5000)
