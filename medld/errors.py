"""Errors: everything that goes wrong in a way a caller may want to catch.

    MedldError                  E_INTERNAL, unless a code is given
      ConfigError               E_CONFIG
      GridError                 E_NO_GEOM
      InputError                E_NOT_IMAGE, or the code given where it is raised
        LabelMapError           E_NOT_IMAGE
      OutputError               E_EXISTS
      AcquisitionError          E_ACQUISITION
      CheckpointError           E_MODEL
      CardError                 E_CARD
      CohortError               E_COHORT
      ResourceError             E_MEMORY
      RestorationError          E_NUMERIC

Each carries a reason code that stays the same over the versions, so that scripts can rely
on it; `CODES` says what each means, and `WARNINGS` what those mean that a sentence of a
report begins with. The message says what was expected, what came and what to do. A message
never holds patient data: no header text, no values of identifying fields.
"""

from __future__ import annotations

CODES: dict[str, str] = {
    "E_INTERNAL": "a defect of medld itself",
    "E_CONFIG": "an option or a config file is wrong",
    "E_NO_GEOM": "the file does not say where its voxels lie: the affine is singular, sheared or not finite",
    "E_NOT_IMAGE": "not a scan: text, empty, misnamed, colour or complex data, or a label map",
    "E_TRUNC": "the file ends before its data do, or its compressed stream is damaged",
    "E_TOO_BIG": "more voxels, memory or room on the disk than may be taken",
    "E_PIXELS": "the values cannot be used: NaN, infinite or all the same",
    "E_4D": "several volumes in one file or series: a time or diffusion series, a mosaic",
    "E_TOO_FEW": "too few slices, or too few pixels in a slice",
    "E_TILT": "slices sheared against each other, as by a tilted CT gantry",
    "E_GAP": "slices are missing between others",
    "E_SPACING": "the slices are not evenly spaced along one line",
    "E_DUP": "several slices at one position",
    "E_MIXED": "images that do not belong together: localisers, other sizes or orientations, other patients",
    "E_CODEC": "pixels in a compression that cannot be decoded",
    "E_CHARSET": "text in an unknown or wrong character set, which could not be written back unharmed",
    "E_BAD_ID": "an identifier that is missing, invalid or used twice",
    "E_SEVERAL": "several volumes where one is expected",
    "E_NOTHING_TO_DO": "the target is not finer than the scan within the supported range of ratios",
    "E_SECOND_PASS": "the input is itself an output of medld",
    "E_EXISTS": "the output exists already, is the input itself, or cannot be written there",
    "E_ACQUISITION": "the slice profile or thickness is impossible",
    "E_MODEL": "the model is missing, damaged or of another version",
    "E_CARD": "a data card is wrong",
    "E_COHORT": "these scans together cannot teach a model",
    "E_MEMORY": "the machine's memory ran out",
    "E_NUMERIC": "the restoration was not finite; nothing was written",
}

WARNINGS: dict[str, str] = {
    "W_INCOMPLETE": "slices seem to be missing at an end, by the numbers in the headers",
    "W_DUP": "the same image was there twice and was taken once",
    "W_SECOND_PASS": "the scan was already sharpened or denoised by a network",
    "W_REFORMAT": "the slices were reformatted from another series, so that their true profile is not known",
    "W_RANGE": "values outside the range of the modality",
    "W_SCOPE": "the scan is unlike those that the model learned from",
    "W_RESIDUAL": "the result, imaged again, is farther from the scan than its noise",
    "W_HELD_OUT": "on slices held out of the scan the model was worse than interpolation, which was used instead",
}  # sentences of a report that begin with one of these say what was noticed but not refused


class MedldError(Exception):
    """Base of all errors of medld.

    Args:
        message: What was expected, what came, what to do.
        code: Reason code, a key of `CODES`; None takes the class's own.
    """

    code: str = "E_INTERNAL"

    def __init__(self, message: str, code: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            assert code in CODES, code
            self.code = code

    def __reduce__(self) -> tuple[type[MedldError], tuple[str, str]]:
        """Keep the code when a worker process sends the error to its parent."""
        return type(self), (str(self), self.code)


class ConfigError(MedldError):
    """An option or a config file is wrong."""

    code = "E_CONFIG"


class GridError(MedldError):
    """A shape and an affine that make no grid."""

    code = "E_NO_GEOM"


class InputError(MedldError):
    """An input that cannot be processed; the code says why."""

    code = "E_NOT_IMAGE"


class LabelMapError(InputError):
    """A label map: averaging its values means nothing, so it is taken only when forced."""


class OutputError(MedldError):
    """An output that must not or cannot be written."""

    code = "E_EXISTS"


class AcquisitionError(MedldError):
    """A slice profile, thickness or spacing that no scanner could have."""

    code = "E_ACQUISITION"


class CheckpointError(MedldError):
    """A model that is missing, damaged or of another version."""

    code = "E_MODEL"


class CardError(MedldError):
    """A data card that is wrong."""

    code = "E_CARD"


class CohortError(MedldError):
    """Scans that cannot teach a model together: too few subjects, several modalities, thick slices."""

    code = "E_COHORT"


class ResourceError(MedldError):
    """A machine too small for what was asked of it; the message says what fits."""

    code = "E_MEMORY"


class RestorationError(MedldError):
    """A restoration that is not finite and is therefore never written."""

    code = "E_NUMERIC"
