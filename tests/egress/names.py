"""Answers of a name server under the test's control, put in the place of the system's."""

import socket
from collections.abc import Callable
from typing import Any

import pytest

Info = tuple[int, int, int, str, tuple[Any, ...]]


def told(monkeypatch: pytest.MonkeyPatch, answer: Callable[[str], list[str]]) -> None:
    """Names that end in `.test` get the addresses of `answer(name)`; all others are looked up."""
    real = socket.getaddrinfo

    def look_up(host: Any, port: Any, *args: Any, **kwargs: Any) -> list[Info]:
        if not str(host).endswith(".test"):
            return list(real(host, port, *args, **kwargs))
        return [_info(address, port) for address in answer(str(host))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


def _info(address: str, port: int) -> Info:
    if ":" in address:
        return (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, port, 0, 0))
    return (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
