"""Log lines: one JSON object a line, or a readable console in development.

In: `get_logger(__name__).info("job_replayed", job_id=...)`, what libraries say to `logging`, and
what Python would print by itself of threads, finalisers and warnings. Out: lines on one stream
(standard output). Always holds: a line is one line, whatever a caller put into it; a value is cut
at 1 KiB, a traceback at 16 KiB; nothing is written per request or per job at `info`; names stand
in `log_events.py`, and one that repeats is held back (`log_share.py`); in a server nobody waits
for the stream (`log_spool.py`). If we die, lines that weren't written yet are lost.
"""

import atexit
import json
import logging
import sys
import threading
from dataclasses import dataclass
from typing import Any, TextIO, cast

import orjson
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from penstock.telemetry import scope
from penstock.telemetry.log_share import Share
from penstock.telemetry.log_spool import Spool

_VALUE_MAX = 1024
_TRACEBACK_MAX = 16 * 1024
_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_TOLD_EVERY_S = 10.0
_EXIT_WITHIN_S = 2.0
_HANDLERS = "penstock.handlers"
# Libraries that are as chatty as others make them; what a handler logs is its own affair.
_CHATTY = ("aiohttp", "asyncio", "asyncpg", "aiokafka", "aio_pika", "opentelemetry", "py.warnings")


@dataclass(slots=True)
class _Now:
    """What counts just now. There is one: the stream is the process'."""

    least: int
    share: Share
    spool: Spool | None = None
    told_dropped: int = 0
    shows_handlers: bool = False


_now = _Now(_LEVELS["info"], Share())


class Log:
    """The logger of one module. A line that isn't severe enough costs a comparison."""

    __slots__ = ("_module",)

    def __init__(self, module: str) -> None:
        self._module = module

    def debug(self, event: str, **fields: Any) -> None:
        self._tell("debug", event, fields)

    def info(self, event: str, **fields: Any) -> None:
        self._tell("info", event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        self._tell("warning", event, fields)

    def error(self, event: str, **fields: Any) -> None:
        self._tell("error", event, fields)

    def exception(self, event: str, **fields: Any) -> None:
        """With the traceback of what is being handled."""
        self._tell("error", event, {"exc_info": True, **fields})

    def _tell(self, level: str, event: str, fields: dict[str, Any]) -> None:
        if _LEVELS[level] < _now.least or not _now.share.passes(event):
            return
        _write(level, self._module, event, fields)


def get_logger(module: str) -> Log:
    """The logger of one module (`__name__`); may be made before `set_up` is called."""
    return Log(module)


def set_up(
    level: str = "info", form: str = "auto", stream: TextIO | None = None, *, waiting_max: int = 0
) -> None:
    """Sends all log lines to `stream`. `form`: json, console, or auto (console on a terminal).
    `waiting_max`: so many lines may wait for a thread to write them; 0: they are written at once,
    and whoever logs waits for that."""
    out = stream or sys.stdout
    console = form == "console" or (form == "auto" and out.isatty())
    ahead = _processors(console)
    last = _console(out) if console else _json
    if waiting_max and _now.spool is None:
        _now.spool = Spool(out.fileno(), waiting_max, tell_losses)
        atexit.register(flush, _EXIT_WITHIN_S)
    way = cast(TextIO, _now.spool) if waiting_max else out
    structlog.configure(
        processors=[*ahead, last],
        wrapper_class=structlog.make_filtering_bound_logger(logging.NOTSET),
        logger_factory=structlog.WriteLoggerFactory(way),
    )
    _take_over_stdlib(way, ahead, last)
    set_level(level)
    _take_over_python()


def set_level(level: str) -> None:
    """The least severe line that is written from now on."""
    _now.least = _LEVELS[level]
    logging.getLogger().setLevel(max(_LEVELS[level], logging.INFO))


def set_share(burst: int, per_s: float) -> None:
    """So many lines of one name are written at once, and then a second. 0: all of them."""
    _now.share.use(burst, per_s)


def show_handlers(shows: bool) -> None:
    """Whether what handlers log with their jobs is written here too."""
    _now.shows_handlers = shows


def tell_of_handler(subject: scope.Subject, level: str, message: str) -> None:
    """A line that a handler has logged with its job; only if those are to be shown."""
    if _now.shows_handlers and _LEVELS[level] >= _now.least:
        _write(level, _HANDLERS, "handler_said", {**subject.log_fields(), "message": message})


def losses() -> dict[str, int]:
    """Lines that were not written since the start, by the reason."""
    return {"repeated": _now.share.held, "full": _now.spool.dropped if _now.spool else 0}


def flush(within_s: float = 1.0) -> None:
    """Before the process ends: returns when all lines are out, or the time is up."""
    if _now.spool is not None and _now.spool.drain(within_s):
        tell_losses(every_s=0.0)
        _now.spool.drain(within_s)


def tell_losses(every_s: float = _TOLD_EVERY_S) -> None:
    """Writes what was held back or found no room, at most so often."""
    for name, count in _now.share.take(every_s):
        _write("warning", __name__, "log_lines_held_back", {"of": name, "count": count})
    dropped = _now.spool.dropped if _now.spool is not None else 0
    if count := dropped - _now.told_dropped:
        _now.told_dropped = dropped
        _write("warning", __name__, "log_lines_lost", {"count": count, "why": "no room to wait"})


def _write(level: str, module: str, event: str, fields: dict[str, Any]) -> None:
    getattr(structlog.get_logger(module=module), level)(event, **fields)


def _processors(console: bool) -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        scoped,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        structlog.processors.format_exc_info,
        _cut,
        *([_one_line] if console else []),
    ]


def _take_over_stdlib(out: TextIO, ahead: list[Processor], last: Processor) -> None:
    """Gives the lines of aiohttp, asyncio and asyncpg the same form as ours."""
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[_name_module, *ahead],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, last],
        )
    )
    handler.addFilter(_passes)
    logging.getLogger().handlers[:] = [handler]
    # A traceback for each connection that it misses, every second, while PostgreSQL is away: what
    # an operator needs to know of that, our loops tell as they back off (`loops/supervise.py`).
    logging.getLogger("asyncpg.pool").setLevel(logging.ERROR)
    # The same of brokers, which `outlets/line.py` tells of.
    for name in ("aiokafka", "aio_pika", "aiormq"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _take_over_python() -> None:
    """Python would write these on standard error, in lines that nobody can parse."""
    threading.excepthook = _thread_failed
    sys.unraisablehook = _ignored
    logging.captureWarnings(True)


def _thread_failed(args: threading.ExceptHookArgs) -> None:
    """A thread that a handler or a library has started ended by an exception."""
    if args.exc_type is SystemExit:
        return  # an end like any other
    name = args.thread.name if args.thread is not None else None
    error = args.exc_value or args.exc_type()
    get_logger(__name__).error("thread_failed", thread=name, exc_info=error)


def _ignored(args: "sys.UnraisableHookArgs") -> None:
    """An exception where none can be raised: in a finaliser, say."""
    error = args.exc_value or args.exc_type()
    get_logger(__name__).error(
        "exception_ignored", what=args.err_msg, of=_shown(args.object), exc_info=error
    )


def _shown(value: object) -> str:
    try:
        return repr(value)
    except Exception:  # foreign code
        return f"<{type(value).__name__}>"


def _passes(record: logging.LogRecord) -> bool:
    return not record.name.startswith(_CHATTY) or _now.share.passes(record.name)


def scoped(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """What the line is about, where it doesn't say so itself."""
    for name, value in scope.fields().items():
        event.setdefault(name, value)
    return event


def _name_module(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    event["module"] = event["_record"].name
    return event


def _cut(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    for key, value in event.items():
        limit = _TRACEBACK_MAX if key == "exception" else _VALUE_MAX
        if isinstance(value, str) and len(value) > limit:
            event[key] = f"{value[:limit]}… ({len(value)} characters)"
    return event


def _one_line(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """JSON escapes control characters by itself; a terminal would obey them."""
    for key, value in event.items():
        if isinstance(value, str) and key == "exception":
            event[key] = _encodable(value)
        elif isinstance(value, str) and not value.isprintable():
            event[key] = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in value)
    return event


def _json(_: WrappedLogger, __: str, event: EventDict) -> str:
    try:
        return orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:  # a lone surrogate, as in a file's name that isn't UTF-8; a huge number
        return _encodable(json.dumps(event, default=str, skipkeys=True, ensure_ascii=False))


def _encodable(text: str) -> str:
    """With ? for each lone surrogate, which no reader of ours could take."""
    return text.encode(errors="replace").decode()


def _console(out: TextIO) -> Processor:
    renderer = structlog.dev.ConsoleRenderer(
        colors=out.isatty(),
        timestamp_key="time",
        exception_formatter=structlog.dev.plain_traceback,
    )
    return cast(Processor, renderer)
