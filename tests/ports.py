"""Ports for what tests start: each is given out once, so that tests on several workers do not meet on one."""

import socket

HOST = "127.0.0.1"


def free_port() -> int:
    """One of HOST that is nobody else's as long as this process lives.

    It stays bound and never listens, so the kernel gives it to nobody who asks for any port; whoever names it may
    listen there, and again after a restart. That takes SO_REUSEADDR on both sides, which every server here sets.
    """
    place = socket.socket()
    place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    place.bind((HOST, 0))
    port: int = place.getsockname()[1]
    place.detach()  # open until this process ends
    return port
