"""What a caller gives a program: shapes against capacities, safe casts into the arena, ranges of labels.

Stated casts: floats and integers and bools become floats; integers (and bools) become integers where every value
fits; bools, and integers that are 0 or 1, become bools. Floats never become integers. The layout of the given array
(order, strides, byte order, read-only) does not matter.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.errors import InputError
from graphc.ir.buffers import address
from graphc.ir.dims import Dim, evaluate, format_shape, symbols
from graphc.ir.types import DType
from graphc.kernel.plan import Check

Shape = tuple[int, ...]

_ACCEPTED_KINDS = {"f": "fiub", "i": "iub", "u": "iub", "b": "biu"}


@dataclass(frozen=True)
class InputSpec:
    """An input as the plan describes it; `capacity` is the greatest shape, `dims` the shape with its symbols."""

    program: str
    name: str
    dtype: DType
    capacity: Shape
    dims: tuple[Dim, ...]

    def __str__(self) -> str:
        sizes = [str(d) if isinstance(d, int) else f"{d}<={c}" for d, c in zip(self.dims, self.capacity, strict=True)]
        return f"{self.dtype}[{','.join(sizes)}]"

    def error(self, problem: str) -> InputError:
        """An InputError that names the program, the input and what it expects."""
        return InputError(f"program {self.program!r}: input {self.name!r} expected {self}, {problem}")


def name_error(program: str, specs: Sequence[InputSpec], given: Collection[str]) -> InputError:
    """The error for a call whose input names are not those of the program."""
    expected = [spec.name for spec in specs]
    missing = [name for name in expected if name not in given]
    problems = [f"input {name!r} is missing" for name in missing]
    for name in given:
        if name not in expected:
            close = difflib.get_close_matches(str(name), missing or expected, n=1)
            problems.append(f"{name!r} is no input of it" + (f" (did you mean {close[0]!r}?)" if close else ""))
    takes = ", ".join(f"{spec.name}: {spec}" for spec in specs) or "no inputs"
    return InputError(f"program {program!r}: {'; '.join(problems)}; it takes {takes}")


def as_array(spec: InputSpec, value: Any) -> np.ndarray:
    """Anything array-like as a plain ndarray. Raises InputError for what has no one shape, or hides elements."""
    if isinstance(value, np.ma.MaskedArray):
        raise spec.error("got a masked array, whose masked elements have no value; call .filled(...) on it")
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise spec.error(f"got {type(value).__name__}, which is no array: {error}") from error
    if array.dtype.kind == "O":
        raise spec.error(f"got {type(value).__name__}, which is no array of numbers")
    if array.size == 0 and not hasattr(value, "dtype"):
        array = array.astype(spec.dtype.numpy)  # an empty list has no dtype of its own
    return array


# ---- shapes -----------------------------------------------------------------------------------------------------


def bind_counts(specs: Sequence[InputSpec], shapes: Sequence[Shape], extents: Mapping[str, int]) -> dict[str, int]:
    """The runtime count of every symbol in `extents` (symbol -> capacity), from the shapes of a call's inputs.

    A symbol that no input has counts as its capacity. Raises InputError where shapes do not fit.
    """
    counts: dict[str, int] = {}
    source: dict[str, InputSpec] = {}
    for spec, shape in zip(specs, shapes, strict=True):
        _check_rank(spec, shape)
        for dim, size in zip(spec.dims, shape, strict=True):
            name = str(dim)
            if name not in extents:
                continue
            if counts.setdefault(name, size) != size:
                raise spec.error(f"got shape {format_shape(shape)}: {name} = {size}, but input "
                                 f"{source[name].name!r} has {name} = {counts[name]}")
            source.setdefault(name, spec)
    _solve(specs, shapes, counts)
    for spec, shape in zip(specs, shapes, strict=True):
        _check_sizes(spec, shape, counts, extents)
    return {name: counts.get(name, capacity) for name, capacity in extents.items()}


def _check_rank(spec: InputSpec, shape: Shape) -> None:
    if len(shape) != len(spec.dims):
        raise spec.error(f"got shape {format_shape(shape)} with {len(shape)} axes instead of {len(spec.dims)}")
    for axis, (dim, size) in enumerate(zip(spec.dims, shape, strict=True)):
        if isinstance(dim, int) and dim != size:
            raise spec.error(f"got shape {format_shape(shape)}: axis {axis} is {size}, not {dim}")


def _solve(specs: Sequence[InputSpec], shapes: Sequence[Shape], counts: dict[str, int]) -> None:
    """Add the symbols that only occur inside expressions such as 2*N+1, where one of them is unknown."""
    pending = [(dim, size) for spec, shape in zip(specs, shapes, strict=True)
               for dim, size in zip(spec.dims, shape, strict=True) if symbols(dim)]
    progress = True
    while progress:
        progress = False
        for dim, size in pending:
            unknown = sorted(symbols(dim) - set(counts))
            if len(unknown) == 1:
                at = [evaluate(dim, {**counts, unknown[0]: n}) for n in (0, 1, 2)]
                slope = at[1] - at[0]
                if slope and at[2] - at[1] == slope:  # else it is not linear, and another input has to tell
                    counts[unknown[0]] = max((size - at[0]) // slope, 0)  # a remainder is seen by _check_sizes
                    progress = True


def _check_sizes(spec: InputSpec, shape: Shape, counts: Mapping[str, int], extents: Mapping[str, int]) -> None:
    for axis, (dim, size) in enumerate(zip(spec.dims, shape, strict=True)):
        names = sorted(symbols(dim))
        if not names:
            continue
        got = f"got shape {format_shape(shape)}"
        sizes = {name: counts.get(name, extents[name]) for name in names}
        for name, count in sizes.items():
            if count > extents[name]:
                raise spec.error(f"{got}: {name} = {count} is more than the capacity {extents[name]}; compile with "
                                 f"dims={{{name!r}: {count}}} or pass fewer at a time")
        if (expected := evaluate(dim, sizes)) != size:
            known = ", ".join(f"{name} = {count}" for name, count in sizes.items())
            raise spec.error(f"{got}: axis {axis} is {size}, but {dim} is {expected} with {known}")


# ---- values -----------------------------------------------------------------------------------------------------


class InputPlace:
    """Where an input's values go at every call: `array` is its part of the arena, at its capacity.

    `plain` is the dtype whose values need no cast and no check, or None.
    """

    def __init__(self, spec: InputSpec, array: np.ndarray, checks: Sequence[Check],
                 outside: Mapping[str, Callable[..., int]]) -> None:
        self.spec, self.array, self.checks = spec, array, tuple(checks)
        self.plain = None if self.checks else array.dtype
        self._outside = outside
        self._address = address(array)
        self._scan_own = outside.get(spec.dtype.name)
        self._staging, self._staging_address = np.empty(0, np.int64), 0
        self.lower, self.upper = _limits(spec.dtype)
        for check in self.checks:
            self.lower, self.upper = max(self.lower, check.lower), min(self.upper, check.upper)

    def fill(self, values: np.ndarray, region: np.ndarray) -> None:
        """Cast `values` into `region` (the part of `array` of their shape). Raises InputError for a dtype or value
        that does not fit; kernels have not run then."""
        if values.dtype.kind not in _ACCEPTED_KINDS[self.spec.dtype.kind]:
            raise self._dtype_error(values)
        safe = values.dtype == region.dtype or self.spec.dtype.is_float
        if safe and not self.checks:
            region[...] = values
        elif safe and self._scan_own is not None and region.flags.c_contiguous:
            region[...] = values
            self._require(self._scan_own(self._address, region.size, self.lower, self.upper), values)
        else:
            self._fill_checked(values, region)

    def _fill_checked(self, values: np.ndarray, region: np.ndarray) -> None:
        """By way of int64, which is looked through before the narrowing cast."""
        size = values.size
        if values.dtype.kind == "u" and size and int(values.max()) >= 2**63:
            self._require(int(values.argmax()), values)
        if self._staging.size < size:
            self._staging = np.empty(self.array.size, np.int64)
            self._staging_address = address(self._staging)
        wide = self._staging[:size].reshape(values.shape)
        wide[...] = values
        self._require(self._outside["i64"](self._staging_address, size, self.lower, self.upper), values)
        region[...] = wide

    def _require(self, outside: int, values: np.ndarray) -> None:
        if outside < 0:
            return
        index = tuple(int(i) for i in np.unravel_index(outside, values.shape))
        value = int(values[index])
        where = f"got the value {value}" + (f" at index {list(index)}" if index else "")
        for check in self.checks:
            if not check.lower <= value < check.upper:
                origin = f" (needed by {check.origin})" if check.origin else ""
                allowed = f"{check.lower} <= {self.spec.name} < {check.upper}"
                raise self.spec.error(f"{where}, outside {allowed}{origin}; nothing was run")
        raise self.spec.error(f"{where}, which {self.spec.dtype.name} cannot hold")

    def _dtype_error(self, values: np.ndarray) -> InputError:
        advice = f"convert it with .astype(numpy.{self.spec.dtype.numpy.type.__name__})"
        if values.dtype.kind == "f":
            advice = f"floats are not cut to {self.spec.dtype.name} for you: {advice}, after rounding, if that is meant"
        return self.spec.error(f"got dtype {values.dtype}; {advice}")


def _limits(dtype: DType) -> tuple[int, int]:
    """lower <= value < upper of an integer dtype, within int64 (whose greatest value is only kept by dtype i64)."""
    if dtype.kind == "b":
        return 0, 2
    if dtype.is_float:
        return 0, 0
    info = np.iinfo(dtype.numpy)
    return int(info.min), min(int(info.max) + 1, 2**63 - 1)
