"""Samples are what their plans say: cut, turned, imaged, and the same each time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from itertools import permutations

import numpy as np
import pytest
import torch
from monai.transforms import RandBiasField
from scipy.fft import dct

from medld.acquisition import AxisAcquisition
from medld.config import DataConfig
from medld.dataset import Fine
from medld.nn.autoencoder import unfold
from medld.training.apply import Applier, Sample
from medld.training.blend import Field, draw_field, share_of
from medld.training.draw import CURVE_POINTS, CURVE_TOP, Draw, Drawer, Item
from medld.training.plan import make_plan, truncation

SINGLE = 2e-6
CPU = torch.device("cpu")
IN_PLANE = 16
ACQUISITION = AxisAcquisition(12, 4)
PLAIN = Item(
    volume=0,
    axes=(0, 1, 2),
    flips=(False, False, False),
    zoom=(1.0, 1.0, 1.0),
    centre=(19.5, 20.5, 21.5),
    blur=(0.0, 0.0),
    curve=np.linspace(0, CURVE_TOP, CURVE_POINTS, dtype=np.float32),
    contrast=0,
    noise=0.0,
    rician=False,
)


@pytest.fixture
def applier(volumes: list[Fine]) -> Applier:
    """With samples for latents."""
    return Applier(volumes, CPU, "inverse", latents=True)


def sample_of(applier: Applier, *items: Item, seed: int = 0, acquisition: AxisAcquisition = ACQUISITION) -> Sample:
    """The sample of hand-written items."""
    return applier.apply(make_plan(Draw(acquisition, items, seed), IN_PLANE))


def tensors(sample: Sample) -> list[torch.Tensor]:
    """Everything in a sample that was computed."""
    own = [getattr(sample, field.name) for field in fields(sample)]
    told = [getattr(sample.conditions, field.name) for field in fields(sample.conditions)]
    return [value for value in own + told if isinstance(value, torch.Tensor)]


def test_a_sample_replayed_from_its_seed_is_the_same(
    volumes: list[Fine], data_config: Callable[..., DataConfig]
) -> None:
    config = data_config(noise_share=1.0)
    samples = []
    for order in ((0, 1, 2), (2,)):
        drawer, applier = Drawer(volumes, config, 3), Applier(volumes, CPU, "inverse", latents=True)
        plans = (make_plan(drawer.draw(4, step, step / 6), IN_PLANE) for step in order)
        samples.append([applier.apply(plan) for plan in plans][-1])
    assert len(tensors(samples[0])) > 12
    assert all(torch.equal(a, b) for a, b in zip(tensors(samples[0]), tensors(samples[1]), strict=True))


def test_an_unaltered_crop_is_the_source(applier: Applier, volumes: list[Fine]) -> None:
    truth = sample_of(applier, PLAIN).high_res[0, 0].numpy()
    source = volumes[0].array[12:28, 13:29, 16:28] / 255
    assert truth.shape == (IN_PLANE, IN_PLANE, ACQUISITION.fine)
    assert np.abs(truth - source).max() <= SINGLE


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_flip_reverses_the_crop(applier: Applier, axis: int) -> None:
    flips = tuple(a == axis for a in range(3))
    plain, flipped = sample_of(applier, PLAIN), sample_of(applier, replace(PLAIN, flips=flips))
    assert torch.allclose(flipped.high_res, plain.high_res.flip(2 + axis), atol=SINGLE)
    assert torch.allclose(flipped.low_res, plain.low_res.flip(2 + axis), atol=SINGLE)


@pytest.mark.parametrize("axes", list(permutations(range(3))), ids=str)
def test_crop_axes_are_the_source_axes_that_were_drawn(
    applier: Applier, volumes: list[Fine], axes: tuple[int, int, int]
) -> None:
    truth = sample_of(applier, replace(PLAIN, axes=axes, centre=(19.5, 19.5, 19.5))).high_res[0, 0].numpy()
    source = volumes[0].array.transpose(axes)[12:28, 12:28, 14:26] / 255
    assert np.abs(truth - source).max() <= SINGLE


def test_beyond_the_volume_there_is_air(applier: Applier, volumes: list[Fine]) -> None:
    truth = sample_of(applier, replace(PLAIN, centre=(19.5, 1.5, 21.5))).high_res[0, 0]
    assert truth[:, :6].abs().max() <= SINGLE
    assert np.abs(truth[:, 6:].numpy() - volumes[0].array[12:28, :10, 16:28] / 255).max() <= SINGLE


def test_a_zoom_keeps_a_smooth_field_in_place() -> None:
    """A smooth bump, sampled at other distances: each crop voxel sees its own place in the source."""
    index = np.stack(np.meshgrid(*(np.arange(48.0),) * 3, indexing="ij"))

    def bump(places: np.ndarray) -> np.ndarray:
        return 255 * np.exp(-((places - 23.2) ** 2).sum(0) / (2 * 7.0**2))

    fine = Fine("bump", np.round(bump(index)).astype(np.uint8), (1.0, 1.0, 1.0))
    zoom, centre = (1.6, 0.7, 1.2), (22.4, 24.1, 23.0)
    item = replace(PLAIN, zoom=zoom, centre=centre)
    truth = sample_of(Applier([fine], CPU, "inverse", latents=False), item).high_res[0, 0].numpy()
    axes = [c + (np.arange(n) - (n - 1) / 2) * z for c, n, z in zip(centre, truth.shape, zoom, strict=True)]
    expected = bump(np.stack(np.meshgrid(*axes, indexing="ij"))) / 255
    eight_bits = 1.5 / 255  # half a voxel of shift would be twenty times that
    assert np.abs(truth - expected).max() <= eight_bits


@pytest.mark.parametrize("thickness", [0.7, 1.0, 2.0])
def test_the_scan_is_the_truth_imaged(applier: Applier, thickness: float) -> None:
    acquisition = AxisAcquisition(18, 9, thickness)
    sample = sample_of(applier, PLAIN, acquisition=acquisition)
    imaged = sample.operator.apply(sample.operator.pad(sample.high_res))
    inner = slice(3, -3)  # slices whose whole profile lies in the crop
    far_tail = 1e-4
    assert torch.allclose(imaged[..., inner], sample.low_res[..., inner], atol=far_tail)
    assert float(sample.low_res.std()) > 0.05


def test_what_is_known_is_consistent(applier: Applier) -> None:
    sample = sample_of(applier, PLAIN)
    damped = 1e-4
    assert float(sample.noise) == 0
    assert torch.allclose(sample.operator.apply(sample.baseline), sample.low_res, atol=damped)
    assert torch.allclose(sample.operator.crop(sample.baseline), sample.known, atol=damped)


@pytest.mark.parametrize("profile_map", ["inverse", "triangle"])
def test_samples_for_latents_lie_on_the_profile_grid(volumes: list[Fine], profile_map: str) -> None:
    applier = Applier(volumes, CPU, profile_map, latents=True)
    sample = sample_of(applier, PLAIN)
    assert sample.true_samples is not None
    assert sample.known_samples is not None
    assert sample.true_samples.shape == sample.known_samples.shape == (1, 8, IN_PLANE, IN_PLANE, 4)
    back = unfold(sample.true_samples) @ sample.to_target.T
    loss = 1e-5 if profile_map == "inverse" else 0.2
    assert torch.allclose(back, sample.high_res, atol=loss)
    error_of_known = (unfold(sample.known_samples) @ sample.to_target.T - sample.high_res).square().mean()
    assert (back - sample.high_res).square().mean() < 0.2 * error_of_known


def test_samples_for_latents_are_made_only_where_asked(volumes: list[Fine]) -> None:
    sample = sample_of(Applier(volumes, CPU, "inverse", latents=False), PLAIN)
    assert sample.true_samples is None
    assert sample.known_samples is None


@pytest.mark.parametrize("rician", [False, True])
def test_noise_has_its_deviation_and_falls_on_the_scan_alone(applier: Applier, rician: bool) -> None:
    clean, noisy = (sample_of(applier, replace(PLAIN, noise=sigma, rician=rician)) for sigma in (0.0, 0.03))
    assert torch.equal(clean.high_res, noisy.high_res)
    bright = clean.low_res > 0.3  # where Rician noise is Gaussian
    difference = (noisy.low_res - clean.low_res)[bright]
    assert float(difference.std()) == pytest.approx(0.03, rel=0.1)  # a thousand voxels
    if rician:
        assert float(noisy.low_res.min()) >= 0


def test_noise_differs_by_seed_and_by_item(applier: Applier) -> None:
    item = replace(PLAIN, noise=0.03)
    first, second = (sample_of(applier, item, item, seed=seed) for seed in (0, 1))
    assert not torch.equal(first.low_res, second.low_res)
    assert not torch.equal(first.low_res[0], first.low_res[1])


def test_an_item_does_not_depend_on_its_neighbours(applier: Applier) -> None:
    other = replace(PLAIN, volume=1, zoom=(1.7, 1.3, 0.9), axes=(2, 0, 1), blur=(0.7, 0.9))
    both, alone = sample_of(applier, other, PLAIN), sample_of(applier, PLAIN)
    assert torch.allclose(both.high_res[1:], alone.high_res, atol=SINGLE)
    assert torch.allclose(both.low_res[1:], alone.low_res, atol=SINGLE)
    assert torch.allclose(both.known[1:], alone.known, atol=100 * SINGLE)


@pytest.mark.parametrize("latents", [False, True])
def test_the_first_items_are_those_of_the_batch(volumes: list[Fine], latents: bool) -> None:
    applier = Applier(volumes, CPU, "inverse", latents=latents)
    other = replace(PLAIN, volume=1, zoom=(1.7, 1.3, 0.9), blur=(0.7, 0.9), contrast=2, noise=0.03)
    batch = sample_of(applier, other, PLAIN, replace(PLAIN, noise=0.01))
    first, shared = batch.first(2), {id(batch.to_target)}
    assert (first.true_samples is None) != latents
    for part, whole in zip(tensors(first), tensors(batch), strict=True):
        assert torch.equal(part, whole if id(whole) in shared else whole[:2])
    assert all(torch.equal(a, b) for a, b in zip(tensors(batch.first(3)), tensors(batch), strict=True))


def test_a_curve_recolours_truth_and_scan(applier: Applier) -> None:
    plain, half = sample_of(applier, PLAIN), sample_of(applier, replace(PLAIN, curve=PLAIN.curve / 2))
    assert torch.allclose(half.high_res, plain.high_res / 2, atol=SINGLE)
    assert torch.allclose(half.low_res, plain.low_res / 2, atol=SINGLE)


@pytest.mark.parametrize("zoom", [1.0, 1.4])
def test_blur_softens_the_axis_that_was_drawn_alone(applier: Applier, zoom: float) -> None:
    """Without zoom a sinc that is blurred, else a Gaussian right on the source."""
    item = replace(PLAIN, zoom=(zoom, zoom, 1.0))
    sharp, soft = sample_of(applier, item), sample_of(applier, replace(item, blur=(1.2, 0.0)))

    def roughness(sample: Sample, axis: int) -> float:
        return float(sample.high_res.diff(dim=axis).square().mean() / sample.high_res.var())

    assert roughness(soft, 2) < 0.95 * roughness(sharp, 2)
    assert roughness(soft, 3) == pytest.approx(roughness(sharp, 3), rel=0.1)
    assert float(soft.high_res.mean()) == pytest.approx(float(sharp.high_res.mean()), rel=0.01)


def test_a_receive_field_is_monais(applier: Applier) -> None:
    """The same polynomials, over the crop with the margin that slices reach into."""
    bias = np.zeros((4, 4, 4), np.float32)
    bias[1, 0, 0], bias[0, 1, 2], bias[3, 0, 0] = 0.2, -0.1, 0.05
    plain, shaded = sample_of(applier, PLAIN), sample_of(applier, replace(PLAIN, bias=bias))
    degrees = [(i, j, k) for i in range(4) for j in range(4 - i) for k in range(4 - i - j)]
    shape = (IN_PLANE, IN_PLANE, ACQUISITION.fine + 2 * ACQUISITION.margin)
    field = RandBiasField()._generate_random_field(shape, 3, [bias[d] for d in degrees])
    inside = np.exp(field)[..., ACQUISITION.margin : -ACQUISITION.margin]
    ratio = (shaded.high_res / plain.high_res)[0, 0].numpy()
    known = plain.high_res[0, 0].numpy() > 0.01
    assert np.allclose(ratio[known], inside[known], rtol=1e-4)


def test_a_receive_field_is_the_items_own(applier: Applier) -> None:
    bias = np.full((4, 4, 4), 0.1, np.float32)
    both = sample_of(applier, replace(PLAIN, bias=bias), PLAIN)
    assert torch.equal(both.high_res[1:], sample_of(applier, PLAIN).high_res)
    assert not torch.allclose(both.high_res[0], both.high_res[1], atol=0.01)


def test_a_mixture_is_the_weighted_mean_of_two_crops(applier: Applier) -> None:
    """A field of one value is a share of one value, and imaging is linear."""
    other = replace(PLAIN, volume=1, flips=(True, False, False))
    field = np.zeros((4, 4, 4), np.float32)
    field[0, 0, 0] = np.log(0.3 / 0.7)
    mixed = sample_of(applier, replace(PLAIN, other=other, field=Field(field)), other)
    first, second = (sample_of(applier, item) for item in (PLAIN, other))
    for name in ("high_res", "low_res"):
        expected = torch.lerp(getattr(first, name), getattr(second, name), 0.3)
        assert torch.allclose(getattr(mixed, name)[:1], expected, atol=SINGLE)
    assert torch.equal(mixed.high_res[1:], second.high_res)


@pytest.mark.parametrize("sheet", [False, True])
def test_a_blend_shows_each_crop_in_its_place(applier: Applier, sheet: bool) -> None:
    """A plane across the rows: one crop on this side of it, the other beyond; a sheet only along the plane."""
    other = replace(PLAIN, volume=1)
    field = np.zeros((4, 4, 4), np.float32)
    field[1, 0, 0] = 100.0
    mixed = sample_of(applier, replace(PLAIN, other=other, field=Field(field, sheet))).high_res[0, 0]
    first, second = (sample_of(applier, item).high_res[0, 0] for item in (PLAIN, other))
    assert torch.allclose(mixed[: IN_PLANE // 2 - 2], first[: IN_PLANE // 2 - 2], atol=1e-4)
    beyond = first if sheet else second
    assert torch.allclose(mixed[IN_PLANE // 2 + 2 :], beyond[IN_PLANE // 2 + 2 :], atol=1e-4)
    if sheet:  # the plane lies between two rows, 1/15 of half a crop from each
        share = float(np.exp(-((100 / (IN_PLANE - 1)) ** 2)))
        row = IN_PLANE // 2
        assert torch.allclose(mixed[row], torch.lerp(first[row], second[row], share), atol=1e-4)


def test_surfaces_and_sheets_are_no_finer_than_voxels_show() -> None:
    """Between neighbouring voxels of a crop of 64 a share changes by less than .8, also where a surface is steepest."""
    rng = np.random.default_rng(0)
    shares = share_of([draw_field(rng) for _ in range(60)], (64, 64, 64), CPU)
    assert float(shares.min()) >= 0
    assert float(shares.max()) <= 1
    assert max(float(shares.diff(dim=axis).abs().max()) for axis in (1, 2, 3)) < 0.8
    crossing = [bool((s.min() < 0.3) & (s.max() > 0.7)) for s in shares]
    assert np.mean(crossing) > 0.4


def test_dropped_frequencies_are_gone_from_truth_and_scan(applier: Applier) -> None:
    cut = sample_of(applier, replace(PLAIN, kept=(0.5, 1.0)))
    for image in (cut.high_res, cut.low_res):
        spectrum = np.abs(dct(image[0, 0].double().numpy(), axis=0, norm="ortho")).mean(axis=(1, 2))
        assert spectrum[IN_PLANE // 2 :].max() < 1e-5 * spectrum.max()
        along_the_other = np.abs(dct(image[0, 0].double().numpy(), axis=1, norm="ortho")).mean(axis=(0, 2))
        assert along_the_other[IN_PLANE // 2 :].max() > 1e-3 * along_the_other.max()


@pytest.mark.parametrize("kept", [0.3, 0.77, 1.0])
def test_truncation_is_a_projection_that_keeps_constants(kept: float) -> None:
    matrix = truncation(20, kept)
    assert np.allclose(matrix @ matrix, matrix)
    assert np.allclose(matrix, matrix.T)
    assert np.allclose(matrix @ np.ones(20), 1)
    assert np.trace(matrix) == pytest.approx(round(kept * 20))


def test_conditions_are_those_of_the_crop(applier: Applier) -> None:
    """Volume 1 has pixels of .8 mm and slices of 1.2 mm."""
    item = replace(PLAIN, volume=1, zoom=(2.0, 2.0, 1.5), blur=(0.8, 0.0), contrast=2)
    told = sample_of(applier, PLAIN, item, acquisition=AxisAcquisition(14, 4, 0.8)).conditions
    assert told.ratio.tolist() == [3.5, 3.5]
    assert told.spacing_ratio.tolist() == pytest.approx([3.5, 3.5 * (1.2 * 1.5) / (0.8 * 2.0)])
    assert told.thickness.tolist() == pytest.approx([0.8, 0.8])
    assert told.soft.tolist() == [0.0, 0.5]
    assert told.contrast.tolist() == [0, 2]
