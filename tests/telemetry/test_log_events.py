"""Every event that the code logs stands in app/LOGS.md, by a name that is written out."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PACKAGE = ROOT / "app" / "penstock"
ROW = re.compile(r"^\| `(\w+)` \| (\w+) \| .+ \|$", re.MULTILINE)
LEVELS = {"debug", "info", "warning", "error", "exception"}
HANDLERS = "examples/"  # these log by ctx.log

# Functions that pass a name on, and which of their arguments it is.
PASSED_ON = {
    ("loops/settle.py", "_keep"): 2,
    ("loops/settle.py", "tell"): 0,
    ("telemetry/logs.py", "_write"): 2,
}


def documented() -> dict[str, str]:
    return dict(ROW.findall((ROOT / "app" / "LOGS.md").read_text()))


def logged() -> Iterator[tuple[str, str, str]]:
    """Place, name and level of each line that the code may write."""
    for path in sorted(PACKAGE.rglob("*.py")):
        place = path.relative_to(PACKAGE).as_posix()
        if place.startswith(HANDLERS):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                yield from ((place, name, level) for name, level in _of(node, place))


def _of(call: ast.Call, place: str) -> Iterator[tuple[str, str]]:
    function = call.func
    if isinstance(function, ast.Attribute) and function.attr in LEVELS and _is_log(function.value):
        level = "error" if function.attr == "exception" else function.attr
        yield from ((name, level) for name in _names(call.args[0], place))
    elif isinstance(function, ast.Name) and (place, function.id) in PASSED_ON:
        at = PASSED_ON[place, function.id]
        yield from ((name, "any") for name in _names(call.args[at], place))


def _is_log(value: ast.expr) -> bool:
    if isinstance(value, ast.Call):
        return isinstance(value.func, ast.Name) and value.func.id == "get_logger"
    return isinstance(value, ast.Name) and value.id == "log"


def _names(value: ast.expr, place: str) -> list[str]:
    match value:
        case ast.Constant(value=str(name)):
            return [name]
        case ast.IfExp(body=body, orelse=orelse):
            return [*_names(body, place), *_names(orelse, place)]
        case ast.Name(id="dropped" | "event"):  # named by who calls
            return []
    raise AssertionError(f"{place}:{value.lineno}: write the name of the event out")


def test_each_event_is_documented_with_its_level() -> None:
    table = documented()
    levels: dict[str, set[str]] = defaultdict(set)
    for place, name, level in logged():
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", name), f"{place}: {name}: words with underscores"
        assert name in table, f"{place}: {name}: say in app/LOGS.md what it means"
        levels[name] |= {level} - {"any"}
    for name, found in levels.items():
        assert found <= {table[name]}, f"app/LOGS.md: {name} is logged as {sorted(found)}"


def test_each_documented_event_is_logged() -> None:
    unused = documented().keys() - {name for _, name, _ in logged()}
    assert not unused, f"app/LOGS.md: nobody logs {sorted(unused)}"


def test_the_table_is_sorted() -> None:
    assert list(documented()) == sorted(documented())
