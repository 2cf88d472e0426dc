"""A plan and addresses to the table that the driver walks: rows, args and cells, all int64."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from graphc.errors import VerifyError
from graphc.ir.buffers import address, aligned_zeros
from graphc.kernel.plan import Branch, Call, Entry, Loop, Plan, While, walk
from graphc.runtime import driver

ITEMSIZE = 8
_NO_BOUND = 2**63 - 1

Row: TypeAlias = tuple[int, ...]


@dataclass(frozen=True)
class Copy:
    """Bytes to copy after the kernels."""

    target: int
    source: int
    nbytes: int


@dataclass(frozen=True)
class Table:
    """A table for one thread. `rows` is i64[entries, 8]; `sites` are the rows that call kernels, with their calls.

    `cells` holds the runtime counts in the order of `Plan.extents`, then the loops' indices. `begun` is what `args`
    holds before a step: loops move it, and move it back.
    """

    rows: np.ndarray
    args: np.ndarray
    begun: np.ndarray
    strides: np.ndarray
    cells: np.ndarray
    sites: tuple[tuple[int, Call], ...]


@dataclass(frozen=True)
class _Scope:
    """What holds inside the loops around an entry: the address of each runtime count, and for each loop the bytes by
    which buffers move in a turn, with the (args slot address, bytes) found so far."""

    extents: Mapping[str, int]
    loops: tuple[tuple[Mapping[str, int], list[tuple[int, int]]], ...] = ()


@dataclass
class _Builder:
    """Rows with places in `args`, `strides` and `cells` already resolved to addresses."""

    functions: Mapping[str, int]
    buffers: Mapping[str, int]
    args: np.ndarray
    strides: np.ndarray
    cells: np.ndarray
    rows: list[Row] = field(default_factory=list)
    sites: list[tuple[int, Call]] = field(default_factory=list)
    args_used: int = 0
    strides_used: int = 0
    cells_used: int = 0

    def preparation(self, entries: tuple[Entry, ...], flag: int, zero: int, scope: _Scope) -> None:
        """Rows that run `entries` if the byte at the address `flag` is not 0, then clear it."""
        slot = self._next_slot(flag)
        begin = len(self.rows)
        self.rows.append(())
        self.entries(entries, scope)
        self.rows.append((driver.BARRIER,))  # all threads have seen the flag, and written what the next ones read
        self.rows.append((driver.COPY, flag, zero, ITEMSIZE))
        self.rows[begin] = (driver.BRANCH, slot, 0, len(self.rows))

    def entries(self, entries: tuple[Entry, ...], scope: _Scope) -> None:
        """Append the rows of `entries`."""
        for entry in entries:
            if isinstance(entry, Call):
                self._call(entry, scope)
            elif isinstance(entry, Loop):
                self._loop(entry, scope)
            elif isinstance(entry, Branch):
                self._branch(entry, scope)
            elif isinstance(entry, While):
                self._while(entry, scope)
            else:
                self.rows.append((driver.BARRIER,))

    def _call(self, call: Call, scope: _Scope) -> None:
        start = self.args_used
        for name in call.operands:
            self._slot(name, call, scope)
        for name in call.extents:
            self.args[self.args_used] = _lookup(scope.extents, name, "runtime extent", call)
            self.args_used += 1
        self.sites.append((len(self.rows), call))
        function = _lookup(self.functions, call.kernel, "machine code", call)
        self.rows.append((driver.CALL if call.shared else driver.CALL_ALONE, function, _at(self.args, start)))

    def _slot(self, name: str, entry: Entry, scope: _Scope) -> int:
        """The address of a new place in `args` that holds the address of a buffer and moves with the loops around."""
        slot = self._next_slot(_lookup(self.buffers, name, "buffer", entry))
        for strides, moves in scope.loops:
            if strides.get(name):
                moves.append((slot, strides[name]))
        return slot

    def _next_slot(self, content: int) -> int:
        """The address of the next place in `args`, which holds `content`."""
        slot = _at(self.args, self.args_used)
        self.args[self.args_used] = content
        self.args_used += 1
        return slot

    def _branch(self, branch: Branch, scope: _Scope) -> None:
        begin = len(self.rows)
        self.rows.append(())
        self.entries(branch.then, scope)
        otherwise = len(self.rows)
        if branch.orelse:
            self.rows.append(())
            self.entries(branch.orelse, scope)
            self.rows[otherwise] = (driver.JUMP, 0, 0, len(self.rows))
            otherwise += 1
        self.rows[begin] = (driver.BRANCH, self._slot(branch.predicate, branch, scope), 0, otherwise)

    def _while(self, loop: While, scope: _Scope) -> None:
        cell = _at(self.cells, self.cells_used)
        self.cells_used += 1
        count = loop.bound if loop.bound >= 0 else _NO_BOUND
        begin = len(self.rows)
        self.rows.append(())
        self.entries(loop.test, scope)
        leave = len(self.rows)
        self.rows.append(())
        self.entries(loop.body, scope)
        self.rows.append((driver.NEXT, cell, count, begin + 1, 0, 0))
        self.rows[begin] = (driver.LOOP, cell, count, len(self.rows))
        self.rows[leave] = (driver.BRANCH, self._slot(loop.predicate, loop, scope), 0, len(self.rows))

    def _loop(self, loop: Loop, scope: _Scope) -> None:
        for name, _ in loop.strides:
            _lookup(self.buffers, name, "buffer", loop)
        cell = _at(self.cells, self.cells_used)
        self.cells_used += 1
        begin = len(self.rows)
        self.rows.append(())
        moves: list[tuple[int, int]] = []
        inner = _Scope({**scope.extents, loop.name: cell}, (*scope.loops, (dict(loop.strides), moves)))
        self.entries(loop.body, inner)
        first = self.strides_used
        for pair in moves:
            self.strides[self.strides_used] = pair
            self.strides_used += 1
        at = address(self.strides) + 2 * ITEMSIZE * first
        self.rows.append((driver.NEXT, cell, loop.count, begin + 1, at, len(moves)))
        self.rows[begin] = (driver.LOOP, cell, loop.count, len(self.rows))


def build(plan: Plan, functions: Mapping[str, int], buffers: Mapping[str, int], *,
          after: tuple[Copy, ...] = (), changes: Sequence[int] = (), counters: Sequence[int] = (),
          flags: Sequence[int] = (), zero: int = 0) -> Table:
    """The table of `plan`, for kernels at `functions` (symbol -> address) and `buffers` (name -> address).

    Copies `after` the kernels become rows of their own; `changes` are addresses of what grows by one when the step
    begins to write variables, `counters` of what grows at its end, `flags` those of an int64 for each preparation, and
    `zero` that of one which is 0. Raises VerifyError when the plan names what is not there.
    """
    entries = list(walk(plan.all_entries()))
    loops = [entry for entry in entries if isinstance(entry, Loop | While)]
    slots = sum(_slots(entry) for entry in entries) + len(plan.preparations)
    cells = aligned_zeros((len(plan.extents) + len(loops),), "i64")
    # A slot can move with every loop around it.
    moves = slots * max(1, len(loops))
    builder = _Builder(functions, buffers, aligned_zeros((slots,), "i64"), aligned_zeros((moves, 2), "i64"), cells)
    builder.cells_used = len(plan.extents)
    extents = {name: _at(cells, place) for place, name in enumerate(plan.extents)}
    cells[: len(plan.extents)] = list(plan.extents.values())
    for preparation, flag in zip(plan.preparations, flags, strict=True):
        builder.preparation(preparation.entries, flag, zero, _Scope(extents))
    _add_entries(builder, plan, _Scope(extents), changes)
    if after:  # thread 0 copies; the plan's entries end with a barrier if others must have finished
        builder.rows += [(driver.COPY, copy.target, copy.source, copy.nbytes) for copy in after]
    builder.rows += [(driver.ADD, cell, 1) for cell in counters]
    rows = aligned_zeros((len(builder.rows), driver.ROW), "i64")
    for place, row in enumerate(builder.rows):
        rows[place, : len(row)] = row
    begun = aligned_zeros((slots,), "i64")
    begun[:] = builder.args
    return Table(rows, builder.args, begun, builder.strides, cells, tuple(builder.sites))


def _add_entries(builder: _Builder, plan: Plan, scope: _Scope, changes: Sequence[int]) -> None:
    """The rows of the plan, and before the first that may write a variable those that say and count it."""
    writing = [any(isinstance(inner, Call) and inner.updates for inner in walk((entry,))) for entry in plan.entries]
    first = writing.index(True) if any(writing) else 0 if plan.written else len(writing)
    builder.entries(plan.entries[:first], scope)
    if plan.updates or plan.written or any(writing):
        builder.rows.append((driver.WRITES,))
        builder.rows += [(driver.ADD, cell, 1) for cell in changes]
    builder.entries(plan.entries[first:], scope)


def job_list(tables: Sequence[Table], control: np.ndarray) -> np.ndarray:
    """Jobs for one thread a table, i64[threads, 8]. Tables and control must outlive it."""
    jobs = [(address(table.rows), len(table.rows), thread, len(tables), address(control), address(table.args),
             address(table.begun), table.args.nbytes) for thread, table in enumerate(tables)]
    return np.array(jobs, np.int64)


def _slots(entry: Entry) -> int:
    """How many places in `args` an entry itself takes."""
    if isinstance(entry, Call):
        return len(entry.operands) + len(entry.extents)
    return int(isinstance(entry, Branch | While))


def _at(array: np.ndarray, place: int) -> int:
    return address(array) + ITEMSIZE * place


def _lookup(found: Mapping[str, int], name: str, what: str, entry: Entry) -> int:
    if name not in found:
        raise VerifyError(f"the plan's entry {entry} needs the {what} {name!r}, which is not there")
    return found[name]
