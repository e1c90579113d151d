"""Registry: every metric under the name that tables and files use.

A column is `name`, or `name_key` where a metric gives several numbers. Definitions, formulas and sources are in
the modules that the functions come from.
"""

from __future__ import annotations

import numpy as np

from medld.metrics.checks import Array, check_output
from medld.metrics.consistency import consistency_residual, disagreement, samples_spread
from medld.metrics.facts import Facts, Metric
from medld.metrics.labels import dice
from medld.metrics.lesion_scores import SEEN, count_spots, score_controls, score_lesions, summarise_lesions
from medld.metrics.reference import Reference
from medld.metrics.resolution import resolution_at, resolution_of_planes, shell_correlation, shift_along
from medld.metrics.spectrum import can_show_stripes, stripes


def _psnr(reference: Reference, output: Array, facts: Facts) -> dict[str, float]:
    return reference.psnrs(output)


def _ssim(reference: Reference, output: Array, facts: Facts) -> dict[str, float]:
    return reference.ssims(output)


def _nrmse(reference: Reference, output: Array, facts: Facts) -> dict[str, float]:
    return {name: reference.nrmse(output, name) for name in ("euclidean", "min_max")}


def _hfen(reference: Reference, output: Array, facts: Facts) -> dict[str, float]:
    return reference.hfen(output)


def _sharpness(reference: Reference, output: Array, facts: Facts) -> dict[str, float]:
    values = reference.sharpnesses(output, facts.spacing, facts.slice_axis)
    return {"all": values["all"], "through_plane": values["axis"]}


def _detail_share(reference: Reference, output: Array, facts: Facts) -> float:
    """Of the coarsest axis."""
    return reference.detail_share(output, facts.ratios[facts.slice_axis], facts.slice_axis)


def _resolution(reference: Reference, output: Array, facts: Facts) -> dict[str, float]:
    """By shells, by planes across the coarsest axis, and the mean of those across the other two."""
    check_output(reference.truth, output)
    along = [resolution_of_planes(reference.truth, output, facts.spacing[axis], axis) for axis in range(3)]
    through = along.pop(facts.slice_axis)
    shells = resolution_at(*shell_correlation(reference.truth, output, facts.spacing))
    return {"shells": shells, "through_plane": through, "in_plane": float(np.mean(along))}


def _shift(reference: Reference, output: Array, facts: Facts) -> dict[str, float]:
    check_output(reference.truth, output)
    return {f"axis{axis}": facts.spacing[axis] * shift_along(reference.truth, output, axis) for axis in range(3)}


def _stripes(reference: Reference, output: Array, facts: Facts) -> dict[str, float]:
    """Of every coarse axis that can show them."""
    check_output(reference.truth, output)
    return {
        f"axis{axis}": stripes(output, facts.ratios[axis], axis, reference.truth)
        for axis in facts.axes
        if can_show_stripes(output.shape[axis], facts.ratios[axis])
    }


def _tissue_shift(reference: Reference, output: Array, facts: Facts) -> dict[str, float]:
    return reference.tissue_shift(output)


def _consistency(reference: Reference, output: Array, facts: Facts) -> dict[str, float]:
    assert facts.reimaged is not None, "`needs` names it"
    assert facts.scan is not None, "`needs` names it"
    return consistency_residual(facts.reimaged, facts.scan, facts.noise)


def _disagreement(reference: Reference, output: Array, facts: Facts) -> dict[str, float]:
    """Inside what was measured: over all that samples differ by, and over range and noise of the scan."""
    assert facts.scan is not None, "`needs` names it"
    share, inside = disagreement(facts.samples, facts.reimaged_samples), samples_spread(facts.reimaged_samples)
    values = {"share": share, "relative_to_range": inside / (float(facts.scan.max()) - float(facts.scan.min()))}
    return values | ({"relative_to_noise": inside / facts.noise} if facts.noise else {})


def _spread(reference: Reference, output: Array, facts: Facts) -> float:
    """Outside what was measured, over the truth's range."""
    truth = reference.truth
    return samples_spread(facts.unseen_samples) / (float(truth.max()) - float(truth.min()))


def _lesions_kept(reference: Reference, output: Array, facts: Facts) -> dict[str, float]:
    assert facts.lesions is not None, "`needs` names it"
    scores = score_lesions(reference.truth, output, facts.lesions, reference.foreground, facts.spacing)
    return summarise_lesions(scores, facts.diameters)


def _lesions_wrong(reference: Reference, output: Array, facts: Facts) -> dict[str, float]:
    assert facts.lesions is not None, "`needs` names it"
    arrays = (reference.truth, output, facts.lesions, reference.foreground)
    scores = score_lesions(*arrays, facts.spacing)
    counts: dict[str, float] = {"erased": sum(score.erased for score in scores)}
    if facts.controls is not None:
        contrasts = {score.number: score.contrast for score in scores}
        maps = (facts.lesions, facts.controls, reference.foreground)
        added = score_controls(reference.truth, output, *maps, facts.spacing, contrasts)
        counts["invented"] = sum(part > SEEN for part in added)
    contrast = float(np.median([abs(score.contrast) for score in scores]))
    counts["spots"] = count_spots(*arrays, facts.spacing, contrast)
    return {name: float(count) for name, count in counts.items()}


def _dice(reference: Reference, output: Array, facts: Facts) -> dict[str, float]:
    assert facts.truth_labels is not None, "`needs` names it"
    assert facts.output_labels is not None, "`needs` names it"
    values = dice(facts.truth_labels, facts.output_labels)
    return {"mean": float(np.mean(list(values.values())))} | {str(label): value for label, value in values.items()}


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("psnr", "dB", "higher", _psnr, "peak signal-to-noise ratio"),
        Metric("ssim", "", "higher", _ssim, "structural similarity, and over several scales"),
        Metric("nrmse", "", "zero", _nrmse, "RMS error over the truth's RMS, or over its range"),
        Metric("hfen", "", "zero", _hfen, "error of the edges over the truth's edges"),
        Metric("sharpness", "", "one", _sharpness, "gradient energy over the truth's"),
        Metric("detail_share", "", "one", _detail_share, "power finer than the slices over the truth's", ("axes",)),
        Metric("resolution", "mm", "lower", _resolution, "size down to which output and truth agree (1/7)"),
        Metric("shift", "mm", "zero", _shift, "displacement along each array axis"),
        Metric("stripes", "", "one", _stripes, "power at the slices' frequency over its neighbourhood", ("axes",)),
        Metric("tissue_shift", "of range", "zero", _tissue_shift, "mean shift of dark, middle and bright tissue"),
        Metric("residual", "", "zero", _consistency, "output imaged again less the scan, RMS", ("scan", "reimaged")),
        Metric(
            "disagreement",
            "",
            "zero",
            _disagreement,
            "samples' difference that the scan could have settled",
            ("scan", "samples", "reimaged_samples"),
        ),
        Metric(
            "spread", "of range", "lower", _spread, "samples' difference that the scan leaves open", ("unseen_samples",)
        ),
        Metric("lesions_kept", "", "one", _lesions_kept, "contrast and size of inserted lesions", ("lesions",)),
        Metric(
            "lesions_wrong",
            "lesions",
            "zero",
            _lesions_wrong,
            "lesions erased or invented, spots elsewhere",
            ("lesions",),
        ),
        Metric("dice", "", "one", _dice, "overlap of segmentations", ("truth_labels", "output_labels")),
    )
}
"""All metrics, in a table's order."""
