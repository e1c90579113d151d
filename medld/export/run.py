"""Run: write a model as a MONAI bundle or as a folder for Hugging Face."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from medld.checkpoint import CARD, DEFAULT
from medld.errors import CheckpointError, ConfigError, OutputError
from medld.export.card import front_matter, read_licence, write_card
from medld.export.folder import whole_folder
from medld.export.metadata import LOGGING, bundle_metadata, inference_config
from medld.export.source import README, Source, read_source
from medld.report import RESEARCH_USE, write_json

Report = Callable[[str], None]

BUNDLE_USE = """\
With medld installed, in this folder:

```sh
python -m monai.bundle run --config_file configs/inference.json --dataset_dir SCANS --output_dir RESULTS
medld enhance SCAN.nii.gz --model models
```

Both restore scans in the same way and write the same files. `--settings "{'spacing': [1.0]}"` takes what
`medld enhance --help` lists. `network_def` is the model as one module, from scanner units to scanner units, at a fixed
ratio. The weights are safetensors, not a pickled `model.pt`, and `network_def` loads them itself: a tool that insists
on `models/model.pt` (`monai.bundle.load`, `ckpt_export`) does not find it."""

FOLDER_USE = """\
With medld installed:

```sh
medld enhance SCAN.nii.gz --model THIS_FOLDER
```"""


def export_model(
    model: str | Path = DEFAULT,
    *,
    to: str,
    out: Path | str,
    overwrite: bool = False,
    report: Report = lambda line: None,
) -> None:
    """Write a model folder in another form; weight files are copied as they are.

    Args:
        model: Name of a shipped model, or a model folder.
        to: "monai-bundle" or "huggingface".
        out: The folder to make. It appears whole or not at all.
        overwrite: Replace an earlier export of the same kind.
        report: Gets lines of text.

    Raises:
        CheckpointError: No such model, or it is damaged.
        ConfigError: An unknown form, or a package that it needs is missing.
        OutputError: `out` exists, or cannot be written.
    """
    if to not in FORMATS:
        raise ConfigError(f"--to: expected one of {', '.join(FORMATS)}, got {to}")
    out, (write, mark) = Path(out), FORMATS[to]
    source = read_source(model)
    if source.folder.resolve().is_relative_to(out.resolve()):
        raise OutputError(f"{out} holds the model itself. Name another folder with -o.")
    with whole_folder(out, mark, overwrite=overwrite) as folder:
        write(source, folder)
        written = [path for path in folder.rglob("*") if path.is_file()]
        size = sum(path.stat().st_size for path in written) / 2**20
    report(f"{source.name} -> {out} ({to}): {len(written)} files, {size:.1f} MiB")
    if volumes := source.model.volumes():
        report(f"{CARD} names the {len(volumes)} volumes it was trained on: look at them before you publish it")
    if source.licence is None:
        report(f"{CARD} states no licence: the card says so")
    report(RESEARCH_USE)


def _write_bundle(source: Source, folder: Path) -> None:
    """configs/, models/ (a model folder of medld), docs/README.md, LICENSE."""
    networks = source.model.networks
    if networks.one_step is None and networks.denoiser is None:
        raise CheckpointError(
            f"Expected a model that restores scans, {source.folder} holds an autoencoder alone. "
            "Use --to huggingface for it."
        )
    for name in ("configs", "models", "docs"):
        (folder / name).mkdir()
    write_json(folder / "configs" / "metadata.json", bundle_metadata(source))
    write_json(folder / "configs" / "inference.json", inference_config(source))
    _write_text(folder / "configs" / "logging.conf", LOGGING)
    _copy_model(source, folder / "models")
    _write_card(source, folder / "docs", write_card(source, BUNDLE_USE))
    _write_text(folder / "LICENSE", read_licence(source))


def _write_huggingface(source: Source, folder: Path) -> None:
    """A model folder of medld with a card; `config.json`, by which the hub counts, is `model.json` again."""
    _copy_model(source, folder)
    shutil.copyfile(folder / CARD, folder / "config.json")
    _write_card(source, folder, front_matter(source) + "\n" + write_card(source, FOLDER_USE))
    _write_text(folder / "LICENSE", read_licence(source))


FORMATS: dict[str, tuple[Callable[[Source, Path], None], str]] = {
    "monai-bundle": (_write_bundle, "configs/metadata.json"),
    "huggingface": (_write_huggingface, "config.json"),
}
"""What writes each form, and the file that tells a folder of it."""


def _copy_model(source: Source, folder: Path) -> None:
    for name in (CARD, *source.files, *source.companions):
        shutil.copyfile(source.folder / name, folder / name)


def _write_card(source: Source, folder: Path, text: str) -> None:
    """The card and its pictures."""
    _write_text(folder / README, text)
    for picture in source.pictures:
        (folder / picture).parent.mkdir(exist_ok=True)
        shutil.copyfile(source.folder / picture, folder / picture)


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
