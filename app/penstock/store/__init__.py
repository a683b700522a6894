"""What we remember: PostgreSQL. The only room that imports asyncpg."""
