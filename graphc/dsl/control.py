"""Branches and loops that run inside a program: `gc.cond`, `gc.while_loop`, `gc.scan`.

The functions given are called once, with symbols, and what they return becomes a graph of its own. They may use
symbols, parameters and state of the world around them; gradients flow to these too. Where a tensor is expected, a list
or tuple of tensors, nested or not, will do.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphc.dsl import declare, shaping
from graphc.dsl.origin import here
from graphc.dsl.regions import Region, captured_by, closed
from graphc.dsl.structure import is_group, leaves, like, misfit, outline
from graphc.dsl.symbol import Symbol
from graphc.errors import AttributeValueError, DTypeError, GraphcError, ShapeError, SymbolError
from graphc.ir.builder import Builder
from graphc.ir.dims import Dim, Poly, as_dim
from graphc.ir.graph import Value
from graphc.ir.types import bool_, i64
from graphc.ops.nested import apply_nested, given, without_axis
from graphc.ops.scan import Scan
from graphc.ops.while_loop import UNBOUNDED, While

__all__ = ["cond", "scan", "while_loop"]

Function = Callable[..., Any]


def cond(pred: Symbol, then_fn: Function, else_fn: Function, *operands: Any) -> Any:
    """`then_fn(*operands)` where the bool scalar `pred` is true, else `else_fn(*operands)`; only one of them runs.

        y = gc.cond(gc.sum(x) > 0, lambda: x / gc.sum(x), lambda: gc.zeros_like(x))

    Operands are handed on as they are; what the functions close over need not be among them. Both must return tensors
    of equal types in equal lists or tuples; a Python number takes the shape of what the other returns, and
    its dtype where arithmetic would. The gradient is that of the branch taken. Where both sides are cheap, `gc.where`
    chooses element by element.

    Raises DTypeError or ShapeError for a predicate that is no bool scalar and for branches that differ in type, with
    the position and the lines of both; SymbolError for a Python bool, and for what is neither symbol nor number.
    """
    predicate = _predicate("gc.cond", "the predicate", pred)
    _functions("gc.cond", then_fn, else_fn)
    regions, results = [], []
    for function, what in ((then_fn, "the first function of gc.cond"), (else_fn, "the second function of gc.cond")):
        regions.append(Region(what))
        with regions[-1].traced():
            results.append(_called(what, function, operands))
    if outline(results[0]) != outline(results[1]):
        shapes = f"{outline(results[0])} and {outline(results[1])}"
        raise ShapeError(f"gc.cond: the branches return {shapes} (* is a tensor); they must return the same{_at()}")
    if not leaves(results[0]):
        raise ShapeError(f"gc.cond: the branches return no tensors; a branch must give something{_at()}")
    pairs = enumerate(zip(leaves(results[0]), leaves(results[1]), strict=True))
    sides = list(zip(*(_alike(position, *pair) for position, pair in pairs), strict=True))
    groups = [captured_by((), values, region) for values, region in zip(sides, regions, strict=True)]
    captured = tuple(dict.fromkeys((*groups[0], *groups[1])))
    graphs = {
        name: closed(_name(function, name), (), captured, values)
        for name, function, values in zip(("then", "orelse"), (then_fn, else_fn), sides, strict=True)
    }
    found = apply_nested(Builder(here()), "cond", (predicate, *captured), **graphs)
    return like(results[0], map(Symbol, found))


def while_loop(test_fn: Function, body_fn: Function, init: Any, bound: int | None = None) -> Any:
    """Replace carried tensors by `body_fn(*carried)` as long as `test_fn(*carried)` is true; their last values.

        total, term, n = gc.while_loop(
            lambda total, term, n: gc.abs(term) > 0.001,
            lambda total, term, n: (total + term, term * x / n, n + 1),
            (0.0, x, 1),
            bound=100,
        )

    `init` is one tensor, or a list or tuple of them, which are handed over as so many arguments. `body_fn` returns
    the same list or tuple with the same types; a Python number among the first values is an int64 or a float32.

    With `bound` the loop ends after so many turns, whatever the test says; without, it may run for ever, until Ctrl-C.
    Reverse mode (`gc.grad`) saves every turn and so needs `bound`: the number of turns that the backward loop walks.
    Raises ShapeError or DTypeError for a test that gives no bool scalar and a carried tensor whose type changes.
    """
    limit = _bound(bound)
    _functions("gc.while_loop", test_fn, body_fn)
    group = init if is_group(init) else (init,)
    if not leaves(group):
        raise ShapeError(f"gc.while_loop: init is empty; a loop must carry something to come to an end{_at()}")
    start = [_value("gc.while_loop: init", item) for item in leaves(group)]
    region = Region("the functions of gc.while_loop", turns=limit or 0)
    carried = _arguments(region, [v.type for v in start], _argument_names(body_fn, group, "carried"))
    arguments = like(group, map(Symbol, carried))
    with region.traced():
        goes_on = _predicate(
            "gc.while_loop",
            "the result of the test",
            _run("the test of gc.while_loop", test_fn, arguments),
            constant=True,
        )
        result = _called("the body of gc.while_loop", body_fn, arguments)
        news = _carried("gc.while_loop", init, result, carried, start)
    if region.turn is not None:
        carried = [*carried, region.turn]
        start = [*start, declare.constant(np.int64(0))]
        news = [*news, declare.elementwise("add", region.turn, 1)]
    captured = tuple(dict.fromkeys((*captured_by(carried, [goes_on], region), *captured_by(carried, news, region))))
    test = closed(_name(test_fn, "test"), carried, captured, [goes_on])
    body = closed(_name(body_fn, "body"), carried, captured, news)
    found = While(tuple(start), captured, test, body, UNBOUNDED if limit is None else limit).apply(Builder(here()))
    return like(init, map(Symbol, found))


def scan(
    cell: Function,
    sequences: Any = (),
    init: Any = (),
    length: int | str | Poly | None = None,
    reverse: bool = False,
) -> Any:
    """A loop along axis 0 of `sequences`, which carries tensors from turn to turn and stacks what each turn gives.

        def cell(h, x):
            h = gc.tanh(x @ W + h @ U)
            return h, h                     # what the next turn gets, and an output

        last, hs = gc.scan(cell, sequences=[xs], init=[h0])

    `cell(*carried, *slices)` is handed the carried tensors, then a slice of each sequence (axis 0 removed), and
    returns the new carried tensors, of the types of `init`, then any outputs. The result is a tuple of the same order:
    the last carried tensors, then the outputs stacked on axis 0; a single one comes without the tuple. `length` is
    needed only where there are no sequences. `reverse` walks from the end; outputs are stacked where their slices were.
    Gradients (backpropagation through time) save the carried tensors of every turn.

    Raises ShapeError for sequences of different lengths, nothing to walk or nothing to give, a carried tensor whose
    shape changes; DTypeError where its dtype does.
    """
    _functions("gc.scan", cell)
    walked, first = (list(g) if is_group(g) else [g] for g in (sequences, init))
    slices = [_value("gc.scan: sequences", item) for item in leaves(walked)]
    start = [_value("gc.scan: init", item) for item in leaves(first)]
    turns = _length(slices, length)
    region = Region("the cell of gc.scan", turns=turns)
    names = _argument_names(cell, [*first, *walked], "carried")
    types = [v.type for v in start] + [without_axis(v.type) for v in slices]
    arguments = _arguments(region, types, names)
    with region.traced():
        result = _called("the cell of gc.scan", cell, like([*first, *walked], map(Symbol, arguments)))
        parts = list(result) if is_group(result) else [result]
        if len(parts) < len(first):
            reason = f"carries {len(first)} tensors, and its cell returns {len(parts)}; return new ones for all"
            raise ShapeError(f"gc.scan {reason}, then any outputs{_at()}")
        carried, outputs = parts[: len(first)], parts[len(first) :]
        news = _carried("gc.scan", first, carried, arguments[: len(start)], start)
        stacked = [_value("gc.scan: an output of the cell", item) for item in leaves(outputs)]
    if not news and not stacked:
        raise ShapeError(f"gc.scan: the cell returns nothing and nothing is carried{_at()}")
    if region.turn is not None:
        arguments, slices = [*arguments, region.turn], [*slices, shaping.iota(turns, i64)]
    captured = captured_by(arguments, [*news, *stacked], region)
    body = closed(_name(cell, "cell"), arguments, captured, [*news, *stacked])
    found = Scan(tuple(start), tuple(slices), captured, body, turns, bool(reverse)).apply(Builder(here()))
    results = like((*first, *outputs), map(Symbol, found))
    return results[0] if len(results) == 1 else results


# ------------------------------------------------------------------------------------- what functions take and give


def _at() -> str:
    place = here().place
    return f"\n  declared at {place}" if place else ""


def _functions(what: str, *given: Any) -> None:
    for item in given:
        if not callable(item):
            found = repr(item) if isinstance(item, Symbol) else type(item).__name__
            raise SymbolError(f"{what} takes functions, got {found}; write one, such as lambda: x{_at()}")


def _name(function: Function, otherwise: str) -> str:
    name = getattr(function, "__name__", "")
    return name if name.isidentifier() else otherwise


def _argument_names(function: Function, group: Sequence[Any], otherwise: str) -> list[str]:
    """A name for each tensor in the arguments: that of the function's parameter, with a number where it is one of
    several."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [p.name for p in parameters if p.kind in plain]
    found = []
    for position, item in enumerate(group):
        name = names[position] if position < len(names) else f"{otherwise}{position}"
        found += [f"{name}{k}" for k in range(len(leaves(item)))] if is_group(item) else [name]
    return found


def _arguments(region: Region, types: Sequence[Any], names: Sequence[str]) -> list[Value]:
    return [region.argument(name, type_) for name, type_ in zip(names, types, strict=True)]


def _run(what: str, function: Function, arguments: Sequence[Any]) -> Any:
    if reason := misfit(function, arguments):
        raise SymbolError(f"{what} does not take what it is given: {reason}{_at()}")
    return function(*arguments)


def _called(what: str, function: Function, arguments: Sequence[Any]) -> Any:
    """What the function returns, if all in it are symbols or numbers."""
    result = _run(what, function, arguments)
    for item in leaves(result):
        if item is None:
            raise SymbolError(f"{what} returns None; return the symbols that it computes{_at()}")
        if not isinstance(item, (Symbol, bool, int, float, np.ndarray, np.generic)):
            raise SymbolError(f"{what} returns {type(item).__name__}, not a symbol or a number{_at()}")
    return result


def _value(what: str, item: Any) -> Value:
    if isinstance(item, Symbol):
        return item.ir
    if not isinstance(item, (bool, int, float, np.ndarray, np.generic)):
        raise SymbolError(f"{what} holds {type(item).__name__}, not a symbol or a number{_at()}")
    return declare.constant(item)


def _predicate(function: str, what: str, pred: Any, constant: bool = False) -> Value:
    """A bool scalar. A Python bool is one only where a function may return a `constant`."""
    if isinstance(pred, (bool, np.bool_)):
        if constant:
            return declare.constant(bool(pred))
        reason = f"{what} is the Python bool {pred}, known while the graph is declared; write Python's if"
        raise SymbolError(f"{function}: {reason} (`==` between symbols compares identity: gc.equal){_at()}")
    if not isinstance(pred, Symbol):
        raise SymbolError(f"{function}: {what} must be a bool scalar symbol, got {type(pred).__name__}{_at()}")
    if pred.dtype != bool_:
        raise DTypeError(f"{function}: {what} must be a bool scalar, got {pred!r}; compare, as in x > 0{_at()}")
    if pred.shape:
        advice = "take gc.any or gc.all of it, or gc.where for a choice element by element"
        raise ShapeError(f"{function}: {what} must be a bool scalar, got {pred!r}; {advice}{_at()}")
    return pred.ir


def _alike(position: int, then: Any, orelse: Any) -> tuple[Value, Value]:
    """What the branches return at a position as values of one type; numbers follow what the other branch returns."""
    first, second = (item.ir if isinstance(item, Symbol) else None for item in (then, orelse))
    if first is None and second is None:
        first, second = _alike_numbers(then, orelse)
    elif first is None:
        first = _number_like("gc.cond", given(second), then)
    elif second is None:
        second = _number_like("gc.cond", first, orelse)
    first, second = given(first), given(second)
    if first.type != second.type:
        dtypes = first.type.dtype != second.type.dtype
        advice = "convert one with .astype(...)" if dtypes else "broadcast or reshape one"
        both = f"{first.type}{_declared(first)} and {second.type}{_declared(second)}"
        wrong: type[GraphcError] = DTypeError if dtypes else ShapeError
        raise wrong(f"gc.cond: the branches differ at output {position}: {both}; {advice}{_at()}")
    return first, second


def _alike_numbers(then: Any, orelse: Any) -> tuple[Value, Value]:
    """Two numbers or arrays in one dtype if arithmetic has one for both, a number in the shape of an array."""
    if any(np.asarray(item).dtype == bool for item in (then, orelse)):
        first, second = declare.constant(then), declare.constant(orelse)
    else:
        first, second = declare.promote("gc.cond", (then, orelse))
    shape = first.type.shape or second.type.shape
    first, second = (v if v.type.rank else declare.broadcast_to(v, shape) for v in (first, second))
    return first, second


def _declared(value: Value) -> str:
    return f" ({value.origin.place})" if value.origin.place else ""


def _carried(function: str, init: Any, result: Any, arguments: Sequence[Value], start: Sequence[Value]) -> list[Value]:
    """The new carried values, of the types that the loop started with; numbers take these."""
    if outline(result) != outline(init):
        shapes = f"{outline(result)} for the {outline(init)} that is carried (* is a tensor)"
        raise ShapeError(f"{function}: the new carried tensors do not fit the first ones: {shapes}{_at()}")
    found = []
    for position, (item, argument, first) in enumerate(zip(leaves(result), arguments, start, strict=True)):
        value = item.ir if isinstance(item, Symbol) else _number_like(function, argument, item)
        if value.type != first.type:
            dtypes = value.type.dtype != first.type.dtype
            advice = "start with that dtype, or convert the new one with .astype(...)" if dtypes else "reshape one"
            names = f"{argument.name!r} (carried tensor {position})"
            both = f"starts as {first.type}{_declared(first)} and becomes {value.type}{_declared(value)}"
            wrong: type[GraphcError] = DTypeError if dtypes else ShapeError
            raise wrong(f"{function}: {names} {both}; its type must stay the same: {advice}{_at()}")
        found.append(value)
    return found


def _number_like(function: str, argument: Value, number: Any) -> Value:
    """A number or array in the dtype of the argument, where arithmetic would give it that; a number in its shape."""
    same, value = declare.promote(function, (argument, number))
    if same.type != argument.type:
        return declare.constant(number)  # of another kind: the caller says so
    return value if value.type.rank else declare.broadcast_to(value, argument.type.shape)


def _bound(bound: Any) -> int | None:
    if bound is None:
        return None
    if isinstance(bound, bool) or not hasattr(bound, "__index__") or operator.index(bound) < 0:
        raise AttributeValueError(f"gc.while_loop: bound must be a whole number of turns, 0 or more, got {bound!r}")
    return operator.index(bound)


def _length(sequences: Sequence[Value], length: int | str | Poly | None) -> Dim:
    """The number of turns, on which sequences and `length` agree."""
    for position, value in enumerate(sequences):
        if not value.type.shape:
            raise ShapeError(f"gc.scan: sequence {position} is a scalar; it has no axis to walk along{_at()}")
    lengths = [value.type.shape[0] for value in sequences]
    if length is not None:
        lengths.insert(0, _dim(length))
    if not lengths:
        raise ShapeError(f"gc.scan: there is no sequence to walk along; give sequences=[...] or length=...{_at()}")
    if any(dim != lengths[0] for dim in lengths):
        told = [f"length={length}"] if length is not None else []
        told += [f"sequence {position} is {value.type}" for position, value in enumerate(sequences)]
        raise ShapeError(f"gc.scan: the lengths differ: {', '.join(told)}; axis 0 must have one size{_at()}")
    return lengths[0]


def _dim(length: Any) -> Dim:
    try:
        return as_dim(length)
    except ShapeError as error:
        raise ShapeError(f"gc.scan: length={length!r}: {error}{_at()}") from None
