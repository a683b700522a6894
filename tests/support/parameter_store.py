"""SSM for the tests: moto's server, a process of its own that speaks AWS' protocol over HTTP; and
one that answers everything alike, as a refusal of AWS' or as another service would."""

import itertools
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from penstock.dev.process import tethered
from tests.support.brokers import listens
from tests.support.ports import free_port

_START_S = 30.0
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
}
_numbers = itertools.count()


class ParameterStore:
    """`with ParameterStore(directory) as store:`. `environ` is what finds it."""

    def __init__(self, directory: Path) -> None:
        self._log = directory / "moto.log"
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self.environ = {**CREDENTIALS, "AWS_REGION": "eu-west-1", "AWS_ENDPOINT_URL": self.url}

    def __enter__(self) -> Self:
        command = [sys.executable, "-W", "ignore", "-m", "moto.server", "-p", str(self._port)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                tethered([*command, "-H", "127.0.0.1"], signal.SIGKILL), stdout=log, stderr=log
            )
        give_up_at = time.monotonic() + _START_S
        while not listens(self._port):
            if self._process.poll() is not None or time.monotonic() > give_up_at:
                raise AssertionError(f"moto didn't start:\n{self._log.read_text()[-2000:]}")
            time.sleep(0.02)
        return self

    def __exit__(self, *raised: object) -> None:
        self._process.kill()
        self._process.wait(10)

    def path(self) -> str:
        """One that nobody has used."""
        return f"/penstock/{next(_numbers)}"

    def put(self, path: str, values: Mapping[str, str], kind: str = "String") -> None:
        """Parameters below a path, anew or for the first time."""
        client = self._client()
        for name, value in values.items():
            client.put_parameter(Name=f"{path}/{name}", Value=value, Type=kind, Overwrite=True)

    def drop(self, path: str, *names: str) -> None:
        self._client().delete_parameters(Names=[f"{path}/{name}" for name in names])

    def _client(self) -> Any:
        import boto3  # noqa: PLC0415 # for those tests only that use it

        return boto3.client(
            "ssm",
            endpoint_url=self.url,
            region_name="eu-west-1",
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
        )


class Answering(ThreadingHTTPServer):
    """Answers every call alike; counts them."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status, self.body = status, body
        self.calls = 0
        self.environ = {
            **CREDENTIALS,
            "AWS_REGION": "eu-west-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.server_address[1]}",
        }


class _Handler(BaseHTTPRequestHandler):
    server: Answering

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.calls += 1
        self.send_response(self.server.status)
        self.send_header("Content-Type", "application/x-amz-json-1.1")
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def answering(status: int, body: bytes) -> Iterator[Answering]:
    with Answering(status, body) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def refusing(code: str, message: str = "") -> Iterator[Answering]:
    """With an error of AWS'."""
    with answering(400, json.dumps({"__type": code, "message": message}).encode()) as server:
        yield server
