"""Staged MBAR in a bench pays for the samples that its chains start from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nessampler.bench import staged_mbar
from nessampler.bench.difference_cell import difference_preparation, difference_row
from nessampler.bench.difference_sizes import size_of_ends, smallest_ends
from nessampler.bench.origin import origin_of
from nessampler.errors import InputError
from nessampler.methods.staged_within import staged_within
from nessampler.runs import catalogue
from nessampler.runs.config import DifferenceConfig, load, resolve
from nessampler.runs.prepared import Prepared
from nessampler.targets import Gaussian, Tally

ORIGIN = origin_of("quick")


def of(system: str, *settings: str) -> tuple[DifferenceConfig, Path]:
    path = catalogue.find(system)
    config = resolve(load(path), settings=settings, source=str(path))
    assert isinstance(config, DifferenceConfig)
    return config, path.parent


def ends_that_took(*gradients: int) -> Prepared:
    """Two normals, so many evaluations of each."""
    a, b = (Gaussian(torch.full((2,), m).double(), torch.full((2,), s).double()) for m, s in ((0.0, 1.0), (1.0, 0.7)))
    generator = torch.Generator().manual_seed(0)
    x_a, x_b = (end.sample(100, generator=generator) for end in (a, b))
    tally_a, tally_b = (Tally(gradient=n) for n in gradients)
    return Prepared(a, b, x_a, x_b, evaluations=(tally_a, tally_b))


@pytest.mark.parametrize("prices", [(1.0, 1.0), (1.0, 4.0)])
def test_the_states_are_as_much_smaller_as_their_starts_cost(monkeypatch, tmp_path, prices):
    config, folder = of(
        "anharmonic-wells", *(f"state_{s}.relative_cost={p}" for s, p in zip("ab", prices, strict=True))
    )
    rows = []
    for taken in ((0, 0), (20_000, 5_000)):
        monkeypatch.setattr(staged_mbar, "prepared_ends", lambda *_, taken=taken: ends_that_took(*taken))
        rows.append(difference_row(config, folder, "staged", 80_000, tmp_path, ORIGIN))
    exact = 100 * sum(prices)  # a draw is one evaluation
    for row, taken in zip(rows, (0, 20_000 * prices[0] + 5_000 * prices[1]), strict=True):
        assert row.metrics["start_share"] == pytest.approx((taken + exact) / 80_000)
        assert 0.85 * 80_000 < row.evaluations < 1.02 * 80_000
        assert row.value is not None
        assert abs(row.value - 2 * torch.tensor(1 / 0.7).log()) < 4 * (row.std_error or 0) < 1.0


def test_starts_that_leave_nothing_are_refused(monkeypatch, tmp_path):
    config, folder = of("anharmonic-wells")
    monkeypatch.setattr(staged_mbar, "prepared_ends", lambda *_: ends_that_took(79_000, 5_000))
    with pytest.raises(
        InputError, match=r"take \d+ evaluations for each state .* got 0, beyond what samples of the ends"
    ):
        difference_row(config, folder, "staged", 80_000, tmp_path, ORIGIN)


def test_states_of_a_few_evaluations_are_refused_and_of_more_meet_them():
    ends, generator = ends_that_took(0, 0), torch.Generator().manual_seed(0)
    given = (ends.target_a, ends.target_b, ends.samples_a, ends.samples_b)
    with pytest.raises(InputError, match="give more"):
        staged_within(*given, evaluations=7_000, generator=generator)
    for evaluations in (10_000, 40_000, 200_000):
        made = staged_within(*given, evaluations=evaluations, generator=generator)
        assert 0.8 * evaluations < sum(t.energy + t.gradient for t in made.spent) < 1.02 * evaluations


def test_chains_of_stiff_ends_start_with_a_step_that_does_not_diverge():
    """Widths of 0.001 and 1 in one density, as bonds beside torsions: a step of 0.1 would overflow."""

    class Fragile(Gaussian):
        def energy(self, x):
            if not bool(torch.isfinite(x).all()) or float(x.detach().abs().max()) > 1e4:
                raise InputError("coordinates must be finite")
            return super().energy(x)

    width = torch.tensor([1e-3, 1.0]).double()
    a, b = (Fragile(torch.tensor([0.0, m]).double(), width) for m in (0.0, 0.5))
    generator = torch.Generator().manual_seed(0)
    x_a, x_b = (end.sample(100, generator=generator) for end in (a, b))
    made = staged_within(a, b, x_a, x_b, evaluations=100_000, generator=generator)
    found = made.found.multistate
    assert found.delta_f is not None
    assert abs(found.delta_f) < 4 * (found.std_error or 0) < 1.0


@pytest.mark.parametrize("system", ["anharmonic-wells", "phi4-couplings", "alanine-solvation"])
def test_its_ends_are_the_smallest_that_are_accepted_and_need_no_trials(system, tmp_path):
    config, folder = of(system)
    if config.molecular:
        pytest.importorskip("openmm")
    size = size_of_ends(config, folder, "staged", 10**6, tmp_path, ORIGIN)
    assert size == smallest_ends(config, folder) < 0.5
    assert not list(tmp_path.iterdir())
    needed = difference_preparation(config, folder, "staged", 10**6, tmp_path, ORIGIN)
    assert (needed is not None) == config.molecular
    if needed is not None:
        assert needed.file == tmp_path / "ends" / f"{system}-0-{size:.4g}" / "took.json"
    assert difference_preparation(config, folder, "staged", None, tmp_path, ORIGIN) is None
