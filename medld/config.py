"""The schema of every config file, and its strict reader.

A config is frozen, complete by itself and holds no code: defaults live here, a YAML says what differs,
`build.py` turns names into classes. This module imports no torch, so that `--help` stays fast.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from medld.errors import ConfigError


class Schema(BaseModel):
    """Base of all configs: frozen, no unknown keys, no infinities."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)


Size = Annotated[int, Field(ge=1)]


class TransformerConfig(Schema):
    """A transformer: channels of a token, blocks, voxels of a patch and patches of a window along each axis."""

    width: int = Field(256, ge=8, multiple_of=8)
    depth: int = Field(7, ge=1)
    patch: tuple[Size, Size, Size] = (4, 4, 2)
    window: tuple[Size, Size, Size] = (8, 8, 4)


class NetworkConfig(Schema):
    """A network on the acquired grid (design, section 3): a U-Net, MONAI's, or a diffusion transformer.

    MONAI's U-Net is told nothing but the time, as wide as it wants. `channels`, `blocks` and `attention` are a U-Net's,
    `transformer` is a dit's. `dropout` acts in training, before the last layer of every block; `norm: none` leaves out
    the norm of our U-Net's blocks, which all that is known speaks against.
    """

    kind: Literal["unet", "monai-unet", "dit"] = "unet"
    channels: tuple[int, int, int] = (64, 96, 144)
    blocks: tuple[int, int, int] = (2, 2, 3)
    embedding: int = Field(128, ge=8)
    attention: bool = False
    dropout: float = Field(0.0, ge=0, lt=1)
    norm: Literal["voxel", "none"] = "voxel"
    transformer: TransformerConfig = TransformerConfig()

    @model_validator(mode="after")
    def _check_attention(self) -> NetworkConfig:
        if self.attention and self.kind != "unet":
            raise ValueError(f"expected attention of a network of kind unet alone, got it of a {self.kind}")
        return self

    @model_validator(mode="after")
    def _check_blocks(self) -> NetworkConfig:
        if self.norm == "none" and self.kind != "unet":
            raise ValueError(f"expected norm: none of a network of kind unet alone, got it of a {self.kind}")
        if self.dropout and self.kind == "monai-unet":
            raise ValueError("expected dropout of kind unet or dit: MONAI's blocks have none")
        return self


class AutoencoderConfig(Schema):
    """The autoencoder of what a scan did not measure.

    MONAI's has no embedding and no dropout, and as many blocks on either side.
    """

    kind: Literal["acquired-grid", "monai-kl"] = "acquired-grid"
    latent_channels: int = Field(2, ge=1, le=8)
    width: int = Field(48, ge=4)
    encoder_blocks: int = Field(2, ge=1)
    decoder_blocks: int = Field(3, ge=1)
    embedding: int = Field(128, ge=8)
    dropout: float = Field(0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _check_blocks(self) -> AutoencoderConfig:
        if self.kind == "monai-kl" and self.encoder_blocks != self.decoder_blocks:
            raise ValueError(
                f"expected encoder_blocks = decoder_blocks for monai-kl, "
                f"got {self.encoder_blocks} and {self.decoder_blocks}"
            )
        if self.kind == "monai-kl" and self.dropout:
            raise ValueError("expected dropout of kind acquired-grid: MONAI's blocks have none")
        return self


class ModelConfig(Schema):
    """What a model folder holds; a part that is None is not there."""

    profile_map: Literal["inverse", "triangle"] = "inverse"
    one_step: NetworkConfig | None = NetworkConfig()
    autoencoder: AutoencoderConfig | None = None
    denoiser: NetworkConfig | None = None
    kappa: float = Field(0.5, gt=0)
    fidelity: Literal["one-step", "latent"] = "one-step"
    start: Literal["baseline", "mean", "noise"] = "baseline"
    sampler: Literal["multistep", "euler", "heun", "ddim", "ddpm", "predictor-corrector"] = "multistep"
    eta: float = Field(0.0, ge=0, le=1)
    modalities: tuple[Literal["mr", "ct"], ...] = ("mr",)
    balanced: tuple[float, int] = (0.35, 8)
    detail: tuple[float, int] = (0.8, 8)

    @model_validator(mode="after")
    def _latents_for_the_denoiser(self) -> ModelConfig:
        if self.denoiser is not None and self.autoencoder is None:
            raise ValueError("a denoiser works on latents: give model.autoencoder as well, or leave denoiser out")
        return self

    @model_validator(mode="after")
    def _check_one_step(self) -> ModelConfig:
        if self.one_step is not None and self.one_step.kind == "monai-unet":
            raise ValueError("expected a one_step of kind unet: monai-unet knows the time alone, and one step has none")
        return self

    @model_validator(mode="after")
    def _check_flow(self) -> ModelConfig:
        if self.start == "noise" and self.kappa != 1:
            raise ValueError(f"expected kappa 1 with start: noise, as latents have deviation 1, got {self.kappa:g}")
        if self.eta > 0 and self.sampler != "ddim":
            raise ValueError(f"expected eta with sampler: ddim alone, got it with {self.sampler}")
        return self


class SourceConfig(Schema):
    """Files of the training folders (shell pattern on the name), their weight and the axes that may be degraded."""

    files: str
    weight: float = Field(1.0, gt=0)
    axes: tuple[int, ...] = (0, 1, 2)


class DataConfig(Schema):
    """How training samples are drawn (design, section 5); `*_share` of the crops get what is named.

    `blend_share`: another crop is laid over a crop (`medld.training.blend`), which makes many heads out of few.
    """

    folders: tuple[Path, ...] = (Path("../shared/data/train"),)
    sources: tuple[SourceConfig, ...] = (SourceConfig(files="*"),)
    in_plane: int = Field(64, ge=16)
    slices: int = Field(16, ge=4)
    ratio_low: float = Field(1.25, gt=1)
    ratio_high: float = Field(8.0, le=8)
    first_ratio: float = Field(4.0, gt=1)
    first_share: float = Field(0.1, ge=0, le=1)
    opening_share: float = Field(0.2, ge=0, le=1)
    integer_share: float = Field(0.4, ge=0, le=1)
    noise_share: float = Field(0.3, ge=0, le=1)
    noise_high: float = Field(0.04, ge=0)
    soft_share: float = Field(0.25, ge=0, le=1)
    zoom_out_share: float = Field(0.45, ge=0, le=1)
    bias_share: float = Field(0.2, ge=0, le=1)
    truncated_share: float = Field(0.1, ge=0, le=1)
    blend_share: float = Field(0.0, ge=0, le=1)
    degrade: Literal["random", "gaussian"] = "random"


class TrainConfig(Schema):
    """Everything a training run needs.

    `batch` is that of all processes together, in `accumulate` parts one after another; neither changes the result.
    Of a restoration's image loss, errors below `loss_width` (of the intensity range) count by their squares and those
    above by their size, and `relative_loss` counts it in shares of B's error; a joint stage has that loss at all
    times of the flow, at t = 1 alone, or not at all (`image_loss_at`).
    `muon_rate` is the learning rate of hidden kernels where Muon moves them, 0 leaves them to AdamW with all the rest.
    `trackers` are told figures beside `log.jsonl`; None is TensorBoard where it is installed. Validation is on whole
    volumes, or on their centres of `validation_crop` voxels along each axis; every `validate_every` steps (0 = only at
    the end), and `patience` of those in a row without a better mean gain end the run (0 = never).
    """

    stage: Literal["one-step", "autoencoder", "joint"]
    run_dir: Path
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    warm_start: tuple[Path, ...] = ()
    steps: int = Field(2000, ge=1)
    batch: int = Field(12, ge=1)
    accumulate: int = Field(1, ge=1)
    learning_rate: float = Field(5e-4, gt=0)
    betas: tuple[float, float] = (0.9, 0.99)
    muon_rate: float = Field(0.0, ge=0)
    weight_decay: float = Field(1e-4, ge=0)
    warm_up: int = Field(300, ge=0)
    final_share: float = Field(0.02, ge=0, le=1)
    clip: float = Field(0.3, gt=0)
    ema: float = Field(0.998, gt=0, lt=1)
    kl_weight: float = Field(3e-6, ge=0)
    ssim_weight: float = Field(0.0, ge=0)
    adversarial_weight: float = Field(0.0, ge=0)
    adversarial_from: float = Field(0.5, ge=0, lt=1)
    latent_noise: float = Field(0.0, ge=0)
    latent_weight: float = Field(0.05, ge=0)
    image_loss_at: Literal["all", "one", "none"] = "all"
    end_share: float = Field(0.5, gt=0, le=1)
    loss_width: float = Field(0.03, gt=0)
    relative_loss: bool = False
    train_encoder: bool = True
    train_decoder: bool = True
    seed: int = 0
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    device: str = "auto"
    checkpoint_minutes: float = Field(5.0, gt=0)
    log_every: int = Field(50, ge=1)
    trackers: tuple[Literal["tensorboard", "mlflow", "wandb"], ...] | None = None
    validation: tuple[Path, ...] = ()
    validation_ratios: tuple[Annotated[float, Field(ge=1.25, le=8)], ...] = Field((2.0, 4.0, 6.0), min_length=1)
    validation_crop: int | None = Field(None, ge=32)
    validate_every: int = Field(0, ge=0)
    patience: int = Field(0, ge=0)
    compile: bool = False

    @model_validator(mode="after")
    def _networks_of_the_stage(self) -> TrainConfig:
        needed = {"one-step": ("one_step",), "autoencoder": ("autoencoder",), "joint": ("autoencoder", "denoiser")}
        missing = [name for name in needed[self.stage] if getattr(self.model, name) is None]
        if missing:
            raise ValueError(
                f"stage {self.stage} trains model.{' and model.'.join(missing)}, which the config leaves out"
            )
        return self

    @model_validator(mode="after")
    def _check_loop(self) -> TrainConfig:
        if self.batch % self.accumulate:
            raise ValueError(f"expected accumulate to divide batch, got {self.accumulate} and {self.batch}")
        if self.patience and not self.validate_every:
            raise ValueError("patience counts validations in between: give validate_every as well")
        if self.validate_every and self.stage == "autoencoder":
            raise ValueError("an autoencoder restores nothing that could be validated: leave validate_every 0")
        return self

    @model_validator(mode="after")
    def _check_the_denoiser_learns(self) -> TrainConfig:
        if self.image_loss_at == "none" and self.latent_weight == 0:
            raise ValueError("a denoiser learns from latent_weight or image_loss_at, got 0 and none: give one of them")
        return self

    @model_validator(mode="after")
    def _losses_of_the_autoencoder(self) -> TrainConfig:
        names = ("ssim_weight", "adversarial_weight", "latent_noise")
        given = [name for name in names if getattr(self, name) > 0]
        if given and self.stage != "autoencoder":
            raise ValueError(f"expected {' and '.join(given)} in the autoencoder stage alone, got stage {self.stage}")
        return self


T = TypeVar("T", bound=Schema)


class _UniqueKeys(yaml.SafeLoader):
    """PyYAML keeps the last of two equal keys in silence; a config that says a thing twice is a mistake."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
        twice = {key for key in keys if keys.count(key) > 1}
        if twice:
            raise ConfigError(f"Expected every key once, got {sorted(twice)} twice. Remove one of them.")
        return super().construct_mapping(node, deep)


def read_config(path: Path | str, schema: type[T], overrides: Iterable[str] = ()) -> T:
    """The config in a YAML file, with `key.sub=value` overrides, checked against `schema`.

    A file may build on another one, `base: other.yaml`, and say only what differs; lists are replaced whole.

    Raises:
        ConfigError: The file cannot be read, is not a mapping, or does not fit the schema; the message
            names file, key and the keys that are known.
    """
    path = Path(path)
    content = _read(path, ())
    for override in overrides:
        _set(content, override)
    return parse_config(content, schema, origin=str(path))


def _read(path: Path, readers: tuple[Path, ...]) -> dict[str, Any]:
    """The keys of a file over those of its base; `readers` are the files that build on it."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeys) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"Expected a YAML file at {path}, got: {error}. Check the path and the syntax.") from error
    if not isinstance(content, dict):
        raise ConfigError(f"Expected keys and values in {path}, got {type(content).__name__}.")
    if "base" not in content:
        return content
    base = path.parent / str(content.pop("base"))
    if base in (path, *readers):
        raise ConfigError(f"Expected a base that does not build on {path} itself, got {base}. Name another.")
    return _over(_read(base, (path, *readers)), content)


def _over(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        merged[key] = _over(base[key], value) if both else value
    return merged


def parse_config(content: dict[str, Any], schema: type[T], *, origin: str) -> T:
    """`content` checked against `schema`; `origin` names it in messages. Raises: ConfigError."""
    try:
        return schema.model_validate(content)
    except ValidationError as error:
        lines = [f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}" for item in error.errors()]
        known = ", ".join(schema.model_fields)
        raise ConfigError(
            f"{origin} does not fit {schema.__name__}: {'; '.join(lines)}. Known keys: {known}."
        ) from error


def _set(content: dict[str, Any], override: str) -> None:
    key, separator, value = override.partition("=")
    if not separator:
        raise ConfigError(f"Expected --set key=value, got '{override}'.")
    *parents, last = key.split(".")
    for parent in parents:
        content = content.setdefault(parent, {})
        if not isinstance(content, dict):
            raise ConfigError(f"Expected '{parent}' of '{key}' to hold keys, it holds a value.")
    try:
        content[last] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(
            f"Expected a YAML value in --set {key}=..., got '{value}'. Quote it for the shell."
        ) from error
