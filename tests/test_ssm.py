"""Settings in AWS SSM Parameter Store, over HTTP."""

import subprocess
import sys

import pytest

from penstock.settings import SettingsError, SourceUnavailable, describe, fetch_parameters, load
from tests.support.parameter_store import CREDENTIALS, ParameterStore, answering, refusing
from tests.support.ports import free_port
from tests.test_settings import SECRETS


@pytest.fixture(autouse=True)
def _aws(monkeypatch: pytest.MonkeyPatch) -> None:
    """AWS' client finds its credentials in the process' environment only."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)


def test_the_tree_is_a_path_and_each_value_has_its_settings_type(
    parameter_store: ParameterStore,
) -> None:
    path = parameter_store.path()
    plain = {
        "http/port": "1001",
        "http/keepalive_s": "11",
        "roles": '["api", "worker"]',
        "kinds/fail/max_attempts": "3",
        "kinds/mail.send/backoff/base_s": "0.5",
        "kinds/mail/send/backoff/kind": "fixed",
        "kafka/tls": "true",
        "queues": '{"mail*": {"strict": true}}',
    }
    parameter_store.put(path, plain)
    parameter_store.put(path, {"worker/queues": "mail, bills"}, "StringList")
    secret = {"postgres/dsn": "postgres://u:hush@h/d\n"}
    parameter_store.put(path, secret, "SecureString")
    parameter_store.put(f"{path}0", {"http/port": "not ours"})
    environ = {
        **parameter_store.environ,
        "PENSTOCK_SSM_PATH": f"{path}/",
        "PENSTOCK_REDIS__URL": SECRETS["PENSTOCK_REDIS__URL"],
        "PENSTOCK_AUTH__JWT_SECRET": SECRETS["PENSTOCK_AUTH__JWT_SECRET"],
        "PENSTOCK_HTTP__KEEPALIVE_S": "12",
        "PENSTOCK_KINDS__FAIL__TIMEOUT_S": "4",
    }
    settings = load(environ)
    assert (settings.http.port, settings.http.keepalive_s) == (1001, 12)
    assert settings.roles == ("api", "worker")
    assert settings.worker.queues == ("mail", "bills")
    assert settings.kafka.tls is True
    assert settings.postgres.dsn.get_secret_value() == "postgres://u:hush@h/d"
    fail, mail = settings.kinds["fail"], settings.kinds["mail.send"]
    assert (fail.max_attempts, fail.timeout_s) == (3, 4)
    assert (mail.backoff.base_s, mail.backoff.kind) == (0.5, "fixed")
    assert settings.queues["mail*"].strict is True

    shown = {one.key: one for one in describe(settings)}
    assert shown["http.port"].source == f"SSM parameter {path}/http/port"
    assert (
        shown["kinds.fail.max_attempts"].source == f"SSM parameter {path}/kinds/fail/max_attempts"
    )
    assert shown["postgres.dsn"].source == f"SSM parameter {path}/postgres/dsn"
    assert "hush" not in str(shown)


def test_all_pages_are_read_and_a_later_look_sees_what_changed(
    parameter_store: ParameterStore,
) -> None:
    path = parameter_store.path()
    parameter_store.put(path, {f"kinds/k{n}/priority": str(n % 10) for n in range(23)})
    environ = {**SECRETS, **parameter_store.environ, "PENSTOCK_SSM_PATH": path}
    assert {name: kind.priority for name, kind in load(environ).kinds.items()} == {
        f"k{n}": n % 10 for n in range(23)
    }
    parameter_store.put(path, {"kinds/k0/priority": "9"})
    parameter_store.drop(path, "kinds/k1/priority")
    assert load(environ).kinds["k0"].priority == 0  # a process' own look is its first
    kinds = load(environ, parameters=fetch_parameters(environ)).kinds
    assert kinds["k0"].priority == 9
    assert "k1" not in kinds


def test_what_is_wrong_there_is_told_by_its_parameter_and_all_at_once(
    parameter_store: ParameterStore,
) -> None:
    path = parameter_store.path()
    wrong = {
        "http/prot": "1",
        "http/port": "web",
        "kinds/fail/max_attempts": "0",
        "roles": "api",
        "auth/jwt_secret": "hush",
    }
    parameter_store.put(path, wrong)
    parameter_store.put(path, {"log/level": "info,debug"}, "StringList")
    environ = {**parameter_store.environ, "PENSTOCK_SSM_PATH": path}
    with pytest.raises(SettingsError) as caught:
        load({**environ, **{k: v for k, v in SECRETS.items() if "JWT" not in k}})
    assert not isinstance(caught.value, SourceUnavailable)
    for words in (
        "6 settings are wrong",
        f"SSM parameter {path}/http/prot: http.prot is not a setting: did you mean http.port?",
        f"SSM parameter {path}/http/port: http.port = 'web'",
        f"SSM parameter {path}/kinds/fail/max_attempts: kinds.fail.max_attempts = '0'",
        f"SSM parameter {path}/roles: roles must be a JSON list",
        f"SSM parameter {path}/auth/jwt_secret: auth.jwt_secret: must have at least 32 bytes",
        f"SSM parameter {path}/log/level: log.level is no list: make it a String",
    ):
        assert words in str(caught.value)
    assert "hush" not in str(caught.value)


def refusal(environ: dict[str, str]) -> str:
    """What both a start and a later look say."""
    with pytest.raises(SourceUnavailable) as fetching:
        fetch_parameters(environ)
    with pytest.raises(SourceUnavailable, match=r".") as loading:
        load({**SECRETS, **environ})
    assert str(fetching.value) == str(loading.value)
    assert "\n" not in str(loading.value)
    return str(loading.value)


def test_a_path_without_parameters_is_told_with_the_region(parameter_store: ParameterStore) -> None:
    path = parameter_store.path()
    told = refusal({**parameter_store.environ, "PENSTOCK_SSM_PATH": path})
    assert f"PENSTOCK_SSM_PATH is {path}, but there is no parameter below it in eu-west-1" in told


@pytest.mark.parametrize("path", ["", "/", "penstock", "/a//b", "/a b", "arn:aws:ssm:::parameter"])
def test_a_path_that_is_none_is_told(path: str) -> None:
    with pytest.raises(SettingsError, match=r"PENSTOCK_SSM_PATH is .* a path like /penstock/"):
        load({**SECRETS, "PENSTOCK_SSM_PATH": path})


@pytest.mark.parametrize(
    ("code", "words", "calls"),
    [
        ("AccessDeniedException", "allow ssm:GetParametersByPath", 1),
        ("ThrottlingException", "too many requests", 3),
        ("ExpiredTokenException", "too old AWS_PROFILE", 1),
        ("UnrecognizedClientException", "wrong AWS_ACCESS_KEY_ID", 1),
        ("SomethingElse", "who knows", 1),
    ],
)
def test_what_aws_refuses_is_told_with_the_way_out_after_few_tries(
    code: str, words: str, calls: int
) -> None:
    with refusing(code, "who knows") as aws:
        environ = {**aws.environ, "PENSTOCK_SSM_PATH": "/penstock/x"}
        with pytest.raises(SourceUnavailable) as caught:
            fetch_parameters(environ)
    assert aws.calls == calls
    for word in ("PENSTOCK_SSM_PATH is /penstock/x", code, *words.split()):
        assert word in str(caught.value)


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b"<html>welcome</html>",
        b"[]",
        b'{"Parameters": null}',
        b'{"Parameters": ["a"]}',
        b'{"Parameters": [{"Value": "1", "Type": "String"}]}',
        b'{"Parameters": [{"Name": "/p/http/port", "Type": "String"}]}',
        b'{"Parameters": [{"Name": "/p/http/port", "Type": "String", "Value": 1}]}',
    ],
)
def test_another_service_at_the_endpoint_is_told(body: bytes) -> None:
    with answering(200, body) as other:
        environ = {**SECRETS, **other.environ, "PENSTOCK_SSM_PATH": "/p"}
        with pytest.raises(SourceUnavailable, match="no Parameter Store: see AWS_ENDPOINT_URL"):
            load(environ)


def test_what_aws_says_is_one_line_that_no_terminal_obeys() -> None:
    with (
        refusing("Odd\r\nException", 'a\n\x1b[31m{"level": "error"}') as aws,
        pytest.raises(SourceUnavailable) as told,
    ):
        load({**SECRETS, **aws.environ, "PENSTOCK_SSM_PATH": "/p"})
    assert str(told.value).isprintable()


def test_an_endpoint_out_of_reach_is_told() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    environ = {"AWS_REGION": "eu-west-1", "AWS_ENDPOINT_URL": url, "PENSTOCK_SSM_PATH": "/p"}
    with pytest.raises(SourceUnavailable, match=url):
        fetch_parameters(environ)


def test_no_credentials_and_no_region_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    told = refusal({"AWS_REGION": "eu-west-2", "PENSTOCK_SSM_PATH": "/p"})
    assert "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE" in told
    assert "set AWS_REGION" in refusal({"PENSTOCK_SSM_PATH": "/p"})


def test_a_source_that_is_away_hides_no_other_mistake_and_blames_nobody_for_it() -> None:
    environ = {"PENSTOCK_SSM_PATH": "/p", "PENSTOCK_HTTP__PORT": "web"}
    with pytest.raises(SourceUnavailable) as caught:
        load(environ)  # what is required may be there
    told = str(caught.value).splitlines()
    assert told[0] == "2 settings are wrong:"
    assert "AWS_REGION" in told[1]
    assert "http.port = 'web'" in told[2]


def test_without_boto3_the_way_out_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*sys.modules]:
        if name.partition(".")[0] in ("boto3", "botocore"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "boto3", None)
    monkeypatch.setitem(sys.modules, "botocore", None)
    with pytest.raises(SettingsError, match=r"pip install 'penstock\[aws\]', or unset") as caught:
        load({**SECRETS, "PENSTOCK_SSM_PATH": "/p"})
    assert not isinstance(caught.value, SourceUnavailable)


def test_without_a_path_boto3_is_not_imported() -> None:
    code = (
        "import sys; from penstock.settings import load; "
        f"load({SECRETS!r}); assert not {{'boto3', 'botocore'}} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": "app"})
