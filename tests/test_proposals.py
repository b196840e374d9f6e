"""A chain with transported proposals has the density of B as its law, whatever the transport, if works are exact."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions.transforms import AffineTransform, ComposeTransform

from nessampler.errors import InputError
from nessampler.kernels import HMC, Compose, Flow, Identity, Kernel, Langevin, Map
from nessampler.kernels.ode_map import OdeMap
from nessampler.methods import proposals
from nessampler.methods.proposals import Chain, hamiltonian, independence_chain
from nessampler.methods.transport import Transport
from nessampler.paths import EndpointPath, LinearPath
from nessampler.targets import AnharmonicWell, TransformedTarget

Wells = tuple[AnharmonicWell, AnharmonicWell]
CHAINS, DRAWS = 3000, 5
TIMES = (0.0, 0.3, 0.6, 1.0)


def transports(wells: Wells, random_fields: Callable) -> dict[str, Transport]:
    """From nothing to noise: no step, a map that is wrong on purpose, and an untrained network with encoded ends."""
    a, b = wells
    path = EndpointPath(a, b)
    wrong = AffineTransform(torch.tensor([-0.3, 0.4, 0.0]), torch.tensor([0.8, 1.1, 0.9]), event_dim=1)
    stretch = AffineTransform(torch.zeros(3), torch.full((3,), 1.3), event_dim=1)
    stretched = EndpointPath(TransformedTarget(a, stretch), TransformedTarget(b, stretch))
    fields = random_fields(3, seed=4, velocity=0.4, score=0.6)
    return {
        "plain": Transport("plain", "", Identity(), path, (0.0, 1.0)),
        "map": Transport("map", "", Map(wrong), path, (0.0, 1.0)),
        "noisy": Transport("feat", "", Langevin(fields, 0.3), stretched, TIMES, stretch, stretch),
    }


def chain(transport: Transport, wells: Wells, *, local: bool, seed: int = 0, step_size: float = 0.5) -> Chain:
    generator = torch.Generator().manual_seed(seed)
    a, b = (well.sample(n, generator=generator) for well, n in zip(wells, (CHAINS * DRAWS, CHAINS), strict=True))
    move = hamiltonian(transport.path.end, step_size=step_size, leapfrog_steps=2) if local else None
    return independence_chain(transport, a, b, local=move, generator=generator)


def deviations(x: Tensor, well: AnharmonicWell) -> tuple[np.ndarray, np.ndarray]:
    """z-scores and standard errors of first to third moments, at the last draw of independent chains."""
    grid = np.linspace(-7, 7, 2001)
    z, errors = [], []
    for axis in range(3):
        density = well.marginal(axis, grid)
        for power in (1, 2, 3):
            values = x[:, -1, axis].numpy() ** power
            error = values.std() / len(values) ** 0.5
            z.append((values.mean() - np.trapezoid(grid**power * density, grid)) / error)
            errors.append(error / values.std())
    return np.array(z), np.array(errors)


@pytest.mark.parametrize("local", [False, True])
@pytest.mark.parametrize("name", ["plain", "map", "noisy"])
def test_moments_are_those_of_b(wells: Wells, random_fields: Callable, name: str, local: bool) -> None:
    found = chain(transports(wells, random_fields)[name], wells, local=local)
    z, errors = deviations(found.x, wells[1])
    assert np.abs(z).max() <= 4
    assert errors.max() < 0.02
    assert 0.05 < found.acceptance < 0.95
    assert (found.local_acceptance is not None) == local


@pytest.mark.parametrize("name", ["map", "noisy"])
def test_accepting_everything_is_noticed(
    wells: Wells, random_fields: Callable, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(proposals, "metropolis", lambda new, old, uniform: torch.ones_like(new, dtype=torch.bool))
    z, _ = deviations(chain(transports(wells, random_fields)[name], wells, local=False).x, wells[1])
    assert np.abs(z).max() > 8


@pytest.mark.parametrize("name", ["map", "noisy"])
def test_a_new_path_with_the_weight_of_its_inverse_is_noticed(
    wells: Wells, random_fields: Callable, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    right = proposals._path_given_end  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr(proposals, "_path_given_end", lambda *given: -right(*given))
    found = chain(transports(wells, random_fields)[name], wells, local=True, step_size=0.05)
    z, _ = deviations(found.x, wells[1])
    assert np.abs(z).max() > 6


def test_the_weight_of_a_path_given_its_end_averages_to_the_inverse_ratio(
    wells: Wells, random_fields: Callable
) -> None:
    transport, generator = transports(wells, random_fields)["noisy"], torch.Generator().manual_seed(1)
    x = wells[1].sample(20_000, generator=generator)
    assert transport.encode_b is not None
    log_w = proposals._path_given_end(transport, transport.encode_b(x), generator)  # pyright: ignore
    inverse = (-log_w).exp()
    error = float(inverse.std()) / len(inverse) ** 0.5
    exact = np.exp(wells[0].log_z - wells[1].log_z)
    assert error < 0.05 * exact
    assert abs(float(inverse.mean()) - exact) < 4 * error
    assert abs(float(log_w.exp().mean()) - exact) > 8 * error  # the sign is seen


def test_a_perfect_map_is_always_accepted() -> None:
    a = AnharmonicWell([0.0], stiffness=[1.0], quartic=[0.1], skew=[0.5], coupling=0.0)
    b = AnharmonicWell([2.0], stiffness=[1.0], quartic=[0.1], skew=[0.5], coupling=0.0)
    shift = AffineTransform(torch.tensor([2.0]), torch.ones(1), event_dim=1)
    transport, g = Transport("map", "", Map(shift), EndpointPath(a, b), (0.0, 1.0)), torch.Generator().manual_seed(0)
    found = independence_chain(transport, a.sample(60, generator=g), b.sample(3, generator=g), generator=g)
    assert found.acceptance == pytest.approx(1.0)
    assert found.x.shape == (3, 20, 1)
    assert found.evaluations == 63


def test_too_few_samples_of_a_are_refused(wells: Wells, random_fields: Callable) -> None:
    g = torch.Generator().manual_seed(0)
    with pytest.raises(InputError, match="got 3 samples for 4 chains"):
        independence_chain(
            transports(wells, random_fields)["map"],
            wells[0].sample(3, generator=g),
            wells[1].sample(4, generator=g),
            generator=g,
        )


def torn(t: float, x: Tensor) -> tuple[Tensor, Tensor]:
    """Steep enough that a chain by its steps settles on another density than B."""
    v = torch.tanh(12 * x)
    return v, 12 * (1 - v.square()).sum(-1)


class Shrinking:
    """An affine field, whose steps have exact log-determinants."""

    def __call__(self, t: float, x: Tensor) -> tuple[Tensor, Tensor]:
        return -0.1 * x, torch.full((len(x),), -0.1 * x.shape[1], dtype=torch.float64)

    def affine(self, t: float) -> Tensor:
        return torch.full((3,), -0.1, dtype=torch.float64)


def along(kernel: Kernel, wells: Wells, systematic: float = 0.0) -> Chain:
    transport = Transport("tfep", "", kernel, LinearPath(*wells), (0.0, 1.0), systematic=systematic)
    return chain(transport, wells, local=False)


@pytest.mark.parametrize(
    "kernel",
    [
        Flow(torn),
        Map(OdeMap(torn)),
        Map(OdeMap(torn).inv),
        Map(ComposeTransform([AffineTransform(0.0, 1.1, event_dim=1), OdeMap(torn)])),
    ],
    ids=["flow", "ode", "inverse", "composed"],
)
def test_integrated_flows_are_refused(wells: Wells, kernel: Kernel) -> None:
    with pytest.raises(InputError, match=r"got the transport 'tfep' along a flow .* use a map in closed form"):
        along(kernel, wells)
    with pytest.raises(InputError, match="integrated numerically"):
        along(Compose(kernel, HMC(LinearPath(*wells), 0.3, 2)), wells)


def test_a_measured_error_of_works_is_refused(wells: Wells) -> None:
    with pytest.raises(InputError, match=r"measured error 1\.0e-03 kT"):
        along(Identity(), wells, systematic=1e-3)


def test_flows_of_affine_fields_are_exact_and_welcome(wells: Wells) -> None:
    z, errors = deviations(along(Flow(Shrinking()), wells).x, wells[1])
    assert np.abs(z).max() <= 4
    assert errors.max() < 0.02
