"""One update after another: gradients of micro-batches, averaged over processes, clipped, and taken."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor, nn

from medld.config import TrainConfig
from medld.errors import MedldError, ResourceError
from medld.training.apply import Sample
from medld.training.average import Average
from medld.training.distributed import World
from medld.training.memory import is_out_of_memory, largest_that_fits
from medld.training.optimise import make_optimiser, schedule
from medld.training.stages import Stage
from medld.training.state import Progress, load_state, save_state

FIGURES_EVERY = 10
Figures = dict[str, Tensor]


class Learner:
    """A stage's weights, their average and their optimiser."""

    def __init__(self, stage: Stage, config: TrainConfig, device: torch.device, world: World) -> None:
        self.stage, self.config, self.device, self.world = stage, config, device, world
        self.average = Average(stage, config.ema)
        self.optimiser = make_optimiser(stage.modules, config, device)
        self.trained = [p for group in self.optimiser.param_groups for p in group["params"]]
        self._latest: Figures = {}

    @property
    def rate(self) -> float:
        """The learning rate of the last update."""
        return float(self.optimiser.param_groups[0]["lr"])

    def learn(self, samples: Iterator[Sample], step: int) -> Figures:
        """The update after `step` steps, from the next micro-batches.

        Returns:
            Figures for the log, still on the device, since reading them waits for it.

        Raises:
            ResourceError: A micro-batch does not fit into memory; the message names the largest that does.
        """
        config = self.config
        for group in self.optimiser.param_groups:
            group["lr"] = group["initial_lr"] * schedule(step, config)
        self.stage.progress = step / config.steps
        self.optimiser.zero_grad(set_to_none=True)
        rows = [self._add_gradient(sample, step) for sample in islice(samples, config.accumulate)]
        self.world.average_gradients(self.trained)
        norm = nn.utils.clip_grad_norm_(self.trained, config.clip)
        self.optimiser.step()
        self.average.update()
        self._latest = {**mean_figures(rows), "gradient": norm.detach()}
        return self._latest

    def save(self, run_dir: Path, progress: Progress) -> None:
        """Write the state of the run. Raises: MedldError (E_NUMERIC), before anything is written."""
        self.check_finite(progress.step)
        save_state(run_dir, progress, self.stage.modules, self.average.model, self.optimiser)

    def load(self, run_dir: Path, report: Callable[[str], None]) -> Progress:
        """Take up a run's state. Raises: CheckpointError."""
        return load_state(run_dir, self.stage.modules, self.average.model, self.optimiser, report)

    def check_finite(self, step: int) -> None:
        """Raises: MedldError (E_NUMERIC), if the last update lost the weights."""
        for name in ("loss", "gradient"):
            if name in self._latest and not bool(torch.isfinite(self._latest[name])):
                raise MedldError(
                    f"Expected a finite {name}, got {float(self._latest[name])} at step {step}. The last checkpoint is "
                    "kept: resume with a lower learning_rate or clip, or with precision float32.",
                    "E_NUMERIC",
                )

    def _add_gradient(self, sample: Sample, step: int) -> Figures:
        """Add a micro-batch's part of the gradient; its figures."""
        try:
            return self._backward(sample, step, self.config.accumulate)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            reason = str(error).partition("\n")[0]
        # Outside of the block above, which holds on to all that was computed until it is left.
        raise self._too_large(sample, step, reason)

    def _backward(self, sample: Sample, step: int, parts: int) -> Figures:
        seed = self.config.seed * 1_000_003 + step
        # Dropout draws from the global generator, so that one begins anew too, for every micro-batch of a step: a
        # resume is exact. Its masks belong to a micro-batch, not to items as all other numbers do. They are the same
        # whichever process computes it, but another number of processes x micro-batches cuts the batch otherwise and
        # draws others, and a GPU draws others than a CPU.
        torch.manual_seed((seed * 65_537 + sample.portion.items.start) % 2**63)
        generator = torch.Generator(self.device).manual_seed(seed)
        loss, figures = self.stage.loss(sample, generator, figures=step % FIGURES_EVERY == 0)
        (loss / parts).backward()
        return {"loss": loss.detach(), **figures}

    def _too_large(self, sample: Sample, step: int, reason: str) -> ResourceError:
        """What to say when a micro-batch does not fit: the largest that does, found by trying."""
        tried, share = len(sample.low_res), self.config.batch // self.world.size

        def attempt(size: int) -> None:
            self.optimiser.zero_grad(set_to_none=True)
            self._backward(sample.first(size), step, 1)

        fits = largest_that_fits((size for size in range(tried - 1, 0, -1) if share % size == 0), attempt)
        self.optimiser.zero_grad(set_to_none=True)
        remedy = "Not even one does: make data.in_plane, data.slices or the network smaller."
        if fits is not None:
            remedy = f"{fits} fit: --set accumulate={share // fits} computes so many at once and changes no result."
        return ResourceError(
            f"Expected {tried} crops at once to fit into the memory of {self.device}, they do not ({reason}). {remedy}"
        )


def mean_figures(rows: Sequence[Mapping[str, Tensor]]) -> Figures:
    """Mean of each figure over the rows that have it; a gain over crops without tissue is no number and left out."""
    means = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        values = torch.stack([row[name] for row in rows if name in row])
        means[name] = values.mean() if name in ("loss", "gradient") else values.nanmean()
    return means
