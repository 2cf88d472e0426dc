"""Functions of symbols with a gradient of the user's own."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from graphc.dsl import declare
from graphc.dsl.origin import here
from graphc.dsl.regions import captured_by, closed
from graphc.dsl.structure import misfit
from graphc.dsl.symbol import Symbol
from graphc.dsl.watch import refuse_inside
from graphc.errors import GradientError
from graphc.ir.builder import Builder
from graphc.ir.graph import Graph, Value, topological
from graphc.ir.op import OPS
from graphc.ir.types import TensorType

__all__ = ["CustomVjp", "custom_vjp"]


class CustomVjp:
    """A function of symbols that is differentiated by a rule of its own; see `custom_vjp`, which makes it."""

    def __init__(self, forward: Callable[..., Any], rule: Callable[..., Any] | None) -> None:
        functools.update_wrapper(self, forward)
        self._forward = forward
        self._rule = rule

    def backward(self, rule: Callable[..., Any]) -> Callable[..., Any]:
        """Decorates the function that gives the cotangents of the operands."""
        self._rule = rule
        return rule

    def __call__(self, *operands: Any, **options: Any) -> Any:
        """Declare the function's nodes. Raises GradientError for a rule that is missing or gives other types."""
        name = getattr(self._forward, "__name__", "custom_vjp")
        if self._rule is None:
            raise GradientError(f"custom_vjp: {name} has no gradient yet; decorate one with @{name}.backward")
        places = [k for k, operand in enumerate(operands) if _differentiable(operand)]
        if not places:
            raise GradientError(f"custom_vjp: {name} has no floating symbol as positional argument to differentiate by")
        results = self._forward(*operands, **options)
        several = isinstance(results, (tuple, list))
        outputs = [_checked_output(name, output) for output in (results if several else [results])]
        values = [operands[k].ir for k in places]
        backward, captured = self._traced(name, outputs, operands, places, options, several)
        hold = [declare.apply("stop_gradient", value) for value in (*outputs, *captured)]
        node_operands = (*hold[: len(outputs)], *values, *hold[len(outputs) :])
        attributes = {"outputs": len(outputs), "backward": backward}
        found = Builder(here()).apply(OPS["custom_vjp"], node_operands, attributes)
        symbols = tuple(Symbol(value) for value in (found if isinstance(found, tuple) else (found,)))
        return symbols if several else symbols[0]

    def _traced(
        self,
        name: str,
        outputs: Sequence[Value],
        operands: Sequence[Any],
        places: Sequence[int],
        options: dict[str, Any],
        several: bool,
    ) -> tuple[Graph, list[Value]]:
        """The rule's graph over cotangents, outputs, operands and captured values; and these last."""
        assert self._rule is not None
        cotangents = [Value(v.type, name=f"cotangent{k}") for k, v in enumerate(outputs)]
        results = [Value(v.type, name=f"output{k}") for k, v in enumerate(outputs)]
        given = {k: Value(operands[k].ir.type, name=f"operand{k}") for k in places}
        arguments: list[Any] = [Symbol(given[k]) if k in given else operand for k, operand in enumerate(operands)]
        groups = [tuple(map(Symbol, group)) for group in (cotangents, results)]
        arguments = [*(group if several else group[0] for group in groups), *arguments]
        if reason := misfit(self._rule, arguments, options):
            raise GradientError(
                f"custom_vjp: the gradient of {name} takes cotangents, results and operands (g, y, *operands): {reason}"
            )
        answer = self._rule(*arguments, **options)
        found = list(answer) if isinstance(answer, (tuple, list)) else [answer]
        if len(found) != len(operands):
            raise GradientError(
                f"custom_vjp: the gradient of {name} must give one cotangent for each of its {len(operands)} "
                f"positional arguments (None for zero), got {len(found)}"
            )
        for k, part in enumerate(found):
            if k not in given and part is not None:
                raise GradientError(f"custom_vjp: argument {k} of {name} is no floating symbol; its cotangent is None")
        answers = [_checked(name, k, found[k], given[k].type) for k in places]
        placeholders = (*cotangents, *results, *given.values())
        captured = captured_by(placeholders, answers)  # a random sample too: it is drawn once, wherever it is used
        refuse_inside(topological(answers, captured), "a custom gradient")
        return closed(f"{name}_backward", placeholders, captured, answers), list(captured)


def custom_vjp(forward: Callable[..., Any], backward: Callable[..., Any] | None = None) -> CustomVjp:
    """`forward` as a function with the gradient `backward`, also in forward mode and in higher derivatives.

        @gc.custom_vjp
        def bounded(x):
            return x

        @bounded.backward
        def _(g, y, x):
            return gc.clip(g, -1.0, 1.0)

    or `bounded = gc.custom_vjp(lambda x: x, lambda g, y, x: gc.clip(g, -1.0, 1.0))`. `forward(*operands, **options)`
    returns a floating symbol or a tuple of them. `backward(g, y, *operands, **options)` takes the cotangents and the
    results (tuples if `forward` returns one) and returns a cotangent of the operand's type for each positional
    argument, None for zero; arguments that are no floating symbols have none. What the functions close over is
    constant to the gradient: what is to be differentiated must be an argument. Forward mode needs a `backward` that is
    linear in g. Raises GradientError when called with functions that do not fit.
    """
    return CustomVjp(forward, backward)


def _differentiable(operand: Any) -> bool:
    return isinstance(operand, Symbol) and operand.dtype.is_float


def _checked_output(name: str, output: Any) -> Value:
    if not _differentiable(output):
        found = repr(output) if isinstance(output, Symbol) else type(output).__name__
        raise GradientError(f"custom_vjp: {name} must return floating symbols, got {found}")
    value: Value = output.ir
    return value


def _checked(name: str, position: int, part: Any, type_: TensorType) -> Value:
    if part is None:
        return Builder(here()).full(0, type_)
    if not isinstance(part, Symbol):
        kind = type(part).__name__
        raise GradientError(f"custom_vjp: the gradient of {name} gives {kind} for argument {position}, not a symbol")
    if part.ir.type != type_:
        reason = f"gives {part!r} for argument {position}, which is {type_}; sum over or .reshape it"
        raise GradientError(f"custom_vjp: the gradient of {name} {reason}")
    return part.ir
