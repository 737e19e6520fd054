"""Signs of life on the link. Both sides say one each second, and end a link on which nothing was heard for a while.

Who is cut off is to be noticed within 5 s: after `Limits.beat_timeout_s`, at the next beat. Neither side's beat waits
for what may take long (disk, database, bitcoind, handshakes, routes): that runs in threads. A side that stood still
itself, because its host had no time for it, must not take that for the silence of the other.
"""

BEAT_INTERVAL_S = 1.0


def stalled_s(beat_s: float, now_s: float) -> float:
    """For how long we stood still since our last beat: then nobody could be heard, whoever spoke."""
    return max(0.0, now_s - beat_s - 2 * BEAT_INTERVAL_S)
