"""Measuring schedules of kernels, and what operands hold meanwhile."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc import nn, tuning
from graphc.codegen.candidates import candidates
from graphc.codegen.host import host
from graphc.errors import CacheWarning, CompileError, InputError
from graphc.ir.types import f32, i32
from graphc.kernel.form import Kernel
from graphc.kernel.parser import parse_kernel
from graphc.kernel.schedule import Schedule, parse_schedule
from graphc.runtime.cache import ProgramCache
from graphc.runtime.timing import Memory
from graphc.tuning import measure, memories

PRODUCT = parse_kernel(
    "kernel product (x: f32[N,8], W: f32[8,20]+4, inout y: f32[N,20]) -> () where N <= 16 { space n < N, o < 20"
    " stage { reduce k < 8 acc: f32 = sum(x[n, k] * W[k, o]) y[n, o] = y[n, o] + acc } }"
)
LOOKUP = parse_kernel(
    "kernel lookup (E: f32[30,8], t: i32[N], u: i32[N], W: f32[8,20]) -> (y: f32[N,20]) where N <= 16 {"
    " space n < N, o < 20 stage { reduce k < 8"
    " acc: f32 = sum(E[i64(t[n]) + 2 in 0 .. 30, k] * W[k, o]) y[n, o] = acc + f32(u[n]) } }"
)


def test_every_schedule_has_its_time() -> None:
    found = [candidate.schedule for candidate in candidates(PRODUCT, host())]
    times = measure(PRODUCT, [found[0], found[1], Schedule("scalar"), found[0]], rounds=1, sample_seconds=0)
    assert len(times) == 4
    assert all(seconds > 0 for seconds in times)
    assert times[0] == times[3]  # one code, measured once


def test_operands_are_like_those_of_the_program() -> None:
    assert memories(PRODUCT) == [Memory(f32, 16 * 8), Memory(f32, 8 * 24), Memory(f32, 16 * 20, written=True)]


def test_indices_are_within_their_bounds() -> None:
    assert memories(LOOKUP)[1] == Memory(i32, 16, -2, 28)
    assert memories(LOOKUP)[2] == Memory(i32, 16, 0, 2)
    assert measure(LOOKUP, [Schedule("scalar")], rounds=1, sample_seconds=0)[0] > 0


def test_a_schedule_without_code_is_refused() -> None:
    with pytest.raises(CompileError, match="dot schedule"):
        measure(PRODUCT, [Schedule("dot", "k", (("n", 2), ("o", 2), ("k", 3)))])


# ---- deciding


class Clock:
    """A measuring function under which the last schedule takes so long, and all others 2 us."""

    def __init__(self, seconds: float = 1e-6) -> None:
        self.seconds = seconds
        self.measured: list[tuple[Kernel, list[Schedule]]] = []

    def __call__(self, kernel: Kernel, schedules: Sequence[Schedule]) -> list[float]:
        self.measured.append((kernel, list(schedules)))
        return [2e-6] * (len(schedules) - 1) + [self.seconds]

    @property
    def winner(self) -> Schedule:
        return self.measured[-1][1][-1]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Clock]:
    def use(*arguments: Any) -> Clock:
        made = Clock(*arguments)
        monkeypatch.setattr(tuning, "measure", made)
        return made

    return use


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GRAPHC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def layer(name: str = "layer", rows: int = 30, **options: Any) -> gc.Program:
    """A dense layer of 24 outputs, whose one kernel is a contraction."""
    x = gc.input(f"{name}_x", ("N", 20))
    weights = gc.param(f"{name}_W", (20, 24), init=gc.init.glorot_uniform())
    options = {"dims": {"N": rows}, "seed": 3, "tune": True, **options}
    return gc.compile([x], [gc.relu(x @ weights)], name=name, **options)


def chooses(program: gc.Program) -> Schedule:
    ((_, kernel),) = program.kernels.items()
    return parse_schedule(kernel.schedule)


ARRAY = np.random.default_rng(0).normal(size=(30, 20)).astype("f4")


def test_the_fastest_is_used_and_told(clock: Callable[..., Clock], folder: Path) -> None:
    used = clock()
    plain, tuned = layer(tune=False), layer()
    assert chooses(tuned) == used.winner != chooses(plain)
    told, summary = (remark for remark in tuned.remarks if remark.startswith("tuning: "))
    assert told == (
        f"tuning: matmul_relu takes 1 us instead of 2 us, alone on one thread, as '{chooses(tuned)}' instead of "
        f"'{chooses(plain)}'"
    )
    assert summary == "tuning: different kernels measured: 1; kernels that run in another way: 1"
    assert not any("tuning" in remark for remark in plain.remarks)
    # First some tiles, then orders of the fastest; the chooser's takes part in both.
    (_, tiles), (_, orders) = used.measured
    assert tiles[0] == orders[0] == chooses(plain)
    assert len({s.tile for s in tiles}) == len(tiles) <= 1 + tuning.MOST_TILES
    assert {s.tile for s in orders[1:]} == {tiles[-1].tile}
    assert len({s.order for s in orders[1:]}) == len(orders) - 1 > 1
    wanted = plain(ARRAY)[0]
    np.testing.assert_allclose(tuned(ARRAY)[0], wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(layer(threads=3)(ARRAY)[0], tuned(ARRAY)[0])


def test_what_is_hardly_faster_is_not_used(clock: Callable[..., Clock], folder: Path) -> None:
    clock(1.97e-6)
    found = layer()
    assert chooses(found) == chooses(layer(tune=False))
    assert [r for r in found.remarks if "tuning" in r] == [
        "tuning: different kernels measured: 1; kernels that run in another way: 0"
    ]


def test_decisions_are_remembered_for_other_programs(clock: Callable[..., Clock], folder: Path) -> None:
    clock()
    first = layer()
    again = clock()
    other = layer("other")
    assert not other.from_cache
    assert again.measured == []
    assert chooses(other) == chooses(first)
    assert any("1 us instead of 2 us" in remark for remark in other.remarks)
    np.testing.assert_array_equal(other(ARRAY)[0], layer("other")(ARRAY)[0])
    layer("larger", rows=31)
    assert again.measured  # another kernel: it has other sizes


def test_decisions_are_in_the_program_cache(clock: Callable[..., Clock], folder: Path) -> None:
    used = clock()
    first = layer()
    assert not layer(tune=False).from_cache  # the key holds the option
    found = layer()
    assert found.from_cache
    assert found.remarks == first.remarks
    assert chooses(found) == used.winner


def test_a_program_described_anew_keeps_its_schedules(clock: Callable[..., Clock], folder: Path) -> None:
    """One found in the cache that was made elsewhere is built again to show this script's lines."""
    clock()
    first = layer()
    for note in folder.glob("*.note"):
        note.unlink()
    used = clock()
    x = gc.input("layer_x", ("N", 20))
    weights = gc.param("layer_W", (20, 24), init=gc.init.glorot_uniform())
    found = gc.compile([x], [gc.relu(x @ weights)], name="layer", dims={"N": 30}, seed=3, tune=True)
    assert found.from_cache
    assert found.kernels["matmul_relu"].origins != first.kernels["matmul_relu"].origins
    assert chooses(found) == chooses(first)
    assert found.remarks == first.remarks
    assert used.measured == []


def test_nothing_is_kept_where_the_cache_is_off(
    clock: Callable[..., Clock], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAPHC_CACHE", "off")
    used = clock()
    layer()
    layer()
    assert len(used.measured) == 4
    monkeypatch.setenv("GRAPHC_CACHE", str(folder))
    layer(cache=False)
    assert len(used.measured) == 6
    assert not folder.exists()


@pytest.mark.parametrize("damage", ["cut", "changed", "foreign", "no schedule", "impossible", "of no form", "a list"])
def test_damaged_notes_are_measured_again(damage: str, clock: Callable[..., Clock], folder: Path) -> None:
    used = clock()
    layer()
    (path,) = folder.glob("*.note")
    data = path.read_bytes()
    cache, key = ProgramCache(folder), path.stem
    note = cache.load_note(key)
    assert sorted(note) == ["best", "default", "form", "seconds"]
    if damage in ("cut", "changed"):
        path.write_bytes(data[:20] if damage == "cut" else data.replace(b"seconds", b"minutes"))
    else:
        changes = {"foreign": {"form": "kernel k"}, "no schedule": {"best": "fast"}, "impossible": {"best": "dot"}}
        left = {name: told for name, told in note.items() if (name, damage) != ("form", "of no form")}
        cache.store_note(key, [note] if damage == "a list" else {**left, **changes.get(damage, {})})
    with pytest.warns(CacheWarning, match=r"note .*(measured|found out) again"):
        found = layer("other")
    assert len(used.measured) == 4
    assert chooses(found) == used.winner
    assert cache.load_note(key) == note


def test_open_sizes_are_tuned_at_the_first_call(clock: Callable[..., Clock], folder: Path) -> None:
    used = clock()
    found = layer(dims={})
    assert used.measured == []
    found(ARRAY)
    assert used.measured[0][0].capacities == {"N": 30}
    assert chooses(found) == used.winner


def test_a_users_own_schedule_is_not_tuned(clock: Callable[..., Clock], folder: Path) -> None:
    used = clock()
    assert chooses(layer(schedules={"matmul_relu": "scalar"})) == Schedule("scalar")
    assert used.measured == []


def training(**options: Any) -> gc.Program:
    """A step with contractions that matter, one that does not, and kernels that are none."""
    x, t = gc.input("x", ("N", 60)), gc.input("t", ("N",), dtype="int32")
    first = gc.param("first", (60, 80), init=gc.init.glorot_uniform())
    second = gc.param("second", (80, 80), init=gc.init.glorot_uniform())
    last = gc.param("last", (80, 1), init=gc.init.glorot_uniform())
    hidden = gc.tanh(gc.tanh(x @ first) @ second)
    loss = gc.mean(gc.sigmoid(hidden @ last)) + gc.cross_entropy(hidden, t)
    updates = {w: w - 0.1 * g for w, g in zip((first, second), gc.grad(loss, [first, second]), strict=True)}
    return gc.compile([x, t], [loss], updates=updates, dims={"N": 48}, seed=1, **options)


def test_a_tuned_step_computes_the_same(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Whatever wins: here always the last that is proposed."""
    measured = []

    def last_wins(kernel: Kernel, schedules: Sequence[Schedule]) -> list[float]:
        measured.append(kernel.name)
        return [float(len(schedules) - place) for place in range(len(schedules))]

    monkeypatch.setattr(tuning, "measure", last_wins)
    draw = np.random.default_rng(1)
    arrays = [draw.normal(size=(40, 60)).astype("f4"), draw.integers(0, 80, 40).astype("i4")]

    def losses(program: gc.Program) -> list[np.ndarray]:
        return [program(*arrays)[0] for _ in range(3)]

    plain, tuned = training(threads=1), training(tune=True, threads=1)
    wanted, found = losses(plain), losses(tuned)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    np.testing.assert_array_equal(losses(training(tune=True, threads=3)), found)
    changed = {name for name in plain.kernels if plain.kernels[name].schedule != tuned.kernels[name].schedule}
    assert len(changed) >= 3
    assert changed <= set(measured) < set(plain.kernels), "some are no contractions, or take no share of the step"
    assert sum(remark.startswith("tuning: ") for remark in tuned.remarks) == len(changed) + 1


def test_modules_are_tuned(clock: Callable[..., Clock], folder: Path) -> None:
    used = clock()
    model = nn.Sequential(nn.Linear(20, 24), nn.Tanh(), nn.Linear(24, 3))
    model.compile(loss="cross_entropy", optimizer="sgd", tune=True)
    model.fit(ARRAY, np.zeros(30, np.int64), batch_size=30, verbose=0)
    assert used.measured
    assert any(remark.startswith("tuning: ") for remark in model.program("train").remarks)


@pytest.mark.parametrize("tune", ["yes", 1, None, []])
def test_tune_is_true_or_false(tune: Any) -> None:
    message = re.escape(f"tune must be True (measure schedules of kernels) or False, got {tune!r}")
    with pytest.raises(InputError, match=message):
        layer(tune=tune)
    with pytest.raises(InputError, match=message):
        nn.Linear(2, 2).compile(loss="mse", tune=tune)


def test_the_shortlist_holds_no_two_much_the_same() -> None:
    def outer(rows: int, columns: int, vector: str = "j") -> Schedule:
        return Schedule("outer", vector, (("i", rows), (vector, columns)))

    default = outer(8, 32)
    proposed = [outer(8, 32), outer(7, 32), outer(6, 32), outer(5, 32), outer(4, 48), outer(12, 32), outer(3, 16),
                outer(24, 16), outer(8, 32, "k"), Schedule("dot", "r", (("i", 8), ("j", 4), ("r", 16)))]  # fmt: skip
    assert tuning.shortlist(proposed, default) == [
        outer(6, 32), outer(5, 32), outer(4, 48), outer(12, 32), outer(3, 16), outer(24, 16), outer(8, 32, "k"),
        proposed[-1],
    ]  # fmt: skip
    assert tuning.shortlist([outer(rows, 16) for rows in (1, 2, 3, 4, 6, 9, 12, 20)], default) == [
        outer(rows, 16) for rows in (1, 2, 3, 4, 6, 9)
    ]
    many = [Schedule("outer", f"v{k}", (("i", 8), (f"v{k}", 16))) for k in range(20)]
    assert tuning.shortlist(many, default) == many[: tuning.MOST_TILES]


def test_schedules_that_threads_share_badly_are_left_out(clock: Callable[..., Clock], folder: Path) -> None:
    """Times are those of one thread: three tiles on two threads would look as good as four."""
    kernel = parse_kernel(
        "kernel k (x: f32[48,64], W: f32[64,80]) -> (y: f32[48,80]) { space n < 48, o < 80"
        " stage { reduce k < 64 acc: f32 = sum(x[n, k] * W[k, o]) y[n, o] = acc } }"
    )
    default = Schedule("outer", "o", (("n", 8), ("o", 16)), ("n", "o"), parallel="n")
    used = clock(2e-6)
    decision = tuning.decide(kernel, default)
    assert decision is not None and decision.best == decision.default == default
    for schedule in used.measured[0][1]:
        assert schedule.parallel is not None
        tiles = -(-{"n": 48, "o": 80}[schedule.parallel] // dict(schedule.tile)[schedule.parallel])
        assert tiles % 2 == 0 or tiles >= 11
    assert tuning.decide(parse_kernel(
        "kernel k (x: f32[8]) -> (y: f32[8]) { space i < 8 stage { y[i] = exp(x[i]) } }"), Schedule()) is None
