"""One line of `expect`: a metric of the run, a comparison, a number."""

import operator
import re
from collections.abc import Mapping

from msgspec import Struct

from node.errors import Refused

COMPARISONS = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}
LINE = re.compile(r"\s*([A-Za-z_][\w.]*)\s*(>=|<=|==|!=|>|<)\s*(-?[0-9][0-9_]*(?:\.[0-9]+)?)\s*")


class Expectation(Struct, frozen=True):
    metric: str
    comparison: str
    bound: float

    def __str__(self) -> str:
        return f"{self.metric} {self.comparison} {self.bound:g}"

    def holds(self, metrics: Mapping[str, float]) -> bool:
        """A metric that the run did not produce fulfils nothing."""
        value = metrics.get(self.metric)
        return value is not None and bool(COMPARISONS[self.comparison](value, self.bound))


def parse(text: str) -> Expectation:
    """Raises Refused for what is no such line."""
    found = LINE.fullmatch(text)
    if found is None:
        raise Refused(
            f'{text!r} is no expectation; write "METRIC >= NUMBER" with one of {" ".join(COMPARISONS)}'
        )
    metric, comparison, bound = found.groups()
    return Expectation(metric, comparison, float(bound))
