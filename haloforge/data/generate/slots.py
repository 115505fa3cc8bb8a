"""Which requests there are: each is a slot that is the same in every run, and in which words."""

from collections.abc import Iterator
from dataclasses import dataclass

from haloforge.data.generate.topic import APPENDED, Topic
from haloforge.data.problems import LANGUAGES
from haloforge.schema import Message, digest

WORDING = 1
"""The version of the words below: with others the answers are others."""
_SYSTEM = (
    "You write programming exercises with which other models are taught and measured. Whatever you "
    "write is compiled and run: a solution that fails one of its own tests is thrown away. So keep "
    "tests small enough to work out by hand, and check each against your solution first."
)
_TESTS = {
    "stdio": (
        "a ```json block with a list of at least {count} objects, each with `stdin`, what the "
        "program reads, and `stdout`, exactly what it must print, both as text"
    ),
    "function": (
        "a ```python block with at least {count} asserts, at the top level or in functions "
        "`test_*`, that call what the solution defines"
    ),
    "pytest": (
        "a ```python block with a pytest file that imports what it tests from the module "
        "`solution`, with at least {count} checks"
    ),
    "program": (
        "a ```{fence} block that is appended to the solution to make a whole program, with at "
        "least {count} checks; it {form}"
    ),
}
_SOLUTIONS = {
    "stdio": "one whole program",
    "function": "the code that is asked for, without tests",
    "pytest": "the whole module, without tests",
    "program": "the code that is asked for, without `main`",
}


@dataclass(frozen=True)
class Slot:
    """One request: the `number`-th for its category and level. `request` is its id."""

    request: str
    category: str
    level: str
    number: int
    theme: str | None


def slots(topic: Topic, model: str, seed: int, count: int) -> Iterator[Slot]:
    """The first `count` slots, round the categories and levels; those of a smaller count are the
    first of a larger one."""
    cells = [(category, level) for level in topic.levels for category in topic.categories]
    told = topic.digest
    for place in range(count):
        number, cell = divmod(place, len(cells))
        category, level = cells[cell]
        request = digest(told, category, level, number, model, seed)
        theme = topic.themes[int(request, 16) % len(topic.themes)] if topic.themes else None
        yield Slot(request, category, level, number, theme)


def messages(topic: Topic, slot: Slot) -> list[Message]:
    """What is asked for in a slot."""
    language, fence = LANGUAGES[topic.language]
    category = topic.categories[slot.category]
    form = APPENDED.get(topic.language)
    tests = _TESTS[topic.judge].format(count=topic.tests, fence=fence, form=form)
    required = [rule.says for rule in topic.required_in(slot.category)]
    forbidden = [rule.says for rule in topic.forbidden_in(slot.category)]
    lines = [
        f"Write one exercise in {language}. Topic: {topic.about}.",
        f"- part of the topic: {slot.category.replace('_', ' ')}: {category.about}",
        f"- difficulty: {slot.level}: {topic.levels[slot.level]}",
        *([f"- its story is about {slot.theme}"] if slot.theme else []),
        f"- it is number {slot.number + 1} of its kind: let it differ from the usual ones",
        *(f"- {rule}" for rule in topic.rules),
        *(f"- the solution must keep this: {says}" for says in required),
        *(f"- and this: {says}" for says in forbidden),
        "",
        "Answer with three sections and nothing else, under these headings:",
        "",
        "# Problem",
        "The statement, by which somebody who sees neither tests nor solution can write a right "
        "one: what is read and printed in which format, or names and signatures; bounds; an "
        "example. No hint at the solution's code.",
        "",
        "# Tests",
        f"Only {tests}.",
        "",
        "# Solution",
        f"Only a ```{fence} block with {_SOLUTIONS[topic.judge]}.",
    ]
    return [
        {"role": "system", "content": _SYSTEM},
        {"role": "user", "content": "\n".join(lines)},
    ]
