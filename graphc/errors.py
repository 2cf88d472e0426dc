"""The exception types of graphc, and the warning types.

Every message names what went wrong, where (op, shapes, module path, the user's line) and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def no_attribute(module: str, name: str, known: Iterable[str], note: str = "") -> AttributeError:
    """The error for a name that a module does not have: close ones that it has, or a note."""
    public = [k for k in known if not k.startswith("_")]
    lower = {k.lower(): k for k in public}
    close = [lower[name.lower()]] if name.lower() in lower else difflib.get_close_matches(name, public, n=3, cutoff=0.7)
    hint = f"; did you mean {' or '.join(close)}?" if close else f"; {note}" if note else ""
    return AttributeError(f"module {module!r} has no attribute {name!r}{hint}")


class GraphcError(Exception):
    """Base class of every error that graphc raises on purpose."""


class ShapeError(GraphcError, ValueError):
    """Operand shapes (or axes) do not fit an op."""


class DTypeError(GraphcError, TypeError):
    """Operand dtypes do not fit an op, or a value cannot be cast safely."""


class AttributeValueError(GraphcError, ValueError):
    """An op's attribute is missing, unknown or out of range."""


class DefinitionError(GraphcError):
    """An op definition in the registry is incomplete; raised at import, naming the op and the missing part."""


class SymbolError(GraphcError, TypeError):
    """A symbol was used where Python needs a concrete value (`if x`, `float(x)`, `for v in x`)."""


class VerifyError(GraphcError):
    """A graph, a kernel or a plan breaks a rule of its grammar; the text form is part of the message."""


class ParseError(GraphcError, ValueError):
    """A textual graph or kernel cannot be parsed; the message has the line and column."""


class GradientError(GraphcError, ValueError):
    """A gradient was asked for that does not exist (non-scalar loss, unreachable parameter, non-differentiable op)."""


class AssertionFailed(GraphcError, AssertionError):
    """A condition given to `gc.assert_` was false in a call of a program; no variable has changed."""


class CompileError(GraphcError):
    """A valid graph cannot be lowered to kernels for the chosen target."""


class MemoryLimitError(GraphcError, MemoryError):
    """A program or a variable needs more memory than it may take, than the machine gives, or than can be addressed."""


class InputError(GraphcError, ValueError):
    """A call's inputs are missing, unknown, of the wrong shape or dtype, or out of range."""


class StateError(GraphcError, ValueError):
    """Parameters or state cannot be loaded, saved or updated as asked (missing or extra keys, shapes)."""


class DataError(GraphcError, ValueError):
    """A data file is damaged, truncated or of another format than its name says."""


class MissingExtraError(GraphcError, ImportError):
    """An optional dependency is needed; the message says which extra to install."""


class StepInterrupted(KeyboardInterrupt):
    """Ctrl-C stopped a step in its middle, after it had begun to write variables; they may be half updated.

    Only a step that goes on for more than a second is stopped there. In all other cases Ctrl-C raises KeyboardInterrupt
    itself, and variables are as after a whole step. `program` is its name, `step` the number of the step, from 0, and
    `variables` are the names of those that it writes: each may hold old values, new ones, or some of both.
    """

    def __init__(self, program: str, step: int, variables: tuple[str, ...]) -> None:
        self.program, self.step, self.variables = program, step, variables
        super().__init__(
            f"step {step} of program {program!r} was stopped after it had begun to write its variables: "
            f"{', '.join(variables)} may hold old values, new ones, or some of both; load or set them before you go on"
        )


class GraphcWarning(UserWarning):
    """Base class of every warning that graphc emits."""


class CacheWarning(GraphcWarning):
    """The program cache cannot be used (unwritable folder, damaged entry); the program runs all the same."""


class NumericalWarning(GraphcWarning):
    """A declaration is legal but numerically doubtful, such as a softmax fed into cross_entropy."""
