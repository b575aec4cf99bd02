"""What a compiled program's text says: its operations, what the compiler expects them to cost, what they move.

Counts are of one step: an operation in a loop counts as often as the loop turns, where that is known, and the outermost
loop, over a call's steps, once. Operations outside of it are set apart: they are done once a call.
"""

import collections
import functools
import math
import re
from collections.abc import Iterator
from typing import NamedTuple

BYTES = {
    "pred": 1, "u8": 1, "s8": 1, "bf16": 2, "f16": 2, "u16": 2, "s16": 2, "u32": 4, "s32": 4, "f32": 4,
    "u64": 8, "s64": 8, "f64": 8,
}  # fmt: skip
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
UNESTIMATED = ("select-and-scatter", "gather", "scatter", "sort", "top_k")  # by their names, as fusions have them
FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "replica-id", "iota",
}  # fmt: skip
CALLS = {"while", "call", "conditional"}
# An operation belongs to the first part whose mark its name has.
PARTS = (
    ("augmentation", ("/augment/", "/take/")), ("momentum encoder", ("/keys/",)), ("optimizer", ("/optimizer/",)),
    ("backward", ("transpose(jvp",)), ("forward", ("jvp(",)),
)  # fmt: skip
LAYOUT = "copies and layout"


class Operation(NamedTuple):
    """One line of a computation."""

    name: str
    kind: str
    result: str  # shapes, as text
    operands: tuple[str, ...]  # names
    line: str

    @property
    def cycles(self) -> int:
        """What the TPU's compiler expects; 0 where it does not say."""
        return sum(map(int, re.findall(r'"estimated_cycles":"(\d+)"', self.line)))

    @property
    def source(self) -> str:
        """What in the program it came from."""
        found = re.search(r'op_name="([^"]*)"', self.line)
        return found.group(1) if found else ""

    @property
    def called(self) -> list[str]:
        """The computations that it runs as steps of their own."""
        if self.kind == "while":
            return re.findall(r"body=%?([\w.\-]+)", self.line)
        if self.kind == "call":
            return re.findall(r"to_apply=%?([\w.\-]+)", self.line)
        branches = re.findall(r"branch_computations=\{([^}]*)\}", self.line)
        return [name.strip(" %") for name in branches[0].split(",")] if branches else []


def part(operation: Operation) -> str:
    """The part of a step that an operation belongs to."""
    if operation.kind in ("copy", "copy-start", "transpose") or re.match(
        r"(copy|transpose)[\w.]*fusion", operation.name
    ):
        return LAYOUT
    marks = (name for name, marks in PARTS if any(mark in operation.source for mark in marks))
    return next(marks, "other")


def _arrays(shapes):
    """The type and the number of elements of every array in a piece of the text."""
    found = re.findall(r"\b([a-z]+\d*)\[([\d,]*)\]", shapes)
    return [(kind, math.prod(int(side) for side in sides.split(",") if side)) for kind, sides in found]


def shape_bytes(shapes: str) -> int:
    """Bytes of all the arrays in a piece of the text."""
    return sum(BYTES.get(kind, 0) * number for kind, number in _arrays(shapes))


def elements(shapes: str) -> int:
    """Elements of all the arrays in a piece of the text."""
    return sum(number for _, number in _arrays(shapes))


class Program:
    """A compiled program, from its text (`compiled.as_text()`)."""

    def __init__(self, text: str):
        self.computations: dict[str, list[Operation]] = {}
        self.entry = ""
        name = None
        for line in text.splitlines():
            if opened := re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\{$", line):
                name = opened.group(2)
                self.computations[name] = []
                self.entry = name if opened.group(1) else self.entry
            elif name and (operation := _operation(line)):
                self.computations[name].append(operation)

    @property
    def step(self) -> str:
        """The computation that is one step: the body of the entry's largest loop, or the entry where none turns."""
        bodies = [name for op in self.computations[self.entry] if op.kind == "while" for name in op.called]
        largest = max(bodies, key=lambda name: len(self.computations[name]), default=self.entry)
        return largest if len(self.computations[largest]) > len(self.computations[self.entry]) / 10 else self.entry

    def operations(self, computation: str, times: int = 1) -> Iterator[tuple[Operation, int]]:
        """Every operation that running a computation takes, with how often."""
        for operation in self.computations[computation]:
            if operation.kind in CALLS:
                for name in operation.called:
                    yield from self.operations(name, times * self._turns(operation))
            elif operation.kind not in FREE and not operation.kind.endswith("-done"):
                yield operation, times

    def _turns(self, operation):
        """How often a loop turns: the number that its condition compares a counter with; 1 where that is not known."""
        if known := re.search(r'"known_trip_count":\{"n":"(\d+)"', operation.line):
            return int(known.group(1))
        condition = re.search(r"condition=%?([\w.\-]+)", operation.line)
        if not condition:
            return 1
        inside = {op.name: op for op in self.computations[condition.group(1)]}
        compared = [name for op in inside.values() if "ROOT" in op.line for name in op.operands]
        limits = [re.search(r"constant\((\d+)\)", inside[name].line) for name in compared if name in inside]
        return next((int(limit.group(1)) for limit in limits if limit), 1)

    def cycles(self, computation: str) -> dict[str, int]:
        """Estimated cycles by part."""
        found: collections.Counter = collections.Counter()
        for operation, times in self.operations(computation):
            found[part(operation)] += times * operation.cycles
        return dict(found.most_common())

    def kernels(self, computation: str) -> dict[str, int]:
        """What a GPU is given to do, by kind."""
        found: collections.Counter = collections.Counter()
        for operation, times in self.operations(computation):
            found[_kernel(operation)] += times
        return dict(found.most_common())

    def kernel_parts(self, computation: str) -> dict[str, int]:
        """The same by part."""
        found: collections.Counter = collections.Counter()
        for operation, times in self.operations(computation):
            found[part(operation)] += times
        return dict(found.most_common())

    def moved(self, computation: str) -> int:
        """Bytes read and written by the operations, from their operands and results; of an operand that an operation
        only takes pieces of, the pieces."""
        total = 0
        for operation, times in self.operations(computation):
            total += times * (shape_bytes(operation.result) + self._read(computation, operation))
        return total

    def _read(self, computation, operation):
        read = 0
        for position, name in enumerate(operation.operands):
            whole = shape_bytes(self._results.get(name, ""))
            read += min(whole, self._pieces(operation, position))
        return read

    @functools.cached_property
    def _results(self):
        return {op.name: op.result for ops in self.computations.values() for op in ops}

    def _pieces(self, operation, position):
        """Bytes of what a fusion takes of an operand by slices and gathers, infinite where it takes all."""
        if operation.kind in ("dynamic-slice", "gather") and position == 0:
            return shape_bytes(operation.result)
        inner = self._fused(operation)
        if operation.kind != "fusion" or not inner:
            return math.inf
        names = {op.name for op in inner if op.kind == "parameter" and f"parameter({position})" in op.line}
        users = [op for op in inner if names & set(op.operands)]
        if users and all(op.kind in ("dynamic-slice", "gather", "slice") for op in users):
            return sum(shape_bytes(op.result) for op in users)
        return math.inf

    def _fused(self, operation):
        """The operations within a fusion."""
        fused = re.search(r"calls=%?([\w.\-]+)", operation.line)
        return self.computations.get(fused.group(1), []) if fused else []

    def collectives(self, computation: str) -> dict[str, dict[str, int]]:
        """Of each kind: how many, and the bytes of their results on one device."""
        found: dict[str, dict[str, int]] = {}
        for operation, times in self.operations(computation):
            kind, result = self._collective(operation)
            if kind in COLLECTIVES:
                row = found.setdefault(kind, {"count": 0, "bytes": 0})
                row["count"] += times
                row["bytes"] += times * shape_bytes(result)
        return found

    def _collective(self, operation):
        """Kind and result; a TPU begins some collectives within a fusion, beside other work."""
        if operation.name.startswith("async-collective-start"):
            inner = self._fused(operation)
            operation = next((op for op in inner if op.kind.removesuffix("-start") in COLLECTIVES), operation)
        return operation.kind.removesuffix("-start"), operation.result

    def unestimated(self, computation: str) -> dict[str, dict[str, int]]:
        """Of each kind of operation for which a TPU's compiler names no cycles: how many, and the elements of their
        results. They take time nevertheless."""
        found: dict[str, dict[str, int]] = {}
        for operation, times in self.operations(computation):
            kind = next((kind for kind in UNESTIMATED if kind in operation.name), None)
            if kind and not operation.cycles:
                row = found.setdefault(kind, {"count": 0, "elements": 0})
                row["count"] += times
                row["elements"] += times * elements(operation.result)
        return found

    def unchanging(self, computation: str) -> list[Operation]:
        """Operations of a loop's body that give the same in every turn: they need not be in it."""
        operations = self.computations[computation]
        root = next((op for op in operations if "ROOT" in op.line), None)
        by_name = {op.name: op for op in operations}
        same: set[str] = set()
        for op in operations:
            if op.kind == "get-tuple-element" and root is not None and root.kind == "tuple":
                index = int(re.findall(r"index=(\d+)", op.line)[0])
                known = root.operands[index] == op.name and by_name.get(op.operands[0], op).kind == "parameter"
            elif op.kind in ("constant", "iota"):
                known = True
            else:
                known = bool(op.operands) and op.kind not in ("parameter", *CALLS) and set(op.operands) <= same
            if known:
                same.add(op.name)
        return [op for op in operations if op.name in same and op.kind not in FREE]


def _operation(line):
    found = re.match(r"\s+(?:ROOT )?%?([\w.\-]+) = (.*)$", line)
    if not found:
        return None
    name, rest = found.groups()
    call = re.match(r"(\((?:[^()]|\([^()]*\))*\)|\S+) ([\w\-]+)\(", rest)
    if not call:
        return None
    result, kind = call.groups()
    return Operation(name, kind, result, tuple(re.findall(r"%([\w.\-]+)", _until_closed(rest[call.end() :]))), line)


def _until_closed(text):
    """What comes before the bracket that closes an opened one."""
    depth = 1
    for end, letter in enumerate(text):
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if not depth:
            return text[:end]
    return text


def _kernel(operation):
    if operation.kind == "custom-call":
        target = re.search(r'custom_call_target="([^"]*)"', operation.line)
        name = target.group(1) if target else ""
        return "convolution" if "conv" in name.lower() else "matrix product" if "gemm" in name.lower() else name
    return "copy" if operation.kind.startswith("copy") else operation.kind
