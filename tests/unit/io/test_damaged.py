"""Every damaged input is refused by name and code; every odd but sound one is read."""

from __future__ import annotations

import gzip
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from medld.errors import CODES, InputError, LabelMapError, MedldError
from medld.io import OUTPUT_MARK, read_header, read_volume, write_volume

SHAPE = (9, 10, 6)
AFFINE = np.array([[-1.0, 0, 0, 40], [0, 1, 0, -50], [0, 0, 4, -20], [0, 0, 0, 1]])
MAX_ALLOCATED = 8 * 2**20  # bytes; a refusal by the header allocates no volume


def scan_array(shape: tuple[int, ...] = SHAPE, dtype: str = "i2") -> np.ndarray:
    """Numbers like a scanner's."""
    return np.random.default_rng(5).integers(0, 4000, shape).astype(dtype)


def image(array: np.ndarray | None = None, affine: np.ndarray = AFFINE) -> nib.Nifti1Image:
    """A sound NIfTI image."""
    array = scan_array() if array is None else array
    return nib.Nifti1Image(array, affine, dtype=array.dtype)


def save(path: Path, array: np.ndarray | None = None, affine: np.ndarray = AFFINE) -> Path:
    """A sound NIfTI file."""
    nib.save(image(array, affine), path)
    return path


def edited(path: Path, array: np.ndarray | None = None, affine: np.ndarray | None = AFFINE, **fields: object) -> Path:
    """An uncompressed NIfTI file with header fields overwritten afterwards."""
    img = image(array, np.eye(4) if affine is None else affine)
    nib.save(img, path)
    header = img.header.copy()
    header["vox_offset"] = 352
    header["magic"] = b"n+1"
    for name, value in fields.items():
        header[name] = value
    path.write_bytes(header.binaryblock + path.read_bytes()[348:])
    return path


def claim(shape: tuple[int, ...], dtype: str = "f4") -> bytes:
    """A NIfTI header that claims a volume, without its voxels."""
    header = nib.Nifti1Header()
    header.set_data_dtype(np.dtype(dtype))
    header.set_data_shape(shape)
    header.set_sform(np.eye(4), 1)
    header["vox_offset"] = 352
    return bytes(header.binaryblock) + b"\0" * 4


def cut(path: Path, size: int) -> Path:
    """The same file with only its first bytes; a negative size counts from the end."""
    path.write_bytes(path.read_bytes()[:size])
    return path


def with_value(value: float) -> np.ndarray:
    """A float volume with one odd voxel."""
    array = scan_array(dtype="f4")
    array[3, 4, 5] = value
    return array


def sheared() -> np.ndarray:
    affine = AFFINE.copy()
    affine[0, 1] = 0.2
    return affine


def rgb() -> np.ndarray:
    return np.zeros(SHAPE, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])


def write_bytes(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def write_itk(path: Path, array: np.ndarray, compressed: bool = False, vector: bool = False) -> Path:
    """A file by SimpleITK; the array in its own order, slices first."""
    sitk.WriteImage(sitk.GetImageFromArray(array, isVector=vector), str(path), compressed)
    return path


def own_output(path: Path, description: str = OUTPUT_MARK + " 0.1.0 sr") -> Path:
    volume, storage = read_volume(save(path.with_name("source.nii")))
    write_volume(path, volume, storage, description=description)
    return path


def own_record(path: Path) -> Path:
    save(path)
    record = '{"versions": {"medld": "0.1.0"}, "output": {"file": "' + path.name + '"}}'
    path.with_name(path.name.split(".")[0] + ".json").write_text(record)
    return path


NIFTI: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "cut gzip": ("E_TRUNC", lambda d: cut(save(d / "a.nii.gz"), -200)),
    "gzip cut inside its header": ("E_TRUNC", lambda d: cut(save(d / "a.nii.gz"), 5)),
    "gzip cut inside the NIfTI header": ("E_TRUNC", lambda d: cut(save(d / "a.nii.gz"), 60)),
    "gzip without its checksum": ("E_TRUNC", lambda d: cut(save(d / "a.nii.gz"), -8)),
    "gzip with a flipped byte": ("E_TRUNC", lambda d: flip(save(d / "a.nii.gz"), 700)),
    "cut nii": ("E_TRUNC", lambda d: cut(save(d / "a.nii"), -2)),
    "cut nii header": ("E_TRUNC", lambda d: cut(save(d / "a.nii"), 200)),
    "huge, 63 bytes": (
        "E_TOO_BIG",
        lambda d: write_bytes(d / "a.nii.gz", gzip.compress(claim((2000, 2000, 2000)))),
    ),
    "huge and cut": (
        "E_TOO_BIG",
        lambda d: write_bytes(d / "a.nii.gz", gzip.compress(claim((2000,) * 3))[:-8]),
    ),
    "huge, plain": ("E_TOO_BIG", lambda d: write_bytes(d / "a.nii", claim((2000, 2000, 2000)))),
    "large claim, few bytes": (
        "E_TRUNC",
        lambda d: write_bytes(d / "a.nii.gz", gzip.compress(claim((900,) * 3))),
    ),
    "large claim, plain": ("E_TRUNC", lambda d: write_bytes(d / "a.nii", claim((900, 900, 900)))),
    "colour": ("E_NOT_IMAGE", lambda d: save(d / "a.nii.gz", rgb())),
    "complex": ("E_NOT_IMAGE", lambda d: save(d / "a.nii.gz", scan_array().astype("c8"))),
    "text": ("E_NOT_IMAGE", lambda d: write_bytes(d / "a.nii", b"subject,age\n" * 100)),
    "short text": ("E_NOT_IMAGE", lambda d: write_bytes(d / "a.nii", b"no")),
    "compressed text": (
        "E_NOT_IMAGE",
        lambda d: write_bytes(d / "a.nii.gz", gzip.compress(b"subject,age\n" * 100)),
    ),
    "empty": ("E_NOT_IMAGE", lambda d: write_bytes(d / "a.nii.gz", b"")),
    "empty stream": ("E_NOT_IMAGE", lambda d: write_bytes(d / "a.nii.gz", gzip.compress(b""))),
    "nii named nii.gz": ("E_NOT_IMAGE", lambda d: save(d / "a.nii").rename(d / "b.nii.gz")),
    "nii.gz named nii": ("E_NOT_IMAGE", lambda d: save(d / "a.nii.gz").rename(d / "b.nii")),
    "nii.gz named mha": ("E_NOT_IMAGE", lambda d: save(d / "a.nii.gz").rename(d / "b.mha")),
    "Analyze": ("E_NOT_IMAGE", lambda d: edited(d / "a.nii", magic=b"")),
    "unknown data type": ("E_NOT_IMAGE", lambda d: edited(d / "a.nii", datatype=77)),
    "negative count": ("E_NOT_IMAGE", lambda d: edited(d / "a.nii", dim=[3, 9, -10, 6, 1, 1, 1, 1])),
    "no counts": ("E_NOT_IMAGE", lambda d: edited(d / "a.nii", dim=[0, 9, 10, 6, 1, 1, 1, 1])),
    "unknown suffix": ("E_NOT_IMAGE", lambda d: write_bytes(d / "a.png", b"\x89PNG")),
    "folder": ("E_NOT_IMAGE", lambda d: d),
    "missing": ("E_NOT_IMAGE", lambda d: d / "missing.nii.gz"),
    "NaN": ("E_PIXELS", lambda d: save(d / "a.nii.gz", with_value(np.nan))),
    "infinite": ("E_PIXELS", lambda d: save(d / "a.nii.gz", with_value(-np.inf))),
    "beyond float32": ("E_PIXELS", lambda d: save(d / "a.nii.gz", with_value(0).astype("f8") * 1e300)),
    "constant": ("E_PIXELS", lambda d: save(d / "a.nii.gz", np.full(SHAPE, -1000, "i2"))),
    "all NaN": ("E_PIXELS", lambda d: save(d / "a.nii.gz", np.full(SHAPE, np.nan, "f4"))),
    "time series": ("E_4D", lambda d: save(d / "a.nii.gz", scan_array((*SHAPE, 4)))),
    "vectors": ("E_4D", lambda d: save(d / "a.nii.gz", scan_array((*SHAPE, 1, 3)))),
    "two slices": ("E_TOO_FEW", lambda d: save(d / "a.nii.gz", scan_array((30, 30, 2)))),
    "one picture": ("E_TOO_FEW", lambda d: save(d / "a.nii.gz", scan_array((30, 30)))),
    "4 x 4 pixels": ("E_TOO_FEW", lambda d: save(d / "a.nii.gz", scan_array((4, 4, 30)))),
    "sheared": ("E_NO_GEOM", lambda d: save(d / "a.nii.gz", affine=sheared())),
    "singular sform": ("E_NO_GEOM", lambda d: edited(d / "a.nii", srow_z=[0, 0, 0, 0])),
    "sform of NaN": ("E_NO_GEOM", lambda d: edited(d / "a.nii", srow_x=[np.nan] * 4)),
    "qform without spacing": (
        "E_NO_GEOM",
        lambda d: edited(d / "a.nii", sform_code=0, qform_code=1, pixdim=[1] + [0] * 7),
    ),
    "impossible quaternion": (
        "E_NO_GEOM",
        lambda d: edited(d / "a.nii", sform_code=0, qform_code=1, quatern_b=3),
    ),
    "no position, no spacing": (
        "E_NO_GEOM",
        lambda d: edited(d / "a.nii", sform_code=0, qform_code=0, pixdim=[1] + [0] * 7),
    ),
    "label map by its values": ("E_NOT_IMAGE", lambda d: save(d / "a.nii.gz", scan_array() % 64)),
    "label map by its values, float": (
        "E_NOT_IMAGE",
        lambda d: save(d / "a.nii.gz", (scan_array() % 5).astype("f4")),
    ),
    "label map by its name": ("E_NOT_IMAGE", lambda d: save(d / "sub-01_dseg.nii.gz")),
    "label map by its intent": ("E_NOT_IMAGE", lambda d: edited(d / "a.nii", intent_code=1002)),
    "our output": ("E_SECOND_PASS", lambda d: own_output(d / "a.nii.gz")),
    "our output, renamed": ("E_SECOND_PASS", lambda d: own_output(d / "a.nii.gz").rename(d / "new.nii.gz")),
    "our output by its record": ("E_SECOND_PASS", lambda d: own_record(d / "a.nii.gz")),
}

ITK: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "cut mha": ("E_TRUNC", lambda d: cut(write_itk(d / "a.mha", scan_array()), -10)),
    "cut compressed mha": ("E_TRUNC", lambda d: cut(write_itk(d / "a.mha", scan_array(), True), -10)),
    "cut nrrd": ("E_TRUNC", lambda d: cut(write_itk(d / "a.nrrd", scan_array()), -10)),
    "cut compressed nrrd": ("E_TRUNC", lambda d: cut(write_itk(d / "a.nrrd", scan_array(), True), -10)),
    "mhd without its data": ("E_TRUNC", lambda d: without_data(write_itk(d / "a.mhd", scan_array()))),
    "mhd with data elsewhere": (
        "E_NOT_IMAGE",
        lambda d: replaced(write_itk(d / "a.mhd", scan_array()), b"a.raw", b"/etc/a"),
    ),
    "huge mha": (
        "E_TOO_BIG",
        lambda d: replaced(write_itk(d / "a.mha", scan_array()), b"6 10 9", b"2000 2000 2000"),
    ),
    "huge nrrd": (
        "E_TOO_BIG",
        lambda d: replaced(write_itk(d / "a.nrrd", scan_array()), b"6 10 9", b"2000 2000 2000"),
    ),
    "large claim, nrrd": (
        "E_TRUNC",
        lambda d: replaced(write_itk(d / "a.nrrd", scan_array()), b"6 10 9", b"900 900 900"),
    ),
    "colour mha": (
        "E_NOT_IMAGE",
        lambda d: write_itk(d / "a.mha", scan_array((6, 10, 9, 3), "u1"), vector=True),
    ),
    "colour nrrd": (
        "E_NOT_IMAGE",
        lambda d: write_itk(d / "a.nrrd", scan_array((6, 10, 9, 3), "u1"), vector=True),
    ),
    "text mha": ("E_NOT_IMAGE", lambda d: write_bytes(d / "a.mha", b"hello " * 100)),
    "text nrrd": ("E_NOT_IMAGE", lambda d: write_bytes(d / "a.nrrd", b"hello " * 100)),
    "damaged nrrd": (
        "E_NOT_IMAGE",
        lambda d: replaced(write_itk(d / "a.nrrd", scan_array()), b"type: short", b"type: shirt"),
    ),
    "empty nrrd": ("E_NOT_IMAGE", lambda d: write_bytes(d / "a.nrrd", b"")),
    "time series mha": ("E_4D", lambda d: write_itk(d / "a.mha", scan_array((4, 6, 10, 9)))),
    "picture nrrd": ("E_TOO_FEW", lambda d: write_itk(d / "a.nrrd", scan_array((20, 20)))),
    "nrrd without spacing": ("E_NO_GEOM", lambda d: without_spacing(write_itk(d / "a.nrrd", scan_array()))),
    "sheared nrrd": (
        "E_NO_GEOM",
        lambda d: replaced(write_itk(d / "a.nrrd", scan_array()), b"(0,1,0)", b"(0.3,1,0)"),
    ),
    "label map mha": ("E_NOT_IMAGE", lambda d: write_itk(d / "a.mha", scan_array() % 7)),
    "our mha": ("E_SECOND_PASS", lambda d: own_output(d / "a.mha")),
    "our mhd": ("E_SECOND_PASS", lambda d: own_output(d / "a.mhd")),
    "our nrrd": ("E_SECOND_PASS", lambda d: own_output(d / "a.nrrd")),
}


def flip(path: Path, position: int) -> Path:
    """The same file with one damaged byte."""
    content = bytearray(path.read_bytes())
    content[position] ^= 0x55
    path.write_bytes(content)
    return path


def replaced(path: Path, old: bytes, new: bytes) -> Path:
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, 1))
    return path


def without_data(path: Path) -> Path:
    path.with_suffix(".raw").unlink()
    return path


def without_spacing(path: Path) -> Path:
    lines = path.read_bytes().split(b"\n")
    kept = [line for line in lines if not line.startswith((b"space", b"kinds"))]
    path.write_bytes(b"\n".join(kept))
    return path


@pytest.mark.parametrize("name", [*NIFTI, *ITK])
def test_a_damaged_input_is_refused_by_its_code(name: str, tmp_path: Path) -> None:
    code, make = (NIFTI | ITK)[name]
    path = make(tmp_path)
    with pytest.raises(MedldError) as caught:
        read_volume(path)
    assert caught.value.code == code
    assert code in CODES
    assert tmp_path.name not in str(caught.value), "a message names no path: it may hold a patient's name"


@pytest.mark.parametrize("name", [n for n, (code, _) in (NIFTI | ITK).items() if code == "E_TOO_BIG" or "claim" in n])
def test_nothing_is_allocated_for_what_a_header_only_claims(name: str, tmp_path: Path) -> None:
    path = (NIFTI | ITK)[name][1](tmp_path)
    tracemalloc.start()
    try:
        with pytest.raises(InputError):
            read_volume(path)
        assert tracemalloc.get_traced_memory()[1] < MAX_ALLOCATED
    finally:
        tracemalloc.stop()


def test_the_limit_on_voxels_can_be_set(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii.gz")
    with pytest.raises(InputError) as caught:
        read_volume(path, max_voxels=539)
    assert caught.value.code == "E_TOO_BIG"
    assert read_header(path, max_voxels=540).n_voxels == 540


@pytest.mark.parametrize("name", [n for n in NIFTI if n.startswith("label map")])
def test_force_takes_label_maps(name: str, tmp_path: Path) -> None:
    path = NIFTI[name][1](tmp_path)
    with pytest.raises(LabelMapError):
        read_volume(path)
    assert read_volume(path, force=True)[0].array.shape == SHAPE


@pytest.mark.parametrize("name", ["our output", "our output by its record"])
def test_force_never_takes_our_own_output(name: str, tmp_path: Path) -> None:
    path = NIFTI[name][1](tmp_path)
    assert read_header(path).second_pass
    with pytest.raises(InputError) as caught:
        read_volume(path, force=True)
    assert caught.value.code == "E_SECOND_PASS"
    assert read_volume(path, allow_output=True)[0].array.shape == SHAPE


def test_a_record_saved_beside_the_scan_does_not_make_it_our_output(tmp_path: Path) -> None:
    path = save(tmp_path / "scan.nii.gz")
    (tmp_path / "scan.json").write_text('{"versions": {"medld": "0.1.0"}, "output": {"file": "scan_desc-sr.nii.gz"}}')
    assert not read_header(path).second_pass


def test_a_slope_of_zero_or_nan_means_no_scaling(tmp_path: Path) -> None:
    for slope in (0.0, np.nan):
        volume, storage = read_volume(edited(tmp_path / "a.nii", scl_slope=slope, scl_inter=7))
        assert np.array_equal(volume.array, scan_array())
        assert (storage.slope, storage.inter) == (1.0, 0.0)


def test_a_4d_file_of_one_volume_is_that_volume(tmp_path: Path) -> None:
    volume, _ = read_volume(save(tmp_path / "a.nii.gz", scan_array((*SHAPE, 1, 1))))
    assert np.array_equal(volume.array, scan_array((*SHAPE, 1, 1))[..., 0, 0])


def test_the_sform_wins_over_another_qform_with_a_warning(tmp_path: Path) -> None:
    img = image()
    img.header.set_sform(AFFINE, 2)
    img.header.set_qform(np.diag([1.0, 1, 4, 1]), 1)
    nib.save(img, tmp_path / "a.nii")
    volume, storage = read_volume(tmp_path / "a.nii")
    assert np.allclose(volume.grid.affine, AFFINE)
    assert "sform and qform differ" in storage.warnings[0]


def test_a_broken_qform_beside_a_sound_sform_is_only_a_warning(tmp_path: Path) -> None:
    volume, storage = read_volume(edited(tmp_path / "a.nii", qform_code=1, sform_code=1, quatern_b=3))
    assert np.allclose(volume.grid.affine, AFFINE)
    assert "qform" in storage.warnings[0]


def test_spacing_without_position_is_read_with_a_warning(tmp_path: Path) -> None:
    volume, storage = read_volume(edited(tmp_path / "a.nii", sform_code=0, qform_code=0))
    assert volume.grid.spacing == (1.0, 1.0, 4.0)
    assert "no position" in storage.warnings[0]


@pytest.mark.parametrize("dtype", ["i8", "u8"])
def test_64_bit_integers_are_read_and_will_be_written_in_32(dtype: str, tmp_path: Path) -> None:
    volume, storage = read_volume(save(tmp_path / "a.nii", scan_array(dtype=dtype)))
    assert np.array_equal(volume.array, scan_array())
    assert storage.dtype == np.dtype(dtype[0] + "4")
    assert "64-bit" in storage.warnings[0]


def test_micrometres_become_millimetres(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", affine=np.diag([500.0, 500, 2000, 1]))
    content = bytearray(path.read_bytes())
    content[123] = 3  # xyzt_units
    path.write_bytes(content)
    volume, storage = read_volume(path)
    assert np.allclose(volume.grid.spacing, (0.5, 0.5, 2.0))
    write_volume(tmp_path / "b.nii", volume, storage, description="x")
    assert np.allclose(nib.load(tmp_path / "b.nii").affine, np.diag([500.0, 500, 2000, 1]))


def test_big_endian_files_are_read(tmp_path: Path) -> None:
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(np.dtype("i2"))
    nib.save(nib.Nifti1Image(scan_array(), AFFINE, header), tmp_path / "a.nii")
    assert (tmp_path / "a.nii").read_bytes()[:4] == b"\0\0\x01\x5c"
    assert np.array_equal(read_volume(tmp_path / "a.nii")[0].array, scan_array())


def test_gzip_in_several_members_is_read(tmp_path: Path) -> None:
    content = save(tmp_path / "a.nii").read_bytes()
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(content[:100]) + gzip.compress(content[100:]))
    assert np.array_equal(read_volume(tmp_path / "b.nii.gz")[0].array, scan_array())
