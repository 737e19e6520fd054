"""The house limits, as a ratchet: what is here once is here for good, and a limit is never raised to let something in."""

import ast
import gc
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
MAX_FILE_LINES = 450
MAX_FUNCTION_LINES = 70
CODE = ("node", "lnsim", "tor")
PURE = tuple(
    f"node/{package}/"
    for package in ("crypto", "wire", "bitcoin", "peer", "channel", "gossip", "payment", "link")
)
BAD_NAMES = {"util", "utils", "helper", "helpers", "manager", "managers", "common", "misc"}


class Ban(NamedTuple):
    """What must not be written, and what to write instead."""

    pattern: str
    instead: str
    where: tuple[str, ...] = (*CODE, "tests")
    but: tuple[str, ...] = ()


BANS = [
    Ban(r"\braise (Base)?Exception\b", "raise MalformedMessage, PeerFault or Refused, or assert"),
    Ban(r"^\s*except\s*:", "name what is caught, and catch it in one place"),
    Ban(
        r"\bexcept (Base)?Exception\b.*:\s*(pass|\.\.\.)\s*$",
        "catch one family, and say what became of it",
        CODE,
    ),
    Ban(r"\bNotImplementedError\b", "write for today: nothing stands in for what is not there yet"),
    Ban(r"#.*\b(TODO|FIXME|XXX|HACK)\b", "do it, or say in the documentation that it is not there yet"),
    Ban(r"# type: ignore(?!\[[\w, -]+\]  # \w)", "name the code and the reason: # type: ignore[code]  # why"),
    Ban(r"# noqa(?!: [A-Z]+\d+(, ?[A-Z]+\d+)* - \w)", "name the rule and the reason: # noqa: S101 - why"),
    Ban(
        r"\btime\.(time|monotonic|perf_counter)\(",
        "runtime.now() or runtime.monotonic()",
        ("node",),
        ("node/runtime/",),
    ),
    Ban(r"\btime\.time\(\)", "a clock that is handed in", ("lnsim",), but=("lnsim/bench/",)),
    Ban(r"\bos\.(urandom|environ|getenv)\b", "an argument", ("node",), ("node/runtime/",)),
    Ban(
        r"(?<![\w.])random\.(random|randrange|randint|choice|shuffle|sample)\(",
        "a Random that is handed in",
        CODE,
    ),
    Ban(r"\b(grpc|protobuf)\b", "the link's own messages", CODE),
    # monkeypatch may lower a named limit, so that a test reaches it, or move temporary files; not replace behaviour.
    Ban(
        r"\bunittest\b|\bMagicMock\b|\bmonkeypatch\.setattr\((?![\w.]*tempfile,|(\w+, ['\"]|['\"][\w.]+\.)[A-Z_]+['\"])",
        "a fake that is handed in",
        ("tests",),
    ),
    Ban(
        r"\btime\.sleep\(|\basyncio\.sleep\(\s*0*\.?0*[1-9]",
        "wait for what is to happen, with a deadline",
        ("tests",),
    ),
    Ban(r"\bmark\.xfail\b", "fix it, or test what it does do", ("tests",)),
    Ban(r"\bmark\.skip\b(?!\(reason=)", "mark.skip(reason=...), or better a test that runs", ("tests",)),
    Ban(r"\bpytest\.skip\(\s*\)", "give the reason", ("tests",)),
]

# Of this machine or of one registry: a clone elsewhere has neither.
STRAY = re.compile(
    r"(?<![\w.{}$)-])/(wor[k]|hom[e]/[a-z]+|roo[t])/|/tmp/bol[t]s"
    r"|registry\.npmjs\.org|registry\.yarnpkg\.com|files\.pythonhosted\.org|pypi\.org/simple"
)
# Documentation may show where things lie on an operator's host.
MAY_NAME_PATHS = ("deploy/", "LICENSE")


def parsed(path: Path) -> ast.Module:
    """The file's syntax tree. Python 3.11 takes a finaliser that the collector runs meanwhile for a fault of its own."""
    gc.disable()
    try:
        return ast.parse(path.read_text())
    finally:
        gc.enable()


def python_files(*roots: str) -> list[Path]:
    skipped = {"node_modules", "__pycache__"}
    found = (path for root in roots for path in (ROOT / root).rglob("*.py"))
    return sorted(path for path in found if not skipped & set(path.parts) and path != Path(__file__))


def committed_files() -> list[Path]:
    """What git tracks, or without git everything that is ours."""
    if not (ROOT / ".git").exists():
        return python_files(*CODE, "tests")
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def report(findings: Iterator[str]) -> None:
    found = list(findings)
    assert not found, "\n" + "\n".join(found)


def long_files() -> Iterator[str]:
    for path in python_files(*CODE):
        lines = len(path.read_text().splitlines())
        if lines > MAX_FILE_LINES:
            yield f"{relative(path)}: {lines} lines, {MAX_FILE_LINES} are the limit; split it by concern"


def long_functions() -> Iterator[str]:
    for path in python_files(*CODE):
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                lines = node.end_lineno - node.lineno + 1
                if lines > MAX_FUNCTION_LINES:
                    yield f"{relative(path)}:{node.lineno}: {node.name} has {lines} lines, limit {MAX_FUNCTION_LINES}"


def vague_names() -> Iterator[str]:
    for path in python_files(*CODE, "tests"):
        if BAD_NAMES & {path.stem, path.parent.name}:
            yield f"{relative(path)}: name it after what it is about"
        for line, text in enumerate(path.read_text().splitlines(), 1):
            if re.match(r"\s*class \w*(Manager|Helper|Utils?|Mixin)\b", text):
                yield f"{relative(path)}:{line}: name it after what it holds or decides: {text.strip()}"


def undescribed_files() -> Iterator[str]:
    for path in python_files(*CODE):
        if not ast.get_docstring(parsed(path)):
            yield f"{relative(path)}: begin with one sentence on what this module is for"


def shared_test_names() -> Iterator[str]:
    """Two test files of one name cannot both be imported: the test tree has no packages."""
    first: dict[str, Path] = {}
    for path in python_files("tests"):
        if path.name != "conftest.py" and first.setdefault(path.name, path) != path:
            yield f"{relative(path)}: named like {relative(first[path.name])}"


def unnamed_sources() -> Iterator[str]:
    for path in sorted((ROOT / "tests" / "vectors").glob("*.json")):
        if not re.search(r'"(source|comment|about)"|bolt|BOLT', path.read_text()[:2_000]):
            yield f"{relative(path)}: name the source of these figures in its first lines"


def stray_paths() -> Iterator[str]:
    for path in committed_files():
        if relative(path).startswith(MAY_NAME_PATHS) or path == Path(__file__):
            continue
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        for line, each in enumerate(text.splitlines(), 1):
            if found := STRAY.search(each):
                yield f"{relative(path)}:{line}: {found.group()} is of one machine; leave it out"


@pytest.mark.parametrize(
    "check",
    [
        long_files,
        long_functions,
        vague_names,
        undescribed_files,
        shared_test_names,
        unnamed_sources,
        stray_paths,
    ],
    ids=lambda check: check.__name__,
)
def test_the_house_is_tidy(check: Callable[[], Iterator[str]]) -> None:
    report(check())


@pytest.mark.parametrize("ban", BANS, ids=lambda ban: ban.pattern)
def test_nothing_banned(ban: Ban) -> None:
    pattern = re.compile(ban.pattern)
    report(
        f"{relative(path)}:{line}: {text.strip()}\n    instead: {ban.instead}"
        for path in python_files(*ban.where)
        if not relative(path).startswith(ban.but or ("-",))
        for line, text in enumerate(path.read_text().splitlines(), 1)
        if pattern.search(text)
    )


@pytest.mark.parametrize(
    "module", ["asyncio", "socket", "time", "random", "os", "logging", "secrets", "threading"]
)
def test_the_core_has_no_io(module: str) -> None:
    """The import contracts say so too; this also sees imports within functions and of submodules."""
    imports = re.compile(rf"^\s*(import {module}\b|from {module}(\.\w+)* import\b)")
    report(
        f"{relative(path)}:{line}: {text.strip()}; take it as an argument"
        for path in python_files("node")
        if relative(path).startswith(PURE)
        for line, text in enumerate(path.read_text().splitlines(), 1)
        if imports.search(text)
    )
