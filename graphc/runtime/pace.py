"""On how many threads the next step of a program runs, decided from the time that steps take.

Threads that meet at barriers wait for the slowest of them: when another process takes a core, a step on all threads
lasts longer than one on fewer does. No bit of a result depends on the choice.
"""

from __future__ import annotations

WARM_UP = 2  # steps that are slow for reasons of their own: cold caches, pages touched for the first time
TRIALS = 3  # steps that tell what a number of threads costs, after one to get used to it
SHORT = 0.01  # seconds; a program of shorter steps is surveyed at its beginning
SHORTEST_PAUSE, LONGEST_PAUSE = 0.02, 0.5  # seconds from one survey to the next
PROBATION = 0.015  # seconds on all threads that show that no core is taken: some time slices
WORTH = 0.04  # the share of the time that attempts to use all threads again may cost
LONGEST_REST = 5.0  # seconds from one attempt to the next, where steps are long
CHEAP_REST = 0.08  # the same where attempts cost next to nothing, after some that failed
AWAKENING = 5e-4  # seconds that the first step of an attempt may take for waking threads
SURVEYED = 16  # every so many attempts numbers between are surveyed too
_WEIGHT = 0.25  # of the latest step in the smoothed time
_OUTLIER = 3.0  # times the least: what a single slow step counts at most
_DEAREST = 4.0  # times a step: what one attempt counts at most
_FORGETTING = 1.002  # growth of the least time with each step, so that a change of the work is noticed
_TROUBLE = 1.2  # times the least time on all threads: less is no reason to try fewer
_SCALING = 0.9  # of perfect: fewer threads are not expected to be quicker than that


def levels(threads: int, cores: int) -> tuple[int, ...]:
    """The numbers of threads to choose from, downwards: all, one less (for the neighbour), the cores, half, one."""
    wanted = {threads, threads - 1, threads // 2, 1, min(threads, cores)}
    return tuple(sorted((n for n in wanted if n >= 1), reverse=True))


class Pace:
    """Runs a step on `threads` threads, then wants to be told what it `took`.

    A survey times a few steps at each number of threads that might be quickest and keeps to the best. The next one
    follows when steps take longer than fewer threads would. On fewer than all, all are attempted again after a pause:
    the first step that takes longer than those before ends the attempt, and the pause follows from what it cost; some
    time slices without such a step show that the cores are free.
    """

    __slots__ = ("threads", "_levels", "_survey", "_found", "_steps", "_sum", "_smoothed", "_least", "_times", "_pause",
                 "_since", "_before", "_attempts")

    def __init__(self, threads: int, cores: int) -> None:
        self._levels = levels(threads, cores)
        self.threads = threads  # of the next step
        self._survey: list[int] = []  # what is still to be timed, the current number first
        self._found: dict[int, float] = {}
        self._steps, self._sum = -WARM_UP, 0.0
        self._smoothed = self._least = float("inf")  # seconds of a step now, and at best on all threads
        self._times: dict[int, float] = {}  # of the last survey
        self._pause, self._since = SHORTEST_PAUSE, 0.0
        self._before = 0  # during an attempt: the number of threads to go back to
        self._attempts = 0

    @property
    def most(self) -> int:
        """The greatest number of threads that it may choose."""
        return self._levels[0]

    @property
    def settling(self) -> bool:
        """True before a step that is not timed: the first on another number of threads, or the very first."""
        return self._steps == (0 if self._survey or self._before else -WARM_UP)

    def took(self, seconds: float) -> None:
        """The step took so long."""
        self._steps += 1
        if self._before:
            self._attempted(seconds)
        elif self._survey:
            self._timed(seconds)
        elif self._steps > 0:
            self._ran(seconds)
        elif self._steps == 0:
            self._smoothed = self._least = seconds
            if seconds < SHORT:
                self._begin(list(self._levels))

    # -- between surveys -------------------------------------------------------------------------------------

    def _ran(self, seconds: float) -> None:
        self._since += seconds
        best = self._least
        if self.threads == self.most:
            self._least = best = min(seconds, best * _FORGETTING)
        else:
            best = self._smoothed
        self._smoothed += _WEIGHT * (min(seconds, _OUTLIER * best) - self._smoothed)
        if self._since < self._pause:
            return
        content = self.threads == self.most and self._smoothed < _TROUBLE * self._least
        rivals = [] if content else [n for n in self._levels if n != self.threads and self._hope(n) < self._smoothed]
        if self.most in rivals and (len(rivals) == 1 or (self._attempts + 1) % SURVEYED):
            self._attempt()
        elif rivals:
            self._attempts += 1
            self._begin([self.threads, *rivals])
        else:
            self._pause, self._since = max(SHORTEST_PAUSE, self._pause / 2), 0.0

    def _hope(self, threads: int) -> float:
        """The time that a step on so many threads might take: all may have their cores again at any time."""
        perfect = self._least * _SCALING * self.most / threads
        if threads > self.threads:  # the least time may be from when a core was taken
            return min(perfect, self._smoothed * self.threads / threads)
        return min(perfect, self._times.get(threads, perfect))

    # -- attempts to use all threads again -------------------------------------------------------------------

    def _attempt(self) -> None:
        self._attempts += 1
        self._steps, self._sum, self._before, self.threads = 0, 0.0, self.threads, self.most

    def _attempted(self, seconds: float) -> None:
        """The first step may be slow for reasons of its own, so it counts only if it is much slower."""
        self._sum += seconds
        if seconds > (self._smoothed if self._steps > 1 else _TROUBLE * self._smoothed + AWAKENING):
            cost = min(self._sum - self._steps * self._smoothed, _DEAREST * self._smoothed)
            least = min(SHORTEST_PAUSE * self._attempts, CHEAP_REST)
            self._pause = min(max(least, cost / WORTH), LONGEST_REST)
            self.threads = self._before
        elif self._steps <= TRIALS or self._sum < PROBATION:
            return
        else:
            self._smoothed = self._sum / self._steps
            self._least = min(self._least, self._smoothed)
            self._pause, self._attempts = SHORTEST_PAUSE, 0
        self._before, self._steps, self._since = 0, 0, 0.0

    # -- surveys ---------------------------------------------------------------------------------------------

    def _begin(self, survey: list[int]) -> None:
        self._survey, self._found = survey, {}
        self._next()

    def _next(self) -> None:
        self._steps, self._sum = 0, 0.0
        self.threads = self._survey[0]

    def _timed(self, seconds: float) -> None:
        """The first step at a number of threads counts only if it shows that the rest are not worth their time."""
        if self._steps > 1:
            self._sum += seconds
        hopeless = self._steps == 1 and seconds > 2 * min(self._found.values(), default=seconds)
        if self._steps <= TRIALS and not hopeless:
            return
        self._found[self.threads] = seconds if hopeless else self._sum / TRIALS
        self._survey.pop(0)
        if self._survey:
            self._next()
        else:
            self._choose()

    def _choose(self) -> None:
        before = next(iter(self._found))
        self._times |= self._found
        self.threads = min(self._found, key=lambda n: self._found[n])
        changed = self.threads != before
        self._pause = SHORTEST_PAUSE if changed else min(2 * self._pause, LONGEST_PAUSE)
        self._smoothed, self._since, self._steps = self._found[self.threads], 0.0, 0
        if self.threads == self.most:
            self._least = min(self._least, self._smoothed)
