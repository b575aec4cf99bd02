"""Pickles of others, read by a restricted interpreter that can make plain values and nothing else.

Python's unpickler lets a pickle set the state of whatever it holds, hash what takes for ever to hash, and name memory
that it does not have. This one knows the opcodes that files of weights and CIFAR's archives are made of. What stands
for a class or function comes from a table; containers are never walked through, compared, hashed or shown, so nesting
costs nothing; and what a file of some size can make is bounded: a value an opcode, no text twice.
"""

import io
import pickle
import struct
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, BinaryIO

from ncl_jax.errors import DataError

MOST_STEPS = 5_000_000  # opcodes of a pickle; CIFAR-100's largest file has a quarter of a million
MOST_NAME = 200  # characters of a module's or function's name
SMALL = 1 << 16  # bytes that may be asked for without a look at what is left

_KEYS = {str, bytes, int, bool, float, type(None)}  # whose hashes cost nothing


def load(
    file: BinaryIO,
    allowed: Mapping[tuple[str, str], Any],
    reason: str,
    *,
    encoding: str = "utf-8",
    persistent: Callable[[Any], Any] | None = None,
) -> Any:
    """The value of the pickle at the file's position, which is then behind it.

    Args:
      file: the pickle, in protocol 2 to 5; it can be sought in.
      allowed: what stands in for a class or function, by module and name. These alone are called, with the pickle's
        arguments as they come; what they return is given a state if its class has a method `build(state)`.
      reason: why anything else is refused, for the message.
      encoding: of Python 2's strings; `bytes` leaves them as they are.
      persistent: what a reference to something outside of the pickle gives; None: it is refused.

    Raises:
      DataError: it asks for what is not allowed.
      Exception: any, where it is damaged.
    """
    return _Machine(file, allowed, reason, encoding, persistent).run()


def ordered_dict(pairs: Iterable = ()) -> OrderedDict:
    """Stands in for `collections.OrderedDict`, to which Python 2's pickles give a list of pairs."""
    return OrderedDict((_checked(key), value) for key, value in pairs)


def shown(value: Any) -> str:
    """A pickle's value for a message: text and numbers, and nothing that could take for ever to write down."""
    if type(value) in (str, bytes):
        return repr(value[:MOST_NAME])
    return repr(value) if type(value) in (bool, float, type(None)) or _is_small(value) else type(value).__name__


def _is_small(value):
    return type(value) is int and value.bit_length() <= 64


def _checked(key):
    """A dictionary's key. Raises DataError for one whose hash may take long."""
    if type(key) not in _KEYS or (type(key) is int and not _is_small(key)):
        raise DataError(f"refused to unpickle a dictionary with a key of type {type(key).__name__}")
    return key


class _Machine:
    """A pickle's stack, marks and memo."""

    def __init__(self, file, allowed, reason, encoding, persistent):
        self.file, self.allowed, self.reason = file, allowed, reason
        self.encoding, self.persistent = encoding, persistent
        self.callable = {id(entry) for entry in allowed.values()}
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.start = file.tell()
        self.end = file.seek(0, io.SEEK_END)
        file.seek(self.start)
        self.steps = self.copied_items = self.copied_text = 0

    def run(self) -> Any:
        read, stack = self.file.read, self.stack
        while (code := read(1)) != pickle.STOP:
            self.steps += 1
            if self.steps > MOST_STEPS:
                raise DataError(f"refused to unpickle more than {MOST_STEPS:,} values")
            if value := _VALUES.get(code):
                stack.append(value(self))
            elif effect := _EFFECTS.get(code):
                effect(self)
            elif code:
                raise DataError(f"refused to unpickle: it has the opcode {code!r}, which plain values never need")
            else:
                raise EOFError("it ends too early")
        return self.pop()

    # What is read from the file

    def take(self, count: int) -> bytes:
        if count > SMALL and count > self.end - self.file.tell():  # nothing is allocated on the pickle's word
            raise EOFError("it ends too early")
        content = self.file.read(count)
        if len(content) < count:
            raise EOFError("it ends too early")
        return content

    def number(self, size: int, signed: bool = False) -> int:
        return int.from_bytes(self.take(size), "little", signed=signed)

    def sized(self, size: int) -> bytes:
        """Bytes behind their number."""
        return self.take(self.number(size))

    def string(self, content: bytes) -> str | bytes:
        return content if self.encoding == "bytes" else content.decode(self.encoding)

    def line(self) -> str:
        line = self.file.readline(MOST_NAME + 1)
        if not line.endswith(b"\n"):
            raise EOFError("a name has no end")
        return line[:-1].decode()

    # What is taken from the stack

    def pop(self) -> Any:
        return self.last(1)[0]

    def last(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise IndexError("its stack is empty")
        items = self.stack[-count:]
        del self.stack[-count:]
        return items

    def since_mark(self) -> list[Any]:
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    # What is made

    def put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def extend(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise DataError(f"refused to append to {type(self.stack[-1]).__name__}")
        self.stack[-1].extend(items)

    def update(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) not in (dict, OrderedDict):
            raise DataError(f"refused to set an item of {type(target).__name__}")
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[_checked(key)] = value

    def find(self, module: Any, name: Any) -> Any:
        if type(module) is not str or type(name) is not str:
            raise TypeError("a name is not text")
        if (module, name) not in self.allowed:
            text = f"{module}.{name}"[:MOST_NAME]
            raise DataError(f"refused to unpickle {text if text.isprintable() else ascii(text)}: {self.reason}")
        return self.allowed[module, name]

    def call(self, function: Any, arguments: Any) -> Any:
        if id(function) not in self.callable or type(arguments) is not tuple:
            raise DataError("refused to unpickle a call of something that is not a name")
        # What is called may copy what it is given, and the memo can give one thing again and again.
        self.copied_items += sum(len(value) for value in arguments if isinstance(value, list | tuple | dict))
        self.copied_text += sum(len(value) for value in arguments if isinstance(value, str | bytes))
        if self.copied_items > self.steps or self.copied_text > self.file.tell() - self.start:
            raise DataError("refused to unpickle more values than it holds")
        return function(*arguments)

    def build(self, state: Any) -> None:
        target = self.stack[-1]
        if type(target) is not OrderedDict:  # of which PyTorch's have attributes that nobody needs
            if not hasattr(type(target), "build"):
                raise DataError(f"refused to set the state of {type(target).__name__}")
            target.build(state)

    def refer(self, reference: Any) -> Any:
        if self.persistent is None:
            raise DataError(f"refused to unpickle a reference to something outside: {self.reason}")
        return self.persistent(reference)


def _text(content):
    return content.decode("utf-8", "surrogatepass")


_VALUES: dict[bytes, Callable[[_Machine], Any]] = {  # what an opcode puts on the stack
    pickle.NONE: lambda m: None,
    pickle.NEWTRUE: lambda m: True,
    pickle.NEWFALSE: lambda m: False,
    pickle.BININT: lambda m: m.number(4, signed=True),
    pickle.BININT1: lambda m: m.number(1),
    pickle.BININT2: lambda m: m.number(2),
    pickle.LONG1: lambda m: int.from_bytes(m.sized(1), "little", signed=True),
    pickle.BINFLOAT: lambda m: struct.unpack(">d", m.take(8))[0],
    pickle.SHORT_BINSTRING: lambda m: m.string(m.sized(1)),
    pickle.BINSTRING: lambda m: m.string(m.sized(4)),
    pickle.SHORT_BINBYTES: lambda m: m.sized(1),
    pickle.BINBYTES: lambda m: m.sized(4),
    pickle.SHORT_BINUNICODE: lambda m: _text(m.sized(1)),
    pickle.BINUNICODE: lambda m: _text(m.sized(4)),
    pickle.EMPTY_TUPLE: lambda m: (),
    pickle.TUPLE1: lambda m: tuple(m.last(1)),
    pickle.TUPLE2: lambda m: tuple(m.last(2)),
    pickle.TUPLE3: lambda m: tuple(m.last(3)),
    pickle.TUPLE: lambda m: tuple(m.since_mark()),
    pickle.EMPTY_LIST: lambda m: [],
    pickle.EMPTY_DICT: lambda m: {},
    pickle.BINGET: lambda m: m.memo[m.number(1)],
    pickle.LONG_BINGET: lambda m: m.memo[m.number(4)],
    pickle.GLOBAL: lambda m: m.find(m.line(), m.line()),
    pickle.STACK_GLOBAL: lambda m: m.find(*m.last(2)),
    pickle.REDUCE: lambda m: m.call(*m.last(2)),
    pickle.BINPERSID: lambda m: m.refer(m.pop()),
}
_EFFECTS: dict[bytes, Callable[[_Machine], Any]] = {  # what an opcode does, and puts nothing there
    pickle.PROTO: lambda m: m.take(1),
    pickle.FRAME: lambda m: m.take(8),
    pickle.MARK: lambda m: m.marks.append(len(m.stack)),
    pickle.BINPUT: lambda m: m.put(m.number(1)),
    pickle.LONG_BINPUT: lambda m: m.put(m.number(4)),
    pickle.MEMOIZE: lambda m: m.put(len(m.memo)),
    pickle.APPEND: lambda m: m.extend(m.last(1)),
    pickle.APPENDS: lambda m: m.extend(m.since_mark()),
    pickle.SETITEM: lambda m: m.update(m.last(2)),
    pickle.SETITEMS: lambda m: m.update(m.since_mark()),
    pickle.BUILD: lambda m: m.build(m.pop()),
}
