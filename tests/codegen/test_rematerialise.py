"""Values are computed again to keep within a memory limit; a limit that cannot be met says what would do."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc import nn, optim
from graphc.errors import InputError, MemoryLimitError
from graphc.ir.buffers import format_bytes, parse_bytes

WIDTH, ROWS = 64, 32


def network(layers: int) -> tuple[list[Any], Any, dict[Any, Any]]:
    """Dense layers, each followed by a map that its weight's gradient reads: dropout of a normalised product."""
    x, t = gc.input("x", ("N", WIDTH)), gc.input("t", ("N", WIDTH))
    weights = [gc.param(f"W{k}", (WIDTH, WIDTH), init=gc.init.normal(std=0.1)) for k in range(layers)]
    y: Any = x
    for W in weights:
        z = y @ W
        scaled = (z - z.mean(axis=0)) / gc.sqrt(z.var(axis=0) + 1e-3)
        y = gc.relu(scaled) * gc.random.bernoulli(0.8, z.shape)
    loss = gc.mse_loss(y, t)
    gradients = gc.grad(loss, weights)
    return [x, t], loss, {W: W - 0.1 * g for W, g in zip(weights, gradients, strict=True)}


def arrays() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((ROWS, WIDTH)).astype("f4"), rng.standard_normal((ROWS, WIDTH)).astype("f4")


def compiled(layers: int, **options: Any) -> gc.Program:
    inputs, loss, updates = network(layers)
    return gc.compile(inputs, [loss], updates, dims={"N": ROWS}, cache=False, **options)


def repeated(program: gc.Program) -> list[str]:
    return [name for name in program.kernels if "_again" in name]


def test_values_are_computed_again_until_the_arena_fits() -> None:
    whole, (x, t) = compiled(2), arrays()
    wanted = [whole(x, t)[0] for _ in range(3)]
    assert not repeated(whole)
    least = needed(refusal(2, 1000))
    assert least < 0.9 * whole.plan.arena_bytes
    sizes = []
    for limit in ((whole.plan.arena_bytes + least) // 2, least):
        program = compiled(2, memory_limit=limit)
        sizes.append(len(repeated(program)))
        assert program.plan.arena_bytes <= limit
        np.testing.assert_array_equal([program(x, t)[0] for _ in range(3)], wanted)
    assert 0 < sizes[0] <= sizes[1]


def refusal(layers: int, limit: Any) -> MemoryLimitError:
    with pytest.raises(MemoryLimitError) as raised:
        compiled(layers, memory_limit=limit)
    return raised.value


def test_a_limit_that_cannot_be_met_names_the_largest_values_and_what_would_do() -> None:
    error = refusal(1, "1 KiB")
    assert "more than memory_limit=1024 (1 KiB); where most is alive, at " in str(error)
    assert f"f32[N,{WIDTH}] ({ROWS * WIDTH * 4 / 1024:g} KiB)" in str(error)
    assert compiled(1, memory_limit=needed(error)).plan.arena_bytes <= needed(error)
    assert needed(refusal(1, needed(error) - 64)) == needed(error)


def needed(error: MemoryLimitError) -> int:
    found = re.search(r"needs (\d+) bytes", str(error))
    assert found
    return int(found[1])


def test_an_updated_variable_is_not_read_again_after_its_update() -> None:
    """`scaled` could be computed again for the last product only from the old value of `s`."""
    x, s = gc.input("x", (256, 256)), gc.state("s", (256,), init=gc.init.normal())
    scaled = gc.exp(x * s)
    summed = scaled.sum(axis=0)
    wide = gc.tanh(x @ (x * summed))
    plain = gc.compile([x], [scaled @ wide], cache=False, memory_limit=800_000)
    assert repeated(plain) == ["exp_again"]
    with pytest.raises(MemoryLimitError, match="needs 1048576 bytes"):
        gc.compile([x], [scaled @ wide], {s: s + summed}, cache=False, memory_limit=800_000)
    s.value = np.linspace(-1, 1, 256)
    array = np.random.default_rng(0).standard_normal((256, 256)).astype("f4") / 100
    a = np.exp(array * s.value)
    np.testing.assert_allclose(plain(array)[0], a @ np.tanh(array @ (array * a.sum(0))), rtol=2e-3, atol=1e-4)


def test_the_limit_is_part_of_the_cache_and_of_modules() -> None:
    x, t = arrays()
    model = nn.Sequential(nn.Linear(WIDTH, 32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, WIDTH))
    model.compile("mse", optim.SGD(0.1), memory_limit="1 MiB")
    model.fit(x, t, epochs=1, verbose=0)
    model.compile("mse", optim.SGD(0.1), memory_limit=100)
    with pytest.raises(MemoryLimitError, match="memory_limit=100"):
        model.fit(x, t, epochs=1, verbose=0)
    with pytest.raises(InputError, match="'64 parsec' is no size in memory"):
        model.compile("mse", optim.SGD(0.1), memory_limit="64 parsec")


@pytest.mark.parametrize(
    ("text", "size"),
    [("64 MiB", 64 << 20), ("1.5GiB", 3 << 29), ("500 MB", 500_000_000), ("4096 bytes", 4096), (7, 7), (np.int64(8), 8),
     (" 2 kb ", 2000), ("3 B", 3)],
)  # fmt: skip
def test_sizes_as_text(text: Any, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("bad", [-1, 1.5, True, "64", "MiB", "64 miles", "-3 MB", None])
def test_what_is_no_size(bad: Any) -> None:
    with pytest.raises(InputError, match="is no size in memory"):
        parse_bytes(bad)


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 bytes"), (1023, "1023 bytes"), (1536, "1.5 KiB"), (5 << 40, "5 TiB")]
)
def test_sizes_are_printed_with_a_unit(size: int, text: str) -> None:
    assert format_bytes(size) == text
