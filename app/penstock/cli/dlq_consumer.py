"""`penstock dlq-consumer`: alerts on dead letters, from the topic that they go to."""

import click

from penstock.cli.looping import run


@click.command("dlq-consumer")
def dlq_consumer() -> None:
    """Read the topic of dead letters and alert by the rules of alerts.rules.

    An alert is a line of the log, and a webhook or an e-mail where its rule names one. Needs
    neither PostgreSQL nor Redis. Runs until SIGTERM or Ctrl-C.
    """
    from penstock.alerting import Parts, watch_topic
    from penstock.settings import (
        Alerts,
        Egress,
        Kafka,
        Log,
        Smtp,
        Webhook,
        environment,
        load_section,
    )
    from penstock.telemetry import logs

    environ = environment()
    log = load_section(Log, environ)
    logs.set_up(log.level, log.format, waiting_max=log.waiting_max)
    parts = Parts(
        load_section(Kafka, environ),
        load_section(Alerts, environ),
        load_section(Webhook, environ),
        load_section(Smtp, environ),
        load_section(Egress, environ),
    )
    run(watch_topic(parts, _tell))


def _tell(topic: str) -> None:
    click.echo(f"penstock: reading {topic}", err=True)
