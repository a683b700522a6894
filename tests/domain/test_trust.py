"""What is wrong with TLS, by OpenSSL's numbers and reasons."""

import ssl

import pytest

from penstock.domain.trust import fault_of


def refused(code: int, message: str = "") -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_code, error.verify_message = code, message
    return error


def failed(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, "failed")
    error.reason = reason
    return error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (refused(9), "not valid yet"),
        (refused(10), "has expired"),
        (refused(7), "signed by no CA"),
        (refused(18), "signed by no CA"),
        (refused(20), "signed by no CA"),
        (refused(62), "another name"),
        (refused(64), "another address"),
        (refused(26, "unsuitable certificate purpose"), "unsuitable certificate purpose"),
        (failed("WRONG_VERSION_NUMBER"), "speaks no TLS there"),
        (failed("TLSV13_ALERT_CERTIFICATE_REQUIRED"), "wants a certificate of ours"),
    ],
)
def test_a_fault_is_told_in_an_operators_words(error: Exception, words: str) -> None:
    assert words in str(fault_of(error))


def test_it_is_found_behind_what_libraries_make_of_it() -> None:
    outer, middle = ConnectionError("away"), OSError("no")
    middle.__context__ = refused(10)
    outer.__cause__ = middle
    assert fault_of(outer) == "its certificate has expired"
    assert fault_of(ConnectionError(refused(10))) == "its certificate has expired"


@pytest.mark.parametrize(
    "error",
    [None, ConnectionResetError(), TimeoutError(), failed("UNEXPECTED_EOF_WHILE_READING")],
)
def test_what_may_go_better_the_next_time_is_no_fault(error: Exception | None) -> None:
    assert fault_of(error) is None


def test_errors_that_are_one_anothers_cause_end() -> None:
    one, other = OSError(), OSError()
    one.__cause__, other.__cause__ = other, one
    assert fault_of(one) is None
