"""MONAI's networks behind our interfaces: they fit, they stay plain, they train, and they are never tiled."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from medld.build import build_networks
from medld.checkpoint import load_model
from medld.config import AutoencoderConfig, ModelConfig, NetworkConfig, TrainConfig, parse_config, read_config
from medld.diffusion.denoise import Denoiser
from medld.diffusion.noise import Flow
from medld.errors import ConfigError, InputError
from medld.geometry import Grid, choose_target
from medld.nn.autoencoder import SAMPLES, RatioTable
from medld.nn.conditions import GEOMETRY_FEATURES, SCAN_FEATURES, TIME_FEATURES, time_features, time_of
from medld.nn.monai import Discriminator, MonaiAutoencoder, MonaiUNet
from medld.nn.networks import Networks
from medld.superres import Request, SuperResolver
from medld.training import run_training
from medld.volume import Volume

ROOT = Path(__file__).parents[3]
SIZES = ((7, 9, 5), (8, 4, 3), (12, 5, 1))
LATENT = 2

BFLOAT16_TOLERANCE = 0.05
"""Relative, in the mean: eight bits of mantissa through some ten convolutions."""

DEVICES = ("cpu", pytest.param("cuda", marks=pytest.mark.gpu))

TINY = {
    "one_step": None,
    "autoencoder": {"kind": "monai-kl", "width": 8, "encoder_blocks": 1, "decoder_blocks": 1},
    "denoiser": {"kind": "monai-unet", "channels": [8, 8, 8], "blocks": [1, 1, 1]},
}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def autoencoder() -> MonaiAutoencoder:
    """An autoencoder whose zero-initialised layers do something."""
    return stirred(MonaiAutoencoder(LATENT, 8, 1))


def unet() -> MonaiUNet:
    """A U-Net whose zero-initialised layers do something."""
    return stirred(MonaiUNet(2 * LATENT + 1, LATENT, (8, 8, 8), (1, 1, 1)))


def stirred(module: Any) -> Any:
    """`module` with a little noise on every weight."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return module


def features(t: float, batch: int = 1) -> Tensor:
    scan = torch.randn(batch, SCAN_FEATURES)
    return torch.cat([scan, time_features(torch.full((batch,), t))], dim=1)


def geometry(batch: int = 1) -> Tensor:
    return torch.randn(batch, GEOMETRY_FEATURES)


# --- interfaces


@pytest.mark.parametrize("size", SIZES)
def test_latents_stay_on_the_acquired_grid(size: tuple[int, int, int]) -> None:
    network = autoencoder()
    posterior = network.encode(torch.randn(2, SAMPLES, *size), geometry(2))
    latent = posterior.sample(torch.randn_like(posterior.mean))
    assert posterior.mean.shape == posterior.log_variance.shape == latent.shape == (2, LATENT, *size)
    decoded = network.decode(latent, torch.randn(2, 1, *size), geometry(2))
    assert decoded.shape == (2, SAMPLES, *size)
    assert latent.dtype == decoded.dtype == torch.float32


@pytest.mark.parametrize("size", SIZES)
def test_the_unet_keeps_any_size(size: tuple[int, int, int]) -> None:
    assert unet()(torch.randn(2, 2 * LATENT + 1, *size), features(0.5, 2)).shape == (2, LATENT, *size)


def test_the_decoder_sees_neither_scan_nor_geometry() -> None:
    network, latent = autoencoder(), torch.randn(1, LATENT, 5, 6, 4)
    first, second = (network.decode(latent, torch.randn(1, 1, 5, 6, 4), geometry()) for _ in range(2))
    assert torch.equal(first, second)


def test_the_unet_is_told_the_time_and_nothing_else() -> None:
    network, x = unet(), torch.randn(1, 2 * LATENT + 1, 8, 8, 4)
    assert torch.equal(network(x, features(0.5)), network(x, features(0.5)))
    assert not torch.allclose(network(x, features(0.5)), network(x, features(0.6)), rtol=1e-3)


def test_time_comes_back_from_its_features() -> None:
    t = torch.linspace(0, 1, 11)
    told = torch.cat([torch.randn(11, SCAN_FEATURES), time_features(t)], dim=1)
    assert told.shape[1] == SCAN_FEATURES + TIME_FEATURES
    torch.testing.assert_close(time_of(told), t, rtol=0, atol=1e-6)


def test_an_untrained_denoiser_answers_with_the_start_where_sampling_begins() -> None:
    backbone = MonaiUNet(2 * LATENT + 1, LATENT, (8, 8, 8), (1, 1, 1))
    denoiser, one = Denoiser(backbone, Flow(0.5), RatioTable(LATENT)), torch.ones(1)
    z_1, known = torch.randn(2, 1, LATENT, 6, 7, 5).unbind()
    assert torch.equal(denoiser(z_1, known, torch.randn(1, 1, 6, 7, 5), features(1.0), t=one, ratio=3 * one), known)


def test_an_untrained_decoder_adds_nothing_to_the_baseline() -> None:
    decoded = MonaiAutoencoder(LATENT, 8, 1).decode(
        torch.randn(1, LATENT, 6, 7, 5), torch.randn(1, 1, 6, 7, 5), geometry()
    )
    assert not decoded.any()


def test_a_sample_does_not_depend_on_its_batch_neighbours() -> None:
    network, x, told = unet(), torch.randn(3, 2 * LATENT + 1, 8, 8, 4), features(0.3, 3)
    torch.testing.assert_close(network(x, told)[1:2], network(x[1:2], told[1:2]), rtol=1e-4, atol=1e-5)


def test_nothing_is_dropped_in_training_or_in_use() -> None:
    network, x, told = unet(), torch.randn(1, 2 * LATENT + 1, 8, 8, 4), features(0.3)
    assert torch.equal(network.train()(x, told), network.eval()(x, told))


@pytest.mark.parametrize("device", DEVICES)
def test_float32_weights_serve_bfloat16_activations(device: str) -> None:
    network, kl = unet().to(device), autoencoder().to(device)
    x, told = torch.randn(1, 2 * LATENT + 1, 8, 8, 4, device=device), features(0.3).to(device)
    samples, where = torch.randn(1, SAMPLES, 8, 8, 4, device=device), geometry().to(device)

    def answers(dtype: torch.dtype) -> tuple[Tensor, ...]:
        mean = kl.encode(samples.to(dtype), where).mean
        return network(x.to(dtype), told), kl.decode(mean, x[:, :1].to(dtype), where)

    exact, rounded = answers(torch.float32), answers(torch.bfloat16)
    sum(answer.float().square().mean() for answer in rounded).backward()
    decoded = [*network.parameters(), *kl.parameters()]
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in decoded if p is not _log_variance(kl, p))
    cast = [module.to(torch.bfloat16) for module in (network, kl)]
    assert all(p.dtype == torch.bfloat16 for module in cast for p in module.parameters())
    for wanted, *got in zip(exact, rounded, answers(torch.bfloat16), strict=True):
        for answer in got:
            assert answer.dtype == torch.bfloat16
            assert (answer.float() - wanted).abs().mean() < BFLOAT16_TOLERANCE * wanted.abs().mean()


def _log_variance(network: MonaiAutoencoder, parameter: nn.Parameter) -> nn.Parameter | None:
    """`parameter` if only the posterior's width depends on it."""
    return next((p for p in network.encoder.log_variance.parameters() if p is parameter), None)


# --- the discriminator


def test_the_judge_is_told_by_least_squares() -> None:
    """Of its verdicts v: 1 for true, 0 for restored; the other side wants 1."""
    judge = Discriminator(4)
    restored, true = torch.rand(2, 2, 1, 9, 8, 7).unbind()
    said = [judge.network(image)[-1] for image in (restored, true)]
    torch.testing.assert_close(judge.fooled(restored), (said[0] - 1).square().mean())
    wrong = (said[0].square().mean() + (said[1] - 1).square().mean()) / 2
    torch.testing.assert_close(judge.mistaken(restored, true), wrong)


def test_each_side_of_the_game_leaves_the_others_weights_alone() -> None:
    judge, restored = Discriminator(4), torch.rand(1, 1, 9, 8, 7, requires_grad=True)
    judge.fooled(restored).backward()
    assert restored.grad is not None
    assert restored.grad.abs().max() > 0
    assert all(p.grad is None and p.requires_grad for p in judge.parameters())
    restored.grad = None
    judge.mistaken(restored, torch.rand(1, 1, 9, 8, 7)).backward()
    assert restored.grad is None
    assert all(p.grad is not None for p in judge.parameters())


@pytest.mark.parametrize("size", [(16, 16, 1), (16, 16, 5), (9, 4, 2)])
def test_the_judge_has_a_word_on_any_crop_and_keeps_no_statistics(size: tuple[int, int, int]) -> None:
    judge = Discriminator(4)
    assert not list(judge.buffers())
    assert torch.isfinite(judge.fooled(torch.rand(2, 1, *size)))


def test_the_judge_works_in_bfloat16() -> None:
    judge, restored, true = Discriminator(4), *torch.rand(2, 2, 1, 12, 12, 8).unbind()
    for exact, rounded in (
        (judge.fooled(restored), judge.fooled(restored.bfloat16())),
        (judge.mistaken(restored, true), judge.mistaken(restored.bfloat16(), true.bfloat16())),
    ):
        assert rounded.dtype == torch.float32
        torch.testing.assert_close(rounded, exact, rtol=BFLOAT16_TOLERANCE, atol=0)


# --- configs


def test_importing_build_does_not_load_monai() -> None:
    code = "import sys, medld.build; print('monai' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_config_without_a_kind_means_our_networks() -> None:
    networks = build_networks(ModelConfig(autoencoder=AutoencoderConfig(width=4), denoiser=NetworkConfig()))
    assert networks.tileable
    assert not any("monai" in type(module).__module__ for module in networks.denoiser.modules())


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"autoencoder": {"kind": "monai-kl"}}, "encoder_blocks = decoder_blocks"),
        ({"one_step": {"kind": "monai-unet"}}, "one_step of kind unet"),
        ({"denoiser": {"kind": "monai"}}, "denoiser.kind"),
    ],
)
def test_what_monai_cannot_be_is_refused(content: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse_config(content, ModelConfig, origin="a test")


def test_the_baseline_is_as_large_as_what_it_is_compared_with() -> None:
    plain, ours = (
        read_config(ROOT / "configs" / "diffusion" / name, TrainConfig) for name in ("monai_ldm.yaml", "mri_joint.yaml")
    )
    assert plain.data.sources == ours.data.sources
    first = read_config(ROOT / "configs" / "autoencoder" / "monai_kl.yaml", TrainConfig)
    assert first.model.autoencoder == plain.model.autoencoder
    assert first.data == plain.data
    for part in ("autoencoder", "denoiser"):
        counts = [sum(p.numel() for p in getattr(build_networks(c.model), part).parameters()) for c in (plain, ours)]
        assert 0.9 < counts[0] / counts[1] < 1.25, (part, counts)


# --- training and use


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three steps of each stage on a made-up volume; the folder of both runs."""
    folder = tmp_path_factory.mktemp("monai")
    axes = np.meshgrid(*(np.linspace(-1, 1, 28),) * 3, indexing="ij")
    values = 500 * np.exp(-2 * sum(a**2 for a in axes)) * (2 + np.sin(9 * axes[0] + 7 * axes[1] + 5 * axes[2]))
    (folder / "data").mkdir()
    nib.save(nib.Nifti1Image(values.astype(np.float32), np.eye(4)), folder / "data" / "sub-01_T1w.nii")
    lines = ["steps: 3", "batch: 2", "warm_up: 2", "log_every: 3", "device: cpu", "precision: bfloat16"]
    lines += [f"data: {{folders: ['{folder / 'data'}'], in_plane: 16, slices: 4}}"]
    for stage in ("autoencoder", "joint"):
        model = TINY if stage == "joint" else {**TINY, "denoiser": None}
        warm = [str(folder / "autoencoder" / "model")] if stage == "joint" else []
        head = [f"stage: {stage}", f"run_dir: '{folder / stage}'", f"model: {model}", f"warm_start: {warm}"]
        config = folder / f"{stage}.yaml"
        config.write_text("\n".join([*head, *lines]).replace("None", "null"))
        run_training(config, [])
    return folder


def test_the_joint_stage_leaves_the_encoder_alone(trained: Path) -> None:
    first, second = (load_model(trained / stage / "model").networks.autoencoder for stage in ("autoencoder", "joint"))
    assert first is not None
    assert second is not None
    before, after = first.state_dict(), second.state_dict()
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert {name for name in before if name.startswith(("encoder.", "latent_"))} <= same
    assert any(name.startswith("decoder.") for name in before.keys() - same)
    assert bool((first.latent_std != 1).all())


@pytest.fixture(scope="module")
def networks(trained: Path) -> Networks:
    """The trained networks, stirred so that three steps do not leave them silent."""
    networks = load_model(trained / "joint" / "model").networks
    torch.manual_seed(1)
    stirred(networks.denoiser)
    stirred(networks.autoencoder)
    return networks


def restore(networks: Networks, shape: tuple[int, int, int], **options: Any) -> np.ndarray:
    """A made-up scan of 3 mm slices, restored to 1 mm."""
    array = np.random.default_rng(0).random(shape).astype(np.float32) * 1000
    scan = Volume(array, Grid(shape, np.diag([1.0, 1.0, 3.0, 1.0])), "mr")
    request = Request(choose_target(scan.grid), **options)
    return SuperResolver(SimpleNamespace(networks=networks), device="cpu").restore(scan, request).volume.array


def test_restores_and_samples(networks: Networks) -> None:
    fidelity = [restore(networks, (13, 11, 5), seed=seed) for seed in (1, 2)]
    assert fidelity[0].shape == (13, 11, 15)
    assert np.array_equal(*fidelity)
    detail = [restore(networks, (13, 11, 5), mode="detail", steps=2, seed=seed) for seed in (1, 1, 2)]
    assert np.array_equal(detail[0], detail[1])
    assert not np.array_equal(detail[0], detail[2])
    assert not np.array_equal(detail[0], fidelity[0])


def test_is_never_tiled(networks: Networks, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not networks.tileable
    whole = restore(networks, (72, 8, 5))
    monkeypatch.setattr("medld.superres.resolver.UNTILED_VOXELS", 64)
    assert np.array_equal(restore(networks, (72, 8, 5)), whole)


def test_more_memory_than_allowed_is_refused_instead(networks: Networks) -> None:
    with pytest.raises(InputError, match="cannot work in tiles") as caught:
        restore(networks, (16, 16, 5), memory_gib=0.3)
    assert caught.value.code == "E_TOO_BIG"
    assert np.isfinite(restore(networks, (16, 16, 5), memory_gib=1.0)).all()
