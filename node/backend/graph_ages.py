"""How old a copy of the graph is: sequence numbers say how many changes it lacks, this says for how long."""

from collections import deque

MAX_SAMPLES = 600  # one a second: beyond ten minutes only that much is said


class GraphAges:
    """Mutable; remembers when the graph had which sequence number."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque(maxlen=MAX_SAMPLES)

    def sample(self, now_s: float, sequence: int) -> None:
        if not self._samples or self._samples[-1][1] != sequence:
            self._samples.append((now_s, sequence))

    def age_s(self, now_s: float, sequence: int) -> float:
        """Since when a copy with this sequence number lacks something; 0 where it lacks nothing."""
        since_s = now_s
        for sampled_s, known in reversed(self._samples):
            if known <= sequence:
                break
            since_s = sampled_s
        return now_s - since_s
