"""Logs as JSON lines."""

from __future__ import annotations

import json
import logging
import sys

__all__ = ["AUDIT", "LOGGER", "configure_logging"]

LOGGER = logging.getLogger("cipherlearn.service")

AUDIT = logging.getLogger("cipherlearn.audit")


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname,
            "logger": record.name,
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry)


def configure_logging(level: str | int) -> None:
    """Write all logs as JSON lines to the standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # Whatever the level.
    AUDIT.setLevel(logging.INFO)
