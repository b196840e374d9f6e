"""The bench: cells, their tables, and who wins."""

from __future__ import annotations

import csv
import io
import json
import math
import multiprocessing
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import nessampler

from nessampler.bench import difference_cell, difference_sizes, ends, origin
from nessampler.bench.clock import cpu_seconds
from nessampler.bench.density_cell import density_row
from nessampler.bench.difference_cell import difference_row
from nessampler.bench.grid import Cell, Grid, _row, run_grid
from nessampler.bench.metrics import energy_distance, missing_modes, mode_distance, wasserstein
from nessampler.bench.origin import origin_of
from nessampler.bench.outcome import Outcome
from nessampler.bench.peers import MissingPeerError
from nessampler.bench.peers.blackjax_smc import scattered
from nessampler.bench.peers.dynesty_nested import unfinished
from nessampler.bench.peers.whitened import Evidence, _push, verdict_of
from nessampler.bench.row import Row
from nessampler.bench.sizes import scale_of, trials
from nessampler.bench.suites import KINDS, SUITES
from nessampler.bench.tables import summaries, to_csv, to_markdown, winners
from nessampler.bench.torsions import torsion_kl, torsion_metrics
from nessampler.bench.trial import trial
from nessampler.bench.workers import answered
from nessampler.errors import InputError
from nessampler.estimators import FreeEnergy
from nessampler.plots import Carried
from nessampler.runs import catalogue
from nessampler.runs.config import DensityConfig, DifferenceConfig, load, resolve
from nessampler.runs.molecular_problem import check_frames
from nessampler.runs.observed import Observed
from nessampler.runs.prepared import Prepared
from nessampler.runs.target_problem import check_targets
from nessampler.targets.mixture import GaussianMixture


def row(method: str, seed: int, value: float | None, std_error: float | None = 0.1, **other) -> Row:
    known = {"reference": 1.0, "reference_error": 0.0, "evaluations": 1e6, "fields": 0, "seconds": 2.0} | other
    known.setdefault("budget", 1000)
    return Row(
        system="two-wells",
        kind="density",
        method=method,
        seed=seed,
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


def test_errors_are_compared_as_if_all_had_spent_the_budget():
    """Who spends four times as much has twice the error at the budget; who has half of it left, less."""
    rows = [row("ais", 0, 1.0, 0.15, budget=1000, evaluations=1000.0)]
    rows += [row("lsq", 0, 1.0, 0.10, budget=1000, evaluations=4000.0)]
    ais, lsq = summaries(rows)
    assert (ais.at_budget, lsq.at_budget) == (pytest.approx(0.15), pytest.approx(0.2))
    assert winners([ais, lsq])["two-wells"] is ais
    text = to_markdown(rows)
    assert "| 1 k | 100% | 0.15 |" in text
    assert "| 4 k | 400% | 0.2 |" in text
    assert "two-wells: ais (not learned) has the smallest error at the budget, ± 0.15" in text
    assert "lsq follows with 1.3 times it" in text
    # Where everything is of its own size there is nothing to scale to.
    unsized = [row("ais", 0, 1.0, 0.15, budget=None), row("lsq", 0, 1.0, 0.1, budget=None, evaluations=9e6)]
    assert winners(summaries(unsized))["two-wells"].method == "lsq"
    assert "lsq (closed form) has the smallest error, ± 0.1" in to_markdown(unsized)


def test_auto_is_measured_against_the_best_and_never_wins_itself():
    rows = [row("ais", 0, 1.0, 0.1), row("lsq", 0, 1.0, 0.02), row("auto", 0, 1.0, 0.01, chosen="lsq")]
    assert winners(summaries(rows))["two-wells"].method == "lsq"
    text = to_markdown(rows)
    assert "**lsq**" in text
    assert "ais follows with 5 times it, or 25 times the evaluations; auto took lsq: 0.5 times the best" in text


def test_the_whole_table_says_what_auto_loses_and_which_intervals_are_too_narrow():
    few = [row(m, seed, 1.0, e) for seed in range(3) for m, e in (("lsq", 0.02), ("auto", 0.03))]
    rows = [replace(r, system=f"wells-{k}") for k in range(3) for r in few]
    rows += [row("ais", seed, 1.5, 0.1) for seed in range(3)]
    text = to_markdown([*rows, row("auto", 0, None)])
    assert "- auto: its error is 1.5 times that of the best method, in the median of 4 systems; not every seed " in text
    assert "answers on two-wells." in text
    told = "18 of 21 hold the reference; of system and method too few in ais on two-wells (0 of 3) (5% shared by 7); "
    assert told + "of methods too few in ais (0 of 3) (5% shared by 3)." in text
    # Two of three is no rarity for intervals of 95 %, asked seven times.
    rows[-2:] = [replace(r, value=1.0) for r in rows[-2:]]
    assert "20 of 21 hold the reference; of system and method in none too few" in to_markdown(rows)
    assert "auto:" not in to_markdown([row("ais", 0, 1.0)])


def test_errors_by_the_spread_of_eight_islands_have_students_interval():
    """2.2 standard errors are within it at seven degrees of freedom, and not within a normal's."""
    rows = [row(m, 0, 1.22, 0.1) for m in ("smc", "pt", "ais")] + [row("auto", 0, 1.22, 0.1, chosen="smc")]
    assert [s.covered for s in summaries(rows)] == [1, 1, 0, 1]
    assert [s.covered for s in summaries([row("smc", 0, 1.24, 0.1)])] == [0]


def test_of_exact_rows_nothing_is_asked_and_of_few_intervals_nothing_is_told():
    rows = [row("map", 0, 1.0, 0.0), row("map", 1, 1.0, 0.0), row("map", 2, 1.05, 0.1)]
    (found,) = summaries(rows)
    assert (found.covered, found.intervals, found.answers) == (1, 1, 3)
    assert "of system and method in none too few (5% shared by 1, of 1 of which it could not be told)" in to_markdown(
        rows
    )


def test_what_was_given_up_neither_spends_nothing_nor_lets_auto_look_better():
    rows = [row("smc", s, 1.0, 0.1) for s in range(3)]
    rows += [row("auto", 0, 1.0, 0.1), *(row("auto", s, None, evaluations=0) for s in (1, 2))]
    smc, auto = summaries(rows)
    assert auto.at_budget == pytest.approx(smc.at_budget)
    assert "auto: its error is inf times that of the best method" in to_markdown(rows)


def test_who_wins_by_processor_time_is_named_where_it_is_another():
    rows = [replace(row("feat", 0, 1.0, 0.1), cpu_seconds=100.0), replace(row("map", 0, 1.0, 0.2), cpu_seconds=1.0)]
    assert "at equal processor time map, 25 times less" in to_markdown(rows)
    assert "processor time" not in to_markdown([rows[0], replace(rows[1], cpu_seconds=100.0)])


def test_a_table_says_by_which_code_and_where():
    origin = {"commit": "abc", "machine": "a fast one", "cores": 2}
    one, other = row("ais", 0, 1.0, origin=origin), row("smc", 0, 1.0, origin=origin | {"commit": "def-dirty"})
    assert "- cells: 1, of commit abc, on a fast one, 2 cores." in to_markdown([one])
    assert "- cells: 2, of commit abc (1), def-dirty (1), on a fast one, 2 cores." in to_markdown([one, other])


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


def test_the_tidy_table_has_effective_draws_for_an_evaluation_and_a_second_and_says_what_kind_a_method_is():
    metrics = {"effective_draws": 500.0}
    rows = [row("ais", 0, 1.2, metrics=metrics, evaluations=1e4), row("auto", 0, 1.2, chosen="lsq")]
    rows.append(row("nets", 0, 1.2))
    first, auto, nets = csv.DictReader(io.StringIO(to_csv(rows)))
    assert (float(first["ess_per_evaluation"]), float(first["ess_per_second"])) == (0.05, 500.0)
    assert (auto["ess_per_evaluation"], auto["ess_per_second"]) == ("", "")
    assert [r["method_kind"] for r in (first, auto, nets)] == ["not learned", "closed form", "learned"]
    for suite in SUITES.values():
        assert {*suite.methods, *suite.peers} - {"auto"} <= set(KINDS)


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


def test_processor_time_is_that_of_workers_too():
    work = "sum(k * k for k in range(20_000_000))"
    before, own = cpu_seconds(), time.process_time()
    subprocess.run([sys.executable, "-c", work], check=True)
    with_workers, alone = cpu_seconds() - before, time.process_time() - own
    assert alone < 0.05 < 0.1 < with_workers


def test_seeds_come_one_after_the_other():
    cells = list(Grid(("a", "b"), ("ais",), 2).cells())
    assert cells == [Cell("a", "ais", 0), Cell("b", "ais", 0), Cell("a", "ais", 1), Cell("b", "ais", 1)]


def test_without_a_reference_claims_are_compared_and_the_summary_says_so():
    unknown = {"reference": None, "reference_error": None}
    rows = [row("plain", 0, -4.0, 0.1, **unknown), row("map", 0, -4.9, 0.05, **unknown)]
    text = to_markdown(rows)
    assert text.count("| no reference |") == 2
    assert "two-wells: map (closed form) claims the smallest error at the budget, ± 1.6" in text
    assert "± 1.6 (no reference: by claims only); plain follows" in text
    assert "no reference" not in to_markdown([row("plain", 0, 1.0), row("map", 0, None)])
    referenced = {s: load(catalogue.find(s)).get("reference") for s in SUITES["difference"].systems}
    assert None not in referenced.values()
    assert {"toluene-solvation", "lj-38"} <= set(referenced)


def test_every_suite_is_in_the_catalogue():
    for suite in SUITES.values():
        assert set(suite.systems) <= set(catalogue.names())


def test_systems_of_a_suite_have_budgets_of_their_own():
    suite = SUITES["difference"]
    assert set(suite.budgets) <= set(suite.systems)
    grid = Grid(suite.systems, ("plain",), 1, suite.budget, budgets=suite.budgets)
    assert grid.budget_of("amber-to-amoeba") == 24_000_000
    assert grid.budget_of("lj-13") == suite.budget == 2_000_000


def test_a_budget_that_is_asked_for_is_that_of_every_system(monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr("nessampler.bench.grid.run_grid", lambda grid, *_, **__: seen.append(grid) or [])
    monkeypatch.setattr("nessampler.bench.figures.error_against_evaluations", lambda *_: None)
    for options in ([], ["--budget", 1000], ["--budget", 0]):
        assert nessampler("bench", "difference", *options, "--out", tmp_path).code == 0
    found = [[grid.budget_of(system) for system in ("lj-13", "lj-55")] for grid in seen]
    assert found == [[2_000_000, 8_000_000], [1000, 1000], [None, None]]


def test_finished_cells_are_read_and_not_run(tmp_path):
    (tmp_path / "cells").mkdir()
    stored = row("ais", 0, 1.0, origin=origin_of("quick"))
    (tmp_path / "cells" / "gmm-40--ais--0.json").write_text(json.dumps(stored.to_cell()))
    assert "reference" not in stored.to_cell()
    said: list[str] = []
    (found,) = run_grid(Grid(("gmm-40",), ("ais",), 1, 1000), tmp_path, say=said.append)
    assert found == replace(stored, reference=0.0, reference_error=0.0)  # as the catalogue has it
    assert said == []
    with pytest.raises(InputError, match=r"is of one version, .* has preset quick, asked for is smoke; choose another"):
        run_grid(Grid(("gmm-40",), ("ais",), 1, 1000, preset="smoke"), tmp_path)
    with pytest.raises(InputError, match=r"has settings none, asked for is sampling\.walkers=100"):
        run_grid(Grid(("gmm-40",), ("ais",), 1, 1000, settings=["sampling.walkers=100"]), tmp_path)
    with pytest.raises(InputError, match="share a budget"):
        run_grid(Grid(("gmm-40",), ("ais",), 1, 2000), tmp_path)
    (tmp_path / "cells" / "gmm-40--ais--0.json").write_text("{")
    with pytest.raises(InputError, match="is none; remove it"):
        run_grid(Grid(("gmm-40",), ("ais",), 1, 1000), tmp_path)


def test_tables_of_what_is_finished_run_nothing(tmp_path):
    grid = Grid(("gmm-40", "funnel-10"), ("ais", "smc"), 2, 1000)
    with pytest.raises(InputError, match=r"needs a finished cell: .* has none of these systems and methods; run them"):
        run_grid(grid, tmp_path, finished=True)
    stored = row("ais", 1, 1.0, origin=origin_of("quick"))
    (tmp_path / "cells" / "gmm-40--ais--1.json").write_text(json.dumps(stored.to_cell()))
    assert [(r.method, r.seed) for r in run_grid(grid, tmp_path, finished=True)] == [("ais", 1)]
    options = ["--systems", "gmm-40", "--budget", 1000, "--preset", "quick", "--out", tmp_path]
    ended = nessampler("bench", "density", "--finished", *options)
    assert ended.code == 0, ended.err
    assert "1 of 1" in (tmp_path / "summary.md").read_text(encoding="utf-8")
    assert len(list((tmp_path / "cells").iterdir())) == 1


def test_nobody_wants_digits_of_large_factors():
    rows = [row("lsq", 0, 1.0, 1e-13), row("ais", 0, 1.0, 0.1)]
    assert "more than a million times it, or more than a million times the evaluations" in to_markdown(rows)


def test_cells_of_another_version_are_refused_and_of_another_commit_or_machine_are_not(tmp_path):
    (tmp_path / "cells").mkdir()
    file, grid = tmp_path / "cells" / "gmm-40--ais--0.json", Grid(("gmm-40",), ("ais",), 1, 1000)
    elsewhere = origin_of("quick") | {"commit": "0123abc", "machine": "another", "cores": 3}
    file.write_text(json.dumps(row("ais", 0, 1.0, origin=elsewhere).to_cell()))
    (found,) = run_grid(grid, tmp_path)
    (line,) = csv.DictReader(io.StringIO(to_csv([found])))
    assert (line["commit"], line["machine"], line["cores"], line["preset"]) == ("0123abc", "another", "3", "quick")
    for other in ({}, elsewhere | {"version": "0.0.1"}):
        file.write_text(json.dumps(row("ais", 0, 1.0, origin=other).to_cell()))
        with pytest.raises(InputError, match=r"has version (none on record|0\.0\.1), asked for is"):
            run_grid(grid, tmp_path)


def test_trials_of_other_settings_are_refused(tmp_path):
    file = tmp_path / "trials" / "a.json"
    assert trial(file, origin_of("quick"), lambda: {"each": 1.0}) == {"each": 1.0}
    with pytest.raises(InputError, match=r"has settings none, asked for is md\.replicas=2"):
        trial(file, origin_of("quick", ["md.replicas=2"]), lambda: {"each": 2.0})


def test_an_origin_without_git_is_one(monkeypatch):
    def missing(*_, **__) -> None:
        raise FileNotFoundError("git")

    monkeypatch.setattr(subprocess, "run", missing)
    origin._commit.cache_clear()
    found = origin_of("quick")
    origin._commit.cache_clear()
    assert found["commit"] is None
    assert found["machine"]
    assert found["cores"] >= 1


def test_a_cell_that_takes_too_long_is_on_record_as_given_up(tmp_path):
    (found,) = run_grid(Grid(("gmm-40",), ("ais",), 1, None, cap=0.001), tmp_path)
    assert (found.value, found.note) == (None, "given up after 0.001 minutes")


def test_a_cell_that_was_given_up_runs_again_when_it_may_take_longer(tmp_path):
    def ran(cap: float | None) -> tuple[Row, bool]:
        said: list[str] = []
        grid = Grid(["anharmonic-wells"], ["plain"], seeds=1, preset="smoke", cap=cap)
        (found,) = run_grid(grid, tmp_path, say=said.append)
        return found, bool(said)

    assert ran(0.0)[0].note == "given up after 0 minutes"
    assert ran(0.0)[1] is False
    found, again = ran(5.0)
    assert again
    assert found.value is not None
    assert ran(10.0) == (found, False)


def test_a_package_that_is_not_installed_leaves_no_row(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))  # of the cell's process
    (tmp_path / "blackjax.py").write_text("raise ImportError('none here')")
    with pytest.raises(MissingPeerError, match=r"blackjax is not installed .*: pip install 'nessampler\[peers\]'"):
        run_grid(Grid(["funnel-10"], ["blackjax"], 1, 500_000, preset="smoke"), tmp_path)
    assert not list((tmp_path / "cells").iterdir())


def test_an_unforeseen_error_is_on_record_by_name(tmp_path, monkeypatch):
    def broken(*_):
        raise RuntimeError("no convergence")

    monkeypatch.setattr("nessampler.bench.density_cell.density_row", broken)
    ours, theirs = multiprocessing.Pipe(duplex=False)
    answered(theirs, partial(_row, Grid(["funnel-10"], ["ais"], 1, 1000), Cell("funnel-10", "ais", 0), tmp_path))
    told, answer = ours.recv()
    assert (told, str(answer)) == (None, "RuntimeError: no convergence")


def working(pid: str) -> bool:
    """A process that is there and has not ended; of one that nobody waited for only the name is left."""
    try:
        return "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return False


def test_cells_end_with_a_bench_that_is_killed(tmp_path):
    code = "from nessampler.bench.grid import Grid, run_grid; from pathlib import Path; "
    code += f"run_grid(Grid(['phi4-32'], ['lsq'], 1, 10**7), Path({str(tmp_path)!r}))"
    with subprocess.Popen([sys.executable, "-c", code]) as bench:
        children, workers = Path(f"/proc/{bench.pid}/task/{bench.pid}/children"), []
        deadline = time.monotonic() + 60
        while not workers and time.monotonic() < deadline:
            time.sleep(0.2)
            workers = [pid for pid in children.read_text().split() if working(pid)]
        time.sleep(8)  # it has imported what it needs, and watches
        assert workers
        assert all(working(pid) for pid in workers)
        bench.kill()
    while any(working(pid) for pid in workers) and time.monotonic() < deadline + 30:
        time.sleep(0.2)
    assert not any(working(pid) for pid in workers)


def test_no_method_is_judged_by_samples_that_others_do_not_see(tmp_path, monkeypatch):
    def asked(*_, **__):
        raise AssertionError("the verdict of a cell is of walkers that went forward")

    monkeypatch.setattr("nessampler.methods.density.attempts.cross_checked", asked)
    config = resolve(load(catalogue.find("gmm-40")), preset="smoke")
    assert isinstance(config, DensityConfig)
    found = density_row(config, Path(), "ais", 200_000, tmp_path)
    elbo, eubo = found.metrics["elbo"], found.metrics["eubo"]  # measured afterwards all the same
    assert elbo is not None
    assert eubo is not None
    assert elbo < 0 < eubo
    assert found.metrics["ess_reverse"]


def test_at_the_sizes_of_a_preset_no_chains_make_samples_of_the_target(tmp_path, monkeypatch):
    def chains(*_, **__):
        raise AssertionError("samples that have no say must cost nothing")

    monkeypatch.setattr("nessampler.methods.density.sample.long_chains", chains)
    config = resolve(load(catalogue.find("gmm-40")), preset="smoke", settings=["sampling.reverse_steps=5"])
    assert isinstance(config, DensityConfig)
    assert density_row(config, Path(), "ais", None, tmp_path).metrics["ess_reverse"]


def test_a_lattice_without_samples_has_a_bound_from_below(tmp_path):
    config = resolve(load(catalogue.find("phi4-8")), preset="smoke")
    assert isinstance(config, DensityConfig)
    found = density_row(config, Path(), "ais", 100_000, tmp_path)
    assert found.metrics["elbo"] is not None
    assert found.value is not None
    assert found.metrics["elbo"] < found.value
    assert found.metrics["eubo"] is None


def test_the_start_of_a_mixture_path_is_an_image_of_a_normal():
    one = GaussianMixture(torch.tensor([[1.0, -2.0]]), torch.tensor([3.0]))
    x, log_det = _push(one)(torch.tensor([[0.0, 0.0], [1.0, -1.0]], dtype=torch.float64))
    assert x.tolist() == [[1.0, -2.0], [4.0, -5.0]]
    assert log_det.tolist() == pytest.approx([2 * math.log(3)] * 2)
    with pytest.raises(InputError, match="the base is a GaussianMixture"):
        _push(GaussianMixture(torch.tensor([[0.0], [1.0]]), torch.ones(2)))


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
        assert bool(r["ess_per_evaluation"]) == (r["method"] == "ais")  # islands were selected on their way
        assert abs(float(r["z"])) < 4
    assert (tmp_path / "errors.png").stat().st_size > 10_000
    assert "| gmm-40 |" in (tmp_path / "summary.md").read_text(encoding="utf-8")


def test_several_budgets_have_folders_of_their_own_and_one_figure(tmp_path):
    options = ["--systems", "gmm-40", "--methods", "smc", "--seeds", 1, "--preset", "smoke", "--out", tmp_path]
    ended = nessampler("bench", "density", "--budget", 60_000, "--budget", 240_000, *options)
    assert ended.code == 0, ended.err
    errors = []
    for budget in (60_000, 240_000):
        (cell,) = csv.DictReader((tmp_path / f"budget-{budget}" / "cells.csv").open(encoding="utf-8"))
        assert int(cell["budget"]) == budget
        assert f"{budget:,} evaluations" in ended.out
        errors.append(float(cell["std_error"]))
    assert errors[1] < errors[0]
    assert (tmp_path / "errors.png").stat().st_size > 10_000


def test_a_terminal_has_the_columns_that_fit():
    rows = [row("ais", 0, 1.0, metrics={"w2": 3.0}), row("auto", 0, 1.0, chosen="ais")]
    whole, brief = to_markdown(rows), to_markdown(rows, brief=True)
    widths = [sum(len(head.strip()) + 2 for head in text.splitlines()[0].split("|")[1:-1]) for text in (brief, whole)]
    assert widths[0] < 80 < widths[1]  # as the terminal sets them
    assert whole.partition("\n\n")[2].startswith(brief.partition("\n\n")[2])  # the sentences
    assert "| auto |" in brief
    assert "W2" not in brief


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
        least, most = (0.9, 1.02) if r["method"] == "staged" else (0.6, 1.4)
        assert least * 40_000 < float(r["evaluations"]) < most * 40_000, r["method"]
        assert abs(float(r["z"])) < 4


def apart(distance: float) -> DifferenceConfig:
    """Two normals of width 0.1, of equal Z."""
    ends = {
        f"state_{name}": {"label": name, "target": {"name": "mixture", "means": [[mean, 0.0]], "scales": [0.1]}}
        for name, mean in (("a", 0.0), ("b", distance))
    }
    reference = {"value": 0.0, "std_error": 0.0, "source": "normalised by construction"}
    found = resolve({"name": "apart", "title": "apart", "kind": "difference", "reference": reference, **ends})
    assert isinstance(found, DifferenceConfig)
    return found


def test_staged_states_that_nothing_connects_are_no_answer(tmp_path):
    near, far = (difference_row(apart(d), Path(), "staged", 30_000, tmp_path) for d in (0.3, 4.0))
    assert near.verdict in ("trusted", "caution")
    assert ("chains_disagree" in near.flags) == ((near.metrics["rhat"] or 0.0) > 1.1)
    assert far.verdict == "not trusted"
    assert {"poor_overlap", "far_end"} <= set(far.flags)
    assert [s.answers for s in summaries([near])] == [1]
    assert [s.answers for s in summaries([far])] == [0]


def test_a_peer_is_judged_by_the_flags_that_ours_would_have():
    assert verdict_of(Evidence(0.0, 0.1)) == "trusted"
    assert verdict_of(Evidence(0.0, 0.1, flags=scattered(0.5))) == "caution"
    assert verdict_of(Evidence(0.0, 0.1, flags=unfinished(np.log([0.01, 0.1, 1.0]), 1))) == "not trusted"
    assert verdict_of(Evidence(0.0, None)) == verdict_of(Evidence(0.0, math.inf)) == "not trusted"
    assert verdict_of(Evidence(None, None, "no log Z; 16 chains")) == ""


def test_a_third_trial_corrects_a_cost_that_is_no_line():
    def cost(scale: float) -> float:
        return 50 + 100 * scale**2

    found = trials(cost, 250)
    assert len(found["scales"]) == 3
    assert abs(cost(scale_of(found, 250)) / 250 - 1) < 0.1
    two = {name: found[name][:2] if name != "smallest" else 0.05 for name in found}
    assert abs(cost(scale_of(two, 250)) / 250 - 1) > 0.3  # without it
    assert len(trials(lambda scale: 1000 * scale, 800)["scales"]) == 2  # the second met the budget
    assert len(trials(lambda scale: 230 + 20 * scale, 400)["scales"]) == 2  # trials have cost more than a budget


def test_a_trial_that_is_refused_is_run_at_its_double_and_no_cell_is_smaller():
    def cost(scale: float) -> float:
        if scale < 0.4:
            raise InputError("every block needs at least 10 samples")
        return 1000 * scale

    found = trials(cost, 100)
    assert found["scales"] == [0.5]
    assert scale_of(found, 100) == 0.5
    with pytest.raises(InputError, match="every block"):
        trials(lambda scale: cost(0.0), 100)


@pytest.mark.parametrize("system", ["alanine-solvation", "alanine-basins", "anharmonic-wells", "lj-13"])
def test_trials_are_no_smaller_than_the_catalogue_accepts(system):
    path = catalogue.find(system)
    config = resolve(load(path), source=str(path))
    assert isinstance(config, DifferenceConfig)
    smallest = difference_sizes.smallest_ends(config, path.parent)
    assert smallest < 1
    check = check_frames if config.molecular else lambda c: check_targets(c, path.parent)
    check(difference_sizes.scaled(config, smallest))
    if system == "alanine-basins":  # 4 frames of each replica
        with pytest.raises(InputError, match="store 4 frames"):
            check(difference_sizes.scaled(config, 0.1))


@pytest.fixture
def without_molecules(monkeypatch) -> list[tuple[str, int, str, Path]]:
    """Cells of molecules that only note what they were asked: method, seed, length of MD, and where it lies."""
    seen: list[tuple[str, int, str, Path]] = []

    def climbed(config, folder, method, where, *_):
        scale = float(config.md.production_a.split()[0]) / 200
        seen.append((method, config.run.seed, config.md.production_a, where))
        made = FreeEnergy(0.0, 0.1, (-0.2, 0.2), (9, 9), (1.0, 1.0), (), "BAR", 0.5)
        return Outcome(made, method, 100.0 + 1000 * scale, 0, {}, (), "trusted")

    for module in (difference_cell, difference_sizes):
        monkeypatch.setattr(module, "climbed", climbed)
    monkeypatch.setattr(ends, "prepared_ends", lambda *_: Prepared(None, None, None, None))  # pyright: ignore
    return seen


def test_methods_of_one_seed_share_the_end_states_of_a_molecule(without_molecules, tmp_path):
    path = catalogue.find("alanine-solvation")
    for seed in (0, 1):
        config = resolve(load(path), run={"seed": seed}, source=str(path))
        assert isinstance(config, DifferenceConfig)
        for method in ("plain", "map", "auto"):
            difference_row(config, path.parent, method, 600, tmp_path)
    first, cells = without_molecules[:2], without_molecules[2:]
    assert [method for method, *_ in first] == ["map", "map"]  # once for all
    assert len(cells) == 6
    for seed in (0, 1):
        assert len({(length, where) for _, s, length, where in cells if s == seed}) == 1
    assert cells[0][2] == cells[3][2] == "100.0 ps"
    assert cells[0][3] != cells[3][3]
    assert not {where for *_, where in first} & {where for *_, where in cells}


def test_a_cell_pays_for_end_states_that_another_sampled(without_molecules, tmp_path):
    path = catalogue.find("alanine-solvation")
    config = resolve(load(path), source=str(path))
    assert isinstance(config, DifferenceConfig)
    (took,) = [tmp_path / "ends" / "alanine-solvation-0-1" / "took.json"]
    trial(took, origin_of("quick"), lambda: {"seconds": 300.0, "cpu_seconds": 200.0})
    row = difference_row(config, path.parent, "plain", None, tmp_path)
    assert 300 < row.seconds < 360
    assert 200 < row.cpu_seconds < 260


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
