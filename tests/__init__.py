"""Every test; real PostgreSQL and Redis always."""
