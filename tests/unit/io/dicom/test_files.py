"""Files are found by their content, and no archive or link leads where it should not."""

from __future__ import annotations

import hashlib
import os
import zipfile
import zlib
from pathlib import Path

import dicom_factory as factory
import pytest
from dicom_factory import make_series

from medld.errors import InputError
from medld.io.dicom import files
from medld.io.dicom.files import find_sources, hash_sources, looks_like_dicom, open_source


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Three slices and much else, in the disorder of a real folder."""
    folder = tmp_path / "study"
    make_series(folder / "b" / "deep", slices=3)
    (folder / "README").write_text("DICM " * 100)
    (folder / "a.nii").write_bytes(b"\x5c\x01\0\0" + b"\0" * 400)
    (folder / "empty.dcm").write_bytes(b"")
    (folder / ".hidden").write_bytes((folder / "b" / "deep" / "s1-0001.dcm").read_bytes())
    (folder / "__MACOSX").mkdir()
    (folder / "__MACOSX" / "x").write_bytes((folder / "b" / "deep" / "s1-0001.dcm").read_bytes())
    return folder


def names(sources: object) -> list[str]:
    """Names of sources, in their order."""
    return [Path(source.member or source.path).name for source in sources]  # type: ignore[attr-defined]


def zip_folder(folder: Path, goal: Path) -> Path:
    """A folder as an archive."""
    with zipfile.ZipFile(goal, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in folder.rglob("*"):
            archive.write(path, path.relative_to(folder))
    return goal


@pytest.mark.parametrize("packed", [False, True])
def test_a_folder_and_its_archive_hold_the_same(study: Path, tmp_path: Path, packed: bool) -> None:
    found, skipped = find_sources(zip_folder(study, tmp_path / "study.zip") if packed else study)
    assert names(found) == ["s1-0001.dcm", "s1-0002.dcm", "s1-0003.dcm"]
    assert sorted(names(skipped)) == ["README", "a.nii", "empty.dcm"]
    assert {refusal.code for refusal in skipped.values()} == {"E_NOT_IMAGE"}


def test_a_member_reads_as_the_file_does(study: Path, tmp_path: Path) -> None:
    plain = find_sources(study)[0]
    packed = find_sources(zip_folder(study, tmp_path / "study.ZIP"))[0]
    for one, other in zip(plain, packed, strict=True):
        with open_source(one) as a, open_source(other) as b:
            data = a.read()
            assert b.read() == data
            b.seek(128)
            assert b.read(4) == b"DICM"
        assert one.size == other.size == len(data)


def test_a_file_alone_is_found_and_what_is_not_there_is_refused(study: Path) -> None:
    path = study / "b" / "deep" / "s1-0002.dcm"
    assert [source.path for source in find_sources(path)[0]] == [path]
    with pytest.raises(InputError) as caught:
        find_sources(study / "nothing")
    assert caught.value.code == "E_NOT_IMAGE"


def test_links_are_followed_inside_the_folder_only(study: Path, tmp_path: Path) -> None:
    outside = make_series(tmp_path / "outside", slices=1, series=7)[0]
    (study / "out.dcm").symlink_to(outside)
    (study / "outdir").symlink_to(outside.parent)
    (study / "in.dcm").symlink_to(study / "b" / "deep" / "s1-0001.dcm")
    (study / "broken.dcm").symlink_to(study / "nowhere")
    found, skipped = find_sources(study)
    assert sorted(names(found)) == ["in.dcm", "s1-0001.dcm", "s1-0002.dcm", "s1-0003.dcm"]
    assert {"out.dcm", "broken.dcm"} <= set(names(skipped))
    assert "s7-0001.dcm" not in names(found)


def test_pipes_are_not_opened(study: Path) -> None:
    os.mkfifo(study / "pipe")
    found, skipped = find_sources(study)
    assert "pipe" not in names(found) + names(skipped)
    assert looks_like_dicom(study)


@pytest.mark.parametrize("syntax", [factory.EXPLICIT, factory.IMPLICIT, factory.BIG_ENDIAN])
def test_objects_without_preamble_look_like_dicom(tmp_path: Path, syntax: str) -> None:
    path = make_series(tmp_path, slices=1, syntax=syntax)[0]
    raw = path.read_bytes()
    start = raw.index(b"\x08\x00" if syntax != factory.BIG_ENDIAN else b"\x00\x08", 300)
    for tail in (raw[132:], raw[start:]):  # with and without the file meta information
        path.write_bytes(tail)
        assert looks_like_dicom(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 300,
        b"DICM!" * 100,
        b"%PDF-1.4\n" * 50,
        b"\x5c\x01\0\0" * 90,
        b"\x1f\x8b\x08" * 90,
        b"NRRD0004\n" * 50,
    ],
)
def test_other_files_do_not_look_like_dicom(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    assert not looks_like_dicom(tmp_path / "x")
    assert not looks_like_dicom(tmp_path)
    assert not looks_like_dicom(tmp_path / "nothing")


def test_an_archive_looks_like_what_it_holds(study: Path, tmp_path: Path) -> None:
    assert looks_like_dicom(zip_folder(study, tmp_path / "a.zip"))
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("nothing to see")
    assert not looks_like_dicom(zip_folder(tmp_path / "notes", tmp_path / "b.zip"))
    (tmp_path / "cut.zip").write_bytes((tmp_path / "a.zip").read_bytes()[:900])
    assert not looks_like_dicom(tmp_path / "cut.zip")
    with pytest.raises(InputError):
        find_sources(tmp_path / "cut.zip")


def test_an_archive_that_was_replaced_is_read_anew(study: Path, tmp_path: Path) -> None:
    goal = zip_folder(study, tmp_path / "a.zip")
    assert len(find_sources(goal)[0]) == 3
    (study / "b" / "deep" / "s1-0002.dcm").unlink()
    zip_folder(study, goal)
    assert len(find_sources(goal)[0]) == 2


def test_names_that_lead_out_of_an_archive_are_only_names(tmp_path: Path) -> None:
    raw = make_series(tmp_path / "in", slices=1)[0].read_bytes()
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("../../evil.dcm", raw)
    before = sorted(tmp_path.parent.rglob("*"))
    (source,) = find_sources(tmp_path / "a.zip")[0]
    with open_source(source) as stream:
        assert stream.read() == raw
    assert sorted(tmp_path.parent.rglob("*")) == before


def test_a_member_that_grows_beyond_any_scan_is_not_opened(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.dcm", b"\0" * (files.SMALL_BYTES + 1))
    found, skipped = find_sources(tmp_path / "a.zip")
    assert not found
    assert [refusal.code for refusal in skipped.values()] == ["E_TOO_BIG"]


def test_too_many_files_are_refused(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_FILES", 5)
    with pytest.raises(InputError) as caught:
        find_sources(study)
    assert caught.value.code == "E_TOO_BIG"


def test_a_deflated_object_comes_as_plain_little_endian(tmp_path: Path) -> None:
    plain = make_series(tmp_path / "plain", slices=1)[0].read_bytes()
    (source,) = find_sources(make_series(tmp_path / "deflated", slices=1, syntax=factory.DEFLATED)[0])[0]
    with open_source(source) as stream:
        inflated = stream.read()
    assert factory.DEFLATED.encode() not in inflated
    assert inflated[-1000:] == plain[-1000:]


def test_a_deflated_bomb_stops_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_series(tmp_path, slices=1, syntax=factory.DEFLATED)[0]
    raw = path.read_bytes()
    start = 144 + int.from_bytes(raw[140:144], "little")
    engine = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    body = (
        engine.compress(zlib.decompress(raw[start:], -zlib.MAX_WBITS) + b"\0" * (4 * files.SMALL_BYTES))
        + engine.flush()
    )
    path.write_bytes(raw[:start] + body)
    (source,) = find_sources(path)[0]
    monkeypatch.setattr(files, "SMALL_BYTES", 2**16)
    with pytest.raises(InputError) as caught:
        open_source(source)
    assert caught.value.code == "E_TOO_BIG"


@pytest.mark.parametrize("syntax", [factory.EXPLICIT, factory.DEFLATED])
def test_the_hash_of_objects_is_the_same_in_an_archive_and_under_other_names(tmp_path: Path, syntax: str) -> None:
    folder = tmp_path / "study"
    paths = make_series(folder, slices=3, syntax=syntax)
    inside = find_sources(zip_folder(folder, tmp_path / "study.zip"))[0]
    known = hash_sources(find_sources(folder)[0])
    lines = sorted(hashlib.sha256(path.read_bytes()).hexdigest() + "\n" for path in paths)
    assert known == hash_sources(inside) == hashlib.sha256("".join(lines).encode()).hexdigest()
    paths[0].rename(folder / "zzz")
    assert hash_sources(find_sources(folder)[0]) == known
    assert hash_sources(find_sources(folder)[0][1:]) != known


def test_objects_of_a_damaged_archive_are_not_hashed(tmp_path: Path) -> None:
    make_series(tmp_path / "study", slices=1)
    archive = zip_folder(tmp_path / "study", tmp_path / "study.zip")
    sources, content = find_sources(archive)[0], bytearray(archive.read_bytes())
    content[300] ^= 0xFF
    archive.write_bytes(content)
    with pytest.raises(InputError) as caught:
        hash_sources(sources)
    assert caught.value.code == "E_TRUNC"
