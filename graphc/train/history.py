"""What a fit leaves behind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass
class History:
    """`history["loss"]` has one value an epoch, `history["val_loss"]` too; `epoch` has their numbers, from 0.

    An epoch's values are means over its rows. Seconds an epoch are in `seconds`.
    """

    history: dict[str, list[float]] = field(default_factory=dict)
    epoch: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def append(self, epoch: int, values: Mapping[str, float], seconds: float) -> None:
        """Add an epoch."""
        self.epoch.append(epoch)
        self.seconds.append(seconds)
        for name, value in values.items():
            self.history.setdefault(name, []).append(value)

    def __repr__(self) -> str:
        last = ", ".join(f"{name} {values[-1]:.4g}" for name, values in self.history.items())
        return f"<History of {len(self.epoch)} epochs{f': {last}' if last else ''}>"
