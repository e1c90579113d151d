"""The ablation table on toys: rows are made once, from what others left, and nothing is lost where a call is cut."""

from __future__ import annotations

import csv
import importlib
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from scipy.ndimage import gaussian_filter

from medld.build import build_networks
from medld.checkpoint import PARTS
from medld.config import DataConfig, ModelConfig, NetworkConfig, TrainConfig, read_config
from medld.dataset import Fine, load
from medld.nn.autoencoder import unfold
from medld.training.apply import Applier
from medld.training.draw import Drawer
from medld.training.loop import Run
from medld.training.objective import completed
from medld.training.plan import make_plan
from medld.training.validation import imaged

FOLDER = Path(__file__).parents[2] / "pipelines"
TINY = NetworkConfig(channels=(4, 4, 4), blocks=(1, 1, 1), embedding=8)
NETWORK = "{channels: [4, 4, 4], blocks: [1, 1, 1], embedding: 8}"
AUTOENCODER = "model.autoencoder={width: 4, encoder_blocks: 1, decoder_blocks: 1, embedding: 8}"
SETTINGS = (
    *("batch=1", "precision=float32", "data.in_plane=16", "data.slices=4", "data.sources=[{files: '*'}]"),
    *(f"one-step:model.one_step={NETWORK}", f"autoencoder:{AUTOENCODER}"),
    *(f"joint:{AUTOENCODER}", f"joint:model.denoiser={NETWORK}"),
)
Command = Callable[..., list[str]]


@pytest.fixture
def ablation(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The program."""
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("ablation")


@pytest.fixture
def target_grid(ablation: ModuleType) -> ModuleType:
    """The form that the acquired grid is compared with."""
    return importlib.import_module("target_grid")


@pytest.fixture(scope="session")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a textured ball as a T1w."""
    folder = tmp_path_factory.mktemp("heads")
    shape = (32, 32, 40)
    axes = np.meshgrid(*(np.linspace(-1.2, 1.2, n) for n in shape), indexing="ij")
    texture = gaussian_filter(np.random.default_rng(0).standard_normal(shape), 1.2)
    head = np.where(sum(a**2 for a in axes) < 1, 600 + 900 * texture, 0).clip(0)
    nib.save(nib.Nifti1Image(head.astype(np.int16), np.eye(4)), folder / "sub-a_T1w.nii.gz")
    return folder


@pytest.fixture
def command(heads: Path, tmp_path: Path) -> Command:
    """A command line for toys."""

    def command(*more: object, out: str = "out") -> list[str]:
        own: list[object] = ["--packs", heads, "--validation", heads, "--out", tmp_path / out, "--device", "cpu"]
        return [*map(str, (*own, *more)), *(part for setting in SETTINGS for part in ("--set", setting))]

    return command


def read(out: Path) -> dict[tuple[str, int], dict[str, str]]:
    """The table's file: (row, seed) to its line."""
    with (out / "ablation.csv").open(newline="") as stream:
        return {(line["row"], int(line["seed"])): line for line in csv.DictReader(stream)}


def test_rows_come_with_what_they_need_and_are_made_once(
    ablation: ModuleType, command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fast = ("--steps", 2, "--set", "learning_rate=0.03")  # enough for every part to say something
    ablation.main(command(*fast, "--rows", "one-step", "steps-2"))
    lines, runs = read(tmp_path / "out"), tmp_path / "out" / "runs"
    assert list(lines) == [("one-step", 0), ("autoencoder", 0), ("latent", 0), ("steps-2", 0)]
    for (name, _), line in lines.items():
        gains = [line[f"gain_{r}x"] for r in (2, 4, 6)]
        assert gains == ["", "", ""] if name == "autoencoder" else np.isfinite([float(gain) for gain in gains]).all()
        assert (line["steps"] == "2") == (name != "steps-2")
    assert 0 <= float(lines["latent", 0]["data_share"]) <= 1
    sizes = {name: int(line["parameters"]) for (name, _), line in lines.items() if line["parameters"]}
    assert 0 < sizes["autoencoder"] < sizes["latent"]

    shutil.rmtree(runs / "one-step-0")
    before = {path: path.stat().st_mtime_ns for path in runs.rglob("*.safetensors")}
    capsys.readouterr()
    ablation.main(command(*fast, "--rows", "one-step", "steps-2", "heun", "decoder-frozen"))
    again = read(tmp_path / "out")
    sampled = [again[name, 0]["gain_4x"] for name in ("latent", "steps-2", "heun")]
    assert len(set(sampled)) == 3, "the mean, a sample, and one of another sampler and more steps"
    assert {key: again[key] for key in lines} == lines
    assert set(again) - set(lines) == {("heun", 0), ("decoder-frozen", 0)}
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert capsys.readouterr().out.count("\n") == 2


def test_a_row_that_was_cut_goes_on_and_ends_where_another_does(
    ablation: ModuleType, command: Command, tmp_path: Path
) -> None:
    ablation.main(command("--steps", 3, "--rows", "one-step", out="whole"))
    whole, cut = (tmp_path / out / "runs" / "one-step-0" for out in ("whole", "cut"))
    cut.mkdir(parents=True)
    config = read_config(whole / "config.yaml", TrainConfig).model_copy(update={"run_dir": cut})
    (cut / "config.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    Run(config, lambda _: None).go(until=1)
    assert not ablation.is_finished(cut)
    ablation.main(command("--steps", 9, "--rows", "one-step", out="cut"))
    weights = [(run / "model" / "one_step.safetensors").read_bytes() for run in (whole, cut)]
    assert weights[0] == weights[1]
    assert read(tmp_path / "cut")["one-step", 0]["steps"] == "3"


def test_no_row_is_begun_that_would_not_end_in_time(
    ablation: ModuleType, command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ablation.main(command("--max-minutes", 1, "--rows", "one-step"))
    assert "goes on with: one-step (0)" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_steps_are_fitted_to_the_time_and_seeds_are_pooled(
    ablation: ModuleType, command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ablation.main(command("--seconds", 0.3, "--rows", "target-grid", "--seed", 0, 1))
    lines = read(tmp_path / "out")
    assert list(lines) == [("target-grid", 0), ("target-grid", 1)]
    for line in lines.values():
        assert int(line["steps"]) >= 2
        assert float(line["seconds"]) < 3
    capsys.readouterr()
    ablation.main(["--out", str(tmp_path / "out"), "--table"])
    (row,) = (text for text in capsys.readouterr().out.splitlines() if text.startswith("| target-grid |"))
    gains = [float(line["gain_4x"]) for line in lines.values()]
    assert f"| {np.mean(gains):+.2f} ± {abs(gains[0] - gains[1]) / 2:.2f} |" in row


def test_what_is_not_there_is_refused(ablation: ModuleType, command: Command, tmp_path: Path) -> None:
    for arguments in (["--rows", "magic"], ["--out", str(tmp_path)]):
        with pytest.raises(SystemExit):
            ablation.main(arguments)


def test_every_row_is_a_config(ablation: ModuleType, tmp_path: Path) -> None:
    options = ablation.parse(["--packs", "packs, all", "--validation", "val", "--out", str(tmp_path)])
    program = ablation.Ablation(options)
    configs: dict[str, TrainConfig] = {row.name: program.config_of(row, 3) for row in ablation.ROWS.values()}
    stages = {"one-step": "one-step", "long": "one-step", "autoencoder": "autoencoder"}
    trained: dict[str, Any] = {}
    for name, config in configs.items():
        row = ablation.ROWS[name]
        assert config.stage == stages.get(row.kind, "joint")
        assert (config.seed, config.data.folders) == (3, (Path("packs, all"),))
        if row.kind != "sample":
            assert not row.after or config.model.autoencoder == configs[row.after].model.autoencoder
            told = config.model_dump(exclude={"run_dir"})
            assert told not in trained.values(), "every row differs from all others"
            trained[name] = told
    one_step, latent, plain = (configs[name] for name in ("one-step", "latent", "monai-plain"))
    assert one_step.relative_loss == latent.relative_loss
    assert (plain.model.start, plain.train_decoder, plain.image_loss_at) == ("noise", False, "none")


def test_the_longer_one_step_row_is_as_large_as_the_latent_path(ablation: ModuleType, tmp_path: Path) -> None:
    program = ablation.Ablation(ablation.parse(["--packs", "x", "--validation", "x", "--out", str(tmp_path)]))
    sizes = []
    for name in ("one-step-long", "latent"):
        with torch.device("meta"):
            networks = build_networks(program.config_of(ablation.ROWS[name], 0).model)
        parts = [getattr(networks, part) for part in PARTS]
        sizes.append(sum(p.numel() for part in parts if part is not None for p in part.parameters()))
    assert sizes[0] == pytest.approx(sizes[1], rel=0.01)
    first, second = program.options.latent_seconds
    assert ablation.budget(ablation.ROWS["one-step-long"], program.options) == first + second


@pytest.fixture
def head(heads: Path) -> Fine:
    """That ball."""
    (fine,) = load([heads])
    return fine


def test_an_answer_on_the_target_grid_is_added_there(target_grid: ModuleType, head: Fine, tmp_path: Path) -> None:
    config = TrainConfig(stage="one-step", run_dir=tmp_path, model=ModelConfig(one_step=TINY), precision="float32")
    stage = target_grid.TargetGrid(build_networks(config.model), config)
    generator = torch.Generator().manual_seed(1)
    for parameter in stage.modules.parameters():
        parameter.data.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    draw = Drawer([head], DataConfig(in_plane=16, slices=4), 2).draw(0, 0, 1.0, ratio=4.0)
    sample = Applier([head], torch.device("cpu"), "inverse", latents=stage.latents).apply(make_plan(draw, 16))
    with torch.no_grad():
        profile = stage.profile(sample)
        answer = stage.modules["one_step"](sample.known, sample.conditions.features())[:, :1]
    assert answer.abs().max() > 0.01
    assert torch.allclose(unfold(profile) @ sample.to_target.T, answer, atol=1e-5)
    padded = sample.baseline + sample.operator.pad(answer)
    projected = sample.operator.crop(sample.operator.project(padded, sample.low_res, sample.noise, sample.damping))
    assert torch.allclose(completed(sample, profile), projected, atol=1e-4)


def test_a_network_of_the_target_grid_is_judged_on_it(
    ablation: ModuleType, target_grid: ModuleType, head: Fine, heads: Path
) -> None:
    """What adds nothing to the baseline gains nothing; what adds the missing detail gains without bound."""
    judge = ablation.Judge(heads, "cpu")
    networks = replace(build_networks(ModelConfig(one_step=TINY)))
    figures = judge.measure(networks, on_target=True)
    assert all(abs(figures[f"gain_{r}x"]) < 0.01 for r in (2, 4, 6))

    class Knowing(torch.nn.Module):
        """It has seen the truth, in the scan's units."""

        def forward(self, known: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
            truth, scan = imaged(head, 4.0)
            scale = float(np.percentile(scan.array[scan.array != 0], 99.9))
            missing = torch.from_numpy(truth.array / scale)[None, None] - known.float()
            return missing.expand(-1, 8, -1, -1, -1)

    truth, scan = imaged(head, 4.0)
    ready = target_grid.for_scan(replace(networks, one_step=Knowing()), truth, scan)
    case = next(case for case in judge._cases if case.ratio == 4.0)
    restored = judge._restored(ablation.Trained(ready), truth, scan)
    assert case.reference.psnr(restored) > case.baseline + 10
