"""Names that tests call: a prompt must show them, or no answer can pass but by chance."""

import ast
import re
import sys

from haloforge.schema import UNPARSED
from haloforge.verify.function.tester import free_names


def names_called(test_code: str, entry_point: str | None) -> list[str]:
    """What an answer must define for `test_code`. Raises ValueError where that does not parse."""
    try:
        names = free_names(test_code, entry_point or "")
    except UNPARSED as error:
        raise ValueError(f"its tests do not parse: {error}") from None
    return [name for name in names if name == entry_point or name not in sys.stdlib_module_names]


def hidden_names(prompt: str, names: list[str]) -> list[str]:
    """Those of `names` that stand nowhere in `prompt` as words of their own."""
    return [name for name in names if not re.search(rf"\b{re.escape(name)}\b", prompt)]


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


def with_names_shown(prompt: str, test_code: str, entry_point: str | None) -> str:
    """`prompt`, followed by what it hides of the names that `test_code` calls: by a test that shows
    them, else by the names themselves. Raises ValueError for tests that do not parse."""
    hidden = hidden_names(prompt, names_called(test_code, entry_point))
    if not hidden:
        return prompt
    shown = "\n".join(shown_asserts(asserts_of(test_code), hidden))
    if shown and not hidden_names(shown, hidden):
        return f"{prompt.rstrip()}\n\nYour code should pass these tests:\n\n{shown}"
    listed = ", ".join(f"`{name}`" for name in hidden)
    return f"{prompt.rstrip()}\n\nYour code must define {listed}."
