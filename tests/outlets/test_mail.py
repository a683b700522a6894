"""E-mail to a real SMTP server, good and bad: what it gets, and what comes of the message."""

import asyncio
import ssl
import time
from dataclasses import replace
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from penstock.domain.effect import RECOVERED, Channel, Delivery, Fate, Message
from penstock.outlets import Mail, Server
from tests.outlets import messages
from tests.outlets.mailbox import Mailbox, mailbox
from tests.support.authority import certificate_in
from tests.support.making import job_id
from tests.support.ports import free_port

OPS = "ops@example.com"


def message(**data: Any) -> Message:
    return messages.message(Channel.EMAIL, OPS, **data)


def mail(port: int, **fields: Any) -> Mail:
    server = Server("127.0.0.1", port, "penstock@example.org", tls="none", timeout_s=1.0)
    return Mail(replace(server, **fields))


async def received(*sent: Message) -> list[EmailMessage]:
    async with mailbox() as box:
        assert {one.fate for one in await mail(box.port).deliver(sent)} == {Fate.DELIVERED}
        assert box.connections == 1
    return [letter for _, _, letter in box.letters]


def text_of(letter: EmailMessage, kind: str) -> str:
    body = letter.get_body((kind,))
    assert isinstance(body, EmailMessage)
    return str(body.get_content())


async def test_a_letter_has_text_and_html_and_one_recipient() -> None:
    async with mailbox() as box:
        await mail(box.port).deliver([message()])
    ((sender, recipients, letter),) = box.letters
    assert (sender, recipients) == ("penstock@example.org", [OPS])
    assert (letter["From"], letter["To"]) == ("penstock@example.org", OPS)
    assert letter["Subject"] == "[Penstock] report in billing: dead"
    assert letter["Auto-Submitted"] == "auto-generated"
    assert letter["Date"] == "Wed, 18 Nov 2026 11:06:40 -0000"
    for kind in ("plain", "html"):
        text = text_of(letter, kind)
        assert "attempts-exhausted" in text
        assert "oops: as asked" in text
        assert "red, blue" in text


async def test_the_text_reads_well() -> None:
    (letter,) = await received(message())
    assert text_of(letter, "plain").replace("\r\n", "\n") == (
        "The job report in queue billing: dead.\n\n"
        "Job:       0\n"
        "Kind:      report\n"
        "Queue:     billing\n"
        "State:     dead\n"
        "Reason:    attempts-exhausted\n"
        "Attempt:   3 (3 of 3 failures)\n"
        "Error:     oops: as asked\n"
        "Submitted: 2026-11-18T11:00:00.000Z by alice\n"
        "Started:   2026-11-18T11:06:00.000Z\n"
        "Finished:  2026-11-18T11:06:40.000Z\n"
        "Tags:      red, blue\n"
    )


async def test_a_workflow_a_recovery_and_a_rule_are_told_as_such() -> None:
    workflow = {
        "id": "1",
        "name": "nightly",
        "state": "failed",
        "counts": {"succeeded": 2, "dead": 1, "ready": 0},
        "created_at": "then",
        "created_by": "bob",
        "finished_at": "now",
        "dead_jobs": [
            {"id": "2", "name": "a", "kind": "etl", "error": {"type": "oops", "message": "<so>"}},
            {"id": "3", "name": "b", "kind": "etl", "error": None},
        ],
    }
    of_workflow = message(**workflow)
    told = replace(of_workflow.effect, job=None, workflow=job_id(), state="failed")
    recovered = message(state="succeeded", error=None)
    by_rule = replace(recovered.effect, event=RECOVERED, state="succeeded", rule="night-watch")
    first, second = await received(
        replace(of_workflow, effect=told), replace(recovered, effect=by_rule)
    )
    assert first["Subject"] == "[Penstock] workflow nightly: failed"
    assert "Jobs:      2 succeeded, 1 dead\r\n" in text_of(first, "plain")
    told_dead = "Dead:      a (etl, 2): oops: <so>\r\nDead:      b (etl, 3)\r\n"
    assert told_dead in text_of(first, "plain")
    assert "a (etl, 2): oops: &lt;so&gt;" in text_of(first, "html")
    assert second["Subject"] == "[Penstock] report in billing: recovered"
    assert "by the rule night-watch" in text_of(second, "plain")
    assert "by the rule night-watch" in text_of(second, "html")


async def test_the_message_id_is_the_same_at_each_try_and_another_for_another() -> None:
    one, two = message(), message()
    first, again, other = await received(one, one, two)
    assert first["Message-ID"] == again["Message-ID"] != other["Message-ID"]
    assert first["Message-ID"].endswith("@example.org>")


async def test_what_a_job_says_makes_no_header_and_no_html() -> None:
    (letter,) = await received(
        message(
            kind="x\r\nBcc: eve@example.com\r\n\r\nhello \u2028 \x00 \udc80".encode(
                "utf-8", "replace"
            ).decode(),
            error={"type": "<script>", "message": "{{ 7 * 7 }} <img src=x> \x1b[31m\nnext"},
            tags=["<b>"],
        )
    )
    assert letter["Bcc"] is None
    assert "\n" not in letter["Subject"]
    assert len(letter.get_all("To", [])) == 1
    html, text = text_of(letter, "html"), text_of(letter, "plain")
    assert "<script>" not in html
    assert "<img" not in html
    assert "&lt;script&gt;: {{ 7 * 7 }} &lt;img src=x&gt;" in html
    assert "&lt;b&gt;" in html
    assert "{{ 7 * 7 }}" in text, "what a job says is no template"
    assert "\x1b" not in text
    assert "\x00" not in text


async def test_a_long_subject_and_lines_are_taken(caplog: pytest.LogCaptureFixture) -> None:
    (letter,) = await received(
        message(kind="k" * 5000, error={"type": "t", "message": "m\u00fc" * 5000})
    )
    assert len(letter["Subject"]) <= 220
    assert "m\u00fc" * 5000 in text_of(letter, "plain")


async def answered(box: Mailbox, *sent: Message) -> list[Delivery]:
    return await mail(box.port).deliver(sent or [message()])


@pytest.mark.parametrize(
    ("answer", "fate"),
    [
        ("550 no such mailbox", Fate.NEVER),
        ("553 not allowed", Fate.NEVER),
        ("450 mailbox busy", Fate.LATER),
        ("452 too full", Fate.LATER),
    ],
)
@pytest.mark.parametrize("at", ["on_recipient", "on_text"])
async def test_refusals_for_good_are_told_from_those_for_now(
    answer: str, fate: Fate, at: str
) -> None:
    async def say(_: str) -> str:
        return answer

    async with mailbox() as box:
        setattr(box, at, say)
        (one,) = await answered(box)
    assert one.fate is fate
    assert one.error is not None
    assert answer[4:] in one.error


async def test_one_that_is_refused_takes_no_other_along() -> None:
    count = 0

    async def every_other(_: str) -> str:
        nonlocal count
        count += 1
        return "250 OK" if count % 2 else "550 this one never"

    async with mailbox() as box:
        box.on_text = every_other
        fates = [one.fate for one in await answered(box, *(message() for _ in range(4)))]
    assert fates == [Fate.DELIVERED, Fate.NEVER, Fate.DELIVERED, Fate.NEVER]
    assert box.connections == 1


async def test_a_server_that_hangs_after_the_text_is_left_and_tried_again() -> None:
    async def hang(_: str) -> str:
        await asyncio.sleep(5)
        return "250 OK"

    async with mailbox() as box:
        box.on_text = hang
        began = time.monotonic()
        answers = await answered(box, message(), message(), message())
    assert {one.fate for one in answers} == {Fate.LATER}
    assert answers[0].error == "the mail server did not answer within 1 s"
    assert time.monotonic() - began < 2, "one time-out, not three"


async def test_a_server_without_a_word_or_that_hangs_up_or_is_not_there() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async def rude(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    for manners in (silent, rude):
        server = await asyncio.start_server(manners, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            (one,) = await mail(port, timeout_s=0.3).deliver([message()])
            assert one.fate is Fate.LATER
    nobody = mail(free_port())
    (one,) = await nobody.deliver([message()])
    assert one.fate is Fate.LATER
    assert nobody.why == one.error, "who asks whether all is well is told"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certificate_in(tmp_path_factory.mktemp("tls"))


def serving(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


@pytest.mark.parametrize("tls", ["starttls", "tls"])
async def test_tls_and_a_login(certificate: Path, tls: str) -> None:
    login = {"username": "penstock", "password": "open sesame", "ca_file": str(certificate)}
    at_once = tls == "tls"
    async with mailbox(serving(certificate), from_the_start=at_once, wants_login=True) as box:
        (one,) = await mail(box.port, tls=tls, **login).deliver([message()])
        assert (one.fate, one.error) == (Fate.DELIVERED, None)
        assert box.logins == [True]
        wrong = {**login, "password": "open barley"}
        (one,) = await mail(box.port, tls=tls, **wrong).deliver([message()])
        assert one.fate is Fate.LATER, "an operator mends it"
        assert "barley" not in str(one.error)
    assert len(box.letters) == 1


@pytest.mark.parametrize("tls", ["starttls", "tls"])
async def test_a_certificate_that_nobody_vouches_for_is_not_taken(
    certificate: Path, tls: str
) -> None:
    async with mailbox(serving(certificate), from_the_start=tls == "tls") as box:
        (one,) = await mail(box.port, tls=tls).deliver([message()])
    assert one.fate is Fate.LATER
    assert "signed by no CA that we trust; see smtp.host and smtp.ca_file" in str(one.error)
    assert not box.letters


async def test_a_server_that_offers_no_tls_gets_nothing_where_it_is_wanted() -> None:
    async with mailbox() as box:
        (one,) = await mail(box.port, tls="starttls").deliver([message()])
    assert one.fate is Fate.LATER
    assert not box.letters
