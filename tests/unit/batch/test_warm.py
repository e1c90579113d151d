"""Warm-up: it uses all that a scan will use, and leaves nothing behind."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

from medld.batch.settings import EnhanceSettings
from medld.batch.warm import warm_up
from medld.checkpoint import Model, load_model
from medld.geometry import Grid, choose_target
from medld.superres import Request, SuperResolver
from medld.volume import Volume


@pytest.fixture(scope="module")
def model() -> Model:
    """The one that ships."""
    return load_model("mri")


@pytest.mark.parametrize("mode", ["fidelity", "detail"])
def test_what_a_scan_runs_the_warm_up_ran(mode: str, model: Model) -> None:
    resolver = SuperResolver(model, device="cpu")
    shape = (64, 64, 16)
    scan = Volume(np.random.default_rng(1).normal(500, 90, shape), Grid(shape, np.diag([1.0, 1.0, 4.0, 1.0])), "mr")
    request = Request(choose_target(scan.grid), mode=mode, steps=1)  # type: ignore[arg-type]
    ran: set[nn.Module] = set()
    hook = register_module_forward_hook(lambda layer, *_: ran.add(layer))
    try:
        warm_up(model, resolver, EnhanceSettings(mode=mode))
        warmed = set(ran)
        ran.clear()
        resolver.restore(scan, request)
    finally:
        hook.remove()
    assert ran
    assert ran <= warmed


def test_a_restoration_is_the_same_after_it(model: Model) -> None:
    resolver = SuperResolver(model, device="cpu")
    shape = (32, 32, 8)
    scan = Volume(np.random.default_rng(2).normal(500, 90, shape), Grid(shape, np.diag([1.0, 1.0, 3.0, 1.0])), "mr")
    request = Request(choose_target(scan.grid), mode="detail", steps=1, seed=4)
    before = resolver.restore(scan, request).volume.array.copy()
    state = torch.random.get_rng_state()
    warm_up(model, resolver, EnhanceSettings(mode="detail"))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert np.array_equal(resolver.restore(scan, request).volume.array, before)


def test_a_model_that_fails_is_left_to_fail_with_a_scan(model: Model) -> None:
    class Broken(nn.Module):
        def forward(self, *_: object) -> None:
            raise RuntimeError("broken")

    broken = replace(model, networks=replace(model.networks, one_step=Broken()))
    warm_up(broken, SuperResolver(broken, device="cpu"), EnhanceSettings())
