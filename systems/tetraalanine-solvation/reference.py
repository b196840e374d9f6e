"""The reference ΔF of tetraalanine-solvation, by three estimators over two sets of samples that share none.

    python systems/tetraalanine-solvation/reference.py --draws 10000 --seed 1          # Gauss nodes: TI and MBAR
    python systems/tetraalanine-solvation/reference.py --draws 10000 --seed 2 --ends   # with both ends: BAR and MBAR
    python systems/tetraalanine-solvation/reference.py --analyse 1 2                   # what README.md records
    python systems/tetraalanine-solvation/reference.py --device cuda --ladders 256 --thin 20 --stop-after 300

Torsions, nonbonded forces and the solvent are weakened on the way from vacuum to OBC2, by as much as a doubled
temperature would, so that a peptide that is stuck in vacuum turns in the middle; replicas are exchanged between
neighbouring states. Ladders (one replica per state) never meet: errors come from the scatter over them. Draws are on
disk in `--out` after every segment, and the same command goes on from there. On a GPU a step takes hardly longer for
some thousand replicas than for some tens: there ladders are many, and `--thin` keeps what is stored small. With
`--stop-after` dynamics ends early, and what there is is analysed.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path

import arviz
import numpy as np
import openmm
import torch
from torch import Tensor

from nessampler.estimators import bar
from nessampler.estimators.integration import GaussRule
from nessampler.estimators.multistate import mbar
from nessampler.molecular import TorchForceFieldTarget, load_structure, parameterize
from nessampler.molecular.state_dynamics import LangevinStates
from nessampler.molecular.torch_dynamics import Phase
from nessampler.molecular.weakened import only
from nessampler.paths import ScheduledPath

HERE = Path(__file__).parent
TEMPERATURE, HYDROGEN_MASS, WEAKEST = 300.0, 4.0, 0.5
TIMESTEP, INTERVAL, EQUILIBRATION, SEGMENT = 0.003, 0.15, 15.0, 50
FEWEST, GROUPS = 12, 8  # stored draws of a replica; groups of ladders, where there are too many to leave out each
WORTH_COMPILING = 20_000  # frames to analyse, below which a minute of compilation does not pay
POINTS, BREAKS = 4, (0.0, 0.5, 1.0)  # points between two breaks, unless --points says otherwise
STIFF = (openmm.HarmonicBondForce, openmm.HarmonicAngleForce)
SOLVENT = (openmm.CustomGBForce, openmm.GBSAOBCForce)


class WeakenedPath(ScheduledPath):
    r"""$U_t = V_\mathrm{stiff} + s(t)\,[V_\mathrm{loose} + \lambda(t)\,V_\mathrm{solvent}]$, s = 1 at both ends."""

    def energies(self, x: Tensor, times: Tensor) -> Tensor:
        """Of every conformation in all states, from one evaluation of each term."""
        parts = torch.stack([term.energy(x) for term in self.terms])
        return self.schedule(times) @ parts


def schedule(t: Tensor) -> Tensor:
    strength = 1 - (1 - WEAKEST) * (1 - (2 * t - 1).abs())
    return torch.stack([torch.ones_like(t), strength, strength * t**2 * (3 - 2 * t)], -1)


def path(dtype: torch.dtype, *, compile: bool, device: str = "cpu") -> tuple[WeakenedPath, Tensor, Tensor]:
    """With masses and the starting positions."""
    molecule = load_structure(HERE / "tetraalanine.pdb")
    vacuum, solvated = (
        parameterize(molecule, ["amber14-all.xml", *solvent], None, HYDROGEN_MASS)
        for solvent in ((), ("implicit/obc2.xml",))
    )
    options = {"dtype": dtype, "compile": compile, "device": device}
    systems = [
        only(solvated, lambda f: isinstance(f, STIFF)),
        only(solvated, lambda f: not isinstance(f, (*STIFF, *SOLVENT))),
        only(solvated, lambda f: isinstance(f, SOLVENT)),
    ]
    terms = [TorchForceFieldTarget(system, TEMPERATURE, **options) for system in systems]
    start, end = (TorchForceFieldTarget(system, TEMPERATURE, **options) for system in (vacuum, solvated))
    masses = torch.tensor([vacuum.getParticleMass(i)._value for i in range(vacuum.getNumParticles())])
    return WeakenedPath(terms, schedule, start, end), masses, torch.as_tensor(molecule.positions).to(device)


def sample(file: Path, times: Tensor, given: argparse.Namespace, deadline: float) -> None:
    walk, masses, x = path(torch.float32, compile=not given.eager, device=given.device)
    dynamics = LangevinStates(
        walk, masses, TEMPERATURE, x, TIMESTEP, 1.0, given.ladders, given.equilibration, INTERVAL, INTERVAL, swap=True
    )
    generator = torch.Generator(given.device).manual_seed(given.seed)
    began, spent, draws = time.monotonic(), time.process_time(), -(-given.draws // given.thin)
    if file.exists():
        held = torch.load(file)
        generator.set_state(held["generator"])
        kept, accepted = held["x"], held["accepted"]
        phase = Phase(held["positions"].to(x), held["velocities"].to(x))
        if kept.shape[1] != given.ladders or held.get("thin", 1) != given.thin:
            raise SystemExit(
                f"{file} holds {kept.shape[1]} ladders thinned by {held['thin']}: go on with these numbers"
            )
    else:
        phase, kept, accepted = (
            dynamics.start(times, generator=generator),
            torch.empty(len(times), given.ladders, 0, *x.shape),
            [],
        )
    done = kept.shape[2] >= draws
    while not done:
        count = min(max(1, SEGMENT // given.thin), draws - kept.shape[2])
        found = dynamics.advance(times, phase, count * given.thin, generator=generator)
        phase, accepted = found.phase, [*accepted, found.accepted]
        kept = torch.cat([kept, found.x[:, :, given.thin - 1 :: given.thin].float().cpu()], 2)
        done = kept.shape[2] >= draws or (time.monotonic() > deadline and kept.shape[2] >= FEWEST)
        if done or math.isinf(deadline):  # whoever has little time writes once
            held = {"x": kept, "accepted": accepted, "positions": phase.x.cpu(), "velocities": phase.v.cpu()}
            held |= {"times": times, "thin": given.thin, "generator": generator.get_state()}
            torch.save(held, file.with_suffix(".new"))
            file.with_suffix(".new").replace(file)
        swaps = " ".join(f"{a:.2f}" for a in torch.stack(accepted).nanmean(0).tolist())
        print(
            f"{kept.shape[2]} of {draws} draws, {time.monotonic() - began:.0f} s, "
            f"{time.process_time() - spent:.0f} core-s; swaps accepted {swaps}",
            flush=True,
        )


def analyse(file: Path, skip: float, stride: int, device: str) -> None:
    held = torch.load(file)
    interval = INTERVAL * held.get("thin", 1) / 1000  # ns
    times = held["times"].double()
    x = held["x"][:, :, int(skip * held["x"].shape[2]) :: stride].double()
    shape = states, ladders, draws = x.shape[:3]
    worth = device == "cpu" and x[..., 0, 0].numel() > WORTH_COMPILING
    walk, _, _ = path(torch.float64, compile=worth, device=device)
    flat = x.flatten(0, 2)
    parts = torch.stack([torch.cat([term.energy(part) for part in flat.split(4096)]) for term in walk.terms])
    everywhere = torch.cat([torch.zeros(1), times, torch.ones(1)]).double()
    u = (schedule(everywhere) @ parts).view(-1, *shape)
    parts = parts.view(-1, *shape)
    print(f"{file.name}: {states} states, {ladders} ladders, {draws * stride * interval:.3f} ns of each replica")
    print("swaps accepted", [round(float(a), 2) for a in torch.stack(held["accepted"]).nanmean(0)])
    turns = backbone(flat).view(-1, *shape)
    worst = [max(r_hat(series[k]) for series in (*turns, u[k + 1])) for k in range(states)]
    print("largest R-hat of backbone torsions and energy by state", [round(r, 2) for r in worst])

    def multistate(chosen: list[int]) -> float | None:
        return mbar(u[:, :, chosen].flatten(1).numpy(), [0, *([len(chosen) * draws] * states), 0]).delta_f

    scatter("MBAR", multistate, ladders)
    if times[0] > 0:
        rule, slopes = GaussRule(states // 2, BREAKS), (rates(times) * parts).sum(0).mean(-1)
        scatter("thermodynamic integration", lambda c: float(rule.integral(slopes[:, c].mean(1).tolist())), ladders)
    else:
        work = parts[2]  # the ends differ by the solvent
        scatter("BAR of the ends", lambda c: bar(work[0, c], -work[-1, c]).delta_f, ladders)
        print(f"overlap of the ends {bar(work[0], -work[-1]).overlap:.3f}")


def rates(times: Tensor) -> Tensor:
    """The schedule's derivative, term by term, to multiply energies with."""
    t = times.clone().requires_grad_()
    columns = schedule(t).sum(0)
    rows = [torch.autograd.grad(c, t, retain_graph=True, materialize_grads=True)[0] for c in columns]
    return torch.stack(rows)[:, :, None, None]


def scatter(name: str, estimate: Callable[[list[int]], float | None], ladders: int) -> None:
    """An estimate over all ladders, with the jackknife's error over them, or over groups of them."""
    whole, count = estimate(list(range(ladders))), ladders if ladders <= 2 * GROUPS else GROUPS
    if whole is None:
        raise SystemExit(f"{name} gave no value: sample longer")
    less = np.array([estimate([i for i in range(ladders) if i % count != k]) for k in range(count)], dtype=float)
    error = math.sqrt((count - 1) / count * float(((less - less.mean()) ** 2).sum()))
    print(f"{name:26} {whole:.3f} ± {error:.3f} kT", flush=True)


def backbone(x: Tensor) -> Tensor:
    """Cosine and sine of every backbone torsion but ω, a row each."""
    names = {(a.residue.index, a.name): a.index for a in load_structure(HERE / "tetraalanine.pdb").topology.atoms()}
    rows = []
    for k in range(1, 5):
        for quad in (((k - 1, "C"), (k, "N"), (k, "CA"), (k, "C")), ((k, "N"), (k, "CA"), (k, "C"), (k + 1, "N"))):
            a, b, c, d = (x[:, names[atom]] for atom in quad)
            along = (c - b) / (c - b).norm(dim=-1, keepdim=True)
            p, q = torch.linalg.cross(b - a, along), torch.linalg.cross(along, d - c)
            angle = torch.atan2((torch.linalg.cross(p, q) * along).sum(-1), (p * q).sum(-1))
            rows += [angle.cos(), angle.sin()]
    return torch.stack(rows)


def r_hat(series: Tensor) -> float:
    """Rank-normalised split R-hat of `(ladders, draws)`."""
    return float(arviz.rhat(series.numpy()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=10_000, help=f"of every replica, one each {INTERVAL} ps")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--points", type=int, default=POINTS, help="half of the states")
    parser.add_argument("--ladders", type=int, default=8, help="replicas of each state")
    parser.add_argument("--equilibration", type=float, default=EQUILIBRATION, help="ps of every replica")
    parser.add_argument("--thin", type=int, default=1, help="store every how many of the draws")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--eager", action="store_true", help="compile no forces")
    parser.add_argument("--stop-after", type=float, default=math.inf, help="seconds, after which dynamics ends early")
    parser.add_argument("--ends", action="store_true", help="equidistant states with both ends, not Gauss nodes")
    parser.add_argument("--out", type=Path, default=Path("tetraalanine-reference"))
    parser.add_argument("--skip", type=float, default=0.2, help="share of the draws that the analysis drops")
    parser.add_argument("--stride", type=int, default=2, help="every how many of the others it takes")
    parser.add_argument("--analyse", type=int, nargs="+", metavar="SEED", help="only analyse what is on disk")
    given = parser.parse_args()
    deadline = time.monotonic() + given.stop_after
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    count = given.points
    nodes = np.linspace(0, 1, 2 * count).tolist() if given.ends else GaussRule(count, BREAKS).nodes
    if not given.analyse:
        sample(given.out / f"{given.seed}.pt", torch.tensor(nodes, dtype=torch.float64), given, deadline)
    for seed in given.analyse or [given.seed]:
        analyse(given.out / f"{seed}.pt", given.skip, given.stride, given.device)


if __name__ == "__main__":
    sys.exit(main())
