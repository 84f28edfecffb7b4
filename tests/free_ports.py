"""Ports of loopback for servers that tests start."""

from __future__ import annotations

import fcntl
import functools
import os
import random
import socket
import tempfile
from pathlib import Path
from typing import IO

PORTS = range(20_000, 32_768)
"""Below those that Linux gives to clients and to whoever asks for any (net.ipv4.ip_local_port_range), above those of Ray's workers."""

_given: set[int] = set()


@functools.cache
def _locks() -> IO[bytes]:
    """Return a file with a byte for every port, locked by the process that has been given it."""
    return (Path(tempfile.gettempdir()) / f"ports-of-tests-{os.getuid()}").open("ab")


def free_port() -> int:
    """Return a port that nobody has. As long as this process lives, no test of this or of another process is given it again.

    A port that is asked of the system and let go is the next client's now and then, before the server binds it.
    """
    for port in random.sample(PORTS, len(PORTS)):
        if port in _given:
            continue
        try:
            fcntl.lockf(_locks(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
            with socket.socket() as attempt:
                attempt.bind(("127.0.0.1", port))
        except OSError:
            continue
        _given.add(port)
        return port
    raise AssertionError(f"every port from {PORTS[0]} to {PORTS[-1]} is taken")
