"""Options: what they mean for the inputs that were found, and which of them do not fit."""

from __future__ import annotations

from pathlib import Path

from medld.batch.names import MARK, clean_mark, image_suffix
from medld.batch.settings import EnhanceSettings
from medld.errors import ConfigError
from medld.io import SUFFIXES

__all__ = ["becomes_image", "check_options", "is_nifti"]


def check_options(settings: EnhanceSettings, *, several: bool, dicom: bool) -> None:
    """Refuse options that do not fit the inputs.

    Args:
        settings: The options.
        several: Whether there are several inputs, for which file options are suffixes.
        dicom: Whether there is DICOM among them.

    Raises:
        ConfigError: If an option makes no sense for these inputs.
    """
    if settings.series is not None and not dicom:
        raise ConfigError("--series chooses from DICOM, and there is none; leave it out")
    if settings.output is not None:
        _check_output(settings, several)
    if several:
        for option in ("uncertainty", "trust", "preview"):
            mark = getattr(settings, option)
            if mark is not None and not MARK.fullmatch(clean_mark(mark)):
                raise ConfigError(
                    f"--{option}: for several inputs expected a suffix of letters, digits, - and _, "
                    f"which is put behind desc-sr, got {mark}"
                )
        return
    if settings.uncertainty is not None:
        known = (".dcm",) if dicom and not becomes_image(settings, several) else SUFFIXES
        if not settings.uncertainty.lower().endswith(known):
            listed = ", ".join(known)
            raise ConfigError(f"--uncertainty: expected a file that ends in {listed}, got {settings.uncertainty}")
    if settings.trust is not None and not image_suffix(Path(settings.trust)):
        listed = ", ".join(SUFFIXES)
        raise ConfigError(f"--trust: expected a file that ends in {listed}, got {settings.trust}")
    if settings.preview is not None and Path(settings.preview).suffix.lower() != ".png":
        raise ConfigError(f"--preview: expected a name that ends in .png, such as look.png, got {settings.preview}")


def becomes_image(settings: EnhanceSettings, several: bool) -> bool:
    """Whether a DICOM input becomes an image file: by --format, or because -o names one."""
    output = settings.output
    names_file = output is not None and not several and bool(image_suffix(output)) and not output.is_dir()
    return settings.format == "nifti" or names_file


def is_nifti(suffix: str) -> bool:
    """Whether an image suffix is one of NIfTI."""
    return suffix.lower() in (".nii", ".nii.gz")


def _check_output(settings: EnhanceSettings, several: bool) -> None:
    """Refuse an output that is neither a folder nor a file that fits."""
    output, known = settings.output, ", ".join(SUFFIXES)
    assert output is not None
    if output.is_dir():
        return
    suffix = image_suffix(output)
    if several and (output.exists() or suffix):
        raise ConfigError(f"-o: for several inputs expected a folder, got the file name {output}")
    if output.exists() and not suffix:
        raise ConfigError(f"-o: expected a folder or a file that ends in {known}, got {output}")
    if output.suffix and not suffix:
        raise ConfigError(f"-o: expected a file that ends in {known}, or a folder, got {output}")
    if suffix and settings.format == "dicom":
        raise ConfigError(f"--format dicom writes a folder, -o names the file {output}; leave one of them out")
    if suffix and settings.format == "nifti" and not is_nifti(suffix):
        raise ConfigError(f"--format nifti: expected -o to end in .nii.gz or .nii, got {output}")
