"""Figures: the numbers of one output, out of `medld.metrics`, with what those need beside truth and output.

Every row has the headline (PSNR, SSIM, share of detail); the registry's other metrics are computed when asked for.
An output is imaged again by the very matrices that made the scan, so that the truth's residual is zero. Like
`SuperResolver.residual` it leaves out the two outermost slices at each end: what a method thinks lies beyond the
field of view is in them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from medld.acquisition import along
from medld.errors import ConfigError, InputError
from medld.evaluation.protocol import ProtocolConfig
from medld.evaluation.simulate import Simulated, protocol_matrix
from medld.metrics import METRICS, Facts, Metric, Reference
from medld.superres.resolver import END_SLICES

ALL = "all"
FOREGROUND = ("psnr_foreground", "ssim_foreground")
"""Columns of the registry that are the headline's."""
GATHERED = ("spacing", "ratios", "axes", "scan", "reimaged", "noise")
"""Of `Facts`, what an evaluation can tell; samples, lesions and labels are not part of it."""


def choose_metrics(names: Sequence[str] | None) -> tuple[Metric, ...]:
    """The metrics beyond the headline that are meant: none, those named, or ("all",) those that can be computed.

    Raises:
        ConfigError: An unknown name, or a metric that needs more than an evaluation has.
    """
    possible = {name: metric for name, metric in METRICS.items() if set(metric.needs) <= set(GATHERED)}
    del possible["detail_share"]  # is in the headline
    if names is not None and ALL in names:
        return tuple(possible.values())
    wanted = [name for name in dict.fromkeys(names or ()) if name != "detail_share"]
    for name in wanted:
        if name in METRICS and name not in possible:
            needs = ", ".join(need for need in METRICS[name].needs if need not in GATHERED)
            raise ConfigError(f"Expected metrics that a simulated scan allows, got {name}, which needs {needs} too.")
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
) -> dict[str, float]:
    """The figures of an output, the headline first.

    Args:
        reference: The cut truth.
        output: On its grid.
        made: What the scan was made of.
        protocol: How.
        metrics: Beyond the headline.
        fail: Told the name and the reason of a figure that cannot be computed; it becomes NaN, or is left out.

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
        facts = gather(output, made, protocol, metrics)
        for metric in (metric for metric in metrics if metric.applies(facts)):
            try:
                columns = metric.columns(reference, output, facts)
                figures |= {name: value for name, value in columns.items() if name not in FOREGROUND}
            except InputError as error:
                fail(metric.name, error)
    return figures


def gather(output: np.ndarray, made: Simulated, protocol: ProtocolConfig, metrics: Sequence[Metric]) -> Facts:
    """What the metrics need beside truth and output."""
    is_reimaged = any("reimaged" in metric.needs for metric in metrics)
    inner = tuple(
        slice(END_SLICES, -END_SLICES) if axis in protocol.coarse_axes and size > 3 * END_SLICES else slice(None)
        for axis, size in enumerate(made.scan.grid.shape)
    )
    i, j, k = (ratio_along(made, axis) for axis in range(3))
    return Facts(
        spacing=made.truth.grid.spacing,
        ratios=(i, j, k),
        scan=made.scan.array[inner],
        reimaged=reimage(output, made, protocol)[inner] if is_reimaged else None,
        noise=made.noise or None,
    )


def ratio_along(made: Simulated, axis: int) -> float:
    """Slice spacing in voxels of the truth."""
    return made.truth.grid.shape[axis] / made.scan.grid.shape[axis]


def reimage(output: np.ndarray, made: Simulated, protocol: ProtocolConfig) -> np.ndarray:
    """An output imaged as the scan was, without noise: float32, shape of the scan."""
    array = output.astype(np.float64)
    for axis in protocol.coarse_axes:
        fine, slices = made.truth.grid.shape[axis], made.scan.grid.shape[axis]
        array = along(protocol_matrix(protocol, fine, slices, made.scan.grid.spacing[axis]), array, axis - 3)
    if protocol.profile == "sinc" and made.truth.modality != "ct":
        array = np.abs(array)
    return array.astype(np.float32)
