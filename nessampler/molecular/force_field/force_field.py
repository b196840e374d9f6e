"""An `openmm.System` as a batched, differentiable energy in torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import openmm
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nessampler.errors import InputError
from nessampler.molecular.force_field.bonded import HarmonicAngle, HarmonicBond
from nessampler.molecular.force_field.cmap import CMAPTorsion
from nessampler.molecular.force_field.collective import CustomCV
from nessampler.molecular.force_field.compiled import (
    Program,
    compiled_program,
    energy_and_gradient,
    one_thread,
    workers,
)
from nessampler.molecular.force_field.constants import with_constants
from nessampler.molecular.force_field.custom_bonded import (
    custom_angle,
    custom_bond,
    custom_centroid_bond,
    custom_compound_bond,
    custom_external,
    custom_torsion,
)
from nessampler.molecular.force_field.custom_gb import CustomGB
from nessampler.molecular.force_field.custom_nonbonded import CustomNonbonded
from nessampler.molecular.force_field.gbsa import GBSAOBC
from nessampler.molecular.force_field.nonbonded import Nonbonded
from nessampler.molecular.force_field.protocol import Term, UnsupportedForce, plain
from nessampler.molecular.force_field.torsions import PeriodicTorsion, RBTorsion
from nessampler.molecular.systems import check_density

__all__ = ["TorchForceField", "convert", "unsupported_force"]

_TERMS: dict[str, Callable[[Any, Any], Any]] = {
    "HarmonicBondForce": HarmonicBond.from_openmm,
    "HarmonicAngleForce": HarmonicAngle.from_openmm,
    "PeriodicTorsionForce": PeriodicTorsion.from_openmm,
    "RBTorsionForce": RBTorsion.from_openmm,
    "CMAPTorsionForce": CMAPTorsion.from_openmm,
    "NonbondedForce": Nonbonded.from_openmm,
    "GBSAOBCForce": GBSAOBC.from_openmm,
    "CustomBondForce": custom_bond,
    "CustomAngleForce": custom_angle,
    "CustomTorsionForce": custom_torsion,
    "CustomExternalForce": custom_external,
    "CustomCompoundBondForce": custom_compound_bond,
    "CustomCentroidBondForce": custom_centroid_bond,
    "CustomNonbondedForce": CustomNonbonded.from_openmm,
    "CustomGBForce": CustomGB.from_openmm,
    "CustomCVForce": lambda force, system: CustomCV.from_openmm(force, system, convert),
}
VECTOR = 16  # numbers in single precision that the widest of today's vector units take at once
_NO_ENERGY = {"CMMotionRemover"}
_REASONS = {
    "AndersenThermostat": "it acts on velocities, which have no part in an energy; remove it",
}


def convert(force: openmm.Force, system: openmm.System) -> Term:
    """The torch term of an OpenMM force.

    Raises:
        UnsupportedForce: torch has none; the message names the force, its index where it is one of the system's own,
            and the remedy.
    """
    kind = type(force).__name__
    if kind not in _TERMS:
        why = _REASONS.get(kind, 'evaluate with OpenMM itself (backend="openmm"; in [md], another platform)')
        if "Barostat" in kind:
            why = "it changes the box, which has no part in an energy; remove it"
        raise UnsupportedForce(f"torch covers no {kind}: {why}")
    return _TERMS[kind](force, system)


def unsupported_force(system: openmm.System) -> str | None:
    """Why a system's forces cannot all be evaluated in torch, or None when they can.

    Example:
        >>> system = openmm.System()
        >>> _ = system.addParticle(12.0), system.addForce(openmm.CustomExternalForce("x^2"))
        >>> unsupported_force(system) is None
        True
        >>> _ = system.addForce(openmm.CustomHbondForce("0"))
        >>> unsupported_force(system)
        'force 1 of the system, CustomHbondForce: torch covers no CustomHbondForce: evaluate with OpenMM itself ...'
    """
    try:
        _found(system)
    except UnsupportedForce as error:
        return str(error)
    return None


class TorchForceField(nn.Module):
    r"""Energies and forces of a batch of conformations under the forces of an `openmm.System`.

    Positions are `(n, atoms, 3)` in nm, of any float dtype and device; energies `(n,)` in kJ/mol and forces in
    kJ/mol/nm come back in theirs, whatever the force field computes in. Energies are differentiable twice in
    positions, in global parameters and in the forces' own parameters
    (`force_field.requires_grad_(True)`, or a single `force_field.terms["NonbondedForce"].charge`).

    Walkers are taken in chunks. Where only positions want a gradient, forces are worked out with the energies and
    nothing else is kept, so memory does not grow with the batch; a second derivative, or one in a parameter,
    evaluates once more.

    Args:
        system: without constraints and virtual sites.
        device, dtype: where and in what precision to compute.
        chunk_size: walkers at a time; by default as many as keep a cache or a GPU busy.
        compile: fuse energies and forces with `torch.compile`: several times faster after a first call that takes up
            to a minute. On a CPU, batches are filled up to whole chunks, so small ones gain nothing, and
            `torch.get_num_threads()` threads take a chunk each. On a GPU, they are filled up to the next power of two,
            with a program of each that occurs.
        constants: global parameters that keep their defaults, by which expressions become shorter: `with_constants`.

    Attributes:
        terms: one module per force, by name; a name that occurs twice has its index behind it.
        groups: OpenMM's force group of each.
        default_parameters: OpenMM's global parameters.
        box: the default box vectors, `(3, 3)` in nm, or None where no force is periodic.

    Raises:
        UnsupportedForce: naming the first force that torch does not cover.
        InputError: constraints, virtual sites, or particles without mass.

    References:
        OpenMM 8: molecular dynamics simulation with machine learning potentials, 2024, J. Phys. Chem. B 128, 109.

    Example:
        >>> spring = openmm.HarmonicBondForce()
        >>> _ = spring.addBond(0, 1, 0.1, 1000.0)
        >>> system = openmm.System()
        >>> _ = [system.addParticle(12.0) for _ in range(2)], system.addForce(spring)
        >>> x = torch.tensor([[[0.0, 0.0, 0.0], [0.12, 0.0, 0.0]]], dtype=torch.float64)
        >>> force_field = TorchForceField(system)
        >>> force_field(x)
        tensor([0.2000], dtype=torch.float64)
        >>> force_field.forces(x)[0, :, 0].round(decimals=6)
        tensor([ 20., -20.], dtype=torch.float64)
    """

    box: Float[Tensor, "3 3"] | None
    _like: Float[Tensor, ""]

    def __init__(
        self,
        system: openmm.System,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float64,
        chunk_size: int | None = None,
        compile: bool = False,
        constants: Collection[str] = (),
    ) -> None:
        super().__init__()
        check_density(_without_forces(system))
        found = _found(system, constants)
        self.n_atoms = system.getNumParticles()
        self._terms = nn.ModuleList(term for _, _, term in found)  # pyright: ignore[reportArgumentType]
        self.groups = {name: group for name, group, _ in found}
        self.default_parameters = {k: v for _, _, term in found for k, v in term.default_parameters.items()}
        self.register_buffer("_like", torch.zeros((), dtype=torch.float64), persistent=False)
        periodic = system.usesPeriodicBoundaryConditions()
        box = torch.tensor(plain(v for v in system.getDefaultPeriodicBoxVectors()), dtype=torch.float64)
        self.register_buffer("box", box if periodic else None)
        self.chunk_size, self.compile_programs = chunk_size, compile
        self._programs: dict[Any, Program] = {}
        self.to(device=device, dtype=dtype)

    @property
    def terms(self) -> dict[str, nn.Module]:
        """The modules by name."""
        return dict(zip(self.groups, self._terms, strict=True))

    @property
    def capturable(self) -> bool:
        """Whether forces never wait for the GPU, so that a CUDA graph can record them: compiled programs do not."""
        return self.compile_programs

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the computation."""
        return self._like.dtype

    @property
    def device(self) -> torch.device:
        """Where the computation runs."""
        return self._like.device

    def forward(
        self, x: Float[Tensor, "n atoms 3"], box: Float[Tensor, "3 3"] | None = None, **parameters: float | Tensor
    ) -> Float[Tensor, " n"]:
        """`energy`, with global parameters as keywords."""
        return self.energy(x, box=box, parameters=parameters)

    def energy(
        self,
        x: Float[Tensor, "n atoms 3"],
        *,
        parameters: Mapping[str, float | Tensor] | None = None,
        box: Float[Tensor, "3 3"] | None = None,
        groups: Collection[int] | None = None,
    ) -> Float[Tensor, " n"]:
        """Energies in kJ/mol.

        Args:
            x: positions in nm.
            parameters: global parameters that are not at their defaults, numbers or one value per conformation.
            box: rows are reduced box vectors in nm; by default the system's.
            groups: only forces of these groups.

        Raises:
            InputError: positions of another shape, a parameter that no force has, or a box where none is periodic.
        """
        batch = self._batch(x, parameters, box, groups)
        if torch.is_grad_enabled() and batch.only_positions:
            return _EnergyWithForces.apply(x, batch)  # pyright: ignore[reportReturnType]
        if self.compile_programs and not torch.is_grad_enabled() and not groups:
            return batch.energy_and_gradient(x)[0]  # faster with its gradient, which is fused, than alone and not
        return batch.energy(x)

    def energy_and_forces(
        self,
        x: Float[Tensor, "n atoms 3"],
        *,
        parameters: Mapping[str, float | Tensor] | None = None,
        box: Float[Tensor, "3 3"] | None = None,
        groups: Collection[int] | None = None,
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, "n atoms 3"]]:
        """Energies in kJ/mol and forces in kJ/mol/nm, both detached."""
        energy, gradient = self._batch(x, parameters, box, groups).energy_and_gradient(x)
        return energy, -gradient

    def forces(
        self,
        x: Float[Tensor, "n atoms 3"],
        *,
        parameters: Mapping[str, float | Tensor] | None = None,
        box: Float[Tensor, "3 3"] | None = None,
        groups: Collection[int] | None = None,
    ) -> Float[Tensor, "n atoms 3"]:
        """Forces in kJ/mol/nm, detached."""
        return self.energy_and_forces(x, parameters=parameters, box=box, groups=groups)[1]

    def energy_by_force(
        self,
        x: Float[Tensor, "n atoms 3"],
        *,
        parameters: Mapping[str, float | Tensor] | None = None,
        box: Float[Tensor, "3 3"] | None = None,
    ) -> dict[str, Float[Tensor, " n"]]:
        """Energies in kJ/mol by the force's name, as in `terms`."""
        return {name: self._batch(x, parameters, box, None, [term]).energy(x) for name, term in self.terms.items()}

    def _batch(
        self,
        x: Tensor,
        parameters: Mapping[str, float | Tensor] | None,
        box: Tensor | None,
        groups: Collection[int] | None,
        terms: list[nn.Module] | None = None,
    ) -> _Batch:
        if x.ndim != 3 or x.shape[1:] != (self.n_atoms, 3) or not x.is_floating_point():
            raise InputError(
                f"positions must be (n, {self.n_atoms}, 3) in nm: got {tuple(x.shape)}, {str(x.dtype).split('.')[1]}"
            )
        if box is not None and self.box is None:
            raise InputError("a box needs a periodic force: this system has none; leave `box` out")
        box = self.box if box is None else box.to(self._like)
        if terms is None:
            terms = [
                t for t, group in zip(self._terms, self.groups.values(), strict=True) if not groups or group in groups
            ]
        programs = self._programs if self.compile_programs else None
        return _Batch(terms, self._globals(len(x), parameters or {}), box, self._like, self._chunk(), programs)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> TorchForceField:
        self._programs = {}  # they hold the tensors that are about to be replaced
        return super()._apply(fn, recurse)

    def check_parameters(self, names: Iterable[str]) -> None:
        """Refuse global parameters that no force reads.

        Raises:
            InputError: naming the first, and those that there are.
        """
        for name in names:
            if name not in self.default_parameters:
                known = ", ".join(self.default_parameters) or "none"
                raise InputError(f"a global parameter must be one that a force reads, {known}: got {name!r}")

    def _globals(self, n: int, given: Mapping[str, float | Tensor]) -> dict[str, Tensor]:
        self.check_parameters(given)
        for name, value in given.items():
            if isinstance(value, Tensor) and value.shape not in ((), (n,)):
                raise InputError(
                    f"a global parameter is a number or has one value per conformation, ({n},): "
                    f"{name} has shape {tuple(value.shape)}"
                )
        values = {**self.default_parameters, **given}
        # Filled where they are needed: sending a number to a GPU would wait for it.
        return {k: v.to(self._like) if isinstance(v, Tensor) else self._like.new_full((), v) for k, v in values.items()}

    def chunk_for(self, n: int) -> int:
        """The chunk size with which batches of n fill whole chunks; by default a smaller batch costs as much as one."""
        whole, n = self._chunk(), max(1, n)
        even = -(-n // -(-n // whole))
        return min(whole, -(-even // VECTOR) * VECTOR)

    def _chunk(self) -> int:
        if self.chunk_size is not None:
            return self.chunk_size
        pairs = max(1, self.n_atoms * (self.n_atoms - 1) // 2)
        # Numbers per pair function that a chunk holds at once: fused, they should fit the cache; otherwise there should
        # be enough of them to hide the cost of calling an operation. On a GPU an operation of fewer than a million
        # takes no less time, and some tens of 4 million each are held at once.
        fused = 2**18 // self.dtype.itemsize
        elements = 2**22 if self.device.type != "cpu" else fused if self.compile_programs else 2**17
        # Rows of walkers have to be long enough for vector units, as long as memory allows.
        walkers = max(1, elements // pairs, min(32, 2**22 // pairs))
        return 2 ** (walkers.bit_length() - 1)


@dataclass(frozen=True)
class _Batch:
    """What is evaluated, besides the positions: terms, global parameters, box, and how many walkers at a time."""

    terms: Sequence[nn.Module]
    globals: Mapping[str, Tensor]
    box: Tensor | None
    like: Tensor
    chunk: int
    programs: dict[Any, Program] | None = None

    @property
    def only_positions(self) -> bool:
        """Nothing else wants a gradient."""
        others = [*self.globals.values(), *(p for term in self.terms for p in term.parameters())]
        return not any(t.requires_grad for t in others if t is not None) and not (
            self.box is not None and self.box.requires_grad
        )

    def energy(self, x: Tensor) -> Tensor:
        """Differentiable in everything; of several chunks, each is evaluated again when it is differentiated."""
        again = torch.is_grad_enabled() and len(x) > self.chunk
        found = [
            checkpoint(self._sum, x[rows], rows, use_reentrant=False, preserve_rng_state=False)
            if again
            else self._sum(x[rows], rows)
            for rows in self._chunks(len(x))
        ]
        return torch.cat(found)

    def energy_and_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Energies and their gradients, detached, a chunk at a time."""
        if not len(x):
            return x.new_empty(0), torch.empty_like(x)
        if self.programs is not None and self.like.device.type == "cpu":
            threads = min(torch.get_num_threads(), len(self._chunks(len(x))))
            with one_thread():
                each = workers(threads).map if threads > 1 else map
                found = list(each(self._evaluated, *self._filled(x)))
        else:
            found = [self._evaluated(*chunk) for chunk in zip(*self._filled(x), strict=True)]
        energies, gradients = zip(*found, strict=True)
        return torch.cat(energies)[: len(x)].to(x), torch.cat(gradients)[: len(x)].to(x)

    def _filled(self, x: Tensor) -> tuple[list[Program], list[Any]]:
        """A program and its arguments for every chunk; a compiled one takes so many walkers and no other number."""
        fill = self.programs is not None
        arguments = [self._arguments(x[rows].detach(), rows, fill=fill) for rows in self._chunks(len(x))]
        return [self._program(*some) for some in arguments], arguments

    @staticmethod
    def _evaluated(program: Program, arguments: Any) -> tuple[Tensor, Tensor]:
        """Energies `(walkers,)` and gradients `(walkers, atoms, 3)` of a chunk."""
        energy, gradient = program(*arguments)
        return energy, gradient.permute(2, 1, 0)

    def _program(self, *arguments: Any) -> Program:
        if self.programs is None:
            return energy_and_gradient(self.terms)
        position, values, _ = arguments
        key = (*map(id, self.terms), position.shape, *((k, v.ndim) for k, v in values.items()))
        if key not in self.programs:
            self.programs[key] = compiled_program(self.terms, *arguments)
        return self.programs[key]

    def _chunks(self, n: int) -> list[slice]:
        return [slice(k, k + self.chunk) for k in range(0, max(1, n), self.chunk)]

    def _arguments(self, x: Tensor, rows: slice, fill: bool = False) -> tuple[Tensor, dict[str, Tensor], Tensor | None]:
        """What terms are called with; filled up, the first walkers take the empty places."""
        position = x.to(self.like).permute(2, 1, 0)
        values = {k: v[rows] if v.ndim else v for k, v in self.globals.items()}
        width = self._width(len(x))
        if fill and 0 < len(x) < width:
            place = torch.arange(width, device=self.like.device) % len(x)
            position, values = position[..., place], {k: v[place] if v.ndim else v for k, v in values.items()}
        return position.contiguous(), values, self.box

    def _width(self, n: int) -> int:
        """Of the program that n walkers are filled up for: a GPU's chunks are too large for every batch to be one."""
        return self.chunk if self.like.device.type == "cpu" else min(self.chunk, max(64, 1 << (n - 1).bit_length()))

    def _sum(self, x: Tensor, rows: slice) -> Tensor:
        arguments = self._arguments(x, rows)
        total = arguments[0].new_zeros(len(x))
        for term in self.terms:
            total = total + term(*arguments)
        return total.to(x)


class _EnergyWithForces(torch.autograd.Function):
    """Energies whose gradient is worked out at once, so that no graph is kept until it is asked for."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, batch: _Batch) -> Tensor:
        if not ctx.needs_input_grad[0]:
            with torch.no_grad():
                return batch.energy(x)
        energy, gradient = batch.energy_and_gradient(x)
        ctx.batch = batch
        ctx.save_for_backward(x, gradient)
        return energy

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grad_output: Tensor
    ) -> tuple[Tensor, None]:
        x, gradient = ctx.saved_tensors
        if torch.is_grad_enabled():  # it will be differentiated again
            energy = ctx.batch.energy(x)
            (gradient,) = torch.autograd.grad(energy, x, torch.ones_like(energy), create_graph=True)
        return gradient * grad_output[0][:, None, None], None


def _without_forces(system: openmm.System) -> openmm.System:
    try:
        bare = deepcopy(system)
    except openmm.OpenMMException as error:
        raise InputError(
            f"OpenMM must be able to copy the system: {error}; give every bond, angle or particle of a force as many "
            "parameters as it declares"
        ) from error
    for _ in range(bare.getNumForces()):
        bare.removeForce(0)
    return bare


def _found(system: openmm.System, constants: Collection[str] = ()) -> list[tuple[str, int, Term]]:
    """Name, force group and term of every force that has an energy."""
    forces = [(k, f) for k, f in enumerate(system.getForces()) if type(f).__name__ not in _NO_ENERGY]
    times = Counter(f.getName() for _, f in forces)
    found = []
    for index, force in forces:
        where = f"force {index} of the system, {type(force).__name__}"
        try:
            known = with_constants(force, constants)
            term = convert(known, system)
        except UnsupportedForce as error:
            raise UnsupportedForce(f"{where}: {error}") from error
        except InputError as error:
            raise InputError(f"{where}: {error}") from error
        except Exception as error:  # of numbers that do not fit together, for which OpenMM has the better words
            _check_accepted(system)
            raise InputError(f"{where}: {error}; correct its atoms and parameters") from error
        if known is not force:
            for constant in constants:
                term.default_parameters.pop(constant, None)
        name = force.getName() if times[force.getName()] == 1 else f"{force.getName()} {index}"
        found.append((name, force.getForceGroup(), term))
    _check_accepted(system)
    return found


def _check_accepted(system: openmm.System) -> None:
    """OpenMM itself looks whether forces fit their system: as many particles, atoms that there are, one default for a
    parameter, a cutoff within half the box.

    Raises:
        InputError: with OpenMM's words, which name the force.
    """
    try:
        openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
    except openmm.OpenMMException as error:
        raise InputError(f"OpenMM must accept the system: {error}; correct that force") from error
