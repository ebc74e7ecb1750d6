"""One log line when PostgreSQL goes away, one when it is back."""

import logging

from attrs import define, field

from zodworker_compat.runner.policy import retry_delay


@define
class Outage:
    """Counts the failures of one loop since it last worked."""

    logger: logging.Logger
    doing: str
    """What the loop does, for the message: "claim jobs"."""
    failures: int = field(default=0, init=False)

    def failed(self, error: Exception) -> float:
        """Note a failure, log the first; return the seconds to wait before the next try."""
        if self.failures == 0:
            self.logger.warning(
                "Cannot %s, will keep trying: %s: %s", self.doing, type(error).__name__, error
            )
        self.failures += 1
        return retry_delay(self.failures - 1)

    def worked(self) -> None:
        """Note a success; log it if it ends an outage."""
        if self.failures:
            self.logger.info("Can %s again, after %d failures", self.doing, self.failures)
            self.failures = 0
