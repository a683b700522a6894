"""Drives a running stack: `python -m tests.smoke --help`. Status 1: something didn't happen."""

import argparse
import asyncio
import functools
import os
import shlex
import sys

from tests.smoke.drive import Stack, drive


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.smoke", description=drive.__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8080", help="the API")
    parser.add_argument("--kafka", metavar="HOST:PORT", help="where dead letters must arrive")
    parser.add_argument("--mail", metavar="URL", help="Mailpit, where mail must arrive")
    parser.add_argument("--kill", metavar="COMMAND", help="what kills the replica on {host}")
    parser.add_argument("--token", help="an admin's; or in TOKEN", default=os.environ.get("TOKEN"))
    given = parser.parse_args()
    if not given.token:
        parser.error("a token is needed: --token, or the variable TOKEN")
    kill = functools.partial(_run, given.kill) if given.kill else None
    asyncio.run(drive(Stack(given.url, given.token, given.kafka, given.mail, kill), _say))


def _say(text: str) -> None:
    sys.stdout.write(f"smoke: {text}\n")
    sys.stdout.flush()


async def _run(command: str, host: str) -> None:
    words = [word.replace("{host}", host) for word in shlex.split(command)]
    process = await asyncio.create_subprocess_exec(*words)
    status = await process.wait()
    # A shell that is told to kill all about it may end by that itself.
    assert status in (0, 137), f"{command} ended with {status}"


if __name__ == "__main__":
    main()
