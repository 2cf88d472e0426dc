"""A finished program, ready to be called: plan, loaded machine code, arena, variables.

Everything that does not depend on the values of a call is resolved when the executable is made, or at the first
call with given shapes. A call copies its inputs into the arena, runs the table once (a step) with Python's global
lock released, and copies the results out.
"""

from __future__ import annotations

import ctypes
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.errors import InputError, MemoryLimitError, StateError, StepInterrupted, VerifyError
from graphc.ir.buffers import Elements, address, aligned_copy, aligned_zeros, format_bytes
from graphc.ir.dims import Dim, evaluate, parse_dim, symbols
from graphc.ir.types import as_dtype
from graphc.kernel.plan import Branch, Buffer, Call, Entry, Loop, Plan, nested
from graphc.kernel.plan_text import largest
from graphc.runtime.cores import available_cores
from graphc.runtime.driver import PLACE, STATE, STOPPED_LATE, WATCH, WATCHED, WATCHES, control_block, driver
from graphc.runtime.inputs import InputPlace, InputSpec, Shape, as_array, bind_counts, name_error
from graphc.runtime.loader import load
from graphc.runtime.pace import Pace
from graphc.runtime.state import check_variable
from graphc.runtime.table import Copy, Table, build, job_list
from graphc.runtime.threads import STEPS, team

_MAX_BINDINGS = 256
_LEAST_SHARE = 40_000  # nanoseconds of shared work that make a thread worth waking


@dataclass(frozen=True)
class _Binding:
    """What calls with the same input shapes share: runtime counts, and the parts of buffers that are in use.

    `pace` is None where a step has too little work for more than one thread.
    """

    counts: np.ndarray
    regions: tuple[np.ndarray, ...]
    results: tuple[np.ndarray, ...]
    pace: Pace | None


class Executable:
    """Runs `plan` with the machine code `objects` (kernel symbol -> object file).

    `variables` maps the names in `plan.variables` to their elements, whose changes it counts; `constants` maps the
    names in `plan.constants` to arrays. Results are read after the updates. Steps called from several Python threads
    take turns, whatever the executable: executables may share variables.
    `input_names` is what callers call `plan.inputs`, where that is not an identifier or a word of the kernel text.
    `threads` is how many threads may walk the table. No bit of a result depends on it; steps with little work, and
    steps on a machine whose cores are taken, run on one.

    Raises VerifyError for a plan that contradicts itself, StateError for variables that do not fit,
    CompileError for machine code that cannot be loaded, MemoryLimitError where there is no room for the arena.
    """

    def __init__(self, plan: Plan, objects: Mapping[str, bytes], variables: Mapping[str, Elements],
                 constants: Mapping[str, np.ndarray], seed: int, *, threads: int = 1,
                 input_names: Sequence[str] | None = None) -> None:
        if not 0 <= seed < 2**63:
            raise InputError(f"program {plan.name!r}: the seed must be in 0 ... 2**63 - 1, got {seed}")
        self.plan, self.threads = plan, threads
        self.lock = STEPS
        self._running = False
        self.control = control_block()
        called = plan.inputs if input_names is None else input_names
        self.specs = tuple(_spec(plan, plan.buffer(name), own) for name, own in zip(plan.inputs, called, strict=True))
        self._buffers = {buffer.name: buffer for buffer in plan.buffers}
        self._arena = _arena(plan)
        self._rng = aligned_zeros((2,), "i64")
        self._rng[0] = seed
        self._variables = [self._variable(name, variables) for name in plan.variables]
        self._constants = [self._constant(name, constants) for name in plan.constants]
        self._memory = {buffer.name: self._memory_of(buffer) for buffer in plan.buffers}
        changed = dict.fromkeys((*plan.written, *(update.target for update in plan.updates)))
        self.changed = [self._owner(name) for name in changed]
        self._flags, self._watches = self._watch()
        self.code = load({call.kernel: _object(plan, call.kernel, objects) for call in plan.calls()})
        self.table = self._table()
        self._places = self._input_places()
        self._names = [spec.name for spec in self.specs]
        self._bindings: dict[tuple[Shape, ...], _Binding] = {}
        self._bound: _Binding | None = None
        self._tables = [self.table]  # one a thread, as threads are first used
        self._jobs: dict[int, np.ndarray] = {}
        self._run = driver().run
        self._run_arguments: dict[int, list[ctypes.c_int64]] = {}
        self._arguments(1)

    def __call__(self, inputs: Mapping[str, Any]) -> list[np.ndarray]:
        """Run one step on named arrays (or what `numpy.asarray` takes); the results are fresh arrays.

        Raises InputError, before anything has run or changed, for missing or unknown inputs and for shapes, dtypes
        and values that do not fit.
        """
        values = self.ordered(inputs)
        with self.lock:
            if self._running:  # a signal handler that runs between the parts of a step, in the same thread
                raise StateError(f"program {self.plan.name!r} is called again while one of its steps is under way")
            self._running = True
            try:
                return self.step(values)
            finally:
                self._running = False

    def ordered(self, inputs: Mapping[str, Any]) -> list[Any]:
        """The values of `inputs` in the order of `plan.inputs`. Raises InputError for missing and unknown names."""
        if len(inputs) == len(self._names):
            try:
                return [inputs[name] for name in self._names]
            except KeyError:
                pass
        raise name_error(self.plan.name, self.specs, inputs)

    def step(self, values: list[Any], *, threads: int = 0) -> list[np.ndarray]:
        """One step on arrays in the order of `plan.inputs`; the caller holds `lock`.

        `threads` is how many to run it on, 0 for as many as are quickest.
        """
        for i, value in enumerate(values):
            if type(value) is not np.ndarray:
                values[i] = as_array(self.specs[i], value)
        shapes = tuple([value.shape for value in values])
        binding = self._bindings.get(shapes) or self._bind(shapes)
        if binding is not self._bound:
            for table in self._tables:
                table.cells[: len(binding.counts)] = binding.counts
            self._bound = binding
        if binding.pace is not None and binding.pace.threads > 1:
            team().rouse(binding.pace.threads)
        for place, value, region in zip(self._places, values, binding.regions):  # noqa: B905 - strict costs time
            if value.dtype is place.plain:
                region[...] = value
            else:
                place.fill(value, region)
        try:
            if threads:
                done = self._run(*self._arguments(team().hire(threads)))
            elif binding.pace is None:
                done = self._run(*self._run_arguments[1])
            else:
                done = self._run_in_turn(binding.pace)
            if done != 1:
                raise self._not_done(done)
        except BaseException as error:  # a KeyboardInterrupt, mostly: from within the step, or right after it
            self._tell(error)
            raise
        return [result.copy() for result in binding.results]

    def _not_done(self, done: int) -> BaseException:
        if done < 0:
            return StateError(f"program {self.plan.name!r} is called by a signal handler inside of a step")
        return SystemExit()  # the interpreter exits, so this thread does too

    def _tell(self, error: BaseException) -> None:
        """Say so if a step was stopped after it had begun to write variables; raises StepInterrupted for Ctrl-C."""
        if self.control[STATE] != STOPPED_LATE:
            return
        self.control[STATE] = 0
        changed = dict.fromkeys((*self.plan.written, *(update.target for update in self.plan.updates)))
        told = StepInterrupted(self.plan.name, self.steps, tuple(changed))
        if type(error) is KeyboardInterrupt:
            raise told.with_traceback(error.__traceback__) from None
        error.add_note(str(told))

    def _run_in_turn(self, pace: Pace) -> int:
        """On as many threads as `pace` says. Returns the steps done."""
        threads = team().hire(pace.threads)
        if pace.settling:
            team().spread(threads)
        arguments = self._arguments(threads)
        start = time.perf_counter()
        done = self._run(*arguments)
        pace.took(time.perf_counter() - start)
        return int(done)

    def _arguments(self, threads: int) -> list[ctypes.c_int64]:
        """What the driver is given to run on so many threads; made once."""
        if threads in self._run_arguments:
            return self._run_arguments[threads]
        while len(self._tables) < threads:
            table = self._table()
            table.cells[:] = self.table.cells
            self._tables.append(table)
        place = 0
        if threads > 1:
            place = team().address
            self.control[PLACE] = place
        jobs = self._jobs[threads] = job_list(self._tables[:threads], self.control)
        arguments = [ctypes.c_int64(value) for value in (address(jobs), threads, place)]
        self._run_arguments[threads] = arguments
        return arguments

    def threads_for(self, values: Sequence[Any]) -> int:
        """How many threads have enough work in a step on these arrays, in the order of `plan.inputs`."""
        shapes = tuple(np.shape(value) for value in values)
        pace = (self._bindings.get(shapes) or self._bind(shapes)).pace
        return 1 if pace is None else pace.most

    @property
    def steps(self) -> int:
        """Steps done so far: the counter of the random state. Setting it moves the random state there."""
        return int(self._rng[1])

    @steps.setter
    def steps(self, steps: int) -> None:
        self._rng[1] = steps

    def prepare_again(self) -> None:
        """Let the next step compute all prepared values anew; the caller holds `lock`."""
        self._flags[1:] = 1

    # -- made once -------------------------------------------------------------------------------------------

    def _watch(self) -> tuple[np.ndarray, np.ndarray]:
        """A flag for each preparation after a 0, all set, and what the driver compares to set them again."""
        preparations = self.plan.preparations
        flags = aligned_zeros((1 + len(preparations),), "i64")
        flags[1:] = 1
        watches = []
        for place, preparation in enumerate(preparations, start=1):
            flag = address(flags) + place * flags.itemsize
            for elements in map(self._owner, preparation.variables):
                if elements in self.changed:
                    raise VerifyError(f"plan {self.plan.name}: {preparation.variables} are written by the step itself")
                watches.append((address(elements.changes), *elements.changes.tolist(), flag))
        table = aligned_zeros((len(watches), WATCH), "i64")
        if watches:
            table[...] = watches
        self.control[WATCHES], self.control[WATCHED] = address(table), len(watches)
        return flags, table

    def _owner(self, name: str) -> Elements:
        """The elements whose memory the buffer `name` is."""
        buffer = self._buffers[name]
        if buffer.region != "variable":
            raise VerifyError(f"plan {self.plan.name}: {name!r} is no variable, but lies in the {buffer.region}")
        return self._variables[buffer.offset]

    def _variable(self, name: str, variables: Mapping[str, Elements]) -> Elements:
        if name not in variables:
            raise VerifyError(f"plan {self.plan.name} needs the variable {name!r}, which was not given")
        check_variable(self.plan.name, self._buffers[name], variables[name].array)
        return variables[name]

    def _constant(self, name: str, constants: Mapping[str, np.ndarray]) -> np.ndarray:
        buffer = self._buffers[name]
        if name not in constants:
            raise VerifyError(f"plan {self.plan.name} needs the constant {name!r}, which was not given")
        array = constants[name]
        if array.shape != buffer.shape or array.dtype != as_dtype(buffer.dtype).numpy:
            raise VerifyError(f"plan {self.plan.name}: constant {name!r} should be {buffer.dtype}{list(buffer.shape)}, "
                              f"got {array.dtype.name}{list(array.shape)}")
        return aligned_copy(array)

    def _memory_of(self, buffer: Buffer) -> np.ndarray:
        """The buffer as a row-major array over its capacities."""
        dtype = as_dtype(buffer.dtype).numpy
        nbytes = math.prod(buffer.shape) * dtype.itemsize
        whole, start = self._arena, buffer.offset
        if not buffer.in_arena:
            owned = {"variable": [v.array for v in self._variables], "constant": self._constants, "rng": [self._rng]}
            if buffer.region not in owned or not 0 <= buffer.offset < len(owned[buffer.region]):
                raise VerifyError(f"plan {self.plan.name}: buffer {buffer} lies nowhere")
            whole, start = owned[buffer.region][buffer.offset], buffer.start
        if start < 0 or start + max(nbytes, buffer.nbytes) > whole.nbytes:
            raise VerifyError(f"plan {self.plan.name}: buffer {buffer} does not fit into {whole.nbytes} bytes")
        return np.ndarray(buffer.shape, dtype, buffer=whole.data, offset=start)

    def _table(self) -> Table:
        addresses = {name: address(array) for name, array in self._memory.items()}
        targets = {update.target for update in self.plan.updates}
        copies = []
        for update in self.plan.updates:
            target, source = self._memory[update.target], self._memory[update.source]
            if target.shape != source.shape or target.dtype != source.dtype or update.source in targets:
                raise VerifyError(f"plan {self.plan.name}: {update} must copy from a buffer of the same type that is "
                                  "no target itself")
            copies.append(Copy(addresses[update.target], addresses[update.source], target.nbytes))
        changes = [address(elements.changes) for elements in self.changed]
        counters = [address(self._rng) + self._rng.itemsize]
        zero, *flags = (address(self._flags) + place * self._flags.itemsize for place in range(len(self._flags)))
        return build(self.plan, self.code.addresses, addresses, after=tuple(copies), changes=changes, counters=counters,
                     flags=flags, zero=zero)

    def _input_places(self) -> list[InputPlace]:
        outside = driver().outside
        checks = {name: [check for check in self.plan.checks if check.input == name] for name in self.plan.inputs}
        for check in self.plan.checks:
            if check.input not in checks:
                raise VerifyError(f"plan {self.plan.name}: {check} names no input")
        return [InputPlace(spec, self._memory[name], checks[name], outside)
                for name, spec in zip(self.plan.inputs, self.specs, strict=True)]

    # -- made once for each combination of shapes ------------------------------------------------------------

    def _bind(self, shapes: tuple[Shape, ...]) -> _Binding:
        counts = bind_counts(self.specs, shapes, self.plan.extents)
        regions = tuple(_part(self._memory[name], shape) for name, shape in zip(self.plan.inputs, shapes, strict=True))
        results = []
        for name in self.plan.results:
            shape = tuple(evaluate(dim, counts) for dim in _dims(self.plan, self._buffers[name]))
            results.append(_part(self._memory[name], shape))
        scale = {name: count / max(self.plan.extents[name], 1) for name, count in counts.items()}
        threads = min(self.threads, int(_shared_work(self.plan.entries, scale) / _LEAST_SHARE))
        pace = Pace(threads, available_cores()) if threads > 1 else None
        binding = _Binding(np.array(list(counts.values()), np.int64), regions, tuple(results), pace)
        if len(self._bindings) >= _MAX_BINDINGS:
            self._bindings.clear()
        self._bindings[shapes] = binding
        return binding


def _shared_work(entries: Sequence[Entry], scale: Mapping[str, float]) -> float:
    """Nanoseconds of a step that threads can share, estimated; a loop that ends by a test counts as one turn."""
    work = 0.0
    for entry in entries:
        if isinstance(entry, Call):
            work += entry.shared * math.prod(scale.get(name, 1.0) for name in entry.extents)
            continue
        inner = [_shared_work(entries, scale) for entries in nested(entry)]
        if isinstance(entry, Branch):
            work += max(inner)
        else:
            work += sum(inner) * (entry.count if isinstance(entry, Loop) else 1)
    return work


def _arena(plan: Plan) -> np.ndarray:
    """The memory of inputs and intermediate values. Raises MemoryLimitError, naming the largest of them."""
    try:
        return aligned_zeros((plan.arena_bytes,), "u8")
    except MemoryLimitError as error:
        inside = (buffer for buffer in plan.buffers if buffer.in_arena)
        raise MemoryLimitError(
            f"program {plan.name!r} needs {format_bytes(plan.arena_bytes)}, which this machine does not give; its "
            f"largest values are {', '.join(largest(inside))}: make dims smaller"
        ) from error


def _part(array: np.ndarray, shape: Shape) -> np.ndarray:
    """The leading part of `array` with the given shape; `array` itself where that is all of it."""
    return array if shape == array.shape else array[tuple(slice(size) for size in shape)]


def _spec(plan: Plan, buffer: Buffer, name: str) -> InputSpec:
    return InputSpec(plan.name, name, as_dtype(buffer.dtype), buffer.shape, _dims(plan, buffer))


def _dims(plan: Plan, buffer: Buffer) -> tuple[Dim, ...]:
    """The buffer's shape with its symbols. Raises VerifyError where that is not what its capacities are made of."""
    dims = tuple(parse_dim(text) for text in buffer.dims.split(",")) if buffer.dims else buffer.shape
    unknown = {name for dim in dims for name in symbols(dim)} - set(plan.extents)
    if unknown or tuple(evaluate(dim, plan.extents) for dim in dims) != buffer.shape:
        raise VerifyError(f"plan {plan.name}: buffer {buffer} is not of shape [{buffer.dims}] at {plan.extents}")
    return dims


def _object(plan: Plan, kernel: str, objects: Mapping[str, bytes]) -> bytes:
    if kernel not in objects:
        raise VerifyError(f"plan {plan.name} calls {kernel!r}, for which there is no machine code")
    return objects[kernel]
