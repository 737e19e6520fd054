"""From a YAML file to a `Scenario`: whatever is wrong is refused with the path of the field and what was expected."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import yaml

from lnsim.scenario.check import check
from lnsim.scenario.model import PeersSpec, Scenario
from node.errors import Refused

MAX_FILE_BYTES = 1 << 20  # a scenario is a page
PATH = re.compile(r"([A-Za-z_]\w*)|\[(\d+)\]|\.")
NUMBERED = re.compile(r"\.(\d+)(?=[.\[]|$)")  # workloads.0.rate_per_s is understood too


def load(path: Path, overrides: Sequence[str] = ()) -> Scenario:
    """`overrides` are "path=value" lines of the command line. Raises Refused."""
    text = _read(path)
    raw = _parsed(text, path)
    for override in overrides:
        _set(raw, override)
    try:
        scenario = msgspec.convert(raw, Scenario)
    except msgspec.ValidationError as error:
        raise Refused(f"{path}: {explain(_exact(error, raw), raw)}") from error
    scenario = msgspec.structs.replace(scenario, name=path.stem, claim=claim_of(text))
    try:
        check(scenario)
    except Refused as error:
        raise Refused(f"{path}: {error}") from error
    return scenario


def dump(scenario: Scenario) -> str:
    """A file that `load` reads back as this scenario; what is at its default is left out."""
    comment = "".join(f"# {line}\n" for line in scenario.claim.splitlines())
    raw = msgspec.to_builtins(scenario)
    body = {key: value for key, value in raw.items() if key not in ("name", "claim")}
    plain = _without_defaults(scenario, body)
    return comment + yaml.safe_dump(plain, sort_keys=False, default_flow_style=None, width=100)


def claim_of(text: str) -> str:
    """The comment that a file begins with."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("#").strip())
    return "\n".join(lines).strip()


def explain(error: msgspec.ValidationError, raw: Any = None) -> str:
    """The field's path, what is wrong there, and where it helps what would be right."""
    message, _, where = str(error).partition(" - at `")
    path = where.rstrip("`").removeprefix("$").removeprefix(".") or "top level"
    kind = _at(raw, path)
    if "unknown field" in message and (known := _fields(path, kind)):
        message += f"; known here: {', '.join(known)}"
    if "Invalid value" in message and path.endswith(".run"):
        message += f"; known workloads: {', '.join(sorted(_workloads()))}"
    return f"{path}: {message}"


def _exact(error: msgspec.ValidationError, raw: dict[str, Any]) -> msgspec.ValidationError:
    """The error with the name of the group that it is about, which msgspec leaves open: topology.peers[...]."""
    if "$.topology.peers[...]" not in str(error):
        return error
    for name, spec in raw["topology"]["peers"].items():
        try:
            msgspec.convert(spec, PeersSpec)
        except msgspec.ValidationError as found:
            message, _, where = str(found).partition(" - at `")
            where = where.rstrip("`").removeprefix("$")
            return msgspec.ValidationError(f"{message} - at `$.topology.peers.{name}{where}`")
    return error


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise Refused(f"{path}: larger than {MAX_FILE_BYTES} bytes: this is no scenario")
        return path.read_text()
    except OSError as error:
        raise Refused(f"{path}: {error.strerror}; name a scenario file") from error
    except UnicodeDecodeError as error:
        raise Refused(f"{path}: is not text; name a scenario file") from error


def _parsed(text: str, path: Path) -> dict[str, Any]:
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise Refused(f"{path}{where}: is not YAML: {getattr(error, 'problem', error)}") from error
    if not isinstance(raw, dict):
        raise Refused(f"{path}: holds no mapping; a scenario begins with duration_s")
    for name in ("name", "claim"):
        if name in raw:
            raise Refused(f"{path}: {name}: comes from the file itself; leave it out")
    return raw


def _set(raw: Any, override: str) -> None:
    """One --set: the path as error messages print it."""
    path, equals, text = override.partition("=")
    keys = _keys(path)
    if not equals or not keys:
        raise Refused(f"--set {override}: write PATH=VALUE, such as workloads[0].rate_per_s=50")
    place = raw
    for depth, key in enumerate(keys[:-1]):
        place = _step(place, key, keys[depth + 1], override)
    last = keys[-1]
    if not (isinstance(place, dict) if isinstance(last, str) else _holds(place, last)):
        raise Refused(f"--set {override}: there is no {path} in the file")
    place[last] = yaml.safe_load(text)


def _holds(place: Any, number: int) -> bool:
    return isinstance(place, list) and number < len(place)


def _step(place: Any, key: str | int, following: str | int, override: str) -> Any:
    if isinstance(key, int) and _holds(place, key):
        return place[key]
    if isinstance(place, dict) and isinstance(key, str):
        return place.setdefault(key, {}) if isinstance(following, str) else place.get(key)
    raise Refused(f"--set {override}: there is no {key} at this place of the file")


def _keys(path: str) -> list[str | int]:
    dotted = NUMBERED.sub(r"[\1]", path)
    if PATH.sub("", dotted):
        return []
    return [int(number) if number else name for name, number in PATH.findall(dotted) if name or number]


def _at(raw: Any, path: str) -> str:
    """The `run` of the workload that a path is in."""
    keys = _keys(path)
    if keys[:1] == ["workloads"] and len(keys) > 1 and isinstance(keys[1], int):
        entries = raw.get("workloads", ()) if isinstance(raw, Mapping) else ()
        entry = entries[keys[1]] if keys[1] < len(entries) else {}
        return str(entry.get("run", "")) if isinstance(entry, Mapping) else ""
    return ""


def _workloads() -> dict[str, type[msgspec.Struct]]:
    entries = msgspec.inspect.type_info(Scenario)
    assert isinstance(entries, msgspec.inspect.StructType)
    (field,) = (each for each in entries.fields if each.name == "workloads")
    assert isinstance(field.type, msgspec.inspect.VarTupleType)
    union = field.type.item_type
    assert isinstance(union, msgspec.inspect.UnionType)
    kinds = [each for each in union.types if isinstance(each, msgspec.inspect.StructType)]
    return {str(kind.tag): kind.cls for kind in kinds}


def _fields(path: str, run: str) -> tuple[str, ...]:
    """The names that would be right at a path."""
    keys = _keys(path)
    if run:
        return _workloads()[run].__struct_fields__ if run in _workloads() else ()
    kind: Any = msgspec.inspect.type_info(Scenario)
    for key in keys if path != "top level" else ():
        kind = _below(kind, key)
    names = kind.cls.__struct_fields__ if isinstance(kind, msgspec.inspect.StructType) else ()
    return tuple(name for name in names if name not in ("name", "claim"))


def _below(kind: Any, key: str | int) -> Any:
    if isinstance(kind, msgspec.inspect.DictType):
        return kind.value_type
    if isinstance(kind, msgspec.inspect.StructType):
        kind = next((field.type for field in kind.fields if field.name == key), None)
    if isinstance(kind, msgspec.inspect.UnionType):  # "or None"
        kind = next((each for each in kind.types if isinstance(each, msgspec.inspect.StructType)), None)
    return kind


def _without_defaults(value: Any, raw: Any) -> Any:
    if isinstance(value, msgspec.Struct) and isinstance(raw, dict):
        kept = (
            dict.fromkeys((value.__struct_config__.tag_field or "",)) if value.__struct_config__.tag else {}
        )
        defaults = _defaults(type(value))
        return {
            name: _without_defaults(getattr(value, name, None), each)
            for name, each in raw.items()
            if name in kept or name not in defaults or getattr(value, name) != defaults[name]
        }
    if isinstance(value, dict) and isinstance(raw, dict):
        return {name: _without_defaults(value[name], raw[name]) for name in raw}
    if isinstance(value, tuple) and isinstance(raw, list | tuple):
        return [_without_defaults(each, plain) for each, plain in zip(value, raw, strict=True)]
    return raw


def _defaults(kind: type[msgspec.Struct]) -> dict[str, Any]:
    info = msgspec.inspect.type_info(kind)
    assert isinstance(info, msgspec.inspect.StructType)
    return {field.name: _default(field) for field in info.fields}


def _default(field: msgspec.inspect.Field) -> Any:
    return field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
