"""The JSON files of a MONAI bundle, and the check of its metadata.

Source: MONAI Bundle Specification (docs/source/mb_specification.rst of MONAI) and `monai.bundle`, 1.6.1.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import metadata
from importlib.resources import files
from typing import Any

from medld import __version__
from medld.errors import CheckpointError, ConfigError
from medld.export.bundle import RATIO
from medld.export.card import LIMITS, WHAT
from medld.export.source import Source, describe_volumes
from medld.report import RESEARCH_USE

SCHEMA = "monai_bundle_metadata.json"
SCHEMA_URL = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
"""What MONAI's own `verify_metadata` downloads; nothing here does."""

MULTIPLE = 4
"""Sizes that the networks take without padding; others are padded inside."""

LOGGING = """\
[loggers]
keys=root

[handlers]
keys=console

[formatters]
keys=line

[logger_root]
level=INFO
handlers=console

[handler_console]
class=StreamHandler
level=INFO
formatter=line
args=(sys.stdout,)

[formatter_line]
format=%(asctime)s %(name)s %(message)s
"""


def bundle_metadata(source: Source) -> dict[str, Any]:
    """The content of `configs/metadata.json`, checked.

    Raises:
        CheckpointError: What `model.json` says does not fit the schema.
        ConfigError: The package jsonschema is not installed.
    """
    content = {
        "schema": SCHEMA_URL,
        "version": __version__,
        "changelog": {__version__: f"exported by medld {__version__}"},
        "monai_version": metadata.version("monai"),
        "pytorch_version": metadata.version("torch").partition("+")[0],
        "numpy_version": metadata.version("numpy"),
        "required_packages_version": {
            "medld": __version__,
            **{name: metadata.version(name) for name in ("nibabel", "safetensors")},
        },
        "name": source.name,
        "task": "Super-resolution of 3D medical scans",
        "description": WHAT,
        "authors": source.authors,
        "copyright": f"Copyright (c) {source.authors}; licence: {source.licence or 'not stated'}",
        "data_source": describe_volumes(volumes) if (volumes := source.model.volumes()) else "not stated",
        "data_type": "nibabel",
        "intended_use": f"{RESEARCH_USE.capitalize()}. {' '.join(LIMITS)}",
        "network_data_format": _network_format(source),
    }
    if source.figures:
        content["eval_metrics"] = {"means": [dict(row) for row in source.figures]}
    check_metadata(content)
    return content


def check_metadata(content: Mapping[str, Any]) -> None:
    """Check a bundle's metadata against the schema in the package.

    Raises:
        CheckpointError: It does not fit; the message names the key.
        ConfigError: The package jsonschema is not installed.
    """
    try:
        from jsonschema import Draft202012Validator
        from jsonschema.exceptions import best_match
    except ImportError as error:
        raise ConfigError(
            "Expected the package jsonschema, which checks a bundle's metadata. Run: pip install 'medld[export]'"
        ) from error
    schema = json.loads((files("medld.export") / "schemas" / SCHEMA).read_text(encoding="utf-8"))
    worst = best_match(Draft202012Validator(schema).iter_errors(content))
    if worst is not None:
        place = ".".join(map(str, worst.absolute_path)) or "the whole"
        raise CheckpointError(f"The metadata do not fit {SCHEMA}, {place}: {worst.message}. Check model.json.")


def _network_format(source: Source) -> dict[str, Any]:
    """What `network_def` takes and gives: `BundleNetwork` at its own ratio."""
    hounsfield = "mr" not in source.model.config.modalities
    shared: dict[str, Any] = {
        "type": "image",
        "format": "hounsfield" if hounsfield else "magnitude",
        "modality": "CT" if hounsfield else "MR",
        "num_channels": 1,
        "dtype": "float32",
        "value_range": [],
        "is_patch_data": False,
    }
    size = f"{MULTIPLE}*n"
    image = {
        **shared,
        "spatial_shape": [size, size, size],
        "channel_def": {"0": "scan in scanner units, slices along the last axis"},
    }
    pred = {
        **shared,
        "spatial_shape": [size, size, f"{RATIO * MULTIPLE}*n"],
        "channel_def": {"0": f"the scan, {RATIO} times finer along the last axis, in its own units"},
    }
    return {"inputs": {"image": image}, "outputs": {"pred": pred}}


def inference_config(source: Source) -> dict[str, Any]:
    """The content of `configs/inference.json`: `medld enhance` of every NIfTI file in `dataset_dir`."""
    models = "$@bundle_root + '/models'"
    network: dict[str, Any] = {"_target_": "medld.export.bundle.BundleNetwork", "model": models}
    if "mr" not in source.model.config.modalities:
        network["modality"] = "ct"
    return {
        "imports": ["$import pathlib"],
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/scans'",
        "output_dir": "$@bundle_root + '/eval'",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "settings": {},
        "network_def": network,
        "network": "$@network_def.to(@device)",
        "dataset": {
            "_target_": "Dataset",
            "data": "$[{'image': str(path)} for path in sorted(pathlib.Path(@dataset_dir).glob('*.nii*'))]",
        },
        "inferer": {"_target_": "SimpleInferer"},
        "evaluator": {
            "_target_": "medld.export.bundle.Enhancer",
            "model": models,
            "dataset": "@dataset",
            "output_dir": "@output_dir",
            "device": "@device",
            "settings": "@settings",
        },
        "run": ["$@evaluator.run()"],
    }
