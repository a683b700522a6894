"""What is shown of endpoints."""

import pytest

from penstock.domain.delivery import endpoint_id, masked


@pytest.mark.parametrize(
    ("endpoint", "shown"),
    [
        ("https://hooks.example.com/services/T0/B0/secret", "https://hooks.example.com/…"),
        ("http://10.0.0.1:8080?token=secret", "http://10.0.0.1:8080/…"),
        ("https://ada:secret@example.com/x", "https://example.com/…"),
        ("https://[2001:db8::1]:8443/#secret", "https://[2001:db8::1]:8443/…"),
        ("ops@example.com", "ops@example.com"),
        ("penstock.dead-letters.v1", "penstock.dead-letters.v1"),
    ],
)
def test_a_url_shows_only_where_it_leads(endpoint: str, shown: str) -> None:
    assert masked(endpoint) == shown


def test_an_endpoint_has_a_short_name_of_its_own() -> None:
    one, other = endpoint_id("https://a.example/1"), endpoint_id("https://a.example/2")
    assert one != other
    assert one == endpoint_id("https://a.example/1")
    assert len(one) == 16
