"""Array functions against PyTorch's of the same meaning: values and gradients, ties, zeros and other edge cases."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc as gc

torch = pytest.importorskip("torch")

INF, NAN = np.inf, np.nan
GRID = np.sin(np.arange(24.0) * 1.7).reshape(2, 3, 4) + 0.3
TIES = np.array([[2.0, 2.0, 1.0, 2.0], [-1.0, -3.0, -3.0, -1.0], [0.0, 0.0, 0.0, 0.0]])
ZEROS = np.array([[2.0, 0.0, 1.5], [0.0, 3.0, 0.0], [1.0, -2.0, 0.5]])
SQUARE = np.cos(np.arange(16.0)).reshape(4, 4)
VECTOR = np.sin(np.arange(5.0)) + 0.1
TABLE = np.cos(np.arange(15.0)).reshape(5, 3)
TOKENS = np.array([[4, 0, 4], [1, 4, 2]])
F = torch.nn.functional
Case = tuple[str, tuple[Any, ...], Callable[..., Any], Callable[..., Any]]

REDUCTIONS: list[Case] = [
    ("prod", (GRID,), lambda x: gc.prod(x, 1), lambda x: x.prod(1)),
    ("prod of zeros", (ZEROS,), lambda x: gc.prod(x, 1), lambda x: x.prod(1)),
    ("prod of all", (GRID[0],), gc.prod, torch.prod),
    ("var", (GRID,), lambda x: gc.var(x, (0, 2)), lambda x: x.var((0, 2))),
    ("var, population", (GRID,), lambda x: gc.var(x, 1, correction=0), lambda x: x.var(1, correction=0)),
    ("std", (GRID,), lambda x: gc.std(x, -1, keepdims=True), lambda x: x.std(-1, keepdim=True)),
    ("std of equal elements", (TIES,), lambda x: gc.std(x, 1), lambda x: x.std(1)),
    ("var of all", (GRID,), gc.var, torch.var),
    ("norm", (GRID,), lambda x: gc.norm(x, axis=2), lambda x: torch.linalg.vector_norm(x, dim=2)),
    ("norm of zeros", (np.zeros(3),), gc.norm, torch.linalg.vector_norm),
    ("norm 1", (ZEROS,), lambda x: gc.norm(x, 1, 1), lambda x: torch.linalg.vector_norm(x, 1, 1)),
    ("norm 3", (ZEROS,), lambda x: gc.norm(x, 3, 1), lambda x: torch.linalg.vector_norm(x, 3, 1)),
    ("norm 3 of zeros", (np.zeros(3),), lambda x: gc.norm(x, 3), lambda x: torch.linalg.vector_norm(x, 3)),
    ("norm inf", (TIES,), lambda x: gc.norm(x, INF, 1), lambda x: torch.linalg.vector_norm(x, INF, 1)),
    ("norm -inf", (TIES,), lambda x: gc.norm(x, -INF, 1), lambda x: torch.linalg.vector_norm(x, -INF, 1)),
    ("logsumexp", (GRID,), lambda x: gc.logsumexp(x, (0, 1)), lambda x: x.logsumexp((0, 1))),
    ("logsumexp, large", (1e4 * GRID,), gc.logsumexp, lambda x: x.logsumexp(-1)),
    ("logsumexp, -inf", (np.array([[-INF, 1.0]]),), gc.logsumexp, lambda x: x.logsumexp(-1)),
    ("amax, ties", (TIES,), lambda x: gc.amax(x, 1), lambda x: x.amax(1)),
    ("amin, ties", (TIES,), lambda x: gc.amin(x, (0, 1)), lambda x: x.amin((0, 1))),
    ("amax, NaN", (np.array([[1.0, NAN, 2.0], [1.0, 2.0, 2.0]]),), lambda x: gc.amax(x, 1), lambda x: x.amax(1)),
    ("amin, NaN", (np.array([[1.0, NAN, 2.0], [1.0, 1.0, 2.0]]),), lambda x: gc.amin(x, 1), lambda x: x.amin(1)),
    ("max, NaN", (np.array([[1.0, NAN, NAN]]),), lambda x: gc.max(x, 1), lambda x: x.max(1).values),
    ("log_softmax, infinite", (np.array([[INF, 0.0, 1.0], [-INF, 0.0, 1.0], [-INF, -INF, -INF]]),),
     lambda x: gc.log_softmax(x, 1), lambda x: x.log_softmax(1)),
    ("max along an axis, ties", (TIES,), lambda x: gc.max(x, 1), lambda x: x.max(1).values),
    ("min along an axis, ties", (TIES,), lambda x: gc.min(x, 0), lambda x: x.min(0).values),
    ("max of all, ties", (TIES,), gc.max, torch.max),
    ("method max, ties", (TIES,), lambda x: x.max(1, keepdims=True), lambda x: x.max(1, keepdim=True).values),
    ("cumsum", (GRID,), lambda x: gc.cumsum(x, 1), lambda x: x.cumsum(1)),
    ("cumsum, reversed", (GRID,), lambda x: gc.cumsum(x, 1, reverse=True), lambda x: x.flip(1).cumsum(1).flip(1)),
    ("cumprod", (GRID,), lambda x: gc.cumprod(x, 2), lambda x: x.cumprod(2)),
    ("cumprod of zeros", (ZEROS,), lambda x: gc.cumprod(x, 1), lambda x: x.cumprod(1)),
]
VIEWS: list[Case] = [
    ("expand_dims", (GRID,), lambda x: gc.expand_dims(x, (0, -1)), lambda x: x[None, ..., None]),
    ("squeeze", (GRID[:1],), gc.squeeze, torch.squeeze),
    ("concatenate", (GRID, GRID[:, :1]), lambda a, b: gc.concatenate([a, b, a], 1),
     lambda a, b: torch.cat([a, b, a], 1)),
    ("stack", (GRID, GRID + 1), lambda a, b: gc.stack([a, b], -1), lambda a, b: torch.stack([a, b], -1)),
    ("split", (GRID,), lambda x: gc.split(x, 2, 2)[1], lambda x: x.tensor_split(2, 2)[1]),
    ("split at", (GRID,), lambda x: gc.split(x, [1, 3], 2)[1], lambda x: x.tensor_split([1, 3], 2)[1]),
    ("slice", (GRID,), lambda x: x[:, 1:, ::2], lambda x: x[:, 1:, ::2]),
    ("slice backwards", (GRID,), lambda x: x[::-1, ::-2], lambda x: x.flip((0, 1))[:, ::2]),
    ("flip", (GRID,), lambda x: gc.flip(x, (0, 2)), lambda x: x.flip((0, 2))),
    ("roll", (GRID,), lambda x: gc.roll(x, (1, -6), (0, 2)), lambda x: x.roll((1, -6), (0, 2))),
    ("roll, flattened", (GRID,), lambda x: gc.roll(x, 5), lambda x: x.roll(5)),
    ("pad", (GRID,), lambda x: gc.pad(x, ((0, 0), (1, 2), (3, 0))), lambda x: F.pad(x, (3, 0, 1, 2))),
    ("pad, cut", (GRID,), lambda x: gc.pad(x, ((0, 0), (-1, 2), (0, -1))), lambda x: F.pad(x, (0, -1, -1, 2))),
    ("pad, value", (GRID,), lambda x: gc.pad(x, 1, constant_values=7), lambda x: F.pad(x, (1,) * 6, value=7.0)),
    ("pad, reflect", (GRID,), lambda x: gc.pad(x, ((0, 0), (0, 0), (3, 1)), "reflect"),
     lambda x: F.pad(x, (3, 1), mode="reflect")),
    ("pad, edge", (GRID,), lambda x: gc.pad(x, ((0, 0), (0, 0), (3, 1)), "edge"),
     lambda x: F.pad(x, (3, 1), mode="replicate")),
    ("pad, wrap", (GRID,), lambda x: gc.pad(x, ((0, 0), (0, 0), (3, 1)), "wrap"),
     lambda x: F.pad(x, (3, 1), mode="circular")),
    ("tile", (GRID,), lambda x: gc.tile(x, (2, 1, 1, 3)), lambda x: x.tile((2, 1, 1, 3))),
    ("repeat", (GRID,), lambda x: gc.repeat(x, 3, 1), lambda x: x.repeat_interleave(3, 1)),
    ("tril", (GRID,), lambda x: gc.tril(x, -1), lambda x: x.tril(-1)),
    ("triu", (GRID,), lambda x: gc.triu(x, 1), lambda x: x.triu(1)),
    ("swapaxes", (GRID,), lambda x: gc.swapaxes(x, 0, -1), lambda x: x.swapaxes(0, -1)),
    ("moveaxis", (GRID,), lambda x: gc.moveaxis(x, 0, -1), lambda x: x.moveaxis(0, -1)),
    ("diagonal", (GRID,), lambda x: gc.diagonal(x, 1, 1, 2), lambda x: x.diagonal(1, 1, 2)),
    ("diagonal below", (SQUARE,), lambda x: gc.diagonal(x, -2), lambda x: x.diagonal(-2)),
    ("trace", (SQUARE,), gc.trace, torch.trace),
]  # fmt: skip
PICKS: list[Case] = [
    ("index", (GRID,), lambda x: x[1:, :, [3, 0, 3]], lambda x: x[1:, :, [3, 0, 3]]),
    ("two index arrays", (GRID,), lambda x: x[:, [0, 2], [[1], [3]]], lambda x: x[:, [0, 2], torch.tensor([[1], [3]])]),
    ("take, an embedding", (TABLE,), lambda x: gc.take(x, TOKENS, 0), lambda x: F.embedding(torch.tensor(TOKENS), x)),
    ("take, flattened", (TABLE,), lambda x: gc.take(x, TOKENS), lambda x: x.take(torch.tensor(TOKENS))),
    ("take_along_axis", (TABLE,), lambda x: gc.take_along_axis(x, TOKENS[:, [0, 1, 0]], 0),
     lambda x: x.gather(0, torch.tensor(TOKENS[:, [0, 1, 0]]))),
    ("scatter_add", (TABLE, TABLE[:3]), lambda x, u: gc.scatter_add(x, np.array([4, 0, 4]), u),
     lambda x, u: x.index_add(0, torch.tensor([4, 0, 4]), u)),
    ("sort", (GRID,), lambda x: gc.sort(x, 1), lambda x: x.sort(1).values),
    ("sort, ties", (TIES,), lambda x: gc.sort(x, 1, descending=True),
     lambda x: x.sort(dim=1, descending=True, stable=True).values),
    ("topk", (GRID,), lambda x: gc.topk(x, 2, 2)[0], lambda x: x.topk(2, 2).values),
    ("topk, smallest", (GRID,), lambda x: gc.topk(x, 2, 1, largest=False)[0], lambda x: x.topk(2, 1, False).values),
]  # fmt: skip
PRODUCTS: list[Case] = [
    ("einsum matmul", (GRID, GRID), lambda a, b: gc.einsum("bij,bkj->bik", a, b),
     lambda a, b: torch.einsum("bij,bkj->bik", a, b)),
    ("einsum of three", (SQUARE, SQUARE + 1, VECTOR[:4]), lambda a, b, c: gc.einsum("ij,jk,k->i", a, b, c),
     lambda a, b, c: torch.einsum("ij,jk,k->i", a, b, c)),
    ("einsum with dots", (GRID, TABLE[:4]), lambda a, b: gc.einsum("...j,jk->k...", a, b),
     lambda a, b: torch.einsum("...j,jk->k...", a, b)),
    ("einsum diagonal", (SQUARE,), lambda a: gc.einsum("ii->i", a), lambda a: torch.einsum("ii->i", a)),
    ("einsum trace", (SQUARE,), lambda a: gc.einsum("ii", a), lambda a: torch.einsum("ii", a)),
    ("einsum sum", (GRID, VECTOR), lambda a, b: gc.einsum("ijk,l->kl", a, b),
     lambda a, b: torch.einsum("ijk,l->kl", a, b)),
    ("einsum bilinear", (VECTOR[:4], SQUARE, VECTOR[:4]), lambda a, b, c: gc.einsum("i,ij,j", a, b, c),
     lambda a, b, c: torch.einsum("i,ij,j", a, b, c)),
    ("batched matmul, broadcast", (GRID[:, None], SQUARE), lambda a, b: a @ b, lambda a, b: a @ b),
    ("batched matmul, outer batch", (GRID[:, None], GRID[None]), lambda a, b: gc.matmul(a, b, transpose_b=True),
     lambda a, b: a @ b.mT),
    ("dot", (VECTOR, VECTOR + 1), gc.dot, torch.dot),
    ("outer", (VECTOR, VECTOR[:3]), gc.outer, torch.outer),
    ("tensordot", (GRID, GRID + 1), lambda a, b: gc.tensordot(a, b, ((0, 2), (0, 2))),
     lambda a, b: torch.tensordot(a, b, dims=((0, 2), (0, 2)))),
]  # fmt: skip
CASES = [*REDUCTIONS, *VIEWS, *PICKS, *PRODUCTS]


@pytest.mark.parametrize(("arrays", "mine", "theirs"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_value_and_gradient(arrays, mine, theirs, compute, torch_calls) -> None:
    symbols = [gc.input(f"x{k}", a.shape, "float64") for k, a in enumerate(arrays)]
    y = mine(*symbols)
    weights = np.arange(1.0, int(np.prod(y.shape)) + 1).reshape(y.shape)
    slopes = gc.grad(gc.sum(y * weights), symbols)
    value, *found = compute([y, *slopes], dict(zip(symbols, arrays, strict=True)))

    operands = [torch.tensor(a, requires_grad=True) for a in arrays]
    with torch_calls():
        expected = theirs(*operands)
    expected.backward(torch.tensor(weights))
    np.testing.assert_allclose(value, expected.detach().numpy(), rtol=1e-12, atol=1e-14)
    for slope, operand in zip(found, operands, strict=True):
        np.testing.assert_allclose(slope, operand.grad.numpy(), rtol=1e-10, atol=1e-12)


INTEGERS: list[tuple[np.ndarray, Callable[..., Any], Callable[..., Any]]] = [
    (TIES, lambda x: gc.argmin(x, 1), lambda x: x.argmin(1)),
    (TIES, lambda x: gc.argmax(x, 1, keepdims=True), lambda x: x.argmax(1, keepdim=True)),
    (np.array([1.0, NAN, 0.0]), gc.argmin, torch.argmin),
    (TIES, lambda x: gc.argsort(x, 1), lambda x: x.argsort(dim=1, stable=True)),
    (np.array([1.0, NAN, -INF, INF, NAN]), gc.argsort, lambda x: x.argsort(stable=True)),
    (np.array([1.0, NAN, -INF, INF, NAN]), lambda x: gc.argsort(x, descending=True),
     lambda x: x.sort(descending=True, stable=True).indices),
    (GRID, lambda x: gc.topk(x, 3, 2)[1], lambda x: x.topk(3, 2).indices),
    (TIES, lambda x: gc.any(x, 1), lambda x: x.any(1)),
    (TIES, lambda x: gc.all(x > -2, 0), lambda x: (x > -2).all(0)),
    (np.array([0.5, 1.0, 5.0, 1.5, NAN]), lambda x: gc.searchsorted(np.array([1.0, 1.0, 2.0]), x),
     lambda x: torch.searchsorted(torch.tensor([1.0, 1.0, 2.0], dtype=torch.float64), x)),
    (np.array([0.5, 1.0, 5.0, 1.5, NAN]), lambda x: gc.searchsorted(np.array([1.0, 1.0, 2.0]), x, side="right"),
     lambda x: torch.searchsorted(torch.tensor([1.0, 1.0, 2.0], dtype=torch.float64), x, right=True)),
    (TIES, lambda x: gc.norm(x, 0, 1).astype("int64"), lambda x: torch.linalg.vector_norm(x, 0, 1).long()),
]  # fmt: skip


@pytest.mark.parametrize(("array", "mine", "theirs"), INTEGERS)
def test_indices_counts_and_truths(array, mine, theirs, compute, torch_calls) -> None:
    x = gc.input("x", array.shape, "float64")
    (found,) = compute([mine(x)], {x: array})
    with torch_calls():
        expected = theirs(torch.tensor(array)).numpy()
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == expected.dtype


def test_how_many_functions(torch_calls) -> None:
    """Distinct functions and methods of PyTorch, not cases; the elementwise ones are in tests/ops."""
    with torch_calls() as names:
        for _, arrays, _, theirs in CASES:
            theirs(*(torch.tensor(a) for a in arrays))
        for array, _, theirs in INTEGERS:
            theirs(torch.tensor(array))
    assert len(names) >= 45, sorted(names)
