"""Where the command `lnsim` begins: says in one sentence what is missing, and can be stopped while it loads."""

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

BAD_USAGE = 2
INTERRUPTED = 130
OF_THE_EXTRA = ("pbk", "psutil")
OTHER_DEMO_COMMANDS = {"kill", "address", "--help"}


def main() -> None:
    """Entry point."""
    heard = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # not where it is to be ignored
    if heard:
        signal.signal(signal.SIGINT, _leave_at_once)
    run = _load()
    if heard:  # a demo listens itself once it has something to clean up
        signal.signal(signal.SIGINT, _leave if _runs_demo() else signal.default_int_handler)
    run()


def _load() -> Callable[[], None]:
    try:
        from lnsim.cli import main as run  # noqa: PLC0415 - the import is what may fail, and takes its time
    except ModuleNotFoundError as error:
        if error.name not in OF_THE_EXTRA:
            raise
        _say(f"{error.name} is missing; install the simulator with its extra: pip install 'lnsim[sim]'")
        sys.exit(BAD_USAGE)
    return run


def _leave(_number: int, _frame: Any) -> None:
    _say_stopped()
    sys.exit(INTERRUPTED)


def _leave_at_once(_number: int, _frame: Any) -> None:
    """While modules load there is nothing to clean up, and an exception could be swallowed by what is loading."""
    _say_stopped()
    os._exit(INTERRUPTED)


def _say_stopped() -> None:
    if _runs_demo():
        _say("stopped before the first payment")


def _runs_demo() -> bool:
    return sys.argv[1:2] == ["demo"] and not OTHER_DEMO_COMMANDS.intersection(sys.argv)


def _say(text: str) -> None:
    print(f"lnsim: {text}", file=sys.stderr, flush=True)  # noqa: T201 - a command's answer
