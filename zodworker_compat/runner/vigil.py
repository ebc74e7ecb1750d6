"""What the beats of a pool allow: to claim, and to judge the silence of others. Pure."""

import math
from typing import Final

from attrs import define, field

BEATS: Final = 5
"""Beats in `dead_after`, so that one that is lost or late does not kill."""
FENCE: Final = 2 / 3
"""Part of `dead_after` after which a pool without a beat claims and starts nothing any more."""
SHARE_AT_START: Final = 1 / 3
"""Part of another pool's `dead_after` that a pool watches before it may declare it dead: time in
which the others, if the database was away for all, have connected again and beaten."""


@define
class Vigil:
    """Counts the beats of one pool.

    Local times are of a monotonic clock, only ever compared with each other; times of the database
    alike. So it does not matter how far the clocks of two hosts are apart.
    """

    dead_after: float
    """Seconds."""
    fence: float = field(default=math.inf, init=False)
    """Local time from which nothing may be claimed or started; infinite if nobody may judge us."""
    _clock: float | None = field(default=None, init=False)
    _since: float = field(default=0.0, init=False)
    _share: float = field(default=SHARE_AT_START, init=False)

    @property
    def interval(self) -> float:
        """Seconds between two beats."""
        return self.dead_after / BEATS

    def begin(self) -> None:
        """Note that the others may judge this pool: it may claim after its first beat."""
        self.fence = -math.inf

    def end(self) -> None:
        """Note that there is nobody to judge it: it may claim."""
        self.fence = math.inf

    def beaten(self, sent: float, clock: float) -> None:
        """Note a beat that the database has answered.

        Args:
            sent: local time before it was sent.
            clock: the database's time in the answer.
        """
        self.fence = sent + self.dead_after * FENCE
        if self._clock is None:
            self._since = clock
        elif not 0 <= clock - self._clock <= self.dead_after * FENCE:
            self.missed()  # we slept, or somebody set the clock: perhaps not for us alone
            self._since = clock
        self._clock = clock

    def missed(self) -> None:
        """Note that a beat got no answer: the database may have been away for the others, too."""
        self._clock, self._share = None, 1.0

    def watch(self) -> tuple[float, float]:
        """Return for how many seconds the database has answered, and the share that must suffice.

        A pool whose `dead_after` times that share is longer must not be declared dead yet.
        """
        return (0.0 if self._clock is None else self._clock - self._since), self._share

    def is_fenced(self, now: float) -> bool:
        """Whether nothing may be claimed or started at this local time."""
        return now > self.fence
