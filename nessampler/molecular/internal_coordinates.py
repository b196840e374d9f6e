"""Bond lengths, angles and torsions of a molecule as a bijection of its shape, with the exact log-Jacobian."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.transforms import Transform
from torch.nn.functional import normalize

from nessampler.errors import InputError
from nessampler.molecular.several_molecules import join_topology
from nessampler.molecular.topology_tree import ZMatrix

__all__ = ["InternalCoordinates", "angle", "distance", "proper_dihedral"]

Atoms = int | Tensor

SOFT_SPREAD = 0.35  # rad: above it a sampled torsion counts as a rotor
SOFT_REACH = math.radians(100)
SMALLEST_BEND = math.radians(5)


def distance(x: Float[Tensor, "*batch atoms 3"], i: Atoms, j: Atoms) -> Float[Tensor, "*picked"]:
    """Length of i–j, in the unit of `x`; `i` and `j` are indices or equally long index tensors.

    Example:
        >>> distance(torch.eye(3), 0, 1)
        tensor(1.4142)
    """
    return torch.linalg.vector_norm(x[..., i, :] - x[..., j, :], dim=-1)


def angle(x: Float[Tensor, "*batch atoms 3"], i: Atoms, j: Atoms, k: Atoms) -> Float[Tensor, "*picked"]:
    """Angle i–j–k at j in [0, π], in full precision also near 0 and π.

    Example:
        >>> angle(torch.eye(3), 0, 1, 2) * 180 / torch.pi
        tensor(60.)
    """
    u, v = x[..., i, :] - x[..., j, :], x[..., k, :] - x[..., j, :]
    return torch.atan2(torch.linalg.vector_norm(torch.linalg.cross(u, v), dim=-1), (u * v).sum(-1))


def proper_dihedral(
    x: Float[Tensor, "*batch atoms 3"],
    i: Atoms,
    j: Atoms,
    k: Atoms,
    l: Atoms,  # noqa: E741
) -> Float[Tensor, "*picked"]:
    """Torsion i–j–k–l about the axis j–k in (-π, π]: 0 is cis, positive is clockwise seen from j to k (IUPAC).

    Nothing here asks i and l to sit at different ends of the axis: with both bonded to j it is the difference of
    their torsions.

    Example:
        >>> x = torch.tensor([[1.0, 0, 0], [0, 0, 0], [0, 0, 1], [0, 1, 1]])
        >>> proper_dihedral(x, 0, 1, 2, 3) * 180 / torch.pi
        tensor(90.)
    """
    a, b, c = x[..., j, :] - x[..., i, :], x[..., k, :] - x[..., j, :], x[..., l, :] - x[..., k, :]
    left, right = torch.linalg.cross(a, b), torch.linalg.cross(b, c)
    return torch.atan2(torch.linalg.vector_norm(b, dim=-1) * (a * right).sum(-1), (left * right).sum(-1))


class InternalCoordinates(Transform):
    r"""Cartesian positions to bond lengths, angles and torsions, up to a rigid motion.

    $$\log |\det \partial x / \partial z| = \sum_{\text{bonds}} 2 \log r + \sum_{\text{angles}} \log \sin \theta,
    \qquad \int f(x)\, dx = V\, 8\pi^2 \int f(x(z))\, |\det \partial x / \partial z|\, dz$$

    for an `f` that does not depend on the rigid motion, with V the volume the molecule's centre may take. The
    second factor belongs to the rotations and is left out of `log_abs_det_jacobian`, as V is: both cancel in every
    difference.

    Forward takes `(*batch, atoms, 3)` in nm to `(*batch, 3 atoms - 6)`: bond lengths in nm, then angles, then torsions
    in rad. Inverse puts the root's centre at the origin, its first atom on the x axis, its last in the half plane
    y > 0. Float32 and float64; `x` and `z` alike.

    Three kinds of torsion:

    - *soft*, marked in `circular`: rotors, in (-π, π]. The inverse has the period 2π in them, so `z` may be lifted.
    - *stiff* proper torsions, as of an amide, and
    - *differences* to the first atom placed about the same axis, near ±120° or 180°, which carry chirality.

    The last two are stored from `centre`, so that the cut at ±π lies far from what is sampled. Their chart, and that
    of lengths and angles, ends (`in_chart`): beyond it the density is zero, `log_abs_det_jacobian` is +inf and
    the inverse returns a finite point without meaning, with finite gradients.

    A proper torsion is soft if the circular standard deviation over `reference` exceeds 0.35 rad, or a frame
    lies more than 100° from their mean, or its axis turns by its chemistry: a bond outside rings with an end that has
    four neighbours or more, such as a methyl sampled in one basin only. With no reference every proper torsion is
    soft, since nothing tells where a cut would be harmless. Torsions between molecules are always soft.

    Args:
        zmatrix: the tree.
        reference: frames `(m, atoms, 3)` in nm, m >= 1, that were sampled; a fit block, never evaluation samples.
        soft: the axes of the soft torsions as pairs of atoms, instead of the rule above.
        cache_size: as in `torch.distributions.transforms.Transform`.

    Raises:
        InputError: positions of another shape, not floating point or not finite; a reference frame with three
            consecutive atoms within 5° of a line, where torsions have no meaning; a `soft` axis without a torsion.

    References: Noé, Olsson, Köhler, Wu, "Boltzmann generators: sampling equilibrium states of many-body systems with
        deep learning", 2019, doi:10.1126/science.aaw1147; Parsons et al., "Practical conversion from torsion space to
        Cartesian space for in silico protein synthesis", 2005, doi:10.1002/jcc.20237.

    Example:
        >>> water = ZMatrix.from_bonds(3, [(0, 1), (0, 2)], elements="OHH", names=["O", "H1", "H2"])
        >>> internal = InternalCoordinates(water)
        >>> x = torch.tensor([[[0.5, 0, 0], [0.75, 0, 0], [0.5, 0.125, 0]]])
        >>> internal.names
        ('r(H1-O)', 'r(O-H2)', 'angle(H1-O-H2)')
        >>> z = internal(x)
        >>> z
        tensor([[0.2500, 0.1250, 1.5708]])
        >>> torch.allclose(internal(internal.inv(z)), z)
        True
    """

    bijective = True
    domain = constraints.independent(constraints.real, 2)
    codomain = constraints.independent(constraints.real, 1)

    def __init__(
        self,
        zmatrix: ZMatrix,
        *,
        reference: Float[Tensor, "m atoms 3"] | None = None,
        soft: Iterable[tuple[int, int]] | None = None,
        cache_size: int = 0,
    ) -> None:
        super().__init__(cache_size=cache_size)
        self.zmatrix = zmatrix
        self.names = zmatrix.coordinate_names
        self._bonds = torch.tensor(zmatrix.bonds).T
        self._angles = torch.tensor(zmatrix.angles).T
        self._torsions = torch.tensor([p[:4] for p in zmatrix.placements], dtype=torch.long).reshape(-1, 4).T
        order = [*zmatrix.root, *(p.atom for p in zmatrix.placements)]
        self._slot = torch.tensor(order).argsort()

        torsions = None if reference is None else self._reference_torsions(reference)
        self._soft = self._choose_soft(torsions, soft)
        centre = torch.full((len(zmatrix.placements),), math.pi, dtype=torch.float64)
        if torsions is not None:
            centre = _circular_mean(torsions)
        self._centre = torch.where(self._soft, 0.0, centre)
        hard = torch.zeros(len(self.names) - len(self._soft), dtype=torch.bool)
        self.circular = torch.cat([hard, self._soft])
        self.centre = torch.cat([torch.zeros(len(hard), dtype=torch.float64), self._centre])

    @classmethod
    def from_topology(
        cls,
        topology: Any,
        samples: Float[Tensor, "m atoms 3"] | None = None,
        *,
        soft: Iterable[tuple[int, int]] | None = None,
        root: tuple[int, int, int] | None = None,
        several_molecules: bool = False,
        anchors: Sequence[tuple[int, int, int]] = (),
    ) -> InternalCoordinates:
        """Of an `openmm.app.Topology`; `samples` are the reference frames, one is enough.

        With `several_molecules` the molecules are joined at three `anchors` each, as `join_molecules` explains;
        without, a molecule in pieces is an error, since a bond may be missing.
        """
        if root is not None and several_molecules:
            raise InputError("several molecules have `anchors` instead of a `root`: got both; drop `root`")
        if anchors and not several_molecules:
            raise InputError("`anchors` join several molecules: got them without `several_molecules`; use `root`")
        if several_molecules:
            tree = join_topology(topology, anchors=anchors)
        else:
            tree = ZMatrix.from_topology(topology, root=root)
        return cls(tree, reference=samples, soft=soft)

    def forward_shape(self, shape: tuple[int, ...]) -> torch.Size:
        return torch.Size((*shape[:-2], len(self.names)))

    def inverse_shape(self, shape: tuple[int, ...]) -> torch.Size:
        return torch.Size((*shape[:-1], self.zmatrix.n_atoms, 3))

    def _call(self, x: Float[Tensor, "*batch atoms 3"]) -> Float[Tensor, "*batch coordinates"]:
        self._check_positions(x)
        torsions = _wrap(proper_dihedral(x, *self._torsions) - self._centre.to(x))
        return torch.cat([distance(x, *self._bonds), angle(x, *self._angles), torsions], dim=-1)

    def _inverse(self, y: Float[Tensor, "*batch coordinates"]) -> Float[Tensor, "*batch atoms 3"]:
        r, theta, torsion = self._inside(y)
        placed = _root_frame(r[..., :2], theta[..., 0])
        steps = _steps(r[..., 2:], theta[..., 1:], torsion + self._centre.to(y))
        done = 0
        for count in self.zmatrix.levels:
            here = slice(done, done + count)
            parent, grandparent, reference = (placed[..., self._slot[a[here]], :] for a in self._torsions[1:])
            placed = torch.cat([placed, _attach(parent, grandparent, reference, steps[..., here, :])], dim=-2)
            done += count
        return placed[..., self._slot, :]

    def log_abs_det_jacobian(
        self, x: Float[Tensor, "*batch atoms 3"], y: Float[Tensor, "*batch coordinates"]
    ) -> Float[Tensor, "*batch"]:
        """log|det ∂z/∂x| modulo rigid motions, for r in nm; +inf where `z` is outside the chart."""
        r, theta, _ = self._inside(y)
        log_det = -2 * r.log().sum(-1) - theta.sin().log().sum(-1)
        return torch.where(self.in_chart(y), log_det, torch.inf)

    def in_chart(self, z: Float[Tensor, "*batch coordinates"]) -> Bool[Tensor, "*batch"]:
        """Whether `z` is a molecule: finite, r > 0, 0 < θ < π, every stiff torsion within π of its centre.

        To stay clear of the singular points, r, 1/r, θ and π - θ must exceed the square root of the dtype's epsilon.
        """
        r, theta, torsion = self._split(z)
        edge = _edge(z)
        lengths = ((r >= edge) & (r <= 1 / edge)).all(-1)
        angles = ((theta >= edge) & (theta <= math.pi - edge)).all(-1)
        torsions = ((torsion.abs() <= math.pi) | self._soft.to(z.device)).all(-1)
        return lengths & angles & torsions & torch.isfinite(z).all(-1)

    def wrap(self, z: Float[Tensor, "*batch coordinates"]) -> Float[Tensor, "*batch coordinates"]:
        """`z` with its circular coordinates brought back to [-π, π]."""
        return torch.where(self.circular.to(z.device), _wrap(z), z)

    def _split(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        n = self.zmatrix.n_atoms
        if z.ndim < 1 or z.shape[-1] != 3 * n - 6 or not z.is_floating_point():
            raise InputError(
                f"internal coordinates of {n} atoms must be (n, {3 * n - 6}) and floating point:"
                f" got {tuple(z.shape)} of {z.dtype}"
            )
        r, theta, torsion = z.split([n - 1, n - 2, n - 3], dim=-1)
        return r, theta, torsion

    def _inside(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Lengths, angles and torsions clamped to where everything after them is smooth and finite."""
        r, theta, torsion = self._split(torch.where(torch.isfinite(z), z, 1.0))
        edge = _edge(z)
        return r.clamp(edge, 1 / edge), theta.clamp(edge, math.pi - edge), torsion

    def _reference_torsions(self, reference: Tensor) -> Float[Tensor, "m torsions"]:
        self._check_positions(reference)
        if reference.ndim != 3 or len(reference) == 0:
            raise InputError(f"`reference` must be (m, atoms, 3) with m >= 1: got {tuple(reference.shape)}")
        x = reference.detach().to("cpu", torch.float64)
        theta = angle(x, *self._angles)
        # Angles between molecules do reach a line now and then; their torsions are soft and need no reference.
        within = torch.tensor([not self.zmatrix.between(atoms) for atoms in self.zmatrix.angles])
        straight = ((theta < SMALLEST_BEND) | (theta > math.pi - SMALLEST_BEND)) & within
        if straight.any():
            frame, which = (int(i) for i in straight.nonzero()[0])
            name = self.names[self.zmatrix.n_atoms - 1 + which]
            raise InputError(
                f"three consecutive atoms must not lie on a line: {name} is {math.degrees(theta[frame, which]):.1f}° in"
                f" reference frame {frame}; choose another `root`, or use Cartesian positions for this molecule"
            )
        return proper_dihedral(x, *self._torsions)

    def _choose_soft(
        self, torsions: Tensor | None, soft: Iterable[tuple[int, int]] | None
    ) -> Bool[Tensor, " torsions"]:
        placements = self.zmatrix.placements
        proper = torch.tensor([p.proper for p in placements], dtype=torch.bool)
        if soft is not None:
            return self._named_axes(soft)
        if torsions is None:
            return proper
        rotor = torch.tensor([p.rotor for p in placements], dtype=torch.bool)
        reach = _wrap(torsions - _circular_mean(torsions)).abs().amax(0)
        return proper & (rotor | (_circular_std(torsions) > SOFT_SPREAD) | (reach > SOFT_REACH))

    def _named_axes(self, soft: Iterable[tuple[int, int]]) -> Bool[Tensor, " torsions"]:
        axes = [
            frozenset((p.parent, p.grandparent)) if p.proper and not self.zmatrix.between(p[:2]) else None
            for p in self.zmatrix.placements
        ]
        wanted = [frozenset(pair) for pair in soft]
        for pair in wanted:
            if pair not in axes:
                known = ", ".join(str(tuple(sorted(axis))) for axis in axes if axis is not None)
                raise InputError(f"`soft` must name axes of proper torsions: got {tuple(pair)}; choose from {known}")
        free = [self.zmatrix.between(p[:4]) for p in self.zmatrix.placements]
        return torch.tensor([a in wanted or f for a, f in zip(axes, free, strict=True)], dtype=torch.bool)

    def _check_positions(self, x: Tensor) -> None:
        n = self.zmatrix.n_atoms
        if x.ndim < 2 or x.shape[-2:] != (n, 3) or not x.is_floating_point():
            raise InputError(
                f"positions must be (n, {n}, 3) in nm and floating point: got {tuple(x.shape)} of {x.dtype}"
            )
        bad = ~torch.isfinite(x).all(-1)
        if bad.any():
            *frame, atom = (int(i) for i in bad.nonzero()[0])
            label, where = self.zmatrix.labels[atom], x[(*frame, atom)].tolist()
            raise InputError(
                f"positions must be finite: frame {', '.join(map(str, frame)) or 0}, atom {atom} ({label}) is {where};"
                " remove the frame, or find out where it came from"
            )


def _root_frame(r: Float[Tensor, "*batch 2"], theta: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch 3 3"]:
    zero = torch.zeros_like(theta)
    first = torch.stack([r[..., 0], zero, zero], dim=-1)
    last = torch.stack([r[..., 1] * theta.cos(), r[..., 1] * theta.sin(), zero], dim=-1)
    return torch.stack([first, torch.zeros_like(first), last], dim=-2)


def _steps(r: Tensor, theta: Tensor, torsion: Tensor) -> Float[Tensor, "*batch placed 3"]:
    """Each placed atom seen from its parent: along the axis, towards the reference, across."""
    across = r * theta.sin()
    return torch.stack([-r * theta.cos(), across * torsion.cos(), across * torsion.sin()], dim=-1)


def _attach(parent: Tensor, grandparent: Tensor, reference: Tensor, step: Tensor) -> Tensor:
    axis, bent = normalize(parent - grandparent, dim=-1), normalize(grandparent - reference, dim=-1)
    normal = normalize(torch.linalg.cross(bent, axis), dim=-1)
    towards = torch.linalg.cross(normal, axis)
    along, beside, across = step.split(1, dim=-1)
    return parent + along * axis + beside * towards + across * normal


def _edge(z: Tensor) -> float:
    return torch.finfo(z.dtype).eps ** 0.5


def _wrap(value: Tensor) -> Tensor:
    return value - 2 * math.pi * torch.round(value / (2 * math.pi))


def _circular_mean(values: Float[Tensor, "m k"]) -> Float[Tensor, " k"]:
    return torch.atan2(values.sin().mean(0), values.cos().mean(0))


def _circular_std(values: Float[Tensor, "m k"]) -> Float[Tensor, " k"]:
    length = torch.hypot(values.sin().mean(0), values.cos().mean(0))
    return (-2 * length.clamp(max=1.0).log()).sqrt()
