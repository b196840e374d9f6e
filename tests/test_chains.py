"""Long chains of the target: right, and quick where a lattice has waves much softer than its base."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from nessampler.errors import InputError
from nessampler.kernels import SpectralMass
from nessampler.methods.density.chains import WORST_RHAT, Chains, folded, long_chains
from nessampler.methods.density.magnetised import magnetised_field
from nessampler.methods.density.tuning import Hamiltonian, spectral
from nessampler.paths import LinearPath
from nessampler.targets import Counted
from nessampler.targets.phi4 import FreeField, Phi4, lattice_momenta

SIZE, SOFT = 8, 0.02


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("size", "dimensions"), [(7, 2), (6, 3)])
def test_the_spectral_mass_of_a_free_field_is_its_precision(size: int, dimensions: int) -> None:
    field = FreeField.massive(size, mass_squared=0.5, dimensions=dimensions)
    x = field.sample(20_000, generator=seeded(0))
    kept = (torch.arange(len(x)) < 10_000).double() / 10_000
    x[10_000:] = 7.0  # of weight zero
    found = spectral(x, kept).precision / field.precision
    # A shell of one mode has a relative error of √(2/n); three shells of each lattice are that small.
    assert float((found - 1).abs().max()) < 4 * (2 / 10_000) ** 0.5
    assert float((spectral(x, kept / 2 + 0.5 / len(x)).precision / field.precision - 1).abs().max()) > 0.1


def test_modes_of_one_wavelength_share_their_mass() -> None:
    x = FreeField.massive(6, mass_squared=1.0).sample(50, generator=seeded(0))
    precision = spectral(x, torch.full((50,), 0.02, dtype=torch.float64)).precision
    momenta = lattice_momenta(6, 2)
    for value in momenta.unique():
        shell = precision[(momenta - value).abs() < 1e-9]
        assert float(shell.max() - shell.min()) == 0.0


@dataclass(frozen=True)
class Frozen:
    """A spectral mass that is kept, because nothing knows that it is one."""

    own: SpectralMass

    def momentum(self, noise: Tensor) -> Tensor:
        return self.own.momentum(noise)

    def velocity(self, momentum: Tensor) -> Tensor:
        return self.own.velocity(momentum)


def soft_field(mass: SpectralMass | Frozen) -> Chains:
    """Chains of a field whose longest wave is fifty times softer than the base's."""
    base = FreeField.massive(SIZE, mass_squared=1.0)
    path = LinearPath(base, FreeField.massive(SIZE, mass_squared=SOFT))
    x = base.sample(200, generator=seeded(1))
    return long_chains(path, x, Hamiltonian(5, mass=mass), steps=300, generator=seeded(2))


def test_chains_take_the_mass_of_what_they_see() -> None:
    mass = SpectralMass(2 * (lattice_momenta(SIZE, 2) + 1.0))
    refitted, kept = soft_field(mass), soft_field(Frozen(mass))
    assert refitted.rhat <= WORST_RHAT < kept.rhat
    assert not refitted.flags
    assert [flag.code for flag in kept.flags] == ["chains_disagree"]
    square = refitted.x.mean((1, 2)).square()
    error = float(square.std()) / len(square) ** 0.5
    exact = 1 / (SIZE**2 * 2 * SOFT)
    assert error < 0.12 * exact
    assert abs(float(square.mean()) - exact) < 4 * error
    base = 1 / (SIZE**2 * 2.0)
    assert abs(float(square.mean()) - base) > 8 * error


def test_chains_too_few_or_too_short_to_compare_are_refused() -> None:
    base = FreeField.massive(4, mass_squared=1.0)
    path, x = LinearPath(base, FreeField.massive(4, mass_squared=2.0)), base.sample(2, generator=seeded(0))
    with pytest.raises(InputError, match="at least 2 chains of 8 steps: got 1 of 10"):
        long_chains(path, x[:1], Hamiltonian(), steps=10, generator=seeded(0))
    with pytest.raises(InputError, match="got 2 of 7"):
        long_chains(path, x, Hamiltonian(), steps=7, generator=seeded(0))


def test_a_mass_of_an_ordered_lattice_is_that_of_one_well() -> None:
    generator = torch.Generator().manual_seed(0)
    about_zero, about_two = (FreeField.massive(6, mass_squared=1.0, magnetisation=c) for c in (0.0, 2.0))
    equal = torch.full((4000,), 1 / 4000, dtype=torch.float64)
    plain, wells = (field.sample(4000, generator=generator) for field in (about_zero, about_two))
    torch.testing.assert_close(folded(plain), plain, rtol=0, atol=0)  # one well: as it is
    exact = float(about_two.precision[0, 0])
    error = exact * math.sqrt(2 / 4000)
    assert error < 0.05 * exact
    assert abs(float(spectral(folded(wells), equal).precision[0, 0]) - exact) < 4 * error
    assert abs(float(spectral(wells, equal).precision[0, 0]) - exact) > 4 * error


def test_chains_from_the_classical_vacuum_find_the_magnetisation() -> None:
    lattice = Phi4(6, quartic=0.4)
    counted = Counted(lattice)
    with counted.stage("base"):
        found = magnetised_field(lattice, counted=counted, generator=seeded(0))
    assert counted.tally("base").gradient >= 64 * 80 * 5
    start = FreeField.massive(6, mass_squared=1.0, magnetisation=1.0).sample(512, generator=seeded(1))
    path = LinearPath(FreeField.massive(6, mass_squared=1.0), lattice)
    x = long_chains(path, start, Hamiltonian(5, mass=SpectralMass(2 * (lattice_momenta(6, 2) + 0.3))), steps=100,
                    symmetry=lambda x, _: x, generator=seeded(2)).x  # fmt: skip
    exact = lattice.magnetisation(x).abs()
    error = float(exact.std()) / math.sqrt(512)
    assert error < 0.01
    assert abs(found.magnetisation - float(exact.mean())) < 4 * math.hypot(error, 0.01)
    assert math.sqrt(1 / 0.8) > found.magnetisation + 0.05  # the vacuum itself
    assert magnetised_field(Phi4(6, quartic=0.4, mass_squared=0.5), generator=seeded(0)).magnetisation == 0
    with pytest.raises(InputError, match="two steps at least: got 1"):
        magnetised_field(lattice, steps=1, generator=seeded(0))
