"""Privacy: nothing that a header says reaches a log, a warning or a message.

pydicom and highdicom quote values in their warnings and log records: a patient's name in the
wrong character set would end up in a report. What these libraries say is dropped; what we
have to say about a file, we say ourselves, without values.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

__all__ = ["SITE_KEY", "hash_uid", "quiet"]

SITE_KEY = "MEDLD_SITE_KEY"  # environment: a hospital's secret, so that nobody else can match UIDs
HASH_DIGITS = 16

_LIBRARIES = ("pydicom", "highdicom", "pynetdicom")


@contextmanager
def quiet() -> Iterator[None]:
    """Let warnings and log records of the DICOM libraries, which may quote patient data, vanish.

    Works as a decorator too. Nested use is fine, also from several threads: the last to leave
    puts everything back.
    """
    _SILENCE.enter()
    try:
        yield
    finally:
        _SILENCE.leave()


class _Silence:
    """Warnings off and the libraries' loggers cut off, as long as anyone is inside."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._undo = ExitStack()

    def enter(self) -> None:
        """The first one in turns everything off."""
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._undo.enter_context(warnings.catch_warnings())
                warnings.simplefilter("ignore")
                for name in _LIBRARIES:
                    self._undo.callback(_cut_off(logging.getLogger(name)))

    def leave(self) -> None:
        """The last one out puts everything back."""
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._undo.close()


def _cut_off(logger: logging.Logger) -> Callable[[], None]:
    """Let nothing of a logger and its children through; returns how to undo that."""
    # Children pass their records up, so handlers and propagation decide; a filter would not see them.
    handlers, propagate = logger.handlers, logger.propagate
    logger.handlers, logger.propagate = [logging.NullHandler()], False

    def undo() -> None:
        logger.handlers, logger.propagate = handlers, propagate

    return undo


_SILENCE = _Silence()


def hash_uid(uid: str) -> str:
    """A UID for logs and reports: 16 hexadecimal digits of its SHA-256.

    With the environment variable MEDLD_SITE_KEY it is an HMAC under that key, which only its
    holders can repeat.
    """
    key = os.environ.get(SITE_KEY, "")
    message = str(uid).encode("utf-8", "surrogatepass")
    digest = hmac.new(key.encode(), message, hashlib.sha256) if key else hashlib.sha256(message)
    return digest.hexdigest()[:HASH_DIGITS]
