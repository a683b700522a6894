"""Which e-mail addresses are taken."""

import pytest

from penstock.domain.address import refusal


@pytest.mark.parametrize(
    "address",
    [
        "ops@example.com",
        "o@e.io",
        "first.last+tag@mail.example.co.uk",
        "o'brien=x@example.com",
        f"{'l' * 64}@example.com",
        "ops@1.example.com",
        "ops@xn--bcher-kva.example",
    ],
)
def test_plain_addresses_are_taken(address: str) -> None:
    assert refusal(address) is None


@pytest.mark.parametrize(
    "address",
    [
        *(
            "",
            "@",
            "ops",
            "ops@",
            "@example.com",
            "ops@localhost",
            "ops@example",
            "ops@@example.com",
        ),
        *("a@x.com, b@y.com", "a@x.com,b@y.com", "a@x.com;b@y.com", "a@x.com b@y.com"),
        *(
            "a@x.com\nBcc: b@y.com",
            "a@x.com\r\nBcc: b@y.com",
            "a@x.com\n",
            "\ra@x.com",
            "a\0@x.com",
        ),
        *(
            "Ops <ops@example.com>",
            "<ops@example.com>",
            "ops@example.com (Ops)",
            "(x)ops@example.com",
        ),
        *(
            '"ops"@example.com',
            '"a@x.com, b"@example.com',
            '"a b"@example.com',
            "a\\@b@example.com",
        ),
        *(
            "a%b.com@example.com",
            "b.com!a@example.com",
            "@a.com:ops@example.com",
            "|sh@example.com",
        ),
        *("/etc/x@example.com", "`id`@example.com", "-oQ/tmp@example.com", "a@b@example.com"),
        *(
            ".a@example.com",
            "a.@example.com",
            "a..b@example.com",
            "a@example..com",
            "a@.example.com",
        ),
        *("ops@example.com.", "ops@-example.com", "ops@example-.com", "ops@exa_mple.com"),
        *(
            "ops@[127.0.0.1]",
            "ops@127.0.0.1",
            "ops@[IPv6:::1]",
            "ops@example.123",
            "ops@example.com:25",
        ),
        *(
            "öps@example.com",
            "ops@exämple.com",
            "ops@example\u3002com",
            "ops@example.com\u2028",
            "a\u00a0@x.com",
        ),
        *(f"{'l' * 65}@example.com", f"ops@{'d' * 64}.com", f"ops@{'d.' * 130}com"),
    ],
)
def test_what_is_no_single_plain_address_is_refused(address: str) -> None:
    assert refusal(address)
