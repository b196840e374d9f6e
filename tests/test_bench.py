"""The bench: cells, their tables, and who wins."""

from __future__ import annotations

import csv
import io
import json
import math

import numpy as np
import pytest
import torch
from command_line import nessampler

from nessampler.bench.grid import Cell, Grid, run_grid
from nessampler.bench.metrics import energy_distance, missing_modes, mode_distance, wasserstein
from nessampler.bench.row import Row
from nessampler.bench.suites import SUITES
from nessampler.bench.tables import summaries, to_csv, to_markdown, winners
from nessampler.bench.torsions import torsion_kl, torsion_metrics
from nessampler.errors import InputError
from nessampler.plots import Carried
from nessampler.runs import catalogue
from nessampler.runs.observed import Observed


def row(method: str, seed: int, value: float | None, std_error: float | None = 0.1, **other) -> Row:
    known = {"reference": 1.0, "reference_error": 0.0, "evaluations": 1e6, "fields": 0, "seconds": 2.0} | other
    return Row(
        system="two-wells",
        kind="density",
        method=method,
        seed=seed,
        budget=1000,
        chosen=known.pop("chosen", method),
        value=value,
        std_error=None if value is None else std_error,
        cpu_seconds=1.0,
        **known,
    )


def test_a_row_comes_back_from_its_file():
    made = row("ais", 0, 1.2, metrics={"ess": 0.5, "w2": None}, flags=("heavy_tail",))
    assert Row.of(json.loads(json.dumps(made.to_dict()))) == made


def test_errors_and_scores_of_a_row():
    assert row("ais", 0, 1.3).error == pytest.approx(0.3)
    assert row("ais", 0, 1.3, 0.1, reference_error=0.1).z == pytest.approx(0.3 / math.hypot(0.1, 0.1))
    assert row("ais", 0, None).z is None
    assert row("ais", 0, 1.0, 0.0).z is None  # both exact


def test_a_method_that_claims_too_little_is_held_to_its_distance():
    honest, bold = (
        [row("ais", s, 1 + 0.1 * (-1) ** s, 0.1) for s in range(4)],
        [row("smc", s, 1.5, 0.01) for s in range(4)],
    )
    by_method = {s.method: s for s in summaries([*honest, *bold])}
    assert by_method["ais"].validated == pytest.approx(0.1)
    assert by_method["smc"].validated == pytest.approx(0.5)
    assert (by_method["ais"].covered, by_method["smc"].covered) == (4, 0)
    assert winners(list(by_method.values()))["two-wells"].method == "ais"


def test_a_method_that_does_not_always_answer_does_not_win():
    rows = [row("lsq", 0, 1.0, 0.01), row("lsq", 1, None), row("ais", 0, 1.0, 0.1), row("ais", 1, 1.1, 0.1)]
    assert winners(summaries(rows))["two-wells"].method == "ais"
    rejected = [row("lsq", s, 1.0, 0.01, verdict="not trusted") for s in range(2)]
    assert winners(summaries([*rejected, *rows[2:]]))["two-wells"].method == "ais"


def test_auto_is_measured_against_the_best_and_never_wins_itself():
    rows = [row("ais", 0, 1.0, 0.1), row("lsq", 0, 1.0, 0.02), row("auto", 0, 1.0, 0.01, chosen="lsq")]
    assert winners(summaries(rows))["two-wells"].method == "lsq"
    text = to_markdown(rows)
    assert "**lsq**" in text
    assert "ais follows with 5 times it, or 25 times the evaluations; auto took lsq: 0.5 times the best" in text


def test_the_tidy_table_has_a_line_for_each_cell_and_a_column_for_each_metric():
    rows = [row("ais", 0, 1.2, metrics={"ess": 0.5}), row("smc", 0, None, metrics={"w2": 1.0}, note="gave up")]
    first, second = csv.DictReader(io.StringIO(to_csv(rows)))
    assert float(first["error"]) == pytest.approx(0.2)
    assert (first["ess"], first["w2"], second["w2"], second["value"], second["note"]) == (
        "0.5",
        "",
        "1.0",
        "",
        "gave up",
    )


def test_chains_without_log_z_have_metrics_and_never_win():
    note, metrics = "no log Z; 64 chains of 300 trajectories", {"ess": 0.2, "w2": 0.7, "rhat": 1.004}
    rows = [row("ais", 0, 1.0, 0.1), row("ais", 1, 1.0, 0.1)]
    rows += [row("hmc", s, None, note=note, metrics=metrics) for s in range(2)]
    ais, hmc = summaries(rows)
    assert (hmc.draws_only, hmc.answers, hmc.validated, dict(hmc.metrics)) == (True, 0, None, metrics)
    assert not ais.draws_only
    assert winners([ais, hmc]) == {"two-wells": ais}
    head, _, *lines = to_markdown(rows).splitlines()
    assert head.endswith("| ESS | W2 | R-hat | chosen |")
    assert "| two-wells | hmc | no log Z |  |  |  |" in lines[1]
    assert "| 0.2 | 0.7 | 1 |" in lines[1]
    # What gave up, or is rejected by its own run, has no metrics to show.
    lost = row("hmc", 0, None, note="given up after 30 minutes", metrics=metrics)
    rejected = row("ais", 0, 1.0, metrics=metrics, verdict="not trusted")
    assert [s.metrics for s in summaries([lost, rejected])] == [{}, {}]
    assert "W2" not in to_markdown([row("ais", 0, 1.0, 0.1)])


def test_distances_of_samples():
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(400, 2, generator=generator) for _ in range(2))
    near, far = wasserstein(x, y), wasserstein(x, y + torch.tensor([3.0, 0.0]))
    assert near < 0.5 < 2.8 < far < 3.5
    weight = torch.full((400,), 1 / 400)
    assert energy_distance(x[:, 0], weight, x[:, 0] + 1) == pytest.approx(1.0, abs=1e-5)
    share = torch.tensor([0.5, 0.5, 0.0])
    assert (missing_modes(share), mode_distance(share, torch.full((3,), 1 / 3))) == (1, pytest.approx(1 / 3))


def test_seeds_come_one_after_the_other():
    cells = list(Grid(("a", "b"), ("ais",), 2).cells())
    assert cells == [Cell("a", "ais", 0), Cell("b", "ais", 0), Cell("a", "ais", 1), Cell("b", "ais", 1)]


def test_every_suite_is_in_the_catalogue():
    for suite in SUITES.values():
        assert set(suite.systems) <= set(catalogue.names())


def test_finished_cells_are_read_and_not_run(tmp_path):
    (tmp_path / "cells").mkdir()
    stored = row("ais", 0, 1.0)
    (tmp_path / "cells" / "gmm-40--ais--0.json").write_text(json.dumps(stored.to_dict()))
    said: list[str] = []
    assert run_grid(Grid(("gmm-40",), ("ais",), 1, 1000), tmp_path, say=said.append) == [stored]
    assert said == []
    with pytest.raises(InputError, match="share a budget"):
        run_grid(Grid(("gmm-40",), ("ais",), 1, 2000), tmp_path)
    (tmp_path / "cells" / "gmm-40--ais--0.json").write_text("{")
    with pytest.raises(InputError, match="is none; remove it"):
        run_grid(Grid(("gmm-40",), ("ais",), 1, 1000), tmp_path)


def test_a_cell_that_takes_too_long_is_on_record_as_given_up(tmp_path):
    (found,) = run_grid(Grid(("gmm-40",), ("ais",), 1, None, cap=0.001), tmp_path)
    assert (found.value, found.note) == (None, "given up after 0.001 minutes")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["everything"], "a suite is one of density, difference: got 'everything'"),
        (["density", "--methods", "map"], "methods of this suite are ais"),
        (["density", "--systems", "gmm-41", "--seeds", 1], "did you mean gmm-40?"),
    ],
)
def test_what_cannot_be_benched_is_refused(arguments, message, tmp_path):
    ended = nessampler("bench", *arguments, "--out", tmp_path / "bench")
    assert ended.code == 2
    assert message in ended.err


def test_a_grid_from_the_command_line(tmp_path):
    options = ["--seeds", 1, "--budget", 600_000, "--preset", "smoke", "--out", tmp_path]
    ended = nessampler("bench", "density", "--systems", "gmm-40", "--methods", "ais", "--methods", "smc", *options)
    assert ended.code == 0, ended.err
    rows = list(csv.DictReader((tmp_path / "cells.csv").open(encoding="utf-8")))
    assert [r["method"] for r in rows] == ["ais", "smc"]
    for r in rows:
        assert 0.6 * 600_000 < float(r["evaluations"]) < 1.4 * 600_000
        assert abs(float(r["z"])) < 4
    assert (tmp_path / "errors.png").stat().st_size > 10_000
    assert "| gmm-40 |" in (tmp_path / "summary.md").read_text(encoding="utf-8")


def test_chains_and_tempering_for_one_budget(tmp_path):
    options = ["--seeds", 1, "--budget", 150_000, "--preset", "smoke", "--out", tmp_path]
    ended = nessampler("bench", "density", "--systems", "gmm-40", "--methods", "hmc", "--methods", "pt", *options)
    assert ended.code == 0, ended.err
    hmc, pt = csv.DictReader((tmp_path / "cells.csv").open(encoding="utf-8"))
    for r in (hmc, pt):
        assert 0.6 * 150_000 < float(r["evaluations"]) < 1.4 * 150_000, r["method"]
        assert float(r["modes_tv"]) < 1
    assert (hmc["value"], hmc["note"].split(";")[0]) == ("", "no log Z")
    assert float(hmc["rhat"]) > 1.5  # no chain leaves its mode
    assert abs(float(pt["z"])) < 4
    assert float(pt["swap_acceptance"]) > 0.3


def test_a_rung_and_staged_mbar_for_one_budget(tmp_path):
    options = ["--seeds", 1, "--budget", 40_000, "--preset", "smoke", "--out", tmp_path]
    methods = ["--methods", "map", "--methods", "staged"]
    ended = nessampler("bench", "difference", "--systems", "anharmonic-wells", *methods, *options)
    assert ended.code == 0, ended.err
    for r in csv.DictReader((tmp_path / "cells.csv").open(encoding="utf-8")):
        assert 0.6 * 40_000 < float(r["evaluations"]) < 1.4 * 40_000, r["method"]
        assert abs(float(r["z"])) < 4


# ---- torsions ------------------------------------------------------------------------------------------------------


def test_the_divergence_of_torsions_is_that_of_their_histograms():
    samples, carried = np.array([5.0, 5.0, 5.0, 15.0]), np.array([365.0, -345.0, -345.0])
    weight = np.array([0.5, 0.25, 0.25])
    effective = 1 / (weight**2).sum()
    p, q = np.full(36, 0.5), np.full(36, 0.5)
    p[18:20] += [3, 1]
    q[18:20] += effective * np.array([0.5, 0.5])
    p, q = p / p.sum(), q / q.sum()
    assert torsion_kl(samples, carried, np.log(weight) + 7) == pytest.approx(float((p * np.log(p / q)).sum()))


def test_reweighting_takes_torsions_to_the_right_share_of_basins():
    rng = np.random.default_rng(0)
    basin = rng.random(20_000) < 0.5
    carried = np.where(basin, rng.normal(-60, 10, 20_000), rng.normal(170, 20, 20_000))
    other = rng.random(20_000) < 0.9
    samples = np.where(other, rng.normal(-60, 10, 20_000), rng.normal(170, 20, 20_000))
    log_weight = np.log(np.where(basin, 0.9, 0.1))
    assert torsion_kl(samples, carried, log_weight) < 0.01
    assert torsion_kl(samples, carried, np.zeros(20_000)) > 0.3  # unweighted: the wrong shares
    few = torsion_kl(samples[:50], carried[:50], log_weight[:50])
    assert 0.02 < few < 1  # noise, no infinity in bins that are empty


def test_torsions_are_compared_at_both_ends_and_other_things_are_not():
    rng, equal = np.random.default_rng(0), np.zeros(2000)
    a, b = ({"phi(1)": rng.normal(mean, 20, (2, 1000)), "psi(1)": rng.normal(0, 20, (2, 1000))} for mean in (-60, 60))
    at = [Carried({name: v.ravel() for name, v in series.items()}, equal) for series in (a, a)]  # nobody moved to B
    found = torsion_metrics(Observed(a, b, "degrees"), (at[0], at[1]))
    assert found["torsion_kl_a"] == pytest.approx(0, abs=1e-9)
    assert found["torsion_kl_worst"] > 1
    assert found["torsion_kl_b"] == pytest.approx(found["torsion_kl_worst"] / 2, rel=0.05)
    assert torsion_metrics(Observed(a, b), (at[0], at[1])) == {}  # no torsions
    assert torsion_metrics(Observed(a, b, "degrees"), None) == {}
