"""The plan: names, what folders hold, and what names alone forbid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from medld.batch.names import name_output
from medld.batch.plan import make_plan
from medld.batch.settings import EnhanceSettings
from medld.errors import ConfigError, OutputError
from medld.io import OUTPUT_MARK


def save(path: Path, *, description: str = "") -> Path:
    """A tiny scan."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(np.arange(512, dtype=np.int16).reshape(8, 8, 8), np.diag([1, 1, 4, 1]))
    image.header["descrip"] = description
    nib.save(image, path)
    return path


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("scan.nii.gz", "scan_desc-sr.nii.gz"),
        ("scan.v2.nii", "scan.v2_desc-sr.nii"),
        ("Scan.NII.GZ", "Scan_desc-sr.NII.GZ"),
        ("a b.nrrd", "a b_desc-sr.nrrd"),
        ("sub-01_T2w.nii.gz", "sub-01_desc-sr_T2w.nii.gz"),
        ("sub-01_ses-2_acq-5mm_run-1_FLAIR.nii.gz", "sub-01_ses-2_acq-5mm_run-1_desc-sr_FLAIR.nii.gz"),
        ("sub-01_desc-preproc_T1w.nii.gz", "sub-01_desc-preprocsr_T1w.nii.gz"),
        ("sub-01.nii.gz", "sub-01_desc-sr.nii.gz"),
        ("sub-01_T2w_old copy.nii.gz", "sub-01_T2w_old copy_desc-sr.nii.gz"),
        ("ses-01_T2w.mha", "ses-01_T2w_desc-sr.mha"),
    ],
)
def test_names(name: str, expected: str) -> None:
    assert name_output(Path("somewhere") / name) == expected


def test_output_and_sidecar_stand_beside_the_input(tmp_path: Path) -> None:
    (job,) = make_plan([save(tmp_path / "sub-01_T2w.nii.gz")], EnhanceSettings()).jobs
    assert job.output == tmp_path / "sub-01_desc-sr_T2w.nii.gz"
    assert job.sidecar == tmp_path / "sub-01_desc-sr_T2w.json"
    assert job.targets == (job.sidecar, job.output)


def test_output_may_be_a_file_or_a_folder(tmp_path: Path) -> None:
    scan = save(tmp_path / "scan.nii.gz")
    outputs = [
        make_plan([scan], EnhanceSettings(output=tmp_path / name)).jobs[0].output.relative_to(tmp_path)
        for name in ("x.mha", "new", ".")
    ]
    assert outputs == [Path("x.mha"), Path("new/scan_desc-sr.nii.gz"), Path("scan_desc-sr.nii.gz")]


def test_folders_are_searched_and_own_files_listed(tmp_path: Path) -> None:
    first, second = save(tmp_path / "b" / "scan.nii.gz"), save(tmp_path / "a" / "deep" / "x.nii")
    own, labels = (
        save(tmp_path / "own.nii.gz", description=f"{OUTPUT_MARK} 0.1.0 sr"),
        save(tmp_path / "x_dseg.nii"),
    )
    for ignored in ("._scan.nii.gz", ".hidden/scan.nii", "b/notes.txt"):
        (tmp_path / ignored).parent.mkdir(exist_ok=True)
        (tmp_path / ignored).write_text("no scan")
    plan = make_plan([tmp_path], EnhanceSettings())
    assert [(job.path, job.explicit) for job in plan.jobs] == [(second, False), (first, False)]
    assert {(o.path, o.status, o.code) for o in plan.outcomes} == {
        (own, "skipped", "E_SECOND_PASS"),
        (labels, "skipped", "E_NOT_IMAGE"),
    }
    forced = make_plan([tmp_path], EnhanceSettings(force=True))
    assert {job.path for job in forced.jobs} == {first, second, labels}


def test_an_input_given_twice_is_done_once(tmp_path: Path) -> None:
    scan = save(tmp_path / "scan.nii.gz")
    plan = make_plan([tmp_path, scan, tmp_path / "." / "scan.nii.gz"], EnhanceSettings())
    assert [(job.path, job.explicit) for job in plan.jobs] == [(scan, True)]
    assert plan.outcomes == ()


def test_a_missing_input_is_refused_and_the_rest_goes_on(tmp_path: Path) -> None:
    scan = save(tmp_path / "scan.nii.gz")
    plan = make_plan([tmp_path / "none.nii.gz", scan], EnhanceSettings())
    assert [o.status for o in plan.outcomes] == ["refused"]
    assert [job.path for job in plan.jobs] == [scan]


def test_inputs_that_would_get_one_name_are_refused(tmp_path: Path) -> None:
    twins = [save(tmp_path / name / "scan.nii.gz") for name in "ab"]
    single = save(tmp_path / "c" / "other.nii.gz")
    plan = make_plan([tmp_path], EnhanceSettings(output=tmp_path / "out"))
    assert {(o.path, o.status, o.code) for o in plan.outcomes} == {(t, "refused", "E_EXISTS") for t in twins}
    assert [job.path for job in plan.jobs] == [single]
    # Two formats of one name differ in the image but share the record.
    formats = [save(tmp_path / "d" / name) for name in ("scan.nii", "scan.nii.gz")]
    assert len(make_plan(formats, EnhanceSettings()).outcomes) == 2


@pytest.mark.parametrize("existing", ["scan_desc-sr.nii.gz", "scan_desc-sr.json", "look.png", "copy.json"])
def test_existing_files_need_overwrite(tmp_path: Path, existing: str) -> None:
    scan = save(tmp_path / "scan.nii.gz")
    (tmp_path / existing).write_text("{}")
    options: dict[str, Any] = {"preview": str(tmp_path / "look.png"), "report": tmp_path / "copy.json"}
    (outcome,) = make_plan([scan], EnhanceSettings(**options)).outcomes
    assert (outcome.code, outcome.status) == ("E_EXISTS", "refused")
    assert "--overwrite" in outcome.reason
    assert len(make_plan([scan], EnhanceSettings(**options, overwrite=True)).jobs) == 1


@pytest.mark.parametrize(
    "options",
    [
        {"output": "scan.nii.gz"},  # the input
        {"output": "scan.mha"},  # whose record would be the input's own sidecar
        {"report": "scan.json"},
        {"output": "link.nii.gz"},  # the input by another name
    ],
)
def test_inputs_and_their_sidecars_are_never_replaced(tmp_path: Path, options: dict[str, str]) -> None:
    inputs = [save(tmp_path / "scan.nii.gz")]
    (tmp_path / "link.nii.gz").symlink_to(inputs[0])
    paths: dict[str, Any] = {name: tmp_path / value for name, value in options.items()}
    plan = make_plan(inputs, EnhanceSettings(**paths, overwrite=True))
    assert [(o.code, o.status) for o in plan.outcomes] == [("E_EXISTS", "refused")]
    assert plan.jobs == ()


def test_no_input_replaces_another(tmp_path: Path) -> None:
    scan, foreign = save(tmp_path / "scan.nii.gz"), save(tmp_path / "scan_desc-sr.nii.gz")
    plan = make_plan([tmp_path], EnhanceSettings(overwrite=True))
    assert [(o.path, o.code) for o in plan.outcomes] == [(scan, "E_EXISTS")]
    assert [job.path for job in plan.jobs] == [foreign]


def test_a_header_with_detached_voxels_claims_both_files(tmp_path: Path) -> None:
    scan = save(tmp_path / "scan.nii.gz")
    (tmp_path / "x.raw").write_bytes(b"someone's voxels")
    plan = make_plan([scan], EnhanceSettings(output=tmp_path / "x.mhd"))
    assert [o.code for o in plan.outcomes] == ["E_EXISTS"]


def test_the_sidecar_may_be_named_as_the_report(tmp_path: Path) -> None:
    scan = save(tmp_path / "scan.nii.gz")
    (job,) = make_plan([scan], EnhanceSettings(report=tmp_path / "scan_desc-sr.json")).jobs
    assert job.report is None


def test_several_inputs_take_suffixes(tmp_path: Path) -> None:
    for name in ("sub-01_T2w.nii.gz", "scan.nii"):
        save(tmp_path / name)
    suffixes = {"uncertainty": "sd", "trust": "mask", "preview": "_look.png"}
    settings = EnhanceSettings(samples=2, mode="detail", interval=True, **suffixes)
    names = {path.name for job in make_plan([tmp_path], settings).jobs for path in job.targets}
    assert names == {
        *("sub-01_desc-sr_T2w.nii.gz", "sub-01_desc-sr_T2w.json"),
        *("sub-01_desc-srsd_T2w.nii.gz", "sub-01_desc-srmask_T2w.nii.gz", "sub-01_desc-sr_look_T2w.png"),
        *("sub-01_desc-srmean_T2w.nii.gz", "sub-01_desc-srstd_T2w.nii.gz"),
        *("sub-01_desc-srlower_T2w.nii.gz", "sub-01_desc-srupper_T2w.nii.gz"),
        *(f"scan_desc-sr{kind}.nii" for kind in ("mean", "std", "lower", "upper")),
        *(
            "scan_desc-sr.nii",
            "scan_desc-sr.json",
            "scan_desc-srsd.nii",
            "scan_desc-srmask.nii",
            "scan_desc-sr_look.png",
        ),
    }


@pytest.mark.parametrize(
    ("output", "mean"),
    [
        ("fine.mha", "fine_desc-mean.mha"),
        ("sub-02_T2w.nii", "sub-02_desc-mean_T2w.nii"),
        ("sub-02_desc-sr_T2w.nii", "sub-02_desc-srmean_T2w.nii"),
        (".", "scan_desc-srmean.nii.gz"),
    ],
)
def test_maps_are_called_after_the_output(tmp_path: Path, output: str, mean: str) -> None:
    settings = EnhanceSettings(output=tmp_path / output, samples=2, mode="detail")
    (job,) = make_plan([save(tmp_path / "scan.nii.gz")], settings).jobs
    assert job.maps["mean"] == tmp_path / mean
    job.maps["std"].write_bytes(b"")
    (refused,) = make_plan([job.path], settings).outcomes
    assert refused.code == "E_EXISTS"


@pytest.mark.parametrize(
    ("several", "options"),
    [
        (False, {"output": "x.dcm"}),
        (False, {"preview": "look.jpg"}),
        (False, {"uncertainty": "sd", "samples": 2, "mode": "detail"}),
        (True, {"output": "x.nii.gz"}),
        (True, {"preview": "../look.png"}),
        (True, {"uncertainty": "a/b", "samples": 2, "mode": "detail"}),
        (False, {"trust": "mask"}),
        (True, {"trust": "a/b"}),
    ],
)
def test_file_options_must_fit_the_inputs(tmp_path: Path, several: bool, options: dict[str, Any]) -> None:
    scan = save(tmp_path / "scan.nii.gz")
    if "output" in options:
        options = {"output": tmp_path / options["output"]}
    with pytest.raises(ConfigError, match=r"expected"):
        make_plan([tmp_path] if several else [scan], EnhanceSettings(**options))


def test_a_report_on_several_inputs_must_be_new(tmp_path: Path) -> None:
    save(tmp_path / "scan.nii.gz")
    report = tmp_path / "run.json"
    assert make_plan([tmp_path], EnhanceSettings(report=report)).report == report
    report.write_text("{}")
    with pytest.raises(OutputError, match="--overwrite"):
        make_plan([tmp_path], EnhanceSettings(report=report))
    with pytest.raises(OutputError, match="one of the inputs"):
        make_plan([tmp_path], EnhanceSettings(report=tmp_path / "scan_desc-sr.json", overwrite=True))
