"""Metrics: numbers that tell how an output compares with its truth, on plain arrays.

Facts           what a metric needs beside truth and output
METRICS         every metric by name; the files below hold the definitions, as formulas with their sources
Reference       a truth, with what is found once for all outputs that are compared with it

reference       PSNR, NRMSE, foreground          structure      SSIM, MS-SSIM
edges           HFEN, sharpness                  spectrum       power by frequency, stripes
resolution      Fourier correlation, shift       tissue         brightness of three classes
consistency     residual, samples' disagreement  labels         Dice
lesions         a phantom of spheres and rods    lesion_scores  lesions kept, erased, invented
"""

from __future__ import annotations

from medld.metrics.consistency import consistency_residual, disagreement, samples_spread
from medld.metrics.facts import Better, Facts, Metric
from medld.metrics.labels import dice
from medld.metrics.lesion_scores import LesionScore, count_spots, score_controls, score_lesions, summarise_lesions
from medld.metrics.lesions import Lesion, insert_lesions, lesion_map, lesion_weights, plan_lesions
from medld.metrics.reference import Reference, find_foreground, psnr, ssim
from medld.metrics.registry import METRICS
from medld.metrics.resolution import plane_correlation, resolution_at, shell_correlation
from medld.metrics.spectrum import detail_closed, power_above, power_along, power_in_bands, stripes

__all__ = [
    "METRICS",
    "Better",
    "Facts",
    "Lesion",
    "LesionScore",
    "Metric",
    "Reference",
    "consistency_residual",
    "count_spots",
    "detail_closed",
    "dice",
    "disagreement",
    "find_foreground",
    "insert_lesions",
    "lesion_map",
    "lesion_weights",
    "plan_lesions",
    "plane_correlation",
    "power_above",
    "power_along",
    "power_in_bands",
    "psnr",
    "resolution_at",
    "samples_spread",
    "score_controls",
    "score_lesions",
    "shell_correlation",
    "ssim",
    "stripes",
    "summarise_lesions",
]
