"""Steps of JSON Pointers."""

import pytest

from penstock.domain.pointer import step


@pytest.mark.parametrize(
    ("name", "pointer"),
    [
        ("a", "/a"),
        (3, "/3"),
        ("", "/"),
        ("a/b~c", "/a~1b~0c"),
        ("~1", "/~01"),
        ("x" * 64, "/" + "x" * 64),
        ("x" * 500_000, "/" + "x" * 64 + "…"),
    ],
)
def test_steps_are_escaped_and_cut(name: str | int, pointer: str) -> None:
    assert step(name) == pointer
