"""Finding handlers: what is found where, and one clear message for all that can't be."""

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from penstock.handlers import HandlerError, Registry, handler

Write = Callable[..., str]
IMPORT = "from penstock.handlers import handler\n"
_NAMES = (f"users_module_{n}" for n in itertools.count())


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a module that can be imported, and answers its name."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def module(body: str, name: str | None = None) -> str:
        name = name or next(_NAMES)
        path = tmp_path / (name.replace(".", "/") + ".py")
        path.parent.mkdir(exist_ok=True)
        path.write_text(body if "import handler" in body else f"{IMPORT}{body}")
        return name

    return module


HELLO = '@handler("hello")\nasync def hello(): return "hello"\n'


def test_http_is_always_there() -> None:
    assert Registry.load([]).kinds == ("http",)
    assert "http" in Registry.load([])
    assert "hello" not in Registry.load([])
    assert Registry.load([]).get("hello") is None


def test_a_module_brings_its_async_and_its_plain_functions(write: Write) -> None:
    name = write(HELLO + '@handler("plain")\ndef plain(payload): return payload\n')
    registry = Registry.load([name])
    assert registry.kinds == ("hello", "http", "plain")
    assert registry.async_kinds == ("hello", "http")
    assert registry.thread_kinds == ("plain",)


def test_one_function_can_serve_several_kinds(write: Write) -> None:
    name = write('@handler("a")\n@handler("b")\ndef both(): pass\n')
    assert Registry.load([name]).kinds == ("a", "b", "http")


def test_a_package_brings_what_its_init_imports(write: Write) -> None:
    package = next(_NAMES)
    write(HELLO, f"{package}.inner")
    write(f"from {package}.inner import hello\n", f"{package}.__init__")
    assert Registry.load([package]).kinds == ("hello", "http")


def test_a_function_that_is_found_twice_is_one_handler(write: Write) -> None:
    first = write(HELLO)
    second = write(f"from {first} import hello\nalias = hello\n")
    assert Registry.load([first, second, first]).kinds == ("hello", "http")


def test_loading_is_all_that_registers(write: Write) -> None:
    name = write(HELLO)
    Registry.load([name])
    assert Registry.load([]).kinds == ("http",)


def test_a_wrapper_of_a_handler_is_the_handler(write: Write) -> None:
    name = write(
        "import functools\n"
        "def logged(f):\n"
        "    @functools.wraps(f)\n"
        "    async def inner(*args): return 'wrapped', await f(*args)\n"
        "    return inner\n"
        f"@logged\n{HELLO}"
    )
    found = Registry.load([name]).get("hello")
    assert found is not None
    assert found.function.__closure__ is not None
    assert found.is_async


def test_two_handlers_of_one_kind_stop_the_start(write: Write) -> None:
    first, second = write(HELLO), write(HELLO)
    with pytest.raises(HandlerError, match=f"'hello' is handled twice.*{first}.*{second}"):
        Registry.load([first, second])


def test_nobody_replaces_http(write: Write) -> None:
    name = write('@handler("http")\ndef mine(): pass\n')
    with pytest.raises(HandlerError, match="'http' is handled twice"):
        Registry.load([name])


@pytest.mark.parametrize("kind", ["", "Hello", "a b", "a/b", "é", "-a", "x" * 64, "a\\n"])
def test_a_kind_with_a_bad_name_stops_the_start(write: Write, kind: str) -> None:
    name = write(f'@handler("{kind}")\ndef h(): pass\n')
    with pytest.raises(HandlerError, match=rf"{name}: the kind .* must match"):
        Registry.load([name])


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("def (", "SyntaxError"),
        ("raise SystemExit(1)", "SystemExit: 1"),
        ("@handler\ndef h(): pass", "needs the name of a kind"),
        ('@handler("a")\nclass A: pass', "only functions can be handlers"),
    ],
)
def test_a_module_that_fails_stops_the_start(write: Write, body: str, told: str) -> None:
    name = write(body)
    with pytest.raises(HandlerError, match=f"{name} can't be imported: .*{told}"):
        Registry.load([name])


def test_a_module_that_is_not_there_stops_the_start() -> None:
    with pytest.raises(HandlerError, match=r"no\.such\.module can't be imported"):
        Registry.load(["no.such.module"])


def test_a_module_that_is_not_found_is_told_with_the_places_and_the_way_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("invoicez", "invoicez.inner"):
        with pytest.raises(HandlerError) as caught:
            Registry.load([name])
        told = str(caught.value)
        assert str(tmp_path) in told
        assert "isn't on the import path: start penstock there, or set PYTHONPATH" in told


def test_a_module_that_its_package_lacks_is_not_looked_for_elsewhere() -> None:
    with pytest.raises(HandlerError, match=r"there is no module samplez in penstock\.handlers$"):
        Registry.load(["penstock.handlers.samplez"])


def test_a_module_without_handlers_is_a_mistake(write: Write) -> None:
    name = write("def forgotten(): pass\n")
    with pytest.raises(HandlerError, match=f"{name} has no function marked with @handler"):
        Registry.load([name])


def test_a_signature_that_fits_nothing_stops_the_start(write: Write) -> None:
    name = write('@handler("a")\ndef h(payload, ctx, more): pass\n')
    with pytest.raises(HandlerError, match=f"{name}: handler 'a': parameter 'more'"):
        Registry.load([name])


def test_an_annotation_that_means_nothing_stops_the_start(write: Write) -> None:
    name = write('@handler("a")\ndef h(payload: "Unknown"): pass\n')
    with pytest.raises(HandlerError, match=f"{name}: handler 'a': name 'Unknown'"):
        Registry.load([name])


def test_postponed_annotations_are_understood(write: Write) -> None:
    name = write(
        "from __future__ import annotations\n"
        "from pydantic import BaseModel\n"
        "from penstock.handlers import Context\n"
        f"{IMPORT}"
        "class P(BaseModel):\n    n: int\n"
        '@handler("late")\nasync def late(it: Context, p: P) -> int: return p.n\n'
    )
    registry = Registry.load([name])
    assert registry.payload_errors("late", {"n": 1}) == []
    assert registry.payload_errors("late", {})[0][0] == "/n"


def test_the_decorator_gives_the_function_back() -> None:
    def plain() -> str:
        return "as it was"

    assert handler("a")(plain) is plain
    assert plain() == "as it was"


def test_an_unknown_kind_takes_any_payload() -> None:
    assert Registry.load([]).payload_errors("unknown", {"anything": [1]}) == []
