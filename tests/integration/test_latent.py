"""`medld latent`: latents go to a file and back to the scanner's units, and what cannot be is refused in a line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from medld.acquisition import Acquisition, AxisAcquisition, along
from medld.build import build_networks
from medld.checkpoint import load_model, save_model
from medld.cli import main
from medld.config import AutoencoderConfig, ModelConfig, NetworkConfig
from medld.intensity import intensity_map
from medld.io import read_volume
from medld.nn.autoencoder import fold
from medld.nn.conditions import Conditions
from medld.superres.codec import Codec
from medld.superres.latents import load_latent, mix
from medld.volume import Volume

SHAPE = (17, 15, 24)
FINE = np.array([[0.0, -0.9, 0.1, 31.7], [1.0, 0.0, 0.0, -20.3], [0.0, 0.1, 0.9, 7.25], [0, 0, 0, 1]])
FINE[:3, 1:3] /= np.linalg.norm(FINE[:3, 1])
"""1 mm, oblique."""

ROUNDING = 1e-4
"""Of a scan's largest value: float32 through an encoder, a decoder and a projection."""


def save_random_model(
    folder: Path, seed: int, parts: Sequence[str], modalities: tuple[Literal["mr", "ct"], ...] = ("mr",)
) -> Path:
    """A model folder whose networks do something, if nothing sensible."""
    network = NetworkConfig(channels=(4, 4, 4), blocks=(1, 1, 1), embedding=8)
    autoencoder = AutoencoderConfig(width=4, encoder_blocks=1, decoder_blocks=1, embedding=8)
    config = ModelConfig(
        one_step=network, autoencoder=autoencoder if "autoencoder" in parts else None, modalities=modalities
    )
    networks = build_networks(config)
    generator, states = torch.Generator().manual_seed(seed), {}
    for part in parts:
        module = getattr(networks, part)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        states[part] = module.state_dict()
    if "autoencoder" in states:
        states["autoencoder"]["latent_std"].uniform_(0.5, 2.0, generator=generator)
        states["autoencoder"]["latent_mean"].normal_(generator=generator)
    save_model(folder, config, states, {"summary": "random"})
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With an autoencoder."""
    return save_random_model(tmp_path_factory.mktemp("models") / "tiny", 0, ["one_step", "autoencoder"])


@pytest.fixture(scope="module")
def ct_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With an autoencoder for either modality."""
    folder = tmp_path_factory.mktemp("models") / "either"
    return save_random_model(folder, 0, ["one_step", "autoencoder"], ("mr", "ct"))


def head(phase: float = 0.0) -> NDArray[np.float32]:
    """A fine volume of structured tissue, up to about 900."""
    axes = np.meshgrid(*(np.linspace(-1, 0.9, n) for n in SHAPE), indexing="ij")
    texture = np.sin(9 * axes[2] + 3 * axes[0] + phase) * np.cos(5 * axes[1] - 2 * phase)
    return (400 + 250 * texture + 240 * axes[0] * axes[2]).astype(np.float32)


def save(path: Path, array: NDArray[Any], affine: NDArray[Any] = FINE) -> Path:
    """A NIfTI file."""
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


@pytest.fixture
def fine(tmp_path: Path) -> Path:
    """A fine volume as a file."""
    return save(tmp_path / "sub-a_T1w.nii.gz", head())


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """Another on the same grid, half as bright."""
    return save(tmp_path / "sub-b_T1w.nii.gz", 0.5 * head(1.0))


@pytest.fixture
def thick(tmp_path: Path) -> Path:
    """Slices of 4 mm along the first axis, whole numbers."""
    affine = FINE @ np.diag([4.0, 1.0, 1.0, 1.0])
    return save(tmp_path / "sub-c_T1w.nii.gz", np.round(head()[::4][:, :, :16]).astype(np.int16), affine)


def latent(model: Path, *arguments: object, code: int = 0) -> None:
    """Run the command on the CPU."""
    command = ["latent", *(str(argument) for argument in arguments), "--model", str(model), "--device", "cpu"]
    assert main(command) == code


def values(path: Path) -> NDArray[np.float64]:
    """What a NIfTI file holds."""
    return np.asarray(nib.load(path).get_fdata())


def imaged(array: NDArray[Any], slices: int, axis: int) -> NDArray[Any]:
    """`array` through that many thick slices along `axis`, which comes last."""
    moved = np.moveaxis(array, axis, -1)
    one = AxisAcquisition(moved.shape[-1], slices)
    padded = np.pad(moved, ((0, 0), (0, 0), (one.margin, one.margin)), mode="edge")
    return np.asarray(Acquisition((None, None, one)).apply(padded))


def difference(first: NDArray[Any], second: NDArray[Any], slices: int, axis: int) -> float:
    """Largest between two volumes, both imaged, but for the two slices at each end, which see beyond."""
    return float(np.abs((imaged(first, slices, axis) - imaged(second, slices, axis))[..., 2:-2]).max())


@pytest.mark.parametrize(("axis", "ratio"), [(2, 3.0), (0, 2.1)])
def test_a_decoded_latent_is_consistent_with_its_scan_in_place_and_units(
    axis: int, ratio: float, model: Path, fine: Path
) -> None:
    file, decoded = fine.with_name("x.safetensors"), fine.with_name("decoded.nii.gz")
    latent(model, "encode", fine, "--ratio", ratio, "--axis", axis, "-o", file)
    latent(model, "decode", file, fine, "-o", decoded)
    assert np.array_equal(nib.load(decoded).affine, nib.load(fine).affine)
    before, after = values(fine), values(decoded)
    assert after.shape == before.shape
    slices = load_latent(file).coarse.shape[axis]
    assert slices == round(SHAPE[axis] / ratio)
    limit = ROUNDING * before.max()
    assert difference(after, before, slices, axis) < limit
    assert np.abs(after - before).max() > 10 * limit  # a random decoder says something


def test_a_thick_scan_is_decoded_on_the_grid_that_it_would_be_restored_to(model: Path, thick: Path) -> None:
    file, decoded = thick.with_name("x.safetensors"), thick.with_name("decoded.nii")
    latent(model, "encode", thick, "-o", file)
    held = load_latent(file)
    assert (held.axis, held.ratio) == (0, 4.0)
    assert held.values.shape == (2, 15, 16, 5)
    assert held.values.dtype == np.float32
    assert np.array_equal(held.coarse.affine, nib.load(thick).affine)
    latent(model, "decode", file, thick, "-o", decoded)
    image = nib.load(decoded)
    assert image.shape == (20, 15, 16)
    assert image.get_data_dtype() == np.int16
    assert np.allclose(image.affine, held.fine.affine, atol=1e-5)  # NIfTI keeps float32
    rounded = 1.0  # the output holds whole numbers as the scan does
    error = imaged(values(decoded), 5, 0) - np.moveaxis(values(thick), 0, -1)
    assert np.abs(error[..., 2:-2]).max() < rounded


def test_what_is_not_in_the_latent_is_in_the_scan(model: Path, fine: Path, other: Path) -> None:
    """Beside another scan on the grid the same latent gives that scan's slices."""
    file, decoded = fine.with_name("x.safetensors"), fine.with_name("decoded.nii.gz")
    latent(model, "encode", fine, "--ratio", 3, "--axis", 2, "-o", file)
    latent(model, "decode", file, other, "-o", decoded)
    assert difference(values(decoded), values(other), 8, 2) < ROUNDING * values(fine).max()


def test_latents_do_not_depend_on_the_scanners_gain(model: Path, fine: Path) -> None:
    louder = save(fine.with_name("louder_T1w.nii.gz"), 7 * values(fine).astype(np.float32))
    held, decoded = [], []
    for number, path in enumerate((fine, louder)):
        file, out = fine.with_name(f"{number}.safetensors"), fine.with_name(f"{number}.nii.gz")
        latent(model, "encode", path, "--ratio", 4, "-o", file)
        latent(model, "decode", file, path, "-o", out)
        held.append(load_latent(file))
        decoded.append(values(out))
    assert np.allclose(held[0].values, held[1].values, atol=1e-4)
    assert held[1].units.scale == pytest.approx(7 * held[0].units.scale, rel=1e-5)
    assert np.allclose(7 * decoded[0], decoded[1], atol=ROUNDING * decoded[1].max())


@pytest.mark.parametrize("axis", [0, 2])
def test_a_latent_is_what_the_encoder_makes_of_the_samples_and_their_geometry(
    axis: int, model: Path, fine: Path
) -> None:
    ratio = SHAPE[axis] / 6
    array = np.moveaxis(head(), axis, -1)
    scale = intensity_map(imaged(array, 6, 2), "mr").scale  # of the slices: the volume is not known in use
    samples = along(
        AxisAcquisition(SHAPE[axis], 6).target_to_profile(), torch.from_numpy(array / scale)[None, None], -1
    )
    one = torch.ones(1)
    told = Conditions(ratio * one, ratio * one, one, 0 * one, 0 * one, torch.zeros(1, dtype=torch.long))
    autoencoder = load_model(model).networks.autoencoder
    assert autoencoder is not None
    with torch.no_grad():
        expected = autoencoder.standardise(autoencoder.encode(fold(samples), told.geometry()).mean, ratio * one)
    held = codec_of(model).encode(read(fine), ratio, axis)
    assert held.values == pytest.approx(expected[0].numpy(), abs=1e-4)


def test_an_encoded_volume_differs_from_its_slices_own_latent(model: Path, fine: Path) -> None:
    """The first holds what slices do not tell, the second what they do: that of their baseline."""
    codec, volume = codec_of(model), read(fine)
    truth = codec.encode(volume, 4.0, 2)
    slices, one = imaged(volume.array, 6, 2).astype(np.float32), AxisAcquisition(24, 6)
    known = codec.encode(Volume(slices, truth.coarse, "mr"), axis=2)
    assert (known.values.shape, known.ratio) == (truth.values.shape, truth.ratio)
    assert not np.allclose(known.values, truth.values, atol=0.05)
    operator = Acquisition((None, None, one))
    baseline = codec.encode(volume.with_array(operator.crop(operator.baseline(slices))), 4.0, 2)
    closer = np.abs(known.values - baseline.values).mean() / np.abs(known.values - truth.values).mean()
    assert closer < 0.3  # not none: the two grids' baselines differ a little


def codec_of(model: Path) -> Codec:
    """The model's codec on the CPU."""
    return Codec(load_model(model), device="cpu")


def read(path: Path) -> Volume:
    """A volume from a file."""
    return read_volume(path)[0]


@pytest.mark.parametrize("modality", ["T1w", "CT"])
def test_the_file_says_what_the_numbers_mean(modality: str, ct_model: Path, tmp_path: Path) -> None:
    scan, file = save(tmp_path / f"sub-a_{modality}.nii.gz", head()), tmp_path / "x.safetensors"
    held = codec_of(ct_model).encode(read(scan), 3.0)
    assert (held.units.offset != 0) == (modality == "CT")
    latent(ct_model, "encode", scan, "--ratio", 3, "-o", file)
    loaded = load_latent(file)
    assert np.array_equal(loaded.values, held.values)
    for name in ("fine", "coarse"):
        assert np.array_equal(getattr(loaded, name).affine, getattr(held, name).affine)
        assert getattr(loaded, name).shape == getattr(held, name).shape
    assert (loaded.axis, loaded.units, loaded.model) == (held.axis, held.units, held.model)
    assert list(load_file(file)) == ["latent"]


def test_hounsfield_units_come_back(ct_model: Path, tmp_path: Path) -> None:
    scan = save(tmp_path / "sub-a_CT.nii.gz", head() - 1000)
    file, decoded = tmp_path / "x.safetensors", tmp_path / "decoded.nii.gz"
    latent(ct_model, "encode", scan, "--ratio", 3, "--axis", 2, "-o", file)
    latent(ct_model, "decode", file, scan, "-o", decoded)
    assert difference(values(decoded), values(scan), 8, 2) < ROUNDING * 1000
    assert values(decoded).mean() == pytest.approx(values(scan).mean(), abs=5)


@pytest.mark.parametrize("arc", [(), ("--slerp",)])
def test_the_ends_of_an_interpolation_are_the_two_decodes(
    arc: tuple[str, ...], model: Path, fine: Path, other: Path
) -> None:
    between = []
    for share in (0, 0.5, 1):
        between.append(fine.with_name(f"at{share}.nii.gz"))
        latent(model, "interpolate", fine, other, "--at", share, *arc, "--ratio", 3, "-o", between[-1])
    for path, end in ((fine, between[0]), (other, between[2])):
        file, decoded = path.with_name("x.safetensors"), path.with_name("decoded.nii.gz")
        latent(model, "encode", path, "--ratio", 3, "-o", file, "--overwrite")
        latent(model, "decode", file, path, "-o", decoded, "--overwrite")
        assert np.allclose(values(end), values(decoded), atol=1e-3)
    first, middle, last = (imaged(values(path), 8, 2)[..., 2:-2] for path in between)
    assert np.abs(middle - first).max() > 10
    # Slices and units are mixed on a line each, so the middle's is that of the slices in network units.
    scales = [load_units(model, path) for path in (fine, other)]
    expected = (first / scales[0] + last / scales[1]) / 2 * (scales[0] + scales[1]) / 2
    assert np.abs(middle - expected).max() < ROUNDING * first.max()


def load_units(model: Path, path: Path) -> float:
    """The scale of a volume's units."""
    return codec_of(model).encode(read(path), 3.0).units.scale


def test_an_arc_keeps_the_length_that_a_line_loses() -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((2, 9, 8, 7)).astype(np.float32) for _ in range(2))
    b *= np.float32(np.linalg.norm(a) / np.linalg.norm(b))
    for share in (0.25, 0.5, 0.8):
        line, arc = (mix(a, b, share, spherical=spherical) for spherical in (False, True))
        assert np.allclose(line, (1 - share) * a + share * b, atol=1e-6)
        assert np.linalg.norm(line) < 0.9 * np.linalg.norm(a)
        assert np.linalg.norm(arc) == pytest.approx(np.linalg.norm(a), rel=1e-5)
    angles = [np.arccos((mix(a, b, s, spherical=True) * a).sum() / np.linalg.norm(a) ** 2) for s in (0.25, 0.5, 1.0)]
    assert angles == pytest.approx([angles[2] / 4, angles[2] / 2, angles[2]], rel=1e-4)  # at an even pace


@pytest.mark.parametrize("factor", [1.0, 2.0, -1.0, 0.0])
def test_where_there_is_no_arc_a_line_serves(factor: float) -> None:
    a = np.random.default_rng(0).standard_normal((2, 3, 4, 5)).astype(np.float32)
    assert np.allclose(mix(a, factor * a, 0.3, spherical=True), (0.7 + 0.3 * factor) * a, atol=1e-5)


def test_an_output_is_known_as_ours(model: Path, fine: Path, other: Path) -> None:
    out = fine.with_name("between.nii.gz")
    latent(model, "interpolate", fine, other, "-o", out)
    assert main(["enhance", str(out), "--model", str(model)]) == 2


def refused(capsys: pytest.CaptureFixture[str], code: str, *words: str) -> None:
    """One line on standard error with a reason code and what is to be said."""
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert printed.startswith(f"medld: {code}: ")
    assert all(word in printed for word in words), printed


def test_a_model_without_autoencoder_is_refused(tmp_path: Path, fine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bare = save_random_model(tmp_path / "bare", 0, ["one_step"])
    latent(bare, "encode", fine, "--ratio", 4, "-o", tmp_path / "x.safetensors", code=2)
    refused(capsys, "E_MODEL", "bare has none", "--model")


def test_another_models_latents_are_refused(
    tmp_path: Path, model: Path, fine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = save_random_model(tmp_path / "other", 1, ["one_step", "autoencoder"])
    latent(model, "encode", fine, "--ratio", 4, "-o", tmp_path / "x.safetensors")
    latent(other, "decode", tmp_path / "x.safetensors", fine, "-o", tmp_path / "y.nii", code=2)
    refused(capsys, "E_MODEL", "that made the latent")
    assert not (tmp_path / "y.nii").exists()


def test_other_grids_are_refused(model: Path, fine: Path, thick: Path, capsys: pytest.CaptureFixture[str]) -> None:
    moved = save(fine.with_name("moved_T1w.nii.gz"), head(), FINE + 0.5 * np.eye(4, k=3))
    out = fine.with_name("y.nii")
    for second in (thick, moved):
        latent(model, "interpolate", fine, second, "-o", out, code=2)
        refused(capsys, "E_CONFIG", "on one grid", "register")
    latent(model, "encode", fine, "--ratio", 4, "-o", fine.with_name("x.safetensors"))
    latent(model, "decode", fine.with_name("x.safetensors"), moved, "-o", out, code=2)
    refused(capsys, "E_CONFIG", "the scan of the latent")
    assert not out.exists()


def test_other_modalities_are_refused(
    model: Path, ct_model: Path, fine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ct, out = save(fine.with_name("sub-a_CT.nii.gz"), head()), fine.with_name("y.nii")
    latent(model, "encode", ct, "--ratio", 4, "-o", out, code=2)
    refused(capsys, "E_CONFIG", "trained for (MR)", "got CT")
    latent(ct_model, "interpolate", fine, ct, "-o", out, code=2)
    refused(capsys, "E_CONFIG", "one kind of units")
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (("encode", "FINE", "-o", "x.safetensors"), "E_NOTHING_TO_DO", "--ratio"),
        (("encode", "FINE", "--ratio", "9", "-o", "x.safetensors"), "E_CONFIG", "--ratio"),
        (("encode", "FINE", "--ratio", "0", "-o", "x.safetensors"), "E_CONFIG", "--ratio"),
        (("encode", "THICK", "--axis", "1", "-o", "x.safetensors"), "E_CONFIG", "--axis"),
        (("encode", "FINE", "--ratio", "4", "-o", "FINE"), "E_EXISTS", "never replaced"),
        (("encode", "FINE", "--ratio", "4", "-o", "THICK"), "E_EXISTS", "--overwrite"),
        (("encode", "FINE", "--ratio", "4", "-o", "no/such/folder/x"), "E_EXISTS", "create it first"),
        (("decode", "FINE", "FINE", "-o", "y.nii"), "E_NOT_IMAGE", "medld latent encode"),
        (("interpolate", "FINE", "FINE", "--at", "1.5", "-o", "y.nii"), "E_CONFIG", "--at"),
        (("interpolate", "FINE", "FINE", "-o", "y.nii", "--device", "abacus"), "E_CONFIG", "--device"),
        (("mix", "FINE", "FINE"), "E_CONFIG", "medld latent --help"),
        (("encode", "FINE"), "E_CONFIG", "medld latent encode --help"),
    ],
)
def test_what_cannot_be_costs_one_line(
    arguments: tuple[str, ...],
    code: str,
    word: str,
    model: Path,
    fine: Path,
    thick: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(fine.parent)
    before = {path: path.read_bytes() for path in fine.parent.iterdir()}
    command = [str({"FINE": fine, "THICK": thick}.get(argument, argument)) for argument in arguments]
    assert main(["latent", *command, "--model", str(model)]) == 2
    refused(capsys, code, word)
    assert {path: path.read_bytes() for path in fine.parent.iterdir()} == before


def test_a_damaged_latent_is_refused(model: Path, fine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = fine.with_name("x.safetensors")
    latent(model, "encode", fine, "--ratio", 4, "-o", file)
    whole = file.read_bytes()
    tensors = load_file(file)
    for damaged in (whole[:-7], b"", b"not a latent"):
        file.write_bytes(damaged)
        latent(model, "decode", file, fine, "-o", fine.with_name("y.nii"), code=2)
        refused(capsys, "E_NOT_IMAGE", "medld latent encode")
    save_file(tensors, file)  # without its account
    latent(model, "decode", file, fine, "-o", fine.with_name("y.nii"), code=2)
    refused(capsys, "E_NOT_IMAGE", "medld latent encode")


@pytest.mark.parametrize("action", ["", "encode", "decode", "interpolate"])
def test_help_of_every_action(action: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["latent", *action.split(), "--help"]) == 0
    assert "usage: medld latent" in capsys.readouterr().out
