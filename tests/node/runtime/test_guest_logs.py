"""Logging is set up for a process, or for a guest in it who leaves no trace."""

import structlog

from node.runtime import logs
from node.runtime.config import LogConfig


def test_a_guest_leaves_logging_as_it_was():
    before = structlog.get_config()
    log = logs.get("test")
    with logs.for_a_while(LogConfig(level="error")), structlog.testing.capture_logs() as quiet:
        log.warning("not_heard")
    with structlog.testing.capture_logs() as heard:
        log.warning("heard")
    assert structlog.get_config() == before
    assert quiet == []
    assert [line["event"] for line in heard] == ["heard"]
