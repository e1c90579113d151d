"""`medld report`: a page on what `medld enhance` wrote, and refusals of all else; and a report of a real evaluation."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from dicom_factory import leaks, make_series
from fine_scans import save_cohort

from medld.cli import main
from medld.evaluation import evaluate
from medld.io import read_volume
from medld.report import EvaluationReport, examine_output, render_evaluation_report
from medld.report.outputs import reimage

Capture = pytest.CaptureFixture[str]


def enhance(*arguments: object) -> None:
    """One `medld enhance` with the baseline."""
    assert main(["enhance", "--model", "baseline", "--device", "cpu", "--quiet", *map(str, arguments)]) == 0


def report(*arguments: object) -> int:
    """One `medld report`."""
    return main(["report", *map(str, arguments)])


def page_of(path: Path) -> str:
    """A page as text, after a look that it needs nothing but itself."""
    page = path.read_text(encoding="utf-8")
    assert 'http-equiv="Content-Security-Policy"' in page
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert sources
    assert all(source.startswith(("data:image/png;base64,", "data:image/svg+xml;base64,")) for source in sources)
    assert "research use, not for diagnosis" in page
    return page


def numbers_of(page: str) -> set[str]:
    """Full numbers of its tables."""
    return set(re.findall(r'<data value="([^"]*)">', page))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an oblique scan and its output; to be copied, not changed."""
    folder = tmp_path_factory.mktemp("made")
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in (14, 12, 8)), indexing="ij")
    values = 900 * np.exp(-2 * sum(a**2 for a in axes)) + 20 * np.sin(9 * axes[2])
    affine = np.array([[-0.8, -0.75, 0, 20], [-0.6, 1.0, 0, -30], [0, 0, 4.0, 5], [0, 0, 0, 1]])
    nib.save(nib.Nifti1Image(values.astype(np.int16), affine), folder / "scan_T2w.nii.gz")
    enhance(folder / "scan_T2w.nii.gz", "--slice-thickness", 5)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(made, tmp_path / "made"))


OUTPUT = "scan_T2w_desc-sr.nii.gz"


class TestImageFile:
    def test_its_page_lies_beside_it_and_has_the_records_numbers(self, folder: Path, capsys: Capture) -> None:
        assert report(folder / OUTPUT) == 0
        page, record = (
            page_of(folder / "scan_T2w_desc-sr.html"),
            json.loads((folder / "scan_T2w_desc-sr.json").read_text()),
        )
        assert "scan_T2w_desc-sr.html" in capsys.readouterr().out
        consistency = record["consistency"]
        for key in ("residual_rms", "residual_largest", "residual_relative_to_range"):
            assert repr(consistency[key]) in numbers_of(page)
        for word in (record["input"]["sha256"], record["output"]["sha256"], record["method"], *record["warnings"]):
            assert word in page
        for name in ("scan", "restored", "restored, imaged again, less scan"):
            for plane in ("axial", "coronal", "sagittal"):
                assert re.search(rf'alt="{name}[^"]*, {plane}"', page)
        assert "14, 12, 8" in page
        assert str(folder) not in page

    def test_the_difference_is_what_the_record_measured(self, folder: Path) -> None:
        found = examine_output(folder / OUTPUT)
        assert found.residual == pytest.approx(found.record["consistency"]["residual_rms"], rel=1e-5)
        assert found.notes == ()
        output, _ = read_volume(folder / OUTPUT, allow_output=True)
        scan, _ = read_volume(folder / "scan_T2w.nii.gz")
        inner = (reimage(output, scan, found.record) - scan.array)[..., 2:-2]
        assert np.abs(inner).max() == pytest.approx(found.record["consistency"]["residual_largest"], rel=1e-5)

    def test_the_same_files_give_the_same_bytes(self, folder: Path) -> None:
        for name in ("a.html", "b.html"):
            assert report(folder / OUTPUT, "-o", folder / "pages" / name) == 0
        assert (folder / "pages" / "a.html").read_bytes() == (folder / "pages" / "b.html").read_bytes()

    def test_sharpness_grows_along_the_restored_axis_alone(self, folder: Path) -> None:
        found = examine_output(folder / OUTPUT)
        assert found.scan_edges is not None
        ratios = [a / b for a, b in zip(found.edges.per_axis, found.scan_edges.per_axis, strict=True)]
        assert ratios[2] > 1.2
        assert max(abs(ratio - 1) for ratio in ratios[:2]) < 0.2

    def test_without_the_scan_nothing_is_compared(self, folder: Path, tmp_path: Path, capsys: Capture) -> None:
        (folder / "scan_T2w.nii.gz").rename(tmp_path / "elsewhere.nii.gz")
        assert report(folder / OUTPUT) == 0
        assert "--scan" in capsys.readouterr().out
        page = page_of(folder / "scan_T2w_desc-sr.html")
        assert "The scan was not found beside the output" in page
        assert len(re.findall("<img", page)) == 3
        assert report(folder / OUTPUT, "--scan", tmp_path / "elsewhere.nii.gz", "--overwrite") == 0
        assert len(re.findall("<img", page_of(folder / "scan_T2w_desc-sr.html"))) == 9

    def test_the_scan_is_found_one_folder_above(self, folder: Path) -> None:
        (folder / "out").mkdir()
        for name in (OUTPUT, "scan_T2w_desc-sr.json"):
            (folder / name).rename(folder / "out" / name)
        assert examine_output(folder / "out" / OUTPUT).before is not None

    def test_a_scan_of_that_name_with_other_voxels_is_not_the_scan(self, folder: Path, capsys: Capture) -> None:
        image = nib.load(folder / "scan_T2w.nii.gz")
        nib.save(nib.Nifti1Image(image.get_fdata()[::-1], image.affine), folder / "scan_T2w.nii.gz")
        assert examine_output(folder / OUTPUT).before is None
        assert report(folder / OUTPUT, "--scan", folder / "scan_T2w.nii.gz") == 2
        assert "--scan" in capsys.readouterr().err

    def test_an_uncertainty_is_shown_with_its_quantiles(self, folder: Path, capsys: Capture) -> None:
        output = nib.load(folder / OUTPUT)
        spread = np.full(output.shape, 3.0, dtype=np.float32)
        spread[0, 0, 0] = 4
        nib.save(nib.Nifti1Image(spread, output.affine), folder / "spread.nii.gz")
        assert report(folder / OUTPUT, "--uncertainty", folder / "spread.nii.gz") == 0
        page = page_of(folder / "scan_T2w_desc-sr.html")
        assert "uncertainty: 0 to 3" in page
        assert "99 %" in page
        nib.save(nib.Nifti1Image(spread[:-1], output.affine), folder / "spread.nii.gz")
        assert report(folder / OUTPUT, "--uncertainty", folder / "spread.nii.gz", "--overwrite") == 2
        assert "E_NO_GEOM" in capsys.readouterr().err

    def test_markup_in_names_is_text(self, folder: Path) -> None:
        stem = "<b onload=x>&amp;"
        record = json.loads((folder / "scan_T2w_desc-sr.json").read_text())
        record["output"]["file"], record["warnings"] = f"{stem}.nii.gz", ["<script>alert(1)</script>"]
        (folder / OUTPUT).rename(folder / f"{stem}.nii.gz")
        (folder / f"{stem}.json").write_text(json.dumps(record))
        assert report(folder / f"{stem}.nii.gz", "-o", folder / "page.html") == 0
        page = page_of(folder / "page.html")
        assert "<b " not in page
        assert "<script" not in page
        assert "&lt;b onload=x&gt;&amp;amp;" in page


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study called after its patient, and what was made of it."""
    folder = tmp_path_factory.mktemp("dicom")
    make_series(folder / "Xylander" / "deep", slices=6, shape=(10, 12))
    enhance(folder / "Xylander")
    return folder


def series_of(folder: Path) -> Path:
    """The series folder in it."""
    (found,) = [path for path in folder.iterdir() if path.is_dir()]
    return found


class TestDicom:
    def test_its_page_compares_and_names_nobody(self, study: Path, capsys: Capture) -> None:
        series = series_of(study / "Xylander_desc-sr")
        assert report(f"{series}/", "--overwrite") == 0
        page = page_of(series.with_name(series.name + ".html"))
        assert leaks(page) == []
        assert leaks(re.sub(r"\S*Xylander\S*", "", "".join(capsys.readouterr()))) == []
        assert len(re.findall("<img", page)) == 9
        record = json.loads(series.with_name(series.name + ".json").read_text())
        assert record["input"]["series"] in page
        assert repr(record["consistency"]["residual_rms"]) in numbers_of(page)
        found = examine_output(series)
        assert found.residual == pytest.approx(record["consistency"]["residual_rms"], rel=1e-5)
        assert not found.notes

    def test_a_name_that_a_person_gave_is_not_shown(self, study: Path, tmp_path: Path) -> None:
        enhance(study / "Xylander", "-o", tmp_path / "Zenobia.nii.gz")
        assert report(tmp_path / "Zenobia.nii.gz", "--scan", study / "Xylander", "-o", tmp_path / "x.html") == 0
        page = page_of(tmp_path / "x.html")
        assert leaks(page) == []
        assert len(re.findall("<img", page)) == 9

    def test_the_scan_may_be_an_archive(self, study: Path, tmp_path: Path) -> None:
        shutil.copytree(study / "Xylander_desc-sr", tmp_path / "study_desc-sr")
        with zipfile.ZipFile(tmp_path / "study.zip", "w") as archive:
            for file in (study / "Xylander" / "deep").iterdir():
                archive.write(file, file.name)
        series = series_of(tmp_path / "study_desc-sr")
        assert examine_output(series).before is not None
        (tmp_path / "study.zip").unlink()
        assert examine_output(series).before is None

    def test_a_changed_series_or_a_file_of_it_is_refused(self, study: Path, tmp_path: Path, capsys: Capture) -> None:
        shutil.copytree(study / "Xylander_desc-sr", tmp_path / "study_desc-sr")
        series = series_of(tmp_path / "study_desc-sr")
        assert report(series / "IM-0001.dcm") == 2
        (series / "IM-0002.dcm").unlink()
        assert report(series, "-o", tmp_path / "x.html") == 2
        assert "SHA-256" in capsys.readouterr().err


class TestRefusals:
    def test_what_is_no_output_of_ours(self, folder: Path, capsys: Capture) -> None:
        (folder / "scan_T2w.json").write_text(json.dumps({"SliceThickness": 4}))
        for path in (folder / "scan_T2w.nii.gz", folder, folder / "nothing.nii.gz", folder / "scan_T2w_desc-sr.json"):
            assert report(path, "-o", folder / "x.html") == 2
            assert capsys.readouterr().err.startswith("medld: E_NOT_IMAGE: expected an output of medld enhance")
        assert not (folder / "x.html").exists()

    def test_an_output_that_was_changed_since(self, folder: Path, capsys: Capture) -> None:
        image = nib.load(folder / OUTPUT)
        nib.save(nib.Nifti1Image(image.get_fdata() + 1, image.affine), folder / OUTPUT)
        assert report(folder / OUTPUT) == 2
        assert "SHA-256" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("path", "value"),
        [
            (("consistency", "residual_rms"), "much"),
            (("scan", "restored_axes"), []),
            (("input", "grid"), None),
            (("settings", "slice_profile"), "hexagon"),
        ],
    )
    def test_a_record_that_is_not_whole(self, path: tuple[str, str], value: Any, folder: Path, capsys: Capture) -> None:
        record = json.loads((folder / "scan_T2w_desc-sr.json").read_text())
        record[path[0]][path[1]] = value
        (folder / "scan_T2w_desc-sr.json").write_text(json.dumps(record))
        assert report(folder / OUTPUT) == 2
        assert ".".join(path) in capsys.readouterr().err

    def test_a_record_whose_residual_is_another_is_told(self, folder: Path, capsys: Capture) -> None:
        record = json.loads((folder / "scan_T2w_desc-sr.json").read_text())
        record["consistency"]["residual_rms"] *= 2
        (folder / "scan_T2w_desc-sr.json").write_text(json.dumps(record))
        assert report(folder / OUTPUT) == 0
        assert "its record says" in capsys.readouterr().err
        assert "its record says" in page_of(folder / "scan_T2w_desc-sr.html")

    def test_a_page_replaces_nothing_unasked(self, folder: Path, capsys: Capture) -> None:
        (folder / "page.html").write_text("mine")
        for target in ("page.html", "page.txt", "."):
            assert report(folder / OUTPUT, "-o", folder / target) == 2
        assert "--overwrite" in capsys.readouterr().err
        assert (folder / "page.html").read_text() == "mine"
        assert not (folder / "page.txt").exists()


def test_restoring_and_training_load_nothing_that_draws(folder: Path, tmp_path: Path) -> None:
    command = ["enhance", str(folder / "scan_T2w.nii.gz"), "-o", str(tmp_path / "x.nii.gz"), "--model", "baseline"]
    code = (
        "import sys; from medld.cli import main; "
        f"assert main({[*command, '--preview', str(tmp_path / 'x.png')]}) == 0; "
        "import medld.training, medld.evaluation; "
        "print([name for name in ('matplotlib', 'jinja2') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of two scans in folders of somebody's name, beside a file that is none."""
    folder, out = tmp_path_factory.mktemp("Quimby"), tmp_path_factory.mktemp("results")
    save_cohort(folder / "Xylander_Zoe", 2)
    (folder / "Xylander_Zoe" / "sub-09_T1w.nii.gz").write_text("not an image")
    options: Any = {"model": "baseline", "baselines": ("cubic", "B"), "device": "cpu", "metrics": ["nrmse"]}
    evaluate(folder, ["through-plane-4x"], out, **options)
    return out


def test_no_page_of_an_evaluation_names_a_folder(evaluation: Path) -> None:
    page = page_of(evaluation / "report.html")
    for name in ("Xylander", "Quimby", str(evaluation)):
        assert name not in page
        assert name.encode() not in (evaluation / "report.pdf").read_bytes()
    assert {"sub-01_T1w.nii.gz", "sub-09_T1w.nii.gz", "E_NOT_IMAGE"} <= set(re.findall(r">([^<>]+)</td>", page))
    assert len(re.findall("data:image/png", page)) == 2 * 9  # truth, B and its error, of either scan


def test_the_record_of_an_evaluation_is_all_that_its_report_needs(evaluation: Path) -> None:
    record = json.loads((evaluation / "results.json").read_text())
    page = render_evaluation_report(EvaluationReport(record)).decode()
    for line in record["summary"]:
        assert {repr(line["psnr"]), repr(line["detail_share"]), repr(line["scans"])} <= numbers_of(page)
        assert repr(line["statistics"]["nrmse_euclidean"]["value"]["mean"]) in numbers_of(page)
    assert record["skipped"][0]["code"] in page
