"""A slow and lossy cable between two TAP interfaces, for kernels without tc's netem.

`slow_cable.py END END ONE_WAY_MS LOSS_PERCENT` makes both interfaces, says that it is ready, and carries Ethernet
frames from either to the other: each after that time, in order, but for those that are lost. It ends when killed.
"""

import asyncio
import fcntl
import os
import random
import struct
import sys

TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI = 0x0002, 0x1000
MAX_FRAME = 65_536
SEED = 1


def interface(name: str) -> int:
    """A new TAP interface, for as long as its file is open."""
    handle = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(handle, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
    return handle


def carry(source: int, target: int, one_way_s: float, loss: float, chance: random.Random) -> None:
    """What is there to be read now; timers of equal delay fire in the order in which they were set."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            frame = os.read(source, MAX_FRAME)
        except OSError:  # nothing more, or the interface is not up yet
            return
        if chance.random() >= loss:
            loop.call_later(one_way_s, deliver, target, frame)


def deliver(target: int, frame: bytes) -> None:
    try:
        os.write(target, frame)
    except OSError:
        return  # not up, or its queue is full: a frame that is lost


async def main(one: str, other: str, one_way_ms: str, loss_percent: str) -> None:
    ends, chance = (interface(one), interface(other)), random.Random(SEED)
    loop = asyncio.get_running_loop()
    for source, target in (ends, ends[::-1]):
        loop.add_reader(
            source, carry, source, target, float(one_way_ms) / 1_000, float(loss_percent) / 100, chance
        )
    print("ready", flush=True)
    await loop.create_future()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
