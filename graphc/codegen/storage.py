"""Where values live: their own memory, that of another value, or a place in it that moves with a loop.

Every value of a program has a name. A name stands for
    the same value as another one   `base`: a view, or an input of a loop's body that is a value of the graph around
    a place in another's memory     `places`: a slice of a sequence, a row of a stack, a result of a branch
    what overwrites another value   `written`: an update in place
    memory of its own               none of these: scratch, or a leaf of the program
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from graphc.codegen.lower import Names
from graphc.ir.dims import evaluate
from graphc.ir.graph import Value
from graphc.ir.types import TensorType
from graphc.kernel.layout import Layout

if TYPE_CHECKING:
    from graphc.codegen.regions import Region


@dataclass(frozen=True)
class Place:
    """`start` bytes into the memory of `owner`, and `stride` bytes further in each turn of `loop`."""

    owner: str
    start: int = 0
    loop: str = ""
    stride: int = 0


@dataclass(frozen=True)
class Spot:
    """A place in memory that belongs to no other value; `strides` are bytes a turn, by loop."""

    owner: str
    start: int
    strides: Mapping[str, int]


class Storage:
    """The values of a program by name, and where each of them lives."""

    def __init__(self, names: Names, capacities: Mapping[str, int]) -> None:
        self.names, self.capacities = names, capacities
        self.values: dict[str, Value] = {}
        self.base: dict[str, str] = {}
        self.places: dict[str, Place] = {}
        self.written: dict[str, str] = {}  # new value -> the value that it overwrites
        self.home: dict[str, Region] = {}  # value -> the region whose items write it; not for leaves
        self.constants: dict[str, Value] = {}
        self.layouts: dict[str, Layout] = {}  # of values that are not row-major

    def add(self, wanted: str, type_: TensorType) -> str:
        """The name of a new value that is in no graph."""
        name = self.names.unique(wanted)
        self.values[name] = Value(type_, name=name)
        return name

    def nbytes(self, name: str) -> int:
        """Bytes of a value at the capacities of its dimensions, the padding of its rows counted."""
        type_ = self.values[name].type
        if name in self.layouts:
            shape = [evaluate(dim, self.capacities) for dim in type_.shape]
            return self.layouts[name].nbytes(shape, type_.dtype.itemsize)
        return self.nbytes_of(type_)

    def nbytes_of(self, type_: TensorType) -> int:
        """Bytes of a tensor at the capacities of its dimensions."""
        return evaluate(type_.nbytes, self.capacities)

    def value(self, name: str) -> str:
        """The value that `name` is, under the name by which it is made."""
        while name in self.base:
            name = self.base[name]
        return name

    def spot(self, name: str) -> Spot:
        """Where the value is."""
        name, start, strides = self.value(name), 0, dict[str, int]()
        while True:
            if name in self.written:
                name = self.value(self.written[name])
            elif name in self.places:
                place = self.places[name]
                start += place.start
                if place.stride:
                    strides[place.loop] = strides.get(place.loop, 0) + place.stride
                name = self.value(place.owner)
            else:
                return Spot(name, start, strides)

    def owner(self, name: str) -> str:
        """The name of the value whose memory `name` lies in."""
        return self.spot(name).owner

    def sharing(self, name: str) -> set[str]:
        """The names of all values in the memory that `name` lies in."""
        owner = self.owner(name)
        return {other for other in self.values if self.owner(other) == owner}

    def scratch(self, name: str, region: Region) -> str | None:
        """The owner of the value's memory if that holds nothing else and items of `region` write it, else None.

        Such memory can be laid where it is wanted.
        """
        spot = self.spot(name)
        whole = not spot.start and not spot.strides and self.nbytes(spot.owner) == self.nbytes(name)
        return spot.owner if whole and self.home.get(spot.owner) is region else None
