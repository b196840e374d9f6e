"""The reference ΔF of toluene-solvation, by three estimators over two sets of samples that share none.

    python systems/toluene-solvation/reference.py     # minutes; prints what README.md records

1. Thermodynamic integration and MBAR over five states of mixed energies, replicas started with one seed.
2. BAR between the two ends alone, replicas started with another.
"""

from pathlib import Path

import torch

from nessampler.estimators import bar
from nessampler.methods.staged import staged
from nessampler.molecular import TorchForceFieldTarget, load_structure, parameterize
from nessampler.molecular.state_dynamics import LangevinStates
from nessampler.paths import LinearPath

HERE = Path(__file__).parent
TEMPERATURE, HYDROGEN_MASS = 300.0, 4.0
POINTS, CHAINS, EQUILIBRATION, PRODUCTION, INTERVAL, TIMESTEP = 5, 32, 5.0, 20.0, 0.1, 0.002


def main() -> None:
    torch.set_num_threads(1)
    molecule = load_structure(HERE / "toluene.pdb")
    systems = [
        parameterize(molecule, ["toluene-gaff.xml", *solvent], None, HYDROGEN_MASS, HERE)
        for solvent in ((), ("implicit/obc2.xml",))
    ]
    a, b = (TorchForceFieldTarget(system, TEMPERATURE) for system in systems)
    masses = torch.tensor([systems[0].getParticleMass(i)._value for i in range(systems[0].getNumParticles())])
    dynamics = LangevinStates(
        LinearPath(a, b),
        masses,
        TEMPERATURE,
        torch.as_tensor(molecule.positions),
        timestep=TIMESTEP,
        chains=CHAINS,
        equilibration=EQUILIBRATION,
        production=PRODUCTION,
        interval=INTERVAL,
    )
    found = staged(dynamics.path, dynamics, points=POINTS, generator=torch.Generator().manual_seed(1))
    print(f"five states\n{found}\nstatistical inefficiency {max(found.inefficiency):.1f} draws at most", flush=True)

    ends = dynamics(torch.tensor([0.0, 1.0], dtype=torch.float64), generator=torch.Generator().manual_seed(2))
    forward, reverse = (
        (sign * (b.energy(x.flatten(0, 1)) - a.energy(x.flatten(0, 1)))).view(x.shape[:2])
        for sign, x in ((1, ends[0]), (-1, ends[1]))
    )
    result = bar(forward, reverse)
    print(f"two ends\n{result}\noverlap {result.overlap:.3f}, {result.to('kcal/mol', TEMPERATURE)}")


if __name__ == "__main__":
    main()
