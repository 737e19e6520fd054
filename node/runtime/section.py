"""What every part of a configuration is made of."""

from typing import Any

from msgspec import Meta, Struct


class Section(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A part of a configuration file."""


def about(text: str, **limits: Any) -> Meta:
    """What a field is for, in one sentence."""
    return Meta(description=text, **limits)
