"""Atoms that are switched off: alchemical systems by openmmtools, and the path along their λ."""

from __future__ import annotations

import importlib
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import ModuleType
from typing import Any, TypeAlias

import openmm
import torch
from jaxtyping import Float
from openmm import unit
from torch import Tensor

from nessampler.errors import InputError
from nessampler.molecular.force_field.force_field import TorchForceField
from nessampler.molecular.force_field.protocol import plain
from nessampler.molecular.force_field.target import thermal_energy
from nessampler.paths import PathPoint

__all__ = [
    "ELECTROSTATICS_FIRST",
    "AlchemicalPath",
    "AlchemicalState",
    "PiecewiseLinear",
    "SampledState",
    "alchemical_system",
]

Ramp: TypeAlias = Callable[[Tensor], Tensor]
Knots: TypeAlias = Sequence[tuple[float, float]]

ELECTROSTATICS_FIRST: Mapping[str, Knots] = {
    "lambda_electrostatics": ((0.0, 1.0), (0.5, 0.0), (1.0, 0.0)),
    "lambda_sterics": ((0.0, 1.0), (0.5, 1.0), (1.0, 0.0)),
}
"""Charges go while atoms still have a size that keeps opposite charges apart; then the size."""

_SURFACE_ENERGY = 2.25936  # kJ/mol/nm^2, the one that openmmtools writes into the alchemical solvent


def alchemical_system(
    system: openmm.System,
    atoms: Iterable[int],
    *,
    annihilate_electrostatics: bool = True,
    annihilate_sterics: bool = False,
    bonds: bool = False,
    angles: bool = False,
    torsions: bool = False,
    softcore: Mapping[str, float] | None = None,
    consistent_exceptions: bool = False,
    rf_treatment: str = "switched",
) -> openmm.System:
    r"""A copy whose interactions of some atoms are scaled by global parameters, 1 as they were and 0 for none.

    $$U_\mathrm{LJ} = \lambda_s^a\, 4 \epsilon\, (u^2 - u), \quad
      u = \Big[\alpha (1 - \lambda_s)^b + (r / \sigma)^c\Big]^{-6/c}; \qquad
      U_\mathrm{C} = \lambda_e^d\, \frac{k_e q_i q_j}{r_\mathrm{eff}}, \quad
      r_\mathrm{eff} = \sigma \Big[\beta (1 - \lambda_e)^e + (r / \sigma)^f\Big]^{1/f}$$

    | symbol | argument | |
    |---|---|---|
    | $\lambda_s$ | `lambda_sterics`, a global parameter | Lennard-Jones |
    | $\lambda_e$ | `lambda_electrostatics`, a global parameter | Coulomb, and charges and size in an implicit solvent |
    | $\alpha, a, b, c$ | `softcore`, as "alpha", "a", "b", "c" | .5, 1, 1, 6 |
    | $\beta, d, e, f$ | `softcore`, as "beta", "d", "e", "f" | 0, 1, 1, 2: charges are scaled without a soft core |

    What is *decoupled* is gone between the atoms and everything else; what is *annihilated* is gone among the atoms
    too, and a second leg of a cycle has to bring it back.

    Args:
        system: as plain as it is; nothing of it is changed.
        atoms: their indices.
        annihilate_electrostatics, annihilate_sterics: rather than decouple.
        bonds, angles, torsions: scale those of the atoms as well, by `lambda_bonds`, `lambda_angles` and
            `lambda_torsions`; all of them stay by default.
        softcore: parameters that are not at their defaults.
        consistent_exceptions: 1-4 pairs see a reaction field too.
        rf_treatment: "switched" or "shifted", of a reaction field among alchemical atoms.

    Raises:
        InputError: openmmtools is not installed; atoms that are none, repeated or absent from the system; a parameter
            that no soft core has; a force that openmmtools cannot scale, or would replace by another one.

    References:
        Beutler et al., Avoiding singularities and numerical instabilities in free energy calculations based on
        molecular simulations, 1994, Chem. Phys. Lett. 222, 529; Pham & Shirts, Identifying low variance pathways for
        free energy calculations of molecular transformations in solution phase, 2011, J. Chem. Phys. 135, 034114,
        eq. 13; openmmtools, `AbsoluteAlchemicalFactory`, https://openmmtools.readthedocs.io.
    """
    chosen = [int(i) for i in atoms]
    _check_atoms(chosen, system.getNumParticles())
    soft = {f"softcore_{name}": float(value) for name, value in (softcore or {}).items()}
    for name in soft:
        if name not in {f"softcore_{letter}" for letter in ("alpha", "a", "b", "c", "beta", "d", "e", "f")}:
            raise InputError(f"a soft core has the parameters alpha, a, b, c, beta, d, e and f: got {name[9:]!r}")
    for force in system.getForces():
        _check_surface(force)
    alchemy = _openmmtools_alchemy()
    region = alchemy.AlchemicalRegion(
        alchemical_atoms=chosen,
        alchemical_bonds=bonds or None,
        alchemical_angles=angles or None,
        alchemical_torsions=torsions or None,
        annihilate_electrostatics=annihilate_electrostatics,
        annihilate_sterics=annihilate_sterics,
        **soft,
    )
    factory = alchemy.AbsoluteAlchemicalFactory(
        consistent_exceptions=consistent_exceptions, alchemical_rf_treatment=rf_treatment
    )
    try:
        return factory.create_alchemical_system(system, region)
    except (ValueError, NotImplementedError, openmm.OpenMMException) as error:
        raise InputError(f"openmmtools cannot make this system alchemical: {error}; choose other options") from error


@dataclass(frozen=True)
class PiecewiseLinear:
    r"""A ramp through knots `(t, value)`, with the slope of the later interval at a knot.

    Raises:
        InputError: knots that do not go from t = 0 to t = 1 in order, or are not finite.

    Example:
        >>> PiecewiseLinear(((0.0, 1.0), (0.5, 0.0), (1.0, 0.0)))(torch.tensor([0.0, 0.25, 0.75]))
        tensor([1.0000, 0.5000, 0.0000], dtype=torch.float64)
    """

    knots: Knots

    def __post_init__(self) -> None:
        times = [t for t, _ in self.knots]
        rising = all(s < t for s, t in pairwise(times))
        if len(times) < 2 or times[0] != 0 or times[-1] != 1 or not rising:
            raise InputError(f"knots are (t, value) with t rising from 0 to 1: got {tuple(self.knots)}")
        if not all(math.isfinite(value) for _, value in self.knots):
            raise InputError(f"values at knots must be finite: got {tuple(self.knots)}")

    @property
    def breaks(self) -> tuple[float, ...]:
        """Times at which the slope may jump."""
        return tuple(float(t) for t, _ in self.knots)

    def __call__(self, t: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """Values, float64; differentiable in t."""
        times, values = torch.tensor(self.knots, dtype=torch.float64, device=t.device).T.contiguous()
        t = t.to(torch.float64)
        j = torch.searchsorted(times, t.detach().contiguous(), right=True).clamp(1, len(times) - 1)
        share = (t - times[j - 1]) / (times[j] - times[j - 1])  # 1 at a knot, which rounding must not miss
        return (1 - share) * values[j - 1] + share * values[j]


class AlchemicalPath:
    r"""The energies of an `openmm.System` while its global parameters move.

    $$U_t(x) = E(x; \lambda(t)) / k_B T, \qquad
      \partial_t U_t = \sum_i \dot\lambda_i(t)\, \frac{1}{k_B T} \frac{\partial E}{\partial \lambda_i}$$

    A `Path` for annealing, switching, NETS and `nessampler.methods.staged`. Positions are `(n, atoms, 3)` in nm, of any
    float dtype and device, and every walker has a time of its own. Energy, score and time derivative come from one
    forward and one backward pass, exact in λ.

    | symbol | argument | |
    |---|---|---|
    | E | `system` | any, with global parameters: see `alchemical_system` |
    | T | `temperature` | kelvin |
    | $\lambda_i(t)$ | `protocol` | by name: knots `(t, value)` to go through on straight lines, or a function of t |

    Parameters outside of the protocol keep their defaults for good: what only expressions read is written into them.

    By default charges go on the first half and sizes on the second: t = 0 is the plain system, t = 1 the one whose
    atoms are gone, and $\Delta F = F_1 - F_0$ is minus the free energy of putting them in.

    Args:
        samples: of the system at t = 0, `(m, atoms, 3)`; annealing starts from them, see `SampledState`.
        device, dtype, chunk_size, compile: as for `TorchForceField`; compiled programs serve energies and scores.

    Attributes:
        start, end: the densities at both ends.
        masses: Da, `(atoms,)`.
        breaks: times at which a protocol's slope may jump, for quadrature in t.

    Raises:
        UnsupportedForce: a force that torch does not cover.
        InputError: no protocol, one of a parameter that no force reads, one that torch cannot follow, or knots that do
            not go from 0 to 1.

    References:
        Kirkwood, Statistical mechanics of fluid mixtures, 1935, J. Chem. Phys. 3, 300.

    Example:
        >>> well = openmm.CustomExternalForce("stiffness * x^2")
        >>> _ = well.addGlobalParameter("stiffness", 1.0), well.addParticle(0)
        >>> system = openmm.System()
        >>> _ = system.addParticle(12.0), system.addForce(well)
        >>> path = AlchemicalPath(system, 300.0, {"stiffness": ((0.0, 100.0), (1.0, 200.0))})
        >>> x = torch.tensor([[[0.1, 0.0, 0.0]]], dtype=torch.float64)
        >>> path.evaluate(torch.tensor([0.5]), x).time_derivative * path.kt
        tensor([1.0000], dtype=torch.float64)
    """

    def __init__(
        self,
        system: openmm.System,
        temperature: float,
        protocol: Mapping[str, Ramp | Knots] = ELECTROSTATICS_FIRST,
        *,
        samples: Float[Tensor, "m atoms 3"] | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float64,
        chunk_size: int | None = None,
        compile: bool = False,
    ) -> None:
        if not protocol:
            raise InputError("an alchemical path needs a protocol for one global parameter at least: got none")
        self.kt, self.temperature = thermal_energy(temperature), float(temperature)
        parameters = _global_parameters(system)
        for name in protocol:
            if name not in parameters:
                known = ", ".join(sorted(parameters)) or "none"
                raise InputError(f"a global parameter must be one that a force reads, {known}: got {name!r}")
        self.force_field = TorchForceField(
            system,
            device=device,
            dtype=dtype,
            chunk_size=chunk_size,
            compile=compile,
            constants=parameters - set(protocol) - _shared_parameters(system),  # the shape of a soft core above all
        )
        self.protocol = {n: ramp if callable(ramp) else PiecewiseLinear(ramp) for n, ramp in protocol.items()}
        self._check_protocol()
        kinks = {b for ramp in self.protocol.values() for b in getattr(ramp, "breaks", ())}
        self.breaks = tuple(sorted({0.0, 1.0} | kinks))
        self.event_shape = torch.Size((system.getNumParticles(), 3))
        masses = [system.getParticleMass(i).value_in_unit(unit.dalton) for i in range(system.getNumParticles())]
        self.masses = torch.tensor(masses, dtype=torch.float64)
        self._reads = self._grouped()
        start = AlchemicalState(self, 0.0)
        self.start = start if samples is None else SampledState(self, 0.0, samples)
        self.end = AlchemicalState(self, 1.0)

    def parameters(self, t: Float[Tensor, " n"]) -> dict[str, Float[Tensor, " n"]]:
        """λ(t) by name, differentiable in t."""
        time = t.to(torch.float64)  # in single precision walkers, too, have λ to full precision
        return {name: ramp(time) for name, ramp in self.protocol.items()}

    def energy(self, t: Float[Tensor, " n"], x: Float[Tensor, "n atoms 3"]) -> Float[Tensor, " n"]:
        """$U_t$ in kT; differentiable in t and, twice, in x."""
        return self.force_field.energy(x, parameters=self.parameters(t)) / self.kt

    def energy_and_score(
        self, t: Float[Tensor, " n"], x: Float[Tensor, "n atoms 3"]
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, "n atoms 3"]]:
        r"""$U_t$ in kT and $-\nabla U_t$ in kT/nm, detached."""
        with torch.no_grad():
            energy, forces = self.force_field.energy_and_forces(x, parameters=self.parameters(t))
        return energy / self.kt, forces / self.kt

    def evaluate(
        self, t: Float[Tensor, " n"], x: Float[Tensor, "n atoms 3"], known: PathPoint | None = None
    ) -> PathPoint:
        r"""$U_t$, $-\nabla U_t$ and $\partial_t U_t$, from one forward and one backward pass."""
        with torch.enable_grad():
            time = t.detach().to(x.device, torch.float64).requires_grad_()
            values = self.parameters(time)
            # Walkers have times of their own: the gradient of a sum is the derivative walker by walker.
            rates = {name: _rate(value, time) for name, value in values.items()}
        energy, gradient, slopes = self._derivatives({n: v.detach() for n, v in values.items()}, x)
        rate = sum((rates[n] * slopes[n] for n in slopes), torch.zeros_like(time.detach()))
        return PathPoint(energy / self.kt, -gradient / self.kt, rate.to(x.dtype) / self.kt)

    def slopes(self, t: Float[Tensor, " n"], x: Float[Tensor, "n atoms 3"]) -> dict[str, Float[Tensor, " n"]]:
        r"""$\partial U / \partial \lambda_i$ in kT, by the parameter's name."""
        with torch.no_grad():
            values = self.parameters(t.to(x.device))
        return {name: slope / self.kt for name, slope in self._derivatives(values, x)[2].items()}

    def energies(self, x: Float[Tensor, "n atoms 3"], times: Float[Tensor, " states"]) -> Float[Tensor, "states n"]:
        """$U_t$ in kT of every conformation at several times, float64, as MBAR needs them.

        A force is evaluated once for all times that mean the same to it: bonded terms once, the solvent not at all
        while only sizes change.
        """
        total = torch.zeros(len(times), len(x), dtype=torch.float64, device=x.device)
        with torch.no_grad():
            values = self.parameters(times)
            for group, names in self._reads.items():
                rows: dict[tuple[float, ...], Tensor] = {}
                for k in range(len(times)):
                    own = {name: float(values[name][k]) for name in names}
                    key = tuple(own.values())
                    if key not in rows:
                        rows[key] = self.force_field.energy(x, parameters=own, groups={group}).to(torch.float64)
                    total[k] += rows[key]
        return total / self.kt

    def _derivatives(self, values: Mapping[str, Tensor], x: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Energies, gradients and derivatives in every parameter, kJ/mol and nm, a chunk of walkers at a time."""
        found: list[tuple[Tensor, ...]] = []
        size = self.force_field._chunk()  # in one piece, so that nothing has to be evaluated twice
        for first in range(0, max(1, len(x)), size):
            rows = slice(first, first + size)
            with torch.enable_grad():
                position = x[rows].detach().requires_grad_()
                leaves = {n: v[rows].detach().requires_grad_() for n, v in values.items()}
                energy = self.force_field.energy(position, parameters=leaves)
                wanted = (position, *leaves.values())
                gradients = torch.autograd.grad(energy.sum(), wanted, materialize_grads=True)
            found.append((energy.detach(), *gradients))
        energy, gradient, *slopes = (torch.cat(column) for column in zip(*found, strict=True))
        return energy, gradient, dict(zip(values, slopes, strict=True))

    def _grouped(self) -> dict[int, tuple[str, ...]]:
        """Forces in groups that read the same of the protocol's parameters."""
        reads = {
            force: tuple(n for n in self.protocol if n in term.default_parameters)  # pyright: ignore[reportOperatorIssue]
            for force, term in self.force_field.terms.items()
        }
        groups = {names: k for k, names in enumerate(dict.fromkeys(reads.values()))}
        self.force_field.groups = {force: groups[names] for force, names in reads.items()}
        return {k: names for names, k in groups.items()}

    def _check_protocol(self) -> None:
        grid = torch.linspace(0, 1, 11, dtype=torch.float64)
        for name, ramp in self.protocol.items():
            value = ramp(grid)
            if not isinstance(value, Tensor) or value.shape != grid.shape or not bool(torch.isfinite(value).all()):
                raise InputError(
                    f"a protocol is a function of times (n,) to finite values (n,) in torch, or knots (t, value): that "
                    f"of {name} gave {value!r}"
                )


@dataclass(frozen=True)
class AlchemicalState:
    """The density of a path at one time."""

    path: AlchemicalPath
    t: float

    @property
    def event_shape(self) -> torch.Size:
        """`(atoms, 3)`."""
        return self.path.event_shape

    def energy(self, x: Float[Tensor, "n atoms 3"]) -> Float[Tensor, " n"]:
        """U in kT."""
        return self.path.energy(self._time(x), x)

    def energy_and_score(self, x: Float[Tensor, "n atoms 3"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n atoms 3"]]:
        """U in kT and -∇U in kT/nm, detached."""
        return self.path.energy_and_score(self._time(x), x)

    def _time(self, x: Tensor) -> Tensor:
        return torch.full((len(x),), self.t, dtype=torch.float64, device=x.device)


@dataclass(frozen=True)
class SampledState(AlchemicalState):
    """A state with equilibrium samples in stock, from which annealing can start.

    Its `log_z` is 0: the log Z of what is annealed from here is minus a free-energy difference, in kT.
    """

    samples: Float[Tensor, "m atoms 3"]
    log_z: float = 0.0

    def sample(self, n: int, *, generator: torch.Generator) -> Float[Tensor, "n atoms 3"]:
        """n different ones of the samples.

        Raises:
            InputError: more than there are.
        """
        if n > len(self.samples):
            raise InputError(f"walkers need samples of their own: got {len(self.samples)} for {n}; sample more")
        place = torch.randperm(len(self.samples), generator=generator, device=generator.device)[:n]
        return self.samples[place.to(self.samples.device)]


def _global_parameters(system: openmm.System) -> set[str]:
    return {name for force in system.getForces() for name in _parameters_of(force)}


def _shared_parameters(system: openmm.System) -> set[str]:
    """Those that a force without an expression of its own reads, and that another one must not take for numbers."""
    bound = (openmm.NonbondedForce, openmm.CustomCVForce)
    return {name for force in system.getForces() if isinstance(force, bound) for name in _parameters_of(force)}


def _parameters_of(force: Any) -> Iterator[str]:
    """Of collective variables, too, which are forces within a force."""
    if hasattr(force, "getNumGlobalParameters"):
        yield from (force.getGlobalParameterName(k) for k in range(force.getNumGlobalParameters()))
    if isinstance(force, openmm.CustomCVForce):
        for k in range(force.getNumCollectiveVariables()):
            yield from _parameters_of(force.getCollectiveVariable(k))


def _rate(value: Tensor, time: Tensor) -> Tensor:
    if not value.requires_grad:
        return torch.zeros_like(time)
    (rate,) = torch.autograd.grad(value.sum(), time, retain_graph=True, materialize_grads=True)
    return rate


def _check_atoms(atoms: Sequence[int], size: int) -> None:
    if not atoms or len(set(atoms)) < len(atoms):
        raise InputError(f"alchemical atoms are different ones, at least one: got {list(atoms)}")
    for atom in atoms:
        if not 0 <= atom < size:
            raise InputError(f"alchemical atoms are indices below {size}, the atoms of the system: got {atom}")


def _check_surface(force: openmm.Force) -> None:
    if not isinstance(force, openmm.GBSAOBCForce):
        return
    energy = float(plain([force.getSurfaceAreaEnergy()])[0])
    if abs(energy - _SURFACE_ENERGY) > 1e-6:
        raise InputError(
            f"openmmtools knows a GBSAOBCForce with a surface energy of {_SURFACE_ENERGY} kJ/mol/nm^2 only: got "
            f"{energy:g}; build the solvent as a CustomGBForce, such as implicit/obc2.xml"
        )


def _openmmtools_alchemy() -> ModuleType:
    logging.getLogger("pymbar").setLevel(logging.ERROR)  # its banner about an optional dependency
    try:
        return importlib.import_module("openmmtools.alchemy")
    except ImportError as error:
        raise InputError(
            f"alchemical systems are built by openmmtools, which could not be imported ({error}): "
            "pip install 'nessampler[alchemy]'"
        ) from error
