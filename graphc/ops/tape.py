"""Scalar expressions as *tapes*: the primitives that one is printed as, in order, ready to be applied without SymPy.

Loading SymPy takes a quarter of a second, more than differentiating and lowering a network of a few layers. So what
the built-in elementwise ops print to is recorded once, in `tapes.txt` (`python tools/write_tapes.py`), for three uses:
`value`, the expression for the reference; `kernel`, the same with shared parts named; and `slope0 slope1 ...`, the
gradient of each operand. A line is

    silu kernel: sigmoid x; mul %0 x -> %1

where `%k` is the value of the line's step k, `f` the op's result, `g` its cotangent, and `let t0 %k` names a value. The
file holds a digest of the sources that define the expressions: after a change of those it is ignored, and SymPy does
the work, as it does for functions of a user's own and for unusual attributes.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Generic, TypeVar

from graphc.ir.op import OPS, Op

T = TypeVar("T")

FLAT = "0"  # the tape of a slope that is 0 everywhere
FOLDER = Path(__file__).parent
FILE = FOLDER / "tapes.txt"
# Where the expressions of the ops in the file, and their derivatives, come from.
SOURCES = ("activations.py", "elementwise.py", "maps.py", "rounding.py", "scalar.py", "transcendental.py")


class Target(ABC, Generic[T]):
    """What an expression is printed to: how a constant and the application of a primitive are written there."""

    @abstractmethod
    def constant(self, value: float) -> T:
        """A number."""

    @abstractmethod
    def apply(self, primitive: str, args: Sequence[T]) -> T:
        """A primitive of the kernel language (`add`, `mul`, `exp`, ...) applied to arguments."""

    def has(self, primitive: str) -> bool:
        """Whether a function that is no kernel primitive, such as `relu`, can be applied here as it is."""
        return False

    def let(self, name: str, value: T) -> T:
        """Name a value that is used more than once; it may stand for itself."""
        return value


class Recorder(Target[str]):
    """Writes the steps of a tape; its values are their names."""

    def __init__(self, has: Callable[[str], bool] = lambda primitive: False) -> None:
        self.steps: list[str] = []
        self._has = has

    def constant(self, value: float) -> str:
        """A number: itself its name."""
        return self._step(f"constant {value!r}")

    def apply(self, primitive: str, args: Sequence[str]) -> str:
        """One step."""
        return self._step(" ".join([primitive, *args]))

    def has(self, primitive: str) -> bool:
        """What the target has that the tape is for."""
        return self._has(primitive)

    def let(self, name: str, value: str) -> str:
        """A step too: kernels name what is shared."""
        return self._step(f"let {name} {value}")

    def tape(self, result: str) -> str:
        """The tape that ends with a result."""
        return f"{'; '.join(self.steps)} -> {result}" if self.steps else f"-> {result}"

    def _step(self, text: str) -> str:
        self.steps.append(text)
        return f"%{len(self.steps) - 1}"


def replay(tape: str, target: Target[T], known: Mapping[str, T]) -> T:
    """Apply the steps of a tape at a target; `known` holds the values of the operands by name."""
    values = dict(known)
    body, result = tape.split("-> ")
    for number, step in enumerate(filter(None, body.strip().split("; "))):
        name, *args = step.split(" ")
        if name == "constant":
            value = target.constant(_number(args[0]))
        elif name == "let":
            value = target.let(args[0], values[args[1]])
        else:
            value = target.apply(name, [values[a] for a in args])
        values[f"%{number}"] = value
    return values[result]


def find(op: Op | None, attributes: Mapping[str, Any], use: str) -> str | None:
    """The tape of an op with these attributes for a use; None if SymPy must do it."""
    if op is None or OPS.get(op.name) is not op:
        return None
    return recorded().get(f"{key(op.name, attributes)} {use}")


def key(name: str, attributes: Mapping[str, Any]) -> str:
    """How the file calls an op with attributes."""
    settings = ",".join(f"{k}={v!r}" for k, v in sorted(attributes.items()))
    return f"{name}[{settings}]" if settings else name


def digest() -> str:
    """A digest of the sources that define the expressions."""
    found = hashlib.sha256()
    for name in SOURCES:
        found.update((FOLDER / name).read_bytes())
    return found.hexdigest()


@cache
def recorded() -> dict[str, str]:
    """The tapes by key and use; none if they are of other sources."""
    try:
        header, *lines = FILE.read_text(encoding="utf-8").splitlines()
        if header.split() != ["sources", digest()]:
            return {}
    except OSError:
        return {}
    return dict(line.split(": ", 1) for line in lines)  # type: ignore[arg-type]  # two parts each


def _number(text: str) -> float:
    return int(text) if text.lstrip("-").isdigit() else float(text)
