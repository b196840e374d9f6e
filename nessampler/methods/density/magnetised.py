"""A free field about the magnetisations of a lattice, which short chains find."""

from __future__ import annotations

import math

import torch

from nessampler.errors import InputError
from nessampler.kernels import HMC, SpectralMass
from nessampler.paths import LinearPath
from nessampler.targets import Target
from nessampler.targets.phi4 import FreeField, Phi4, lattice_momenta

__all__ = ["magnetised_field"]

LEAPFROGS, ACCEPTANCE = 5, 0.8


@torch.no_grad()
def magnetised_field(
    lattice: Phi4,
    *,
    mass_squared: float = 1.0,
    walkers: int = 64,
    steps: int = 80,
    counted: Target | None = None,
    generator: torch.Generator,
) -> FreeField:
    r"""The field of mass squared M² about $\pm\langle|M|\rangle$, from chains that start at the classical vacuum.

    The action says where that is, $\varphi_0^2 = -m^2 / 2\lambda$; fluctuations make the magnetisation smaller. Chains
    from there have no walls between domains to get rid of. Where $m^2 \ge 0$ there is one vacuum, zero, and no chain is
    run. Of a disordered lattice $\langle|M|\rangle$ is what its size leaves.

    Args:
        lattice: whose magnetisation is looked for.
        mass_squared: of the base.
        walkers, steps: chains and their trajectories, of five gradients each; the second half is averaged.
        counted: evaluated instead of the lattice, such as a `Counted` of it.
        generator: source of randomness.

    Raises:
        InputError: fewer than two steps.

    Example:
        >>> field = magnetised_field(Phi4(4, quartic=0.3), generator=torch.Generator().manual_seed(0))
        >>> 1.0 < field.magnetisation < 1.29  # the classical vacuum is at 1.29
        True
    """
    if steps < 2:
        raise InputError(f"chains that are averaged over their second half have two steps at least: got {steps}")
    shape = {"dimensions": lattice.dimensions, "mass_squared": mass_squared}
    plain = FreeField.massive(lattice.size, **shape)
    vacuum = math.sqrt(max(0.0, -lattice.mass_squared / (2 * lattice.quartic))) if lattice.quartic else 0.0
    if vacuum == 0:
        return plain
    path = LinearPath(plain, counted or lattice)
    mass = SpectralMass(2 * (lattice_momenta(lattice.size, lattice.dimensions) + mass_squared))
    walkers_now = HMC(path, 0.2, LEAPFROGS, mass).start(1.0, vacuum + plain.sample(walkers, generator=generator))
    size, seen = 0.2, []
    for step in range(steps):
        walkers_now, _ = HMC(path, size, LEAPFROGS, mass).step(1.0, 1.0, walkers_now, generator=generator)
        assert walkers_now.acceptance is not None
        size *= math.exp(float(walkers_now.acceptance.mean()) - ACCEPTANCE)
        if 2 * step >= steps:
            seen.append(lattice.magnetisation(walkers_now.x).abs().mean())
    return FreeField.massive(lattice.size, **shape, magnetisation=float(torch.stack(seen).mean()))
