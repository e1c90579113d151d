"""What the ablation table of ablation.py consists of: its rows, its file, and its look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from csv_lines import CsvLines
from target_grid import TargetGrid
from train_mri import CONFIGS

from medld.training.stages import Stage

RATIOS = (2.0, 4.0, 6.0)

Kind = Literal["one-step", "long", "autoencoder", "latent", "sample"]


@dataclass(frozen=True)
class Row:
    """A line of the table.

    `kind` says what is trained and for how long: "long" is a one-step network for the time of autoencoder and latent
    path together, "sample" trains nothing. `after` names the row whose model it begins with or samples, in `steps`
    steps. `stage` is an own one in place of the package's.
    """

    name: str
    about: str
    config: str
    changes: tuple[str, ...] = ()
    kind: Kind = "one-step"
    after: str = ""
    steps: int = 1
    stage: type[Stage] | None = None


ONE_STEP, AUTOENCODER = (str(CONFIGS[stage].relative_to("configs")) for stage in ("one-step", "autoencoder"))
LATENT = "diffusion/latent_path.yaml"
PLAIN = ("train_decoder=false", "image_loss_at=none", "latent_weight=1")
FROM_NOISE = ("model.start=noise", "model.kappa=1")
ONE_CHANNEL, FOUR_CHANNELS = (f"model.autoencoder.latent_channels={c}" for c in (1, 4))


def one_step(name: str, about: str, *changes: str, config: str = ONE_STEP, **more: Any) -> Row:
    """A one-step network."""
    return Row(name, about, config, changes, **more)


def autoencoder(name: str, about: str, *changes: str, config: str = AUTOENCODER) -> Row:
    """An autoencoder, which latent rows share."""
    return Row(name, about, config, changes, "autoencoder")


def latent(name: str, about: str, *changes: str, after: str = "autoencoder", config: str = LATENT) -> Row:
    """A denoiser, and the decoder with it, on an autoencoder's latents."""
    return Row(name, about, config, changes, "latent", after)


def monai(name: str, about: str, *changes: str) -> Row:
    """MONAI's U-Net on the latents of its autoencoder; as `latent`, it does without a schedule of the ratios."""
    at_once = ("data.first_share=0.0", "data.opening_share=0.0")
    return latent(name, about, *changes, *at_once, after="autoencoder-monai", config="diffusion/monai_ldm.yaml")


def sample(name: str, about: str, steps: int, config: str = LATENT, after: str = "latent") -> Row:
    """A sample, not the mean, of a latent row; the sampler is the config's."""
    return Row(name, about, config, (), "sample", after, steps)


TRAINED = (
    one_step("one-step", "the one-step form on the acquired grid"),
    one_step("target-grid", "one-step on the target grid, batches of 4", "batch=4", stage=TargetGrid),
    one_step("norm-off", "one-step without the norm per voxel", "model.one_step.norm=none"),
    one_step("norm-off-slow", "the same at learning rate 2e-4", "model.one_step.norm=none", "learning_rate=0.0002"),
    one_step("attention", "one-step with attention in windows", config="superres/attention.yaml"),
    one_step("dit", "one-step, a transformer for the U-Net", config="superres/dit.yaml"),
    one_step("dropout", "one-step with dropout .1", config="superres/dropout.yaml"),
    one_step("muon", "one-step, hidden kernels by Muon", "muon_rate=5.0e-4"),
    one_step(
        "one-step-long", "one-step, time and size of `latent`", "model.one_step.channels=[64, 96, 160]", kind="long"
    ),
    autoencoder("autoencoder", "two latent channels, KL weight 3e-6"),
    autoencoder("autoencoder-1", "one latent channel", ONE_CHANNEL),
    autoencoder("autoencoder-4", "four latent channels", FOUR_CHANNELS),
    autoencoder("autoencoder-kl-low", "KL weight 3e-8", "kl_weight=3.0e-8"),
    autoencoder("autoencoder-kl-high", "KL weight 3e-4", "kl_weight=3.0e-4"),
    autoencoder("autoencoder-ssim", "SSIM loss", config="autoencoder/ssim.yaml"),
    autoencoder("autoencoder-adversarial", "adversarial loss", config="autoencoder/adversarial.yaml"),
    autoencoder("autoencoder-denoising", "noisy latents", config="autoencoder/denoising.yaml"),
    autoencoder("autoencoder-monai", "MONAI's AutoencoderKL", config="autoencoder/monai_kl.yaml"),
    latent("latent", "the latent path: joint stage, image loss at t = 1, from the baseline's latent"),
    latent("channels-1", "latent, one channel", ONE_CHANNEL, after="autoencoder-1"),
    latent("channels-4", "latent, four channels", FOUR_CHANNELS, after="autoencoder-4"),
    latent("kl-low", "latent, KL weight 3e-8", after="autoencoder-kl-low"),
    latent("kl-high", "latent, KL weight 3e-4", after="autoencoder-kl-high"),
    latent("joint-off", "latent, no joint stage: decoder frozen, latent loss alone", *PLAIN),
    latent("decoder-frozen", "latent, decoder frozen, image loss through it", "train_decoder=false"),
    latent("image-loss-everywhere", "latent, image loss at every t", "image_loss_at=all"),
    latent("noise-start", "latent, from pure noise", *FROM_NOISE),
    latent("latent-attention", "latent with attention in windows", "model.denoiser.attention=true"),
    latent("latent-dit", "latent, a transformer for the U-Net", "model.denoiser.kind=dit"),
    latent("ssim", "latent, autoencoder with SSIM loss", after="autoencoder-ssim"),
    latent("adversarial", "latent, autoencoder with adversarial loss", after="autoencoder-adversarial"),
    latent("denoising", "latent, autoencoder trained on noisy latents", after="autoencoder-denoising"),
    monai("monai", "MONAI's two networks, trained as `latent`", "image_loss_at=one", "relative_loss=true"),
    monai("monai-plain", "MONAI's two networks used plainly: from pure noise, latent loss alone", *FROM_NOISE, *PLAIN),
)
SAMPLED = (
    *(sample(f"steps-{k}", f"sample of `latent`, K = {k}", k) for k in (1, 2, 4, 8)),
    *(
        sample(name.replace("_", "-"), f"sample of `latent`, K = 8, {name}", 8, f"diffusion/{name}.yaml")
        for name in ("euler", "heun", "ddim", "ddpm", "predictor_corrector")
    ),
    sample("predictor-corrector-32", "the same, K = 32", 32, "diffusion/predictor_corrector.yaml"),
    *(
        sample(f"{row.name}-sample", f"sample of `{row.name}`, K = 8", 8, row.config, row.name)
        for row in TRAINED
        if row.kind == "latent" and row.name != "latent"
    ),
)
ROWS = {row.name: row for row in (*TRAINED, *SAMPLED)}


FIGURES = tuple(f"{name}_{ratio:g}x" for name in ("gain", "detail") for ratio in RATIOS)
FACTS = ("device", "parameters", "steps", "steps_per_second", "data_share", "seconds", "training_gain")
FIELDS = ("row", "seed", *FACTS, *FIGURES, "note", "config", "changes")


class Results(CsvLines):
    """The rows that are done, one of each name and seed."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, FIELDS)

    def has(self, row: Row, seed: int) -> bool:
        """Whether a row is there."""
        return any(_key(line) == (row.name, str(seed)) for line in self.lines)

    def add(self, line: Mapping[str, Any]) -> None:
        """Write a line, in the place of an older one of the same row and seed."""
        own = (str(line["row"]), str(line["seed"]))
        self.keep([*(old for old in self.lines if _key(old) != own), line])


def _key(line: Mapping[str, str]) -> tuple[str, str]:
    return line["row"], line["seed"]


def as_markdown(lines: Sequence[Mapping[str, str]]) -> str:
    """Means over seeds, in the order of the rows; of several seeds half the range behind."""
    training = ("M parameters", "steps", "steps/s", "waiting, %", "s")
    head = ("row", "what it is", *training, *(f"{ratio:g}x" for ratio in RATIOS), "detail at 4x")
    table = [f"| {' | '.join(head)} |", "|" + " --- |" * len(head)]
    for row in ROWS.values():
        own = [line for line in lines if line["row"] == row.name]
        if not own:
            continue
        note = next((line["note"] for line in own if line["note"]), "")
        cells = [
            _mean(own, "parameters", ".2f", 1e-6),
            _mean(own, "steps", ".0f"),
            _mean(own, "steps_per_second", ".1f"),
            _mean(own, "data_share", ".1f", 100),
            _mean(own, "seconds", ".0f"),
            *(_mean(own, f"gain_{ratio:g}x", "+.2f") for ratio in RATIOS),
            _mean(own, "detail_4x", ".2f"),
        ]
        table.append(f"| {' | '.join((row.name, note or row.about, *cells))} |")
    return "\n".join(table)


def _mean(lines: Sequence[Mapping[str, str]], name: str, form: str, unit: float = 1.0) -> str:
    values = [unit * float(line[name]) for line in lines if line[name]]
    if not values:
        return ""
    spread = (max(values) - min(values)) / 2
    return f"{np.mean(values):{form}}" + (f" ± {spread:{form.lstrip('+')}}" if len(values) > 1 else "")
