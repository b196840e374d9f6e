"""What a user can get wrong in `nessampler run`, and what is said: the data of a test and of docs/bad_input.md.

`python tests/bad_input.py` writes that page.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import tomli_w

from nessampler.runs import catalogue
from nessampler.runs.config import load, resolve, write

__all__ = ["CASES", "PAGE", "Case", "page"]

PAGE = Path(__file__).parent.parent / "docs" / "bad_input.md"
WELLS, MOLECULE, LATTICE, MIXTURE, CLUSTER, POINTS = (
    *("anharmonic-wells", "alanine-solvation", "phi4-8", "gmm-40-linear", "lj-13", "lgcp-1600"),
)
FOLDER = catalogue.root() / MOLECULE
Arguments = list[Any]


class Case(NamedTuple):
    """What is given, how, and a part of the one line that is said."""

    chapter: str
    given: str
    build: Callable[[Path], Arguments]
    said: str


def molecule(here: Path, **changes: Any) -> Path:
    """A copy of a molecular system, with other keys in its tables."""
    folder = here / "mine"
    folder.mkdir()
    table = tomllib.loads((FOLDER / "system.toml").read_text(encoding="utf-8"))
    for name, change in changes.items():
        table[name] = table[name] | change if isinstance(change, dict) else change
    (folder / "system.toml").write_text(tomli_w.dumps(table), encoding="utf-8")
    (folder / "alanine-dipeptide.pdb").write_bytes((FOLDER / "alanine-dipeptide.pdb").read_bytes())
    return folder


def atom_lines(here: Path) -> tuple[list[str], list[int]]:
    lines = (FOLDER / "alanine-dipeptide.pdb").read_text().splitlines(keepends=True)
    return lines, [i for i, line in enumerate(lines) if line.startswith(("ATOM", "HETATM"))]


def with_structure(here: Path, lines: list[str], state: str) -> Path:
    folder = molecule(here, **{state: {"structure": "other.pdb"}})
    (folder / "other.pdb").write_text("".join(lines))
    return folder


def not_toml(here: Path) -> Arguments:
    (here / "system.toml").write_text("name = ")
    return ["system.toml"]


def unknown_key_in_the_file(here: Path) -> Arguments:
    return [molecule(here, md={"replica": 3})]


def unknown_force_field(here: Path) -> Arguments:
    return [molecule(here, state_a={"force_field": ["amber41-all.xml"]})]


def force_field_without_templates(here: Path) -> Arguments:
    return [molecule(here, state_a={"force_field": ["amber14/tip3p.xml"]})]


def atoms_in_another_order(here: Path) -> Arguments:
    lines, atoms = atom_lines(here)
    i, j = (next(k for k in atoms if lines[k][12:16].strip() == name) for name in ("CA", "CB"))
    lines[i], lines[j] = lines[j], lines[i]
    return [with_structure(here, lines, "state_b")]


def fewer_atoms(here: Path) -> Arguments:
    lines, atoms = atom_lines(here)
    middle = {k for k in atoms if lines[k][17:20] == "ALA"}
    rest = [line for k, line in enumerate(lines) if k not in middle and not line.startswith(("CONECT", "TER"))]
    return [with_structure(here, rest, "state_b")]


def nan_coordinates(here: Path) -> Arguments:
    lines, atoms = atom_lines(here)
    lines[atoms[4]] = lines[atoms[4]][:30] + "     nan" + lines[atoms[4]][38:]
    return [with_structure(here, lines, "state_a")]


def structure_missing(here: Path) -> Arguments:
    return [molecule(here, state_a={"structure": "none.pdb"})]


def structure_that_is_none(here: Path) -> Arguments:
    return [with_structure(here, ["not a structure\n"], "state_a")]


def structure_outside(here: Path) -> Arguments:
    (here / "outside.pdb").write_bytes((FOLDER / "alanine-dipeptide.pdb").read_bytes())
    return [molecule(here, state_a={"structure": "../outside.pdb"})]


def force_field_outside(here: Path) -> Arguments:
    (here / "outside.xml").write_text("<ForceField/>")
    return [molecule(here, state_a={"force_field": ["amber14-all.xml", "../outside.xml"]})]


def constraints_on(here: Path) -> Arguments:
    return [molecule(here, state_a={"options": {"constraints": "HBonds"}})]


def rigid_water_on(here: Path) -> Arguments:
    return [molecule(here, state_a={"options": {"rigidWater": True}})]


def unknown_option(here: Path) -> Arguments:
    return [molecule(here, state_a={"options": {"polarisation": "mutual"}})]


def states_of_two_kinds(here: Path) -> Arguments:
    folder = molecule(here)
    table = load(folder / "system.toml") | {"state_b": load(catalogue.root() / WELLS / "system.toml")["state_b"]}
    (folder / "system.toml").write_text(tomli_w.dumps(table), encoding="utf-8")
    return [folder]


def file_in_the_way(here: Path) -> Arguments:
    (here / "taken").write_text("precious")
    return [WELLS, "--out", "taken"]


def file_in_the_way_further_up(here: Path) -> Arguments:
    (here / "taken").write_text("precious")
    return [WELLS, "--out", "taken/run"]


def stored(here: Path, *settings: str, seed: int = 0) -> None:
    (here / "run").mkdir()
    table = load(catalogue.root() / WELLS / "system.toml")
    write(resolve(table, run={"seed": seed}, settings=settings), here / "run" / "config.toml")
    (here / "run" / "training.safetensors").write_bytes(b"hours of work")


def existing_run(here: Path) -> Arguments:
    stored(here)
    return [WELLS, "--out", "run"]


def resumed_with_another_seed(here: Path) -> Arguments:
    stored(here, seed=1)
    return [WELLS, "--out", "run", "--resume"]


def resumed_with_other_settings(here: Path) -> Arguments:
    stored(here, "ladder.switching_steps=3")
    return [WELLS, "--out", "run", "--resume"]


def damaged_run(here: Path) -> Arguments:
    stored(here)
    (here / "run" / "config.toml").write_text("name = ")
    return [WELLS, "--out", "run", "--resume"]


def folder_without_system(here: Path) -> Arguments:
    (here / "empty").mkdir()
    return ["empty"]


def given(*arguments: object) -> Callable[[Path], Arguments]:
    return lambda here: list(arguments)


def setting(text: str, system: str = WELLS) -> Callable[[Path], Arguments]:
    return given(system, "--set", text)


def code_without_consent(here: Path) -> Arguments:
    (here / "mine.py").write_text("raise SystemExit('it ran')")
    (here / "system.toml").write_text(PYTHON)
    return ["system.toml"]


def code_with(content: str | None, callable_: str = "mine:log_density") -> Callable[[Path], Arguments]:
    def build(here: Path) -> Arguments:
        if content is not None:
            (here / "mine.py").write_text(content)
        (here / "system.toml").write_text(PYTHON.replace("mine:log_density", callable_))
        return ["system.toml", "--allow-code"]

    return build


def structure_of(name: str, content: bytes) -> Callable[[Path], Arguments]:
    def build(here: Path) -> Arguments:
        folder = molecule(here, state_a={"structure": name}, state_b={"structure": name})
        (folder / name).write_bytes(content)
        return [folder]

    return build


def force_field_of(content: str) -> Callable[[Path], Arguments]:
    def build(here: Path) -> Arguments:
        folder = molecule(here, state_a={"force_field": ["amber14-all.xml", "own.xml"]})
        (folder / "own.xml").write_text(content)
        return [folder]

    return build


def data_of(system: str, content: bytes) -> Callable[[Path], Arguments]:
    def build(here: Path) -> Arguments:
        table = load(catalogue.root() / system / "system.toml")
        table["target"]["data"] = "data.csv"
        (here / "system.toml").write_text(tomli_w.dumps(table), encoding="utf-8")
        (here / "data.csv").write_bytes(content)
        return ["system.toml"]

    return build


def link_that_leaves(here: Path) -> Arguments:
    (here / "outside.pdb").write_bytes((FOLDER / "alanine-dipeptide.pdb").read_bytes())
    folder = molecule(here, state_a={"structure": "link.pdb"})
    (folder / "link.pdb").symlink_to(here / "outside.pdb")
    return [folder]


def file_of(content: bytes) -> Callable[[Path], Arguments]:
    def build(here: Path) -> Arguments:
        (here / "system.toml").write_bytes(content)
        return ["system.toml"]

    return build


PYTHON = """name = "mine"
title = "Mine"
kind = "density"
target = { name = "python", callable = "mine:log_density", shape = [2] }
"""


FILES: dict[str, tuple[Callable[[Path], Arguments], str]] = {
    "unknown system": (given("alanine-solvatoin"), "alanine-solvatoin is none; did you mean alanine-solvation?"),
    "missing file": (given("nowhere/system.toml"), "nowhere/system.toml is none"),
    "folder without system": (folder_without_system, "empty/system.toml does not exist"),
    "not TOML": (not_toml, "system.toml must be a TOML file"),
    "unknown key": (setting("ladder.swiching_steps=3"), "did you mean `switching_steps`?"),
    "unknown key in the file": (unknown_key_in_the_file, "unknown key `md.replica`; did you mean `replicas`?"),
    "unknown preset": (given(WELLS, "--preset", "tiny"), "preset must be one of smoke, quick, full: got 'tiny'"),
    "unknown method": (given(WELLS, "--method", "magic"), "got 'magic'"),
    "negative seed": (given(WELLS, "--seed", "-1"), "`run.seed`"),
    "unknown device": (given(WELLS, "--device", "abacus"), "device must be one that PyTorch can use here"),
    "device without data": (given(WELLS, "--device", "meta"), "device must be one that PyTorch can use here"),
    "setting without value": (setting("md.replicas"), "such as md.replicas=8: got 'md.replicas'"),
    "setting without key": (setting("=8"), "--set takes KEY=VALUE"),
    "brackets in a message": (given("[/bold]x[red]"), "[/bold]x[red] is none"),
    "negative temperature": (setting("temperature=-300 K", "alanine-solvation"), "must be positive: got '-300 K'"),
    "wrong unit": (setting("temperature=27 C", "alanine-solvation"), "unit must be one of K, kelvin: got '27 C'"),
    "number without unit": (setting("temperature=300", "alanine-solvation"), "a number and a unit in quotes"),
    "blocks of more than all": (setting("ladder.blocks=[0.5,0.5,0.5]"), "add up to 1"),
    "a well that is not finite": (setting("state_a.coupling=nan"), "state_a.coupling"),
    "a well without bottom": (setting("state_a.stiffness=[1.0,-2.0,4.0]"), "the well must be bounded"),
    "wells of two dimensions": (setting("state_a={label='x',center=[0],stiffness=[1],quartic=[0],skew=[0],coupling=0}"),
                                "A has 1, B has 3"),
    "states of two kinds": (states_of_two_kinds, "must be of one kind"),
    "unknown force field": (unknown_force_field, "could not load amber41-all.xml"),
    "force field without templates": (force_field_without_templates, "cannot describe this molecule"),
    "atoms in another order": (atoms_in_another_order, "in A but"),
    "fewer atoms": (fewer_atoms, "A has 22, B has 12"),
    "NaN coordinates": (nan_coordinates, "atom ACE1:"),
    "structure missing": (structure_missing, "none.pdb does not"),
    "structure that is none": (structure_that_is_none, "other.pdb"),
    "structure outside": (structure_outside, "in the system's folder"),
    "force field outside": (force_field_outside, "in the system's folder"),
    "constraints on": (constraints_on, "needs every bond flexible"),
    "rigid water on": (rigid_water_on, "needs every bond flexible"),
    "unknown option": (unknown_option, "polarisation"),
    "exchange outside of torch": (
        setting("md.exchange=4", "amber96-to-amber14"),
        "md.exchange needs replicas in one batch: state A is on the platform 'Reference'",
    ),
    "too short": (setting("md.production_a=2 ps", "alanine-solvation"), "at least 10 samples"),
    "target unknown": (setting("target.name=gmm-4O", "gmm-40-linear"), "got 'gmm-4O'; did you mean gmm-40?"),
    "parameter unknown": (setting("target.sise=9", "phi4-8"), "unknown parameter `target.sise`; did you mean `size`?"),
    "parameter of the wrong type": (
        setting("target.size=eight", "phi4-8"),
        "`target.size` must be an integer: got 'eight'",
    ),
    "parameter that is not finite": (
        setting("target.quartic=nan", "phi4-8"),
        "`target.quartic` must be a finite number: got nan",
    ),
    "parameter out of range": (setting("target.quartic=-1.0", "phi4-8"), "the action must have a floor"),
    "parameter missing": (setting("target.name=phi4", "funnel-10"), "`target.size` is required for phi4"),
    "data a date": (setting("target.data=2000-01-01", "logistic"), "must be a number, a text or a list of these"),
    "data with a date in it": (setting("target.data=[2000-01-01]", "logistic"), "not a date: got 2000-01-01"),
    "data missing": (setting("target.data=none.csv", "logistic"), "none.csv does not exist"),
    "data outside": (setting("target.data=../lgcp-1600/fpines.csv", "logistic"), "in the system's folder"),
    "free field for a mixture": (setting("base={kind='free-field'}", "gmm-40-linear"), "field base is for lattices"),
    "prior of a mixture": (setting("base={kind='prior'}", "gmm-40-linear"), "a prior base is for posteriors"),
    "Laplace for a lattice": (setting("base={kind='laplace'}", "phi4-8"), "a Laplace base is for vectors"),
    "variational base of a lattice": (setting("base={kind='variational'}", "phi4-8"), "base is for vectors"),
    "rank that is full": (
        setting("base={kind='variational', rank=10}", "funnel-10"),
        "below the number of coordinates, 10",
    ),
    "mixture path for a lattice": (setting("path={kind='mixture'}", "phi4-8"), "mixture path is for Gaussian mix"),
    "path of couplings for a mixture": (setting("path={kind='couplings'}", "gmm-40-linear"), "for lattices from a"),
    "path of couplings from elsewhere": (
        given("phi4-8", "--set", "path.kind=couplings", "--set", "base={kind='pilot'}"),
        "got phi4 from a pilot base; use the linear path",
    ),
    "path of couplings from a magnetised field": (
        given("phi4-8-ordered", "--set", "path.kind=couplings"),
        "starts from a field about zero: got `base.magnetisation` = 'pilot'",
    ),
    "gradients of the ends of a lattice": (
        setting("sampling.end_gradients=true", "phi4-8"),
        "`sampling.end_gradients` is for vectors",
    ),
    "mixture path from elsewhere": (setting("base={kind='pilot'}", "gmm-40"), "from a Gaussian about the origin"),
    "scales that are too few": (setting("base.scale=[1.0,2.0,3.0]", "gmm-40-linear"), "one number or 2 of them: got 3"),
    "scale that is negative": (setting("base.scale=-1.0", "gmm-40-linear"), "positive scales"),
    "means of another dimension": (setting("base={kind='mixture',scale=1.0,means=[[0.0]]}", "gmm-40-linear"),
                                   "rows of 2 numbers: got shape (1, 1)"),
    "means of a funnel": (setting("base={kind='mixture',scale=1.0}", "funnel-10"), "has none; give `base.means`"),
    "kernel of another method": (
        given("phi4-8", "--method", "lsq", "--set", "sampling.kernel=inertial"),
        "kernel = 'inertial' is for plain annealing",
    ),
    "mass of particles, of another method": (
        given("funnel-10", "--method", "ais", "--set", "sampling.precondition=dense"),
        "precondition = 'dense' is for SMC: got method ais",
    ),
    "dense mass of a lattice": (
        given("phi4-8", "--method", "smc", "--set", "sampling.precondition=dense"),
        "precondition = 'dense' is for vectors: got walkers of shape (8, 8)",
    ),
    "spectrum of vectors": (
        given("funnel-10", "--method", "smc", "--set", "sampling.precondition=spectral"),
        "precondition = 'spectral' is for square lattices: got walkers of shape (10,)",
    ),
    "mass of random walks": (
        given("gmm-40", "--method", "smc", "--set", "sampling.kernel=walk", "--set", "sampling.precondition=diagonal"),
        "random walks take the particles' own covariance: got precondition = 'diagonal'",
    ),
    "waste-free chains that do not divide": (
        given("gmm-40", "--method", "smc", "--set", "sampling.waste_free=7"),
        "two chains at least: got waste_free = 7 with 4096 walkers; choose, for example, 2048 walkers",
    ),
    "random walks of a method that asks for gradients": (
        given("phi4-8", "--method", "pt", "--set", "sampling.kernel=walk"),
        "kernel = 'walk' is for plain annealing and SMC: pt asks for gradients",
    ),
    "long chains beside random walks": (
        given("lgcp-1600", "--method", "ais", "--set", "sampling.kernel=walk", "--set", "sampling.reverse_steps=100"),
        "long chains of the target ask for gradients, and kernel = 'walk' for none: got reverse_steps = 100",
    ),
    "choices for nets, of another method": (
        given("phi4-8", "--method", "lsq", "--set", "sampling.nets_kernel=langevin"),
        "nets_kernel = 'langevin' is for method nets: got method lsq",
    ),
    "path weights of a flow": (
        given("phi4-8", "--method", "nets", "--set", "sampling.nets_objective=log-variance"),
        "is the variance of Langevin path weights: got nets_kernel = 'flow'",
    ),
    "action matching from a closed form": (
        given("phi4-8", "--method", "nets", "--set", "sampling.nets_objective=action-matching"),
        "learns a potential: got nets_start = 'closed-form'",
    ),
    "action matching by flow steps": (
        given("phi4-8", "--method", "nets", "--set", "sampling.nets_objective=action-matching",
              "--set", "sampling.nets_start=zero"),
        "learns a drift without its divergence: got nets_kernel = 'flow'",
    ),
    "budget of a training from zero": (
        given("phi4-8", "--method", "nets", "--set", "sampling.nets_start=zero", "--set", "sampling.budget=1000000"),
        "a budget is shared out for a closed form and flow steps: got nets_start = 'zero'",
    ),
    "gradients of the ends without a closed form": (
        given("gmm-40-linear", "--method", "nets", "--set", "sampling.nets_start=zero",
              "--set", "sampling.end_gradients=true"),
        "end_gradients is for a drift in closed form: got nets_start = 'zero'",
    ),
    "method of a difference": (given("phi4-8", "--method", "switching"), "got 'switching'"),
    "file in the way": (file_in_the_way, "taken is not"),
    "file in the way further up": (file_in_the_way_further_up, "taken/run is not"),
    "existing run": (existing_run, "run already holds a run: add --resume"),
    "resumed with another seed": (resumed_with_another_seed, "same settings: run/config.toml differs in run"),
    "resumed with other settings": (resumed_with_other_settings, "differs in ladder"),
    "damaged run": (damaged_run, "run/config.toml must be a TOML file"),
    "a name of 5000 letters": (given("a" * 5000), "is none"),
    "system.toml in Latin-1": (file_of("name = 'é'".encode("latin-1")), "system.toml must be a TOML file"),
    "an empty system.toml": (file_of(b""), "`kind` is required"),
    "a PDB file for a system.toml": (given(FOLDER / "alanine-dipeptide.pdb"), "must be a TOML file"),
    "a structure that is a link out of the folder": (link_that_leaves, "files must lie in the system's folder"),
    "a structure that is a picture": (structure_of("x.pdb", b"\x89PNG\r\n\x1a\n" + bytes(range(256))), "x.pdb"),
    "an empty PDB file": (structure_of("x.pdb", b""), "x.pdb"),
    "a PDBx/mmCIF file that is none": (structure_of("x.cif", b"data_nothing"), "x.cif could not be read"),
    "a force field that is not XML": (force_field_of("amber"), "a force field is an XML file"),
    "a force field with a script": (
        force_field_of("<ForceField><Script>raise SystemExit('it ran')</Script></ForceField>"),
        "mine/own.xml has an element <Script>",
    ),
    "a force field that includes a file": (
        force_field_of("<ForceField><Include file='../secret.xml'/></ForceField>"),
        "mine/own.xml has an element <Include>",
    ),
    "points with three columns": (data_of(POINTS, b"0.1,0.2,0.3\n"), "two numbers per line: data.csv has 3"),
    "points that are words": (data_of(POINTS, b"x,y\n"), "two numbers per line"),
    "points outside the window": (data_of(POINTS, b"0.1,7.0\n"), "points must lie in the unit square"),
    "a table without rows": (data_of("logistic", b""), "data.csv"),
    "a table with a word among its numbers": (data_of("logistic", b"1.0,x,a\n2.0,3.0,b\n"), "data.csv"),
    "Python without consent": (code_without_consent, "run only with --allow-code: got mine:log_density"),
    "Python that is not there": (code_with(None), "mine.py does not exist"),
    "Python that fails": (code_with("1 / 0"), "failed with ZeroDivisionError: division by zero"),
    "Python without the callable": (code_with("x = 1"), "mine.py: it has no log_density"),
    "Python of an installed module": (code_with("", "os.path:join"), "MODULE:CALLABLE, of a MODULE.py in the system's"),
    "a log density of the wrong shape": (code_with("def log_density(x): return -x**2"), "shape"),
    "a log density that is NaN": (code_with("def log_density(x): return x.sum(-1) * float('nan')"), "NaN"),
}  # fmt: skip

# Keys of system.toml, one by one: what is given with --set, and a part of what is said.
KEYS: dict[str, dict[str, str]] = {
    WELLS: {
        "name=3": "`name` must be a string: got 3",
        "name=../up": "`name` must be letters, digits and . + - _, as runs are named after it: got '../up'",
        "title=3": "`title` must be a string: got 3",
        "description=3": "`description` must be a string: got 3",
        "kind=mixture": "`kind` must be one of difference, density: got 'mixture'",
        "presets=3": "unknown key `presets`",
        "temperature=nan K": "a quantity is a number and a unit in quotes",
        "reference=3": "`reference` must be a table: got 3",
        "reference.value=high": "`reference.value` must be a number: got 'high'",
        "reference.std_error=-0.1": "`reference.std_error` must be greater than or equal to 0: got -0.1",
        "reference.source=3": "`reference.source` must be a string: got 3",
        "reference.unit=kT": "unknown key `reference.unit`",
        "run=3": "`run` must be a table: got 3",
        "run.method=best": "'plain', 'map', 'fields', 'switching', 'feat', 'tfep', 'annealed' or 'auto': got 'best'",
        "run.preset=full": "a preset is chosen with --preset: got --set run.preset=full",
        "run.seed=1.5": "`run.seed` must be an integer: got 1.5",
        "run.device=3": "`run.device` must be a string: got 3",
        "state_a=3": "`state_a` must be a table: got 3",
        "state_b=[]": "`state_b` must be a table: got []",
        "state_a.label=3": "`state_a.label` must be a string: got 3",
        "state_a.center=[]": "one entry per dimension: got 0, 3, 3 and 3",
        "state_a.stiffness=[0.0, 1.0, 1.0]": "the well must be bounded",
        "state_a.quartic=[-1.0, 0.0, 0.0]": "the well must be bounded",
        "state_a.skew=big": "`state_a.skew` must be a list: got 'big'",
        "state_a.coupling=big": "`state_a.coupling` must be a number: got 'big'",
        "state_a.relative_cost=0": "`state_a.relative_cost` must be greater than 0: got 0",
        "samples=3": "`samples` must be a table: got 3",
        "samples.a=10": "`samples.a` must be greater than or equal to 50: got 10",
        "samples.b=60.5": "`samples.b` must be an integer: got 60.5",
        "samples.c=100": "unknown key `samples.c`",
        "ladder=3": "`ladder` must be a table: got 3",
        "ladder.blocks=[0.4, 0.6]": "`ladder.blocks.2` is required",
        "ladder.fields_steps=0": "`ladder.fields_steps` must be greater than 0: got 0",
        "ladder.switching_steps=-1": "`ladder.switching_steps` must be greater than 0: got -1",
        "ladder.tuning_samples=0": "`ladder.tuning_samples` must be greater than 0: got 0",
        "ladder.network_cost=inf": "`ladder.network_cost` must be a finite number: got inf",
        "ladder.feat=3": "`ladder.feat` must be a table: got 3",
        "ladder.feat.training_steps=-1": "`ladder.feat.training_steps` must be greater than or equal to 0: got -1",
        "ladder.feat.learning_rate=nan": "`ladder.feat.learning_rate` must be a finite number: got nan",
        "ladder.feat.sampling_steps=0": "`ladder.feat.sampling_steps` must be greater than 0: got 0",
        "ladder.feat.width=0": "`ladder.feat.width` must be greater than 0: got 0",
        "ladder.feat.depth=none": "`ladder.feat.depth` must be an integer: got 'none'",
        "ladder.feat.interpolant=straight": "must be 'linear', 'trigonometric' or 'encoding-decoding': got 'straight'",
        "ladder.feat.gamma=big": "must be 'square-root', 'quadratic', 'sine-squared' or 'none': got 'big'",
        "ladder.feat.strength=0": "`ladder.feat.strength` must be greater than 0: got 0",
        "ladder.feat.coupling=none": "must be 'independent' or 'optimal-transport': got 'none'",
        "ladder.feat.pace=fast": "`ladder.feat.pace` must be 'uniform' or 'lipschitz': got 'fast'",
        "ladder.feat.transfer=encoding-decoding": "must be 'linear' or 'trigonometric': got 'encoding-decoding'",
        "ladder.feat.trunks=3": "`ladder.feat.trunks` must be 1 or 2: got 3",
        "ladder.feat={interpolant='encoding-decoding', gamma='none'}": "has a noise of its own, leave out gamma",
        "ladder.feat={interpolant='encoding-decoding', transfer='linear'}": "leave out transfer",
        "ladder.feat={transfer='trigonometric', refine_steps=3}": "leave out transfer or refine_steps",
        "ladder.feat={gamma='none', coupling='optimal-transport'}": "coupled pairs are regressed on their noise",
        "ladder.feat={gamma='none', strength=2}": "leaves no noise to give a strength: got 2; leave `strength` out",
        "ladder.feat.stopping=best": "`ladder.feat.stopping` must be 'works' or 'loss': got 'best'",
        "ladder.feat.informed=maybe": "`ladder.feat.informed` must be true or false: got 'maybe'",
        "ladder.feat.refine_steps=-1": "`ladder.feat.refine_steps` must be greater than or equal to 0: got -1",
    },
    MOLECULE: {
        "temperature=300 K, or so": "the unit must be one of K, kelvin",
        "state_a.force_field=amber14-all.xml": "`state_a.force_field` must be a list: got 'amber14-all.xml'",
        "state_a.structure=3": "`state_a.structure` must be a string: got 3",
        "state_a.options=3": "`state_a.options` must be a table: got 3",
        "state_a.options.nonbondedMethod=PME": "NoCutoff, CutoffNonPeriodic for a molecule without box: got 'PME'",
        "state_a.region=3": "`state_a.region` must be a table: got 3",
        "state_a.region={torsion='chi9', between=[0.0, 1.0]}": "phi, psi or a list of four atoms: got 'chi9'",
        "state_a.region={torsion='phi', between=[0.0]}": "`state_a.region.between.1` is required",
        "md=3": "`md` must be a table: got 3",
        "md.timestep=2": '`md.timestep`: a quantity is a number and a unit in quotes, such as "2 ps": got 2',
        "md.friction=1 ps": "the unit must be one of 1/ps, 1/fs, 1/ns: got '1 ps'",
        "md.hydrogen_mass=400 Da": "every particle needs a mass",
        "md.replicas=0": "`md.replicas` must be greater than 0: got 0",
        "md.replicas_a=0": "`md.replicas_a` must be greater than 0: got 0",
        "md.replicas_b=two": "`md.replicas_b` must be an integer: got 'two'",
        "md.equilibration=1 min": "the unit must be one of ps, fs, ns: got '1 min'",
        "md.production_a=0 ps": "must be positive: got '0 ps'",
        "md.production_b=-1 ps": "must be positive: got '-1 ps'",
        "md.interval=soon": "`md.interval`: a quantity is a number and a unit",
        "md.interval_a=1 fs": "md.interval must be a time step at least: got 1 fs < 2 fs",
        "md.interval_b=1000 ps": "every block needs at least 10 samples",
        "md.platform=GPU": "`md.platform` must be 'Reference', 'CPU', 'CUDA', 'OpenCL' or 'torch': got 'GPU'",
        "md.exchange=-1": "`md.exchange` must be greater than or equal to 0: got -1",
        "md.weakest=1": "`md.weakest` must be less than 1: got 1",
        "md.platform_a=3": "`md.platform_a` must be 'Reference', 'CPU', 'CUDA', 'OpenCL' or 'torch': got 3",
        "md.platform_b=cpu": "`md.platform_b` must be 'Reference', 'CPU', 'CUDA', 'OpenCL' or 'torch': got 'cpu'",
    },
    CLUSTER: {
        "state_b.target=3": "`state_b.target` must be a table: got 3",
        "state_b.target.name=lj": "got 'lj'",
        "state_b.target.atoms=1": "a cluster has two or more atoms: got 1",
        "state_b.target.atoms=12": "both states must have the same coordinates: A has 13 × 3, B has 12 × 3",
        "chains=3": "`chains` must be a table: got 3",
        "chains.chains=1": "`chains.chains` must be greater than or equal to 2: got 1",
        "chains.equilibration=3": "`chains.equilibration` must be greater than or equal to 10: got 3",
        "chains.draws=2": "`chains.draws` must be greater than or equal to 8: got 2",
        "chains.interval=0": "`chains.interval` must be greater than 0: got 0",
        "chains.leapfrog_steps=0": "`chains.leapfrog_steps` must be greater than 0: got 0",
        "chains.step_size=0": "`chains.step_size` must be greater than 0: got 0",
        "chains.acceptance=2": "`chains.acceptance` must be less than 1: got 2",
        "chains.start_scale=inf": "`chains.start_scale` must be a finite number: got inf",
    },
    LATTICE: {
        "knowledge=3": "`knowledge` must be a string: got 3",
        "target=3": "`target` must be a table: got 3",
        "target.name=3": "`target.name` must be a string: got 3",
        "target.size=1": "a lattice has at least 2 sites a side",
        "target.dimensions=7": "in 1, 2 or 3 dimensions: got 8 in 7",
        "base=3": "`base` must be a table",
        "base.kind=free": "`base.kind` must be one of",
        "base.magnetisation=-0.5": "`base.magnetisation` must be greater than or equal to 0 or 'pilot': got -0.5",
        "base.mass_squared=0": "`base.mass_squared` must be greater than 0: got 0",
        "base={kind='pilot', walkers=3}": "`base.walkers` must be greater than or equal to 16: got 3",
        "base={kind='pilot', steps=0}": "`base.steps` must be greater than 0: got 0",
        "base={kind='pilot', start_scale=0}": "`base.start_scale` must be greater than 0: got 0",
        "base={kind='pilot', inflation=-1}": "`base.inflation` must be greater than 0: got -1",
        "path=3": "`path` must be a table: got 3",
        "path.kind=curved": "`path.kind` must be 'linear', 'mixture' or 'couplings': got 'curved'",
        "sampling=3": "`sampling` must be a table: got 3",
        "sampling.walkers=1": "`sampling.walkers` must be greater than or equal to 64: got 1",
        "sampling.pilot_walkers=1": "`sampling.pilot_walkers` must be greater than or equal to 64: got 1",
        "sampling.pilot_steps=1": "`sampling.pilot_steps` must be greater than or equal to 2: got 1",
        "sampling.steps=many": "`sampling.steps` must be an integer: got 'many'",
        "sampling.leapfrog_steps=0": "`sampling.leapfrog_steps` must be greater than 0: got 0",
        "sampling.kernel=nuts": "`sampling.kernel` must be 'hmc', 'langevin', 'inertial' or 'walk': got 'nuts'",
        "sampling.precondition=full": "`sampling.precondition` must be 'problem', 'diagonal', 'dense' or 'spectral'",
        "sampling.waste_free=1": "`sampling.waste_free` must be greater than or equal to 2: got 1",
        "sampling.budget=10": "`sampling.budget` must be greater than or equal to 1000: got 10",
        "sampling.baseline_walkers=1": "`sampling.baseline_walkers` must be greater than or equal to 64: got 1",
        "sampling.reverse_walkers=-1": "`sampling.reverse_walkers` must be greater than or equal to 0: got -1",
        "sampling.reverse_steps=-1": "`sampling.reverse_steps` must be greater than or equal to 0: got -1",
        "sampling.nets_steps=-1": "`sampling.nets_steps` must be greater than or equal to 0: got -1",
        "sampling.nets_objective=pin": "`sampling.nets_objective` must be 'pinn', 'pinn-rate', 'action-matching' or "
        "'log-variance': got 'pin'",
        "sampling.nets_start=lsq": "`sampling.nets_start` must be 'closed-form' or 'zero': got 'lsq'",
        "sampling.nets_kernel=hmc": "`sampling.nets_kernel` must be 'flow', 'langevin' or 'inertial': got 'hmc'",
        "sampling.training_walkers=8": "`sampling.training_walkers` must be greater than or equal to 64: got 8",
        "sampling.end_gradients=3": "`sampling.end_gradients` must be true or false: got 3",
        "sampling.flow_tolerance=0": "`sampling.flow_tolerance` must be greater than 0: got 0",
        "numerics=3": "`numerics` must be a table: got 3",
        "numerics.dtype=float16": "`numerics.dtype` must be 'float32' or 'float64': got 'float16'",
        "numerics.chunk_size=0": "`numerics.chunk_size` must be greater than 0: got 0",
        "numerics.step_size=nan": "`numerics.step_size` must be a finite number: got nan",
        "ladder.blocks=[1.0]": 'unknown key `ladder`, which belongs to kind = "difference"',
    },
    MIXTURE: {
        "base.mean=x": "`base.mean` must be a number or a list: got 'x'",
        "base.mean=[1.0]": "`base.mean` must be one number or 2 of them: got 1",
        "base.scale=[1.0]": "`base.scale` must be one number or 2 of them: got 1",
        "base={kind='mixture'}": "`base.scale` is required",
        "base={kind='mixture', scale=1.0, means=3}": "`base.means` must be a list: got 3",
        "base={kind='laplace', inflation=0}": "`base.inflation` must be greater than 0: got 0",
        "base={kind='variational', rank=-1}": "`base.rank` must be greater than or equal to 0: got -1",
        "base={kind='variational', learning_rate=0}": "`base.learning_rate` must be greater than 0: got 0",
        "base={kind='variational', draws=1}": "`base.draws` must be greater than or equal to 2: got 1",
        "base={kind='laplace-mixture', wide_scale=0}": "`base.wide_scale` must be greater than 0: got 0",
        "base={kind='laplace-mixture', wide_scale=1.0, starts=0}": "`base.starts` must be greater than or equal to 1",
        "base={kind='learned', wide_scale=1.0, pilots=3}": "`base.pilots` must be greater than or equal to 512: got 3",
        "base={kind='learned', wide_scale=1.0, rounds=-1}": "`base.rounds` must be greater than or equal to 0: got -1",
        "target={name='mixture', means=[[0.0], [1.0, 2.0]], scales=[1.0]}": "rows of one length: got lengths [1, 2]",
        "target={name='mixture', means=[[0.0]], scales=[-1.0]}": "positive scales",
        "target={name='ring', radius=-1.0, width=1.0}": "a ring needs a positive radius and width",
        "target={name='funnel', dimension=1}": "a funnel needs two dimensions or more",
        "target={name='many-well', pairs=0}": "at least one pair of coordinates: got pairs=0",
        "target={name='curie-weiss', spins=0, stiffness=1.0, coupling=1.0}": "a magnet needs a spin",
        "target={name='two-moons', radius=1.0}": "unknown parameter `target.radius`; two-moons takes none",
        "target={name='student-mixture', means=[[0.0]], degrees_of_freedom=-1.0}": "positive scale, degrees of freedom",
    },
    POINTS: {
        "target.cells=0": "a grid has one cell a side at least: got 0",
        "target.cells=2000000": "cox cannot be built from these parameters",
        "target.variance=-1.0": "variance and length must be positive",
        "target.data=3": "`target.data` must be the name of a file: got 3",
        "target.data=/etc/hostname": "files must lie in the system's folder",
    },
}

# Options of the command line.
OPTIONS: dict[str, tuple[Arguments, str]] = {
    "no system": ([], "Missing argument"),
    "two systems": ([WELLS, WELLS], "unexpected extra argument"),
    "a system without a name": ([""], "system.toml does not exist"),
    "an unknown option": ([WELLS, "--sede", "1"], "No such option"),
    "--method of no name": ([WELLS, "--method", ""], "`run.method` must be 'plain'"),
    "--preset of no name": ([WELLS, "--preset", ""], "preset must be one of smoke, quick, full: got ''"),
    "--seed that is a word": ([WELLS, "--seed", "one"], "Invalid value for '--seed'"),
    "--seed beyond 63 bits": ([WELLS, "--seed", str(2**63)], "`run.seed` must be less than 9223372036854775808"),
    "--device without a name": ([WELLS, "--device", ""], "device must be one that PyTorch can use here"),
    "--device that is not here": ([WELLS, "--device", "cuda:99"], "device must be one that PyTorch can use here"),
    "--out under a device": ([WELLS, "--out", "/dev/null/run"], "the run directory must be writable: /dev/null/run"),
    "--out of 300 letters": ([WELLS, "--out", "x" * 300], "File name too long"),
    "--resume with a value": ([WELLS, "--resume", "yes"], "unexpected extra argument"),
    "--json with a value": ([WELLS, "--json", "yes"], "unexpected extra argument"),
    "--allow-code with a value": ([WELLS, "--allow-code", "mine.py"], "unexpected extra argument"),
    "--set without a value": ([WELLS, "--set"], "requires an argument"),
    "--set of nothing": ([WELLS, "--set", ""], "--set takes KEY=VALUE, such as md.replicas=8: got ''"),
    "--set of an unknown key": ([WELLS, "--set", "a=b=c"], "unknown key `a`"),
    "--set with an open bracket": ([WELLS, "--set", "state_a.center=[0.0, 0.0"], "`state_a.center` must be a list"),
    "--set with an empty key": ([WELLS, "--set", "ladder..feat=3"], "--set takes KEY=VALUE"),
}


def _cases() -> Iterator[Case]:
    for what, (build, said) in FILES.items():
        yield Case("Files, and what they say together", what, build, said)
    for system, keys in KEYS.items():
        for text, said in keys.items():
            yield Case(f"Keys of `{system}`", f"`{text}`", setting(text, system), said)
    for what, (arguments, said) in OPTIONS.items():
        yield Case("Options", what, given(*arguments), said)


CASES = list(_cases())


def page() -> str:
    """The table, as a page."""
    lines = [HEAD.format(n=len(CASES))]
    for chapter in dict.fromkeys(case.chapter for case in CASES):
        lines += ["", f"## {chapter}", "", "| given | the line contains |", "|---|---|"]
        lines += [f"| {_cell(c.given)} | {_cell(c.said)} |" for c in CASES if c.chapter == chapter]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("[/bold]x[red]", "brackets")


HEAD = """# Bad input

What `nessampler run` says to {n} mistakes: one line, `error: ` with the rule, what was received and, where it is not
plain, the remedy; exit status 2; nothing on standard output, and no file created or changed. Mistakes in the use of
options are told by the command-line parser, in a frame. The table is the data of `tests/test_bad_input.py`
(`make test`), and `python tests/bad_input.py` writes this page from it."""

if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
