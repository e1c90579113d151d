"""Damaged and odd DICOM on the command line: its one right outcome each, and no patient data anywhere."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dicom_factory as factory
import nibabel as nib
import numpy as np
import pytest
from dicom_bystanders import SKIPPED
from dicom_damage import REFUSED, own_series
from dicom_factory import UID_ROOT, edit, edit_bytes, leaks, make_enhanced, make_series, set_tag, truth
from dicom_makers import good, in_syntax
from dicom_oddities import ACCEPTED, Expected
from pydicom import dcmread

from medld.cli import main

Capture = pytest.CaptureFixture[str]
BASELINE = ["--model", "baseline", "--device", "cpu"]


def contents(folder: Path) -> dict[Path, bytes]:
    """All files below a folder."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@contextmanager
def unchanged(folder: Path) -> Iterator[None]:
    """Nothing below a folder is added, changed or removed."""
    before = contents(folder)
    yield
    assert contents(folder) == before


def printed(capsys: Capture) -> str:
    """All that was printed; free of patient data and of tracebacks."""
    streams = capsys.readouterr()
    said = streams.out + streams.err
    assert "Traceback" not in said
    assert leaks(said) == []
    return said


def convert(source: Path, goal: Path, *options: str) -> int:
    """`medld convert`; its exit code."""
    return main(["convert", str(source), "-o", str(goal), *options])


def enhance(source: Path, goal: Path, *options: str) -> int:
    """`medld enhance` without a model; its exit code."""
    return main(["enhance", str(source), "-o", str(goal), *options, *BASELINE])


def assert_read(goal: Path, expected: Expected) -> None:
    """A NIfTI file holds the values where they belong."""
    image = nib.load(goal)
    ours = nib.as_closest_canonical(image)
    theirs = nib.as_closest_canonical(nib.Nifti1Image(expected.values, expected.affine))
    np.testing.assert_allclose(ours.affine, theirs.affine, rtol=0, atol=expected.tolerance)
    np.testing.assert_allclose(ours.get_fdata(), theirs.get_fdata(), rtol=0, atol=expected.value_tolerance)


def has_code(said: str, codes: str) -> bool:
    """Whether one of the codes was printed as a reason."""
    return any(f"{code}:" in said for code in codes.split("|"))


@pytest.mark.parametrize("kind", REFUSED)
def test_damaged_series_is_refused_by_its_code(kind: str, tmp_path: Path, capsys: Capture) -> None:
    codes, make = REFUSED[kind]
    source = make(tmp_path)
    (tmp_path / "out").mkdir()
    with unchanged(tmp_path):
        for command, goal in ((convert, "x.nii"), (enhance, "series")):
            code = command(source, tmp_path / "out" / goal)
            said = printed(capsys)
            assert code == 2, said
            assert has_code(said, codes), said
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("kind", ACCEPTED)
def test_odd_but_sound_series_is_read_exactly(kind: str, tmp_path: Path, capsys: Capture) -> None:
    expected = ACCEPTED[kind](tmp_path)
    with unchanged(expected.path if expected.path.is_dir() else tmp_path / "none"):
        code = convert(expected.path, tmp_path / "out.nii")
    said = printed(capsys)
    assert code == 0, said
    for warning in ("W_INCOMPLETE", "W_DUP", "W_SECOND_PASS", "W_RANGE"):
        assert (warning in said) == (warning in expected.warnings), said
    assert_read(tmp_path / "out.nii", expected)
    assert leaks((tmp_path / "out.nii").read_bytes().decode("latin-1")) == []


@pytest.mark.parametrize("kind", SKIPPED)
def test_file_that_is_no_scan_is_refused_alone(kind: str, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "in").mkdir()
    path = SKIPPED[kind](tmp_path / "in")
    with unchanged(tmp_path):
        assert convert(path, tmp_path / "out.nii") == 2
        assert convert(tmp_path / "in", tmp_path / "out.nii") == 2
    said = printed(capsys)
    assert said.count("E_NOT_IMAGE:") >= 2, said


@pytest.mark.parametrize("kind", SKIPPED)
def test_file_that_is_no_scan_is_passed_over_beside_one(kind: str, tmp_path: Path, capsys: Capture) -> None:
    expected = Expected(tmp_path / "in", *truth(good(tmp_path)))
    SKIPPED[kind](tmp_path / "in")
    assert convert(expected.path, tmp_path / "out.nii") == 0
    printed(capsys)
    assert_read(tmp_path / "out.nii", expected)


def test_gap_names_the_missing_slice_and_its_place(tmp_path: Path, capsys: Capture) -> None:
    assert convert(REFUSED["missing middle slice"][1](tmp_path), tmp_path / "x.nii") == 2
    said = printed(capsys)
    assert "slice 7 of 12" in said
    assert "54" in said


def test_mosaic_is_sent_to_a_tool_that_splits_it(tmp_path: Path, capsys: Capture) -> None:
    assert convert(REFUSED["mosaic"][1](tmp_path), tmp_path / "x.nii") == 2
    assert "dcm2niix" in printed(capsys)


def test_cut_last_file_is_not_passed_over_in_silence(tmp_path: Path, capsys: Capture) -> None:
    """Without its header a file belongs to no series, so the eleven others look whole."""
    paths = good(tmp_path)
    expected = Expected(tmp_path / "in", *truth(paths[:-1]))
    edit_bytes([paths[-1]], lambda raw: raw[:700])
    code = convert(tmp_path / "in", tmp_path / "x.nii")
    said = printed(capsys)
    if code == 0:
        assert "W_INCOMPLETE" in said
        assert_read(tmp_path / "x.nii", expected)
    else:
        assert code == 2
        assert "E_TRUNC" in said
        assert not (tmp_path / "x.nii").exists()


# --- several volumes -----------------------------------------------------------------------


def two_echoes(folder: Path) -> list[list[Path]]:
    """5: two volumes in one series."""
    echoes = []
    for number in range(2):
        paths = make_series(folder / "in" / f"e{number}", rng=np.random.default_rng(number))

        def change(dataset: Any, index: int, number: int = number) -> None:
            dataset.SOPInstanceUID = f"{UID_ROOT}.1.1.{number * 12 + index + 1}"
            dataset.InstanceNumber = number * 12 + index + 1
            dataset.EchoTime, dataset.EchoNumbers = ("12", "90")[number], number + 1

        echoes.append(edit(paths, change))
    return echoes


def assert_refused_as_several(source: Path, goal: Path, capsys: Capture, *options: str) -> None:
    """Exit 2 and a list with numbers; nothing written."""
    assert convert(source, goal, *options) == 2
    said = printed(capsys)
    assert "E_SEVERAL:" in said
    assert "1" in said
    assert "2" in said
    assert not goal.exists()


def test_two_echoes_are_two_volumes(tmp_path: Path, capsys: Capture) -> None:
    echoes = two_echoes(tmp_path)
    assert_refused_as_several(tmp_path / "in", tmp_path / "x.nii", capsys)
    for number, paths in enumerate(echoes, start=1):
        assert convert(tmp_path / "in", tmp_path / f"{number}.nii", "--series", str(number)) == 0
        printed(capsys)
        assert_read(tmp_path / f"{number}.nii", Expected(tmp_path, *truth(paths)))
    assert convert(tmp_path / "in", tmp_path / "x.nii", "--series", "3") == 2
    assert "inspect" in printed(capsys)
    assert not (tmp_path / "x.nii").exists()


def test_enhanced_object_with_two_echoes_is_two_volumes(tmp_path: Path, capsys: Capture) -> None:
    path = make_enhanced(tmp_path / "in" / "e.dcm", echo_times=(2.46, 7.38))
    assert_refused_as_several(tmp_path / "in", tmp_path / "x.nii", capsys)
    stored = dcmread(path).pixel_array.astype(float).reshape(2, 12, 20, 24)
    affine = truth(make_series(tmp_path / "plain"))[1]
    for number in (1, 2):
        assert convert(path, tmp_path / f"{number}.nii", "--series", str(number)) == 0
        assert_read(tmp_path / f"{number}.nii", Expected(path, stored[number - 1].transpose(2, 1, 0), affine))
    printed(capsys)


def test_enhanced_time_series_is_refused(tmp_path: Path, capsys: Capture) -> None:
    path = make_enhanced(tmp_path / "in" / "e.dcm", times=3)
    assert convert(path, tmp_path / "x.nii") == 2
    assert "E_4D:" in printed(capsys)
    assert not (tmp_path / "x.nii").exists()


def test_two_series_of_one_description_are_both_there(tmp_path: Path, capsys: Capture) -> None:
    first = make_series(tmp_path / "in", series=1)
    second = make_series(tmp_path / "in", series=2, rng=np.random.default_rng(1))
    for options in ((), ("--series", factory.PATIENT["SeriesDescription"])):
        assert_refused_as_several(tmp_path / "in", tmp_path / "x.nii", capsys, *options)
    for number, paths in (("1", first), (f"{UID_ROOT}.1.2", second)):
        assert convert(tmp_path / "in", tmp_path / f"{number}.nii", "--series", number) == 0
        capsys.readouterr()  # the name of the output, which holds the UID here, may be printed
        assert_read(tmp_path / f"{number}.nii", Expected(tmp_path, *truth(paths)))


def test_one_bad_series_does_not_stop_a_good_one(tmp_path: Path, capsys: Capture) -> None:
    bad = make_series(tmp_path / "in", series=1)
    bad[5].unlink()
    paths = make_series(tmp_path / "in", series=2, rng=np.random.default_rng(1))
    assert convert(tmp_path / "in", tmp_path / "x.nii") == 0
    printed(capsys)
    assert_read(tmp_path / "x.nii", Expected(tmp_path, *truth(paths)))


@pytest.mark.parametrize("syntax", [factory.HTJ2K, "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"])
def test_rare_codec_is_exact_or_refused(syntax: str, tmp_path: Path, capsys: Capture) -> None:
    """24: codecs that a build may lack; what they hold is never guessed."""
    if syntax == factory.HTJ2K:
        values, affine = truth(make_series(tmp_path / "plain"))
        good(tmp_path, syntax=syntax)
    else:
        in_syntax(syntax)(tmp_path)
    code = convert(tmp_path / "in", tmp_path / "x.nii")
    said = printed(capsys)
    if code == 0:
        assert syntax == factory.HTJ2K, "noise was decoded"
        assert_read(tmp_path / "x.nii", Expected(tmp_path, values, affine))
    else:
        assert code == 2
        assert has_code(said, "E_CODEC|E_TRUNC"), said
        assert not (tmp_path / "x.nii").exists()


# --- names, character sets, reports ---------------------------------------------------------

JAPANESE = b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B"
NAMES = {
    "Latin 1": ("ISO_IR 100", "Bjørnsen^Åse".encode("latin-1")),
    "UTF-8": ("ISO_IR 192", "Хабарова^Зинаида".encode()),
    "ISO 2022 Japanese": ("\\ISO 2022 IR 87", JAPANESE),
    "GB18030": ("GB18030", "Wang^XiaoDong=王^小东".encode("gb18030")),
    "UTF-8 that is none": ("ISO_IR 192", b"Bj\xf8rnsen^\xc5se"),
    "no character set": ("", b"Bj\xf8rnsen^\xc5se"),
    "unknown character set": ("ISO_IR 999", b"Bj\xf8rnsen^\xc5se"),
    "nonsense": ("klingon", b"Worf"),
}


def named(folder: Path, charset: str, name: bytes) -> Path:
    """A series with a patient's name as bytes and the character set that it claims."""
    filler = b"Q" * len(name)

    def change(dataset: Any, index: int) -> None:
        dataset.SpecificCharacterSet = charset.split("\\")
        dataset.PatientName = filler.decode()

    paths = edit(good(folder), change)
    edit_bytes(paths, lambda raw: raw.replace(filler, name))
    return folder / "in"


def patient_name(path: Path) -> bytes:
    """The raw bytes of a name."""
    raw = path.read_bytes()
    at = raw.index(b"\x10\x00\x10\x00PN")
    length = int.from_bytes(raw[at + 6 : at + 8], "little")
    return raw[at + 8 : at + 8 + length].rstrip(b" \0")


@pytest.mark.parametrize("kind", NAMES)
def test_names_survive_byte_by_byte_or_are_refused(kind: str, tmp_path: Path, capsys: Capture) -> None:
    """25: a name that cannot be read must not come out as another one."""
    charset, name = NAMES[kind]
    source = named(tmp_path, charset, name)
    code = enhance(source, tmp_path / "out")
    said = printed(capsys)
    assert not any(part.decode("latin-1") in said for part in name.split(b"^") if len(part) > 3)
    if code == 0:
        written = sorted((tmp_path / "out").rglob("*.dcm"))
        assert written
        assert {patient_name(path) for path in written} == {name}
    else:
        assert code == 2, said
        assert has_code(said, "E_CHARSET"), said
        assert not list(tmp_path.rglob("out/**/*.dcm"))


@pytest.mark.parametrize("kind", ["Latin 1", "UTF-8", "ISO 2022 Japanese", "GB18030"])
def test_sound_character_sets_are_read(kind: str, tmp_path: Path, capsys: Capture) -> None:
    source = named(tmp_path, *NAMES[kind])
    assert convert(source, tmp_path / "x.nii") == 0, printed(capsys)


@pytest.mark.parametrize("options", [(), ("--format", "nifti")], ids=["dicom", "nifti"])
def test_reports_and_names_of_files_hold_no_patient_data(
    options: tuple[str, ...], tmp_path: Path, capsys: Capture
) -> None:
    source = ACCEPTED["markup in descriptions"](tmp_path).path
    assert enhance(source, tmp_path / "out", *options) == 0, printed(capsys)
    printed(capsys)
    written = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert written
    for path in written:
        assert leaks(str(path.relative_to(tmp_path))) == []
        assert "script" not in path.name
        if path.suffix in (".json", ".txt", ".csv", ".html", ".log"):
            assert leaks(path.read_text()) == []
            assert "<script>" not in path.read_text()
        elif options:
            assert leaks(path.read_bytes().decode("latin-1")) == []
    outside = {path.name for path in tmp_path.iterdir()}
    assert outside <= {"in", "out"} | {path.name for path in written}


def test_names_of_files_inside_a_study_are_not_passed_on(tmp_path: Path, capsys: Capture) -> None:
    """Archives name files and folders after patients; the folder itself is the user's own word."""
    paths = good(tmp_path)
    secret = tmp_path / "in" / factory.PATIENT["PatientName"]
    secret.mkdir()
    for path in paths:
        path.rename(secret / f"{factory.PATIENT['PatientID']}-{path.name}")
    expected = Expected(tmp_path / "in", *truth(sorted(secret.iterdir())))
    assert convert(tmp_path / "in", tmp_path / "x.nii") == 0
    assert enhance(tmp_path / "in", tmp_path / "out", "--format", "nifti") == 0
    printed(capsys)
    assert_read(tmp_path / "x.nii", expected)
    for path in (tmp_path / "out").rglob("*"):
        assert leaks(path.name) == []
        assert path.is_dir() or leaks(path.read_bytes().decode("latin-1")) == []
    next(secret.iterdir()).unlink()
    sorted(secret.iterdir())[5].unlink()
    assert convert(tmp_path / "in", tmp_path / "y.nii") == 2
    printed(capsys)


# --- what an enhancement must keep -----------------------------------------------------------


def test_own_output_is_not_enhanced_again(tmp_path: Path, capsys: Capture) -> None:
    good(tmp_path)
    assert enhance(tmp_path / "in", tmp_path / "out") == 0, printed(capsys)
    with unchanged(tmp_path):
        assert enhance(tmp_path / "out", tmp_path / "again") == 2
    assert "E_SECOND_PASS" in printed(capsys)


def test_series_that_names_us_as_its_maker_is_not_enhanced(tmp_path: Path, capsys: Capture) -> None:
    with unchanged(tmp_path / "out"):
        assert enhance(own_series(tmp_path), tmp_path / "out") == 2
    assert "E_SECOND_PASS" in printed(capsys)


def test_study_with_a_result_in_it_is_enhanced_by_its_original(tmp_path: Path, capsys: Capture) -> None:
    good(tmp_path)
    assert enhance(tmp_path / "in", tmp_path / "out") == 0, printed(capsys)
    shutil.copytree(tmp_path / "out", tmp_path / "in" / "result")
    code = convert(tmp_path / "in", tmp_path / "x.nii")
    said = printed(capsys)
    assert code == 0, said
    assert nib.load(tmp_path / "x.nii").shape == (24, 20, 12)


def test_isotropic_series_is_refused(tmp_path: Path, capsys: Capture) -> None:
    good(tmp_path, pixel_spacing=(1.0, 1.0), spacing=1.0, thickness=1.0)
    with unchanged(tmp_path):
        assert enhance(tmp_path / "in", tmp_path / "out") == 2
    assert "E_NOTHING_TO_DO:" in printed(capsys)


@pytest.mark.parametrize("kind", ["MONOCHROME1", "padding -2000", "J2K, lossy", "12 bits signed"])
def test_enhanced_series_keeps_the_format_of_its_source(kind: str, tmp_path: Path, capsys: Capture) -> None:
    """22, 23, 24: photometric interpretation, sign and bits, and that it was once compressed with loss."""
    expected = ACCEPTED[kind](tmp_path)
    assert enhance(expected.path, tmp_path / "out") == 0, printed(capsys)
    source = dcmread(next(expected.path.glob("*.dcm")))
    written = [dcmread(path) for path in sorted((tmp_path / "out").rglob("IM-*.dcm"))]
    assert len(written) > len(list(expected.path.glob("*.dcm")))
    for dataset in written:
        for keyword in ("PhotometricInterpretation", "PixelRepresentation", "BitsAllocated", "BitsStored"):
            assert dataset[keyword].value == source[keyword].value
        assert dataset.get("LossyImageCompression") == source.get("LossyImageCompression")
        assert dataset.ImageType[:2] == ["DERIVED", "SECONDARY"]
    values, _ = truth(sorted((tmp_path / "out").rglob("IM-*.dcm")))
    span = expected.values.max() - expected.values.min()
    assert abs(values.mean() - expected.values.mean()) < 0.05 * span


def test_two_series_of_one_study_are_both_enhanced(tmp_path: Path, capsys: Capture) -> None:
    """12: one description, two series, two results."""
    make_series(tmp_path / "in", series=1)
    make_series(tmp_path / "in", series=2, rng=np.random.default_rng(1))
    assert enhance(tmp_path / "in", tmp_path / "out", "--series", "all") == 0, printed(capsys)
    printed(capsys)
    made = {dcmread(path, stop_before_pixels=True).SeriesInstanceUID for path in (tmp_path / "out").rglob("IM-*.dcm")}
    assert len(made) == 2


def test_inspect_lists_what_is_usable_and_why_not(tmp_path: Path, capsys: Capture) -> None:
    make_series(tmp_path / "in", series=1)
    gap = make_series(tmp_path / "in", series=2)
    gap[6].unlink()
    set_tag(make_series(tmp_path / "in", series=3, slices=3), "ImageType", ["ORIGINAL", "PRIMARY", "LOCALIZER"])
    SKIPPED["text"](tmp_path / "in")
    with unchanged(tmp_path):
        assert main(["inspect", str(tmp_path / "in")]) == 0
    said = capsys.readouterr().out
    # Descriptions are what a user chooses by, so they are shown.
    assert leaks(said) == [factory.PATIENT["SeriesDescription"]]
    for expected in ("E_GAP", "E_MIXED", "E_NOT_IMAGE", "24 x 20 x 12"):
        assert expected in said
