"""Which e-mail addresses are taken: one plain address, whatever a mailer would read in it."""

import pytest

from penstock.domain.address import address_refusal


@pytest.mark.parametrize(
    "text",
    [
        "ops@example.com",
        "first.last+tag@mail.example.co.uk",
        "o'neil_{1}@xn--bcher-kva.example",
        "a@b.cd",
        f"{'a' * 64}@example.com",
    ],
)
def test_a_plain_address_is_taken(text: str) -> None:
    assert address_refusal(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ops",
        "@example.com",
        "ops@",
        "ops@localhost",
        "root@127.0.0.1",
        "ops@[127.0.0.1]",
        "a@example.com, b@example.com",
        "a@example.com,b@example.com",
        "a@example.com;b@example.com",
        "a@example.com b@example.com",
        "a@x.com\nBcc: b@y.com",
        "a@x.com\r\nBcc: b@y.com",
        "a@x.com\n",
        "a@b@example.com",
        '"a b"@example.com',
        "Ops <ops@example.com>",
        "<ops@example.com>",
        "ops(comment)@example.com",
        ".ops@example.com",
        "ops.@example.com",
        "o..ps@example.com",
        "ops@example..com",
        "ops@-example.com",
        "ops@example-.com",
        "ops@example.com.",
        "\u00f6ps@example.com",
        "ops@b\u00fccher.example",
        "ops\x00@example.com",
        f"{'a' * 65}@example.com",
        f"a@{'b' * 63}.{'c' * 63}.{'d' * 63}.{'e' * 63}.com",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    assert address_refusal(text) is not None
