"""The arena: values alive together never overlap, others share memory."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from graphc.codegen.lifetimes import ALIGNMENT, assign_offsets

spans = st.tuples(st.integers(0, 12), st.integers(0, 12)).map(lambda p: (min(p), max(p)))
values = st.lists(st.tuples(st.integers(0, 5000), spans), min_size=1, max_size=25)


@given(values)
def test_values_alive_together_never_overlap(items: list[tuple[int, tuple[int, int]]]) -> None:
    sizes = {f"v{i}": size for i, (size, _) in enumerate(items)}
    lives = {f"v{i}": span for i, (_, span) in enumerate(items)}
    offsets, arena = assign_offsets(sizes, lives)
    for a in sizes:
        assert offsets[a] % ALIGNMENT == 0
        assert offsets[a] + sizes[a] <= arena
        for b in sizes:
            alive_together = lives[a][0] <= lives[b][1] and lives[b][0] <= lives[a][1]
            if a < b and alive_together:
                assert offsets[a] + max(sizes[a], 1) <= offsets[b] or offsets[b] + max(sizes[b], 1) <= offsets[a]


def test_memory_is_used_again_after_the_last_reader() -> None:
    sizes = {"a": 1024, "b": 1024, "c": 1024}
    offsets, arena = assign_offsets(sizes, {"a": (0, 1), "b": (1, 2), "c": (2, 3)})
    assert offsets["a"] == offsets["c"] != offsets["b"]
    assert arena == 2048
