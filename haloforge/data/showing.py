"""Names that tests call: a prompt must show them, or no answer can pass but by chance."""

import ast
import re
import sys
from collections.abc import Iterator
from typing import Any

from haloforge.schema import CODE_JUDGES, UNPARSED
from haloforge.verify.function.tester import free_names

_KIND = "class|function|method"
_SHOWN = (
    r"\b{name}[(\[]"
    rf"|\b(?:def|fn|{_KIND}|named|called)\s+[`'\"]?{{name}}\b"
    rf"|\b{{name}}[`'\"]?\s+(?:{_KIND})\b"
)
_CODE_SPAN = re.compile(r"`([^`\n]+)`")
_WORD = re.compile("[A-Z]?[a-z]+")


def names_called(test_code: str, entry_point: str | None, judge: str = "function") -> list[str]:
    """What an answer must define for `test_code`; for judge `pytest` what that takes of the modules
    that an answer is. Raises ValueError where it does not parse."""
    try:
        if judge == "pytest":
            found = set(_imported(ast.parse(test_code), {*_ANSWER, entry_point or ""}))
            modules = sys.stdlib_module_names  # which an answer imports
            return sorted(n for n in found if not n.startswith("__") and n not in modules)
        names = free_names(test_code, entry_point or "")
    except UNPARSED as error:
        raise ValueError(f"its tests do not parse: {error}") from None
    return [name for name in names if name == entry_point or name not in sys.stdlib_module_names]


_ANSWER = {"solution", "main"}


def _imported(tree: ast.Module, modules: set[str]) -> Iterator[str]:
    """The names of `modules` that the code imports, or takes of one that it imports."""
    bound = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in modules:
            yield from (alias.name for alias in node.names if alias.name != "*")
        elif isinstance(node, ast.Import):
            bound |= {each.asname or each.name for each in node.names if each.name in modules}
    for node in ast.walk(tree):
        of = node.value if isinstance(node, ast.Attribute) else None
        if isinstance(node, ast.Attribute) and isinstance(of, ast.Name) and of.id in bound:
            yield node.attr


def hidden_names(prompt: str, names: list[str]) -> list[str]:
    """Those of `names` that `prompt` does not show: a name that may be a word of English must stand
    there as a name does, as `add(`, "function add" or in a line of Python; any other but as a word
    of its own."""
    return [name for name in names if not _shows(prompt, name)]


def _shows(prompt: str, name: str) -> bool:
    if not re.search(rf"\b{re.escape(name)}\b", prompt):
        return False
    if not _WORD.fullmatch(name) or re.search(_SHOWN.replace("{name}", name), prompt):
        return True
    spans = _CODE_SPAN.findall(prompt)
    if any(re.search(rf"\b{name}\b", span) for span in spans):
        return True
    return any(name in _names_in(code) for code in (*prompt.split("\n\n"), *prompt.splitlines()))


def _names_in(code: str) -> set[str]:
    """The names in a piece of Python that does something; none in what is no Python, or may be
    English all the same, as `Topic: reverse` is."""
    try:
        nodes = [*ast.walk(ast.parse(code.strip().removeprefix(">>> ")))]
    except UNPARSED:
        return set()
    if not any(isinstance(node, _DOING) for node in nodes):
        return set()
    imported = {each.name for node in nodes if isinstance(node, _IMPORTS) for each in node.names}
    return imported | {node.id for node in nodes if isinstance(node, ast.Name)}


_IMPORTS = (ast.Import, ast.ImportFrom)
_DOING = (ast.Call, ast.Assert, ast.Assign, *_IMPORTS)


def asserts_of(test_code: str) -> list[str]:
    """The asserts of a test file and of its functions, as they are written. Raises ValueError."""
    try:
        tree = ast.parse(test_code)
    except UNPARSED as error:
        raise ValueError(f"its tests do not parse: {error}") from None
    functions = [node.body for node in tree.body if isinstance(node, ast.FunctionDef)]
    bodies = [tree.body, *functions]
    found = [node for body in bodies for node in body if isinstance(node, ast.Assert)]
    return [ast.get_source_segment(test_code, node) or ast.unparse(node) for node in found]


def shown_asserts(asserts: list[str], names: list[str]) -> list[str]:
    """The first of `asserts`, and as many more as it takes to show all of `names`."""
    count = 1
    while count < len(asserts) and hidden_names("\n".join(asserts[:count]), names):
        count += 1
    return asserts[:count]


def with_names_shown(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields of a problem, its prompt or last turn followed by what it hides of the names that
    its Python tests call. Raises ValueError for tests that do not parse."""
    test_code, judge = fields.get("test_code"), fields.get("judge", "function")
    called = fields.get("entry_point")
    if not isinstance(test_code, str) or not isinstance(called, str | None):
        return fields
    if judge not in CODE_JUDGES:
        return fields
    names = names_called(test_code, called, judge)
    if isinstance(prompt := fields.get("prompt"), str):
        return {**fields, "prompt": _shown(prompt, prompt, test_code, names)}
    turns: Any = fields.get("messages")
    if not _are_turns(turns):
        return fields
    said = "\n".join(turn["content"] for turn in turns)
    last = {**turns[-1], "content": _shown(turns[-1]["content"], said, test_code, names)}
    return {**fields, "messages": [*turns[:-1], last]}


def _are_turns(turns: Any) -> bool:
    """Of another form they are refused by whoever reads the problem."""
    return (
        isinstance(turns, list)
        and bool(turns)
        and all(isinstance(turn, dict) and isinstance(turn.get("content"), str) for turn in turns)
    )


def _shown(prompt: str, said: str, test_code: str, names: list[str]) -> str:
    """`prompt`, followed by what `said` hides of `names`: by a test that shows them, else by the
    names themselves."""
    hidden = hidden_names(said, names)
    if not hidden:
        return prompt
    shown = "\n".join(shown_asserts(asserts_of(test_code), hidden))
    if shown and not hidden_names(shown, hidden):
        return f"{prompt.rstrip()}\n\nYour code should pass these tests:\n\n{shown}"
    listed = ", ".join(f"`{name}`" for name in hidden)
    return f"{prompt.rstrip()}\n\nYour code must define {listed}."
