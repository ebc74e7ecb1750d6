"""Log lines on standard error, for people or for machines."""

import json
import logging
from datetime import UTC, datetime

from zodworker_compat.observability.logs import FIELDS


class _Utc(logging.Formatter):
    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802, ARG002 - logging's name
        return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


class _Json(_Utc):
    def __init__(self, with_process: bool) -> None:
        super().__init__()
        self._with_process = with_process

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": self.formatTime(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **({"process": record.process} if self._with_process else {}),
            **{name: getattr(record, name) for name in FIELDS if hasattr(record, name)},
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def set_up_logging(level: str, form: str, *, with_process: bool = False) -> None:
    """Log to standard error, unless the app has set up logging already.

    Args:
        level: the least important level to show.
        form: "text" or "json".
        with_process: say which process a line is of.
    """
    handler = logging.StreamHandler()
    process = "[%(process)d] " if with_process else ""
    handler.setFormatter(
        _Json(with_process)
        if form == "json"
        else _Utc(f"%(asctime)s %(levelname)-7s {process}%(name)s: %(message)s")
    )
    logging.basicConfig(level=level.upper(), handlers=[handler])
