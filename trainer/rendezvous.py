"""Before several workers train together: does each find the others? Standard library only.

TensorFlow itself waits for an hour, or ends the process, and says neither for whom nor why.
"""

import logging
import socket
import time
from collections.abc import Callable, Sequence

logger = logging.getLogger(__name__)

OWN_NAME_S = 60.0
"""Longest wait for the worker's own name. It is there seconds after the pod has an address, or
never."""

PEERS_S = 900.0
"""Longest wait for the others, in seconds: a node that is added first takes some minutes."""

_RETRY_S = 1.0
_CONNECT_S = 5.0


def meet(
    addresses: Sequence[str],
    index: int,
    *,
    own_name_s: float = OWN_NAME_S,
    peers_s: float = PEERS_S,
) -> None:
    """Waits until this worker can be found, and finds the others.

    The chief, which listens first, needs the names of all; another worker needs the chief's port.

    Args:
        addresses: ``HOST:PORT`` of all workers, chief first.
        index: which of them this is.
        own_name_s: longest wait for this worker's own name, in seconds.
        peers_s: longest wait for the others, in seconds.

    Raises:
        ValueError: if an address is none, a name is not known, or the chief is not reached in that
            time.
    """
    for address in addresses:
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal():
            raise ValueError(f"the address of a worker is {address!r}; expected HOST:PORT")
    own = addresses[index]
    who = f"worker {index} of {len(addresses)}"
    if reason := _wait_for(lambda: _unknown_names([own]), own_name_s):
        raise ValueError(
            f"{who} does not find its own name: {reason} after {own_name_s:g} s; expected a "
            "headless Service whose name is the `subdomain` of the pods, with "
            "publishNotReadyAddresses, and WORKER_ADDRESS with that name"
        )
    if index == 0:
        if reason := _wait_for(lambda: _unknown_names(addresses), peers_s):
            raise ValueError(
                f"{who} does not find the others: {reason} after {peers_s:g} s; are their pods "
                "scheduled, and is NUM_WORKERS the number of pods?"
            )
    elif reason := _wait_for(lambda: _why_unreached(addresses[0]), peers_s):
        raise ValueError(
            f"{who} does not reach the chief: {reason} after {peers_s:g} s; is its pod running, "
            "and does a NetworkPolicy let workers reach each other at that port?"
        )


def _wait_for(why_not: Callable[[], str], seconds: float) -> str:
    """Asks again and again; gives an empty text once there is no reason, else the last reason."""
    end_s = time.monotonic() + seconds
    is_told = False
    while (reason := why_not()) and time.monotonic() < end_s:
        if not is_told:
            logger.info("waiting: %s", reason)
            is_told = True
        time.sleep(_RETRY_S)
    return reason


def _unknown_names(addresses: Sequence[str]) -> str:
    unknown = []
    for address in addresses:
        host, _, port = address.rpartition(":")
        try:
            socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
        except socket.gaierror:
            unknown.append(host)
    return f"no address is known for {', '.join(unknown)}" if unknown else ""


def _why_unreached(address: str) -> str:
    if reason := _unknown_names([address]):
        return reason
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S):
            return ""
    except OSError as error:
        return f"{address} does not answer ({error.strerror or error})"
