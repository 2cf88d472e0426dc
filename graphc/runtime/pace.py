"""Whether the next step of a program runs on all its threads or on one, decided from the time that steps take.

Threads that meet at barriers wait for the slowest of them: when another process takes a core, a step on all threads
lasts longer than one on a single thread does. No bit of a result depends on the choice.
"""

from __future__ import annotations

WARM_UP = 3  # steps that are slow for reasons of their own: cold caches, pages touched for the first time
SAMPLES = 2  # steps on one thread that tell what those cost
TRIALS = 3  # steps on all threads after a pause, before they are judged
SHORTEST_PAUSE, LONGEST_PAUSE = 0.02, 1.0  # seconds on one thread before the next trial
_WEIGHT = 0.25  # of the latest step in the smoothed time
_OUTLIER = 3.0  # times the least: what a single slow step counts at most
_FORGETTING = 1.002  # growth of the least time with each step, so that a change of the work is noticed


class Pace:
    """Ask `alone` before a step, and tell `took(seconds)` after it.

    After some steps on all `threads`, a few on one show what that costs. Then steps run on all threads until they
    take longer, smoothed, than one thread would; then on one for a pause, and a few trials on all. A pause doubles
    when its trials fail, and shrinks while steps are quick.
    """

    __slots__ = ("threads", "alone", "_phase", "_steps", "_smoothed", "_least", "_single", "_pause", "_left")

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.alone = False  # whether the next step should run on one thread
        self._phase = self._warm_up
        self._steps = 0  # in this phase
        self._smoothed = self._least = self._single = float("inf")  # seconds of a step
        self._pause, self._left = SHORTEST_PAUSE, 0.0

    def took(self, seconds: float) -> None:
        """The step took so long, on all threads or on one as `alone` said."""
        self._steps += 1
        self._phase(seconds)

    def _enter(self, phase: str) -> None:
        self._phase = getattr(self, phase)
        self._steps = 0
        self.alone = phase in ("_sample", "_on_one")

    def _warm_up(self, seconds: float) -> None:
        if self._steps == WARM_UP:
            self._enter("_sample")

    def _sample(self, seconds: float) -> None:
        self._single = min(self._single, seconds)
        if self._steps == SAMPLES:
            self._enter("_on_trial")

    def _on_trial(self, seconds: float) -> None:
        """The quickest trial counts as quick, their mean as the smoothed time."""
        first = self._steps == 1
        self._least = seconds if first else min(self._least, seconds)
        self._smoothed = seconds if first else self._smoothed + (seconds - self._smoothed) / self._steps
        if self._steps < TRIALS:
            return
        if self._smoothed < self._single:
            self._enter("_on_all")
        else:
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
            self._go_alone()

    def _on_all(self, seconds: float) -> None:
        self._least = min(seconds, self._least * _FORGETTING)
        self._smoothed += _WEIGHT * (min(seconds, _OUTLIER * self._least) - self._smoothed)
        if self._smoothed > min(self._single, 0.9 * self.threads * self._least):
            self._go_alone()
        else:
            self._pause = max(SHORTEST_PAUSE, 0.98 * self._pause)

    def _go_alone(self) -> None:
        self._single, self._left = float("inf"), self._pause
        self._enter("_on_one")

    def _on_one(self, seconds: float) -> None:
        self._single = min(self._single, seconds)
        self._left -= seconds
        if self._left <= 0 and self._steps >= TRIALS:
            self._enter("_on_trial")
