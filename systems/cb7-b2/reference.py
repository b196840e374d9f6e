"""The absolute binding free energy of CB7:B2 in OBC2, leg by leg: README.md has the cycle.

    python systems/cb7-b2/reference.py --leg complex --seed 1     # and --leg solvent
    python systems/cb7-b2/reference.py --seed 1 --summary         # joins the legs that are on disk
    python systems/cb7-b2/reference.py --leg complex --device cuda --chains 32 --interval 1    # on a GPU

Needs `pip install 'nessampler[alchemy]'`: structure and parameters are read from openmmtools when the script runs. One
state of the path is sampled after the other, and its draws are on disk in `--out` before the next one starts; the same
command goes on from there. On a GPU all states are sampled at once.
"""

from __future__ import annotations

import argparse
import logging
import math
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openmm
import torch
from openmm import app, unit
from torch import Tensor

from nessampler.methods.staged import Staged, staged
from nessampler.molecular.alchemical import AlchemicalPath, alchemical_system
from nessampler.molecular.restraints import STANDARD_VOLUME, AxisRestraint, standard_state_correction
from nessampler.molecular.state_dynamics import LangevinStates

TEMPERATURE, HYDROGEN_MASS = 300.0, 4.0
STIFFNESS, TILT = 200.0, 20.0  # kJ/mol/nm^2 and kJ/mol: as wide as the bound guest moves
HOST, GUEST = slice(0, 126), slice(126, 156)
BRIDGEHEADS = ((128,), (129,))
TIMESTEP, INTERVAL, FRICTION, SEGMENT = 0.001, 0.2, 1.0, 10  # at 2 fs one replica of 768 flew apart in 400 ps
WORTH_COMPILING = 20_000  # frames to analyse, below which a minute of compilation does not pay
COMPLEX = {
    "lambda_restraint": ((0.0, 0.0), (0.2, 1.0), (1.0, 1.0)),
    "lambda_electrostatics": ((0.0, 1.0), (0.2, 1.0), (0.5, 0.0), (1.0, 0.0)),
    "lambda_sterics": ((0.0, 1.0), (0.5, 1.0), (1.0, 0.0)),
}
SOLVENT = {"lambda_electrostatics": ((0.0, 1.0), (1.0, 0.0))}  # alone, the guest's sizes meet nothing else
RESTRAINT = {"lambda_restraint": ((0.0, 0.0), (1.0, 1.0))}
LEGS = ("complex", "solvent", "restraint")


def amber(name: str) -> tuple[app.AmberPrmtopFile, np.ndarray]:
    from openmmtools.testsystems import get_data_filename

    stem = f"data/cb7-b2/{name}"
    positions = app.AmberInpcrdFile(get_data_filename(f"{stem}.inpcrd")).getPositions(asNumpy=True)
    return app.AmberPrmtopFile(get_data_filename(f"{stem}.prmtop")), positions.value_in_unit(unit.nano * unit.meter)


def parameterized(file: app.AmberPrmtopFile) -> openmm.System:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Non-optimal GB parameters")
        return file.createSystem(
            implicitSolvent=app.OBC2, constraints=None, rigidWater=False, hydrogenMass=HYDROGEN_MASS * unit.dalton
        )


def rims(topology: app.Topology, x: np.ndarray) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The carbonyl oxygens of the two rims of the host."""
    oxygens = [a.index for a in topology.atoms() if a.index < HOST.stop and a.element == app.element.oxygen]
    around = x[oxygens] - x[oxygens].mean(0)
    height = around @ (x[BRIDGEHEADS[1][0]] - x[BRIDGEHEADS[0][0]])
    upper = tuple(i for i, h in zip(oxygens, height, strict=True) if h > 0)
    lower = tuple(i for i in oxygens if i not in upper)
    if not len(upper) == len(lower) == 7:
        raise SystemExit(f"CB7 has seven oxygens on either rim: found {upper} and {lower}")
    return upper, lower


def restraint() -> AxisRestraint:
    file, x = amber("complex-vacuum")
    return AxisRestraint(rims(file.topology, x), BRIDGEHEADS, STIFFNESS, TILT)


@dataclass(frozen=True)
class Leg:
    """What goes with the guest in a surrounding, and where it starts."""

    system: openmm.System
    protocol: dict
    x: Tensor

    def path(
        self, dtype: torch.dtype, *, compile: bool, device: str = "cpu", chunk_size: int | None = None
    ) -> AlchemicalPath:
        options = {"device": device, "dtype": dtype, "compile": compile, "chunk_size": chunk_size}
        return AlchemicalPath(self.system, TEMPERATURE, self.protocol, **options)


def leg(name: str) -> Leg:
    file, x = amber("complex-vacuum")
    if name != "solvent":
        plain = parameterized(file)
        system = plain if name == "restraint" else alchemical_system(plain, range(GUEST.start, GUEST.stop))
        system.addForce(restraint().force())
        return Leg(system, RESTRAINT if name == "restraint" else COMPLEX, torch.as_tensor(x))
    alone, y = amber("ligand")
    names = [a.name for a in file.topology.atoms()][GUEST]
    if names != [a.name for a in alone.topology.atoms()]:
        raise SystemExit("the guest alone lists other atoms than the guest in the complex")
    return Leg(alchemical_system(parameterized(alone), range(len(y))), SOLVENT, torch.as_tensor(x[GUEST]))


@dataclass(frozen=True)
class OnDisk:
    """States sampled one after the other, each kept in a file."""

    dynamics: LangevinStates
    folder: Path
    seed: int

    def __call__(self, times: Tensor, *, generator: torch.Generator) -> Tensor:
        found, began, spent = [], time.time(), time.process_time()
        for k, t in enumerate(times.tolist()):
            file = self.folder / f"{t:.6f}.pt"
            if not file.exists():
                own = torch.Generator().manual_seed(1000 * self.seed + k)  # each its own: order and stops do not matter
                torch.save(self.dynamics(torch.tensor([t], dtype=torch.float64), generator=own)[0].float(), file)
                print(
                    f"state {k + 1} of {len(times)}, t = {t:.4f}: {time.time() - began:.0f} s, "
                    f"{time.process_time() - spent:.0f} core-s",
                    flush=True,
                )
            found.append(torch.load(file).double())
        return torch.stack(found)


@dataclass(frozen=True)
class AllAtOnce:
    """States sampled together: on a GPU fifteen times the replicas hardly take longer. Dynamics may end early."""

    dynamics: LangevinStates
    file: Path
    seed: int
    deadline: float  # on the monotonic clock

    def __call__(self, times: Tensor, *, generator: torch.Generator) -> Tensor:
        if self.file.exists():
            return torch.load(self.file).to(self.dynamics.x)
        began, parts, left = time.monotonic(), [], round(self.dynamics.production / self.dynamics.interval)
        own = torch.Generator(self.dynamics.x.device).manual_seed(1000 * self.seed)
        phase = self.dynamics.start(times, generator=own)
        while left > 0 and (time.monotonic() < self.deadline or len(parts) < 2):
            drawn = self.dynamics.advance(times, phase, min(SEGMENT, left), generator=own)
            phase, left = drawn.phase, left - drawn.x.shape[2]
            parts.append(drawn.x.float().cpu())
        x = torch.cat(parts, 2)
        torch.save(x, self.file)
        length = x.shape[2] * self.dynamics.interval
        print(f"{len(times)} states, {length:g} ps of each replica: {time.monotonic() - began:.0f} s", flush=True)
        return x.to(self.dynamics.x)


def run(name: str, given: argparse.Namespace) -> Staged:
    chosen = leg(name)
    filled = min(given.chains, 64) if given.device == "cpu" else None
    path = chosen.path(torch.float32, device=given.device, compile=True, chunk_size=filled)
    dynamics = LangevinStates(
        path, path.masses, TEMPERATURE, chosen.x.to(given.device), TIMESTEP, FRICTION, given.chains,
        given.equilibration, given.production, given.interval,
    )  # fmt: skip
    pace = f"{given.chains}x{given.equilibration:g}+{given.production:g}"
    folder = given.out / f"{name}-{pace}-{given.seed}"
    folder.mkdir(parents=True, exist_ok=True)
    together = given.device != "cpu"
    sampler = (
        AllAtOnce(dynamics, folder / "all.pt", given.seed, given.deadline)
        if together
        else OnDisk(dynamics, folder, given.seed)
    )
    generator = torch.Generator().manual_seed(given.seed)
    frames = given.states * (len(path.breaks) - 1) * given.chains * round(given.production / given.interval)
    exact = chosen.path(torch.float64, device=given.device, compile=frames > WORTH_COMPILING and not together)
    found = staged(exact, sampler, points=given.states, generator=generator)
    print(f"{name} leg, {found}")
    for t, slope, error, g in zip(found.times, found.slopes, found.slope_errors, found.inefficiency, strict=True):
        print(f"  t = {t:.4f}  slope {slope:9.3f} ± {error:.3f}  statistical inefficiency {g:.1f} draws")
    for estimate in (found.multistate, found.integration):
        for flag in estimate.flags:
            print(f"  {flag.code}: {flag.message}")
    mbar, ti = ([e.delta_f, e.std_error] for e in (found.multistate, found.integration))
    np.savez(folder / "result.npz", mbar=np.array(mbar), ti=np.array(ti))
    return found


def summary(out: Path, seed: int) -> None:
    """The binding free energy of the newest complete legs of a seed."""
    release = standard_state_correction(restraint(), TEMPERATURE)
    print(f"release of the restraint into {STANDARD_VOLUME:.4f} nm^3: {release:.3f} kT")
    values: dict[str, dict] = {}
    for name in ("complex", "solvent"):
        files = sorted(out.glob(f"{name}-*-{seed}/result.npz"), key=lambda f: f.stat().st_mtime)
        if not files:
            raise SystemExit(f"no {name} leg of seed {seed} in {out}: run --leg {name} first")
        values[name] = dict(np.load(files[-1]))
    for estimator in ("mbar", "ti"):
        (bound, e), (free, f) = (values[name][estimator] for name in ("complex", "solvent"))
        print(f"{estimator}: ΔG of binding = {free - bound - release:.3f} ± {math.hypot(e, f):.3f} kT")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--leg", choices=LEGS, help="restraint: the first part of complex, without λ of its atoms")
    parser.add_argument("--states", type=int, default=5, help="between two breaks: the complex has three intervals")
    parser.add_argument(
        "--chains", type=int, default=32, help="of every state; batches of 32 fill the compiled program"
    )
    parser.add_argument("--equilibration", type=float, default=20.0, help="ps per chain")
    parser.add_argument("--production", type=float, default=100.0, help="ps per chain")
    parser.add_argument("--interval", type=float, default=INTERVAL, help="ps between draws")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--stop-after", type=float, default=math.inf, help="seconds, after which dynamics ends early")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("cb7-b2-reference"))
    parser.add_argument("--summary", action="store_true")
    given = parser.parse_args()
    given.deadline = time.monotonic() + given.stop_after
    logging.getLogger("pymbar").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    if given.summary:
        return summary(given.out, given.seed)
    if given.leg is None:
        parser.error("--leg or --summary")
    run(given.leg, given)
    return None


if __name__ == "__main__":
    sys.exit(main())
