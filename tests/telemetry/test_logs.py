"""Log lines: one line each, whatever is put into them."""

import gc
import io
import logging
import sys
import threading
import warnings
from collections.abc import Callable, Iterator

import orjson
import pytest
import structlog

from penstock.telemetry import logs, scope


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    hooks = threading.excepthook, sys.unraisablehook
    yield
    logging.captureWarnings(False)
    threading.excepthook, sys.unraisablehook = hooks
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
    logs.set_share(0, 1)
    logs.show_handlers(False)


def lines(out: io.StringIO) -> list[str]:
    return out.getvalue().removesuffix("\n").split("\n")


def test_json_lines_carry_module_level_and_time() -> None:
    out = io.StringIO()
    logs.set_up("info", "json", out)
    logs.get_logger("penstock.x").info("job_replayed", job_id="a", count=3)
    logs.get_logger("penstock.x").debug("too_fine")
    (line,) = lines(out)
    event = orjson.loads(line)
    assert event.pop("time").endswith("Z")
    assert event == {
        "event": "job_replayed",
        "module": "penstock.x",
        "level": "info",
        "job_id": "a",
        "count": 3,
    }


EVIL = 'a\r\n{"level":"error"}\x1b[31m\u2028b'


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_caller_cannot_make_lines_of_his_own(form: str) -> None:
    out = io.StringIO()
    logs.set_up("info", form, out)
    logs.get_logger("m").warning("refused", name=EVIL)
    assert len(lines(out)) == 1
    assert "\x1b[31m" not in out.getvalue()


@pytest.mark.parametrize("form", ["json", "console"])
def test_what_has_no_utf8_or_is_too_large_a_number_is_written_all_the_same(form: str) -> None:
    raw = io.BytesIO()
    logs.set_up("info", form, io.TextIOWrapper(raw, "utf-8", write_through=True))
    try:
        raise ValueError("of a file called \udcff")
    except ValueError as error:
        logs.get_logger("m").warning(
            "odd", name="\udcff", names=["\ud800"], count=10**30, exc_info=error
        )
    said = raw.getvalue().decode()
    assert "of a file called ?" in said
    assert str(10**30) in said
    if form == "json":
        (line,) = said.splitlines()
        assert orjson.loads(line)["names"] == ["?"]


def test_long_values_are_cut() -> None:
    out = io.StringIO()
    logs.set_up("info", "json", out)
    logs.get_logger("m").info("x", value="v" * 5000)
    kept = orjson.loads(out.getvalue())["value"]
    assert kept == "v" * 1024 + "… (5000 characters)"


def test_what_json_does_not_know_is_written_as_text() -> None:
    out = io.StringIO()
    logs.set_up("info", "json", out)
    logs.get_logger("m").info("x", ids={1: b"\x01"}, error=ValueError("v"))
    event = orjson.loads(out.getvalue())
    assert event["ids"] == {"1": r"b'\x01'"}
    assert event["error"] == "v"


@pytest.mark.parametrize("form", ["json", "console"])
def test_tracebacks_are_kept(form: str) -> None:
    out = io.StringIO()
    logs.set_up("info", form, out)
    try:
        raise ValueError("the reason")
    except ValueError as error:
        logs.get_logger("m").error("failed", exc_info=error)
    assert "the reason" in out.getvalue()
    assert "Traceback" in out.getvalue()


def test_libraries_speak_in_the_same_form_and_not_below_info() -> None:
    out = io.StringIO()
    logs.set_up("debug", "json", out)
    logging.getLogger("aiohttp.server").warning("slow %s", "client")
    logging.getLogger("asyncio").debug("selector")
    (line,) = lines(out)
    event = orjson.loads(line)
    assert (event["event"], event["module"], event["level"]) == (
        "slow client",
        "aiohttp.server",
        "warning",
    )


class Unhappy:
    def __del__(self) -> None:
        raise ValueError("in a finaliser")


class Shy:
    def __repr__(self) -> str:
        raise RuntimeError("no")


def fail() -> None:
    raise ValueError("in a thread\nof its own")


def leave() -> None:
    raise SystemExit(3)


def in_a_thread(target: Callable[[], None]) -> None:
    thread = threading.Thread(target=target, name="mine")
    thread.start()
    thread.join()


def test_what_python_would_print_by_itself_has_the_same_form(
    capfd: pytest.CaptureFixture[str],
) -> None:
    out = io.StringIO()
    logs.set_up("info", "json", out)
    in_a_thread(fail)
    in_a_thread(leave)  # an end like any other
    Unhappy()
    gc.collect()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(False)
        logging.captureWarnings(True)  # within what pytest does with warnings
        warnings.warn("beware", RuntimeWarning, stacklevel=1)
        logging.captureWarnings(False)
    threads, finaliser, warning = [orjson.loads(line) for line in lines(out)]
    assert (threads["event"], threads["thread"], threads["level"]) == (
        *("thread_failed", "mine"),
        "error",
    )
    assert "ValueError: in a thread" in threads["exception"]
    assert finaliser["event"] == "exception_ignored"
    assert "__del__" in f"{finaliser['what']} {finaliser['of']}", "in either, by the Python"
    assert "in a finaliser" in finaliser["exception"]
    assert (warning["module"], warning["level"]) == ("py.warnings", "warning")
    assert "beware" in warning["event"]
    assert capfd.readouterr().err == ""


def test_what_can_not_be_shown_is_told_by_its_class() -> None:
    assert logs._shown(Shy()) == "<Shy>"


class Job:
    def log_fields(self) -> dict[str, object]:
        return {"job_id": "j", "attempt": 2, "trace_id": "t"}


def test_lines_carry_what_they_are_about_whoever_says_them() -> None:
    out = io.StringIO()
    logs.set_up("info", "json", out)
    entered = scope.enter(Job())
    logs.get_logger("m").info("one", job_id="another")
    logging.getLogger("app").info("two")
    scope.leave(entered)
    logs.get_logger("m").info("three")
    one, two, three = map(orjson.loads, lines(out))
    assert (one["job_id"], one["attempt"], one["trace_id"]) == ("another", 2, "t")
    assert (two["job_id"], two["attempt"]) == ("j", 2)
    assert "attempt" not in three


def test_a_line_that_repeats_is_held_back_and_told_of() -> None:
    out = io.StringIO()
    logs.set_up("info", "json", out)
    logs.set_share(3, 0.01)
    before = logs.losses()["repeated"]
    for _ in range(10):
        logs.get_logger("m").warning("again_and_again")
        logging.getLogger("aiohttp.server").warning("chatty")
        logging.getLogger("app").warning("a handler's own")
    logs.tell_losses(every_s=0.0)
    said = [orjson.loads(line) for line in lines(out)]
    names = [one["event"] for one in said]
    assert names.count("again_and_again") == names.count("chatty") == 3
    assert names.count("a handler's own") == 10
    held = {one["of"]: one["count"] for one in said if one["event"] == "log_lines_held_back"}
    assert held == {"again_and_again": 7, "aiohttp.server": 7}
    assert logs.losses()["repeated"] - before == 14


def test_the_level_changes_at_once() -> None:
    out = io.StringIO()
    logs.set_up("warning", "json", out)
    log = logs.get_logger("m")
    log.info("unheard")
    logs.set_level("info")
    log.info("heard")
    assert [orjson.loads(line)["event"] for line in lines(out)] == ["heard"]


def test_what_handlers_log_is_written_where_that_is_asked_for() -> None:
    out = io.StringIO()
    logs.set_up("info", "json", out)
    logs.tell_of_handler(Job(), "info", "unheard")
    logs.show_handlers(True)
    logs.tell_of_handler(Job(), "debug", "too fine")
    logs.tell_of_handler(Job(), "info", "heard")
    (line,) = lines(out)
    event = orjson.loads(line)
    assert (event["event"], event["message"], event["job_id"]) == ("handler_said", "heard", "j")
