"""What the learned rung can be trained along: works stay right whatever it is, and each setting does what it says."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.distributions.transforms import ComposeTransform

import nessampler as ns
from nessampler.closed_form import Transferred, TransferredFields, equal_length_times
from nessampler.couplings import Independent, OptimalTransport
from nessampler.interpolants import (
    Coefficients,
    EncodingDecoding,
    Linear,
    NoNoise,
    Quadratic,
    Retimed,
    SineSquared,
    SquareRoot,
    Trigonometric,
)
from nessampler.methods.along import in_effect, in_use, paced
from nessampler.methods.cluster_feat import ClusterEnds
from nessampler.methods.effort import Effort, Training
from nessampler.methods.ends import Ends, split_by_time
from nessampler.methods.feat import feat_rung
from nessampler.methods.flow_matching import flow_matching_rung
from nessampler.methods.interpolation import Interpolation
from nessampler.methods.ledger import Ledger
from nessampler.methods.maps import mapped
from nessampler.methods.mixture_feat import learned_mixture_fields
from nessampler.methods.rungs.one_sided import ONE_SIDED
from nessampler.methods.stage import Stage
from nessampler.methods.standardised import StandardisedEnds
from nessampler.methods.transport import Transport
from nessampler.runs import catalogue
from nessampler.runs.config import DifferenceConfig, load, resolve
from nessampler.runs.difference import effort_of
from nessampler.targets import AnglesAndNormals, AnharmonicWell, Gaussian, Tally
from nessampler.targets.lennard_jones import LennardJonesCluster

A = AnharmonicWell([0.5, -0.2], stiffness=[0.6, 1.5], quartic=[0.3, 0.0], skew=[1.5, -1.0], coupling=0.5)
B = AnharmonicWell([-0.4, 0.3], stiffness=[1.6, 1.0], quartic=[0.05, 0.1], skew=[-0.4, 0.5], coupling=-0.4)
SMALL = Training(steps=20, batch_size=64, width=16, depth=1, sampling_steps=16, learning_rate=1e-2)


class _Below(NamedTuple):
    """What a stage asks of the pilot of a map."""

    transport: Transport


def _stage(a=A, b=B, **options) -> Stage:
    x = [end.sample(1000, generator=torch.Generator().manual_seed(i))[None] for i, end in enumerate((a, b))]
    fit, select, _ = split_by_time(*x, (0.4, 0.2, 0.4), correlated=False)
    ends = Ends.of(a, b, None)
    effort = Effort(tuning_samples=40, feat=replace(SMALL, **options))
    below = {"map": _Below(mapped(ends, "nothing", ComposeTransform([ComposeTransform([])])))}
    return Stage(ends, fit, select, effort, Ledger(ends.counted, (Tally(), Tally())), below=below)  # pyright: ignore


@pytest.mark.parametrize(
    "along",
    [
        Interpolation(Trigonometric()),
        Interpolation(EncodingDecoding()),
        Interpolation(Linear(Quadratic(4.0))),
        Interpolation(Trigonometric(NoNoise())),
        Interpolation(Retimed(Linear(), (0.0, 0.2, 0.6, 1.0))),
        Interpolation(pace="lipschitz"),
        Interpolation(transfer=Trigonometric()),
        Interpolation(Trigonometric(), Independent(), transfer=Linear()),
        Interpolation(coupling=OptimalTransport()),
    ],
    ids=lambda along: along.said,
)
def test_works_are_exact_whatever_the_rung_is_trained_along(along: Interpolation):
    x_a, x_b = (w.sample(800, generator=torch.Generator().manual_seed(i)) for i, w in enumerate((A, B)))
    effort = Effort(tuning_samples=40, feat=replace(SMALL, interpolation=along))
    found = ns.free_energy(A, B, x_a, x_b, method="feat", effort=effort)
    exact = A.log_z - B.log_z
    assert found.delta_f.std_error < 0.12
    assert abs(found.delta_f.delta_f - exact) < 4 * found.delta_f.std_error
    if along.said not in ("", "equal stretching"):  # with a pace alone fields between mixtures compete
        assert f"Gaussian fields ({along.said}) with a learned remainder" in found.rung.description


def test_steps_are_shorter_where_the_velocity_stretches_more():
    ends = [Gaussian(torch.zeros(1).double(), torch.full((1,), s).double()) for s in (0.1, 1.0)]
    stage = _stage(*ends, interpolation=Interpolation(pace="lipschitz"))
    standard = StandardisedEnds(stage, ComposeTransform([]))
    base = standard.gaussian_fields()
    times = paced(stage, standard, base, base, stage.effort.feat.interpolation)
    wanted = equal_length_times(base.roughness, SMALL.sampling_steps)
    # Measured at some places, on draws; the velocity of Gaussian ends stretches all draws alike.
    torch.testing.assert_close(torch.tensor(times), torch.tensor(wanted), atol=0.02, rtol=0)
    assert times[1] < 0.5 * (times[-1] - times[-2])
    even = paced(stage, standard, base, base, Interpolation())
    assert all(abs(b - a - 1 / SMALL.sampling_steps) < 1e-12 for a, b in pairwise(even))


def test_fields_are_transferred_with_the_variance_that_goes_with_them():
    stage = _stage()
    ends = StandardisedEnds(stage, ComposeTransform([]))
    along = Interpolation(transfer=Trigonometric())
    base = ends.gaussian_fields(along.schedule)
    fields, scale = in_use(ends, base, base, along)
    assert isinstance(fields, TransferredFields)
    transfer = Transferred(Linear(), Trigonometric())
    t = torch.tensor([0.3], dtype=torch.float64)
    place = transfer.at(t)
    torch.testing.assert_close(scale.variance(0.3), place.scale**2 * base.variance(float(place.time)))
    x = torch.tensor([[0.4, -1.1]], dtype=torch.float64)
    for one, other in zip(fields(t, x)[:2], scale(t, x)[:2], strict=True):
        torch.testing.assert_close(one, other)
    assert in_use(ends, base, base, Interpolation()) == (base, base)


def test_coupled_pairs_ask_for_no_gradients():
    gradients = []
    for coupling in (None, Independent()):
        stage = _stage(interpolation=Interpolation(coupling=coupling))
        list(feat_rung(stage))
        gradients.append(stage.ledger.evaluations("feat")["state_a"]["training"]["gradient"])
    assert gradients == [600, 0]


def test_held_out_pairs_are_coupled_as_those_in_training():
    """Of a larger batch the best partners are nearer: a loss on such pairs would be that of another interpolant."""
    sizes: list[int] = []

    def noted(x_a: Tensor, x_b: Tensor) -> tuple[Tensor, Tensor]:
        sizes.append(len(x_a))
        return x_a, x_b

    stage = _stage(interpolation=Interpolation(coupling=noted), stopping="loss", steps=2)
    list(feat_rung(stage))
    assert set(sizes) == {SMALL.batch_size}
    assert len(sizes) == 4096 // SMALL.batch_size + 2


def test_a_coupling_is_told_to_be_without_effect_where_coordinates_are_circular():
    said: list[str] = []
    along = Interpolation(coupling=OptimalTransport(), pace="lipschitz")
    stage = _stage(interpolation=along, steps=2)
    assert in_effect(stage, StandardisedEnds(stage, ComposeTransform([]))) == along
    one = torch.ones(1).double()
    a, b = (AnglesAndNormals(one, m * one[None], 0.5 * one[None], torch.tensor([True, False])) for m in (0.0, 0.3))
    stage = _stage(a, b, interpolation=along, steps=2)
    stage.ends, stage.say = replace(stage.ends, circular=a.circular), said.append
    [(transport, _)] = feat_rung(stage)
    assert "Gaussian fields (equal stretching) with a learned remainder" in transport.description
    assert ["the coupling is without effect" in line for line in said] == [True]


def test_mixtures_are_left_out_where_they_would_not_be_what_was_asked_for():
    for along, left_out in ((Interpolation(pace="lipschitz"), False), (Interpolation(Trigonometric()), True)):
        said: list[str] = []
        stage = replace(_stage(interpolation=along, steps=2), say=said.append)
        assert (list(learned_mixture_fields(stage)) == []) == left_out
        assert len(said) == 1
        assert ("no fields between mixtures" in said[0] and "Trigonometric" in said[0]) == left_out


def test_settings_of_other_networks_are_told_to_be_without_effect():
    said: list[str] = []
    stage = replace(_stage(trunks=2, interpolation=Interpolation(pace="lipschitz")), say=said.append)
    stage.without_effect("fields of torsions", "trunks", "interpolation", "stopping")
    assert said == [
        "feat: trunks=2 is without effect on fields of torsions",
        "feat: interpolation (equal stretching) is without effect on fields of torsions",
    ]


def test_rungs_name_what_of_their_settings_they_do_not_use():
    along = Interpolation(pace="lipschitz")
    for rung, on, names in (
        (learned_mixture_fields, "fields between mixtures", ["interpolation"]),
        (flow_matching_rung, "a flow that is learned by flow matching", ["trunks", "interpolation", "stopping"]),
        (ONE_SIDED.rungs["feat"], "the one-sided network", ["trunks", "interpolation"]),
    ):
        said: list[str] = []
        options = {"trunks": 2, "stopping": "loss", "interpolation": along}
        stage = replace(_stage(**options, steps=2, width=4, sampling_steps=2), say=said.append)
        list(rung(stage))
        told = [line for line in said if "is without effect on" in line and on in line]
        assert [line.split()[1].split("=")[0] for line in told] == names


def test_clusters_are_paired_with_the_nearest_of_a_few_once_aligned():
    cluster, found = LennardJonesCluster(4), []
    x = cluster.start(160, generator=torch.Generator().manual_seed(3))[None]
    fit, select, _ = split_by_time(x, x.flip(1), (0.4, 0.2, 0.4), correlated=False)
    ends = Ends.of(cluster, cluster, None)
    for along in (Interpolation(), Interpolation(coupling=OptimalTransport())):
        effort = Effort(feat=replace(SMALL, interpolation=along))
        clusters = ClusterEnds(
            Stage(ends, fit, select, effort, Ledger(ends.counted, (Tally(), Tally()))), ComposeTransform([])
        )
        a, b = clusters.pairs(clusters.u_a, clusters.u_b, torch.Generator().manual_seed(5))
        found.append((float((a - b).square().sum(1).mean()), _radii(a), _radii(b)))
    (far, *once), (near, *same) = found
    assert near < 0.9 * far
    for one, other in zip(once, same, strict=True):  # every conformation once, turned and relabelled
        torch.testing.assert_close(one, other)


def _radii(u: Tensor) -> Tensor:
    return u.square().sum(1).sort().values


def test_a_file_says_it_by_name():
    path = catalogue.find("anharmonic-wells")
    for settings, wanted in (
        ([], Interpolation()),
        (["interpolant=trigonometric"], Interpolation(Trigonometric())),
        (["gamma=none"], Interpolation(Linear(NoNoise()))),
        (["gamma=quadratic", "strength=4"], Interpolation(Linear(Quadratic(4.0)))),
        (["interpolant=encoding-decoding", "strength=2"], Interpolation(EncodingDecoding(2.0))),
        (
            ["gamma=sine-squared", "coupling=optimal-transport"],
            Interpolation(Linear(SineSquared()), OptimalTransport()),
        ),
        (["pace=lipschitz", "transfer=trigonometric"], Interpolation(Linear(), None, "lipschitz", Trigonometric())),
        (["strength=3"], Interpolation(Linear(SquareRoot(3.0)))),
    ):
        config = resolve(load(path), settings=[f"ladder.feat.{s}" for s in settings], source=str(path))
        assert isinstance(config, DifferenceConfig)
        assert effort_of(config).feat.interpolation == wanted
    config = resolve(load(path), settings=["ladder.feat.trunks=2"], source=str(path))
    assert isinstance(config, DifferenceConfig)
    assert effort_of(config).feat.trunks == 2


def _late(t: Tensor) -> Coefficients:
    one, zero = torch.ones_like(t), torch.zeros_like(t)
    return Coefficients(one - t, 0.5 * t, zero, -one, 0.5 * one, zero)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Interpolation("linear"), r"schedule must be a function of time, such as Linear\(\): got 'linear'"),
        (lambda: Interpolation(_late), "schedule must lead from one end to the other"),
        (lambda: Interpolation(transfer=_late), "transfer must lead from one end to the other"),
        (lambda: Interpolation(pace="even"), "pace must be one of uniform, lipschitz: got 'even'"),
        (lambda: Interpolation(coupling="optimal"), "coupling must be a function of two batches: got 'optimal'"),
        (lambda: Interpolation(Linear(NoNoise()), OptimalTransport()), "regressed on their noise"),
        (lambda: Interpolation(EncodingDecoding(), transfer=Linear()), "ratio beta/alpha increases"),
        (lambda: Training(interpolation="linear"), "interpolation must be of type Interpolation: got 'linear'"),
        (lambda: Training(refine_steps=3, interpolation=Interpolation(transfer=Linear())), "got refine_steps=3 and a"),
        (lambda: Training(trunks=3), "trunks must be one of 1, 2: got 3; leave it out for 1"),
        (lambda: Training(trunks=True), "trunks must be one of 1, 2: got True"),
    ],
)
def test_what_cannot_be_trained_along_is_refused(make, message: str):
    with pytest.raises(ns.InputError, match=message):
        make()
