"""Measure schedules of the contractions in graphc/inspect/recipes.py and write graphc/inspect/contractions.toml.

    python tools/search_schedules.py --prepare          # compile candidates beforehand: needs no quiet machine
    python tools/search_schedules.py --seconds 60       # measure rows that the table lacks; run again until it is done
    python tools/search_schedules.py --rows 'lenet-64'  # measure rows again, by a pattern of their names
    python tools/search_schedules.py --check            # which rows are no longer what the recipes yield

The search does not ask the cost model, which is held against the table: it takes all register tiles that the registers
hold, in the model's loop order, then other orders for the tiles that were fastest. Most are measured a few times
only; those near the best in turns, again and again. Rows of another machine cannot be mixed with
this one's: start with no table.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import re
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from graphc.codegen.choose import choose
from graphc.codegen.contraction import Outer, ways
from graphc.codegen.cpu.emit import emit, schedulable
from graphc.codegen.host import Host, host, host_key
from graphc.codegen.machine import compile_source, kernel_symbol
from graphc.errors import CompileError
from graphc.inspect.contractions import TABLE, Measured, Row, Table, print_table, read_table
from graphc.inspect.peak import fma_gflops
from graphc.inspect.recipes import RECIPES, contraction_forms
from graphc.ir.dims import evaluate
from graphc.kernel.form import Kernel
from graphc.kernel.schedule import Schedule
from graphc.kernel.text import print_kernel
from graphc.runtime.timing import least_seconds
from graphc.tuning import memories

MOST_SUMS = 28  # vectors of sums in a tile; more than a model should dare with 32 registers
LIST_UP_TO = 1.6  # times the best time: what the table lists
LISTED = 40  # schedules of a row at most
FINALISTS = 12


def main() -> int:
    """Do what the arguments say; 1 if rows are left to measure, or stale."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepare", action="store_true", help="compile, do not measure")
    parser.add_argument("--check", action="store_true", help="compare the table's forms with the recipes'")
    parser.add_argument("--seconds", type=float, default=1e9, help="start no row after so long")
    parser.add_argument("--rows", metavar="PATTERN", help="measure these rows, also those that the table has")
    parser.add_argument("--objects", type=Path, default=Path(tempfile.gettempdir(), "graphc-search"),
                        help="where machine code is kept (%(default)s)")
    parser.add_argument("--machine", default="", help="the machine in words")
    parser.add_argument("--table", type=Path, default=TABLE)
    arguments = parser.parse_args()
    forms = dict(_forms())
    machine = replace(host(), features="")
    table = read_table(arguments.table) if arguments.table.exists() else Table(arguments.machine, machine, ())
    if arguments.machine:
        table = replace(table, machine=arguments.machine)
    known = {row.name: row for row in table.rows}
    stale = [name for name, form in forms.items() if name not in known or _text(known[name].form) != _text(form)]
    gone = [name for name in known if name not in forms]
    if arguments.check:
        print(*(f"stale: {name}" for name in stale), *(f"gone: {name}" for name in gone), sep="\n")
        return bool(stale or gone)
    known = {name: row for name, row in known.items() if name in forms}
    wanted = [name for name in forms if re.search(arguments.rows, name)] if arguments.rows else stale
    store = _Store(arguments.objects)
    end = time.monotonic() + arguments.seconds
    for number, name in enumerate(wanted):
        if time.monotonic() > end:
            print(f"{len(wanted) - number} rows are left")
            return 1
        if arguments.prepare:
            for schedule in _first(forms[name], host()):
                store.object(forms[name], schedule)
            continue
        row = known[name] = _measured(name, forms[name], store)
        chosen = row.place(choose(row.form, host()))
        behind = "not listed" if chosen is None else f"{row.schedules[chosen].microseconds / row.best.microseconds:.3f}"
        speed = row.gflops(row.best.microseconds * 1e-6)
        print(f"{name}: {row.best.microseconds:.4g} us, {speed:.1f} GFLOP/s, {speed / row.peak:.0%}; "
              f"chosen {behind}; {row.best.schedule}", flush=True)
        rows = tuple(known[n] for n in forms if n in known)
        arguments.table.write_text(print_table(replace(table, host=machine, rows=rows)), encoding="utf-8")
    return 0


def _forms() -> Iterator[tuple[str, Kernel]]:
    """Names and forms of all contractions of the recipes for this host."""
    for recipe in RECIPES.values():
        for name, form in contraction_forms(recipe, host()).items():
            yield f"{recipe.name} {name}", replace(form, origins=())


def _text(form: Kernel) -> str:
    return print_kernel(replace(form, origins=()))


# ---- candidates -----------------------------------------------------------------------------------------------------


def _first(form: Kernel, machine: Host) -> list[Schedule]:
    """Schedules with every register tile, in the order of loops that the model takes, and what the model chooses."""
    flat = schedulable(form)
    found = [_alone(choose(form, machine))]
    for way in ways(flat, machine, cut=False):
        rows, columns = way.contraction.rows.name, way.contraction.columns.name
        if isinstance(way, Outer):
            widest = -(-_extent(flat, columns) // machine.lanes)
            for r, v in _sizes(_extent(flat, rows), widest, 8):
                found.append(Schedule("outer", columns, ((rows, r), (columns, v * machine.lanes)), way.order()))
        else:
            for r, c in _sizes(_extent(flat, rows), _extent(flat, columns), 12):
                tile = ((rows, r), (columns, c), (way.axis.name, machine.lanes))
                found.append(Schedule("dot", way.axis.name, tile, way.order()))
    return list(dict.fromkeys(found))


def _sizes(rows: int, columns: int, widest: int) -> Iterator[tuple[int, int]]:
    """Tiles of so many rows and columns, none much smaller than the registers allow unless there is no more."""
    for r, c in itertools.product(range(1, min(rows, 24) + 1), range(1, min(columns, widest) + 1)):
        if r * c <= MOST_SUMS and r * c + min(r, c) + 1 <= 32 and (r * c >= 6 or r == rows or c == columns):
            yield r, c


def _extent(flat: Kernel, axis: str) -> int:
    extent = next(a for a in flat.space if a.name == axis).extent
    return 0 if extent is None else evaluate(extent, flat.capacities)


def _orders(flat: Kernel, schedule: Schedule) -> Iterator[Schedule]:
    """A schedule in other orders of loops: rows and columns anywhere, the other axes as they stand."""
    tiled = [name for name in schedule.order if name in dict(schedule.tile)]
    others = [name for name in schedule.order if name not in tiled]
    for places in itertools.permutations(range(len(schedule.order)), len(tiled)):
        rest = iter(others)
        named = dict(zip(places, tiled, strict=True))
        order = tuple(named[i] if i in named else next(rest) for i in range(len(schedule.order)))
        yield replace(schedule, order=order)


def _alone(schedule: Schedule) -> Schedule:
    return replace(schedule, parallel=None)


# ---- measuring ------------------------------------------------------------------------------------------------------


class _Store:
    """Machine code by form and schedule, kept in a folder of this host's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / host_key()
        self.folder.mkdir(parents=True, exist_ok=True)

    def object(self, form: Kernel, schedule: Schedule) -> tuple[str, bytes] | None:
        """Symbol and object file; None where there is no code."""
        try:
            source = emit(form, schedule, host())
        except CompileError:
            return None
        path = self.folder / f"{hashlib.sha256(source.encode()).hexdigest()[:32]}.o"
        if not path.exists():
            path.write_bytes(compile_source(source, form.name).object_bytes)
        return kernel_symbol(source, form.name), path.read_bytes()


def _measured(name: str, form: Kernel, store: _Store) -> Row:
    """The row of a contraction: all tiles, then orders of the best tiles, then the best in turns."""
    peak = fma_gflops(1, 0.1)
    times = _timed(form, _first(form, host()), store, rounds=2)
    fastest = sorted(times, key=times.__getitem__)[:3]
    orders = [s for schedule in fastest for s in _orders(schedulable(form), schedule) if s not in times]
    times |= _timed(form, list(dict.fromkeys(orders)), store, rounds=2)
    ranked = sorted(times, key=times.__getitem__)
    chosen = _alone(choose(form, host()))
    near = [s for s in ranked if times[s] < LIST_UP_TO * times[ranked[0]]][:LISTED]
    near += [chosen] if chosen in times and chosen not in near else []
    times |= _timed(form, near, store, rounds=4)
    near.sort(key=times.__getitem__)
    finalists = [*near[:FINALISTS], *([chosen] if chosen in near[FINALISTS:] else [])]
    times |= {s: min(times[s], t) for s, t in _timed(form, finalists, store, rounds=12).items()}
    peak = max(peak, fma_gflops(1, 0.1))
    near.sort(key=times.__getitem__)
    return Row(name, form, peak, tuple(Measured(s, round(times[s] * 1e6, 4)) for s in near))


def _timed(form: Kernel, schedules: Iterable[Schedule], store: _Store, rounds: int) -> dict[Schedule, float]:
    """The least seconds of a call of each, in rounds in which they take turns."""
    found = {schedule: store.object(form, schedule) for schedule in schedules}
    symbols = {schedule: code[0] for schedule, code in found.items() if code}
    counts = [form.capacities[name] for name in form.runtime_extents]
    codes = {code[0]: code[1] for code in found.values() if code}
    seconds = dict(zip(codes, least_seconds(codes, memories(form), counts, rounds=rounds), strict=True))
    return {schedule: seconds[symbol] for schedule, symbol in symbols.items()}


if __name__ == "__main__":
    sys.exit(main())
