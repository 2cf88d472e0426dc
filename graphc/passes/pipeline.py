"""The whole order of passes, on one screen."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from graphc.errors import CompileError
from graphc.passes.algebra import Algebra
from graphc.passes.bind import Bind
from graphc.passes.canonicalise import Canonicalise
from graphc.passes.combine import Combine
from graphc.passes.cse import CSE
from graphc.passes.dce import DCE
from graphc.passes.differentiate import Differentiate
from graphc.passes.everywhere import Everywhere
from graphc.passes.fold import Fold
from graphc.passes.fuse import Fuse
from graphc.passes.hoist import Hoist
from graphc.passes.loops import Loops
from graphc.passes.manager import Pass
from graphc.passes.stability import Stability
from graphc.passes.winners import Winners

REQUIRED = ("differentiate", "bind", "fuse")  # what comes after the pipeline relies on them


def default_pipeline(sizes: Mapping[str, int], without: Collection[str] = ()) -> tuple[Pass, ...]:
    """The passes from the declared graph to the graph that is lowered to kernels.

    `sizes` binds dimension symbols; symbols that it does not name stay runtime counts. `without` switches passes
    off by name, wherever they stand. Raises CompileError for a name that is no pass or one that is needed.
    """
    passes: tuple[Pass, ...] = (
        Everywhere(Stability()),  # before differentiation: gradients of stable expressions are stable
        Everywhere(Hoist()),  # before it too: gradients of what is outside of loops are outside too
        Everywhere(Algebra()),
        Differentiate(),
        Bind(tuple(sorted(sizes.items()))),
        Everywhere(Loops()),  # before other rules make loops of one origin look different
        Everywhere(Canonicalise()),
        Everywhere(Stability()),  # what became visible by canonicalising, and what gradients added
        Everywhere(Fold()),
        Everywhere(Canonicalise()),  # what folding made neutral; removes stop_gradient
        Everywhere(Winners()),  # gradients below a max pooling
        Everywhere(CSE()),
        Everywhere(Hoist(layouts=True)),  # sums that gradients carry through loops
        Everywhere(Canonicalise()),
        Everywhere(Fuse()),  # each node left is one kernel, a view or an array constant
        Everywhere(Combine()),  # kernels that share work become one
        DCE(),  # outputs of fusions that nothing reads
    )
    known = {step.name for step in passes}
    for name in without:
        if name not in known or name in REQUIRED:
            problem = "cannot be left out" if name in REQUIRED else "is no pass"
            optional = ", ".join(sorted(known - set(REQUIRED)))
            raise CompileError(f"without={name!r}: {name!r} {problem}; passes that can be left out: {optional}")
    return tuple(step for step in passes if step.name not in without)
