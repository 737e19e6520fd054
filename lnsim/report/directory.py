"""A run's directory: the result as JSON for machines beside the page for people."""

from pathlib import Path

import msgspec

from lnsim.report.html import render
from lnsim.report.result import RunResult
from node.errors import Refused

RESULT = "result.json"
PAGE = "report.html"
MAX_RESULT_BYTES = 200_000_000  # a day's run has a hundredth of it: what is larger is another file


def write(result: RunResult, directory: Path) -> Path:
    """Write result.json and report.html, and return the page's path. Raises Refused where they cannot be written."""
    page = directory / PAGE
    _write(to_json(result), directory / RESULT)
    write_page(render(result), page)
    return page


def write_page(text: str, file: Path) -> None:
    _write(text.encode(), file)


def _write(data: bytes, file: Path) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    except OSError as error:
        raise Refused(
            f"{file}: cannot be written ({error.strerror}); give --report another directory"
        ) from None


def to_json(result: RunResult) -> bytes:
    return msgspec.json.encode(result) + b"\n"


def read(path: Path) -> RunResult:
    """From a directory that `write` filled, or its result.json. Raises Refused that names file, field and remedy."""
    file = path / RESULT if path.is_dir() else path
    try:
        size = file.stat().st_size
        if size > MAX_RESULT_BYTES:
            raise Refused(
                f"{file}: {size:,} bytes are no result of a run; name the directory given to --report"
            )
        data = file.read_bytes()
    except OSError as error:
        raise Refused(
            f"{file}: {error.strerror}; write one with `lnsim run SCENARIO --report {path}`"
        ) from None
    return _decode(data, file)


def _decode(data: bytes, file: Path) -> RunResult:
    try:
        result = msgspec.json.decode(data, type=RunResult)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refused(
            f"{file}: {error}; this is no result that this lnsim wrote, run the scenario again with --report"
        ) from None
    for name, series in result.series.items():
        if len(series.times) != len(series.values):
            raise Refused(
                f"{file}: series.{name} has {len(series.times)} times for {len(series.values)} values"
            )
    return result
