"""Lennard-Jones and Coulomb interactions of all pairs of atoms."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import openmm
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from nessampler.molecular.force_field.ewald import Ewald
from nessampler.molecular.force_field.geometry import take
from nessampler.molecular.force_field.pairs import pairs_except, squared_distance, with_slopes
from nessampler.molecular.force_field.protocol import UnsupportedForce, column, index_rows, plain

__all__ = ["COULOMB", "Cutoff", "Nonbonded"]

COULOMB = 138.93545764438198  # 1 / (4 pi epsilon_0) in kJ/mol nm / e^2, as in OpenMM 8


@dataclass(frozen=True)
class Cutoff:
    """What ends at a distance, lengths in nm.

    Attributes:
        distance: pairs beyond do not interact.
        dielectric: of the reaction field's solvent.
        switch: where the Lennard-Jones energy starts to be switched off, if it is.
        periodic: nearest images count.
        tail: adds the Lennard-Jones energy beyond the cutoff, as if the density there were uniform.
    """

    distance: float
    dielectric: float = 78.3
    switch: float | None = None
    periodic: bool = False
    tail: bool = False

    @property
    def reaction_field(self) -> tuple[float, float]:
        """The factor of r² and the shift that the reaction field adds to 1/r."""
        e, r = self.dielectric, self.distance
        return (e - 1) / (2 * e + 1) / r**3, 3 * e / (2 * e + 1) / r

    @property
    def tail_integrals(self) -> tuple[float, float]:
        r"""$\int r^{-10} (1 - S)\, dr$ and $\int r^{-4} (1 - S)\, dr$ of what the switch S and the cutoff take away."""
        beyond = [1 / (9 * self.distance**9), 1 / (3 * self.distance**3)]
        if self.switch is not None:
            nodes, weights = np.polynomial.legendre.leggauss(128)
            half = (self.distance - self.switch) / 2
            r, t = self.switch + half * (nodes + 1), (nodes + 1) / 2
            taken = half * weights * t**3 * (10 - 15 * t + 6 * t**2)
            beyond = [b + float((taken * r**p).sum()) for b, p in zip(beyond, (-10, -4), strict=True)]
        return beyond[0], beyond[1]


class _Offsets(nn.Module):
    """Linear dependence of charges, sigmas and epsilons on global parameters, `value + scale · parameter`."""

    def __init__(self, rows: Iterable[tuple[str, int, float, float, float]]) -> None:
        super().__init__()
        rows = list(rows)
        self.names = list(dict.fromkeys(r[0] for r in rows))
        self.scales = nn.ParameterList()
        self.moved: list[list[bool]] = []  # by name: of charge, sigma and epsilon
        for k, name in enumerate(self.names):
            mine = [r for r in rows if r[0] == name]
            self.register_buffer(f"index{k}", torch.tensor([r[1] for r in mine]))
            scale = torch.tensor([r[2:] for r in mine], dtype=torch.float64).T[..., None]
            self.moved.append(scale.any(1).flatten().tolist())
            self.scales.append(nn.Parameter(scale.contiguous(), requires_grad=False))  # (3, offsets, 1)

    def forward(
        self, values: tuple[Tensor, Tensor, Tensor], globals: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        found = list(values)
        for k, (name, scale, moved) in enumerate(zip(self.names, self.scales, self.moved, strict=True)):
            index = getattr(self, f"index{k}")
            change = scale * globals[name]
            for p in range(3):
                if moved[p] or scale.requires_grad:
                    zero = change.new_zeros(len(found[p]), change.shape[-1])
                    found[p] = found[p] + zero.index_add(0, index, change[p])
        return found[0], found[1], found[2]


class Nonbonded(nn.Module):
    r"""Lennard-Jones and Coulomb energies of all pairs, with exceptions of their own parameters.

    $$U = \sum_{i<j} 4 \epsilon_{ij} \left[ \left(\tfrac{\sigma_{ij}}{r}\right)^{12}
          - \left(\tfrac{\sigma_{ij}}{r}\right)^{6} \right] + k_e \frac{q_i q_j}{r}$$

    with $\sigma_{ij} = (\sigma_i + \sigma_j)/2$ and $\epsilon_{ij} = \sqrt{\epsilon_i \epsilon_j}$. A cutoff adds a
    reaction field and may switch the Lennard-Jones energy off; with Ewald's sum the Coulomb energy is that of all
    images. Exceptions are never cut off, and see neither the reaction field nor other images.

    Args:
        charge, sigma, epsilon: by atom, in elementary charges, nm and kJ/mol.
        exceptions: pairs that interact by `exception_charge` (a product of charges), `exception_sigma` and
            `exception_epsilon` instead.
        particle_offsets, exception_offsets: global parameter, index, and the change of charge, sigma and epsilon per
            unit of it.
        default_parameters: of the global parameters.
        cutoff: None for no cutoff.
        ewald: waves of the box; needs a periodic cutoff.
        periodic_exceptions: exceptions are between nearest images.
    """

    pairs: Int[Tensor, "2 pairs"]
    left_out: Int[Tensor, "2 all_exceptions"]
    exceptions: Int[Tensor, "2 exceptions"]
    joined: Int[Tensor, "2 both"]

    def __init__(
        self,
        charge: Sequence[float],
        sigma: Sequence[float],
        epsilon: Sequence[float],
        *,
        exceptions: Sequence[tuple[int, int]] = (),
        exception_charge: Sequence[float] = (),
        exception_sigma: Sequence[float] = (),
        exception_epsilon: Sequence[float] = (),
        particle_offsets: Iterable[tuple[str, int, float, float, float]] = (),
        exception_offsets: Iterable[tuple[str, int, float, float, float]] = (),
        default_parameters: Mapping[str, float] | None = None,
        cutoff: Cutoff | None = None,
        ewald: Ewald | None = None,
        periodic_exceptions: bool = False,
    ) -> None:
        super().__init__()
        self.charge, self.sigma, self.epsilon = column(charge), column(sigma), column(epsilon)
        self.register_buffer("pairs", pairs_except(len(charge), exceptions))
        self.register_buffer("left_out", index_rows(exceptions, 2))
        exception_offsets = list(exception_offsets)
        moved = {o[1] for o in exception_offsets}
        active = [
            k for k in range(len(exceptions)) if exception_charge[k] != 0 or exception_epsilon[k] != 0 or k in moved
        ]
        place = {k: n for n, k in enumerate(active)}
        self.register_buffer("exceptions", index_rows([exceptions[k] for k in active], 2))
        self.register_buffer("joined", torch.cat([self.pairs, self.exceptions], 1) if cutoff is None else None)
        self.exception_charge = column([exception_charge[k] for k in active])
        self.exception_sigma = column([exception_sigma[k] for k in active])
        self.exception_epsilon = column([exception_epsilon[k] for k in active])
        self.particle_offsets = _Offsets(particle_offsets)
        self.exception_offsets = _Offsets((o[0], place[o[1]], *o[2:]) for o in exception_offsets)
        self.cutoff, self.ewald, self.periodic_exceptions = cutoff, ewald, periodic_exceptions
        self.default_parameters = dict(default_parameters or {})

    @classmethod
    def from_openmm(cls, force: openmm.NonbondedForce, system: openmm.System) -> Nonbonded:
        """The same particles, exceptions, offsets and method.

        Raises:
            UnsupportedForce: PME and LJPME, whose meshes are not reproduced, or half of an Ewald sum.
        """
        particles = [plain(force.getParticleParameters(k)) for k in range(force.getNumParticles())]
        exceptions = [plain(force.getExceptionParameters(k)) for k in range(force.getNumExceptions())]
        names = [force.getGlobalParameterName(k) for k in range(force.getNumGlobalParameters())]
        values = [force.getGlobalParameterDefaultValue(k) for k in range(force.getNumGlobalParameters())]
        ewald = force.getNonbondedMethod() == openmm.NonbondedForce.Ewald
        offsets = [force.getParticleParameterOffset(k) for k in range(force.getNumParticleParameterOffsets())]
        moved = [force.getExceptionParameterOffset(k) for k in range(force.getNumExceptionParameterOffsets())]
        return cls(
            *([p[k] for p in particles] for k in range(3)),
            exceptions=[(e[0], e[1]) for e in exceptions],
            exception_charge=[e[2] for e in exceptions],
            exception_sigma=[e[3] for e in exceptions],
            exception_epsilon=[e[4] for e in exceptions],
            particle_offsets=[tuple(plain(o)) for o in offsets],
            exception_offsets=[tuple(plain(o)) for o in moved],
            default_parameters=dict(zip(names, values, strict=True)),
            cutoff=_cutoff(force),
            ewald=Ewald.from_openmm(force, system, COULOMB) if ewald else None,
            periodic_exceptions=force.getExceptionsUsePeriodicBoundaryConditions(),
        )

    def forward(
        self, x: Float[Tensor, "3 atoms walkers"], globals: Mapping[str, Tensor], box: Tensor | None = None
    ) -> Float[Tensor, " walkers"]:
        """The sum of all contributions."""
        return sum((rows.sum(0) for rows in self._parts(x, globals, box)), x.new_zeros(x.shape[-1]))

    def contributions(
        self, x: Float[Tensor, "3 atoms walkers"], globals: Mapping[str, Tensor], box: Tensor | None
    ) -> Float[Tensor, "summands walkers"]:
        """The energy of every pair and exception, and the summands of Ewald's sum and of the tail."""
        return torch.cat(self._parts(x, globals, box))

    def _parts(self, x: Tensor, globals: Mapping[str, Tensor], box: Tensor | None) -> list[Tensor]:
        particles = self.particle_offsets((self.charge, self.sigma, self.epsilon), globals)
        own = (self.exception_charge, self.exception_sigma, self.exception_epsilon)
        apart = _coefficients(*self.exception_offsets(own, globals))
        together = _pair_coefficients(particles, self.pairs)
        if self.cutoff is None:  # exceptions are pairs like any other
            both = tuple(_concatenate(t, a) for t, a in zip(together, apart, strict=True))
            return [with_slopes(_plain_pair, (squared_distance(x, self.joined),), both)]
        outer = box if self.cutoff.periodic else None
        parts = [self._cut_pairs(squared_distance(x, self.pairs, outer), *together)]
        inner = box if self.periodic_exceptions else None
        parts.append(with_slopes(_plain_pair, (squared_distance(x, self.exceptions, inner),), apart))
        if self.ewald is not None:
            assert box is not None
            parts += [self.ewald.contributions(x, particles[0], box), self._images(x, particles[0], inner)]
        if self.cutoff.tail:
            assert box is not None
            parts.append((self._tail() / box.diagonal().prod()).expand(1, x.shape[-1]))
        return parts

    def _cut_pairs(self, square: Tensor, repulsion: Tensor, attraction: Tensor, coulomb: Tensor) -> Tensor:
        assert self.cutoff is not None
        inside = square < self.cutoff.distance**2
        inverse = square.rsqrt()
        sixth = inverse.square() ** 3
        dispersion = (repulsion * sixth - attraction) * sixth
        if self.cutoff.switch is not None:
            dispersion = dispersion * _switch(square, self.cutoff.switch, self.cutoff.distance)
        if self.ewald is not None:
            electric = inverse * torch.erfc(self.ewald.alpha * square * inverse)
        else:
            factor, shift = self.cutoff.reaction_field
            electric = inverse + (factor * square - shift)
        return torch.where(inside, dispersion + coulomb * electric, 0.0)

    def _images(self, x: Tensor, charge: Tensor, box: Tensor | None) -> Tensor:
        """Exceptions are no business of the waves: minus what these contribute for them."""
        assert self.ewald is not None
        i, j = self.left_out
        tiny = 1e-14  # nm^2, where erf(alpha r) / r has long reached its limit
        r = squared_distance(x, self.left_out, box).clamp_min(tiny).sqrt()
        return -COULOMB * take(charge, i) * take(charge, j) * torch.erf(self.ewald.alpha * r) / r

    def _tail(self) -> Tensor:
        r"""$2 \pi N^2$ times the mean over pairs, an atom with itself included, of the energy that is cut off.

        OpenMM takes offsets at the defaults of their global parameters, whatever their value is later.
        """
        assert self.cutoff is not None
        defaults = {name: self.charge.new_tensor(value) for name, value in self.default_parameters.items()}
        particles = self.particle_offsets((self.charge, self.sigma, self.epsilon), defaults)
        n = len(self.charge)
        pairs = torch.triu_indices(n, n, device=self.charge.device)
        repulsion, attraction, _ = _pair_coefficients(particles, pairs)
        twelfth, sixth = self.cutoff.tail_integrals
        return 2 * math.pi * n**2 * (repulsion.mean() * twelfth - attraction.mean() * sixth)


def _concatenate(a: Tensor, b: Tensor) -> Tensor:
    walkers = max(a.shape[-1], b.shape[-1])
    return torch.cat([a.expand(-1, walkers), b.expand(-1, walkers)])


def _coefficients(product: Tensor, sigma: Tensor, epsilon: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of $r^{-12}$, $-r^{-6}$ and $r^{-1}$."""
    sixth = sigma**6
    attraction = 4 * epsilon * sixth
    return attraction * sixth, attraction, COULOMB * product


def _pair_coefficients(
    particles: tuple[Tensor, Tensor, Tensor], pairs: Int[Tensor, "2 pairs"]
) -> tuple[Tensor, Tensor, Tensor]:
    charge, sigma, epsilon = particles
    i, j = pairs
    root = epsilon.clamp_min(torch.finfo(epsilon.dtype).tiny).sqrt()  # a gradient of zero, not NaN, where it is zero
    return _coefficients(
        take(charge, i) * take(charge, j), 0.5 * (take(sigma, i) + take(sigma, j)), take(root, i) * take(root, j)
    )


def _plain_pair(square: Tensor, repulsion: Tensor, attraction: Tensor, coulomb: Tensor) -> tuple[Tensor, tuple[Tensor]]:
    """Energy as a function of the squared distance, and its slope."""
    inverse = square.rsqrt()
    second = inverse * inverse
    sixth = second * second * second
    high, electric = sixth * repulsion, coulomb * inverse
    energy = torch.addcmul(electric, high - attraction, sixth)
    slope = torch.addcmul(electric, 12 * high - 6 * attraction, sixth) * (-0.5 * second)
    return energy, (slope,)


def _switch(square: Tensor, start: float, end: float) -> Tensor:
    t = ((square.sqrt() - start) / (end - start)).clamp(0, 1)
    return 1 - t**3 * (10 - t * (15 - 6 * t))


def _cutoff(force: openmm.NonbondedForce) -> Cutoff | None:
    kind = openmm.NonbondedForce
    method = force.getNonbondedMethod()
    if method in (kind.PME, kind.LJPME):
        name = "PME" if method == kind.PME else "LJPME"
        raise UnsupportedForce(
            f"torch sums Ewald's waves and no mesh: NonbondedForce has the method {name}; set NonbondedForce.Ewald, "
            'or take backend="openmm"'
        )
    if not force.getIncludeDirectSpace() or force.getReciprocalSpaceForceGroup() not in (-1, force.getForceGroup()):
        raise UnsupportedForce(
            "torch evaluates both parts of a NonbondedForce in one force group: this one leaves the direct part out or "
            'splits them; undo it, or take backend="openmm"'
        )
    if method == kind.NoCutoff:
        return None
    distance, switch = plain([force.getCutoffDistance(), force.getSwitchingDistance()])
    periodic = method in (kind.CutoffPeriodic, kind.Ewald)
    return Cutoff(
        distance,
        force.getReactionFieldDielectric(),
        switch if force.getUseSwitchingFunction() else None,
        periodic,
        periodic and force.getUseDispersionCorrection(),
    )
