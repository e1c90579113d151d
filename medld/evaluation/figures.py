"""Figures: the numbers of one output, out of `medld.metrics`, with what those need beside truth and output.

Every row has the headline (PSNR, SSIM, share of detail); the registry's other metrics are computed when asked for.
An output is imaged again by the very matrices that made the scan, so that the truth's residual is zero. Like
`SuperResolver.residual` it leaves out the two outermost slices at each end: what a method thinks lies beyond the
field of view is in them.

What only some outputs have comes as `Beside`: samples, and the label maps of a segmentation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from medld.acquisition import along, away_from_ends
from medld.errors import ConfigError, InputError
from medld.evaluation.protocol import ProtocolConfig
from medld.evaluation.simulate import Simulated, protocol_matrix
from medld.metrics import METRICS, Facts, Metric, Reference

ALL = "all"
FOREGROUND = ("psnr_foreground", "ssim_foreground")
"""Columns of the registry that are the headline's."""
GATHERED = ("spacing", "ratios", "axes", "scan", "reimaged", "noise")
"""Of `Facts`, what every evaluation can tell."""
LESIONS = ("lesions", "diameters", "controls")
SAMPLES = ("samples", "reimaged_samples", "unseen_samples")
LABELS = ("truth_labels", "output_labels")
HOW_TO_GET = dict.fromkeys(LESIONS, "a protocol with lesions") | dict.fromkeys(SAMPLES, "--samples")
HOW_TO_GET |= dict.fromkeys(LABELS, "--labels")
"""What else has to be asked for."""


@dataclass(frozen=True, eq=False)
class Beside:
    """What there is of an output beside its voxels."""

    samples: Sequence[np.ndarray] = ()
    truth_labels: np.ndarray | None = None
    output_labels: np.ndarray | None = None


NOTHING = Beside()


def asked_for(protocols: Sequence[ProtocolConfig], *, samples: bool, labels: bool) -> tuple[str, ...]:
    """Fields of `Facts` that there will be beyond `GATHERED`."""
    there = ((any(protocol.lesions for protocol in protocols), LESIONS), (samples, SAMPLES), (labels, LABELS))
    return tuple(field for given, fields in there if given for field in fields)


def choose_metrics(names: Sequence[str] | None, more: Sequence[str] = ()) -> tuple[Metric, ...]:
    """The metrics beyond the headline that are meant: those named, or ("all",) those that can be computed.

    Args:
        names: Of the registry, or None.
        more: Fields of `Facts` beyond `GATHERED` that were asked for; the metrics that need one are always meant.

    Raises:
        ConfigError: An unknown name, or a metric that needs more than there is.
    """
    there = {*GATHERED, *more}
    possible = {name: metric for name, metric in METRICS.items() if set(metric.needs) <= there}
    del possible["detail_share"]  # is in the headline
    if names is not None and ALL in names:
        return tuple(possible.values())
    implied = [name for name, metric in possible.items() if set(metric.needs) & set(more)]
    wanted = [name for name in dict.fromkeys((*(names or ()), *implied)) if name != "detail_share"]
    for name in wanted:
        if name in METRICS and name not in possible:
            needs = " and ".join(dict.fromkeys(HOW_TO_GET[need] for need in METRICS[name].needs if need not in there))
            raise ConfigError(f"Expected metrics that this evaluation allows, got {name}, which needs {needs} too.")
        if name not in possible:
            known = ", ".join(possible)
            raise ConfigError(f"Expected metrics out of {known}, or {ALL}, got '{name}'.")
    return tuple(possible[name] for name in wanted)


def measure(
    reference: Reference,
    output: np.ndarray,
    made: Simulated,
    protocol: ProtocolConfig,
    metrics: Sequence[Metric],
    fail: Callable[[str, InputError], None],
    beside: Beside = NOTHING,
) -> dict[str, float]:
    """The figures of an output, the headline first.

    Args:
        reference: The cut truth.
        output: On its grid.
        made: What the scan was made of.
        protocol: How.
        metrics: Beyond the headline.
        fail: Told the name and the reason of a figure that cannot be computed; it becomes NaN, or is left out.
        beside: Samples and label maps, where there are some.

    Raises:
        InputError: The output cannot be compared at all: another shape, or not finite (E_PIXELS).
    """
    axis = 2 if protocol.axes == "isotropic" else protocol.axis
    ratio = ratio_along(made, axis)
    figures = {"psnr": reference.psnr(output), "ssim": reference.ssim(output), "detail_share": float("nan")}
    try:
        figures["detail_share"] = reference.detail_share(output, ratio, axis)
    except InputError as error:
        fail("detail_share", error)
    if metrics:
        facts = gather(output, made, protocol, metrics, beside)
        for metric in (metric for metric in metrics if metric.applies(facts)):
            try:
                columns = metric.columns(reference, output, facts)
                figures |= {name: value for name, value in columns.items() if name not in FOREGROUND}
            except InputError as error:
                fail(metric.name, error)
    return figures


def gather(
    output: np.ndarray, made: Simulated, protocol: ProtocolConfig, metrics: Sequence[Metric], beside: Beside
) -> Facts:
    """What the metrics need beside truth and output."""
    is_reimaged = any("reimaged" in metric.needs for metric in metrics)
    inner = away_from_ends(made.scan.grid.shape, protocol.coarse_axes)
    i, j, k = (ratio_along(made, axis) for axis in range(3))
    return Facts(
        spacing=made.truth.grid.spacing,
        ratios=(i, j, k),
        scan=made.scan.array[inner],
        reimaged=reimage(output, made, protocol)[inner] if is_reimaged else None,
        noise=made.noise or None,
        samples=beside.samples,
        reimaged_samples=[reimage(sample, made, protocol)[inner] for sample in beside.samples],
        unseen_samples=[unseen(sample, made, protocol) for sample in beside.samples],
        lesions=made.phantom.lesion_map if made.phantom else None,
        diameters=made.phantom.diameters if made.phantom else (),
        controls=made.phantom.control_map if made.phantom else None,
        truth_labels=beside.truth_labels,
        output_labels=beside.output_labels,
    )


def ratio_along(made: Simulated, axis: int) -> float:
    """Slice spacing in voxels of the truth."""
    return made.truth.grid.shape[axis] / made.scan.grid.shape[axis]


def reimage(output: np.ndarray, made: Simulated, protocol: ProtocolConfig) -> np.ndarray:
    """An output imaged as the scan was, without noise: float32, shape of the scan."""
    array = output.astype(np.float64)
    for axis in protocol.coarse_axes:
        array = along(_matrix(made, protocol, axis), array, axis - 3)
    if protocol.profile == "sinc" and made.truth.modality != "ct":
        array = np.abs(array)
    return array.astype(np.float32)


def unseen(output: np.ndarray, made: Simulated, protocol: ProtocolConfig) -> np.ndarray:
    """The part x - A^+ A x of an output that its slices hold no trace of: float32, shape of the truth.

    A is separable, so A^+ A is the product of one projection for each coarse axis.
    """
    array = output.astype(np.float64)
    for axis in protocol.coarse_axes:
        matrix = _matrix(made, protocol, axis)
        array = along(np.linalg.pinv(matrix) @ matrix, array, axis - 3)
    return (output - array).astype(np.float32)


def _matrix(made: Simulated, protocol: ProtocolConfig, axis: int) -> np.ndarray:
    fine, slices = made.truth.grid.shape[axis], made.scan.grid.shape[axis]
    return protocol_matrix(protocol, fine, slices, made.scan.grid.spacing[axis])
