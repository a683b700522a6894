"""Failures that are alike are told as one."""

from penstock.domain.alike import fingerprint, place_of


def test_failures_that_are_alike_have_one_fingerprint() -> None:
    here = {"traceback": ["a.py:1 in f", "b.py:12 in g"]}
    there = {"traceback": ["b.py:99 in g"]}
    assert place_of(here) == place_of(there) == "b.py g"
    assert place_of(None) == place_of({"traceback": []}) == ""
    assert fingerprint("k", "t", "p") == fingerprint("k", "t", "p")
    assert len({fingerprint("k", "t", p) for p in ("", "p")} | {fingerprint("k2", "t", "p")}) == 3
