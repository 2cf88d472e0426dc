"""Whether the points of a kernel may run in any order: stores, reads of what is stored, and coverage of outputs.

Each check returns the reason why a kernel is refused, or None. All rules are conservative: what cannot be shown to be
safe is refused, and the reason says what would make it safe.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

from graphc.kernel.expr import Affine, Computed, Load, loads
from graphc.kernel.form import Kernel, Operand, Stage, Store, partial_axis
from graphc.kernel.injectivity import covers, determined_axes, disjoint, left_out
from graphc.kernel.ranges import Box


@dataclass(frozen=True)
class Site:
    """A store and where it stands."""

    position: int
    stage: Stage
    store: Store
    box: Box


def store_sites(kernel: Kernel) -> tuple[Site, ...]:
    """All stores, in order."""
    return tuple(
        Site(position, stage, store, Box((*kernel.space, *stage.space), kernel.capacities))
        for position, stage in enumerate(kernel.stages)
        for store in stage.stores
    )


def race_reasons(kernel: Kernel) -> Iterator[str]:
    """Why points of the kernel may not run in any order, if they may not."""
    sites = store_sites(kernel)
    for site in sites:
        yield from _store_alone(kernel, site)
    for first, second in combinations(sites, 2):
        if first.store.operand == second.store.operand and not _compatible(kernel, first, second):
            yield (
                f"two stores to {first.store.operand!r} may meet at one element at different points; "
                "their indices must be equal in all axes of the kernel's space, or never meet"
            )
    yield from _reads(kernel, sites)


def coverage_reasons(kernel: Kernel) -> Iterator[str]:
    """Outputs with elements that are seen to be, or may be, written by no point and have no `init`."""
    sites = store_sites(kernel)
    for operand in kernel.operands:
        if operand.role != "out" or operand.init is not None:
            continue
        plain = [
            (s.store.index, s.box)
            for s in sites
            if s.store.operand == operand.name and s.store.mode == "=" and s.store.guard is None
        ]
        if not covers(operand, plain):
            yield f"elements of the output {operand.name!r} may stay unwritten; give it `init`"


def _store_alone(kernel: Kernel, site: Site) -> Iterator[str]:
    """An element stored by several points needs an order or partials."""
    store = site.store
    open_axes = [axis for axis in left_out(store.index, site.box) if not axis.sequential]
    names = ", ".join(axis.name for axis in open_axes)
    if store.mode == "=":
        computed = any(isinstance(i, Computed) for i in store.index)
        used = {name for i in store.index if isinstance(i, Affine) for name, _ in i.terms}
        unused = [a.name for a in left_out(store.index, site.box) if a.name not in used]
        if open_axes:
            yield f"points that differ in {names} may store to one element of {store.operand!r}; combine or reduce"
        elif unused and not computed:
            yield f"the index of {store.operand!r} leaves out axis {unused[0]!r}: only its last point would count"
        return
    cut = partial_axis(kernel, site.stage, store)
    if store.partials and cut is not None and cut.extent is None:
        yield f"axis {cut.name!r}, which the partials of {store.operand!r} cut, must start at 0 and be unclipped"
    if open_axes and not store.partials:
        yield (
            f"points that differ in {names} combine into one element of {store.operand!r}; "
            "make these axes sequential or go through partials"
        )
    elif open_axes and cut is None:
        yield f"partials of {store.operand!r} need an axis that its affine indices leave out"


def _compatible(kernel: Kernel, first: Site, second: Site) -> bool:
    """True if two stores to one operand meet at the same point of the kernel's space only, or never."""
    return _same_point(kernel, first.store, second.store) or disjoint(
        first.store.index, first.box, second.store.index, second.box
    )


def _same_point(kernel: Kernel, store: Store, other: Store | Load) -> bool:
    """True if equal elements imply equal points of the kernel's space: equal indices that determine its axes."""
    shared = [k for k, index in enumerate(store.index) if _is_shared(kernel, store, other, k)]
    box = Box(kernel.space, kernel.capacities)
    known = determined_axes([store.index[k] for k in shared], box)
    return {axis.name for axis in kernel.space} <= known


def _is_shared(kernel: Kernel, store: Store, other: Store | Load, position: int) -> bool:
    index, names = store.index[position], {axis.name for axis in kernel.space}
    return isinstance(index, Affine) and index == other.index[position] and {n for n, _ in index.terms} <= names


def _reads(kernel: Kernel, sites: tuple[Site, ...]) -> Iterator[str]:
    """Loads of operands that the kernel writes."""
    operands = {operand.name: operand for operand in kernel.operands}
    for position, stage in enumerate(kernel.stages):
        for load in {load: None for expr in stage.expressions() for load in loads(expr)}:
            operand = operands[load.operand]
            written = [site for site in sites if site.store.operand == load.operand]
            if operand.role == "in":
                continue
            for site in written:
                yield from _read_of_store(kernel, load, position, site)
            if operand.role == "out" and not any(_provides(kernel, site, load, position, operand) for site in written):
                yield f"the output {load.operand!r} is read where no earlier stage has written it at the same point"


def _read_of_store(kernel: Kernel, load: Load, position: int, site: Site) -> Iterator[str]:
    """A load of an element that a store may write at another point, or in no fixed order at the same point."""
    store = site.store
    if disjoint(load.index, _load_box(kernel, position), store.index, site.box):
        return
    if position == site.position:
        if load.index != store.index or left_out(store.index, site.box):
            yield f"{load.operand!r} is read in the stage that stores it, at another index than the store's"
    elif not _same_point(kernel, store, load):
        yield f"{load.operand!r} is read at one point and stored at another; their order is not defined"


def _load_box(kernel: Kernel, position: int) -> Box:
    stage = kernel.stages[position]
    return Box((*kernel.space, *stage.space, *stage.reduce), kernel.capacities)


def _provides(kernel: Kernel, site: Site, load: Load, position: int, operand: Operand) -> bool:
    """True if the store writes, in an earlier stage and at the same point, every element that the load may read."""
    store = site.store
    if site.position >= position:
        return False
    if operand.init is not None:
        return True
    if store.mode != "=" or store.guard is not None:
        return False
    open_positions = [k for k in range(len(store.index)) if not _is_shared(kernel, store, load, k)]
    own = Box(site.stage.space, kernel.capacities)
    inner = Operand(operand.name, operand.dtype, tuple(operand.shape[k] for k in open_positions))
    index = [store.index[k] for k in open_positions]
    own_names = {axis.name for axis in site.stage.space}
    local = all(isinstance(i, Affine) and {name for name, _ in i.terms} <= own_names for i in index)
    return local and covers(inner, [(index, own)])
