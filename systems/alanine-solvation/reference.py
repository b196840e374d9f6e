"""Reference ΔF of the systems of alanine dipeptide, by two samplings that share no draw.

    python systems/alanine-solvation/reference.py NAME [--work FOLDER] [--seed N] [--production PS]

NAME is alanine-solvation, alanine-solvation-gbn2, amber96-to-amber14, amber14-to-charmm36 or alanine-basins. FOLDER
keeps the pilot, which the systems share. README.md records what this prints.

    python systems/alanine-solvation/reference.py alanine-basins --only-pilot --starts STARTS
    python systems/alanine-solvation/reference.py NAME --starts STARTS --device cuda --chains 1024 --basin-chains 6144 \
        --interval 2 --equilibration 50 --production 200 --stop-after 300

On a GPU a step takes hardly longer for ten thousand walkers than for a hundred, so chains are many and not long:
`--chains` of each state, and STARTS, a small file of what a pilot on the CPU found, is all that it needs. Memory of
where chains started decays over their length alone, whatever their number, so the equilibration has to be longer where
the scatter is to be smaller. `--stop-after` ends the dynamics early, and what there is is analysed.

φ and ψ mix in nanoseconds without help, so no chain here waits for them. A bias takes away four fifths, up to 12 kT
(18 where a force field's own umbrellas know the barriers), of a free energy of φ and ψ that pilots know roughly, and
every average is weighed back to no bias.

Two force fields:
1. Chains at mixed energies: slopes integrated, and MBAR.
2. Other chains at the two ends: BAR of weighted draws.

Two basins of one:
1. Umbrellas along φ, with the bias: MBAR over the windows.
2. Other chains under the bias alone.

Errors are the scatter of estimates from eight groups of chains that have no chain in common.
"""

import argparse
import math
import time
import zlib
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import arviz
import numpy as np
import openmm
import torch
from torch import Tensor

from nessampler.estimators import mbar, statistical_inefficiency
from nessampler.estimators.integration import GaussRule
from nessampler.molecular import TorchForceField, load_structure, parameterize
from nessampler.molecular.force_field.target import thermal_energy
from nessampler.molecular.regions import Arc, Torsion
from nessampler.molecular.torch_dynamics import LangevinMiddle, Phase
from nessampler.runs.config import load

CATALOGUE = Path(__file__).parents[1]
TEMPERATURE, HYDROGEN_MASS, TIMESTEP, FRICTION = 300.0, 4.0, 0.002, 2.0
KT = thermal_energy(TEMPERATURE)
STARTS = 12_000  # draws of a pilot that go into a file, about
GROUPS, FEWEST = 8, 12  # groups of chains, also the chains of every window of the pilot; draws of a chain
SPRING, WINDOW_EQUILIBRATION, WINDOW_PRODUCTION, WINDOW_INTERVAL = 8.0, 2.0, 8.0, 0.1  # kT; ps
PILOT_PRODUCTION = 48.0  # ps of every chain along φ, where they are a pilot
GRID, FLATTENED, HIGHEST = 24, 0.8, 12.0  # cells of the bias; the part that it takes away, and of what at most, kT
KNOWN = 18.0  # of what at most where umbrellas of the force field's own have seen the barriers
NODES = {"amber14-to-charmm36": 5}  # of the path; 3 elsewhere
PHI_WINDOWS, PHI_SPRING = 24, 20.0
PDB, EVALUATED = "alanine-dipeptide.pdb", {"cpu": 4096}  # conformations at once
LARGEST = 2**17  # of them on a GPU


@dataclass
class Settings:
    """What the command line says, times in ps. Nothing is stopped before `deadline`, on the monotonic clock."""

    device: str = "cpu"
    compile: bool = True
    windows: int = 12  # of the pilot, along either torsion
    chains: int = 64  # of a state
    basin_chains: int = 384
    equilibration: float = 4.0
    interval: float = 0.1
    deadline: float = math.inf


given = Settings()


class State:
    """A force field for the molecule: the system, and its energies in double precision."""

    def __init__(self, name: str, force_field: list[str], structure: str) -> None:
        self.molecule = load_structure(CATALOGUE / name / structure)
        self.system = parameterize(self.molecule, force_field, None, HYDROGEN_MASS, CATALOGUE / name)
        self.key = "+".join(Path(f).stem for f in force_field)
        self.torsions = [Torsion.of(self.molecule, which) for which in ("phi", "psi")]
        masses = [self.system.getParticleMass(i)._value for i in range(self.system.getNumParticles())]
        self.masses = torch.tensor(masses)
        self._exact = TorchForceField(self.system, device=given.device)

    def energy(self, x: Tensor) -> Tensor:
        """kT, of `(chains, draws, atoms, 3)`."""
        most = EVALUATED.get(given.device, LARGEST)
        parts = [self._exact.energy(part.double()) for part in x.flatten(0, 1).split(most)]
        return (torch.cat(parts) / KT).view(x.shape[:2])

    def angles(self, x: Tensor) -> Tensor:
        """φ and ψ, `(2, ...)`."""
        return torch.stack([t.value(x.double()) for t in self.torsions])


class Forces:
    """What dynamics asks of a force field, for a mixture of two with parameters of each walker."""

    def __init__(self, parts: list[tuple[TorchForceField, Tensor | float]], parameters: dict[str, Tensor]) -> None:
        self.parts, self.device, self.capturable = parts, torch.device(given.device), given.compile
        self.parameters = {name: value.to(self.device) for name, value in parameters.items()}

    def forces(self, x: Tensor) -> Tensor:
        total = torch.zeros_like(x)
        for field, weight in self.parts:
            total += weight * field.forces(x, parameters=self.parameters)
        return total


def run(
    forces: Forces,
    state: State,
    phase: Phase,
    equilibration: float,
    production: float,
    generator: Any,
    what: str,
    *,
    interval: float | None = None,
) -> Tensor:
    """Draws every interval after equilibration, `(walkers, draws, atoms, 3)` in float32 on the CPU.

    Of a run that the deadline ends, the first third at most is equilibration.
    """
    dynamics = LangevinMiddle(forces, state.masses, TEMPERATURE, timestep=TIMESTEP, friction=FRICTION)
    interval = interval or given.interval
    stride, draws, began, spent = round(interval / TIMESTEP), [], time.monotonic(), time.process_time()
    dropped = round(equilibration / interval)
    wanted = dropped + round(production / interval)
    while len(draws) < wanted and (time.monotonic() < given.deadline or len(draws) < FEWEST):
        phase = dynamics.run(phase, stride, generator=generator)
        draws.append(phase.x.float().cpu())
    dropped = dropped if len(draws) == wanted else min(dropped, len(draws) // 3)
    steps = len(phase.x) * stride * len(draws)
    used = f"{time.monotonic() - began:.0f} s, {time.process_time() - spent:.0f} s of one core"
    length = f"{dropped * interval:g} + {(len(draws) - dropped) * interval:g} ps"
    print(f"  {what}: {len(phase.x)} chains of {length}, {steps / 1e6:.1f} M steps, {used}", flush=True)
    return torch.stack(draws[dropped:], 1)


def umbrella_centres() -> Tensor:
    """`(2, windows)`."""
    nodes = 2 * math.pi / given.windows * torch.arange(given.windows, dtype=torch.float64)
    return torch.cartesian_prod(nodes, nodes).T


def spring(torsion: Torsion, strength: float) -> openmm.CustomTorsionForce:
    """Around a centre, both global parameters: every walker may have its own, or none."""
    force = openmm.CustomTorsionForce(f"strength*{KT}*(1-cos(theta-centre_{torsion.name}))")
    force.setName(f"umbrella of {torsion.name}")
    force.addGlobalParameter("strength", strength)
    force.addGlobalParameter(f"centre_{torsion.name}", 0.0)
    force.addTorsion(*torsion.atoms, [])
    return force


class Pilot(NamedTuple):
    """Draws of amber96 under umbrellas, `(n, atoms, 3)`; their log-weights without; their φ and ψ."""

    x: Tensor
    log_weight: Tensor
    angles: Tensor


def pilot(work: Path, seed: int) -> Pilot:
    state = State("alanine-basins", ["amber96.xml"], PDB)
    file = work / f"umbrellas-{state.key}-{seed}{'' if given.windows == 12 else f'-{given.windows}'}.npz"
    if not file.exists():
        np.savez(file, x=umbrellas(state, seed).numpy())
    x = torch.as_tensor(np.load(file)["x"])[:, 3::4]
    angles = state.angles(x)
    return Pilot(x.flatten(0, 1), window_weights(angles).flatten(), angles.flatten(1))


def umbrellas(state: State, seed: int) -> Tensor:
    centres = umbrella_centres().repeat(1, GROUPS)
    system = deepcopy(state.system)
    for torsion in state.torsions:
        system.addForce(spring(torsion, SPRING))
    parameters = {f"centre_{t.name}": c for t, c in zip(state.torsions, centres, strict=True)}
    forces = Forces([(fast(system, centres.shape[1]), 1.0)], parameters)
    x = torch.as_tensor(state.molecule.positions).expand(centres.shape[1], -1, -1)
    for torsion, centre in zip(state.torsions, centres, strict=True):
        x = torsion.turned(x, centre - torsion.value(x))
    x = x.to(given.device)
    for k in range(400):  # downhill, the largest displacement shrinking from 2 pm
        push = forces.forces(x)
        x = x + 0.002 * 0.985**k * push / torch.linalg.vector_norm(push, dim=-1).amax(1)[:, None, None]
    generator = noise(seeded(f"umbrellas {state.key} {seed}"))
    slow = LangevinMiddle(forces, state.masses, TEMPERATURE, timestep=0.0005, friction=20.0)
    phase = slow.start(x[0], len(x), generator=generator)
    phase = slow.run(Phase(x.clone(), phase.v), 500, generator=generator)
    lengths = (WINDOW_EQUILIBRATION, WINDOW_PRODUCTION)
    return run(forces, state, phase, *lengths, generator, f"pilot, {state.key}", interval=WINDOW_INTERVAL)


def fast(system: openmm.System, walkers: int) -> TorchForceField:
    """Forces for dynamics, of batches of `walkers` or whole multiples."""
    field = TorchForceField(system, dtype=torch.float32, device=given.device, compile=given.compile)
    field.chunk_size = walkers if given.device != "cpu" else field.chunk_for(walkers)
    return field


def window_weights(angles: Tensor) -> Tensor:
    """Log-weights that take the pilot's draws to no umbrella."""
    shape = (2, *[1] * (angles.ndim - 1))
    reduced = [SPRING * ((angles - c.view(shape)).cos() - 1).sum(0).flatten() for c in umbrella_centres().T]
    return unbiased(torch.stack(reduced)).view(angles.shape[1:])


def unbiased(log_rho: Tensor) -> Tensor:
    """MBAR by Newton's method: log-weights of draws of windows, as many of each, from the log of every window's factor.

    Args:
        log_rho: `(windows, n)`.
    """
    windows, n = log_rho.shape
    f = torch.zeros(windows, dtype=torch.float64)
    for iteration in range(80):
        mixed = torch.logsumexp(log_rho + f[:, None], 0)
        share = (log_rho + f[:, None] - mixed).exp()
        held = share.sum(1)
        gradient = held - n / windows
        if float(gradient.abs().max()) < 1e-7 * n:
            return -mixed - torch.logsumexp(-mixed, 0)
        if iteration < 10:
            f = f - (held * windows / n).log()
        else:
            f = f - torch.linalg.pinv(torch.diag(held) - share @ share.T, hermitian=True) @ gradient
        f = f - f.mean()
    raise RuntimeError("the windows' free energies did not converge")


def cells(angles: Tensor) -> Tensor:
    """Which node of the bias is the nearest, of `(2, n)`."""
    row, column = (angles / (2 * math.pi / GRID)).round().long() % GRID
    return row * GRID + column


def free_energy_of_cells(found: Pilot, log_weight: Tensor, highest: float = HIGHEST) -> Tensor:
    """`(GRID²,)` in kT above the lowest, `highest` at most: what nobody visited may lie no higher."""
    weight = torch.zeros(GRID**2, dtype=torch.float64).index_add(0, cells(found.angles), normalised(log_weight).exp())
    return -(weight / weight.max()).clamp(min=math.exp(-highest)).log()


def flattening(state: State, surface: Tensor) -> openmm.CMAPTorsionForce:
    """The bias as a map over φ and ψ, kJ/mol."""
    bias = -FLATTENED * KT * surface.view(GRID, GRID)
    force = openmm.CMAPTorsionForce()
    force.setName("flattening")
    force.addMap(GRID, bias.T.flatten().tolist())  # the first torsion is the fast index
    force.addTorsion(0, *state.torsions[0].atoms, *state.torsions[1].atoms)
    return force


def starts(found: Pilot, log_probability: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Draws of the pilot, as many in every cell as the log-probabilities say: chains need not find the basins."""
    cell = cells(found.angles)
    crowd = torch.bincount(cell, minlength=GRID**2).clamp(min=1)
    weight = (log_probability[cell] - crowd[cell].log()).exp()
    return found.x[torch.multinomial(weight, n, replacement=True, generator=generator)].double()


def seeded(purpose: str) -> torch.Generator:
    return torch.Generator().manual_seed(zlib.crc32(purpose.encode()))


def noise(generator: torch.Generator) -> torch.Generator:
    """On the device where dynamics runs; on a CPU the generator itself."""
    if given.device == "cpu":
        return generator
    return torch.Generator(given.device).manual_seed(generator.initial_seed())


def biased(system: openmm.System, bias: openmm.Force) -> openmm.System:
    copy = deepcopy(system)
    copy.addForce(deepcopy(bias))
    return copy


def bias_energy(system: openmm.System, bias: openmm.Force, x: Tensor) -> Tensor:
    """kT, `(chains, draws)`."""
    bare = openmm.System()
    for i in range(system.getNumParticles()):
        bare.addParticle(system.getParticleMass(i))
    bare.addForce(deepcopy(bias))
    field = TorchForceField(bare, device=given.device)
    return (torch.cat([field.energy(p.double()) for p in x.flatten(0, 1).split(65536)]) / KT).view(x.shape[:2])


def r_hat(angles: Tensor) -> float:
    """The largest over cosines and sines of φ and ψ, `(2, chains, draws)`."""
    return max(float(arviz.rhat(f(a).numpy())) for a in angles for f in (torch.cos, torch.sin))  # pyright: ignore[reportArgumentType]


def weighted_bar(work_a: Tensor, weight_a: Tensor, work_b: Tensor, weight_b: Tensor) -> float:
    """BAR from U_B - U_A of draws of either end, log-weights summing to one."""
    delta = 0.0
    for _ in range(200):
        log_a = torch.logsumexp((weight_a + torch.nn.functional.logsigmoid(delta - work_a)).flatten(), 0)
        log_b = torch.logsumexp((weight_b + torch.nn.functional.logsigmoid(work_b - delta)).flatten(), 0)
        step = float(log_b - log_a)
        delta += step
        if abs(step) < 1e-9:
            break
    return delta


def normalised(log_weight: Tensor) -> Tensor:
    return log_weight - torch.logsumexp(log_weight.flatten(), 0)


def told(what: str, value: float, groups: list[float]) -> None:
    error = float(np.std(groups, ddof=1)) / math.sqrt(len(groups))
    print(f"{what}: {value:.4f} ± {error:.4f} kT", flush=True)


def between(name: str, a: State, b: State, pilots: list[Pilot], seed: int, production: float) -> None:
    """ΔF of two force fields, from a pilot of each."""
    surfaces = [free_energy_of_cells(found, found.log_weight, KNOWN) for found in pilots]
    (x_a, w_a, angles_a), (x_b, w_b, angles_b) = pilots
    few = Pilot(torch.cat([x_a, x_b]), torch.cat([w_a, w_b]), torch.cat([angles_a, angles_b], 1))
    surface = -torch.logaddexp(-surfaces[0], -surfaces[1])
    surface = (surface - surface.min()).clamp(max=KNOWN)
    bias = flattening(a, surface)
    rule = GaussRule(NODES.get(name, 3), (0.0, 1.0))
    times = torch.tensor([0.0, *rule.nodes, 1.0], dtype=torch.float64)
    chains = given.chains
    at_once = chains if given.device == "cpu" else chains * (len(times) - 1)
    fields = [fast(biased(s.system, bias), at_once) for s in (a, b)]
    generator = seeded(f"flattened {name} {seed}")
    begin = torch.cat(
        [starts(few, -(1 - t) * surfaces[0] - t * surfaces[1] + FLATTENED * surface, chains, generator) for t in times]
    )
    forces = Mixed(fields[0], fields[1], times)
    generator = noise(generator)
    phase = started(begin, forces, a, generator)  # pyright: ignore[reportArgumentType]
    x = run(forces, a, phase, given.equilibration, production, generator, f"flattened, {name}")  # pyright: ignore[reportArgumentType]
    x = x.unflatten(0, (len(times), chains))
    u_a, u_b, v = (
        torch.stack([f(part) for part in x]) for f in (a.energy, b.energy, lambda y: bias_energy(a.system, bias, y))
    )
    for k, part in enumerate(x):
        angles, w = a.angles(part), normalised(v[k])
        g = max(statistical_inefficiency(f(q).numpy()) for q in angles for f in (torch.cos, torch.sin))
        right = float(w.exp()[angles[0] > 0].sum())
        ess = float(1 / (2 * w).exp().sum()) / w.numel()
        mixing = f"R-hat {r_hat(angles):.3f}, inefficiency {g * given.interval:.1f} ps, {ess:.2f} effective"
        print(f"  t = {times[k]:.3f}: {mixing}; φ > 0 has {right:.4f}", flush=True)

    def estimates(some: slice) -> tuple[float, float, float]:
        p, q, w = (s[:, some] for s in (u_a, u_b, v))
        slopes = [float((normalised(w[k]).exp() * (q - p)[k]).sum()) for k in range(1, len(times) - 1)]
        rows = [p, *(p + s * (q - p) + w for s in times[1:-1]), q]
        energies = torch.stack([r[1:-1].flatten() for r in rows]).numpy()
        multistate = mbar(energies, [0, *[p[0].numel()] * len(rule.nodes), 0])
        assert multistate.delta_f is not None
        ends = weighted_bar((q - p)[0], normalised(w[0]), (q - p)[-1], normalised(w[-1]))
        return float(np.dot(rule.weights, slopes)), multistate.delta_f, ends

    value, groups = estimates(slice(None)), [estimates(piece) for piece in pieces(chains)]
    for k, what in enumerate(("mixed energies, integration", "mixed energies, MBAR", "ends, BAR")):
        told(what, value[k], [g[k] for g in groups])


class Mixed:
    """Forces of states along a path between two force fields, as many walkers of each."""

    def __init__(self, a: TorchForceField, b: TorchForceField, times: Tensor) -> None:
        self.a, self.b, self.device, self.each = a, b, torch.device(given.device), given.chains
        self.capturable = given.compile
        self.t = times.to(self.device).repeat_interleave(self.each)[:, None, None]

    def forces(self, x: Tensor) -> Tensor:
        first = torch.zeros_like(x)
        first[: -self.each] = self.a.forces(x[: -self.each])  # the last state is B alone, the first A alone
        second = torch.zeros_like(x)
        second[self.each :] = self.b.forces(x[self.each :])
        return (1 - self.t) * first + self.t * second


def difference(angles: Tensor, log_weight: Tensor, region: Arc) -> float:
    """-ln(p_B/p_A), A the region of φ."""
    weight = normalised(log_weight).exp()
    inside = float(weight[region.holds(angles[0])].sum())
    return -math.log((1 - inside) / inside)


def along_phi(
    state: State, first: Pilot, work: Path, seed: int, production: float
) -> tuple[Pilot, list[tuple[Tensor, Tensor]]]:
    """A force field under umbrellas along φ and the bias of a pilot; φ and ψ with the log-weights of every group."""
    surface = free_energy_of_cells(first, first.log_weight)
    bias, phi = flattening(state, surface), state.torsions[0]
    each, chains = given.basin_chains // PHI_WINDOWS, given.basin_chains
    centres = 2 * math.pi / PHI_WINDOWS * torch.arange(PHI_WINDOWS, dtype=torch.float64)
    plain = (chains, given.interval, given.equilibration) == (384, 0.1, 4.0)
    sizes = "" if plain else f"-{chains}-{given.interval:g}-{given.equilibration:g}"
    file = work / f"along-phi-{state.key}-{seed}-{2 * production:g}ps{sizes}.npz"
    if not file.exists():
        generator = seeded(f"umbrellas along phi {state.key} {seed}")
        row = torch.arange(GRID**2) // GRID
        tilts = [PHI_SPRING * ((row * 2 * math.pi / GRID - centre).cos() - 1) for centre in centres]
        x = torch.cat([starts(first, (FLATTENED - 1) * surface + tilt, each, generator) for tilt in tilts])
        strength = torch.full((chains,), PHI_SPRING, dtype=torch.float64)
        forces = Forces(
            [(tethered(state, bias), 1.0)],
            {f"centre_{phi.name}": centres.repeat_interleave(each), "strength": strength},
        )
        generator = noise(generator)
        phase = started(x, forces, state, generator)
        x = run(forces, state, phase, given.equilibration, production, generator, f"umbrellas along φ, {state.key}")
        np.savez(file, x=x.numpy())
    x = torch.as_tensor(np.load(file)["x"])
    v, angles = bias_energy(state.system, bias, x), state.angles(x)

    def weights(some: Tensor) -> Tensor:
        factors = [PHI_SPRING * ((angles[0, some] - c).cos() - 1) - v[some] for c in centres]
        return unbiased(torch.stack(factors).flatten(1))

    everyone = torch.arange(chains).view(PHI_WINDOWS, each)
    groups = [everyone[:, piece].flatten() for piece in pieces(each)]
    return (
        Pilot(x.flatten(0, 1), weights(everyone.flatten()), angles.flatten(1)),
        [(angles[:, g].flatten(1), weights(g)) for g in groups],
    )


def tethered(state: State, bias: openmm.Force) -> TorchForceField:
    """With the bias, and a spring along φ that can be switched off."""
    system = biased(state.system, bias)
    system.addForce(spring(state.torsions[0], PHI_SPRING))
    return fast(system, given.basin_chains)


def basins(
    state: State, found: Pilot, groups: list[tuple[Tensor, Tensor]], region: Arc, seed: int, production: float
) -> None:
    """-ln(p_B/p_A) of one force field, A the region: from umbrellas along φ, and from chains under a bias alone."""
    value = difference(found.angles, found.log_weight, region)
    told("umbrellas along φ, MBAR", value, [difference(*group, region) for group in groups])
    surface = free_energy_of_cells(found, found.log_weight)
    bias = flattening(state, surface)
    chains = given.basin_chains
    none = torch.zeros(chains, dtype=torch.float64)
    free = Forces([(tethered(state, bias), 1.0)], {f"centre_{state.torsions[0].name}": none, "strength": none})
    generator = seeded(f"flattened {state.key} {seed}")
    begin = starts(found, (FLATTENED - 1) * surface, chains, generator)
    generator = noise(generator)
    phase = started(begin, free, state, generator)
    x = run(free, state, phase, 2 * given.equilibration, production, generator, "flattened")
    v, angles = bias_energy(state.system, bias, x), state.angles(x)
    g = statistical_inefficiency(region.holds(angles[0]).double().numpy())
    print(f"  R-hat {r_hat(angles):.3f}, inefficiency {g * given.interval:.1f} ps", flush=True)
    parts = [difference(angles[:, p], v[p], region) for p in pieces(chains)]
    told("flattened", difference(angles, v, region), parts)


def started(x: Tensor, forces: Forces, state: State, generator: torch.Generator) -> Phase:
    """With velocities of their own."""
    dynamics = LangevinMiddle(forces, state.masses, TEMPERATURE, timestep=TIMESTEP, friction=FRICTION)
    return Phase(x.to(forces.device), dynamics.start(x[0], len(x), generator=generator).v)


def pieces(chains: int) -> list[slice]:
    """Of each group."""
    each = chains // GROUPS
    return [slice(k * each, (k + 1) * each) for k in range(GROUPS)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("name")
    parser.add_argument("--work", type=Path, default=Path("runs/alanine-references"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--production", type=float, default=96.0, help="ps of every chain; half under umbrellas")
    parser.add_argument("--device", default=given.device)
    parser.add_argument("--eager", action="store_true", help="compile no forces")
    parser.add_argument("--windows", type=int, default=given.windows, help="of the pilot, along either torsion")
    parser.add_argument("--chains", type=int, default=given.chains, help="of every state between two force fields")
    parser.add_argument(
        "--basin-chains", type=int, default=given.basin_chains, help="along φ, and under the bias alone"
    )
    parser.add_argument("--equilibration", type=float, default=given.equilibration, help="ps of every chain")
    parser.add_argument("--interval", type=float, default=given.interval, help="ps between draws")
    parser.add_argument("--stop-after", type=float, default=math.inf, help="seconds, after which dynamics ends early")
    parser.add_argument("--only-pilot", action="store_true", help="end where the systems part, and write --starts")
    parser.add_argument("--starts", type=Path, help="a file with the pilot of an earlier run, to do without one")
    asked = parser.parse_args()
    if asked.chains % GROUPS or asked.basin_chains % (GROUPS * PHI_WINDOWS):
        parser.error(f"chains come in {GROUPS} groups, and those along φ in {PHI_WINDOWS} windows as well")
    for name in ("device", "windows", "chains", "basin_chains", "equilibration", "interval"):
        setattr(given, name, getattr(asked, name))
    given.compile, given.deadline = not asked.eager, time.monotonic() + asked.stop_after
    torch.set_num_threads(1)
    asked.work.mkdir(parents=True, exist_ok=True)
    table = load(CATALOGUE / asked.name / "system.toml")
    a, b = (State(asked.name, s["force_field"], s["structure"]) for s in (table["state_a"], table["state_b"]))
    print(f"{asked.name}: {a.key} → {b.key}", flush=True)
    bounded = "region" in table["state_a"]
    base = State("alanine-basins", ["amber96.xml"], PDB)
    known = asked.starts and not asked.only_pilot
    first = read(asked.starts) if known else pilot(asked.work, asked.seed)
    found, groups = first, []
    if bounded or not known:
        found, groups = along_phi(base, first, asked.work, asked.seed, asked.production / 2)
    if asked.only_pilot:
        if asked.starts:
            np.savez(asked.starts, **thinned(found, STARTS)._asdict())
    elif bounded:
        basins(a, found, groups, Arc.between(*table["state_a"]["region"]["between"]), asked.seed, asked.production)
    else:
        pilots = [of_another(state, base, found, asked.work, asked.seed) for state in (a, b)]
        between(asked.name, a, b, pilots, asked.seed, asked.production)


def read(file: Path) -> Pilot:
    return Pilot(**{name: torch.as_tensor(values) for name, values in np.load(file).items()})


def of_another(state: State, base: State, found: Pilot, work: Path, seed: int) -> Pilot:
    """The pilot of another force field: umbrellas along φ of its own, under a bias that the first one's draws know
    roughly, weighed by the difference of the energies."""
    few = thinned(found, STARTS)
    if state.key == base.key:
        return few
    u, u_base = (s.energy(few.x[None])[0] for s in (state, base))
    log_weight = normalised(few.log_weight - (u - u_base))
    return thinned(along_phi(state, few._replace(log_weight=log_weight), work, seed, PILOT_PRODUCTION)[0], STARTS)


def thinned(found: Pilot, n: int) -> Pilot:
    """Every so many of the draws, n or somewhat more."""
    thin = slice(None, None, max(1, len(found.x) // n))
    return Pilot(found.x[thin], normalised(found.log_weight[thin]), found.angles[:, thin])


if __name__ == "__main__":
    main()
