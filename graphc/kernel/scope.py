"""What is visible where in a kernel: axes, and the dtypes of lets, accumulators and results of every stage."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from graphc.errors import VerifyError
from graphc.ir.types import DType
from graphc.kernel.combiners import check_components, combiner
from graphc.kernel.expr import dtype_of
from graphc.kernel.form import Axis, Kernel, Let, Stage


@dataclass(frozen=True)
class StageScope:
    """A stage's surroundings.

    space: the axes around its stores, those of the kernel first; reduce: its reduce axes.
    outer: dtypes of names kept from earlier stages; inner: those and the lets, which is what accumulates see;
    names: what stores see, that is `outer`, accumulators, results, and the lets if nothing is reduced.
    """

    space: tuple[Axis, ...]
    reduce: tuple[Axis, ...]
    outer: Mapping[str, DType]
    inner: Mapping[str, DType]
    names: Mapping[str, DType]

    @property
    def axes(self) -> tuple[Axis, ...]:
        """All axes that lets and accumulates see, outermost first."""
        return (*self.space, *self.reduce)


def stage_scopes(kernel: Kernel) -> tuple[StageScope, ...]:
    """The scope of every stage. Raises VerifyError for undefined and redefined names and for dtype errors."""
    operands = {operand.name: operand.dtype for operand in kernel.operands}
    outer: dict[str, DType] = {}
    scopes = []
    for stage in kernel.stages:
        scope = _stage_scope(kernel, stage, operands, dict(outer))
        scopes.append(scope)
        if not stage.space:
            outer = dict(scope.names)
    return tuple(scopes)


def _stage_scope(kernel: Kernel, stage: Stage, operands: dict[str, DType], outer: dict[str, DType]) -> StageScope:
    inner = _with_lets(stage.lets, operands, outer)
    reduced: dict[str, DType] = {}
    for accumulate in stage.accumulates:
        dtypes = tuple(dtype_of(e, operands, inner) for e in accumulate.exprs)
        check_components(combiner(accumulate.combiner), dtypes)
        if len(accumulate.names) != len(dtypes):
            raise VerifyError(f"{accumulate.combiner} gives {len(dtypes)} values, not {', '.join(accumulate.names)}")
        for name, dtype in zip(accumulate.names, dtypes, strict=True):
            _define(reduced, name, dtype, inner)
    visible = (outer if stage.reduce else inner) | reduced
    names = _with_lets(stage.results, operands, visible)
    space = (*kernel.space, *stage.space)
    return StageScope(space, stage.reduce, outer, inner, names)


def _with_lets(lets: Iterable[Let], operands: dict[str, DType], known: dict[str, DType]) -> dict[str, DType]:
    names = dict(known)
    for let in lets:
        _define(names, let.name, dtype_of(let.expr, operands, names), {})
    return names


def _define(names: dict[str, DType], name: str, dtype: DType, others: Mapping[str, DType]) -> None:
    if name in names or name in others:
        raise VerifyError(f"name {name!r} is defined twice")
    names[name] = dtype
