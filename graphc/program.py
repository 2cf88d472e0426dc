"""`gc.compile`: ties the layers together, and the `Program` that a user holds.

A call with shapes seen before runs the finished program. The first call looks in the program cache, keyed by the
declared graph, the capacities of its dimensions, the options, the host and the compiler's own sources; on a hit only
the runtime is loaded, neither the passes nor Numba nor SymPy. Stages and kernels are recomputed when asked for.
"""

from __future__ import annotations

import hashlib
import json
import operator
import os
import pathlib
import threading
import warnings
import weakref
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.dsl.collect import Declared, collect
from graphc.dsl.symbol import Symbol
from graphc.dsl.variables import Input, Variable
from graphc.dsl.watch import report
from graphc.errors import CacheWarning, CompileError, InputError
from graphc.fingerprint import compiler_fingerprint
from graphc.inspect.environment import asked
from graphc.ir.dims import evaluate, symbols
from graphc.ir.graph import Graph
from graphc.ir.text import print_graph
from graphc.kernel.plan import Plan
from graphc.kernel.plan_text import print_plan
from graphc.kernel.schedule import Schedule
from graphc.ops.scan import length_symbols
from graphc.options import Options
from graphc.runtime.cache import ProgramCache, ProgramImage, default_cache
from graphc.runtime.cores import chosen_threads
from graphc.runtime.executable import Executable
from graphc.runtime.profile import KernelTime, profile

if TYPE_CHECKING:
    from graphc.codegen.build import Build
    from graphc.passes.manager import Stage

TARGETS = ("cpu",)
MOST_SHAPES = 1024  # of inputs that a program remembers


class KernelView:
    """One kernel of a compiled program: all that it went through, as text."""

    def __init__(self, name: str, record: Mapping[str, Any]) -> None:
        self.name = name
        self.form: str = record["form"]
        self.schedule: str = record["schedule"]
        self.source: str = record["source"]
        self.symbol: str = record["symbol"]
        self.origins: tuple[str, ...] = tuple(record["origins"])

    def llvm(self) -> str:
        """The optimised LLVM assembly."""
        return str(self._machine_code.llvm_ir)

    def asm(self) -> str:
        """The machine code as assembly of this host."""
        return str(self._machine_code.asm)

    @cached_property
    def _machine_code(self) -> Any:
        from graphc.codegen.machine import compile_source

        return compile_source(self.source, self.name)

    def __repr__(self) -> str:
        return f"<kernel {self.name}: {self.schedule}>"

    def __str__(self) -> str:
        """The source; its docstring is the form, with the origins, and the schedule."""
        return self.source.rstrip()


class Program:
    """A compiled program: call it with NumPy arrays by position or by name, get a list of NumPy arrays.

    A dimension symbol such as `N` is a capacity: a call may bring any count up to it. Capacities come from `dims`,
    or from the first call; a later call with more makes the program specialise again. A symbol that is the length of a
    loop (`gc.scan`) is compiled as it is: a call with another length makes the program specialise again too.
    """

    def __init__(
        self,
        declared: Declared,
        dims: Mapping[str, int],
        *,
        threads: int,
        seed: int,
        name: str,
        cache: ProgramCache | None,
        options: Options,
    ) -> None:
        self.name = name
        self.declared = declared
        self.threads = threads
        self.seed = seed
        self._options = options
        self._cache = cache
        self._lock = threading.RLock()  # calls from several threads take turns, also when one of them specialises
        _programs.add(self)
        self._capacities: dict[str, int] = {}
        self._executable: Executable | None = None
        self._image: ProgramImage | None = None
        self.from_cache = False
        self._fixed = self._checked_dims(dims)
        self._open = not self._symbols <= set(self._fixed)
        self._fitting: set[tuple[Any, ...]] = set()  # names and shapes of inputs that were seen to fit the capacities
        for variable in declared.variables:
            variable.initialise(seed)
        if not self._open:
            self._specialise(self._fixed)

    # -- running ---------------------------------------------------------------------------------------------

    def __call__(self, *arrays: Any, **by_name: Any) -> list[np.ndarray]:
        """Run one step. Returns the results in the order of `outputs`, as fresh arrays.

        Raises InputError for missing or unknown inputs, wrong shapes or dtypes, and labels out of range, and
        AssertionFailed where a `gc.assert_` does not hold; nothing is updated then. Ctrl-C ends a step that takes long:
        KeyboardInterrupt if no variable was written or all were, else StepInterrupted, which names them.
        """
        inputs = self._by_name(arrays, by_name)
        with self._lock:
            found = self._executable_for(inputs)(inputs)
        if self.declared.watches:
            results = self.declared.results
            report(self.declared.watches, found[results:])
            return found[:results]
        return found

    def _executable_for(self, inputs: Mapping[str, Any]) -> Executable:
        """The executable, specialised for these inputs if need be; the caller holds the lock."""
        if self._executable is None or self._outgrown(inputs):
            self._specialise(self._capacities_of(inputs))
        assert self._executable is not None
        return self._executable

    def _by_name(self, arrays: Sequence[Any], by_name: dict[str, Any]) -> dict[str, Any]:
        names = [i.name for i in self.declared.inputs]
        if len(arrays) > len(names):
            raise InputError(f"program {self.name!r} takes {len(names)} inputs ({', '.join(names)}), got {len(arrays)}")
        given = dict(zip(names, arrays, strict=False))
        for name, array in by_name.items():
            if name in given:
                raise InputError(f"program {self.name!r}: input {name!r} is given by position and by name")
            given[name] = array
        unknown = [name for name in given if name not in names]
        missing = [name for name in names if name not in given]
        if unknown or missing:
            told = [f"there is no input {unknown[0]!r}"] if unknown else []
            told += [f"missing: {', '.join(missing)}"] if missing else []
            raise InputError(f"program {self.name!r}: {'; '.join(told)}; its inputs are: {', '.join(names) or 'none'}")
        return given

    def _outgrown(self, inputs: Mapping[str, Any]) -> bool:
        """True if a dimension that the user left open is larger than the capacity compiled for."""
        if not self._open:
            return False
        shapes = tuple([array.shape if type(array) is np.ndarray else np.shape(array) for array in inputs.values()])
        if (*inputs, *shapes) in self._fitting:
            return False
        wanted = self._capacities_of(inputs)
        for name in wanted.keys() - self._fixed.keys():
            known = self._capacities[name]
            if wanted[name] > known or (wanted[name] < known and name in self._lengths):
                return True
        if len(self._fitting) < MOST_SHAPES:
            self._fitting.add((*inputs, *shapes))
        return False

    def _capacities_of(self, inputs: Mapping[str, Any]) -> dict[str, int]:
        """Capacities from `dims` and, for the rest, from the arrays of this call (never below those compiled for)."""
        found = dict(self._fixed)
        for leaf in self.declared.inputs:
            if leaf.name not in inputs:
                continue
            for dim, size in zip(leaf.shape, np.shape(inputs[leaf.name]), strict=False):
                name = str(dim)
                if symbols(dim) == {name} and name not in self._fixed:
                    if name in self._lengths:
                        found[name] = size
                        continue
                    known = self._capacities.get(name, 0)
                    wanted = max(size, 2 * known) if size > known else known  # growing calls do not compile each time
                    found[name] = max(wanted, 1, found.get(name, 0))
        missing = ", ".join(sorted(self._symbols - set(found)))
        if missing:
            raise InputError(f"program {self.name!r}: no input tells the size of {missing}; give dims={{...}}")
        return found

    @cached_property
    def _lengths(self) -> frozenset[str]:
        """Symbols of the lengths of loops, which are compiled as they are."""
        return length_symbols(self.declared.graph)

    @cached_property
    def _symbols(self) -> set[str]:
        return {*_symbols_of_shapes(self.declared.graph), *self._lengths}

    def _checked_dims(self, dims: Mapping[str, int]) -> dict[str, int]:
        """`dims` with Python integers. Raises InputError for symbols that the graph has not, and for no sizes."""
        if not isinstance(dims, Mapping):
            given = type(dims).__name__
            raise InputError(f"program {self.name!r}: dims must map symbols to sizes, {{'N': 128}}, got {given}")
        for name, size in dims.items():
            if name not in self._symbols:
                known = ", ".join(sorted(self._symbols)) or "none"
                reason = f"dims names {name!r}, which no shape and no loop has; symbols: {known}"
                raise InputError(f"program {self.name!r}: {reason}")
            if isinstance(size, bool) or not hasattr(size, "__index__") or size < 0:
                raise InputError(f"program {self.name!r}: dims[{name!r}] must be an integer >= 0, got {size!r}")
        return {name: operator.index(size) for name, size in dims.items()}

    # -- compiling -------------------------------------------------------------------------------------------

    def _specialise(self, capacities: dict[str, int]) -> None:
        for leaf in self.declared.inputs:
            if any(evaluate(dim, capacities) < 0 for dim in leaf.shape):
                raise InputError(f"program {self.name!r}: a size of input {leaf!r} is negative with {capacities}")
        previous = self._executable
        image = self._load_or_build(capacities)
        try:
            executable = self._executable_of(image)
        except Exception as error:  # whatever a foreign entry with a right digest may hold
            if not self.from_cache or isinstance(error, InputError):
                raise
            message = f"the cached program {self.name!r} cannot be used ({error}); it is compiled again"
            warnings.warn(message, CacheWarning, stacklevel=4)
            image = self._build_and_store(capacities)
            executable = self._executable_of(image)
        if previous is not None:
            executable.steps = previous.steps  # random numbers go on, they do not start again
        self._image, self._executable, self._capacities = image, executable, dict(capacities)
        self._fitting.clear()
        self.__dict__.pop("stages", None)  # they show the lengths of loops
        if asked(os.environ):
            from graphc.inspect.announce import tell

            tell(self, os.environ)

    def _executable_of(self, image: ProgramImage) -> Executable:
        owners = {buffer: self._variables[image.extra["variables"][buffer]].elements for buffer in image.plan.variables}
        names = [leaf.name for leaf in self.declared.inputs]
        return Executable(image.plan, image.objects, owners, image.constants, self.seed, threads=self.threads,
                          input_names=names)

    @cached_property
    def _variables(self) -> dict[str, Variable]:
        """Variables by the names that they have in the declared graph."""
        return dict(self.declared.named_variables)

    @cached_property
    def _updated(self) -> tuple[str, ...]:
        names = {variable: name for name, variable in self._variables.items()}
        return tuple(names[variable] for variable in self.declared.updated)

    def _load_or_build(self, capacities: Mapping[str, int]) -> ProgramImage:
        image = None if self._cache is None else self._cache.load(self._key(capacities))
        self.from_cache = image is not None
        return self._build_and_store(capacities) if image is None else image

    def _build_and_store(self, capacities: Mapping[str, int], tuned: Any = None) -> ProgramImage:
        """`tuned`: what tuning has found already, as an image has it."""
        self.from_cache = False
        image = self._image_of(self._build(capacities, tuned))
        if self._cache is not None:
            self._cache.store(self._key(capacities), image)
        return image

    def _key(self, capacities: Mapping[str, int]) -> str:
        from graphc.codegen.host import host_key

        parts = {
            "graph": print_graph(self.declared.graph, origins=False),
            "variables": list(self._variables),
            "updated": self._updated,
            "capacities": sorted(capacities.items()),
            **self._options.key(),
            "host": host_key(),
            "compiler": compiler_fingerprint(),
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def _build(self, capacities: Mapping[str, int], tuned: Any) -> Build:
        from graphc.codegen.build import build
        from graphc.codegen.memory import Signature

        tuner = None
        if self._options.tune:
            from graphc.tuning import MeasuringTuner, recorded

            tuner = MeasuringTuner(self._cache) if tuned is None else recorded(tuned)
        rng = "rng" if self.declared.uses_rng else None
        signature = Signature(frozenset(self._variables), self._updated, rng)
        return build(
            self.declared.graph,
            signature,
            dict(capacities),
            without=self._options.without,
            memory_limit=self._options.memory_limit,
            schedules=dict(self._options.schedules),
            tuner=tuner,
        )

    def _image_of(self, built: Build) -> ProgramImage:
        kernels = {
            name: {
                "form": kernel.form_text,
                "schedule": str(kernel.schedule),
                "source": kernel.source,
                "symbol": kernel.symbol,
                "origins": list(kernel.form.origins),
            }
            for name, kernel in built.kernels.items()
        }
        extra = {
            "kernels": kernels,
            "variables": dict(built.variables),
            "remarks": list(built.remarks),
            "origins": self._origins,
            "tuned": {
                "schedules": {name: str(schedule) for name, schedule in built.tuned.schedules.items()},
                "remarks": list(built.tuned.remarks),
            },
        }
        objects = {kernel.symbol: kernel.machine_code for kernel in built.kernels.values()}
        return ProgramImage(built.plan, objects, dict(built.constants), extra)

    # -- looking inside --------------------------------------------------------------------------------------

    @property
    def random_state(self) -> np.ndarray:
        """int64 `[2]`, the seed and the number of the next step: what all random numbers of that step follow from."""
        return np.array([self.seed, self._executable.steps if self._executable is not None else 0], np.int64)

    @property
    def graph(self) -> Graph:
        """The graph as declared."""
        return self.declared.graph

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """Every pass: name, graph text before and after, rewrites. Recomputed if the program came from the cache."""
        from graphc.codegen.build import optimise

        lengths = {name: self._capacities[name] for name in self._lengths & self._capacities.keys()}
        return optimise(self.declared.graph, sizes=lengths, without=self._options.without)[1]

    @property
    def kernels(self) -> dict[str, KernelView]:
        """The kernels by name, in the order in which they run."""
        records = self._described().extra["kernels"]
        return {name: KernelView(name, record) for name, record in records.items()}

    @property
    def plan(self) -> Plan:
        """The table of calls and the memory plan."""
        return self._compiled().plan

    @property
    def memory(self) -> str:
        """The memory map and the table of kernels, as text."""
        return print_plan(self.plan)

    def profile(self, *arrays: Any, repeats: int = 20, **by_name: Any) -> list[KernelTime]:
        """Run each kernel by itself on these inputs: calls, seconds and best time, in the order of the table.

        The same kernels as in a step; variables and random state are put back afterwards.
        """
        inputs = self._by_name(arrays, by_name)
        with self._lock:
            return profile(self._executable_for(inputs), inputs, repeats=repeats)

    @property
    def remarks(self) -> tuple[str, ...]:
        """Why what was not fused was not, which layouts were chosen, and what tuning has changed."""
        return tuple(self._described().extra["remarks"])

    @cached_property
    def _origins(self) -> str:
        """A digest of the declared graph with its lines and modules, which are no part of the cache's key."""
        return hashlib.sha256(print_graph(self.declared.graph).encode()).hexdigest()

    def _described(self) -> ProgramImage:
        """The image with this script's lines: one found in the cache may have been made by the same graph elsewhere."""
        image = self._compiled()
        if image.extra["origins"] != self._origins:
            was_cached = self.from_cache
            self._image = image = self._build_and_store(self._capacities, image.extra["tuned"])
            self.from_cache = was_cached
        return image

    def dump(self, folder: str | os.PathLike[str], *, machine_code: bool = False) -> pathlib.Path:
        """Write all that the program went through to a folder: `index.html`, one page with nothing outside it, and
        text files of every stage and kernel; with `machine_code` LLVM and assembly too. Returns the page's path.

        The same program gives the same files. Raises CompileError before the first call if sizes are open, InputError
        where the folder cannot be written.
        """
        from graphc.inspect.dump import dump

        self._compiled()
        return dump(self, folder, machine_code=machine_code)

    def _compiled(self) -> ProgramImage:
        if self._image is None:
            missing = ", ".join(sorted(self._symbols - set(self._fixed)))
            raise CompileError(f"program {self.name!r} is not compiled yet: call it once, or give dims for {missing}")
        return self._image

    def __repr__(self) -> str:
        state = "not compiled yet" if self._image is None else f"{sum(1 for _ in self.plan.calls())} kernels"
        return f"<Program {self.name}: {state}>"


_programs: weakref.WeakSet[Program] = weakref.WeakSet()


def _free_locks() -> None:
    """In the child of a fork, where the threads that may have held a program's lock are not."""
    for program in list(_programs):
        program._lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_free_locks)


def compile(  # noqa: A001 - the public name, used as gc.compile
    inputs: Sequence[Input],
    outputs: Sequence[Symbol],
    updates: Mapping[Variable, Any] | None = None,
    *,
    dims: Mapping[str, int] | None = None,
    target: str = "cpu",
    threads: int | None = None,
    seed: int = 0,
    name: str = "program",
    without: Sequence[str] = (),
    memory_limit: int | str | None = None,
    schedules: Mapping[str, Schedule | str] | None = None,
    tune: bool = False,
    cache: bool = True,
) -> Program:
    """Compile a function from `inputs` to `outputs` that also sets each variable in `updates` to its new value.

    All updates see the old values. `dims` gives capacities of dimension symbols; those not given come from the first
    call. `threads` is how many threads a step may use, None for `GRAPHC_THREADS` or as many as there are physical
    cores; no bit of a result depends on it. `seed` starts the random state and initialises variables that have no
    values yet. `without` switches passes off by name (`program.stages` shows them), to see what they do, and `layouts`,
    `split` and `prepare`, which work on kernels.

    `memory_limit`, bytes or text such as "64 MiB", is what inputs and intermediate values may take together: to keep
    within it, nothing is kept from call to call, and elementwise values are computed again. `schedules` overrides how
    kernels run, by name: text as `program.kernels[name].schedule` prints it, such as "outer; vector n; tile o:8 n:32;
    order y o n; parallel y". It is taken as it is: without `parallel` one thread runs the kernel, without `order` loops
    are in the order of the form's space.

    `tune` measures several schedules of each contraction that takes a share of the step, which takes seconds at the
    first call, and uses the fastest; `program.remarks` tells which. What was found is remembered beside the program
    cache, for other programs with the same kernels too. Under another schedule sums may be added up in another order:
    bits may differ from those of the untuned program, but not between numbers of threads.

    Raises InputError or CompileError, where a kernel has no code for a schedule for instance, and
    MemoryLimitError for a limit that cannot be met; nothing runs before the first call.
    """
    if target not in TARGETS:
        raise CompileError(f"target {target!r} is not available; use one of: {', '.join(TARGETS)}")
    if not hasattr(seed, "__index__"):
        raise InputError(f"the seed must be an integer, got {seed!r}")
    if updates is not None and not isinstance(updates, Mapping):
        raise InputError(f"updates must map variables to new values, {{W: W - 0.1 * gW}}, got {type(updates).__name__}")
    declared = collect(inputs, outputs, updates or {}, name=name)
    chosen = default_cache() if cache else None
    workers = chosen_threads(threads, os.environ)
    options = Options.of(without, memory_limit, schedules, tune)
    sizes = {} if dims is None else dims
    return Program(declared, sizes, threads=workers, seed=operator.index(seed), name=name, cache=chosen,
                   options=options)


def _symbols_of_shapes(graph: Graph) -> set[str]:
    """The dimension symbols in shapes of a graph, and of the graphs that its ops run."""
    values = (*graph.inputs, *(value for node in graph.nodes for value in node.outputs))
    found = {s for value in values for dim in value.type.shape for s in symbols(dim)}
    bodies = [item for node in graph.nodes for item in node.attributes.values() if isinstance(item, Graph)]
    return found.union(*map(_symbols_of_shapes, bodies))
