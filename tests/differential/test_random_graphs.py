"""Random typed graphs of the whole registry: compiled programs against the float64 interpreter, by seed.

`python -m tests.differential SEED` in a checkout draws, checks and shrinks the graph of one seed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from graphc.ir.graph import Graph
from graphc.passes.canonicalise import RULES as CANONICALISE_RULES
from graphc.passes.canonicalise import Canonicalise
from graphc.passes.manager import run
from graphc.passes.pipeline import REQUIRED, default_pipeline
from graphc.passes.rewrite import Rule
from graphc.passes.stability import RULES as STABILITY_RULES
from graphc.passes.stability import Stability

from .check import check, check_graph
from .generator import draw
from .shrinker import shrink

SEEDS = range(40)
SLOW_SEEDS = range(1000, 1500)
ONCE_FAILED = (881, 1041, 51496)  # estimates of layouts, and copies of padded values in other layouts
SWITCHED_SEEDS = range(40, 45)
OPTIONAL = sorted({step.name for step in default_pipeline({})} - set(REQUIRED))
RULE_SEEDS, LEAST_RULE_SEEDS = range(30), 2


def reported(seed: int, without: Sequence[str] = ()) -> None:
    """Check the graph of a seed; a failure is shown as small as it can be made, and how to see it again."""
    case = draw(seed)
    failure = check(case, without)
    if failure is None:
        return
    smallest = shrink(case, lambda smaller: check(smaller, without))
    flags = f" --without {','.join(without)}" if without else ""
    again = f"python -m tests.differential {seed}{flags}"
    pytest.fail(f"seed {seed}: {failure}\n\nsmallest:\n{smallest}\n{check(smallest, without)}\n\nagain: {again}")


@pytest.mark.parametrize("seed", SEEDS)
def test_compiled_equals_interpreted(seed: int, tally: Callable[[str, int], None]) -> None:
    reported(seed)
    tally("random graphs compiled and compared with the interpreter", seed)


@pytest.mark.parametrize("seed", ONCE_FAILED)
def test_what_once_failed(seed: int) -> None:
    reported(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", SLOW_SEEDS)
def test_compiled_equals_interpreted_for_many(seed: int) -> None:
    reported(seed)


@pytest.mark.parametrize("name", OPTIONAL)
def test_each_pass_switched_off(name: str) -> None:
    """No pass relies on another one for correctness, but for those that cannot be left out."""
    for seed in SWITCHED_SEEDS:
        reported(seed, without=[name])


def test_all_optional_passes_switched_off() -> None:
    for seed in SWITCHED_SEEDS:
        reported(seed, without=OPTIONAL)


RULES = (*CANONICALISE_RULES, *STABILITY_RULES)


def rewriting(without: frozenset[str], fired: set[str]) -> Callable[[Graph], Graph]:
    """The default passes but for some rules; the names of the rules that applied are added to `fired`."""
    changed = {"canonicalise": Canonicalise(without), "stability": Stability(without)}
    passes = [changed.get(step.name, step) for step in default_pipeline({})]

    def rewritten(graph: Graph) -> Graph:
        after, stages = run(graph, passes, verify=True)
        fired.update(rewrite.rule for stage in stages for rewrite in stage.rewrites)
        return after

    return rewritten


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_each_rule_in_graphs_that_hold_its_pattern(rule: Rule) -> None:
    """With the rule and without it, passes change no value and no gradient, whatever the pattern stands beside."""
    fired: set[str] = set()
    left_out: set[str] = set()
    for seed in RULE_SEEDS:
        if seed >= LEAST_RULE_SEEDS and rule.name in fired:
            break
        case = draw(seed, holding=rule)
        for without, names in ((frozenset[str](), fired), (frozenset({rule.name}), left_out)):
            failure = check_graph(case, rewriting(without, names))
            assert failure is None, f"seed {seed}, without {set(without)}: {failure}\n\n{case}"
    assert rule.name not in left_out
    if rule.name not in fired:
        pytest.skip(f"{rule.name} applied in no graph: its condition asks for more than `idioms` makes of its pattern")
