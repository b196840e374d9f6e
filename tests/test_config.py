"""`system.toml`: what is merged into what, what is refused, and that a resolved file is the run again."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from nessampler.errors import InputError
from nessampler.methods.density.effort import DensityEffort
from nessampler.runs import catalogue
from nessampler.runs.config import AnalyticState, DensityConfig, DifferenceConfig, MolecularState, load, resolve, write
from nessampler.runs.config.density import GaussianBase, PilotBase, Sampling
from nessampler.runs.units import parse

MOLECULAR = """
name = "pair"
title = "A pair"
kind = "difference"
temperature = "300 K"

[state_a]
label = "one"
force_field = ["amber14-all.xml"]
structure = "one.pdb"

[state_b]
label = "other"
force_field = ["amber14-all.xml", "implicit/obc2.xml"]
structure = "other.pdb"
options = { soluteDielectric = 1.5, removeCMMotion = false, implicitSolventKappa = 1 }

[md]
replicas = 3
interval = "1 ps"

[presets.smoke]
md = { replicas = 2, production_a = "7 ps" }
ladder.feat = { width = 16 }

[presets.quick]
ladder = { switching_steps = 5 }
"""


def table(**changes: Any) -> dict[str, Any]:
    return tomllib.loads(MOLECULAR) | changes


def settled(*settings: str, **options: Any) -> DifferenceConfig:
    config = resolve(table(), settings=settings, **options)
    assert isinstance(config, DifferenceConfig)
    return config


# --- merging -----------------------------------------------------------------------------------------------------


def test_a_preset_changes_what_it_names_and_nothing_else() -> None:
    quick, smoke = settled(), settled(preset="smoke")
    assert (quick.run.preset, quick.md.replicas, quick.ladder.switching_steps) == ("quick", 3, 5)
    assert (smoke.run.preset, smoke.md.replicas, smoke.md.production_a, smoke.ladder.feat.width) == (
        "smoke", 2, "7 ps", 16,
    )  # fmt: skip
    assert smoke.md.interval == quick.md.interval == "1 ps"
    assert smoke.ladder.switching_steps == DifferenceConfig.model_fields["ladder"].default.switching_steps
    assert smoke.ladder.feat.training_steps == quick.ladder.feat.training_steps


def test_settings_win_over_the_preset_and_the_command_line() -> None:
    config = settled("md.replicas=5", "run.seed=9", preset="smoke", run={"seed": 4, "method": "map"})
    assert (config.md.replicas, config.run.seed, config.run.method) == (5, 9, "map")
    assert config.md.production_a == "7 ps"


def test_merging_leaves_the_table_alone() -> None:
    given = table()
    resolve(given, preset="smoke", settings=["md.replicas=5"], run={"seed": 1})
    assert given == table()


@pytest.mark.parametrize(
    ("setting", "path", "value"),
    [
        ("md.replicas=8", "md.replicas", 8),
        (" md.replicas = 8 ", "md.replicas", 8),
        ("ladder.network_cost=0.5", "ladder.network_cost", 0.5),
        ("ladder.network_cost=2", "ladder.network_cost", 2.0),
        ("ladder.blocks=[0.5, 0.25, 0.25]", "ladder.blocks", (0.5, 0.25, 0.25)),
        ('temperature="310 K"', "temperature", "310 K"),
        ("temperature=310 K", "temperature", "310 K"),
        ("md.timestep=1e0 fs", "md.timestep", "1e0 fs"),
        ("md.platform=CPU", "md.platform", "CPU"),
        ("title=a = b", "title", "a = b"),
        ('state_a.force_field=["x.xml"]', "state_a.force_field", ["x.xml"]),
        ("state_b.options.removeCMMotion=true", "state_b.options", {
            "soluteDielectric": 1.5, "removeCMMotion": True, "implicitSolventKappa": 1}),
    ],
)  # fmt: skip
def test_a_setting_has_the_type_that_toml_gives_it(setting: str, path: str, value: Any) -> None:
    found: Any = settled(setting)
    for name in path.split("."):
        found = getattr(found, name)
    assert found == value
    assert type(found) is type(value)


# --- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["md.replica=3"], r"unknown key `md.replica`; did you mean `replicas`\?"),
        (["mdd.replicas=3"], r"unknown key `mdd`; did you mean `md`\?"),
        (["ladder.feat.trainingsteps=3"], r"unknown key `ladder.feat.trainingsteps`; did you mean `training_steps`\?"),
        (["state_a.forcefield=3"], r"unknown key `state_a.forcefield`; did you mean `force_field`\?"),
        (["qqqq=3"], r"unknown key `qqqq`$"),
        (["presets.smoke.md.replicas=3"], r"unknown key `presets`"),
        (["md.replicas=0"], "md.replicas.*greater than 0"),
        (["md.replicas=2.5"], "md.replicas.*integer"),
        (["md.replicas=many"], "md.replicas.*integer.*many"),
        (["md=3"], "`md`"),
        (["run.seed=-1"], "run.seed"),
        (
            ["run.method=best"],
            "run.method.*'plain', 'map', 'fields', 'switching', 'feat', 'tfep', 'annealed' or 'auto'",
        ),
        (["kind=density"], r"`target` is required; unknown key `temperature`, which belongs to kind = \"difference\""),
        (["kind=densty"], "`kind` must be one of difference, density: got 'densty'"),
        (["state_a.relative_cost=nan"], "state_a.relative_cost"),
        (["reference={value = nan, std_error = 0.1, source = 'x'}"], "reference.value.*finite"),
        (["reference={value = 1.0, std_error = -0.1, source = 'x'}"], "reference.std_error"),
        (["ladder.blocks=[0.5, 0.5, 0.5]"], "ladder.blocks.*add up to 1.*1.5"),
        (["ladder.blocks=[0.5, 0.5]"], "ladder.blocks"),
        (["ladder.blocks=[1.5, -0.25, -0.25]"], "ladder.blocks"),
        (["state_a.force_field=[]"], "state_a.force_field"),
        (["a.b", "c=1"], "--set takes KEY=VALUE.*'a.b'"),
        (["=3"], "--set takes KEY=VALUE.*'=3'"),
        (["md..replicas=3"], "--set takes KEY=VALUE"),
        (["run.preset=smoke"], "--preset"),
    ],
)
def test_a_bad_setting_is_refused_by_name(settings: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        settled(*settings, source="here.toml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("-300 K", "must be positive.*-300 K"),
        ("0 K", "must be positive"),
        ("nan K", "a number and a unit.*nan K"),
        ("1e999 K", "1e999 K"),
        ("300 C", "unit must be one of K, kelvin.*300 C"),
        ("300 fs", "unit must be one of K, kelvin"),
        ("300", "unit must be one of K, kelvin"),
        ("", "a number and a unit"),
        ("warm", "a number and a unit"),
        (300, "a number and a unit in quotes.*300"),
        (300.0, "a number and a unit in quotes.*300"),
    ],
)
def test_a_bad_temperature_is_refused(value: Any, said: str) -> None:
    with pytest.raises(InputError, match=f"`temperature`.*{said}"):
        resolve(table(temperature=value))


def test_a_molecule_needs_a_temperature() -> None:
    given = table()
    del given["temperature"]
    with pytest.raises(InputError, match="needs a temperature"):
        resolve(given)


@pytest.mark.parametrize(
    ("text", "unit", "value"),
    [
        ("300 K", "K", 300.0), ("300kelvin", "K", 300.0), ("2 fs", "ps", 0.002), (".5 ns", "ps", 500.0),
        ("1 / ps", "1/ps", 1.0), ("1/ps", "1/ps", 1.0), ("2e-3 / fs", "1/ps", 2.0), ("4 Da", "Da", 4.0),
        ("+1.5E1 amu", "Da", 15.0), ("2 fs", "fs", 2.0), ("3 ps", "fs", 3000.0), ("-1 ps", "ps", -1.0),
    ],
)  # fmt: skip
def test_a_quantity_is_worth_its_unit(text: str, unit: str, value: float) -> None:
    assert parse(text, unit) == pytest.approx(value, rel=1e-15)


@pytest.mark.parametrize("missing", ["name", "title", "kind", "state_a", "state_b"])
def test_a_missing_key_is_named(missing: str) -> None:
    given = table()
    del given[missing]
    with pytest.raises(InputError, match=f"system.toml: `{missing}` is required$"):
        resolve(given)


def test_a_state_lacking_one_key_is_not_blamed_for_being_of_the_other_kind() -> None:
    given = table(state_a={"label": "one", "force_field": ["amber14-all.xml"]})
    with pytest.raises(InputError) as caught:
        resolve(given)
    assert str(caught.value) == "system.toml: `state_a.structure` is required"


def test_both_states_must_be_of_one_kind() -> None:
    wells = resolve(load(catalogue.root() / "anharmonic-wells" / "system.toml"))
    assert isinstance(wells.state_a, AnalyticState)
    assert isinstance(settled().state_a, MolecularState)
    with pytest.raises(InputError, match="of one kind"):
        resolve(table(state_b=wells.state_b.model_dump()))


def test_an_unknown_preset_is_refused_with_those_there_are() -> None:
    with pytest.raises(InputError, match="one of smoke, quick: got 'fulll'"):
        settled(preset="fulll")


def test_a_file_without_presets_takes_none() -> None:
    given = table()
    del given["presets"]
    assert resolve(given).run.preset == "quick"
    with pytest.raises(InputError, match="has none: got 'full'"):
        resolve(given, preset="full")
    given["run"] = {"preset": "smoke"}
    assert resolve(given, preset="smoke") == resolve(given)
    with pytest.raises(InputError, match="must be smoke: got 'full'"):
        resolve(given, preset="full")


@pytest.mark.parametrize("changes", [{"presets": 3}, {"presets": {"quick": 3}}, {"run": 3}, {"run": ["x"]}])
def test_a_table_that_is_none_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="must be a table"):
        resolve(table(**changes))


def test_numbers_of_a_well_must_be_finite() -> None:
    wells = load(catalogue.root() / "anharmonic-wells" / "system.toml")
    for setting in ("state_a.center=[nan, 0.0, 0.0]", "state_b.coupling=inf", "state_b.skew=[0.0, -inf, 0.0]"):
        with pytest.raises(InputError, match=f"{setting.partition('=')[0]}.*finite"):
            resolve(wells, settings=[setting])


# --- files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"name = ", b"\xff\xfe\x00", b"a = 1\na = 2\n"])
def test_a_file_that_is_not_toml_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "system.toml"
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"{path} must be a TOML file"):
        load(path)


def test_an_absent_file_and_a_folder_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"{tmp_path / 'none.toml'} does not exist"):
        load(tmp_path / "none.toml")
    with pytest.raises(InputError, match=f"{tmp_path} must be a TOML file"):
        load(tmp_path)


DIFFERENCES = [n for n in catalogue.names() if load(catalogue.root() / n / "system.toml")["kind"] == "difference"]


@pytest.mark.parametrize("name", [*DIFFERENCES, "pair"])
@pytest.mark.parametrize("preset", ["smoke", "quick"])
def test_a_resolved_file_read_back_is_equal(tmp_path: Path, name: str, preset: str) -> None:
    source = table() if name == "pair" else load(catalogue.root() / name / "system.toml")
    config = resolve(source, preset=preset, run={"seed": 3, "method": "map"}, settings=["ladder.network_cost=0.1"])
    write(config, tmp_path / "config.toml")
    again = resolve(load(tmp_path / "config.toml"))
    assert again == config
    assert again.model_dump() == config.model_dump()
    assert again != resolve(source, preset=preset)


def test_every_key_is_written(tmp_path: Path) -> None:
    write(settled(), tmp_path / "config.toml")
    written = load(tmp_path / "config.toml")
    assert written["md"]["friction"] == "1 / ps"  # a default
    assert written["state_b"]["options"] == table()["state_b"]["options"]
    assert tomli_w.dumps(written) == (tmp_path / "config.toml").read_text(encoding="utf-8")


# --- densities ---------------------------------------------------------------------------------------------------

DENSITY = """
name = "mine"
title = "A mixture"
kind = "density"

[target]
name = "mixture"
means = [[-3.0, 0.0], [3.0, 1.0]]
scales = [1.0, 0.5]

[base]
kind = "gaussian"
scale = 5.0

[sampling]
walkers = 1000

[presets.smoke]
sampling = { steps = 8 }

[presets.quick]
"""


def density(*settings: str, **options: Any) -> DensityConfig:
    config = resolve(tomllib.loads(DENSITY), settings=settings, **options)
    assert isinstance(config, DensityConfig)
    return config


def test_a_density_has_its_own_tables_and_the_common_ones() -> None:
    config = density("run.seed=3", preset="smoke", run={"method": "lsq"})
    assert (config.run.method, config.run.seed, config.run.preset) == ("lsq", 3, "smoke")
    assert (config.sampling.walkers, config.sampling.steps) == (1000, 8)
    assert config.target.name == "mixture"
    assert config.target.parameters == {"means": [[-3.0, 0.0], [3.0, 1.0]], "scales": [1.0, 0.5]}
    assert config.base.kind == "gaussian"
    assert config.path.kind == "linear"
    given = tomllib.loads(DENSITY)
    del given["base"]
    assert resolve(given).base.kind == "pilot"  # pyright: ignore[reportAttributeAccessIssue]


def test_what_a_density_may_spend_is_what_the_recipe_takes() -> None:
    defaults = {f.name: f.default for f in dataclasses.fields(DensityEffort)}
    assert {name: field.default for name, field in Sampling.model_fields.items()} == defaults


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["run.method=map"], "run.method.*'ais', 'smc', 'pt', 'lsq', 'nets' or 'auto'.*'map'"),
        (["sampling.walker=3"], r"unknown key `sampling.walker`; did you mean `walkers`\?"),
        (["sampling.walkers=3"], "sampling.walkers.*greater than or equal to 64"),
        (["sampling.steps=many"], "sampling.steps.*integer"),
        (["base.kind=gausian"], "`base.kind` must be one of 'gaussian', 'free-field'.*got 'gausian'"),
        (["base.sclae=1.0"], r"unknown key `base.sclae`; did you mean `scale`\?"),
        (["base={kind = 'free-field', mass_squared = -1.0}"], "`base.mass_squared`.*greater than 0"),
        (["path.kind=curved"], "`path.kind`.*'linear', 'mixture' or 'couplings'"),
        (["numerics.dtype=float16"], "numerics.dtype.*'float32' or 'float64'"),
        (["ladder.switching_steps=3"], 'unknown key `ladder`, which belongs to kind = "difference"'),
        (["reference={value = 1.0, std_error = -0.1, source = 'x'}"], "reference.std_error"),
    ],
)
def test_a_bad_setting_of_a_density_is_refused_by_name(settings: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        density(*settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "key"), [("base", "kind"), ("target", "name")])
def test_a_table_that_does_not_say_what_it_is_is_refused(name: str, key: str) -> None:
    given = tomllib.loads(DENSITY)
    del given[name][key]
    with pytest.raises(InputError, match=f"`{name}.{key}` is required$"):
        resolve(given)


def test_another_kind_of_base_replaces_the_old_one_and_its_parameters() -> None:
    config = density("base.kind=pilot", "base.steps=7", "target.name=funnel")
    assert config.base == PilotBase(kind="pilot", steps=7)
    assert config.target.parameters == {}
    assert density("base.scale=2.0", "base.kind=gaussian").base == GaussianBase(kind="gaussian", scale=2.0)


def test_a_method_of_a_density_is_refused_for_a_difference() -> None:
    with pytest.raises(
        InputError,
        match=r"run.method.*'plain', 'map', 'fields', 'switching', 'feat', 'tfep', 'annealed' or 'auto'.*'lsq'",
    ):
        settled("run.method=lsq")


DENSITIES = [n for n in catalogue.names() if load(catalogue.root() / n / "system.toml")["kind"] == "density"]


@pytest.mark.parametrize("name", [*DENSITIES, "mine"])
@pytest.mark.parametrize("preset", ["smoke", "quick"])
def test_a_resolved_density_read_back_is_equal(tmp_path: Path, name: str, preset: str) -> None:
    source = tomllib.loads(DENSITY) if name == "mine" else load(catalogue.root() / name / "system.toml")
    config = resolve(source, preset=preset, run={"seed": 3, "method": "ais"}, settings=["sampling.leapfrog_steps=3"])
    write(config, tmp_path / "config.toml")
    assert resolve(load(tmp_path / "config.toml")) == config
    assert config != resolve(source, preset=preset)
