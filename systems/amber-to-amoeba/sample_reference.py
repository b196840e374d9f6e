"""Long MD in amber14, AMOEBA2018 and three windows between them, for `reference.py`.

    python systems/amber-to-amoeba/sample_reference.py WORK_DIR

takes about an hour on two cores, can be interrupted, and goes on where it stopped when run again.
"""

import sys
from pathlib import Path

import openmm

from nessampler.molecular.contexts import ContextPool
from nessampler.molecular.end_states import Dynamics, sample_end_states
from nessampler.molecular.systems import load_structure, parameterize

HERE = Path(__file__).parent
TEMPERATURE = 300.0
WINDOWS = {"w25": 0.25, "w50": 0.5, "w75": 0.75}
NANOSECONDS = {"a": (8, 2.5), "b": (8, 1.25), "w25": (4, 0.1), "w50": (4, 0.1), "w75": (4, 0.1)}  # replicas, length


def mixed_system(a: openmm.System, b: openmm.System, fraction: float) -> openmm.System:
    """(1 - fraction) U_A + fraction U_B, every force of both systems a collective variable of one force."""
    system = openmm.System()
    for i in range(a.getNumParticles()):
        system.addParticle(a.getParticleMass(i))
    terms: dict[str, list[str]] = {"a": [], "b": []}
    forces: list[tuple[str, openmm.Force]] = []
    for state, source in (("a", a), ("b", b)):
        for i, force in enumerate(source.getForces()):
            if not isinstance(force, openmm.CMMotionRemover):
                terms[state].append(f"{state}{i}")
                forces.append((f"{state}{i}", force))
    mixture = openmm.CustomCVForce(f"(1-fraction)*({'+'.join(terms['a'])}) + fraction*({'+'.join(terms['b'])})")
    mixture.addGlobalParameter("fraction", fraction)
    for name, force in forces:
        mixture.addCollectiveVariable(name, openmm.XmlSerializer.clone(force))
    system.addForce(mixture)
    system.addForce(openmm.CMMotionRemover())
    return system


def main(folder: Path, processes: int = 2) -> None:
    """Sample every state; finished replicas are kept."""
    molecule = load_structure(HERE / "alanine-dipeptide.pdb")
    a = parameterize(molecule, ["amber14-all.xml"], hydrogen_mass=4.0)
    b = parameterize(molecule, ["amoeba2018.xml"], hydrogen_mass=4.0)
    systems = {"a": a, "b": b} | {name: mixed_system(a, b, fraction) for name, fraction in WINDOWS.items()}
    dynamics = {
        name: Dynamics(TEMPERATURE, 0.002, 1.0, replicas, 25.0, 1000.0 * length, 0.5)
        for name, (replicas, length) in NANOSECONDS.items()
    }
    with ContextPool(processes) as pool:
        sample_end_states(
            systems,
            dict.fromkeys(systems, molecule),
            dynamics,
            folder,
            seed=20261121,
            pool=pool,
            progress=lambda done, total, what: print(f"{done / total:6.1%}  {what}", flush=True),
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
