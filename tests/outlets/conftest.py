"""Outlets meet real receivers; the relay meets real databases."""

from tests.support.turned import database_of_the_module, dsn, still, still_settings

__all__ = ["database_of_the_module", "dsn", "still", "still_settings"]
