"""Arguments that cannot be meant are named before any work, and those that can be taken are."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.distributions.transforms import ReshapeTransform

import nessampler as ns
from nessampler.methods.effort import Training
from nessampler.methods.ledger import Prices
from nessampler.targets import Gaussian, Tally

ENDS = (
    Gaussian(torch.zeros(2).double(), torch.ones(2).double()),
    Gaussian(torch.ones(2).double(), torch.full((2,), 0.5).double()),
)
EXACT = ENDS[0].log_z - ENDS[1].log_z
X = [end.sample(300, generator=torch.Generator().manual_seed(i)) for i, end in enumerate(ENDS)]
NAN = float("nan")


def difference(*samples: object, method: str = "plain", **arguments: object) -> ns.Difference:
    return ns.free_energy(*ENDS, *(samples or X), method=method, **arguments)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        *[
            (lambda name=name, value=value: ns.Effort(**{name: value}), f"{name} must be a whole number of at least 1")
            for name in ("fields_steps", "switching_steps", "tuning_samples")
            for value in (0, -3, 2.5, True)
        ],
        *[
            (lambda name=name, value=value: Training(**{name: value}), f"{name} must be a whole number of at least 1")
            for name in ("batch_size", "width", "depth", "sampling_steps", "patience")
            for value in (0, -1)
        ],
        (lambda: Training(steps=-1), "steps must be a whole number of at least 0: got -1; leave it out for 1000"),
        (lambda: Training(refine_steps=-1), "refine_steps must be a whole number of at least 0"),
        *[
            (lambda value=value: Training(learning_rate=value), "learning_rate .* above 0")
            for value in (NAN, 0.0, -1.0)
        ],
        *[
            (lambda name=name, value=value: Prices(**{name: value}), f"the price {name} .* not below 0: got")
            for name in ("state_a", "state_b", "network")
            for value in (NAN, -1.0, math.inf, "dear")
        ],
        *[
            (lambda blocks=blocks: ns.Effort(blocks=blocks), "three positive fractions that add up to 1")
            for blocks in ((NAN, 0.5, 0.5), ("a", "b", "c"), (0.5, 0.5), (0.5, 0.6, -0.1), (0.2, 0.2, 0.2), 0.4, None)
        ],
        (lambda: ns.Effort(feat=100), "feat must be of type Training: got 100"),
        (lambda: ns.Effort(prices=(1.0, 1.0, 1.0)), "prices must be of type Prices"),
    ],
)
def test_an_effort_that_cannot_be_spent_is_refused(make: Callable[[], object], message: str):
    with pytest.raises(ns.InputError, match=message):
        make()


def test_efforts_that_can_be_spent_are_taken():
    assert Training(steps=0, refine_steps=0).steps == 0  # the analytic fields alone
    assert ns.Effort(blocks=[0.5, 0.25, 0.25], tuning_samples=np.int64(3)).tuning_samples == 3
    assert Prices(state_a=0).state_a == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        *[({"seed": seed}, "seed must be a whole number of at least 0") for seed in (-1, 1.5, None, "0", True)],
        ({"coordinates": "internal"}, "coordinates must be of type Transform: got 'internal'"),
        ({"coordinates": ReshapeTransform(torch.Size([3]), torch.Size([3]))}, r"of event shape \(2,\).*Reshape"),
        ({"structure": "lattice"}, "structure must be of type Structure: got 'lattice'"),
        ({"effort": {"fields_steps": 3}}, "effort must be of type Effort: got {"),
        ({"checkpoint": 3}, "checkpoint must be of type str: got 3; pass the path"),
        ({"endstate_evaluations": (3,)}, r"those of A and those of B: got \(3,\)"),
        ({"endstate_evaluations": 3}, "those of A and those of B: got 3"),
        ({"endstate_evaluations": ("a", 3)}, "of a state must be a whole number .* got 'a'; .* or a Tally"),
        ({"method": "tfep", "effort": ns.Effort(feat=Training(steps=0))}, "tfep is nothing but what it learns"),
    ],
)
def test_arguments_of_the_wrong_kind_are_named(arguments: dict, message: str):
    with pytest.raises(ns.InputError, match=message):
        difference(**arguments)


def test_seeds_of_densities_and_absolute_free_energies_are_whole_numbers_too():
    with pytest.raises(ns.InputError, match="seed must be a whole number of at least 0: got -1"):
        ns.absolute_free_energy(ENDS[0], X[0], seed=-1)
    with pytest.raises(ns.InputError, match=r"seed must be a whole number of at least 0: got 1\.5"):
        ns.sample(ENDS[0], seed=1.5)


def test_a_checkpoint_is_named_by_a_string_too(tmp_path: Path):
    effort = ns.Effort(tuning_samples=20, feat=Training(steps=2, batch_size=8, width=4, depth=1, sampling_steps=2))
    difference(method="feat", effort=effort, checkpoint=str(tmp_path / "training.safetensors"))
    assert list(tmp_path.glob("training*.safetensors"))


def test_evaluations_of_end_states_are_numbers_or_tallies():
    few, more = (difference(endstate_evaluations=n).evaluations for n in ((0, 0), [np.int64(7), Tally(energy=2)]))
    for state, kind, spent in (("state_a", "gradient", 7), ("state_b", "energy", 2)):
        assert more[state]["endstates"][kind] - few[state]["endstates"][kind] == spent


# Samples -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "samples",
    [
        (X[0].float(), X[1]),
        (X[0], X[1].float()),
        (X[0].numpy(), X[1].float()),
        (X[0].clone().requires_grad_(), X[1]),
        (X[0], X[1].clone().requires_grad_()),
    ],
)
def test_samples_of_two_precisions_or_with_a_history_make_a_difference(samples):
    found = difference(*samples, method="map")
    assert abs(found.delta_f.delta_f - EXACT) < 1e-4  # a map between normals leaves nothing but rounding
    assert found.rung.trips[0].start.dtype == torch.float64
    assert not found.rung.trips[0].start.requires_grad


def test_whole_numbers_are_samples():
    wide = [Gaussian(torch.zeros(2).double(), torch.full((2,), scale).double()) for scale in (60.0, 80.0)]
    whole = [end.sample(400, generator=torch.Generator().manual_seed(5)).round().long() for end in wide]
    given = ns.free_energy(*wide, *whole, method="map")
    expected = ns.free_energy(*wide, *(x.double() for x in whole), method="map")
    assert given.delta_f == expected.delta_f


def test_complex_numbers_are_no_samples():
    for samples in (X[0].to(torch.complex128), X[0].numpy() + 0j):
        with pytest.raises(ns.InputError, match=r"samples are real numbers: those of A are torch\.complex128"):
            difference(samples, X[1])


def test_absolute_free_energies_take_what_differences_take():
    mean = torch.tensor([0.3, -0.2], dtype=torch.float64)

    def log_density(x: torch.Tensor) -> torch.Tensor:
        return -0.5 * (x - mean).square().sum(-1) - 0.1 * (x - mean)[:, 0] ** 4

    normal = torch.distributions.Normal(mean, 1.0)
    x = (mean + X[0]).numpy()
    found = ns.absolute_free_energy(normal, x, method="plain")
    assert abs(found.log_z) < 4 * found.free_energy.std_error + 1e-6
    target = ns.absolute_free_energy(log_density, x[np.abs(x[:, 0] - 0.3) < 9.0], method="plain")
    assert target.log_z < math.log(2 * math.pi)
    for given, message in (
        (["a", "b"], "samples are numbers"),
        (x + 0j, "samples are real numbers: those of the state"),
    ):
        with pytest.raises(ns.InputError, match=message):
            ns.absolute_free_energy(normal, given)
    with pytest.raises(ns.InputError, match="got a str of shape None, without sample and log_z"):
        ns.absolute_free_energy(normal, x, base="normal")
    with pytest.raises(ns.InputError, match="coordinates must be of type Transform: got 'angles'"):
        ns.absolute_free_energy(normal, x, coordinates="angles")
