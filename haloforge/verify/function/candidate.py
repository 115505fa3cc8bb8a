"""Runs in the solution's box: compiles solution.py, imports it once, does what the tests ask.

The solution shares this process and may answer in its stead, whatever it likes. That gains it
nothing: it is asked for answers alone, and what they should be never comes here.

The first line, written before any of the solution's code has run, tells how compiling went:
`["compiled", diagnostics or None, warnings, milliseconds]`. The second is the import's reply.
A request is a list: an operation and its operands. A reply is one of
`["value", result, changed, printed]`, with the arguments that a call changed in place, and
`["error", type, arguments, printed]`. While a call runs it may hold requests the other way:
`["callback", number, args, kwargs]`, answered by `["return", result]` or by an error.
"""

from __future__ import annotations

import builtins
import io
import os
import sys
import time
import warnings
from _thread import get_ident
from types import ModuleType
from typing import Any

from haloforge.verify.function.encoding import (
    CrossingError,
    Lines,
    encode,
    from_line,
    is_builtin,
    to_line,
)

SOURCE = "solution.py"
REQUESTS, REPLIES = 3, 4
MESSAGE = 500  # characters of an exception's text
PRINTED = 1 << 20  # bytes held back of what one request prints
CHANGEABLE = (list, dict, set, bytearray)


class Printed(io.BytesIO):
    """What a request prints, told with its reply; more than that goes out at once, to the limit."""

    def write(self, data: Any) -> int:
        return super().write(data) if self.tell() < PRINTED else os.write(1, data)


class Callback:
    """A function of the tests, given to the solution as an argument."""

    def __init__(self, server: Server, number: int) -> None:
        self._server = server
        self._number = number

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._server.call_back(self._number, args, kwargs)


class Server:
    """Keeps the objects that the tests hold handles of; handle 0 is the solution's module."""

    def __init__(self, solution: ModuleType) -> None:
        self.lines = Lines(REQUESTS, REPLIES)
        self.objects: list[Any] = []
        self.numbers: dict[int, int] = {}
        self.callbacks: dict[int, Callback] = {}
        self.thread = get_ident()
        self.printed = Printed()
        self.handle(solution)

    def handle(self, value: Any) -> int:
        """The number of an object; kept, so that no other ever has its identity."""
        if id(value) not in self.numbers:
            self.numbers[id(value)] = len(self.objects)
            self.objects.append(value)
        return self.numbers[id(value)]

    def refer(self, value: Any, base: type | None) -> Any:
        if type(value) is Callback:
            return {"callback": value._number}
        if isinstance(value, type):
            if is_builtin(value):
                return {"type": value.__name__}
            if issubclass(value, BaseException):
                bases = [b for b in value.__bases__ if issubclass(b, BaseException)]
                named = [self.refer(b, None) for b in bases]
                return {"error": [self.handle(value), value.__name__, named]}
        if base is not None and id(value) not in self.numbers:
            return None
        return {"iterator" if hasattr(type(value), "__next__") else "handle": self.handle(value)}

    def resolve(self, tag: str, content: Any) -> Any:
        if tag == "handle":
            return self.objects[content]
        if tag == "callback":
            return self.callbacks.setdefault(content, Callback(self, content))
        if tag == "iterator":
            return iter(content)
        if tag == "slice":
            return slice(*content)
        return getattr(builtins, content)  # tag "type"

    def encode(self, value: Any) -> Any:
        return encode(value, self.refer)

    def receive(self) -> Any:
        try:
            return from_line(self.lines.read(), self.resolve)
        except EOFError:
            os._exit(0)  # the tests are over: no exit handler, no waiting for threads

    def send(self, message: Any) -> None:
        self.lines.write(to_line(message))

    def compile(self) -> Any:
        """The solution's code; where there is none, this says so and ends."""
        with io.FileIO(SOURCE) as file:
            source = file.read()
        start = time.monotonic()
        code, failure = None, None
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                code = compile(source, SOURCE, "exec", dont_inherit=True)
            except Exception as error:
                line = f" (line {error.lineno})" if isinstance(error, SyntaxError) else ""
                failure = f"{type(error).__name__}: {getattr(error, 'msg', error)}{line}"
        told = [f"{w.category.__name__}: {w.message} (line {w.lineno})" for w in caught]
        self.send(["compiled", failure, told, 1000 * (time.monotonic() - start)])
        if failure is not None:
            os._exit(0)
        return code

    def serve(self) -> None:
        sys.stdout = io.TextIOWrapper(self.printed, "utf-8", "replace", write_through=True)
        self.send(["value", None, [], ""])
        while True:
            self.send(self.reply(self.receive()))

    def reply(self, request: Any) -> Any:
        operation, *operands = request
        try:
            value, changed = getattr(self, f"do_{operation}")(*operands)
            return ["value", value, changed, self.text()]
        except BaseException as error:
            return self.failure(error)

    def text(self) -> str:
        text = self.printed.getvalue().decode("utf-8", "replace")
        self.printed.seek(0)
        self.printed.truncate()
        return text

    def failure(self, error: BaseException) -> Any:
        """An exception as a reply: its type, and its arguments where they are short plain data."""
        told: Any = [f"the answer cannot be told: {error}" if type(error) is CrossingError else ""]
        try:
            told = [part[:MESSAGE] if type(part) is str else part for part in error.args[:9]]
            told = encode(told, refuse)
            if len(to_line(told)) > 9 * MESSAGE:
                raise CrossingError
        except Exception:
            try:
                told = [str(error)[:MESSAGE]]
            except Exception:
                told = []
        return ["error", self.refer(type(error), None), told, self.text()]

    def call_back(self, number: int, args: Any, kwargs: Any) -> Any:
        if get_ident() != self.thread:
            raise RuntimeError("a function of the tests can be called from the main thread alone")
        self.send(["callback", number, self.encode(args), self.encode(kwargs)])
        while True:
            message = self.receive()
            if message[0] == "return":
                return message[1]
            if message[0] == "raise":
                raise message[1](*message[2])
            self.send(self.reply(message))  # the function asks something of the solution itself

    def do_call(self, target: Any, args: Any, kwargs: Any) -> Any:
        given = {**dict(enumerate(args)), **kwargs}
        given = {key: value for key, value in given.items() if type(value) in CHANGEABLE}
        before = {key: to_line(self.encode(value)) for key, value in given.items()}
        result = target(*args, **kwargs)
        if isinstance(target, type) and type(result).__module__ == "solution":
            self.handle(result)  # tests that make an object want its methods, a list's or not
        changed = [
            [key, after]
            for key, value in given.items()
            if to_line(after := self.encode(value)) != before[key]
        ]
        return self.encode(result), changed

    def do_getattr(self, target: Any, name: str) -> Any:
        return self.encode(getattr(target, name)), []

    def do_setattr(self, target: Any, name: str, value: Any) -> Any:
        setattr(target, name, value)
        return None, []

    def do_getitem(self, target: Any, key: Any) -> Any:
        return self.encode(target[key]), []

    def do_setitem(self, target: Any, key: Any, value: Any) -> Any:
        target[key] = value
        return None, []

    def do_iter(self, target: Any) -> Any:
        return {"iterator": self.handle(iter(target))}, []

    def do_next(self, target: Any, most: int) -> Any:
        """Up to `most` elements, then what ended them before that: an error, or None at the end."""
        elements: list[Any] = []
        try:
            while len(elements) < most:
                elements.append(self.encode(next(target)))
        except StopIteration:
            return [elements, None], []
        except BaseException as error:
            return [elements, self.failure(error)], []
        return [elements, []], []

    def do_len(self, target: Any) -> Any:
        return len(target), []

    def do_bool(self, target: Any) -> Any:
        return bool(target), []

    def do_str(self, target: Any) -> Any:
        return str(target), []

    def do_repr(self, target: Any) -> Any:
        return repr(target), []

    def do_isinstance(self, target: Any, value: Any) -> Any:
        return isinstance(value, target), []


def refuse(value: Any, base: type | None) -> Any:
    if base is None:
        raise CrossingError
    return None


def main() -> None:
    solution = ModuleType("solution")
    solution.__file__ = SOURCE
    sys.modules["solution"] = solution
    sys.argv = [SOURCE]
    server = Server(solution)
    code = server.compile()
    try:
        exec(code, vars(solution))
    except BaseException as error:
        server.send(server.failure(error))
        os._exit(0)
    server.serve()
