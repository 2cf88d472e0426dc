"""By-products in parallel: a store through partials becomes a kernel that fills them, and one that adds them up.

`split_byproducts` makes the buffer of partial results an operand, so that chunks can run on different threads while
their number, and with it every bit of the result, stays that of the form.
"""

from __future__ import annotations

from dataclasses import replace

from graphc.codegen.analysis import chunk_bounds, map_expressions
from graphc.errors import CompileError
from graphc.ir.dims import evaluate
from graphc.kernel.combiners import COMBINERS, identity_values
from graphc.kernel.expr import Affine, Const, Expr, Index, Load, Name, replace_axes, replace_index, transform
from graphc.kernel.form import Accumulate, Axis, Kernel, Operand, Stage, Store, partial_axis


def split_byproducts(kernel: Kernel) -> tuple[Kernel, ...]:
    """A valid kernel as one that stores by-products to partial buffers, and one more kernel for each by-product.

    A partial buffer is called `<operand>_partials` and has the shape [partials, *shape]; the first kernel writes it,
    the second reads it. A kernel without by-products, or whose by-products cut different axes or an axis of a stage,
    comes back as it is: emitted so, it runs on one thread.
    """
    cuts = {
        (partial_axis(kernel, stage, store), store.partials)
        for stage in kernel.stages
        for store in stage.stores
        if store.partials
    }
    if len(cuts) != 1:
        return (kernel,)
    ((cut, count),) = cuts
    if cut is None or cut not in kernel.space or cut.extent is None:
        return (kernel,)
    stores = [s for stage in kernel.stages for s in stage.stores if s.partials]
    if len({s.operand for s in stores}) != len(stores):
        return (kernel,)
    return (_filling(kernel, cut, count, stores), *(_adding(kernel, store, count) for store in stores))


def _buffer(operand: Operand, mode: str, count: int) -> Operand:
    (identity,) = identity_values(COMBINERS[mode], (operand.dtype,))
    return Operand(f"{operand.name}_partials", operand.dtype, (count, *operand.shape), "out", float(identity))


def _filling(kernel: Kernel, cut: Axis, count: int, stores: list[Store]) -> Kernel:
    """The kernel with its space cut into chunks, outermost, and by-products stored to the chunk's own buffer."""
    chunk = "chunk"
    while any(chunk in (a.name, o.name) for a in kernel.space for o in kernel.operands):
        chunk += "_"
    assert cut.extent is not None
    size = -(-evaluate(cut.extent, kernel.capacities) // count)
    exact = isinstance(cut.extent, int) and size * count == cut.extent
    inner = Axis.range(cut.name, size, cut.sequential) if exact else chunk_bounds(cut, chunk, size)
    axes: dict[str, Index] = {cut.name: Affine.of({chunk: size, cut.name: 1})} if exact else {}
    replaced = {s.operand for s in stores}

    def change(stage: Stage) -> Stage:
        changed = map_expressions(stage, lambda e: replace_axes(e, axes), lambda _, i: replace_index(i, axes))
        return replace(changed, stores=tuple(map(redirect, changed.stores)))

    def redirect(store: Store) -> Store:
        if store.operand not in replaced:
            return store
        index = (Affine.axis(chunk), *store.index)
        return replace(store, operand=f"{store.operand}_partials", index=index, partials=0)

    modes = {s.operand: s.mode for s in stores}
    operands = tuple(_buffer(o, modes[o.name], count) if o.name in modes else o for o in kernel.operands)
    space = (Axis.range(chunk, count), *(inner if a == cut else a for a in kernel.space))
    return replace(kernel, operands=operands, space=space, stages=tuple(map(change, kernel.stages)))


def _adding(kernel: Kernel, store: Store, count: int) -> Kernel:
    """The kernel that combines a by-product's chunks, in order, on top of its initial or old value."""
    operand, combiner = kernel.operand(store.operand), COMBINERS[store.mode]
    axes = [f"i{number}" for number in range(len(operand.shape))]
    here = tuple(Affine.axis(a) for a in axes)
    buffer = replace(_buffer(operand, store.mode, count), role="in", init=None)
    chunks = Accumulate(("chunks",), store.mode, (Load(buffer.name, (Affine.axis("chunk"), *here)),))
    start = Load(operand.name, here) if operand.role == "inout" else _initial(operand)
    names: dict[str, Expr] = {"a0": start, "b0": Name("chunks")}
    (combine,) = combiner.combine
    value = transform(combine, lambda e: names.get(e.id) if isinstance(e, Name) else None)
    stage = Stage((), (Axis.range("chunk", count),), (), (chunks,), (), (Store(operand.name, here, value),))
    space = tuple(Axis.range(a, d) for a, d in zip(axes, operand.shape, strict=True))
    result = Kernel(f"{kernel.name}_{operand.name}", (buffer, replace(operand, init=None)), space, (stage,), {})
    return replace(result, capacities={s: kernel.capacities[s] for s in result.runtime_extents}, origins=kernel.origins)


def _initial(operand: Operand) -> Const:
    if operand.init is None:
        raise CompileError(f"by-product {operand.name!r} has no initial value to combine into")
    return Const(operand.init, operand.dtype)
