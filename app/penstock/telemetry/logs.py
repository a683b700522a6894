"""Log lines: one JSON object a line, or a readable console in development.

In: `get_logger(__name__).info("job_replayed", job_id=...)`, what libraries say to `logging`, and
what Python would print by itself of threads, finalisers and warnings. Out: lines on one stream
(standard output). Always holds: a line is one line, whatever a caller put into it; a value is cut
at 1 KiB, a traceback at 16 KiB; nothing is written per request or per job at `info`.
"""

import json
import logging
import sys
import threading
from typing import TextIO, cast

import orjson
import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

_VALUE_MAX = 1024
_TRACEBACK_MAX = 16 * 1024
_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def get_logger(module: str) -> FilteringBoundLogger:
    """The logger of one module (`__name__`); may be made before `set_up` is called."""
    return cast(FilteringBoundLogger, structlog.get_logger(module=module))


def set_up(level: str = "info", form: str = "auto", stream: TextIO | None = None) -> None:
    """Sends all log lines to `stream`. `form`: json, console, or auto (console on a terminal)."""
    out = stream or sys.stdout
    console = form == "console" or (form == "auto" and out.isatty())
    ahead = _processors(console)
    last = _console(out) if console else _json
    structlog.configure(
        processors=[*ahead, last],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(out),
    )
    _take_over_stdlib(level, out, ahead, last)
    _take_over_python()


def set_level(level: str) -> None:
    """The least severe line that is written from now on."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]))
    logging.getLogger().setLevel(max(_LEVELS[level], logging.INFO))


def _processors(console: bool) -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        structlog.processors.format_exc_info,
        _cut,
        *([_one_line] if console else []),
    ]


def _take_over_stdlib(level: str, out: TextIO, ahead: list[Processor], last: Processor) -> None:
    """Gives the lines of aiohttp, asyncio and asyncpg the same form as ours."""
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[_name_module, *ahead],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(_LEVELS[level], logging.INFO))
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
