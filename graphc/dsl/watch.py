"""Looking at values while a program runs: `gc.print` and `gc.assert_`.

A program is one call of compiled code, so neither can act in its middle. Both become results that the caller does not
see: they are computed in the step and looked at when it has returned. An assertion that fails raises then, and because
every update of the program chooses between the new and the old value by it, variables are as before the call.
"""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from graphc.dsl import declare
from graphc.dsl.origin import here
from graphc.dsl.regions import refuse
from graphc.dsl.symbol import Symbol
from graphc.errors import AssertionFailed, SymbolError
from graphc.ir.graph import Graph, Node, Origin, Value, topological
from graphc.ir.types import bool_, i64

__all__ = ["Watch", "assert_", "print"]


@dataclass(frozen=True, eq=False)
class Watch:
    """What is looked at after each call: a value to print, or the number of elements at which a condition fails."""

    text: str
    value: Value
    origin: Origin
    holds: Value | None = None  # of an assertion: the truth value by which updates choose
    leaves: frozenset[Value] = frozenset()  # of an assertion: the inputs and variables that it reads
    elements: str = ""  # of an assertion: the condition's type


def print(x: Symbol, label: str | None = None) -> Symbol:  # noqa: A001 - the public name, used as gc.print
    """Print `x` after each call of every program that computes it, as `label: elements`; returns `x` itself.

    The result need not be used: `gc.print(h, "hidden")` is enough. Printing costs the program a copy of x to memory.
    Values inside loops, branches and the functions given to custom gradients cannot be printed. Raises SymbolError.
    """
    if not isinstance(x, Symbol):
        raise SymbolError(f"gc.print takes a symbol, got {type(x).__name__}; Python's print shows what has a value")
    refuse("gc.print", x.ir, "return the value from the function, and print what the loop or branch gives")
    producer = x.ir.producer
    text = label or x.ir.name or (producer.op.name if producer else "value")
    _attach(x.ir, Watch(text, x.ir, here()))
    return x


def assert_(condition: Symbol, message: str) -> None:
    """Raise `AssertionFailed` when an element of the bool `condition` is false, in every program that can tell.

    These are the programs that have all inputs, parameters and state on which the condition depends. The error is
    raised when the step has been computed, with all its variables as they were before; results are not returned, what
    `gc.print` shows is shown. Raises SymbolError for a condition that is no bool symbol or is the same in every call.
    """
    if not isinstance(condition, Symbol) or condition.dtype != bool_:
        found = repr(condition) if isinstance(condition, Symbol) else type(condition).__name__
        raise SymbolError(f"gc.assert_ takes a bool symbol, such as x > 0, got {found}")
    advice = "return the condition from the function, and assert what the loop or branch gives"
    refuse("gc.assert_", condition.ir, advice)
    read = [v for node in topological([condition.ir]) for v in node.inputs] + [condition.ir]
    leaves = frozenset(v for v in read if v.producer is None)
    if not leaves:
        raise SymbolError("gc.assert_: the condition depends on no input and no variable; use Python's assert")
    wrong = declare.cast(declare.elementwise("logical_not", condition.ir), i64)
    failures = declare.reduce("sum", wrong, None, False)
    holds = declare.elementwise("eq", failures, 0)
    watch = Watch(message, failures, here(), holds, leaves, str(condition.ir.type))
    for leaf in leaves:
        _attach(leaf, watch)


def _attach(value: Value, watch: Watch) -> None:
    """Add to what is watched of a value; the same line traced again takes the place of what it said before."""
    others = (w for w in value.watches if not (isinstance(w, Watch) and _same_line(w, watch)))
    object.__setattr__(value, "watches", (*others, watch))


def _same_line(first: Watch, second: Watch) -> bool:
    return first.text == second.text and first.origin == second.origin and first.leaves == second.leaves


def watched(leaves: Iterable[Value], nodes: Iterable[Node]) -> tuple[Watch, ...]:
    """What a program with these leaves and nodes prints, then what it asserts; each in the order of declaration."""
    given = tuple(leaves)
    known = frozenset(given)
    every = [v for node in nodes for v in node.outputs]
    found = dict.fromkeys(w for v in (*given, *every) for w in v.watches if isinstance(w, Watch))
    prints = [w for w in found if w.holds is None]
    return (*prints, *(w for w in found if w.holds is not None and w.leaves <= known))


def refuse_inside(nodes: Iterable[Node], what: str) -> None:
    """Raise SymbolError if a value that nodes of a nested graph make is to be printed."""
    for node in nodes:
        for value in node.outputs:
            for watch in value.watches:
                raise SymbolError(f"gc.print inside {what} is not available ({watch!r}); print its operands or results")
        for attribute in node.attributes.values():
            if isinstance(attribute, Graph):
                refuse_inside(attribute.nodes, what)


def report(watches: Sequence[Watch], arrays: Sequence[np.ndarray]) -> None:
    """Print what is to be printed; then raise AssertionFailed for the first assertion that does not hold."""
    for watch, array in zip(watches, arrays, strict=True):
        if watch.holds is None:
            elements = np.array2string(array, precision=6, suppress_small=True, prefix=f"{watch.text}: ")
            builtins.print(f"{watch.text}: {elements}")
    for watch, array in zip(watches, arrays, strict=True):
        if watch.holds is not None and array:
            place = f"\n  asserted at {watch.origin}" if str(watch.origin) else ""
            count = f"{int(array)} element{'s' if array > 1 else ''} of {watch.elements}"
            raise AssertionFailed(f"{watch.text}: false at {count}; variables are as before the call{place}")
