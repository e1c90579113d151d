"""Card: what a model is, as Markdown. Nothing stands here that the model folder does not say or medld always holds.

A shipped model has a card of its own, with its pictures (`pipelines/model_card.py`), which then is taken as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

import medld
from medld import __version__
from medld.checkpoint import CARD
from medld.export.source import OUR_LICENCE, Source, describe_volumes
from medld.report import RESEARCH_USE

CHECKOUT = Path(medld.__file__).parents[1] / "LICENSE"
"""Where it lies when the checkout itself is installed; a wheel has it beside its metadata."""

WHAT = (
    "Super-resolution of 3D scans: thick slices become thin ones, coarse voxels fine ones. What the scan measured is "
    "taken from it by interpolation and projection; the networks restore only what it did not measure, and the result, "
    "imaged again with the scan's slice profile, gives the scan back to within its noise."
)

LIMITS = (
    "Networks can be wrong where slices say little: look at the scan beside the result.",
    "Scanners, contrasts, body parts, ages and diseases that are not in the training data were not learned.",
    "Scans of another modality get cubic B-spline interpolation made consistent with the scan, and the record says so.",
    "Ratios of 1.2 to 8 along the slice axis, 1.2 to 4 for isotropic voxels; others are refused.",
)


def front_matter(source: Source) -> str:
    """The YAML block that Hugging Face reads at the top of a README."""
    config, licence = source.model.config, source.licence
    stated = {"license": licence.lower()} if licence else {"license": "other", "license_name": "not-stated"}
    tags = ["medical-imaging", "super-resolution", "3d", "nifti"]
    tags += ["mri" if modality == "mr" else modality for modality in config.modalities]
    tags += ["latent-diffusion"] if config.denoiser is not None else []
    content = {**stated, "library_name": "medld", "pipeline_tag": "image-to-image", "tags": tags}
    return f"---\n{yaml.safe_dump(content, sort_keys=False)}---\n"


def write_card(source: Source, use: str) -> str:
    """The card's text; `use` is how this form of the model is run, in Markdown."""
    if source.own_card is not None:
        return "\n".join([source.own_card.read_text(encoding="utf-8"), *_section("Use in this form", use.splitlines())])
    return "\n".join(
        [
            f"# {source.name}",
            "",
            f"**{RESEARCH_USE.capitalize()}.**",
            "",
            WHAT,
            "",
            f"Written by medld {__version__} from `{CARD}`.",
            "",
            *_section("Use", use.splitlines()),
            *_section("Intended use", _intended_use(source)),
            *_section("Limits", [f"- {limit}" for limit in LIMITS]),
            *_section("Training", _training(source)),
            *_section("Figures", format_figures(source.figures)),
            *_section("Weights", [f"- `{name}`: sha256 `{source.model.sha256[name]}`" for name in source.files]),
            *_section("Licence", [_licence(source)]),
        ]
    )


def read_licence(source: Source) -> str:
    """The text of the LICENSE file that goes with the weights."""
    if source.licence == OUR_LICENCE:
        text = metadata.distribution("medld").read_text("licenses/LICENSE")
        if text is None and CHECKOUT.is_file():
            text = CHECKOUT.read_text("utf-8")
        return text or "Apache License, Version 2.0: https://www.apache.org/licenses/LICENSE-2.0\n"
    return _licence(source) + "\n"


def format_figures(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A Markdown table of the rows, or the sentence that there are none."""
    if not rows:
        return ["No figures lie beside this model, so none are given."]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [_line(columns), _line(["---"] * len(columns))]
    lines += [_line([_cell(row.get(key, "")) for key in columns]) for row in rows]
    return ["Means over scans, as they lie beside the model.", "", *lines]


def _section(title: str, lines: Sequence[str]) -> list[str]:
    return [f"## {title}", "", *lines, ""]


def _intended_use(source: Source) -> list[str]:
    names = {"mr": "MRI", "ct": "CT"}
    kinds = " and ".join(names[modality] for modality in source.model.config.modalities)
    return [f"{RESEARCH_USE.capitalize()}: viewing and analysis of {kinds} scans in studies, next to the originals."]


def _training(source: Source) -> list[str]:
    facts = _facts(source.training)
    versions = source.model.card.get("versions")
    if isinstance(versions, dict):
        facts.append("- versions: " + ", ".join(f"{name} {version}" for name, version in versions.items()))
    return facts or [f"`{CARD}` does not say how it was trained."]


def _facts(training: Mapping[str, Any], prefix: str = "") -> list[str]:
    """One line a fact; volumes are counted, for their names may say more about people than should be told."""
    facts = []
    for key, value in training.items():
        if isinstance(value, dict):
            facts += _facts(value, f"{prefix}{key}, ")
        elif key == "volumes" and isinstance(value, list):
            facts.append(f"- {prefix}data: {describe_volumes(map(str, value))}; their names are in `{CARD}`")
        else:
            facts.append(f"- {prefix}{key}: {value}")
    return facts


def _licence(source: Source) -> str:
    if source.licence is None:
        return f"`{CARD}` states no licence for these weights. Ask whoever trained them before passing them on."
    return f"{source.licence}. Authors: {source.authors}."


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
