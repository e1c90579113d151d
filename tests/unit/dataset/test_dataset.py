"""Volumes to learn from: found in folders, by cards and in packs; surveys of what a folder holds."""

from __future__ import annotations

import gzip
import hashlib
import json
import lzma
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml

from medld.cards import FOLDER, DataCard, read_card, split_of
from medld.dataset import (
    INDEX,
    SHARD_BYTES,
    THICK,
    ScanFile,
    Source,
    card_scans,
    find_scans,
    load,
    pack,
    survey,
    to_bytes,
    write_pack,
)
from medld.errors import CardError, InputError, MedldError, OutputError
from medld.training import draw

SPACING = (1.0, 1.2, 0.9)


def save(path: Path, array: np.ndarray, spacing: Sequence[float] = SPACING) -> Path:
    """A NIfTI file, its folders made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.diag([*spacing, 1.0])), path)
    return path


def texture(seed: int, shape: tuple[int, ...] = (10, 9, 8)) -> np.ndarray:
    """Values like those of a scan: positive, many different ones."""
    return np.random.default_rng(seed).gamma(2.0, 300.0, shape).astype(np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three small volumes of random values."""
    for seed, name in enumerate(("sub-b_T2w", "sub-a_T1w", "sub-c_FLAIR")):
        save(tmp_path / "scans" / f"{name}.nii.gz", texture(seed))
    return tmp_path / "scans"


@pytest.fixture
def many(tmp_path: Path) -> list[ScanFile]:
    """Twelve volumes of three contrasts from two places."""
    scans = []
    for number in range(12):
        contrast = ("T1w", "T2w", "FLAIR")[number % 3]
        path = save(tmp_path / "many" / f"sub-{number:02d}_{contrast}.nii.gz", texture(number, (16, 14, 12)))
        part = "north" if number < 8 else "south"
        scans.append(ScanFile(path, path.name[:-7], f"{number:02d}", contrast, part=part))
    return scans


def own_card(**changes: object) -> DataCard:
    """A shipped card with other contents."""
    content = yaml.safe_load((FOLDER / "ixi.yaml").read_text())
    return DataCard.model_validate({**content, **changes})


def listed_card(folder: Path, **entry: object) -> DataCard:
    """A card whose training files are those of a folder, by name in `folder`'s parent."""
    files = [
        {
            "file": path.relative_to(folder.parent).as_posix(),
            "subject": path.name.split("_")[0],
            "contrast": path.name.split("_")[1].split(".")[0],
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            **entry,
        }
        for path in sorted(folder.iterdir())
    ]
    return own_card(splits={"rule": "listed", "why": "By subject", "files": {"train": files}})


# Folders


def test_a_folder_is_read_in_the_order_of_names(folder: Path) -> None:
    volumes = load([folder])
    assert [v.name for v in volumes] == ["sub-a_T1w", "sub-b_T2w", "sub-c_FLAIR"]
    assert [v.contrast for v in volumes] == ["T1w", "T2w", "FLAIR"]
    for fine in volumes:
        assert fine.array.dtype == np.uint8
        assert fine.spacing == pytest.approx(SPACING)
        expected = to_bytes(nib.load(folder / f"{fine.name}.nii.gz").get_fdata(dtype=np.float32))
        assert np.array_equal(fine.array, expected)


def test_a_bids_tree_is_read_without_its_masks_and_derivatives(tmp_path: Path) -> None:
    for path in (
        "sub-01/anat/sub-01_T1w.nii.gz",
        "sub-02/ses-a/anat/sub-02_ses-a_T2w.nii",
        "sub-02/ses-a/anat/sub-02_ses-a_T2w_defacemask.nii.gz",
        "sub-02/ses-a/anat/sub-02_ses-a_dseg.nii.gz",
        "sub-02/ses-a/func/sub-02_ses-a_bold.nii.gz",
        "derivatives/sub-01/anat/sub-01_desc-smooth_T1w.nii.gz",
    ):
        save(tmp_path / path, texture(0))
    assert [(v.name, v.contrast) for v in load([tmp_path])] == [("sub-01_T1w", "T1w"), ("sub-02_ses-a_T2w", "T2w")]
    assert [scan.subject for scan in find_scans(tmp_path)] == ["sub-01", "sub-02"]


def test_the_first_source_that_matches_counts(folder: Path) -> None:
    sources = [Source("*_T1w", 5.0, (2,)), Source("sub-[ab]*", 2.0)]
    first, second = load([folder], sources)
    assert (first.name, first.weight, first.axes) == ("sub-a_T1w", 5.0, (2,))
    assert (second.name, second.weight, second.axes) == ("sub-b_T2w", 2.0, (0, 1, 2))


def test_a_missing_folder_and_an_empty_choice_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CardError, match="found none"):
        load([tmp_path / "nowhere"])
    with pytest.raises(CardError, match=r"data\.sources"):
        load([folder], [Source("nothing*")])


def test_a_file_that_cannot_be_read_is_named(folder: Path) -> None:
    save(folder / "sub-d_T1w.nii.gz", np.ones((10, 9, 8), np.float32))
    with pytest.raises(InputError, match=r"sub-d_T1w\.nii\.gz: .*same value") as caught:
        load([folder])
    assert caught.value.code == "E_PIXELS"


# Bytes


def test_eight_bits_span_the_tissue(rng: np.random.Generator) -> None:
    array = rng.uniform(0, 700, (20, 20, 20))
    array[:10] = 0
    array[0, 0, :3] = -50, 1e6, 1e6
    stored = to_bytes(array)
    top = np.percentile(array[array > 0], 99.9)
    inside = (array >= 0) & (array <= top)
    assert np.abs(stored[inside] / 255 * top - array[inside]).max() <= 0.5 / 255 * top * (1 + 1e-9)
    assert stored[0, 0, 0] == 0
    assert stored[0, 0, 1] == 255


def test_a_gain_does_not_change_the_bytes(rng: np.random.Generator) -> None:
    array = rng.uniform(0, 700, (12, 12, 12)).astype(np.float32)
    assert np.array_equal(to_bytes(array), to_bytes(array * 4))
    assert not to_bytes(np.zeros((2, 2, 2))).any()


def test_ct_keeps_its_units_and_its_lungs(tmp_path: Path, rng: np.random.Generator) -> None:
    units = np.round(rng.uniform(-1024, 1024, (12, 12, 12))).astype(np.int16)
    units[0, 0, :2] = -1024, 3071
    save(tmp_path / "sub-01_ct.nii.gz", units)
    pack(tmp_path, tmp_path / "pack")
    (fine,) = load([tmp_path])
    (packed,) = load([tmp_path / "pack"])
    assert fine.modality == packed.modality == "ct"
    assert np.array_equal(fine.array, packed.array)
    inside = units <= 1024
    assert np.abs(fine.array / 255 * 2048 - 1024 - units)[inside].max() <= 2048 / 255 / 2 * (1 + 1e-9)
    assert fine.array[0, 0, 0] == 0
    assert fine.array[0, 0, 1] == 255


# Packs


def test_a_pack_holds_the_same_volumes_bit_for_bit(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "pack"
    size = pack(folder, out)
    assert size == sum(path.stat().st_size for path in out.iterdir())
    for direct, packed in zip(load([folder]), load([out]), strict=True):
        assert (direct.name, direct.contrast, direct.modality) == (packed.name, packed.contrast, packed.modality)
        assert direct.spacing == packed.spacing
        assert np.array_equal(direct.array, packed.array)
        assert isinstance(packed.array, np.memmap)
        assert not packed.array.flags.writeable


def test_a_pack_may_hold_a_part(folder: Path, tmp_path: Path) -> None:
    pack(folder, tmp_path / "pack", ["*_T1w", "*_FLAIR"])
    assert [v.name for v in load([tmp_path / "pack"])] == ["sub-a_T1w", "sub-c_FLAIR"]


def test_a_name_in_two_folders_is_one_volume(folder: Path, tmp_path: Path) -> None:
    pack(folder, tmp_path / "pack")
    assert len(load([folder, tmp_path / "pack"])) == 3


@pytest.mark.parametrize("limit", [700, 3000, 100_000])
def test_no_shard_is_larger_than_the_limit(limit: int, many: list[ScanFile], tmp_path: Path) -> None:
    packed = write_pack(many, tmp_path / "pack", shard_bytes=limit)
    shards = sorted((tmp_path / "pack").glob("*.xz"))
    sizes = [shard.stat().st_size for shard in shards]
    assert max(sizes) <= limit
    entries = json.loads((tmp_path / "pack" / INDEX).read_text())["volumes"]
    parts = [len(entry["parts"]) for entry in entries]
    assert (max(parts) > 1) == (limit == 700)  # a volume is split only if it is larger than a shard
    stored = [sum(count for _, _, count in entry["parts"]) for entry in entries]
    assert all(count == 1 for count, size in zip(parts, stored, strict=True) if size <= limit)
    assert packed.size == sum(sizes) + (tmp_path / "pack" / INDEX).stat().st_size
    assert sum(stored) == sum(sizes)
    expected = {v.name: v.array for v in load([many[0].path.parent])}
    for fine in load([tmp_path / "pack"], cache=tmp_path / "cache"):
        assert np.array_equal(fine.array, expected.pop(fine.name))
    assert not expected


def test_shards_of_whole_volumes_are_plain_xz(many: list[ScanFile], tmp_path: Path) -> None:
    write_pack(many, tmp_path / "pack")
    (shard,) = (tmp_path / "pack").glob("*.xz")
    assert len(lzma.decompress(shard.read_bytes())) == 12 * 16 * 14 * 12
    assert SHARD_BYTES == 15 * 2**20


def test_a_bound_on_the_size_holds_and_keeps_every_place_and_contrast(many: list[ScanFile], tmp_path: Path) -> None:
    groups = {(scan.part, scan.contrast) for scan in many}
    every = {scan.name: scan for scan in many}
    whole = write_pack(many, tmp_path / "whole").size
    earlier: set[str] = set()
    for share in (0.6, 0.75, 0.9, 1.1):
        out = tmp_path / f"pack{share}"
        packed = write_pack(list(reversed(many)), out, max_bytes=int(share * whole))
        assert packed.size == sum(path.stat().st_size for path in out.iterdir()) <= share * whole
        assert {(every[name].part, every[name].contrast) for name in packed.names} == groups
        assert sorted(packed.names + packed.left_out) == sorted(every)
        assert earlier <= set(packed.names)  # more room never costs a volume
        earlier = set(packed.names)
        assert set(packed.left_out) == set(json.loads((out / INDEX).read_text())["left_out"])
    assert earlier == set(every)


def test_a_bound_too_small_for_every_contrast_is_refused(many: list[ScanFile], tmp_path: Path) -> None:
    with pytest.raises(CardError, match=r"every source and contrast \(6\)"):
        write_pack(many, tmp_path / "pack", max_bytes=6000)
    assert [path.name for path in tmp_path.iterdir()] == ["many"]


def test_a_pack_never_replaces_anything(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "pack").mkdir()
    pack(folder, tmp_path / "pack")
    before = {path: path.read_bytes() for path in (tmp_path / "pack").iterdir()}
    with pytest.raises(OutputError, match="holds something"):
        pack(folder, tmp_path / "pack")
    assert {path: path.read_bytes() for path in (tmp_path / "pack").iterdir()} == before


def test_a_pack_of_nothing_or_where_nothing_can_be_written_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CardError, match="got none"):
        pack(folder, tmp_path / "pack", ["nothing*"])
    with pytest.raises(OutputError, match="cannot be written"):
        pack(folder, folder / "sub-a_T1w.nii.gz" / "pack")
    assert [path.name for path in tmp_path.iterdir()] == ["scans"]


def test_two_scans_of_one_name_are_refused(folder: Path, tmp_path: Path) -> None:
    scans = find_scans(folder)
    with pytest.raises(CardError, match="every name once"):
        write_pack([*scans, scans[0]], tmp_path / "pack")


@pytest.mark.parametrize("limit", [700, SHARD_BYTES])
@pytest.mark.parametrize("volume", [0, 2])
def test_a_damaged_pack_is_refused(limit: int, volume: int, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "pack"
    write_pack(find_scans(folder), out, shard_bytes=limit)
    file, offset, count = json.loads((out / INDEX).read_text())["volumes"][volume]["parts"][-1]
    content = bytearray((out / file).read_bytes())
    content[offset + count - 1] ^= 1
    (out / file).write_bytes(content)
    with pytest.raises(CardError, match=f"{file} .*damaged"):
        load([out])


def test_a_pack_without_a_shard_is_refused(folder: Path, tmp_path: Path) -> None:
    pack(folder, tmp_path / "pack")
    (tmp_path / "pack" / "shard-0000.xz").unlink()
    with pytest.raises(CardError, match=r"shard-0000\.xz"):
        load([tmp_path / "pack"])


@pytest.mark.parametrize(
    ("index", "words"), [('{"format": 3}', "format 3.*Update"), ("[", "damaged"), ("{}", "format")]
)
def test_an_index_of_another_kind_is_refused(index: str, words: str, tmp_path: Path) -> None:
    (tmp_path / INDEX).write_text(index)
    with pytest.raises(CardError, match=words):
        load([tmp_path])


def write_old_pack(folder: Path, out: Path) -> None:
    """A pack as the first version wrote them: a file a volume and a list of them."""
    entries = []
    out.mkdir()
    for fine in load([folder]):
        raw = lzma.compress(fine.array.tobytes(), preset=6)
        (out / f"{fine.name}.xz").write_bytes(raw)
        entry = {"name": fine.name, "file": f"{fine.name}.xz", "shape": fine.array.shape, "spacing": fine.spacing}
        entries.append({**entry, "contrast": fine.contrast, "sha256": hashlib.sha256(raw).hexdigest()})
    (out / INDEX).write_text(json.dumps(entries, indent=1))


def test_packs_of_the_first_format_are_read(folder: Path, tmp_path: Path) -> None:
    write_old_pack(folder, tmp_path / "old")
    for direct, packed in zip(load([folder]), load([tmp_path / "old"]), strict=True):
        assert (direct.name, direct.contrast, direct.spacing) == (packed.name, packed.contrast, packed.spacing)
        assert np.array_equal(direct.array, packed.array)
    file = tmp_path / "old" / "sub-b_T2w.xz"
    file.write_bytes(file.read_bytes()[:-1] + b"\0")
    shutil.rmtree(tmp_path / ".unpacked")
    with pytest.raises(CardError, match=r"sub-b_T2w\.xz .*damaged"):
        load([tmp_path / "old"])


# The cache


def test_volumes_are_unpacked_once(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "pack"
    pack(folder, out)
    first = load([out])
    cached = sorted((tmp_path / ".unpacked").iterdir())
    assert [path.suffix for path in cached] == [".npy"] * 3
    for shard in out.glob("*.xz"):
        shard.unlink()
    for before, after in zip(first, load([out]), strict=True):
        assert np.array_equal(before.array, after.array)


def test_half_a_file_in_the_cache_is_unpacked_again(folder: Path, tmp_path: Path) -> None:
    out, cache = tmp_path / "pack", tmp_path / "cache"
    pack(folder, out)
    load([out], cache=cache)
    for path in cache.iterdir():
        path.write_bytes(path.read_bytes()[:-10])
    for direct, packed in zip(load([folder]), load([out], cache=cache), strict=True):
        assert np.array_equal(direct.array, packed.array)


def test_the_cache_is_where_the_environment_says_unless_told(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack(folder, tmp_path / "pack")
    monkeypatch.setenv("MEDLD_CACHE", str(tmp_path / "by environment"))
    load([tmp_path / "pack"])
    assert len(list((tmp_path / "by environment").iterdir())) == 3
    load([tmp_path / "pack"], cache=tmp_path / "told")
    assert len(list((tmp_path / "told").iterdir())) == 3
    assert not (tmp_path / ".unpacked").exists()


def test_beside_a_pack_that_cannot_be_written_the_temporary_folder_serves(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack(folder, tmp_path / "pack")
    (tmp_path / ".unpacked").write_text("a file where the folder should be")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    assert len(load([tmp_path / "pack"])) == 3
    (private,) = temporary.iterdir()
    assert len(list(private.iterdir())) == 3
    assert private.stat().st_mode & 0o077 == 0  # scans are for their owner only
    with pytest.raises(OutputError, match="MEDLD_CACHE"):
        load([tmp_path / "pack"], cache=tmp_path / ".unpacked")


# Cards


def test_weights_of_a_card_are_scaled_and_axes_narrowed(folder: Path, tmp_path: Path) -> None:
    card = listed_card(folder, weight=3.0, axes=[0, 1])
    write_pack(card_scans(card, tmp_path, "train"), tmp_path / "pack", card="own", split="train")
    assert {(v.weight, v.axes) for v in load([tmp_path / "pack"])} == {(3.0, (0, 1))}
    assert {(v.weight, v.axes) for v in load([tmp_path / "pack"], [Source("*", 2.0, (1, 2))])} == {(6.0, (1,))}
    with pytest.raises(CardError, match="Expected an axis"):
        load([tmp_path / "pack"], [Source("*", axes=(2,))])


def test_a_file_that_is_not_the_card_s_is_refused(folder: Path, tmp_path: Path) -> None:
    card = listed_card(folder)
    save(folder / "sub-b_T2w.nii.gz", texture(7))
    with pytest.raises(CardError, match=r"sub-b_T2w\.nii\.gz is damaged or another file"):
        write_pack(card_scans(card, tmp_path, "train"), tmp_path / "pack")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scans"]


def test_a_listed_file_that_is_missing_is_named(folder: Path, tmp_path: Path) -> None:
    card = listed_card(folder)
    (folder / "sub-c_FLAIR.nii.gz").unlink()
    with pytest.raises(CardError, match=r"1 are missing, the first is scans/sub-c_FLAIR\.nii\.gz"):
        card_scans(card, tmp_path, "train")
    with pytest.raises(CardError, match="split val"):
        card_scans(card, tmp_path, "val")
    with pytest.raises(CardError, match="--data"):
        card_scans(card, tmp_path / "nowhere", "train")


def test_the_rule_of_hashes_parts_people_not_files(tmp_path: Path) -> None:
    for number in range(40):
        for what in ("T1", "T2"):
            save(tmp_path / f"IXI{number:03d}-Guys-0001-{what}.nii.gz", texture(number, (5, 5, 5)))
    card = read_card("ixi")
    found = {split: card_scans(card, tmp_path, split) for split in ("train", "val", "test")}  # type: ignore[arg-type]
    assert sum(len(scans) for scans in found.values()) == 80
    for split, scans in found.items():
        assert {split_of(scan.subject) for scan in scans} == {split}
        assert len(scans) == 2 * len({scan.subject for scan in scans})


@pytest.mark.data
def test_a_real_pack_holds_the_scans_of_its_card(data: Path, tmp_path: Path) -> None:
    scans = card_scans(read_card("medld-mri-train"), data, "val")[:2]
    write_pack(scans, tmp_path / "pack")
    packed = load([tmp_path / "pack"])
    direct = {fine.name: fine for fine in load([data / "val"], [Source(scan.name) for scan in scans])}
    assert {fine.name for fine in packed} == set(direct) == {scan.name for scan in scans}
    for fine in packed:
        assert np.array_equal(fine.array, direct[fine.name].array)
        assert fine.spacing == direct[fine.name].spacing


# Surveys


def labels(seed: int) -> np.ndarray:
    """Whole numbers, few different ones."""
    return np.random.default_rng(seed).integers(0, 4, (10, 9, 8)).astype(np.int16)


def write_truncated(path: Path) -> None:
    """A compressed file without its end."""
    save(path, texture(0))
    path.write_bytes(path.read_bytes()[:-400])


PLANTED: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "text": (lambda path: path.write_bytes(gzip.compress(b"no scan at all")), "E_NOT_IMAGE", "header"),
    "cut": (write_truncated, "E_TRUNC", "cut"),
    "4d": (lambda path: save(path, texture(0, (10, 9, 8, 3))), "E_4D", "one volume"),
    "constant": (lambda path: save(path, np.full((10, 9, 8), 7.0, np.float32)), "E_PIXELS", "same value"),
    "nan": (lambda path: save(path, np.where(np.arange(8) == 3, np.nan, texture(0))), "E_PIXELS", "NaN"),
    "labels": (lambda path: save(path, labels(0)), "E_NOT_IMAGE", "label map"),
    "thick": (lambda path: save(path, texture(5), (1.0, 1.0, 1.9)), "E_COHORT", r"axes \[0, 1\]"),
    "copy": (lambda path: save(path, texture(99)), "E_COHORT", r"same voxels as good_T1w\.nii\.gz"),
}


@pytest.mark.parametrize("kind", PLANTED)
def test_a_survey_names_what_is_wrong(kind: str, tmp_path: Path) -> None:
    plant, code, words = PLANTED[kind]
    save(tmp_path / "good_T1w.nii.gz", texture(99))
    (tmp_path / "sub").mkdir()
    plant(tmp_path / "sub" / "odd_T2w.nii.gz")
    good, odd = survey(tmp_path)
    assert (good.name, good.problems) == ("good_T1w.nii.gz", ())
    assert odd.name == "sub/odd_T2w.nii.gz"
    (problem,) = odd.problems
    assert problem.code == code
    assert re.search(words, problem.text)


def test_a_survey_tells_what_there_is(tmp_path: Path) -> None:
    save(tmp_path / "sub-01_T1w.nii.gz", texture(1), (1.0, 1.0, 1.7))
    save(tmp_path / ".hidden" / "sub-02_T1w.nii.gz", texture(2))
    save(tmp_path / "sub-03_ct.nii", texture(3) - 1000)
    mr, ct = survey(tmp_path)
    assert (mr.subject, mr.modality, mr.contrast, mr.shape) == ("sub-01", "mr", "T1w", (10, 9, 8))
    assert mr.spacing == pytest.approx((1.0, 1.0, 1.7))
    assert mr.bytes == (tmp_path / "sub-01_T1w.nii.gz").stat().st_size
    assert (ct.subject, ct.modality) == ("sub-03", "ct")
    assert mr.problems == ct.problems == ()


@pytest.mark.parametrize("axis", [0, 2])
@pytest.mark.parametrize(("suffix", "noise", "unit"), [("T1w", 30.0, 1000.0), ("ct", 60.0, 1.0)])
def test_a_survey_estimates_the_noise_within_slices(
    axis: int, suffix: str, noise: float, unit: float, tmp_path: Path, rng: np.random.Generator
) -> None:
    # Stripes along either in-plane axis that change from slice to slice: within a slice the filter sees none of them.
    stripes = rng.uniform(-0.2, 0.2, (60, 1, 1)) + rng.uniform(-0.2, 0.2, (1, 60, 1))
    tissue = 1000 * (1 + stripes * (-1) ** np.arange(40))
    array = np.moveaxis(tissue + rng.normal(0, noise, tissue.shape), 2, axis).astype(np.float32)
    array[0, 0, 0] = -1000 if suffix == "ct" else array[0, 0, 0]
    spacing = [1.0, 1.0, 1.0]
    spacing[axis] = 1.5
    save(tmp_path / f"sub-01_{suffix}.nii.gz", array, spacing)
    (scan,) = survey(tmp_path)
    top = np.percentile(array[array > 0], 99.9) / unit if suffix == "T1w" else 1.0
    expected = noise / (top * unit) if suffix == "T1w" else noise
    assert scan.noise == pytest.approx(expected, rel=0.15)


def test_an_empty_folder_and_none_are_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(MedldError, match="found none"):
            list(survey(folder))


def test_slices_are_thick_where_training_takes_them_for_thick() -> None:
    assert THICK == draw.THICK
