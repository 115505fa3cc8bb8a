"""Calls of other packages' functions in our source, checked against their signatures."""

import ast
import inspect
from collections.abc import Iterator
from importlib import import_module
from typing import Any, NamedTuple


class Call(NamedTuple):
    """A call at `line` of what `name` is in its package, by the keywords `keywords`."""

    line: int
    name: str
    target: Any
    keywords: list[str]


def calls_of(source: str, packages: set[str]) -> Iterator[Call]:
    """The calls in `source` of what it imports from `packages`."""
    tree = ast.parse(source)
    names = dict(_imports(tree, packages))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and (found := _resolve(node.func, names)) is not None:
            keywords = [keyword.arg for keyword in node.keywords if keyword.arg is not None]
            yield Call(node.lineno, ast.unparse(node.func), found, keywords)


def unknown_keywords(call: Call) -> set[str]:
    """The keywords that its target does not have."""
    try:
        parameters = inspect.signature(call.target).parameters
    except (TypeError, ValueError):
        return set()
    if any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values()):
        return set()
    return set(call.keywords) - set(parameters)


def _imports(tree: ast.AST, packages: set[str]) -> Iterator[tuple[str, Any]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] in packages:
                    top = alias.name if alias.asname else alias.name.split(".")[0]
                    import_module(alias.name)
                    yield alias.asname or top, import_module(top)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in packages:
            module = import_module(node.module or "")
            for alias in node.names:
                name = alias.name
                if not hasattr(module, name):
                    import_module(f"{node.module}.{name}")
                yield alias.asname or name, getattr(module, name)


def _resolve(function: ast.expr, names: dict[str, Any]) -> Any:
    if isinstance(function, ast.Name):
        return names.get(function.id)
    if isinstance(function, ast.Attribute):
        owner = _resolve(function.value, names)
        return getattr(owner, function.attr, None) if owner is not None else None
    return None
