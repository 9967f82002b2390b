"""What went wrong with a connection, in a line, and whether another attempt can help.

gdown and requests raise a score of classes, some with a page of text. Here each becomes a reason
that says how to mend it.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

import gdown
import requests

EXPECTED_ERRORS = (
    gdown.DownloadError,
    requests.RequestException,
    # What gdown runs into where an answer lacks a header or is malformed.
    AssertionError,
    KeyError,
    TypeError,
    ValueError,
)
"""All that gdown and requests raise; disk errors are not among them."""

_PASSING_STATUSES = frozenset({408, 425, 429})
_FIRST_SERVER_STATUS = 500
_QUOTA_WORDS = re.compile(r"too many users|quota", flags=re.IGNORECASE)
_DRIVE_REASON = re.compile(r"Failed to retrieve file url:\s*(.*?)\s*(?:You may still|$)")
_STATUS_IN_TEXT = re.compile(r"status code (\d+)")

_STATUS_ADVICE = {
    401: "it wants a login; take a link that is shared with everybody",
    403: "it does not give this file to everybody; look whether the link is shared with all, or "
    "has run out",
    404: "there is no such file; compare the address with the one that a browser opens",
    410: "the file was there and is gone; look for a new address",
    429: "it was asked too often; wait some minutes",
}
_SERVER_ADVICE = "the server is in trouble; try again later"


class ChangedFileError(Exception):
    """The file at the address was replaced while it was being downloaded."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why an attempt failed."""

    reason: str
    """What happened and how to mend it."""

    may_pass: bool
    """Whether another attempt can go better."""

    wait_s: float = 0.0
    """How long the server asked to be left alone, in seconds."""


def explain(error: Exception, *, timeout_s: float) -> Failure:
    """Puts an error into words.

    Args:
        error: one of `EXPECTED_ERRORS`, or a `ChangedFileError`.
        timeout_s: how long an answer was waited for.
    """
    for kind, explain_kind in _KINDS:
        if isinstance(error, kind):
            return explain_kind(error, timeout_s)
    return Failure(
        reason=f"the answer makes no sense ({type(error).__name__}: {_one_line(error)}); look what "
        "a browser shows at the address",
        may_pass=False,
    )


def _status_failure(status: int, *, wait_s: float = 0.0) -> Failure:
    try:
        phrase = f" {HTTPStatus(status).phrase}"
    except ValueError:
        phrase = ""
    is_server = status >= _FIRST_SERVER_STATUS
    advice = _SERVER_ADVICE if is_server else "look what a browser shows at the address"
    return Failure(
        reason=f"the server answers {status}{phrase}: {_STATUS_ADVICE.get(status, advice)}",
        may_pass=is_server or status in _PASSING_STATUSES,
        wait_s=wait_s,
    )


def _explain_status(error: requests.HTTPError, _: float) -> Failure:
    if error.response is None:
        return _explain_request(error, _)
    retry_after = error.response.headers.get("Retry-After", "")
    # The header may hold a date too; then our own wait has to do.
    wait_s = float(retry_after) if retry_after.isdecimal() else 0.0
    return _status_failure(error.response.status_code, wait_s=wait_s)


def _explain_timeout(_: Exception, timeout_s: float) -> Failure:
    return Failure(
        reason=f"nothing came for {timeout_s:g} s; check the network, or raise --timeout-s",
        may_pass=True,
    )


def _explain_connection(error: Exception, timeout_s: float) -> Failure:
    text = _root_text(error)
    if "timed out" in text.lower():  # requests tells a stall amid the file only by its text
        return _explain_timeout(error, timeout_s)
    return Failure(
        reason=f"the connection failed or was dropped ({text}); check the address and the network",
        may_pass=True,
    )


def _explain_certificate(error: Exception, _: float) -> Failure:
    return Failure(
        reason=f"no trusted connection can be made ({_root_text(error)}); check the address, and "
        "the clock and the certificates of this machine",
        may_pass=False,
    )


def _explain_proxy(error: Exception, _: float) -> Failure:
    return Failure(
        reason=f"the proxy gives no connection ({_root_text(error)}); check HTTP_PROXY, "
        "HTTPS_PROXY and NO_PROXY in the environment",
        may_pass=False,
    )


def _explain_request(error: Exception, _: float) -> Failure:
    return Failure(
        reason=f"the request cannot be made ({_one_line(error)}); look what a browser shows at "
        "the address",
        may_pass=False,
    )


def _explain_drive_link(error: Exception, _: float) -> Failure:
    text = _one_line(error)
    found = _DRIVE_REASON.search(text)
    drive_says = found[1] if found else text
    if _QUOTA_WORDS.search(drive_says) and "permission" not in drive_says:
        return Failure(
            reason=f"the quota of this file on Google Drive is used up ({drive_says}); try again "
            "in 24 hours, or copy the file to a Drive of your own and share that",
            may_pass=False,
        )
    return Failure(
        reason="Google Drive does not give this file to everybody, or was asked for it too often; "
        "share it with 'Anyone with the link', look at it in a private browser window, or try "
        f"again in 24 hours. Drive and gdown say: {drive_says}",
        may_pass=False,
    )


def _explain_gdown(error: Exception, _: float) -> Failure:
    text = _one_line(error)
    status = _STATUS_IN_TEXT.search(text)
    if status:
        return _status_failure(int(status[1]))
    if "parse folder" in text:
        return Failure(
            reason="this is no folder that Google Drive shows to everybody; share it with 'Anyone "
            f"with the link' and open it in a private browser window. gdown says: {text}",
            may_pass=False,
        )
    return Failure(
        reason=f"the file did not come whole ({text.partition(' The received bytes')[0]}); check "
        "the network",
        may_pass=True,
    )


def _explain_change(_: Exception, __: float) -> Failure:
    return Failure(
        reason="the file was replaced at its address while it was downloaded; begin again when "
        "its owner has finished",
        may_pass=True,
    )


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _root_text(error: BaseException) -> str:
    """Gives the text of the innermost error; those around it repeat the address."""
    inner: BaseException | None = error
    while inner is not None:
        error = inner
        nested = [arg for arg in (getattr(error, "reason", None), *error.args)]
        inner = next((arg for arg in nested if isinstance(arg, BaseException)), None)
        inner = inner or error.__cause__
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    # urllib3 puts the connection before what happened: `HTTPConnection(host=…): Failed to …`.
    return re.sub(r"^\S*(?:Connection|Pool)\(.*?\): ", "", _one_line(error)) or type(error).__name__


_KINDS: tuple[tuple[type[Exception], Callable[..., Failure]], ...] = (
    (ChangedFileError, _explain_change),
    (requests.HTTPError, _explain_status),
    (requests.exceptions.SSLError, _explain_certificate),
    (requests.exceptions.ProxyError, _explain_proxy),
    (requests.Timeout, _explain_timeout),
    (requests.ConnectionError, _explain_connection),
    (requests.exceptions.ChunkedEncodingError, _explain_connection),
    (requests.exceptions.ContentDecodingError, _explain_connection),
    (requests.RequestException, _explain_request),
    (gdown.FileURLRetrievalError, _explain_drive_link),
    (gdown.DownloadError, _explain_gdown),
)
"""A class stands before the classes that it derives from."""
