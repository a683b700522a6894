"""Embedded PostgreSQL and Redis: real servers for `penstock dev` and the tests."""

from penstock.dev.find import EmbeddedError
from penstock.dev.postgres import EmbeddedPostgres
from penstock.dev.process import EmbeddedServer
from penstock.dev.redis import EmbeddedRedis

__all__ = ["EmbeddedError", "EmbeddedPostgres", "EmbeddedRedis", "EmbeddedServer"]
