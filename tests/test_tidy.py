"""The house rules that a machine can hold (style.md, 2 and 4). Each message says what to do."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "app" / "penstock"
SOURCES = sorted(PACKAGE.rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))

FILE_MAX, TEST_FILE_MAX, FUNCTION_MAX = 400, 600, 60
LUA_MAX = 60
TOP_LEVEL = {
    *("app", "tests", "config", "migrations", "Dockerfile", "compose.yaml", "pyproject.toml"),
    *("README.md", "LICENSE", "CHANGELOG.md", "Makefile"),
}
BANNED_ROOMS = {
    *("util", "utils", "common", "helpers", "base", "core", "services", "managers", "interfaces"),
}
# Words that we have a better word for, where they would name something of ours.
BANNED_WORDS = {
    "dequeue": "claim",
    "sweeper": "reaper or reconciler",
    "upstream": "parent",
    "downstream": "child",
    "redrive": "replay",
    "dispatcher": "relay",
    "daemon_": "loop",
}

# Who may import whom (style.md, 2). Root modules that all may use: VERSION, clock, chaos,
# batcher, outliving, keys.
EVERYBODY = {
    "clock",
    "chaos",
    "batcher",
    "outliving",
    "places",
    "keys",
    "telemetry",
    "domain",
    "settings",
}
MAY_IMPORT = {
    "domain": set(),
    "telemetry": {"clock"},
    "settings": {"places", "keys", "domain"},
    "egress": {"domain", "telemetry", "clock"},
    "store": {"domain", "telemetry", "clock", "chaos", "places", "outliving"},
    "queue": {"domain", "telemetry", "clock", "chaos"},
    "handlers": {"egress", "domain", "telemetry", "clock"},
    "outlets": {"egress", "domain", "telemetry", "clock", "settings"},
    "examples": {"handlers", "egress", "clock"},
    "commands": {"store", "queue", *EVERYBODY},
    "loops": {"commands", "store", "queue", "handlers", "outlets", *EVERYBODY},
    "child": {"loops", "handlers", "egress", *EVERYBODY},
    "api": {"commands", "store", "loops", *EVERYBODY},
    "dev": {"domain", "settings", "clock"},
    "cli": {"server", "alerting", "doctor", "store", "queue", "dev", *EVERYBODY},
}
# One door for one library: who alone may import it.
DOORS = {
    "asyncpg": ("store/",),
    "redis": ("queue/",),
    "aiohttp": ("api/", "egress/"),
    "aiosmtplib": ("outlets/",),
    "jinja2": ("outlets/",),
    "standardwebhooks": ("outlets/",),
    "jwt": ("api/", "cli/", "keys.py"),
    "cryptography": ("keys.py",),
    "yaml": ("settings/", "cli/"),
    "prometheus_client": ("telemetry/",),
    "structlog": ("telemetry/",),
    "opentelemetry": ("telemetry/",),
    "click": ("cli/", "__main__.py"),
    "psutil": ("dev/",),
    "aiokafka": ("outlets/",),
    "aio_pika": ("outlets/",),
    "boto3": ("settings/",),
    "botocore": ("settings/",),
}


def relative(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.module == "penstock":
                yield from (f"penstock.{alias.name}" for alias in node.names)
            else:
                yield node.module


def test_the_top_level_holds_only_what_the_owner_gave_and_what_tools_expect() -> None:
    found = {p.name for p in ROOT.iterdir() if not p.name.startswith(".")}
    assert found <= TOP_LEVEL, f"move these into a room: {sorted(found - TOP_LEVEL)}"


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_rooms_import_only_their_row(path: Path) -> None:
    room = relative(path).split("/")[0]
    if room not in MAY_IMPORT:
        return
    for name in imports(path):
        parts = name.split(".")
        if parts[0] != "penstock" or len(parts) == 1 or parts[1] in (room, "VERSION"):
            continue
        assert parts[1] in MAY_IMPORT[room], (
            f"{relative(path)} imports {name}; {room} may import {sorted(MAY_IMPORT[room])}: "
            "pass it in from engine.py or server.py, or move the piece"
        )


def test_ui_holds_static_files_only() -> None:
    found = {path.suffix for path in (PACKAGE / "ui").rglob("*") if path.is_file()}
    assert found <= {".html", ".js", ".mjs", ".css", ".svg", ".md"}, "code belongs in api/"


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_each_library_has_one_door(path: Path) -> None:
    for name in imports(path):
        doors = DOORS.get(name.split(".")[0])
        assert doors is None or relative(path).startswith(doors), (
            f"{relative(path)} imports {name}; only {doors} may: use what that room offers"
        )


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_only_clock_reads_a_clock(path: Path) -> None:
    if relative(path) == "clock.py" or relative(path).startswith("dev/"):
        return
    found = re.findall(
        r"\b(?:time\.(?:time|monotonic|perf_counter|time_ns)|datetime\.(?:now|utcnow|today))\(",
        path.read_text(),
    )
    assert not found, f"{relative(path)} reads a clock ({found}): use penstock.clock"


@pytest.mark.parametrize("path", [*SOURCES, *TESTS], ids=lambda p: p.relative_to(ROOT).as_posix())
def test_files_and_functions_keep_their_size(path: Path) -> None:
    lines = path.read_text().count("\n")
    limit = TEST_FILE_MAX if path.is_relative_to(ROOT / "tests") else FILE_MAX
    assert lines <= limit, f"{path.name} has {lines} lines: it holds two ideas, find them"
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= FUNCTION_MAX, f"{path.name}: {node.name} has {length} lines: split it"


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_every_module_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(tree(path)), f"{relative(path)}: say in a docstring what it is"


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_rooms_and_names_use_the_words_of_the_house(path: Path) -> None:
    rooms = set(relative(path).removesuffix(".py").split("/"))
    assert not rooms & BANNED_ROOMS, f"{relative(path)}: name the room by what it holds"
    names = {n.name for n in ast.walk(tree(path)) if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    for name in names:
        for banned, ours in BANNED_WORDS.items():
            assert banned not in name.lower(), f"{relative(path)}: {name}: say {ours}"


def test_every_query_and_every_script_is_used() -> None:
    code = "\n".join(path.read_text() for path in SOURCES)
    for file in (PACKAGE / "store" / "sql").glob("*.sql"):
        text = file.read_text()
        for name in re.findall(r"^-- name: (\w+)$", text, re.MULTILINE):
            assert f'"{name}"' in code, f"{file.name}: {name} is never used: delete it"
        for name in re.findall(r"^-- part: (\w+)", text, re.MULTILINE):
            uses = len(re.findall(rf"@{name}\b", text))
            assert uses > 1, f"{file.name}: {name} is used {uses} times: put it where it is used"
    for file in (PACKAGE / "queue" / "lua").glob("*.lua"):
        assert f'"{file.stem}"' in code, f"{file.name} is never used: delete it"


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_sql_stands_in_sql_files(path: Path) -> None:
    if relative(path).startswith(("store/migrate", "store/health", "dev/")):
        return  # the runner's own table, and pings
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            is_sql = re.match(r"\s*(SELECT|INSERT INTO|UPDATE \w+ SET|DELETE FROM) ", node.value)
            assert not is_sql, f"{relative(path)}:{node.lineno}: move it to store/sql/*.sql"


@pytest.mark.parametrize(
    "path", sorted((PACKAGE / "queue" / "lua").glob("*.lua")), ids=lambda p: p.name
)
def test_scripts_carry_their_contract(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= LUA_MAX, f"{path.name} is longer than {LUA_MAX} lines"
    for word in ("KEYS", "ARGV", "returns", "bound", "epeated"):
        head = text.split("\nlocal", 1)[0]
        assert word in head or word.replace("epeated", "epeat") in head, (
            f"{path.name}: its header lacks {word!r}"
        )


@pytest.mark.parametrize("path", sorted((ROOT / "migrations").glob("*.sql")), ids=lambda p: p.name)
def test_migrations_say_what_they_do_to_a_running_system(path: Path) -> None:
    head = path.read_text()[:1000]
    for word in ("what:", "why:", "locks:", "safe while old code runs"):
        assert word in head, f"{path.name}: its header lacks {word!r}"


# Modules that only carry data or wire: what they decide is tested where it is used.
WITHOUT_A_TEST_OF_THEIR_OWN = {
    *("domain/attempt.py", "domain/job.py", "domain/view.py", "domain/errors.py"),
    "domain/readiness.py",
}


@pytest.mark.parametrize(
    "path", [p for p in SOURCES if relative(p).startswith("domain/")], ids=relative
)
def test_whoever_decides_has_a_test(path: Path) -> None:
    if path.name == "__init__.py" or relative(path) in WITHOUT_A_TEST_OF_THEIR_OWN:
        return
    test = ROOT / "tests" / "domain" / f"test_{path.name}"
    assert test.exists(), f"{relative(path)} decides something: write {test.relative_to(ROOT)}"


def test_no_file_names_a_package_mirror() -> None:
    hosts = re.compile(
        r"(pypi|pythonhosted|files\.python|simple/|artifactory|devpi)\.?(org|io|com)"
    )
    for path in (ROOT / "config").rglob("*"):
        if path.is_file():
            assert not hosts.search(path.read_text(errors="replace")), f"{path} names a host"
