"""The scripts that make reference values of lattices and of the Cox process: right, and clean on another device."""

from __future__ import annotations

import importlib.util
import math
import sys
from types import ModuleType

import pytest
import torch
from pretended import DEVICE, Pretended, pretended

from nessampler.methods.density.effort import DensityEffort
from nessampler.methods.density.sample import sample_density
from nessampler.paths import LinearPath
from nessampler.runs import catalogue
from nessampler.runs.config import DensityConfig, load, resolve
from nessampler.runs.density_problem import prepare_density
from nessampler.targets.phi4 import FreeField, Phi4


def script(system: str) -> ModuleType:
    name = f"reference_{system.replace('-', '_')}"
    spec = importlib.util.spec_from_file_location(name, catalogue.root() / system / "reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their annotations up
    spec.loader.exec_module(module)
    return module


LATTICE, COX = script("phi4-16"), script("lgcp-1600")
SMALL = "--sweeps 240 --chains 128 --pilots 400 --pilot-sweeps 8 --features 8 --burn-in 6 --orders 5 7"


@pytest.mark.parametrize("magnetisation", [0.0, 0.5])
@pytest.mark.parametrize("dimensions", [2, 3])
def test_the_path_of_couplings_is_the_linear_one(dimensions: int, magnetisation: float) -> None:
    base = FreeField.massive(3, mass_squared=1.0, dimensions=dimensions, magnetisation=magnetisation)
    target = Phi4(3, quartic=0.6, dimensions=dimensions)
    x = base.sample(5, generator=torch.Generator().manual_seed(0))
    t = torch.linspace(0, 1, 5, dtype=torch.float64)
    own, other = (path.evaluate(t, x) for path in (LATTICE.CouplingPath(base, target), LinearPath(base, target)))
    for name in ("energy", "score", "time_derivative"):
        torch.testing.assert_close(getattr(own, name), getattr(other, name), rtol=1e-10, atol=1e-10)
    wrong = LATTICE.CouplingPath(base, Phi4(3, quartic=0.7, dimensions=dimensions)).evaluate(t, x)
    assert float((wrong.time_derivative - other.time_derivative).abs().max()) > 1e-3


@pytest.mark.parametrize(("quartic", "magnetisation"), [pytest.param(0.8, 0.0, marks=pytest.mark.slow), (0.6, 0.6)])
def test_integration_agrees_with_the_transfer_matrix(quartic: float, magnetisation: float) -> None:
    given = ["--size", "3", "--quartic", str(quartic), "--magnetisation", str(magnetisation), *SMALL.split()]
    args, target = LATTICE.arguments(given), Phi4(3, quartic=quartic)
    with torch.no_grad():
        value, error = LATTICE.thermodynamic_integration(target, args)
    exact = LATTICE.transfer_matrix(target, 20)
    assert error < 0.005
    assert abs(value - exact) < 4 * error
    assert abs(value + 0.03 - exact) > 4 * error


@pytest.mark.parametrize("method", ["ais", "lsq"])
def test_an_ordered_lattice_of_the_catalogue_has_the_log_z_of_the_transfer_matrix(method: str) -> None:
    source = catalogue.root() / "phi4-8-ordered" / "system.toml"
    config = resolve(load(source), settings=["target.size=3", "numerics.dtype=float64"])
    assert isinstance(config, DensityConfig)
    problem = prepare_density(config, source.parent).problem
    effort = DensityEffort(walkers=3000, pilot_walkers=600, pilot_steps=8, steps=10, reverse_walkers=0)
    found = sample_density(problem, method=method, effort=effort).log_z
    exact = LATTICE.transfer_matrix(Phi4(3, quartic=0.6), 20)
    assert found.value is not None
    assert found.std_error is not None
    assert found.std_error < 0.03
    assert abs(found.value - exact) < 4 * found.std_error
    assert abs(found.value - math.log(2) - exact) > 4 * found.std_error  # one of the two magnetisations alone


@pytest.mark.parametrize(
    "route", ["ti", *(pytest.param(r, marks=pytest.mark.slow) for r in ("two-sided", "phase", "drifted", "cube"))]
)
def test_every_route_of_a_lattice_stays_on_its_device(route: str) -> None:
    options = "--size 3 --quartic 0.8 --sweeps 16 --chains 4 --pilots 40 --pilot-sweeps 2 --features 2 --burn-in 1"
    rest = "--orders 1 2 --walkers 8 --steps 3 --chain-steps 10 --inner 1.0 --drifted-walkers 8 --drifted-steps 3"
    args = LATTICE.arguments([*options.split(), *rest.split(), "--device", DEVICE.type])
    if route == "cube":
        args.dimensions, args.magnetisation = 3, 0.5
    target = Phi4(3, quartic=0.8, dimensions=args.dimensions)
    with torch.no_grad(), pretended():
        if route in ("ti", "cube"):
            assert math.isfinite(LATTICE.thermodynamic_integration(target, args)[0])
        elif route == "phase":
            LATTICE.phase(target, args)
        else:
            assert math.isfinite(LATTICE.two_sided(target, args, drifted=route == "drifted")[0])


@pytest.mark.parametrize("route", ["ti", *(pytest.param(r, marks=pytest.mark.slow) for r in ("two-sided", "smc"))])
def test_every_route_of_the_cox_process_stays_on_its_device(route: str) -> None:
    options = "--chains 4 --sweeps 8 --pilots 40 --pilot-sweeps 2 --burn-in 1 --orders 2 2 --walkers 8 --steps 2"
    rest = "--chain-steps 10 --particles 32 --islands 8 --conditional-ess 0.3"
    args = COX.arguments([*options.split(), *rest.split(), "--device", DEVICE.type])
    with torch.no_grad(), pretended():
        assert math.isfinite(COX.ROUTES[route](COX.problem_of(args), args)[0])


def test_the_device_that_is_not_there_is_as_strict_as_one_that_is() -> None:
    with torch.no_grad(), pretended():
        generator = torch.Generator(device=DEVICE).manual_seed(0)
        x = torch.randn(3, 2, generator=generator, device=DEVICE)
        assert isinstance(x, Pretended)
        assert float((x + x.mean()).sum()) == pytest.approx(2 * float(x.sum()), rel=1e-5)
        assert x.cpu().numpy().shape == (3, 2)
        with pytest.raises(RuntimeError, match="on two devices"):
            x + torch.ones(2)
        with pytest.raises(RuntimeError, match="needs a generator"):
            torch.randn(2, generator=generator)
        with pytest.raises(TypeError, match="is no array"):
            x.numpy()
