"""A network namespace with nothing but loopback, entered for as long as a block lasts: what runs in it reaches nobody.

It has no name and no mount, only an open file: once that is closed and its processes have ended, it is gone.
"""

import contextlib
import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Iterator

CLONE_NEWNET = 0x40000000
SIOCSIFFLAGS = 0x8914
IFF_UP = 0x1
THIS_THREAD = "/proc/thread-self/ns/net"

_libc = ctypes.CDLL(None, use_errno=True)


class Namespace:
    def __init__(self) -> None:
        """Raises OSError where that is not allowed: it takes root, or CAP_SYS_ADMIN."""
        before = os.open(THIS_THREAD, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _check(_libc.unshare(CLONE_NEWNET))
            try:
                _raise_loopback()
                self._file = os.open(THIS_THREAD, os.O_RDONLY | os.O_CLOEXEC)
            finally:
                _check(_libc.setns(before, CLONE_NEWNET))
        finally:
            os.close(before)

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Sockets made and processes started in this block, by this thread, live in the namespace. Never await in it."""
        before = os.open(THIS_THREAD, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _check(_libc.setns(self._file, CLONE_NEWNET))
            try:
                yield
            finally:
                _check(_libc.setns(before, CLONE_NEWNET))
        finally:
            os.close(before)

    def close(self) -> None:
        os.close(self._file)


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "network namespace")


def _raise_loopback() -> None:
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))
