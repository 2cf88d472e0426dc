"""Where threads meet, for entries whose reads and writes their names tell."""

from __future__ import annotations

from collections.abc import Sequence

from graphc.codegen.barriers import FIRST_THREAD, Touch, place_barriers
from graphc.kernel.plan import Barrier, Branch, Call, Entry, Loop, While
from graphc.kernel.plan_text import _entries


class Named:
    """A call named `ab>c` reads a and b, and writes c; shared calls may touch all of it from any thread."""

    def of_call(self, call: Call, loops: Sequence[Loop]) -> list[Touch]:
        reads, writes = call.kernel.split(">")
        part = None if call.shared else FIRST_THREAD
        return [Touch(name, 0, 8, False, part) for name in reads] + [Touch(name, 0, 8, True, part) for name in writes]

    def of_predicate(self, name: str, loops: Sequence[Loop]) -> list[Touch]:
        return [Touch(name, 0, 8, False, None)]


def shared(name: str) -> Call:
    return Call(name, (), shared=1)


def alone(name: str) -> Call:
    return Call(name, ())


def text(*entries: Entry) -> list[str]:
    """The plan's table with barriers, without the calls' brackets."""
    placed, _ = place_barriers(entries, Named())
    return [line.replace("()", "").replace(" shared", "") for line in _entries(placed)]


def test_what_one_call_writes_and_another_touches_is_parted() -> None:
    assert text(shared("a>b"), shared("b>c")) == ["a>b", "barrier", "b>c"]  # read after write
    assert text(shared("a>b"), shared("c>a")) == ["a>b", "barrier", "c>a"]  # write after read
    assert text(shared("a>b"), shared("c>b")) == ["a>b", "barrier", "c>b"]  # write after write
    assert text(shared("a>b"), shared("a>c")) == ["a>b", "a>c"]


def test_thread_0_needs_no_barrier_with_itself() -> None:
    assert text(alone("a>b"), alone("b>c"), alone("c>a")) == ["a>b", "b>c", "c>a"]
    assert text(shared("a>b"), alone("b>c"), alone("c>d"), shared("d>e")) == [
        "a>b", "barrier", "b>c", "c>d", "barrier", "d>e"]  # fmt: skip


def test_one_barrier_serves_all_that_came_before() -> None:
    assert text(shared("a>b"), shared("a>c"), shared("b>d"), shared("c>e"), shared("d>f")) == [
        "a>b", "a>c", "barrier", "b>d", "c>e", "barrier", "d>f"]  # fmt: skip


def test_barriers_that_are_there_count() -> None:
    assert text(shared("a>b"), Barrier(), shared("b>c")) == ["a>b", "barrier", "b>c"]


def test_a_loops_turns_are_parted() -> None:
    assert text(Loop("t", 3, (shared("a>b"), shared("b>c"))), shared("c>d")) == [
        "loop t < 3 {", "  barrier", "  a>b", "  barrier", "  b>c", "}", "barrier", "c>d"]  # fmt: skip
    # Nothing of a turn is touched by the next.
    assert text(Loop("t", 3, (shared("a>b"), shared("a>c")))) == ["loop t < 3 {", "  barrier", "  a>b", "  a>c", "}"]
    assert text(Loop("t", 3, (shared("a>"),)), shared("a>")) == ["loop t < 3 {", "  a>", "}", "a>"]
    # A carried value.
    assert text(shared(">h"), Loop("t", 3, (shared("h>g"), shared("g>h"))), shared("h>")) == [
        ">h", "loop t < 3 {", "  barrier", "  h>g", "  barrier", "  g>h", "}", "barrier", "h>"]  # fmt: skip


def test_what_only_the_first_turn_needs_stands_before_the_loop() -> None:
    assert text(shared("a>b"), Loop("t", 3, (alone("b>c"), alone("c>d"))), shared("d>")) == [
        "a>b", "barrier", "loop t < 3 {", "  b>c", "  c>d", "}", "barrier", "d>"]  # fmt: skip
    loop = While("w", (alone("n>p"),), "q", (alone("b>n"),))
    assert text(shared("a>b"), loop) == [
        "a>b", "barrier", "repeat w {", "  n>p", "  leave unless q", "  b>n", "}"]  # fmt: skip
    # A barrier that every turn has will do.
    assert text(shared("a>b"), Loop("t", 3, (shared("c>"), shared("b>d"), alone("d>b")))) == [
        "a>b", "loop t < 3 {", "  c>", "  barrier", "  b>d", "  barrier", "  d>b", "}"]  # fmt: skip
    assert text(shared("a>b"), Loop("t", 0, (shared("b>c"),)), shared("b>")) == [
        "a>b", "loop t < 0 {", "  b>c", "}", "barrier", "b>"]  # fmt: skip


def test_nested_loops() -> None:
    inner = Loop("s", 2, (shared("a>b"),))
    assert text(Loop("t", 3, (inner, shared("b>a")))) == [
        "loop t < 3 {", "  loop s < 2 {", "    barrier", "    a>b", "  }", "  barrier", "  b>a", "}"]  # fmt: skip


def test_a_branch_reads_its_predicate_on_all_threads() -> None:
    assert text(alone("a>p"), Branch("p", (shared("a>b"),), (alone("a>b"),)), shared("b>c")) == [
        "a>p", "barrier", "if p {", "  a>b", "} else {", "  a>b", "}", "barrier", "b>c"]  # fmt: skip
    # What one side needs, the other does not pay for.
    assert text(shared("a>b"), Branch("q", (shared("b>c"),), (shared("a>d"),))) == [
        "a>b", "if q {", "  barrier", "  b>c", "} else {", "  a>d", "}"]  # fmt: skip


def test_a_predicate_is_not_written_while_a_thread_still_reads_it() -> None:
    assert text(Branch("p", (shared("a>b"),)), alone("a>p")) == ["if p {", "  a>b", "}", "barrier", "a>p"]


def test_a_loop_that_ends_by_a_test() -> None:
    loop = While("w", (alone("n>p"),), "p", (shared("h>g"), alone("n>n")))
    assert text(alone(">n"), loop, shared("g>k")) == [
        ">n", "repeat w {", "  barrier", "  n>p", "  barrier", "  leave unless p", "  h>g", "  n>n", "}", "barrier",
        "g>k",
    ]  # fmt: skip
