"""Real requests, which the mutator starts from."""

from collections.abc import Mapping, Sequence

import orjson

from tests.support.api import token

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
JOB = {
    "kind": "echo",
    "payload": {"x": [1, 2.5, "ü€😀", None, True, -0.0, 9007199254740992], "": {"a": {"b": []}}},
    "queue": "mail-out",
    "priority": 9,
    "max_attempts": 2,
    "backoff": {"kind": "linear", "base_s": 3, "factor": 1, "max_s": 9, "jitter": "equal"},
    "timeout_s": 12.5,
    "on_lost": "dead",
    "tags": ["a", "b"],
}
LATER = {"kind": "nobody", "run_at": "2027-01-01T00:00:00.5+01:00", "payload": "x\\u0000y"}
SOON = {"kind": "echo", "delay_s": 60}
BARE = {"kind": "echo"}
CALL = {"kind": "http", "payload": {"url": "http://127.0.0.1:9/", "headers": {"a": "b"}}}
MARK = "0123456789abcdef"  # of a group of dead letters, or an endpoint
FLOW = {
    "name": "flow",
    "on_failure": "stop",
    "jobs": [
        {"name": "a", **BARE},
        {"name": "b", **BARE, "depends_on": ["a"], "payload": {"$result": "a", "pointer": "/x"}},
        {"name": "c", "kind": "workflow", "payload": {"jobs": [{"name": "x", **BARE}]}},
        {"name": "d", **BARE, "depends_on": ["b", "c"], "run_if": "all_finished"},
    ],
}


def seeds(ids: Sequence[str]) -> list[bytes]:
    """Requests of all kinds; `ids` are of jobs that exist."""
    admin = f"Bearer {token()}"
    return [
        *_submissions(admin),
        *_of_jobs(admin, ids),
        *_of_what_leaves(admin, ids),
        *_of_operators(admin),
        *_others(admin),
    ]


def _submissions(admin: str) -> list[bytes]:
    jobs = [orjson.dumps(job) for job in (JOB, JOB, JOB, LATER, LATER, CALL, SOON, BARE)]
    batch = orjson.dumps({"jobs": [JOB, LATER, BARE]})
    wishes = {"Expect": "100-continue", "Prefer": "wait=1", "traceparent": TRACE}
    one = request("POST", "/v1/jobs", admin, jobs[0])
    return [
        *(request("POST", "/v1/jobs", admin, job) for job in jobs),
        *(chunked("/v1/jobs", admin, job) for job in jobs),
        *[request("POST", "/v1/jobs/batch", admin, batch)] * 4,
        chunked("/v1/jobs/batch", admin, batch),
        *[request("POST", "/v1/workflows", admin, orjson.dumps(FLOW))] * 4,
        request("POST", "/v1/jobs", admin, jobs[0], wishes),
        one + request("GET", "/livez") + one,  # pipelined
    ]


def _of_jobs(admin: str, ids: Sequence[str]) -> list[bytes]:
    reads = [f"/v1/jobs/{id_}{rest}" for id_ in ids for rest in ("", "/attempts", "/logs")]
    writes = [f"/v1/jobs/{id_}/{verb}" for id_ in ids for verb in ("cancel", "retry")]
    return [
        *(request("GET", path, admin) for path in reads),
        *(request("POST", path, admin) for path in writes),
    ]


def _of_what_leaves(admin: str, ids: Sequence[str]) -> list[bytes]:
    """Dead letters, deliveries, endpoints. Nobody is where messages are sent."""
    reads = (
        "/v1/dead-letters?which=all&queue=default&kind=fail&error_type=E&limit=5",
        *(f"/v1/{name}?job_id={ids[0]}" for name in ("dead-letters", "deliveries")),
        f"/v1/dead-letters/groups?queue=default&kind=fail&fingerprint={MARK}",
        f"/v1/deliveries?channel=webhook&outcome=pending&workflow_id={ids[0]}",
        "/v1/endpoints?limit=3",
        f"/v1/deliveries/{ids[0]}",
    )
    filter_ = {"queue": ["nowhere"], "kind": ["a"], "error_type": ["E"], "fingerprint": [MARK]}
    writes = {
        f"/v1/dead-letters/{ids[0]}/replay": {"payload": {"x": 1}, "queue": "mail-out"},
        "/v1/dead-letters/replay": {"filter": filter_, "rate_per_s": 0.5, "dry_run": True},
        f"/v1/deliveries/{ids[0]}/resend": {},
        "/v1/endpoints/enable": {"id": MARK},
        "/v1/notifications/test": {"webhook": "http://127.0.0.1:9/a?b=c"},
    }
    notify = [{"on": ["dead", "succeeded"], "webhook": "http://127.0.0.1:9/a"}]
    job = {**SOON, "notify": notify}
    return [
        *(request("GET", path, admin) for path in reads),
        *(request("POST", path, admin, orjson.dumps(body)) for path, body in writes.items()),
        request("DELETE", f"/v1/dead-letters/{ids[0]}", admin),
        request("POST", "/v1/jobs", admin, orjson.dumps(job)),
    ]


def _of_operators(admin: str) -> list[bytes]:
    """The audit log, the settings."""
    via = {"X-Forwarded-For": "203.0.113.7, [2001:db8::1]:443, 127.0.0.1"}
    audit = (
        "/v1/audit?actor=tests&action=job.cancel&object=job&object_id=a%0D%0Ab&queue=default"
        "&outcome=refused&request_id=a&created_after=2026-01-01T00:00:00Z&limit=5"
    )
    return [
        request("GET", audit, admin, extra=via),
        request("GET", "/v1/config", admin, extra=via),
        request("GET", "/v1/config", f"Bearer {token('viewer')}"),
        request("GET", "/v1/workers?limit=5", admin),
        *[request("POST", "/v1/config/reload", admin, b"{}", via)] * 2,
        request("POST", "/v1/queues/mail-out/pause", f"Bearer {token('viewer')}", b"{}", via),
    ]


def _others(admin: str) -> list[bytes]:
    reads = (
        *("/v1/jobs?state=ready&kind=echo&limit=5", "/v1/queues", "/v1/queues/default"),
        "/v1/workflows?state=running&name=flow&limit=5",
    )
    open_ = ("/livez", "/readyz", "/metrics", "/", "/openapi.json")
    upgrade = {"Upgrade": "websocket", "Connection": "Upgrade"}
    return [
        *(request("GET", path, admin) for path in reads),
        *(request("GET", path) for path in open_),
        *(request("POST", f"/v1/queues/fuzz/{v}", admin, b"{}") for v in ("pause", "resume")),
        *(request(verb, "/v1/jobs", admin) for verb in ("HEAD", "OPTIONS", "PUT", "TRACE")),
        request("GET", "/v1/queues", admin, extra=upgrade),
        request("GET", "/v1/queues", "Bearer e30.e30.e30", extra={"X-Request-Id": "a-b_c.1"}),
    ]


def request(
    method: str,
    path: str,
    authorization: str | None = None,
    body: bytes | None = None,
    extra: Mapping[str, str] | None = None,
) -> bytes:
    headers = {"Host": "penstock.test", "User-Agent": "fuzz"}
    if authorization is not None:
        headers["Authorization"] = authorization
    if body is not None:
        headers |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
    lines = "".join(f"{name}: {value}\r\n" for name, value in {**headers, **(extra or {})}.items())
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode() + (body or b"")


def chunked(path: str, authorization: str, body: bytes) -> bytes:
    """The same as a body of three chunks."""
    third = len(body) // 3 + 1
    parts = [body[i : i + third] for i in range(0, len(body), third)]
    sent = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
    extra = {"Content-Type": "application/json", "Transfer-Encoding": "chunked"}
    return request("POST", path, authorization, extra=extra) + sent
