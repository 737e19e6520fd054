"""Where the command `lnsim` begins: says in one sentence what is missing where the extra is not installed."""

import sys

BAD_USAGE = 2
OF_THE_EXTRA = ("pbk", "psutil")


def main() -> None:
    """Entry point."""
    try:
        from lnsim.cli import main as run  # noqa: PLC0415 - the import is what may fail
    except ModuleNotFoundError as error:
        if error.name not in OF_THE_EXTRA:
            raise
        print(  # noqa: T201 - a command's answer
            f"lnsim: {error.name} is missing; install the simulator with its extra: pip install 'lnsim[sim]'",
            file=sys.stderr,
        )
        sys.exit(BAD_USAGE)
    run()
