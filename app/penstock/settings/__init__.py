"""Every setting, typed, with unit and limit; the only reader of YAML and of the environment."""

from penstock.settings.auth import Auth
from penstock.settings.brokers import AlertRule, Alerts, Kafka, RabbitMq
from penstock.settings.loading import Setting, describe, given_keys, load, load_section, survey
from penstock.settings.names import SettingsError, SourceUnavailable
from penstock.settings.notifications import Notifications, Smtp, Webhook
from penstock.settings.rate_limits import RateLimit, RateLimits
from penstock.settings.section import Section
from penstock.settings.sections import (
    Dev,
    Egress,
    Handlers,
    Http,
    Jobs,
    Log,
    Queue,
    Retention,
    Settings,
)
from penstock.settings.servers import Postgres, Redis
from penstock.settings.ssm import Parameters
from penstock.settings.ssm import fetch as fetch_parameters
from penstock.settings.values import Role
from penstock.settings.variables import environment, near_misses, without_settings
from penstock.settings.worker import Worker

__all__ = [
    "AlertRule",
    "Alerts",
    "Auth",
    "Dev",
    "Egress",
    "Handlers",
    "Http",
    "Jobs",
    "Kafka",
    "Log",
    "Notifications",
    "Parameters",
    "Postgres",
    "Queue",
    "RabbitMq",
    "RateLimit",
    "RateLimits",
    "Redis",
    "Retention",
    "Role",
    "Section",
    "Setting",
    "Settings",
    "SettingsError",
    "Smtp",
    "SourceUnavailable",
    "Webhook",
    "Worker",
    "describe",
    "environment",
    "fetch_parameters",
    "given_keys",
    "load",
    "load_section",
    "near_misses",
    "survey",
    "without_settings",
]
