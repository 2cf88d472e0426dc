"""The worker threads of a process, kept from step to step, and the choice between them and one thread.

A team is one for the whole process, because only one step runs at a time (`STEPS`). Workers are threads of the C
library that never touch Python: they wait for a job, spinning for 20 microseconds and then asleep, and walk a table
(`team.ll`). They receive no signals, so Ctrl-C reaches Python's main thread, which has share 0 of the work and looks
for it (`signals.ll`).

A fork stops the workers before, and the child starts its own when it needs them; at exit they end.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterable

from graphc.errors import GraphcWarning
from graphc.ir.buffers import address, aligned_zeros
from graphc.runtime.cores import MOST_THREADS, apart
from graphc.runtime.driver import CLOCK_MONOTONIC, driver

STEPS = threading.RLock()  # held for a step; one lock, not one a variable: taking many is not safe against Ctrl-C

EVENT = 32  # int64 cells of an event, see team.ll
SPIN_NANOSECONDS = 20_000
AHEAD_NANOSECONDS = 30_000
PATIENCE = 1.0  # seconds that a step of another Python thread has to end when the interpreter exits
MOST_CPUS = 8192  # bits of a CPU set that the system is given
_SPINNING, _CLOCK, _FINISHED, _MUTEX, _CONDITION = 10, 11, 12, 16, 24
_FAULTS = {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT}


class Team:
    """Worker threads and the events at which they wait. Whoever calls its methods holds `STEPS`."""

    def __init__(self, most: int = MOST_THREADS) -> None:
        self._most = most
        self._hired = 0
        self._library = ctypes.CDLL(None)
        # pthread_create writes here itself: no worker is lost when Ctrl-C comes between two lines of Python.
        self._handles = (ctypes.c_void_p * most)()
        self._events = aligned_zeros((1 + most, EVENT), "i64")  # never freed, never moved: threads look at it
        self.address = address(self._events)
        self.meeting_place = self.address
        for place in range(2):
            self._initialise(place)

    @property
    def workers(self) -> int:
        """How many worker threads there are."""
        return self._hired

    def hire(self, threads: int) -> int:
        """Start what is missing of `threads` - 1 workers; returns the number of threads that can work, with this one.

        Warns where the system does not give as many.
        """
        while self._hired + 1 < min(threads, self._most):
            code = 0 if self._handles[self._hired] else self._start(self._hired)
            if code:
                self._most = self._hired + 1
                warnings.warn(f"{threads} threads were asked for, but the system gives no more than {self._most}: "
                              f"{os.strerror(code)}; steps run on {self._most}", GraphcWarning, stacklevel=2)
            else:
                self._hired += 1
        return min(threads, self._hired + 1)

    def rouse(self, threads: int) -> None:
        """Wake workers for a job that comes within the time that inputs take."""
        driver().rouse(self.address, min(threads, self._hired + 1), AHEAD_NANOSECONDS)

    def spread(self, threads: int) -> None:
        """Move the workers of so many threads each to a core of its own, away from this thread's; they may move again.

        Where all cores are busy the system wakes a thread on the core of the one that wakes it, and they take turns.
        """
        if not hasattr(os, "sched_getaffinity"):
            return  # macOS places threads itself
        allowed = os.sched_getaffinity(0)
        free = apart(allowed, self._library.sched_getcpu())
        for worker, cpu in zip(range(min(threads - 1, self._hired)), free, strict=False):
            self._allow(worker, {cpu})
            self._allow(worker, allowed)

    def _allow(self, worker: int, cpus: Iterable[int]) -> None:
        mask = sum(1 << cpu for cpu in cpus).to_bytes(MOST_CPUS // 8, sys.byteorder)
        self._library.pthread_setaffinity_np(ctypes.c_void_p(self._handles[worker]), ctypes.c_size_t(len(mask)), mask)

    def dismiss(self) -> None:
        """End all workers and wait until they are gone."""
        order = driver().order
        for worker in range(self._hired):
            order(self._event(worker + 2), 0)
        while self._hired:
            self._hired -= 1
            handle, self._handles[self._hired] = self._handles[self._hired], None
            self._library.pthread_join(ctypes.c_void_p(handle), None)

    def close(self) -> None:
        """End all workers for good: the interpreter exits. Steps still run, on one thread."""
        self._most = 1
        self.dismiss()

    def _event(self, place: int) -> int:
        return self.address + 8 * EVENT * place

    def _initialise(self, place: int) -> None:
        event = self._events[place]
        event[:] = 0
        event[_SPINNING], event[_CLOCK], event[_FINISHED] = SPIN_NANOSECONDS, CLOCK_MONOTONIC, self._event(1)
        self._library.pthread_mutex_init(ctypes.c_void_p(self._event(place) + 8 * _MUTEX), None)
        self._library.pthread_cond_init(ctypes.c_void_p(self._event(place) + 8 * _CONDITION), None)

    def _start(self, worker: int) -> int:
        """Start a worker; returns the C library's error code, 0 if there was none."""
        place = worker + 2
        self._initialise(place)
        handle = ctypes.c_void_p(ctypes.addressof(self._handles) + worker * ctypes.sizeof(ctypes.c_void_p))
        # The new thread inherits what is blocked: signals go to Python's threads, faults stay where they happen.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - _FAULTS)
        try:
            code = int(self._library.pthread_create(handle, None, ctypes.c_void_p(driver().worker),
                                                    ctypes.c_void_p(self._event(place))))
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        if code:
            self._handles[worker] = None
        return code


@functools.cache
def team() -> Team:
    """The team of this process; it has no workers yet."""
    made = Team()
    _teams.append(made)
    atexit.register(_at_exit)
    return made


_teams: list[Team] = []  # the one of `team()`, once it is there


def _at_exit() -> None:
    while not STEPS.acquire(timeout=PATIENCE):
        driver().stop()  # another Python thread is in a step that takes long, or never ends
    for made in _teams:
        made.close()
    STEPS.release()


def _before_fork() -> None:
    STEPS.acquire()  # a step that another thread has begun ends first
    for made in _teams:
        made.dismiss()


os.register_at_fork(before=_before_fork, after_in_parent=STEPS.release, after_in_child=STEPS.release)
