"""The settings of the two servers that Penstock stands on: PostgreSQL and Redis."""

from typing import Literal, Self

from pydantic import Field, model_validator

from penstock.domain.safety import PostgresRisk, RedisRisk
from penstock.settings import tls
from penstock.settings.section import Section
from penstock.settings.values import CaFile, Dsn, RedisUrl

_CHECKS_CA = ("verify-ca", "verify-full")


class Postgres(Section):
    """The store of record."""

    dsn: Dsn = Field(description="where it is: postgres://user:password@host:port/database")
    tls: Literal["disable", "prefer", "require", "verify-ca", "verify-full"] | None = Field(
        None, description="verify-full checks CA and name; none = as sslmode in the DSN, or prefer"
    )
    ca_file: CaFile | None = Field(
        None, description="certificates to trust (PEM); none = the system's"
    )
    cert_file: str | None = Field(None, min_length=1, description="our certificate (PEM)")
    key_file: str | None = Field(None, min_length=1, description="its key (PEM, no password)")
    accepted_risks: tuple[PostgresRisk, ...] = Field(
        (), max_length=10, description="faults of the server that don't stop a start"
    )
    connect_timeout_s: float = Field(3, ge=0.1, le=60, description="longest time to connect")
    command_timeout_s: float = Field(5, ge=0.1, le=600, description="longest time of a statement")
    boot_wait_s: float = Field(
        60, ge=0, le=3600, description="longest time that a start waits for it; 0 = not at all"
    )
    read_connections: int = Field(4, ge=1, le=100, description="pool that the API reads with")
    engine_connections: int = Field(
        6, ge=2, le=100, description="pool that submits, starts and settles jobs"
    )

    @model_validator(mode="after")
    def _speaks_tls_in_one_way(self) -> Self:
        in_dsn = tls.names_in_query(self.dsn.get_secret_value(), "ssl")
        ours = [f"postgres.{name}" for name in ("tls", "ca_file", "cert_file") if self._has(name)]
        if in_dsn and ours:
            raise ValueError(
                f"{in_dsn[0]} in postgres.dsn and {ours[0]} both say how to speak TLS: "
                f"drop {in_dsn[0]} from the DSN"
            )
        if self.ca_file and self.tls not in _CHECKS_CA:
            raise ValueError(
                "postgres.ca_file is of no use unless postgres.tls is verify-full (or verify-ca)"
            )
        if self.cert_file and self.tls in (None, "disable"):
            raise ValueError("postgres.cert_file is of no use without postgres.tls: verify-full")
        tls.demand_pair("postgres", self.cert_file, self.key_file)
        if self.tls in _CHECKS_CA and self.ca_file is None:
            try:
                tls.system_ca_file()
            except ValueError as error:
                raise ValueError(f"postgres.ca_file is required: {error}") from None
        return self

    def _has(self, name: str) -> bool:
        return getattr(self, name) is not None

    @property
    def address(self) -> str:
        """The DSN, with what these settings say about TLS: what every connection is made by."""
        checks = self.tls in _CHECKS_CA
        more = {
            "sslmode": self.tls,
            "sslrootcert": self.ca_file or (tls.system_ca_file() if checks else None),
            "sslcert": self.cert_file,
            "sslkey": self.key_file,
        }
        return tls.with_query(self.dsn.get_secret_value(), more)


class Redis(Section):
    """The queues."""

    url: RedisUrl = Field(
        description="where it is: redis://[user:password@]host:port/database; rediss:// for TLS"
    )
    ca_file: CaFile | None = Field(
        None, description="certificates to trust (PEM); none = the system's"
    )
    cert_file: str | None = Field(None, min_length=1, description="our certificate (PEM)")
    key_file: str | None = Field(None, min_length=1, description="its key (PEM, no password)")
    accepted_risks: tuple[RedisRisk, ...] = Field(
        (), max_length=10, description="faults of the server that don't stop a start"
    )
    timeout_s: float = Field(1, ge=0.05, le=60, description="longest time of a call")

    @model_validator(mode="after")
    def _speaks_tls_in_one_way(self) -> Self:
        url = self.url.get_secret_value()
        for name in ("ca_file", "cert_file"):
            if getattr(self, name) is None:
                continue
            if not url.startswith("rediss://"):
                raise ValueError(
                    f"redis.{name} is of no use unless redis.url begins with rediss://"
                )
            if in_url := tls.names_in_query(url, "ssl_"):
                raise ValueError(
                    f"{in_url[0]} in redis.url and redis.{name} both say how to speak TLS: "
                    f"drop {in_url[0]} from the URL"
                )
        tls.demand_pair("redis", self.cert_file, self.key_file)
        return self

    @property
    def address(self) -> str:
        """The URL, with what these settings say about TLS: what every connection is made by."""
        more = {
            "ssl_ca_certs": self.ca_file,
            "ssl_certfile": self.cert_file,
            "ssl_keyfile": self.key_file,
        }
        return tls.with_query(self.url.get_secret_value(), more)
