"""The reference ΔF of amber-to-amoeba, from long MD and by two routes that share no estimator.

    python systems/amber-to-amoeba/sample_reference.py WORK_DIR     # an hour on two cores, once
    python systems/amber-to-amoeba/reference.py WORK_DIR            # minutes; prints what reference.md records

1. MBAR over amber14, three windows of mixed energies and AMOEBA2018: no map, no learning.
2. BAR between the two ends through a map fitted on the other half of the replicas, and so on both halves.

Plain BAR of the same samples is printed beside them.
"""

import itertools
import logging
import math
import sys
from pathlib import Path

import numpy as np
import torch
from mdtraj.formats import NetCDFTrajectoryFile

from nessampler.closed_form.affine import fit_map
from nessampler.estimators import FreeEnergy, bar, statistical_inefficiency
from nessampler.kernels import Map
from nessampler.methods.ends import Block, Ends, generator_for
from nessampler.methods.plain import plain
from nessampler.methods.transport import Transport
from nessampler.molecular.contexts import ContextPool
from nessampler.molecular.internal_coordinates import InternalCoordinates
from nessampler.molecular.systems import load_structure, parameterize
from nessampler.molecular.target import OpenMMTarget
from nessampler.paths import EndpointPath

HERE = Path(__file__).parent
TEMPERATURE = 300.0
BURN_IN = 50  # frames of 0.5 ps
FRACTIONS = {"a": 0.0, "w25": 0.25, "w50": 0.5, "w75": 0.75, "b": 1.0}


def frames(folder: Path, state: str) -> torch.Tensor:
    """(replicas, frames, atoms, 3) in nm, equilibration dropped."""
    replicas = []
    for path in sorted(folder.glob(f"{state}-?.nc")):
        with NetCDFTrajectoryFile(str(path)) as file:
            replicas.append(np.asarray(file.read()[0])[BURN_IN:] / 10)
    if not replicas:
        raise SystemExit(f"no finished trajectories of {state} in {folder}; run sample_reference.py first")
    return torch.as_tensor(np.stack(replicas), dtype=torch.float64)


def mbar(works: dict[str, np.ndarray], energies_a: dict[str, np.ndarray]) -> tuple[float, float]:
    """ΔF and its error over the five states, every series subsampled by the inefficiency of U_B - U_A."""
    logging.getLogger("pymbar").setLevel(logging.ERROR)
    from pymbar import MBAR

    columns, counts = [], []
    for state in FRACTIONS:
        stride = math.ceil(statistical_inefficiency(works[state]))
        gap, base = works[state][:, ::stride].ravel(), energies_a[state][:, ::stride].ravel()
        columns.append(np.stack([base + fraction * gap for fraction in FRACTIONS.values()]))
        counts.append(gap.size)
    result = MBAR(np.concatenate(columns, axis=1), np.array(counts)).compute_free_energy_differences()
    return float(result["Delta_f"][0, -1]), float(result["dDelta_f"][0, -1])


def mapped(ends: Ends, a: torch.Tensor, b: torch.Tensor, fit_a: torch.Tensor, fit_b: torch.Tensor) -> FreeEnergy:
    """BAR on (a, b) through the conditional affine map of (fit_a, fit_b)."""
    transform = fit_map(
        fit_a.flatten(0, 1), fit_b.flatten(0, 1), ends.circular, scale="full", shrink=0.5, conditional=True
    )
    transport = Transport("map", "", Map(transform), EndpointPath(ends.a, ends.b), (0.0, 1.0))
    return bar(*transport.works(Block(a, b, True), generator=generator_for(0, "unused")))


def main(folder: Path) -> None:
    """Print the table."""
    molecule = load_structure(HERE / "alanine-dipeptide.pdb")
    x = {state: frames(folder, state) for state in FRACTIONS}
    with ContextPool() as pool:
        targets = [
            OpenMMTarget(parameterize(molecule, [name]), TEMPERATURE, pool=pool)
            for name in ("amber14-all.xml", "amoeba2018.xml")
        ]
        energy_a, energy_b = (
            {s: t.energy(v.flatten(0, 1)).reshape(v.shape[:2]).numpy() for s, v in x.items()} for t in targets
        )
        gap = {s: energy_b[s] - energy_a[s] for s in x}
        for state, values in x.items():
            lengths = f"{values.shape[0]} x {values.shape[1] * 0.5e-3:.2f} ns"
            print(f"{state:4s} {lengths}, inefficiency of U_B - U_A {statistical_inefficiency(gap[state]):.1f} frames")
        print("plain BAR              ", bar(gap["a"], -gap["b"]))
        whole = mbar(gap, energy_a)
        print(f"MBAR, five states       {whole[0]:.3f} ± {whole[1]:.3f} kT")
        for half in (0, 1):
            rows = {s: slice(half * len(v) // 2, (half + 1) * len(v) // 2) for s, v in x.items()}
            part = mbar({s: gap[s][rows[s]] for s in x}, {s: energy_a[s][rows[s]] for s in x})
            print(f"MBAR, half {half + 1}            {part[0]:.3f} ± {part[1]:.3f} kT")

        rough = torch.cat([x["a"].flatten(0, 1), x["b"].flatten(0, 1)])[::50]
        coordinates = InternalCoordinates.from_topology(molecule.topology, rough)
        ends = Ends.of(*targets, coordinates)
        z_a, z_b = coordinates(x["a"]), coordinates(x["b"])
        halves = [(z_a[: len(z_a) // 2], z_b[: len(z_b) // 2]), (z_a[len(z_a) // 2 :], z_b[len(z_b) // 2 :])]
        found = []
        for (here_a, here_b), (there_a, there_b) in itertools.permutations(halves):
            found.append(mapped(ends, here_a, here_b, there_a, there_b))
            print("map fitted on the other half:", found[-1])
        values = np.array([f.delta_f for f in found], dtype=float)
        errors = np.array([f.std_error for f in found], dtype=float)
        weights = errors**-2 / (errors**-2).sum()
        print(f"both halves             {(weights * values).sum():.3f} ± {(errors**-2).sum() ** -0.5:.3f} kT")
        print(f"difference of the halves: {(values[0] - values[1]) / math.hypot(*errors):.2f} standard errors")
        check = plain(ends).works(Block(z_a[:1, :200], z_b[:1, :200], True), generator=generator_for(0, "unused"))
        assert np.allclose(check.forward, gap["a"][:1, :200], atol=1e-6)  # coordinates change no energy


if __name__ == "__main__":
    main(Path(sys.argv[1]))
