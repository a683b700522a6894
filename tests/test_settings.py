"""Settings: the order of sources, and what a wrong one says."""

import json
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from penstock import places
from penstock.settings import (
    Auth,
    Dev,
    SettingsError,
    describe,
    given_keys,
    load,
    load_section,
    near_misses,
    survey,
    without_settings,
)
from tests.support.tokens import public_pem, rsa_key, signer

SECRETS = {
    "PENSTOCK_POSTGRES__DSN": "postgres://penstock:hush@127.0.0.1/penstock",
    "PENSTOCK_REDIS__URL": "redis://:hush@127.0.0.1:6379/0",
    "PENSTOCK_AUTH__JWT_SECRET": "hush" * 8,
}


@pytest.fixture
def config_dir(tmp_path: Path) -> Path:
    (tmp_path / "base.yaml").write_text("http:\n  port: 1001\n  keepalive_s: 11\n")
    (tmp_path / "staging.yaml").write_text("http:\n  port: 1002\nworker:\n  queues: [mail]\n")
    return tmp_path


def refusal(environ: dict[str, str], config_dir: Path | None = None) -> str:
    with pytest.raises(SettingsError) as caught:
        load({**SECRETS, **environ}, config_dir)
    return str(caught.value)


def test_a_later_source_wins_and_the_others_stay(config_dir: Path) -> None:
    base = load(SECRETS, config_dir)
    assert (base.env, base.http.port, base.http.keepalive_s) == ("production", 1001, 11)

    staging = load({**SECRETS, "PENSTOCK_ENV": "staging"}, config_dir)
    assert (staging.http.port, staging.http.keepalive_s) == (1002, 11)
    assert staging.worker.queues == ("mail",)

    environ = {**SECRETS, "PENSTOCK_ENV": "staging", "PENSTOCK_HTTP__PORT": "1003"}
    assert load(environ, config_dir).http.port == 1003


def test_the_files_that_ship_are_right_in_every_environment() -> None:
    names = {path.stem for path in places.config_dir().glob("*.yaml")} - {"base"}
    for name in {*names, "production"}:
        load({**SECRETS, "PENSTOCK_ENV": name})


def test_production_runs_no_sample_handler_and_reaches_public_addresses_only() -> None:
    settings = load(SECRETS)
    assert settings.handlers.modules == ()
    assert settings.egress.allow == ()
    assert settings.http.host == "127.0.0.1"


def test_settings_are_frozen() -> None:
    settings = load(SECRETS)
    with pytest.raises(ValidationError):
        settings.http.port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"PENSTOCK_HTTP__PROT": "1"}, "PENSTOCK_HTTP__PROT did you mean PENSTOCK_HTTP__PORT?"),
        ({"PENSTOCK_HTTP_PORT": "1"}, "PENSTOCK_HTTP_PORT did you mean PENSTOCK_HTTP__PORT?"),
        ({"PENSTOCK_FOO": "1"}, "PENSTOCK_FOO is not a setting"),
        ({"PENSTOCK_HTTP": "{}"}, "PENSTOCK_HTTP is not a setting"),
        ({"PENSTOCK_WORKER__QUEUES_FILE": "/x"}, "PENSTOCK_WORKER__QUEUES_FILE not a setting"),
        ({"PENSTOCK_HTTP__PORT": "99999"}, "http.port PENSTOCK_HTTP__PORT 99999 65535"),
        ({"PENSTOCK_HTTP__PORT": "web"}, "http.port PENSTOCK_HTTP__PORT web integer"),
        ({"PENSTOCK_WORKER__TTL_S": "nan"}, "worker.ttl_s PENSTOCK_WORKER__TTL_S"),
        ({"PENSTOCK_ROLES": "api"}, "roles PENSTOCK_ROLES JSON list"),
        ({"PENSTOCK_ROLES": "[]"}, "roles PENSTOCK_ROLES at least 1"),
        ({"PENSTOCK_ROLES": '["api", "api"]'}, "roles PENSTOCK_ROLES twice"),
        ({"PENSTOCK_ROLES": '["apy"]'}, "roles PENSTOCK_ROLES apy 'scheduler'"),
        ({"PENSTOCK_EGRESS__ALLOW": '["10.0.0.1/8"]'}, "egress.allow 10.0.0.1/8 host bits"),
        ({"PENSTOCK_HANDLERS__MODULES": '["a b"]'}, "handlers.modules a b"),
        ({"PENSTOCK_POSTGRES__DSN": "mysql://x"}, "postgres.dsn postgresql://"),
        ({"PENSTOCK_REDIS__URL": "localhost"}, "redis.url redis://"),
        ({"PENSTOCK_ENV": "prodution"}, "PENSTOCK_ENV prodution development production"),
        ({"PENSTOCK_ENV": "../../etc"}, "PENSTOCK_ENV ../../etc"),
        ({"PENSTOCK_WORKER__TTL_S": "4"}, "worker.ttl_s (4) worker.beat_s (2) PENSTOCK_WORKER"),
        ({"PENSTOCK_QUEUE__RENEW_S": "10"}, "queue.lease_s (10) queue.renew_s (10) PENSTOCK_"),
        ({"PENSTOCK_RETENTION__DEAD_S": "59"}, "retention.dead_s must be 0 for ever at least 60"),
        ({"PENSTOCK_RETENTION__DEAD_S": "-1"}, "PENSTOCK_RETENTION__DEAD_S"),
        ({"PENSTOCK_RETENTION__IDEMPOTENCY_S": "0"}, "PENSTOCK_RETENTION__IDEMPOTENCY_S"),
    ],
)
def test_a_wrong_setting_is_named_with_its_source_and_the_way_out(
    environ: dict[str, str], words: str
) -> None:
    message = refusal(environ)
    assert "\n" not in message
    for word in words.split():
        assert word in message


def test_a_wrong_value_is_cut() -> None:
    message = refusal({"PENSTOCK_KINDS__FAIL__QUEUE": "Q" * 1_000_000})
    assert "kinds.fail.queue = 'QQQ" in message
    assert len(message) < 500


@pytest.mark.parametrize(
    ("yaml", "words"),
    [
        ("htpp:\n  port: 1", "htpp not a setting"),
        ("http:\n  prot: 1", "http.prot did you mean http.port?"),
        ("http:\n  port: yes", "http.port yes or no"),
        ("http: 1", "http is a section"),
        ("- http", "sections"),
        ("http: [", "can't be read"),
        ("env: production", "env is not a setting"),
        ("http:\n  port: 0.5", "http.port 0.5"),
    ],
)
def test_a_wrong_file_is_named_with_the_key(tmp_path: Path, yaml: str, words: str) -> None:
    (tmp_path / "base.yaml").write_text(yaml)
    message = refusal({}, tmp_path)
    for word in (str(tmp_path / "base.yaml"), *words.split()):
        assert word in message


def test_every_required_setting_that_lacks_is_listed_at_once(config_dir: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        load({}, config_dir)
    for name in SECRETS:
        assert f"set {name}, or {name}_FILE" in str(caught.value)


def test_a_secret_is_never_shown() -> None:
    short = "tooshort-hush"
    message = refusal({"PENSTOCK_AUTH__JWT_SECRET": short})
    assert "32 bytes" in message
    assert short not in message

    settings = load(SECRETS)
    assert "hush" not in repr(settings)
    assert "hush" not in str(describe(settings))


def test_a_secret_may_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("s" * 40 + "\n")
    environ = {**SECRETS, "PENSTOCK_AUTH__JWT_SECRET_FILE": str(file)}
    assert "both set" in refusal(environ)

    del environ["PENSTOCK_AUTH__JWT_SECRET"]
    secret = load(environ).auth.jwt_secret
    assert secret is not None
    assert secret.get_secret_value() == "s" * 40

    file.unlink()
    with pytest.raises(SettingsError, match=r"PENSTOCK_AUTH__JWT_SECRET_FILE .* can't be read"):
        load(environ)


def test_what_is_no_setting_is_ignored() -> None:
    load(
        {**SECRETS, **{f"PENSTOCK_{name}": "x" for name in ("URL", "TOKEN", "CHAOS", "REDIS_BIN")}}
    )


@pytest.mark.parametrize("service", ["PENSTOCK", "PENSTOCK_HTTP", "PENSTOCK_POSTGRES_RW"])
def test_what_kubernetes_tells_of_services_is_ignored(service: str) -> None:
    told = {"SERVICE_HOST": "10.0.0.1", "SERVICE_PORT": "8080", "PORT": "tcp://10.0.0.1:8080"}
    for name, port, protocol in (("HTTP", 8080, "tcp"), ("METRICS_2", 9090, "udp")):
        link = f"PORT_{port}_{protocol.upper()}"
        told |= {
            f"SERVICE_PORT_{name}": str(port),
            link: f"{protocol}://10.0.0.1:{port}",
            f"{link}_PROTO": protocol,
            f"{link}_PORT": str(port),
            f"{link}_ADDR": "10.0.0.1",
        }
    assert len(told) == 13
    load({**SECRETS, **{f"{service}_{name}": value for name, value in told.items()}})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PENSTOCK_PORT", "8080"),
        ("PENSTOCK_PORTS", "tcp://10.0.0.1:8080"),
        ("PENSTOCK_PORT_HTTP", "8080"),
        ("PENSTOCK_SERVICE", "x"),
        ("PENSTOCK_SERVICE_HOSTS", "x"),
        ("PENSTOCK_SERVICE__PORT", "1"),
    ],
)
def test_what_only_looks_like_it_is_not(name: str, value: str) -> None:
    assert f"{name} is not a setting" in refusal({name: value})


def test_the_way_to_secrets_is_not_for_handlers() -> None:
    ours = {"PENSTOCK_SSM_PATH": "/p", "PENSTOCK_SECRETS_DIR": "/s", "PENSTOCK_CONFIG_DIR": "/c"}
    kept = {"PATH": "x", "PENSTOCK_URL": "x", "PENSTOCK_SERVICE_HOST": "x"}
    assert without_settings({**SECRETS, **ours, **kept}) == kept


def test_a_directory_of_files_that_is_not_there_is_told() -> None:
    told = "PENSTOCK_CONFIG_DIR is '/nowhere': there is no such directory"
    assert refusal({"PENSTOCK_CONFIG_DIR": "/nowhere"}) == told


@pytest.mark.parametrize(
    "name", ["PENSTOCK_HTTP__PORT", "PENSTOCK_AUTH__JWT_SECRET_FILE", "PENSTOCK_ENV"]
)
def test_an_empty_variable_is_refused_by_its_name(name: str) -> None:
    assert name in refusal({name: ""})


@pytest.mark.parametrize("name", ["PENSTOK_HTTP__PORT", "PENSTOC_ENV", "penstock_http__port"])
def test_a_variable_whose_prefix_is_misspelt_is_told(name: str) -> None:
    assert near_misses({**SECRETS, "OPENSTACK_URL": "x", "PATH": "x", name: "1"}) == [name]


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("PENSTOCK_POSTGRES__DSN", "postgres://u:hush/x@h/d"),
        ("PENSTOCK_POSTGRES__DSN", "postgres://u:hu?sh@h/d"),
        ("PENSTOCK_POSTGRES__DSN", "postgres://u:12/hush@h/d"),
        ("PENSTOCK_POSTGRES__DSN", "postgres://u:hush@h:99999/d"),
        ("PENSTOCK_REDIS__URL", "redis://:hu#sh@h/0"),
        ("PENSTOCK_REDIS__URL", "redis://[::1/0"),
    ],
)
def test_an_address_that_would_be_cut_at_another_place_is_refused(name: str, url: str) -> None:
    message = refusal({name: url})
    assert name in message
    assert "hu" not in message.replace("that hu", "")


@pytest.mark.parametrize(
    "dsn",
    [
        "postgres://u:p%2Fq@h1:1,h2/d?sslmode=require",
        "postgresql:///d?host=/run",
        "postgres://u@[::1]:5432/d",
        "postgres://u:a@b@h/d",
    ],
)
def test_an_address_in_one_of_its_many_forms_is_taken(dsn: str) -> None:
    load({**SECRETS, "PENSTOCK_POSTGRES__DSN": dsn})


def test_a_survey_has_every_setting_and_says_which_are_missing_or_wrong() -> None:
    environ = {
        "PENSTOCK_HTTP__PORT": "99999",
        "PENSTOCK_ROLES": "api",
        "PENSTOCK_FOO": "1",
        "PENSTOCK_AUTH__JWT_SECRET": "hush",
        "PENSTOCK_WORKER__THREADS": "7",
    }
    values = {setting.key: setting.value for setting in survey(environ)}
    assert values.keys() == {setting.key for setting in describe(load(SECRETS))}
    assert values["postgres.dsn"] == values["redis.url"] == "(missing)"
    assert str(values["http.port"]).startswith("(wrong: it should be less than")
    assert str(values["roles"]).startswith("(wrong: ")
    assert str(values["auth.jwt_secret"]) == "(wrong: must have at least 32 bytes)"
    assert values["worker.threads"] == 7
    assert values["worker.queues"] == ["*"]


def test_each_value_is_described_with_its_source(config_dir: Path) -> None:
    environ = {**SECRETS, "PENSTOCK_ENV": "staging", "PENSTOCK_WORKER__THREADS": "7"}
    by_key = {setting.key: setting for setting in describe(load(environ, config_dir))}
    assert by_key["env"].source == "environment variable PENSTOCK_ENV"
    assert by_key["http.port"].source == f"{config_dir / 'staging.yaml'}:2"
    assert by_key["http.keepalive_s"].source == f"{config_dir / 'base.yaml'}:3"
    assert by_key["worker.threads"].source == "environment variable PENSTOCK_WORKER__THREADS"
    assert by_key["worker.threads"].value == 7
    assert by_key["jobs.priority"].source == "default"
    assert all(setting.description for setting in by_key.values())


def test_a_section_can_be_had_without_the_secrets_of_the_others() -> None:
    assert load_section(Dev, {"PENSTOCK_DEV__DIR": "elsewhere"}).dir == "elsewhere"
    with pytest.raises(SettingsError, match=r"^auth\.jwt_secret is required"):
        load_section(Auth, {})
    with pytest.raises(SettingsError, match="PENSTOCK_DEV__DIRR"):
        load_section(Dev, {"PENSTOCK_DEV__DIRR": "elsewhere"})


def test_the_given_keys_are_those_that_a_source_sets(config_dir: Path) -> None:
    environ = {"PENSTOCK_REDIS__URL": "redis://x", "PENSTOCK_ENV": "production"}
    assert given_keys(environ, config_dir) == {"redis.url", "http.port", "http.keepalive_s"}


def public_keys(entries: object) -> dict[str, str]:
    return {"PENSTOCK_AUTH__PUBLIC_KEYS": json.dumps(entries)}


def shown_keys(environ: dict[str, str], config_dir: Path | None = None) -> object:
    settings = describe(load({**SECRETS, **environ}, config_dir))
    return next(setting.value for setting in settings if setting.key == "auth.public_keys")


def test_public_keys_come_as_text_or_from_files_and_are_shown(tmp_path: Path) -> None:
    pem, jwks = tmp_path / "key.pem", tmp_path / "jwks.json"
    pem.write_text(signer("RS256").public_pem)
    members = [signer("ES256", n).jwk(kid=f"k{n}") for n in range(2)]
    jwks.write_text(json.dumps({"keys": members}))
    entries = [
        {"pem": signer("EdDSA").public_pem, "algorithm": "EdDSA"},
        {"kid": "mine", "file": str(pem)},
        {"file": str(jwks), "algorithm": "ES256"},
    ]
    assert shown_keys(public_keys(entries)) == [
        "EdDSA (pem)",
        f"RS256 mine ({pem})",
        f"ES256 k0, ES256 k1 ({jwks})",
    ]
    (tmp_path / "base.yaml").write_text(yaml.safe_dump({"auth": {"public_keys": entries}}))
    assert shown_keys({}, tmp_path) == shown_keys(public_keys(entries))


def test_a_public_key_makes_the_secret_optional() -> None:
    without = {k: v for k, v in SECRETS.items() if "SECRET" not in k}
    entry = {"pem": signer("EdDSA").public_pem}
    assert load({**without, **public_keys([entry])}).auth.jwt_secret is None
    with pytest.raises(SettingsError) as lacking:
        load({**without, **public_keys([])})
    for word in ("auth.jwt_secret", "auth.public_keys", "PENSTOCK_AUTH__PUBLIC_KEYS"):
        assert word in str(lacking.value)


EDDSA = signer("EdDSA").public_pem
PRIVATE = signer("EdDSA").private_pem


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([{}], "0: needs a pem or a file"),
        ([{"pem": EDDSA, "file": "/x"}], "0: needs a pem or a file, and not both"),
        ([{"pem": EDDSA, "algorithm": "RS256"}], "0: pem EdDSA RS256"),
        ([{"pem": EDDSA, "algorithm": "HS256"}], "0.algorithm: ES256"),
        ([{"pem": EDDSA, "algoritm": "EdDSA"}], "0.algoritm:"),
        ([{"pem": EDDSA, "kid": "a b"}], "0.kid:"),
        ([{"pem": EDDSA}, {"pem": EDDSA}], "two EdDSA keys without a kid"),
        ([{"pem": EDDSA, "kid": "k"}] * 2, "two EdDSA keys with the kid k"),
        ([{"pem": EDDSA}, {"pem": PRIVATE}], "1: pem private key"),
        ([{"file": "/nowhere/x.pem"}], "0: /nowhere/x.pem can't be read No such file"),
        ([{"file": "/"}], "0: / can't be read"),
        ([{"file": PRIVATE}], "0: file path"),
        ([PRIVATE], "0:"),
        ([{"pem": public_pem(rsa_key(1024))}], "0: pem RSA with 1024 bits"),
        ([{"pem": EDDSA, "kid": f"k{n}"} for n in range(21)], "20"),
    ],
)
def test_a_wrong_public_key_is_named_by_its_place_and_not_repeated(
    entries: object, words: str
) -> None:
    message = refusal(public_keys(entries))
    told = [message, *(str(setting.value) for setting in survey(public_keys(entries)))]
    for word in ("auth.public_keys", "PENSTOCK_AUTH__PUBLIC_KEYS", *words.split()):
        assert word in message
    for line in (EDDSA + PRIVATE).splitlines():
        assert line.startswith("-----") or not any(line in text for text in told)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\xff\xfe", "is no text"),
        (b"x" * 300_000, "more than 262144 characters"),
        (b'{"keys": []}', "is no JWK set"),
        (b'{"keys": [{"kty": "oct", "k": "hush"}]}', "keys[0] shared secret"),
        (PRIVATE.encode(), "holds a private key"),
    ],
)
def test_a_wrong_file_of_keys_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    file = tmp_path / "keys"
    file.write_bytes(content)
    message = refusal(public_keys([{"file": str(file)}]))
    for word in (str(file), *words.split()):
        assert word in message
    assert "hush" not in message


def test_a_kid_beside_a_jwk_set_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text('{"keys": []}')
    assert "drop kid" in refusal(public_keys([{"file": str(file), "kid": "k"}]))


@pytest.mark.parametrize("text", [EDDSA, '{"kty": "OKP", "crv": "Ed25519", "x": "hushhush"}'])
def test_a_public_key_is_no_secret_to_sign_with(text: str) -> None:
    message = refusal({"PENSTOCK_AUTH__JWT_SECRET": text})
    assert "goes to auth.public_keys" in message
    assert text not in message


@given(st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ_", min_size=1, max_size=30), st.text(max_size=20))
def test_no_name_and_no_value_makes_anything_but_settings_or_a_settings_error(
    name: str, value: str
) -> None:
    with suppress(SettingsError):
        load({**SECRETS, f"PENSTOCK_{name}": value})


def test_ended_jobs_may_be_kept_for_ever_or_for_a_minute_at_least() -> None:
    environ = {"PENSTOCK_RETENTION__DEAD_S": "0", "PENSTOCK_RETENTION__SUCCEEDED_S": "60"}
    retention = load({**SECRETS, **environ}).retention
    assert (retention.dead_s, retention.succeeded_s) == (0, 60)
    assert (retention.cancelled_s, retention.skipped_s) == (7 * 86_400, 7 * 86_400)


def test_one_caller_must_have_room_for_the_largest_batch() -> None:
    message = refusal({"PENSTOCK_HTTP__BODIES_MAX_BYTES": str(20 * 2**20)})
    assert "http.bodies_max_bytes (20971520) must be at least twice" in message


def test_one_caller_must_have_room_for_the_largest_job_with_its_result() -> None:
    message = refusal({"PENSTOCK_HTTP__BODY_MAX_BYTES": str(2**25)})
    assert "http.answers_max_bytes (134217728) must be at least eight times" in message
