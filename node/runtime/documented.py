"""A configuration's fields, each with its default and its meaning, as a file to start from."""

import msgspec
import yaml
from msgspec import Struct


def documented_defaults(kind: type[Struct], indent: str = "") -> str:
    """A YAML file with every field at its default, each under a comment that says what it is for."""
    lines = [f"# {kind.__doc__}"] if kind.__doc__ and not indent else []
    info = msgspec.inspect.type_info(kind)
    assert isinstance(info, msgspec.inspect.StructType)
    for field in info.fields:
        if isinstance(field.type, msgspec.inspect.StructType):
            lines += [f"{indent}{field.name}:", documented_defaults(field.type.cls, indent + "  ").rstrip()]
        else:
            extra = getattr(field.type, "extra_json_schema", None) or {}
            lines.append(f"{indent}# {extra.get('description', '')}")
            value = yaml.safe_dump(msgspec.to_builtins(field.default), default_flow_style=True, width=1_000)
            lines.append(f"{indent}{field.name}: {value.removesuffix('...' + chr(10)).strip()}")
    return "\n".join(lines) + "\n"
