"""Which release this is."""

from importlib.metadata import PackageNotFoundError, version


def release() -> str:
    """The installed version."""
    try:
        return version("lnsim")
    except PackageNotFoundError:
        return "unknown"
