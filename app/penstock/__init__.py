"""Penstock: a job scheduling server on PostgreSQL and Redis."""

VERSION = "0.1.0"
