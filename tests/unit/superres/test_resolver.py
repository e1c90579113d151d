"""SuperResolver with tiny networks: the promises around them, whatever they answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from medld.errors import ConfigError, RestorationError
from medld.geometry import Grid, choose_target
from medld.nn.networks import Networks
from medld.superres import Request, SuperResolver
from medld.volume import Volume

CONSISTENT = 1e-3
"""Of the range: the promise of `--consistency exact`."""

TILED = 1e-3
"""Of the range: the promise for tiles in float32."""

SINGLE = 1e-4
"""Of the range: float32 through networks, inverse and projection."""

BRAIN_FLOAT = 0.05
"""Of the answer: bfloat16 through some twenty layers with random weights."""

FORCES_TILES = 1e-3
"""GiB: room for some hundred voxels, so that tiles get their smallest size."""

Make = Callable[[Networks | None], SuperResolver]


def request_for(scan: Volume, **settings: object) -> Request:
    """The default target with some settings."""
    return Request(choose_target(scan.grid), **settings)  # type: ignore[arg-type]


def array_of(resolver: SuperResolver, scan: Volume, **settings: object) -> np.ndarray:
    """The restored array."""
    return resolver.restore(scan, request_for(scan, **settings)).volume.array


@pytest.fixture(params=["head", "noisy_head", "isotropic_head"])
def scan(request: pytest.FixtureRequest) -> Volume:
    """Thick slices, thick slices with noise, isotropic."""
    return request.getfixturevalue(request.param)  # type: ignore[no-any-return]


def test_the_networks_act(resolver: SuperResolver, make: Make, scan: Volume) -> None:
    difference = array_of(resolver, scan) - array_of(make(None), scan)
    assert np.abs(difference).max() > 0.1 * np.ptp(scan.array)


@pytest.mark.parametrize("settings", [{}, {"mode": "detail", "steps": 2}], ids=["fidelity", "detail"])
def test_exact_results_image_to_the_scan(resolver: SuperResolver, scan: Volume, settings: dict[str, object]) -> None:
    request = request_for(scan, consistency="exact", **settings)
    residual = resolver.residual(resolver.restore(scan, request).volume, scan, request)
    assert residual.largest <= CONSISTENT * np.ptp(scan.array)
    free = request_for(scan, consistency="off", **settings)
    assert resolver.residual(resolver.restore(scan, free).volume, scan, free).largest > CONSISTENT * np.ptp(scan.array)


@pytest.mark.parametrize("settings", [{}, {"mode": "detail", "steps": 2}], ids=["fidelity", "detail"])
def test_tiles_equal_the_whole(resolver: SuperResolver, wide_head: Volume, settings: dict[str, object]) -> None:
    shares: list[list[float]] = [[], []]
    whole, tiled = (
        resolver.restore(wide_head, request_for(wide_head, memory_gib=memory, **settings), shares[index].append)
        for index, memory in enumerate((None, FORCES_TILES))
    )
    assert len(shares[1]) >= 3 * len(shares[0])  # it was tiled
    assert whole.precision == tiled.precision == "float32"
    assert np.abs(whole.volume.array - tiled.volume.array).max() <= TILED * np.ptp(wide_head.array)


def test_the_same_seed_gives_the_same_bytes(make: Make, networks: Networks, scan: Volume) -> None:
    settings = {"mode": "detail", "steps": 2, "seed": 7}
    first, second = (array_of(make(networks), scan, **settings) for _ in range(2))
    assert first.tobytes() == second.tobytes()


def test_another_seed_gives_another_sample_and_the_same_fidelity(resolver: SuperResolver, scan: Volume) -> None:
    samples = [array_of(resolver, scan, mode="detail", steps=2, seed=seed) for seed in (1, 2)]
    assert np.abs(samples[0] - samples[1]).max() > 10 * SINGLE * np.ptp(scan.array)
    fidelity = [array_of(resolver, scan, seed=seed) for seed in (1, 2)]
    assert fidelity[0].tobytes() == fidelity[1].tobytes()


def test_a_restoration_does_not_depend_on_those_before(
    resolver: SuperResolver, make: Make, networks: Networks, scan: Volume, wide_head: Volume
) -> None:
    array_of(resolver, wide_head, mode="detail", steps=2)
    assert array_of(resolver, scan).tobytes() == array_of(make(networks), scan).tobytes()


def test_the_slider_is_linear(resolver: SuperResolver, head: Volume) -> None:
    ends = {x: array_of(resolver, head, realism=x, steps=2, consistency="exact") for x in (0.0, 0.25, 1.0)}
    expected = 0.75 * ends[0.0] + 0.25 * ends[1.0]
    assert np.abs(ends[0.25] - expected).max() <= SINGLE * np.ptp(ends[1.0])
    assert np.abs(ends[0.0] - ends[1.0]).max() > 100 * SINGLE * np.ptp(ends[1.0])


def test_realism_zero_is_fidelity(resolver: SuperResolver, head: Volume) -> None:
    assert array_of(resolver, head, mode="detail", realism=0.0).tobytes() == array_of(resolver, head).tobytes()


def test_presets_come_from_the_model(make: Make, networks: Networks, head: Volume) -> None:
    own = make(replace(networks, presets={"fidelity": (0.0, 1), "balanced": (0.4, 3), "detail": (0.9, 2)}))
    result = own.restore(head, request_for(head, mode="balanced"))
    assert result.method == "realism 0.4, 3 multistep steps"
    expected = array_of(own, head, realism=0.4, steps=3)
    assert result.volume.array.tobytes() == expected.tobytes()


def test_the_spread_is_positive_and_the_seeds(resolver: SuperResolver, head: Volume) -> None:
    request = request_for(head, mode="detail", steps=2, samples=3)
    result = resolver.restore(head, request)
    assert result.spread is not None
    assert result.spread.grid.is_close(request.target.grid, 0)
    assert result.spread.array.dtype == np.float32
    assert result.mean is not None
    assert np.array_equal(result.spread.array > 0, result.mean.array > 0)  # in air that is zero no sample differs
    again = resolver.restore(head, replace(request, seed=1)).spread
    assert again is not None
    assert again.array.mean() == pytest.approx(result.spread.array.mean(), rel=0.3)  # three samples each
    assert not np.array_equal(again.array, result.spread.array)


@pytest.mark.parametrize("consistency", ["auto", "exact"])
def test_mean_and_spread_are_those_of_samples_made_alone(
    resolver: SuperResolver, head: Volume, isotropic_head: Volume, consistency: str
) -> None:
    settings = {"steps": 2, "consistency": consistency}
    for scan in (head, isotropic_head):
        request = request_for(scan, mode="detail", samples=3, seed=7, **settings)
        alone = np.stack([array_of(resolver, scan, realism=1.0, seed=7 + d, **settings) for d in range(3)])
        result = resolver.restore(scan, request)
        assert result.mean is not None
        assert result.spread is not None
        rounding = 10 * SINGLE * np.ptp(scan.array)
        assert np.allclose(result.mean.array, alone.mean(0), rtol=0, atol=rounding)
        assert np.allclose(result.spread.array, alone.std(0, ddof=1), rtol=0, atol=rounding)
        again = resolver.restore(scan, request)
        assert again.mean is not None
        assert again.mean.array.tobytes() == result.mean.array.tobytes()


def test_samples_are_the_same_in_every_mode(make: Make, networks: Networks, head: Volume) -> None:
    """Where a mode stands on the way to a sample says nothing of the samples, nor of the steps that they take."""
    own = make(replace(networks, presets={"fidelity": (0.0, 1), "balanced": (0.4, 3), "detail": (0.9, 3)}))
    found = [own.restore(head, request_for(head, mode=mode, samples=2)) for mode in ("fidelity", "balanced", "detail")]
    assert len({result.spread.array.tobytes() for result in found if result.spread is not None}) == 1
    assert len({result.volume.array.tobytes() for result in found}) == 3
    asked = own.restore(head, request_for(head, realism=0.4))
    assert asked.method == "realism 0.4, 3 multistep steps"


def test_the_spread_scales_with_the_scan(resolver: SuperResolver, head: Volume) -> None:
    settings = {"mode": "detail", "steps": 1, "samples": 2}
    quiet, loud = (
        resolver.restore(head.with_array(head.array * gain), request_for(head, **settings)).spread
        for gain in (np.float32(1), np.float32(1024))
    )
    assert quiet is not None
    assert loud is not None
    assert np.allclose(loud.array, quiet.array * 1024, rtol=1e-3, atol=1024 * SINGLE * np.ptp(head.array))


def test_one_sample_has_no_spread(resolver: SuperResolver, head: Volume) -> None:
    assert resolver.restore(head, request_for(head, mode="detail", steps=1)).spread is None


def test_ct_gets_the_baseline_and_is_told(resolver: SuperResolver, make: Make, head: Volume) -> None:
    ct = replace(head, array=head.array - 1000, modality="ct", contrast="unknown")
    result = resolver.restore(ct, request_for(ct, mode="detail", samples=3))
    assert result.method == "baseline B"
    assert result.precision == "float32"
    assert result.spread is None
    assert "not trained for CT" in result.warnings[0]
    assert result.volume.array.tobytes() == array_of(make(None), ct).tobytes()


def test_a_model_that_covers_ct_is_used(make: Make, networks: Networks, head: Volume) -> None:
    ct = replace(head, array=head.array - 1000, modality="ct")
    result = make(replace(networks, modalities=("mr", "ct"))).restore(ct, request_for(ct))
    assert result.method == "fidelity (one-step)"
    assert result.warnings == ()


def test_without_a_diffusion_part_detail_is_the_posterior_mean(make: Make, networks: Networks, head: Volume) -> None:
    part = make(Networks(one_step=networks.one_step))
    result = part.restore(head, request_for(head, mode="detail", samples=2))
    assert result.spread is None
    assert any("no diffusion part" in warning for warning in result.warnings)
    assert result.volume.array.tobytes() == array_of(part, head).tobytes()


def test_the_latent_form_answers_without_a_seed(
    make: Make, networks: Networks, resolver: SuperResolver, head: Volume
) -> None:
    latent = make(replace(networks, fidelity="latent"))
    alone = make(replace(networks, one_step=None))
    result = latent.restore(head, request_for(head, seed=1))
    assert result.method == alone.restore(head, request_for(head)).method == "fidelity (latent)"
    assert result.volume.array.tobytes() == array_of(alone, head, seed=2).tobytes()
    assert not np.allclose(result.volume.array, array_of(resolver, head), atol=1)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_an_error(make: Make, networks: Networks, head: Volume, value: float) -> None:
    broken = networks.to(torch.device("cpu"), torch.float32)
    assert broken.one_step is not None
    broken.one_step.head.bias.data.fill_(value)
    with pytest.raises(RestorationError, match=r"NaN or Inf.*nothing was written") as caught:
        make(broken).restore(head, request_for(head))
    assert caught.value.code == "E_NUMERIC"


def test_no_value_turns_negative_and_empty_air_stays_empty(resolver: SuperResolver, scan: Volume) -> None:
    empty = np.ones(scan.grid.shape, bool)
    empty[2:, :, :] = False
    values = np.where(empty, 0, scan.array)
    scan = scan.with_array(values)
    fine = array_of(resolver, scan, mode="detail", steps=1)
    assert fine.min() == 0
    rows = 2 * fine.shape[0] // scan.grid.shape[0] - 1
    assert not fine[: rows - 1].any()
    assert (fine > 0).mean() > 0.3


def test_a_scan_with_negative_values_may_give_some(resolver: SuperResolver, head: Volume) -> None:
    assert array_of(resolver, head.with_array(head.array - 300)).min() < -300


def test_exact_clips_nothing(resolver: SuperResolver, head: Volume) -> None:
    assert array_of(resolver, head, consistency="exact").min() < 0


def test_noise_is_reported_in_the_scans_units(make: Make, noisy_head: Volume, head: Volume) -> None:
    result = make(None).restore(noisy_head, request_for(noisy_head))
    assert result.noise == pytest.approx(30, rel=0.25)  # some twenty windows
    assert make(None).restore(head, request_for(head)).noise == 0
    louder = noisy_head.with_array(noisy_head.array * 8)
    assert make(None).restore(louder, request_for(louder)).noise == pytest.approx(8 * result.noise, rel=1e-4)


def test_noise_is_not_forced_back_into_the_result(make: Make, noisy_head: Volume) -> None:
    baseline = make(None)
    residuals = {}
    for consistency in ("exact", "auto", "off"):
        request = request_for(noisy_head, consistency=consistency)
        result = baseline.restore(noisy_head, request)
        residuals[consistency] = baseline.residual(result.volume, noisy_head, request, result.noise)
    assert residuals["exact"].rms < residuals["auto"].rms < residuals["off"].rms
    assert residuals["auto"].relative_to_noise is not None
    assert residuals["auto"].relative_to_noise < 1  # what is left is less than noise explains


def test_the_residual_is_told_in_every_unit(make: Make, head: Volume) -> None:
    request = request_for(head, consistency="exact")
    fine = make(None).restore(head, request).volume
    off = fine.with_array(fine.array + 7)
    residual = make(None).residual(off, head, request, noise=3.5)
    assert residual.rms == pytest.approx(7, rel=1e-3)
    assert residual.relative_to_noise == pytest.approx(residual.rms / 3.5)
    assert residual.relative_to_range == pytest.approx(residual.rms / np.ptp(head.array))
    assert residual.largest >= residual.rms
    assert make(None).residual(off, head, request).relative_to_noise is None
    noises = {3.5: 1, 7.5: 0, 0.0: 0}  # a warning where the noise does not explain it
    for noise, warnings in noises.items():
        assert len(make(None).residual(off, head, request, noise).warnings) == warnings


def test_residuals_leave_out_the_end_slices(make: Make, head: Volume) -> None:
    request, error = request_for(head, consistency="exact"), 1e6
    fine = make(None).restore(head, request).volume
    spoilt = fine.array.copy()
    spoilt[..., :4] = spoilt[..., -4:] = error
    tail = 1e-3  # of a Gaussian one and a half times its width away
    assert make(None).residual(fine.with_array(spoilt), head, request).largest < tail * error
    spoilt[..., 18] = error
    assert make(None).residual(fine.with_array(spoilt), head, request).largest > 0.1 * error


def test_progress_rises_to_one(resolver: SuperResolver, make: Make, scan: Volume) -> None:
    for one, settings in (
        (resolver, {}),
        (resolver, {"mode": "detail", "steps": 2, "samples": 2, "memory_gib": FORCES_TILES}),
        (make(None), {}),
    ):
        shares: list[float] = []
        one.restore(scan, request_for(scan, **settings), shares.append)
        assert shares == sorted(shares)
        assert shares[0] > 0
        assert shares[-1] == pytest.approx(1)


def test_time_is_told_per_stage(resolver: SuperResolver, head: Volume) -> None:
    timings = resolver.restore(head, request_for(head, mode="detail", steps=1)).timings
    stages = {"intensity", "noise", "baseline", "one-step", "encode", "denoise", "decode", "projection"}
    assert set(timings) == stages
    assert min(timings.values()) >= 0


def test_what_is_known_of_the_scan_is_kept(resolver: SuperResolver, head: Volume) -> None:
    known = replace(head, provenance={"file": "x.nii"})
    fine = resolver.restore(known, request_for(known)).volume
    assert (fine.modality, fine.contrast, fine.provenance) == ("mr", "T1w", {"file": "x.nii"})


def test_networks_are_told_contrast_and_thickness(resolver: SuperResolver, head: Volume) -> None:
    plain = array_of(resolver, head, consistency="off")
    assert not np.array_equal(array_of(resolver, replace(head, contrast="T2w"), consistency="off"), plain)
    assert not np.array_equal(array_of(resolver, head, consistency="off", thickness=(None, None, 3.0)), plain)


@pytest.mark.parametrize(
    ("features", "precision"), [("sse2", "float32"), ("sse2 avx512_bf16", "bfloat16"), ("amx_bf16 sse2", "bfloat16")]
)
def test_the_processors_features_choose_the_precision(
    pretend: Callable[[str], None], networks: Networks, head: Volume, features: str, precision: str
) -> None:
    pretend(features)
    resolver = SuperResolver(SimpleNamespace(networks=networks), device="cpu")
    assert resolver.device == "cpu"
    assert resolver.precision == precision
    assert resolver.restore(head, request_for(head)).precision == precision


def test_bfloat16_agrees_with_float32(
    pretend: Callable[[str], None], resolver: SuperResolver, networks: Networks, head: Volume
) -> None:
    expected = array_of(resolver, head, consistency="exact")
    pretend("avx512_bf16")
    rough = array_of(SuperResolver(SimpleNamespace(networks=networks), device="cpu"), head, consistency="exact")
    error = np.sqrt(np.mean((rough - expected) ** 2)) / expected.std()
    assert 0 < error < BRAIN_FLOAT


def test_memory_is_told_before_the_start(resolver: SuperResolver, make: Make, head: Volume, wide_head: Volume) -> None:
    small, large = (resolver.estimate_memory_gib(v.grid, request_for(v)) for v in (head, wide_head))
    assert 0 < small < large
    assert make(None).estimate_memory_gib(head.grid, request_for(head)) < small
    detail = resolver.estimate_memory_gib(head.grid, request_for(head, mode="detail"))
    assert small < detail < resolver.estimate_memory_gib(head.grid, request_for(head, mode="detail", samples=2))
    grid = Grid((156, 156, 40), np.diag([1.0, 1.0, 4.0, 1.0]))
    whole, rolled = (Request(choose_target(grid), memory_gib=memory) for memory in (None, 0.5))
    assert resolver.estimate_memory_gib(grid, rolled) < resolver.estimate_memory_gib(grid, whole)


def test_memory_grows_no_faster_than_voxels(resolver: SuperResolver) -> None:
    needs = []
    for size in (96, 192, 384, 768):
        grid = Grid((size, size, size // 4), np.diag([1.0, 1.0, 4.0, 1.0]))
        needs.append(resolver.estimate_memory_gib(grid, Request(choose_target(grid))))
    assert all(larger <= 8 * smaller for smaller, larger in pairwise(needs))
    assert needs[2] < 4  # 57 million voxels


@pytest.mark.parametrize("settings", [{}, {"mode": "detail", "steps": 2}], ids=["fidelity", "detail"])
def test_rolled_networks_equal_the_whole(
    resolver: SuperResolver, scan: Volume, settings: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = array_of(resolver, scan, **settings)
    for limit in ("superres.resolver.UNTILED_VOXELS", "superres.projection.STRIP_VOXELS", "intensity.STRIP_VOXELS"):
        monkeypatch.setattr(f"medld.{limit}", 64)
    assert np.abs(array_of(resolver, scan, **settings) - whole).max() <= TILED * np.ptp(scan.array)


def test_flips_that_are_no_group_are_refused(make: Make, head: Volume) -> None:
    with pytest.raises(ConfigError, match="got 3"):
        make(None).restore(head, request_for(head, flips=3))
