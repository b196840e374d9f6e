"""Targeted FEP of clusters: right differences along a symmetric flow, wrong ones noticed, none where none is there."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import nessampler
from torch import Tensor

import nessampler as ns
from nessampler.errors import InputError
from nessampler.kernels import Map
from nessampler.methods import cluster_flow_matching
from nessampler.methods.difference import Difference
from nessampler.methods.effort import Training
from nessampler.methods.ends import Block
from nessampler.methods.flow_matching import map_error
from nessampler.methods.stage import Stage
from nessampler.networks.embedded_pairs import EmbeddedPairs
from nessampler.targets import carry
from nessampler.targets.lennard_jones import LennardJonesCluster

STRENGTH = 0.8
A, B = LennardJonesCluster(3, 0.0), LennardJonesCluster(3, STRENGTH)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def samples_of_b(n: int, seed: int) -> Tensor:
    """Exact and independent: draws of the trap, each kept with its Boltzmann factor over the largest there is."""
    g, kept, deepest = generator(seed), [], -6 * STRENGTH  # three pairs of -2 λ
    while sum(map(len, kept)) < n:
        x = A.sample(100_000, generator=g)
        accept = torch.exp(deepest - (B.energy(x) - A.energy(x)))
        kept.append(x[torch.rand(len(x), generator=g, dtype=torch.float64) < accept])
    return torch.cat(kept)[:n]


def exact() -> float:
    """ΔF of three atoms, by quadrature over two sides of the triangle and the angle between them."""
    r = np.linspace(0.02, 9.0, 450)
    cosine, weight = np.polynomial.legendre.leggauss(160)
    one, other = r[:, None, None], r[None, :, None]
    third = np.sqrt(one**2 + other**2 - 2 * one * other * cosine)
    volume = (one * other) ** 2 * weight * np.exp(-(one**2 + other**2 + third**2) / 6)

    def pair(r: np.ndarray) -> np.ndarray:
        sixth = (STRENGTH / np.maximum(r, 1e-3)) ** 6
        return 8 * STRENGTH * (sixth**2 - sixth)

    return -math.log(float((volume * np.exp(-pair(one) - pair(other) - pair(third))).sum() / volume.sum()))


def climbed(seed: int = 1, **options) -> Difference:
    x_a, x_b = A.sample(1200, generator=generator(40 + seed)), samples_of_b(1200, 50 + seed)
    training = Training(**{"steps": 150, "batch_size": 128, "width": 16, "learning_rate": 1e-2} | options)
    return ns.free_energy(A, B, x_a, x_b, method="tfep", effort=ns.Effort(tuning_samples=60, feat=training), seed=seed)


def test_three_atoms_have_the_exact_difference_with_a_small_error() -> None:
    found = climbed()
    estimate, plain = found.delta_f, found.rungs[0].estimate
    assert [rung.name for rung in found.rungs] == ["plain", "map", "tfep"]
    assert estimate.delta_f is not None
    assert estimate.std_error is not None
    assert plain.overlap is not None
    assert estimate.overlap is not None
    assert abs(estimate.delta_f - exact()) < 4 * estimate.std_error < 0.08
    assert abs(estimate.delta_f + exact()) > 4 * estimate.std_error
    assert plain.overlap < 0.88 < estimate.overlap
    assert 0 < found.rung.pilot.transport.systematic < 1e-3
    assert "works exact to" in found.rung.description
    spent = found.rung.evaluations["networks"]
    assert spent["training"] > 150 * 128
    assert spent["sampling"] > 0


def test_a_divergence_that_is_left_out_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = EmbeddedPairs.velocity_and_divergence

    def without(self: EmbeddedPairs, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        velocity, divergence = whole(self, t, x)
        return velocity, torch.zeros_like(divergence)

    monkeypatch.setattr(EmbeddedPairs, "velocity_and_divergence", without)
    estimate = climbed().delta_f
    assert estimate.delta_f is None or abs(estimate.delta_f - exact()) > 4 * (estimate.std_error or 0.0)


def flow_of(found: Difference) -> Map:
    kernel = found.rung.pilot.transport.kernel
    assert isinstance(kernel, Map)
    return kernel


def test_the_flow_turns_back_keeps_the_centre_and_knows_the_symmetry() -> None:
    flow = flow_of(climbed()).transform
    x = A.sample(20, generator=generator(7))
    y = carry(flow, x.flatten(1))
    log_det = flow.log_abs_det_jacobian(x.flatten(1), y)
    back = carry(flow.inv, y)
    there = y.unflatten(1, (3, 3))
    assert float((there - x).abs().max()) > 0.3
    assert float((back - x.flatten(1)).abs().max()) < 1e-3
    torch.testing.assert_close(flow.log_abs_det_jacobian(back, y), log_det, atol=1e-2, rtol=0)
    torch.testing.assert_close(there.mean(1), x.mean(1), atol=1e-9, rtol=0)
    q = torch.linalg.qr(torch.randn(3, 3, generator=generator(8), dtype=torch.float64)).Q
    turned = carry(flow, (x[:, [2, 0, 1]] @ q + 0.5).flatten(1)).unflatten(1, (3, 3))
    torch.testing.assert_close(turned, there[:, [2, 0, 1]] @ q + 0.5, atol=1e-4, rtol=0)


def test_pairs_are_aligned_and_have_no_centre_of_mass(monkeypatch: pytest.MonkeyPatch) -> None:
    x_a, x_b = A.sample(300, generator=generator(1)), samples_of_b(300, 2)
    pairs = cluster_flow_matching._pairs(x_a, x_b, generator(3))
    assert all(float(x.mean(1).abs().max()) < 1e-12 for x in pairs)
    monkeypatch.setattr(cluster_flow_matching, "Aligned", lambda: lambda a, b: b)
    as_they_come = cluster_flow_matching._pairs(x_a, x_b, generator(3))

    def apart(pair: tuple[Tensor, Tensor]) -> float:
        return float((pair[0] - pair[1]).square().sum((1, 2)).mean())

    assert apart(pairs) < 0.5 * apart(as_they_come)
    torch.testing.assert_close(pairs[1].norm(dim=-1).sort(1)[0], as_they_come[1].norm(dim=-1).sort(1)[0])


def test_a_training_that_was_interrupted_goes_on_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x_a, x_b = A.sample(200, generator=generator(4)), samples_of_b(200, 5)
    effort = ns.Effort(tuning_samples=20, feat=Training(steps=20, batch_size=16, width=4))

    def estimate(name: str) -> float | None:
        file = tmp_path / name
        return ns.free_energy(A, B, x_a, x_b, method="tfep", effort=effort, checkpoint=file).delta_f.delta_f

    whole = estimate("whole")
    watched = Stage.watched

    def cut(self: Stage, what: str):
        def advance(done: int, total: int) -> None:
            if what == "tfep: training" and done == 5:
                raise KeyboardInterrupt
            watched(self, what)(done, total)

        return advance

    with monkeypatch.context() as patch:
        patch.setattr(Stage, "watched", cut)
        with pytest.raises(KeyboardInterrupt):
            estimate("cut")
    assert (tmp_path / "cut").exists()
    assert estimate("cut") == whole


def test_no_training_is_refused() -> None:
    with pytest.raises(InputError, match="tfep is nothing but what it learns"):
        climbed(steps=0)


def test_works_far_above_the_least_tell_nothing_of_the_integration() -> None:
    class Given:
        def __init__(self, *works: float, reverse: float = 0.0) -> None:
            self.forward, self.reverse = np.array(works), np.full(2, reverse)

        def works(self, probes: Block, *, generator: torch.Generator) -> tuple[np.ndarray, np.ndarray]:
            return self.forward, self.reverse

    block = Block(torch.zeros(1, 3, 1), torch.zeros(1, 2, 1), False)

    def error(one: Given, other: Given) -> float:
        return map_error(one, other, block)  # pyright: ignore[reportArgumentType]

    assert error(Given(0.0, 1.0, 1e6), Given(0.0, 1.0, 2e6)) == 0
    assert error(Given(0.0, 1.0, 1e6), Given(0.0, 1.2, math.inf)) == pytest.approx(0.1)  # one of four counts 0.2
    assert error(Given(0.0, 1.0, 40.0), Given(0.0, 1.0, 2e6)) > 1e5
    assert error(Given(0.0, 1.0, 40.0), Given(0.0, 1.0, math.inf)) == math.inf
    nowhere = (math.inf, math.inf, math.inf)
    assert error(Given(*nowhere), Given(*nowhere)) == 0  # in one direction: the other one tells
    nothing = Given(*nowhere, reverse=math.inf)
    assert error(nothing, nothing) == math.inf
    for other in (0.0, math.nan, math.inf):
        assert error(Given(0.0, 1.0, math.nan), Given(0.0, 1.0, other)) == math.inf
        assert error(Given(0.0, 1.0, other), Given(0.0, 1.0, math.nan)) == math.inf


def test_a_flow_that_has_learned_too_little_is_not_trusted(tmp_path: Path) -> None:
    little = ("--set", "ladder.feat.training_steps=2")
    ended = nessampler("run", "lj-13", "--preset", "smoke", "--method", "tfep", *little, "--out", tmp_path / "run")
    assert ended.code == 0, ended.err
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["verdict"]["level"] == "not trusted", result["verdict"]
    assert {"no_overlap", "poor_overlap"} & {flag["code"] for flag in result["flags"]}
