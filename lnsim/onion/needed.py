"""What a machine needs for an onion service; without it nothing of this package can be imported but this."""

import shutil
from importlib.util import find_spec

from node.errors import Refused

PROGRAMS = ("tor", "tor-gencert")
PACKAGE = "stem"


def require_tor(asked_by: str) -> None:
    """Raises Refused with the remedy for what is missing."""
    for program in PROGRAMS:
        if not shutil.which(program):
            raise Refused(f"{asked_by}: there is no {program} on this machine; Debian: apt-get install tor")
    if find_spec(PACKAGE) is None:
        raise Refused(f"{asked_by}: {PACKAGE} is missing; install the extra: pip install 'lnsim[tor]'")
