"""Adds up JUnit reports of several pytest runs into one closing line, as a single run would have printed it."""

import sys
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree as ET


def closing_line(reports: list[Path]) -> tuple[str, bool]:
    """The line, and whether all is well: every report there, something passed, nothing failed."""
    counts: Counter[str] = Counter()
    duration_s = 0.0
    for report in reports:
        for suite in ET.parse(report).getroot().iter("testsuite"):  # noqa: S314 - our own pytest wrote it
            bad = {kind: int(suite.get(kind, 0)) for kind in ("failures", "errors", "skipped")}
            counts["passed"] += int(suite.get("tests", 0)) - sum(bad.values())
            counts["failed"] += bad["failures"]
            counts["errors"] += bad["errors"]
            counts["skipped"] += bad["skipped"]
            duration_s += float(suite.get("time", 0))
    parts = [f"{counts[kind]} {kind}" for kind in ("failed", "passed", "skipped", "errors") if counts[kind]]
    well = bool(counts["passed"]) and not counts["failed"] and not counts["errors"]
    text = f" {', '.join(parts) or 'no tests ran'} in {duration_s:.2f}s "
    return text.center(80, "="), well


def main() -> int:
    reports = [Path(name) for name in sys.argv[1:]]
    line, well = closing_line([report for report in reports if report.exists()])
    sys.stdout.write(line + "\n")
    return not well


if __name__ == "__main__":
    sys.exit(main())
