"""Where the files are that ship beside the code: the configuration and the migrations.

In a checkout (an editable install) they are at its root, in a wheel inside the package.
"""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_CHECKOUT = _PACKAGE.parent.parent
_SHIPPED = _PACKAGE / "_shipped"


def config_dir() -> Path:
    """The directory of base.yaml and <environment>.yaml."""
    return _place("config")


def migrations_dir() -> Path:
    """The directory of 0001_what.sql and its followers."""
    return _place("migrations")


def _place(name: str) -> Path:
    shipped = _SHIPPED / name
    return shipped if shipped.is_dir() else _CHECKOUT / name
