"""Every setting, typed, with unit and limit; the only reader of YAML and of the environment."""

from penstock.settings.auth import Auth
from penstock.settings.brokers import AlertRule, Alerts, Kafka, RabbitMq
from penstock.settings.loading import Setting, describe, given_keys, load, load_section, survey
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
    Postgres,
    Queue,
    Redis,
    Retention,
    Settings,
)
from penstock.settings.sources import SettingsError, environment, near_misses, without_settings
from penstock.settings.values import Role
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
    "Webhook",
    "Worker",
    "describe",
    "environment",
    "given_keys",
    "load",
    "load_section",
    "near_misses",
    "survey",
    "without_settings",
]
