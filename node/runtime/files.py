"""How many files a process may have open: each connection is one."""

import contextlib
import resource


def raise_file_limit() -> int:
    """Ask for all that this process may have; returns how many that is."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(
        ValueError, OSError
    ):  # systems that allow less than they say: what there is, stays
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
