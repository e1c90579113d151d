"""Methods: what is compared, each a name and a way from a scan to the truth's grid.

    nearest, linear, cubic, lanczos, least-squares    see `baselines.py`
    B             the program's own path without a model: cubic made consistent with the scan
    medld         the same with a model; of several models each under its own name
    other names   outputs of other tools, read from files

B and models go through `SuperResolver` with the acquisition that the protocol tells, so a figure here is what a
user gets who says the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from medld.calibration import ModeConfig
from medld.checkpoint import DEFAULT, Model, list_models, load_model
from medld.errors import ConfigError, InputError
from medld.evaluation.baselines import INTERPOLATIONS, interpolate, least_squares
from medld.evaluation.calibrated import Promise, find_mode, promise_of
from medld.evaluation.exchange import OtherTool
from medld.evaluation.protocol import ProtocolConfig
from medld.evaluation.simulate import Simulated
from medld.geometry import Grid, choose_target
from medld.superres import Request, SuperResolver

Mode = Literal["fidelity", "balanced", "detail"]

LEAST_SQUARES = "least-squares"
BASELINES = (*INTERPOLATIONS, LEAST_SQUARES, "B")
"""Methods without a network, from the plainest to the strongest."""

NO_MODEL = "baseline"
"""As a model's name: none."""
OURS = "medld"
"""The column of a model where there is only one."""

HOW = {
    "nearest": "nearest slice",
    "linear": "linear",
    "cubic": "cubic B-spline",
    "lanczos": "Lanczos, three lobes",
    LEAST_SQUARES: "regularised least squares, known profile",
}


@dataclass(frozen=True, eq=False)
class Case:
    """One scan by one protocol. `scans` are the names of all scans, `alone` says that no other protocol is asked."""

    made: Simulated
    protocol: ProtocolConfig
    name: str
    scans: Sequence[str]
    alone: bool


@dataclass(frozen=True, eq=False)
class Output:
    """Values on the truth's grid, what was done, the hash of the file that they come from, "" if of none, and samples
    if they were asked for.
    """

    array: np.ndarray
    how: str
    sha256: str = ""
    samples: tuple[np.ndarray, ...] = ()
    promise: Promise | None = None
    """Of a calibrated model."""


@dataclass(frozen=True)
class Baseline:
    """A method of `baselines.py`."""

    name: str

    def restore(self, case: Case) -> Output:
        """The scan on the truth's grid."""
        shape = case.made.truth.grid.shape
        if self.name == LEAST_SQUARES:
            return Output(least_squares(case.made.scan, shape, case.protocol), HOW[self.name])
        return Output(interpolate(self.name, case.made.scan, shape), HOW[self.name])


@dataclass(frozen=True, eq=False)
class Resolver:
    """The program's own path, with a model or without; `samples` is how many are drawn beside the answer.

    A sample is a whole one (realism 1), as `medld enhance --samples` spreads over, with the
    steps of the mode or, in `fidelity`, those of `detail`.
    """

    name: str
    resolver: SuperResolver
    mode: Mode = "fidelity"
    samples: int = 0
    calibrated: ModeConfig | None = None
    flips: int = 1

    def restore(self, case: Case) -> Output:
        """The scan on the truth's grid.

        Raises:
            RestorationError: The result is not finite.
        """
        request = replace(request_for(case.made, case.protocol, self.mode), flips=self.flips)
        restoration = self.resolver.restore(case.made.scan, request)
        draws = (replace(request, realism=1.0, seed=seed) for seed in range(self.samples))
        samples = tuple(self.resolver.restore(case.made.scan, draw).volume.array for draw in draws)
        promise = promise_of(self.calibrated, case.made, request, restoration)
        return Output(restoration.volume.array, restoration.method, samples=samples, promise=promise)


@dataclass(frozen=True)
class Other:
    """Another tool."""

    tool: OtherTool

    @property
    def name(self) -> str:
        """The tool's."""
        return self.tool.name

    def restore(self, case: Case) -> Output:
        """Its output for the scan.

        Raises:
            InputError: There is none, several, or it cannot be used.
            GridError: It lies on another grid.
        """
        path = self.tool.find(case.name, case.protocol.name, case.scans, alone=case.alone)
        if path is None:
            raise InputError(
                f"Expected an output of {self.name} for {Path(case.name).name} in {case.protocol.name}/ below its "
                "folder, found none. Have the tool restore this scan too (--write-scans gives it)."
            )
        found = self.tool.read(path, case.made.truth.grid)
        return Output(found.array, found.how, found.sha256)


Method = Baseline | Resolver | Other


def request_for(made: Simulated, protocol: ProtocolConfig, mode: Mode = "fidelity") -> Request:
    """What is asked for a simulated scan: the truth's grid, and what the protocol tells of the acquisition."""
    target = choose_target(made.scan.grid, spacing=made.truth.grid.spacing)
    assert target.grid.is_close(made.truth.grid), "a protocol keeps the outer faces"
    i, j, k = (_told(made.scan.grid, protocol, axis) for axis in range(3))
    return Request(target, (i, j, k), profile=protocol.told_profile, consistency=protocol.consistency, mode=mode)


def _told(grid: Grid, protocol: ProtocolConfig, axis: int) -> float | None:
    return protocol.told_thickness_mm(grid.spacing[axis]) if axis in protocol.coarse_axes else None


def load_models(asked: str | Path | Sequence[str | Path] | None) -> tuple[dict[str, Model], bool]:
    """The models that are asked for by their columns, and whether the shipped one was expected and is not there.

    Args:
        asked: One or several of: a shipped name, a folder, COLUMN=either; "baseline" for none. None is the shipped one.

    Raises:
        ConfigError: Two models in one column.
        CheckpointError: One is missing or damaged.
    """
    names = [asked] if isinstance(asked, (str, Path)) else list(asked or (DEFAULT,))
    wanted = [str(name) for name in names if str(name) != NO_MODEL]
    missing = DEFAULT in wanted and DEFAULT not in list_models() and not Path(DEFAULT).is_dir()
    models: dict[str, Model] = {}
    for word in wanted:
        if word == DEFAULT and missing:
            continue
        column, _, name = word.partition("=") if "=" in word and not Path(word).is_dir() else ("", "", word)
        model = load_model(name)
        column = column or (OURS if len(wanted) == 1 else model.name)
        check_name(column, models)
        models[column] = model
    return models, missing


def check_name(name: str, taken: Sequence[str] | Mapping[str, object]) -> None:
    """Raises: ConfigError, if a column has no name or one that is a baseline's or another method's."""
    if not name or name in BASELINES or name in taken:
        raise ConfigError(
            f"Expected every method under a name of its own, got '{name}' twice or as a baseline's. "
            "Give a name: --model NAME=DIR, --other NAME=FOLDER."
        )


def make_methods(
    baselines: Sequence[str],
    models: Mapping[str, Model],
    others: Sequence[OtherTool],
    *,
    mode: Mode = "fidelity",
    flips: int = 1,
    samples: int = 0,
    device: str = "auto",
    threads: int | None = None,
) -> tuple[Method, ...]:
    """The methods in the order of a table: baselines, models, other tools.

    Raises:
        ConfigError: An unknown baseline, one name twice, or samples of models that cannot draw any.
    """
    if samples == 1:
        raise ConfigError("Expected at least two samples, which can differ, or none; got 1. Check --samples.")
    able = [column for column, model in models.items() if model.networks.denoiser is not None]
    if samples and not able:
        raise ConfigError(
            f"Expected a model with a diffusion part to draw {samples} samples with, got "
            f"{', '.join(models) or 'no model'}. Name one with --model, or leave --samples out."
        )
    unknown = [name for name in baselines if name not in BASELINES]
    if unknown:
        raise ConfigError(f"Expected baselines out of {', '.join(BASELINES)}, got {', '.join(unknown)}.")
    methods: list[Method] = []
    for name in (name for name in BASELINES if name in baselines):
        without = Resolver(name, SuperResolver(None, device=device, threads=threads)) if name == "B" else None
        methods.append(without or Baseline(name))
    for column, model in models.items():
        draws = samples if column in able else 0
        resolver = SuperResolver(model, device=device, threads=threads)
        methods.append(Resolver(column, resolver, mode, draws, find_mode(model, mode), flips))
    for tool in others:
        check_name(tool.name, [method.name for method in methods])
        methods.append(Other(tool))
    return tuple(methods)
