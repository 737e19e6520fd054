"""Structured logs: one JSON object a line, or text for people. Keys never appear, peers' text only through `node.peer.notice`."""

import contextlib
import logging
import sys
from collections.abc import Iterator
from typing import Any

import structlog

from node.runtime.config import LogConfig


def configure(config: LogConfig, **context: str) -> None:
    """Set up logging for this process; `context` is on every line."""
    _configure(config, cache=True)
    structlog.contextvars.bind_contextvars(**context)


@contextlib.contextmanager
def for_a_while(config: LogConfig) -> Iterator[None]:
    """Logging as configured within, as it was after: for whoever is a guest in this process."""
    was, before = structlog.is_configured(), structlog.get_config()
    _configure(config, cache=False)
    try:
        yield
    finally:
        if was:
            structlog.configure(**before)
        else:
            structlog.reset_defaults()


def _configure(config: LogConfig, *, cache: bool) -> None:
    """`cache`: a logger keeps what it was at its first use, which is faster and for good."""
    renderer: Any = structlog.processors.JSONRenderer()
    if config.format == "text":
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[config.level.upper()]
        ),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=cache,
    )


def get(name: str) -> structlog.typing.FilteringBoundLogger:
    """A logger that names its part of the node."""
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger(part=name)
    return logger
