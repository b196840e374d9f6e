"""Restraints that hold a guest to its host, and what it costs to let go of it into the standard state."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import openmm
from jaxtyping import Float
from scipy.integrate import quad
from scipy.special import dawsn, erf

from nessampler.errors import InputError
from nessampler.molecular.force_field.target import thermal_energy

__all__ = ["STANDARD_VOLUME", "AxisRestraint", "BoreschRestraint", "Restraint", "anchors", "standard_state_correction"]

STANDARD_VOLUME = 1.66053907
"""nm^3 per molecule at 1 mol/l."""

ORIENTATIONS = 8 * math.pi**2
SMALLEST_SINE = 0.5  # anchors at less than 30 degrees from a line are refused

Array = np.ndarray


class Restraint(Protocol):
    """A harmonic hold on the position and the orientation of a guest."""

    def force(self, parameter: str = "lambda_restraint") -> openmm.Force:
        """The restraint's energy times a global parameter, 1 by default."""
        ...

    def volume(self, temperature: float) -> float:
        """The configuration integral of the guest's position and orientation in nm^3, by quadrature."""
        ...

    def analytic_volume(self, temperature: float) -> float:
        """The same in closed form, exact or for a stiff restraint."""
        ...


def standard_state_correction(
    restraint: Restraint, temperature: float, *, analytic: bool = False, volume: float = STANDARD_VOLUME
) -> float:
    r"""ΔF in kT of letting a guest without interactions go, from the restraint into the standard volume.

    $$\Delta F = -\ln \frac{8\pi^2\, V^\circ}{Z_R}, \qquad
      Z_R = \int e^{-u_R(r, \Omega) / k_B T}\, dr\, d\Omega$$

    A free guest has the volume $V^\circ$ and all orientations, $8\pi^2$; a restrained one $Z_R$. The correction is
    negative for a restraint that confines the guest to less than that. Kinetic energies and the guest's shape cancel.

    | symbol | argument | |
    |---|---|---|
    | $u_R$ | `restraint` | at full strength |
    | T | `temperature` | kelvin |
    | $V^\circ$ | `volume` | nm^3; 1.6605, a molecule's share at 1 mol/l |

    Args:
        analytic: by the closed form: exact for `AxisRestraint`, that of a stiff restraint for `BoreschRestraint`.

    References:
        Gilson, Given, Bush & McCammon, The statistical-thermodynamic basis for computation of binding affinities: a
        critical review, 1997, Biophys. J. 72, 1047; Boresch, Tettinger, Leitgeb & Karplus, Absolute binding free
        energies: a quantitative approach for their calculation, 2003, J. Phys. Chem. B 107, 9535.

    Example:
        >>> hold = AxisRestraint(((0,), (1,)), ((2,), (3,)), stiffness=1000.0, tilt=50.0)
        >>> round(standard_state_correction(hold, 300.0), 3)
        -10.405
    """
    if not volume > 0:
        raise InputError(f"a standard volume is positive: got {volume} nm^3")
    held = restraint.analytic_volume(temperature) if analytic else restraint.volume(temperature)
    return -math.log(ORIENTATIONS * volume / held)


@dataclass(frozen=True)
class BoreschRestraint:
    r"""One distance, two angles and three torsions between three atoms of the host and three of the guest.

    $$u_R = \tfrac{k_r}{2} (r - r_0)^2 + \sum_{i=A,B} \tfrac{k_{\theta_i}}{2} (\theta_i - \theta_{i0})^2
          + \sum_{i=A,B,C} \tfrac{k_{\phi_i}}{2}\, [\phi_i - \phi_{i0}]_{2\pi}^2$$

    With anchors $a, b, c$ in the host and $A, B, C$ in the guest:

    | symbol | argument | |
    |---|---|---|
    | $a, b, c$ | `host` | atoms |
    | $A, B, C$ | `guest` | atoms |
    | $r_0$ | `distance` | $\lvert aA\rvert$, nm |
    | $\theta_{A0}, \theta_{B0}$ | `angles` | of $b,a,A$ and $a,A,B$, radian |
    | $\phi_{A0}, \phi_{B0}, \phi_{C0}$ | `torsions` | of $c,b,a,A$, of $b,a,A,B$ and of $a,A,B,C$, radian |
    | $k_r$ | `stiffness` | kJ/mol/nm^2 |
    | $k_{\theta_A}, k_{\theta_B}$ | `angle_constants` | kJ/mol/rad^2 |
    | $k_{\phi_A}, k_{\phi_B}, k_{\phi_C}$ | `torsion_constants` | kJ/mol/rad^2 |

    The six are spherical coordinates of the guest's first anchor about the host and the guest's orientation, so that

    $$Z_R = \int r^2 e^{-u_r}\,dr \int_0^\pi \sin\theta_A\, e^{-u_{\theta_A}} d\theta_A
          \int_0^\pi \sin\theta_B\, e^{-u_{\theta_B}} d\theta_B \prod_i \int_{-\pi}^{\pi} e^{-u_{\phi_i}} d\phi_i$$

    whatever the shapes of the two are. Where all six are stiff and away from their limits,

    $$Z_R \approx r_0^2 \sin\theta_{A0} \sin\theta_{B0}\, (2\pi k_B T)^3
          \big/ \sqrt{k_r k_{\theta_A} k_{\theta_B} k_{\phi_A} k_{\phi_B} k_{\phi_C}} .$$

    A torsion needs three points that are not on a line: see `at` and `anchors`. Where symmetry makes several poses of
    the same molecules, the restraint holds one of them, and the free energy of switching it on has to count them all.

    Raises:
        InputError: anchors that are not six different atoms, constants or a distance that are not positive, or angles
            outside of (0, π).

    References:
        Boresch, Tettinger, Leitgeb & Karplus, Absolute binding free energies: a quantitative approach for their
        calculation, 2003, J. Phys. Chem. B 107, 9535.

    Example:
        >>> x = np.array([[0, 0, 0], [0.15, 0, 0], [0.2, 0.15, 0], [0, 0.4, 0.1], [0.1, 0.5, 0.2], [0.2, 0.4, 0.3]])
        >>> hold = BoreschRestraint.at(x, (0, 1, 2), (3, 4, 5))
        >>> exact, stiff = (standard_state_correction(hold, 300.0, analytic=a) for a in (False, True))
        >>> abs(exact - stiff) < 0.02
        True
    """

    host: tuple[int, int, int]
    guest: tuple[int, int, int]
    distance: float
    angles: tuple[float, float]
    torsions: tuple[float, float, float]
    stiffness: float = 4000.0
    angle_constants: tuple[float, float] = (200.0, 200.0)
    torsion_constants: tuple[float, float, float] = (200.0, 200.0, 200.0)

    def __post_init__(self) -> None:
        atoms = (*self.host, *self.guest)
        if len(atoms) != 6 or len(set(atoms)) < 6:
            raise InputError(f"a Boresch restraint has three anchors in the host and three in the guest: got {atoms}")
        _check_positive((self.stiffness, *self.angle_constants, *self.torsion_constants))
        if not (self.distance > 0 and all(0 < a < math.pi for a in self.angles)):
            raise InputError(
                f"a distance is positive and angles lie between 0 and π: got {self.distance} nm and {self.angles}"
            )

    @classmethod
    def at(
        cls,
        x: Float[np.ndarray, "atoms 3"],
        host: Sequence[int],
        guest: Sequence[int],
        *,
        stiffness: float = 4000.0,
        angle_constants: tuple[float, float] = (200.0, 200.0),
        torsion_constants: tuple[float, float, float] = (200.0, 200.0, 200.0),
    ) -> BoreschRestraint:
        """With the distance, angles and torsions that the anchors have in a conformation (nm).

        Raises:
            InputError: anchors within 30 degrees of a line.
        """
        chain = [x[i] for i in (*reversed(host), *guest)]  # c b a A B C
        bends = [_angle(*chain[k : k + 3]) for k in range(4)]
        if min(math.sin(bend) for bend in bends) < SMALLEST_SINE:
            raise InputError(
                f"anchors must not lie on a line, where torsions are undefined: angles along c, b, a, A, B, C are "
                f"{', '.join(f'{math.degrees(b):.0f}' for b in bends)} degrees; choose other atoms, see `anchors`"
            )
        a, b, c = host
        d, e, f = guest
        return cls(
            (a, b, c),
            (d, e, f),
            float(np.linalg.norm(x[d] - x[a])),
            (bends[1], bends[2]),
            (_torsion(*chain[:4]), _torsion(*chain[1:5]), _torsion(*chain[2:])),
            stiffness,
            angle_constants,
            torsion_constants,
        )

    def force(self, parameter: str = "lambda_restraint") -> openmm.CustomCompoundBondForce:
        """The restraint's energy times a global parameter, 1 by default."""
        # p1 to p6 are c, b, a, A, B, C.
        terms = ["0.5*k_r*(distance(p3,p4)-r0)^2"]
        values = {"k_r": self.stiffness, "r0": self.distance}
        quads = {"A": ("p2,p3,p4", "p1,p2,p3,p4"), "B": ("p3,p4,p5", "p2,p3,p4,p5"), "C": ("", "p3,p4,p5,p6")}
        definitions = []
        for k, (name, (bend, twist)) in enumerate(quads.items()):
            if bend:
                terms.append(f"0.5*k_theta{name}*(angle({bend})-theta{name})^2")
                values |= {f"k_theta{name}": self.angle_constants[k], f"theta{name}": self.angles[k]}
            terms.append(f"0.5*k_phi{name}*turn{name}^2")
            definitions += [
                f"turn{name}=twist{name}-{2 * math.pi!r}*floor(twist{name}*{1 / (2 * math.pi)!r}+0.5)",
                f"twist{name}=dihedral({twist})-phi{name}",
            ]
            values |= {f"k_phi{name}": self.torsion_constants[k], f"phi{name}": self.torsions[k]}
        force = openmm.CustomCompoundBondForce(6, f"{parameter}*({'+'.join(terms)}); " + "; ".join(definitions))
        force.addGlobalParameter(parameter, 1.0)
        for name in values:
            force.addPerBondParameter(name)
        force.addBond([*reversed(self.host), *self.guest], list(values.values()))
        return force

    def energy(self, x: Float[np.ndarray, "atoms 3"]) -> float:
        """Of one conformation, kJ/mol."""
        chain = [x[i] for i in (*reversed(self.host), *self.guest)]
        bends = [_angle(*chain[k : k + 3]) for k in (1, 2)]
        twists = [_torsion(*chain[k : k + 4]) for k in range(3)]
        total = self.stiffness * (float(np.linalg.norm(chain[3] - chain[2])) - self.distance) ** 2
        for k, now, rest in zip(self.angle_constants, bends, self.angles, strict=True):
            total += k * (now - rest) ** 2
        for k, now, rest in zip(self.torsion_constants, twists, self.torsions, strict=True):
            total += k * math.remainder(now - rest, 2 * math.pi) ** 2
        return 0.5 * total

    def volume(self, temperature: float) -> float:
        """$Z_R$ in nm^3, by quadrature."""
        kt = thermal_energy(temperature)
        width = math.sqrt(kt / self.stiffness)
        low, high = max(0.0, self.distance - 12 * width), self.distance + 12 * width
        found = _integral(
            lambda r: r**2 * math.exp(-0.5 * ((r - self.distance) / width) ** 2), low, high, self.distance
        )
        for constant, rest in zip(self.angle_constants, self.angles, strict=True):
            found *= _integral(
                lambda a, k=constant, rest=rest: math.sin(a) * math.exp(-0.5 * k / kt * (a - rest) ** 2),
                0.0,
                math.pi,
                rest,
            )
        for constant in self.torsion_constants:
            found *= math.sqrt(2 * math.pi * kt / constant) * float(erf(math.pi * math.sqrt(constant / (2 * kt))))
        return found

    def analytic_volume(self, temperature: float) -> float:
        """$Z_R$ in nm^3 of a stiff restraint."""
        kt = thermal_energy(temperature)
        constants = self.stiffness * math.prod(self.angle_constants) * math.prod(self.torsion_constants)
        sines = math.prod(math.sin(a) for a in self.angles)
        return self.distance**2 * sines * (2 * math.pi * kt) ** 3 / math.sqrt(constants)


@dataclass(frozen=True)
class AxisRestraint:
    r"""A guest's middle to its host's, and the guest's axis to the host's, either way round; turns about it are free.

    $$u_R = \tfrac{k}{2} \lvert d\rvert^2 + k_a \sin^2\theta, \qquad
      d = \tfrac{1}{2}(g_1 + g_2) - \tfrac{1}{2}(h_1 + h_2), \qquad
      \cos\theta = \frac{(g_1 - g_2)\cdot(h_1 - h_2)}{\lvert g_1 - g_2\rvert\,\lvert h_1 - h_2\rvert}$$

    | symbol | argument | |
    |---|---|---|
    | $h_1, h_2$ | `host` | centroids of two groups of atoms, such as the two rims of a barrel |
    | $g_1, g_2$ | `guest` | centroids of two groups of atoms |
    | k | `stiffness` | kJ/mol/nm^2 |
    | $k_a$ | `tilt` | kJ/mol |

    For barrels and guests that look the same after turns about their axes and upside down: all of these equivalent
    poses have one restraint energy, so none is lost and there is no symmetry number. Moved as a rigid body, the guest
    carries d along and turns its axis over the sphere; hence, exactly and for molecules of any flexibility,

    $$Z_R = \Big(\frac{2\pi k_B T}{k}\Big)^{3/2}\, 8\pi^2 \int_0^1 e^{-\kappa (1 - c^2)}\,dc
          = \Big(\frac{2\pi k_B T}{k}\Big)^{3/2}\, 8\pi^2\, \frac{D(\sqrt\kappa)}{\sqrt\kappa}, \qquad
      \kappa = \frac{k_a}{k_B T},$$

    with Dawson's function D.

    Raises:
        InputError: groups that are empty or share atoms, constants that are not positive.

    Example:
        >>> hold = AxisRestraint(((0,), (1,)), ((2,), (3,)), stiffness=1000.0, tilt=50.0)
        >>> abs(hold.volume(300.0) / hold.analytic_volume(300.0) - 1) < 1e-9
        True
    """

    host: tuple[tuple[int, ...], tuple[int, ...]]
    guest: tuple[tuple[int, ...], tuple[int, ...]]
    stiffness: float
    tilt: float

    def __post_init__(self) -> None:
        atoms = [atom for group in (*self.host, *self.guest) for atom in group]
        if not all((*self.host, *self.guest)) or len(set(atoms)) < len(atoms):
            raise InputError(f"an axis joins two groups of atoms of its own: got {self.host} and {self.guest}")
        _check_positive((self.stiffness, self.tilt))

    def force(self, parameter: str = "lambda_restraint") -> openmm.CustomCentroidBondForce:
        """The restraint's energy times a global parameter, 1 by default."""
        definitions = ["apart=" + "+".join(f"({q}3+{q}4-{q}1-{q}2)^2" for q in "xyz")]
        definitions += ["cosine=(" + "+".join(f"({q}3-{q}4)*({q}1-{q}2)" for q in "xyz") + ")/lengths"]
        definitions += ["lengths=distance(g1,g2)*distance(g3,g4)"]
        text = f"{parameter}*(0.125*stiffness*apart+tilt*(1-cosine^2)); " + "; ".join(definitions)
        force = openmm.CustomCentroidBondForce(4, text)
        force.addGlobalParameter(parameter, 1.0)
        force.addPerBondParameter("stiffness")
        force.addPerBondParameter("tilt")
        # Weights of one: centroids that do not know of masses, which are often repartitioned.
        groups = [force.addGroup(list(group), [1.0] * len(group)) for group in (*self.host, *self.guest)]
        force.addBond(groups, [self.stiffness, self.tilt])
        return force

    def volume(self, temperature: float) -> float:
        """$Z_R$ in nm^3, by quadrature."""
        kt = thermal_energy(temperature)
        width = math.sqrt(kt / self.stiffness)
        radial = _integral(lambda r: 4 * math.pi * r**2 * math.exp(-0.5 * (r / width) ** 2), 0.0, 12 * width, width)
        return radial * ORIENTATIONS * _integral(lambda c: math.exp(-self.tilt / kt * (1 - c**2)), 0.0, 1.0, 0.99)

    def analytic_volume(self, temperature: float) -> float:
        """$Z_R$ in nm^3, exact."""
        kt = thermal_energy(temperature)
        root = math.sqrt(self.tilt / kt)
        return (2 * math.pi * kt / self.stiffness) ** 1.5 * ORIENTATIONS * float(dawsn(root)) / root


def anchors(
    x: Float[np.ndarray, "frames atoms 3"], host: Sequence[int], guest: Sequence[int]
) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Anchors of a Boresch restraint that are farthest from any line in all frames (nm).

    The smallest sine of the four angles along c, b, a, A, B, C is made as large as it gets; host and guest anchors are
    looked for in the atoms given, which should be stiff and heavy.

    Raises:
        InputError: fewer than three candidates on either side, or no choice that stays 30 degrees from a line.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(1, 8, 3))
        >>> host, guest = anchors(x, range(4), range(4, 8))
        >>> BoreschRestraint.at(x[0], host, guest).host == host
        True
    """
    host, guest = list(host), list(guest)
    if len(set(host)) < 3 or len(set(guest)) < 3 or set(host) & set(guest):
        raise InputError(f"anchors are three atoms of a host and three of a guest: got candidates {host} and {guest}")
    best: tuple[float, tuple[int, int, int], tuple[int, int, int]] | None = None
    for a in host:
        for first in guest:
            sides = [_side(x, own, near, far) for own, near, far in ((host, a, first), (guest, first, a))]
            least = min(sine for sine, _ in sides)
            if best is None or least > best[0] + 1e-12:
                (b, c), (second, third) = sides[0][1], sides[1][1]
                best = least, (a, b, c), (first, second, third)
    assert best is not None
    if best[0] < SMALLEST_SINE:
        raise InputError(
            f"anchors must not lie on a line, where torsions are undefined: no choice among {len(host)} and "
            f"{len(guest)} atoms stays 30 degrees from one in all {len(x)} frames; offer more atoms, or frames of one "
            "pose"
        )
    return best[1], best[2]


def _side(x: Array, own: list[int], near: int, far: int) -> tuple[float, tuple[int, int]]:
    """Of one molecule: its second and third anchor behind `near`, and the smaller sine of the two angles they make."""
    others = [i for i in own if i != near]
    to_far, to_second = _unit(x[:, far] - x[:, near]), _unit(x[:, others] - x[:, near, None])
    at_near = _sine(np.einsum("fi,fbi->fb", to_far, to_second)).min(0)
    between = _unit(x[:, None, others] - x[:, others, None], safe=True)  # from second to third: frames, second, third
    at_second = _sine(np.einsum("fbi,fbci->fbc", -to_second, between)).min(0)
    np.fill_diagonal(at_second, 0.0)
    least = np.minimum(at_near[:, None], at_second)
    b, c = np.unravel_index(int(least.argmax()), least.shape)
    return float(least[b, c]), (others[int(b)], others[int(c)])


def _sine(cosine: Array) -> Array:
    return np.sqrt(np.clip(1 - cosine**2, 0, 1))


def _unit(v: Array, safe: bool = False) -> Array:
    length = np.linalg.norm(v, axis=-1, keepdims=True)
    return v / np.where(length > 0, length, 1.0) if safe else v / length


def _angle(a: Array, b: Array, c: Array) -> float:
    p, q = a - b, c - b
    return math.atan2(float(np.linalg.norm(np.cross(p, q))), float(p @ q))


def _torsion(a: Array, b: Array, c: Array, d: Array) -> float:
    along = (c - b) / np.linalg.norm(c - b)
    p, q = np.cross(b - a, along), np.cross(along, d - c)
    return math.atan2(float(np.cross(p, q) @ along), float(p @ q))


def _integral(f: Callable[[float], float], low: float, high: float, near: float) -> float:
    points = [near] if low < near < high else None
    return float(quad(f, low, high, points=points, epsabs=0.0, epsrel=1e-12, limit=200)[0])


def _check_positive(constants: Sequence[float]) -> None:
    if not all(math.isfinite(k) and k > 0 for k in constants):
        raise InputError(
            f"a restraint holds by constants that are positive: got {', '.join(f'{k:g}' for k in constants)}"
        )
