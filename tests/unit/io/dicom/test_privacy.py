"""What the DICOM libraries say about a file's values never gets out."""

from __future__ import annotations

import logging
import threading
import warnings

import pytest
from pydicom import Dataset
from pydicom.misc import warn_and_log

from medld.io.dicom.privacy import SITE_KEY, hash_uid, quiet

UID = "1.2.840.99999.1"


def test_warnings_that_quote_a_value_vanish(capfd: pytest.CaptureFixture[str]) -> None:
    with quiet():
        dataset = Dataset()
        dataset.PatientID = "SECRET" * 20  # too long: pydicom quotes it in a warning, and pytest makes that an error
        warn_and_log("SECRET")
    assert dataset.PatientID
    assert "SECRET" not in "".join(capfd.readouterr())


@pytest.mark.parametrize("name", ["pydicom", "highdicom", "highdicom.spatial", "pynetdicom.association"])
def test_log_records_of_the_libraries_and_their_parts_vanish(name: str, caplog: pytest.LogCaptureFixture) -> None:
    with quiet():
        logging.getLogger(name).critical("SECRET")
    assert "SECRET" not in caplog.text


def test_everything_is_as_before_afterwards(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("pydicom")
    before = (logger.handlers, logger.propagate, list(warnings.filters))
    with quiet(), quiet():
        pass
    assert (logger.handlers, logger.propagate, list(warnings.filters)) == before
    logger.warning("heard")
    assert "heard" in caplog.text


def test_an_error_inside_does_not_leave_it_silent(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(KeyError), quiet():
        raise KeyError
    logging.getLogger("highdicom").warning("heard")
    assert "heard" in caplog.text


def test_a_thread_that_leaves_early_does_not_let_others_be_heard(caplog: pytest.LogCaptureFixture) -> None:
    first_in, first_may_leave = threading.Event(), threading.Event()

    def first() -> None:
        with quiet():
            first_in.set()
            first_may_leave.wait()

    thread = threading.Thread(target=first)
    thread.start()
    first_in.wait()
    with quiet():
        first_may_leave.set()
        thread.join()
        logging.getLogger("pydicom").critical("SECRET")
    assert "SECRET" not in caplog.text
    logging.getLogger("pydicom").critical("heard")
    assert "heard" in caplog.text


def test_a_hashed_uid_is_short_repeats_and_does_not_show_the_uid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SITE_KEY, raising=False)
    assert len(hash_uid(UID)) == 16
    assert int(hash_uid(UID), 16) >= 0
    assert hash_uid(UID) == hash_uid(UID) != hash_uid(UID + "1")
    assert UID not in hash_uid(UID)


def test_the_key_of_a_site_changes_every_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = set()
    for key in ("", "one", "two"):
        monkeypatch.setenv(SITE_KEY, key)
        hashes.add(hash_uid(UID))
    assert len(hashes) == 3
