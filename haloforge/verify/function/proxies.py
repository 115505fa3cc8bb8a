"""The tests' side: stand-ins for what the solution defines, and the line to the solution's box.

What the solution answers is plain data, decoded to the builtin types themselves, so comparing it
runs no code of the solution's. An object that is no plain data is a `Handle`. These operations go
to the solution: call, attributes, items, iteration, `len`, truth, `str`, `repr`, `isinstance` of
its classes. These do not, since an operand may be what a test expects, and the answer its verdict:
`==`, `!=`, `hash` (a handle is equal to itself alone), `<` and the like, `in` (the elements are
fetched and compared here), arithmetic, `abs`, `round`, `int`, `float`, `with` (it may swallow a
failed assertion), `await`, and special methods by name. Of an exception, type and arguments cross.
"""

from __future__ import annotations

import builtins
import itertools
from _thread import RLock
from collections.abc import Callable, Collection, Iterator
from types import ModuleType
from typing import Any

from haloforge.verify.function.encoding import Lines, encode, from_line, is_builtin, to_line

ANSWERS = 8 << 20  # bytes of all answers together
CHUNK = 256  # most elements fetched at once
SHORT = 100  # bytes of a reply that tells of a handle and no more
PASSED_ITERATOR = 100_000  # most elements of an iterator that a test passes to the solution
# Raised within an iterator's own machinery, these would end the tests' loops in silence.
SILENT = (StopIteration, StopAsyncIteration)
# The types of the last two parts of what comes from the solution, by its kind.
REPLIES = {"value": (list, str), "error": (list, str), "callback": (tuple, dict)}
CLIENT, NUMBER, TOLD = " client", " number", " told"  # no attribute of the solution's has a space


class CandidateLost(BaseException):
    """The solution's process is gone or broke the protocol: no test goes on."""

    outcome = "runtime_error"


class TooMuch(CandidateLost):
    """The answers are larger than what is allowed."""

    outcome = "output_limit"


class UnsupportedError(Exception):
    """A test asks for what cannot be done across two boxes: the fault of the tests."""


class RemoteError(Exception):
    """An exception of the solution's that no test could expect by its type."""


def ask(handle: Handle, operation: str, *operands: Any) -> Any:
    return vars(handle)[CLIENT].ask(operation, handle, *operands)


class Handle:
    """Stands for an object of the solution's."""

    def __init__(self, client: Client, number: int) -> None:
        vars(self)[CLIENT] = client
        vars(self)[NUMBER] = number

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return vars(self)[CLIENT].call(self, args, kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__name__":
            raise AttributeError(f"'{name}' is not asked of the solution")
        return ask(self, "getattr", name)

    def __setattr__(self, name: str, value: Any) -> None:
        ask(self, "setattr", name, value)

    def __getitem__(self, key: Any) -> Any:
        return ask(self, "getitem", key)

    def __setitem__(self, key: Any, value: Any) -> None:
        ask(self, "setitem", key, value)

    def __iter__(self) -> Iterator[Any]:
        return ask(self, "iter")

    def __len__(self) -> int:
        return ask(self, "len")

    def __bool__(self) -> bool:
        return ask(self, "bool")

    def __str__(self) -> str:
        return ask(self, "str")

    def __repr__(self) -> str:
        return ask(self, "repr")

    def __instancecheck__(self, value: Any) -> bool:
        return isinstance(value, Handle) and ask(self, "isinstance", value) is True


class HandleIterator(Handle):
    """Stands for an iterator; fetches more elements at once the longer it is used."""

    def __init__(self, client: Client, number: int) -> None:
        super().__init__(client, number)
        vars(self).update({" ready": [], " end": [], " chunk": 1})

    def __iter__(self) -> HandleIterator:
        return self

    def __next__(self) -> Any:
        state = vars(self)
        if not state[" ready"] and state[" end"] == []:
            elements, state[" end"] = ask(self, "next", state[" chunk"])
            state[" ready"] = list(reversed(elements)) if type(elements) is list else []
            state[" chunk"] = min(2 * state[" chunk"], CHUNK)
        if state[" ready"]:
            return state[" ready"].pop()
        end, state[" end"] = state[" end"], None
        if end is not None:
            _, error, args, _ = end
            state[CLIENT].raise_told(error, args)
        raise StopIteration


class Client:
    """Asks the solution's process. `show` is given what it prints.

    `first_use` is called once, when the solution may first have had a say in what the tests do.
    `answered` says that it was called, or told plain data.
    """

    def __init__(
        self,
        read_fd: int,
        write_fd: int,
        show: Callable[[str], object],
        first_use: Callable[[], object],
    ) -> None:
        self.lines = Lines(read_fd, write_fd, ANSWERS)
        self.show = show
        self.first_use = first_use
        self.used = self.answered = False
        self.turn = RLock()
        self.handles: dict[int, Handle] = {}
        self.errors: dict[int, type[Exception]] = {}
        self.callbacks: list[Any] = []
        self.named: set[Any] = set()  # handles of what tests find in the solution by its name
        self.failed_callback: AssertionError | None = None
        self.lost: CandidateLost | None = None
        self.solution = self.handles[0] = Handle(self, 0)

    def ask(self, operation: str, *operands: Any) -> Any:
        """What the solution says. Raises what it raised, or CandidateLost."""
        return self.exchange(operation, *operands)[0]

    def call(self, target: Handle, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The result of a call; arguments that it changed are changed here, in place."""
        self.answered = True
        self.use()
        result, changed = self.exchange("call", target, args, kwargs)
        given: dict[Any, Any] = {**dict(enumerate(args)), **kwargs}
        for key, after in changed.items():
            change(given.get(key), after)
        return result

    def exchange(self, operation: str, *operands: Any) -> tuple[Any, dict[Any, Any]]:
        with self.turn:
            try:
                request = [operation, *(self.encode(operand) for operand in operands)]
            except UnsupportedError as error:
                if operation == "call" and operands[0] in self.named:
                    raise
                raise TypeError(str(error)) from None  # an answer of another type would take it
            self.send(request)
            try:
                value, changed = self.answer()
            except Exception:
                if operation != "getattr" or not operands[1].startswith("_"):  # pytest asks for one
                    self.use()
                raise
        if operation == "getattr" and not isinstance(value, Handle):
            self.answered = True
            self.use()
        elif operation == "getattr" and operands[0] is self.solution:
            self.named.add(value)
        return value, changed

    def use(self) -> None:
        if not self.used:
            self.used = True
            self.first_use()

    def answer(self) -> tuple[Any, dict[Any, Any]]:
        """Waits for a reply, and runs the tests' own functions meanwhile where asked to."""
        while True:
            message = self.receive()
            try:
                if type(message) is not list:
                    raise TypeError
                kind, first, second, third = message
                if (type(second), type(third)) != REPLIES[kind]:
                    raise TypeError
                if kind == "callback":
                    function = self.callbacks[first]
                elif kind == "value":
                    second = dict(second)
            except (ValueError, TypeError, LookupError):
                raise self.lose("what the solution's process sent is no reply") from None
            if kind == "callback":
                self.send(self.call_back(function, second, third))
                continue
            self.show(third)
            if self.failed_callback is not None:
                failed, self.failed_callback = self.failed_callback, None
                raise failed
            if kind == "error":
                self.raise_told(first, second)
            return first, second

    def call_back(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            return ["return", self.encode(function(*args, **kwargs))]
        except Exception as error:
            if isinstance(error, AssertionError) and not was_told(error):
                self.failed_callback = error  # the solution cannot swallow it
            names = [cls.__name__ for cls in type(error).__mro__ if is_builtin(cls)]
            return ["raise", {"type": names[0]}, [str(error)]]

    def raise_told(self, kind: Any, args: list[Any]) -> None:
        """Raise the solution's exception, of its own type where tests may know that."""
        try:
            allowed = issubclass(kind, (Exception, SystemExit)) and not issubclass(kind, SILENT)
            error = kind(*args) if allowed else RemoteError(kind.__name__, *args)
        except Exception:  # its arguments make no such exception
            error = RemoteError(kind.__name__ if isinstance(kind, type) else "exception", *args)
        vars(error)[TOLD] = True
        raise error

    def send(self, message: Any) -> None:
        if self.lost:
            raise self.lost
        try:
            self.lines.write(to_line(message))
        except BrokenPipeError:
            raise self.lose("the solution's process ended") from None

    def receive(self) -> Any:
        try:
            line = self.lines.read()
            if len(line) > SHORT:  # it may be what this process ends of
                self.use()
            return from_line(line, self.resolve)
        except EOFError:
            raise self.lose("the solution's process ended") from None
        except OverflowError:
            limit = f"the solution's answers are larger than {ANSWERS >> 20} MiB"
            raise self.lose(limit, TooMuch) from None
        except (ValueError, TypeError, LookupError, RecursionError, MemoryError) as error:
            reason = f"what the solution's process sent is no reply: {error!s:.200}"
            raise self.lose(reason) from None

    def lose(self, reason: str, kind: type[CandidateLost] = CandidateLost) -> CandidateLost:
        self.lost = kind(reason)
        return self.lost

    def encode(self, value: Any) -> Any:
        return encode(value, self.refer)

    def refer(self, value: Any, base: type | None) -> Any:
        if isinstance(value, Handle):
            return {"handle": vars(value)[NUMBER]}
        if base is not None:
            return None
        for number, error in self.errors.items():
            if value is error:
                return {"handle": number}
        if is_builtin(value):
            return {"type": value.__name__}
        if isinstance(value, slice):
            return {"slice": self.encode([value.start, value.stop, value.step])}
        if hasattr(type(value), "__next__"):
            return {"iterator": self.encode(list(itertools.islice(value, PASSED_ITERATOR)))}
        if not callable(value):
            raise UnsupportedError(f"a {type(value).__name__} cannot be passed to the solution")
        if value not in self.callbacks:
            self.callbacks.append(value)
        return {"callback": self.callbacks.index(value)}

    def resolve(self, tag: str, content: Any) -> Any:
        """What a reference of the solution's stands for. Raises for one that is made up."""
        if tag in ("handle", "iterator"):
            kind = Handle if tag == "handle" else HandleIterator
            number = int(content)
            if number not in self.handles:
                self.handles[number] = kind(self, number)
            return self.handles[number]
        if tag == "callback":
            return self.callbacks[content]
        if tag == "type" and is_builtin(getattr(builtins, content, None)):
            return getattr(builtins, content)
        if tag == "error" and type(content) is list:
            number, name, bases = content
            if number not in self.errors:
                kept = [base for base in bases if issubclass(base, Exception)]
                kept = [base for base in kept if not issubclass(base, SILENT)] or [Exception]
                self.errors[int(number)] = type(name, tuple(kept), {"__module__": "solution"})
            return self.errors[number]
        raise ValueError(f"unknown tag '{tag:.50}'")


class Solution(ModuleType):
    """The module that tests import in the solution's place; `import *` takes `names` alone."""

    def __init__(self, name: str, client: Client, names: Collection[str]) -> None:
        super().__init__(name)
        vars(self).update({CLIENT: client, " names": names, " replaced": {}})

    def __getattr__(self, name: str) -> Any:
        if name == "__all__":
            return [name for name in vars(self)[" names"] if hasattr(self, name)]
        return getattr(vars(self)[CLIENT].solution, name)

    def __setattr__(self, name: str, value: Any) -> None:
        vars(self)[" replaced"].setdefault(name, getattr(self, name))
        setattr(vars(self)[CLIENT].solution, name, value)

    def __delattr__(self, name: str) -> None:
        """How monkeypatch and mock.patch undo what they set on a module that lacked it."""
        setattr(vars(self)[CLIENT].solution, name, vars(self)[" replaced"].pop(name))


def was_told(error: BaseException) -> bool:
    """Whether it is the solution's own exception."""
    return TOLD in getattr(error, "__dict__", {})


def change(given: Any, after: Any) -> None:
    """Make `given`, which a test passed, equal to what the solution made of it."""
    base: Any = type(after)
    if base not in (list, dict, set, bytearray) or not isinstance(given, base):
        return
    base.clear(given)
    if base in (dict, set):
        base.update(given, after)
    else:
        base.extend(given, after)
