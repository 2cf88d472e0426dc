"""Optimisers by name, and the call styles of other libraries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from graphc import nn, optim
from graphc.errors import AttributeValueError
from graphc.optim.named import find_optimizer


def test_names_make_optimisers_with_default_settings() -> None:
    for name, kind in optim.OPTIMIZERS.items():
        made = find_optimizer(name.upper())
        assert type(made) is kind and made.lr == kind().lr
        assert getattr(optim, kind.__name__) is kind
    own = optim.SGD(0.25)
    assert find_optimizer(own) is own


@pytest.mark.parametrize(
    ("wrong", "message"),
    [("adamax", r"a name \(adam, sgd"), (optim.Adam, r"the class Adam; make one: optim.Adam\(\)"), (0.1, "got 0.1")],
)
def test_what_is_no_optimiser_is_refused(wrong: Any, message: str) -> None:
    with pytest.raises(AttributeValueError, match=message):
        find_optimizer(wrong)


@pytest.mark.parametrize(
    "make",
    [
        lambda p: optim.Adam(p),
        lambda p: optim.SGD(p, lr=0.1),
        lambda p: optim.SGD(p, 0.1, 0.9),
        lambda p: optim.Adam(params=p, lr=0.1),
        lambda p: optim.Adam(iter(p)),
    ],
)
def test_parameters_are_not_given_to_an_optimiser(make: Callable[[Any], Any]) -> None:
    with pytest.raises(AttributeValueError, match=r"takes no parameters.*optimizer=optim.\w+\(lr\).*updates\(loss"):
        make(nn.Linear(2, 3).parameters())


def test_numbers_of_any_kind_are_learning_rates() -> None:
    for rate in (1, 0.5, np.float32(0.5), np.array(0.5)):
        assert optim.SGD(rate).lr == float(rate)
    with pytest.raises(AttributeValueError, match="lr must be a finite number"):
        optim.SGD("0.1")
