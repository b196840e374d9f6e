"""What a result says of itself: in words, in other units, as a data frame, as InferenceData."""

from __future__ import annotations

from dataclasses import replace

import arviz as az
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

import nessampler as ns
from nessampler.estimators import Flag
from nessampler.methods.arviz_export import samples_data
from nessampler.simulate import Ensemble
from nessampler.targets import Gaussian
from nessampler.targets.normal import Normal

matplotlib.use("Agg")

LITTLE = ns.DensityEffort(walkers=800, pilot_walkers=300, pilot_steps=6, steps=6, reverse_walkers=200)
DOUBT = Flag("slow_torsion", "phi was crossed once; sample longer")


@pytest.fixture(scope="module")
def difference(wells) -> ns.Difference:
    g = torch.Generator().manual_seed(0)
    a, b = (well.sample(400, generator=g).view(4, 100, 3) for well in wells)
    return ns.free_energy(*wells, a, b, method="fields", endstate_flags=[DOUBT])


@pytest.fixture(scope="module")
def sampled() -> ns.Sampled:
    target = Normal(torch.zeros(2), torch.tensor([[1.0, 0.6], [0.6, 2.0]]))
    return ns.sample(target, base=Gaussian(torch.zeros(2), torch.ones(2)), method="ais", effort=LITTLE)


def weighted(log_weight: torch.Tensor, sampled: ns.Sampled, x: torch.Tensor | None = None) -> ns.Sampled:
    """The result with other weights."""
    ensemble = Ensemble(sampled.x if x is None else x, log_weight, sampled.attempt.ensemble.times)
    return replace(sampled, attempts=(replace(sampled.attempt, ensemble=ensemble),))


# Words and units -----------------------------------------------------------------------------------------------------


def test_a_result_prints_its_answer_its_verdict_and_every_flag_once(difference, sampled):
    text = str(difference)
    assert text.startswith("ΔF = ")
    assert difference.verdict.text in text
    assert text.count("slow_torsion: phi was crossed once; sample longer") == 1
    assert str(sampled).startswith("log Z = ")
    for flag in sampled.flags:
        assert str(sampled).count(flag.message) == 1


def test_a_repr_is_one_line_and_html_has_a_row_for_everything_tried(difference, sampled):
    assert repr(difference).startswith("<Difference ΔF = ")
    assert repr(difference).endswith("; fields, caution>")
    assert repr(sampled).startswith("<Sampled log Z = ")
    for result, names in ((difference, ["plain", "map", "fields"]), (sampled, ["ais"])):
        assert "\n" not in repr(result)
        page = result._repr_html_()
        assert page.count("<tr") == 2 + len(names)  # two lines of heading
        assert all(f"<th>{name}</th>" in page for name in names)
    assert "<pre>ΔF = 1.00" in ns.FreeEnergy(1.0, 0.1, (0.8, 1.2), (50,), (1.0,), (), "BAR")._repr_html_()


def test_a_difference_and_an_absolute_free_energy_convert(difference, wells):
    kcal = difference.to("kcal/mol", temperature=300.0)
    assert kcal.unit == "kcal/mol"
    assert kcal.delta_f == pytest.approx(difference.delta_f.delta_f * 300 * 8.31446261815324e-3 / 4.184)
    with pytest.raises(ns.InputError, match="positive temperature in kelvin"):
        difference.to("kcal/mol")
    x = wells[0].sample(400, generator=torch.Generator().manual_seed(1))
    absolute = ns.absolute_free_energy(wells[0], x, method="plain")
    assert absolute.to("kJ/mol", 300.0).delta_f == pytest.approx(
        absolute.free_energy.delta_f * 300 * 8.31446261815324e-3
    )
    assert repr(absolute).startswith("<Absolute F = ")


# Data frames ---------------------------------------------------------------------------------------------------------


def test_a_difference_has_a_row_for_every_rung(difference):
    frame = difference.to_dataframe()
    assert [*frame.index] == ["plain", "map", "fields"]
    assert [*frame.index[frame.chosen]] == ["fields"]
    row, rung = frame.loc["fields"], difference.rung
    assert (row.delta_f, row.std_error) == (rung.estimate.delta_f, rung.estimate.std_error)
    assert (row.ci95_low, row.ci95_high) == rung.estimate.ci95
    assert (row.ess_forward, row.ess_reverse) == rung.estimate.ess
    assert (row.overlap, row.pareto_k_forward) == (rung.estimate.overlap, rung.pareto_k[0])
    assert row.evaluations_a == sum(
        n for stage in ("training", "sampling") for n in rung.evaluations["state_a"][stage].values()
    )
    assert row.evaluations_network > 0
    assert row.seconds == rung.seconds


def test_what_is_not_known_is_nan_and_not_an_object(difference):
    without = replace(difference.rung, estimate=replace(difference.rung.estimate, delta_f=None, ci95=None))
    frame = replace(difference, rungs=(without,)).to_dataframe()
    assert np.isnan(frame.loc["fields", "delta_f"])
    assert np.isnan(frame.loc["fields", "ci95_low"])
    assert frame.dtypes["delta_f"] == np.float64


def test_a_density_has_a_row_for_every_attempt(sampled):
    row = sampled.to_dataframe().loc["ais"]
    assert (row.log_z, row.ess, row.walkers) == (sampled.log_z.value, sampled.log_z.ess, 800)
    assert row.ess_reverse == sampled.attempt.reverse.ess
    assert row.evaluations > 800 * 6


# ArviZ ---------------------------------------------------------------------------------------------------------------


def test_arviz_summarises_and_plots_draws(sampled):
    data = sampled.to_arviz()
    summary = az.summary(data)
    assert [*summary.index] == ["x[0]", "x[1]"]
    assert (summary["r_hat"] < 1.05).all()
    mean, error = (v.numpy() for v in sampled.expect(lambda x: x))
    assert (np.abs(summary["mean"] - mean) < 4 * error + 1e-3).all()
    for draw in (az.plot_trace, az.plot_posterior, az.plot_forest):
        assert np.size(draw(data)) > 0
        plt.close("all")


def test_coordinates_of_a_vector_may_have_names(sampled):
    plain, named = sampled.to_arviz(), sampled.to_arviz(names=["mu", "tau"])
    assert [*az.summary(named).index] == ["mu", "tau"]
    for group in ("posterior", "walkers"):
        assert np.array_equal(named[group]["tau"], plain[group]["x"][..., 1])
    for names in (["mu"], ["mu", "mu"]):
        with pytest.raises(ns.InputError, match="one for each coordinate"):
            sampled.to_arviz(names=names)


def test_arviz_summarises_and_plots_works(difference):
    data = difference.to_arviz()
    assert data.groups() == ["forward", "reverse"]
    assert data["forward"]["work_fields"].shape == (4, 40)
    assert np.array_equal(data["forward"]["log_weight_map"], -data["forward"]["work_map"])
    assert "work_fields" in az.summary(data, group="forward").index
    for draw in (az.plot_trace, az.plot_posterior, az.plot_forest):
        assert np.size(draw(data["forward"], var_names=["work_plain", "work_fields"])) > 0
        plt.close("all")


def test_draws_repeat_with_the_seed_and_follow_the_weights(sampled):
    x = torch.linspace(-3, 3, 4000, dtype=torch.float64)[
        torch.randperm(4000, generator=torch.Generator().manual_seed(0))
    ]
    tilted = weighted(-0.5 * (x - 0.5) ** 2, sampled, x[:, None])
    one, same, other = (samples_data(tilted, seed=s)["posterior"]["x"].values for s in (1, 1, 2))
    assert one.shape == (4, 1000, 1)
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)
    exact, error = tilted.expect(lambda x: x[:, 0])
    assert abs(one.mean() - float(exact)) < 4 * float(error) < 0.1
    assert abs(x.mean() - float(exact)) > 4 * float(error)  # negative control: unweighted walkers are not draws


def test_few_heavy_walkers_show_in_the_effective_sample_size_of_their_draws(sampled):
    heavy = torch.zeros(800, dtype=torch.float64)
    heavy[::20] = 8.0
    assert (
        float(az.ess(weighted(heavy, sampled).to_arviz())["x"].max())
        < 200
        < float(az.ess(sampled.to_arviz())["x"].min())
    )


def test_chains_without_weight_are_joined_and_none_is_left_out_of_nothing(sampled):
    first = torch.full((800,), -torch.inf, dtype=torch.float64)
    assert "posterior" not in weighted(first, sampled).to_arviz().groups()
    first[:100] = 0.0
    assert weighted(first, sampled).to_arviz()["posterior"]["x"].shape == (1, 800, 2)
    with pytest.raises(ns.InputError, match=r"chains=400 for 800 walkers"):
        sampled.to_arviz(chains=400)
