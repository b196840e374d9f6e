"""Training resumes bit for bit, never leaves a module worse on held-out data, and learning changes variance only."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from nessampler.closed_form.gaussian_interpolant import GaussianFields, fit_gaussian_fields
from nessampler.errors import InputError
from nessampler.estimators import bar
from nessampler.fields import Evaluated
from nessampler.kernels import Langevin
from nessampler.networks.mlp import ResidualFields
from nessampler.objectives.interpolant import InterpolantObjective
from nessampler.paths import EndpointPath
from nessampler.simulate import Ensemble, simulate
from nessampler.targets import AnharmonicWell, energy_and_score
from nessampler.training import fit, load_model, pairs, save_model

A = AnharmonicWell(
    [0.0, 0.0, 0.0], stiffness=[1.0, 2.0, 4.0], quartic=[0.1, 0.3, 0.2], skew=[1.0, -0.8, 1.2], coupling=0.8
)
B = AnharmonicWell(
    [1.0, -1.0, 0.5], stiffness=[2.0, 1.0, 6.0], quartic=[0.4, 0.05, 0.5], skew=[-1.0, 0.9, 1.0], coupling=-1.0
)
DELTA_F = A.log_z - B.log_z


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _base(seed: int = 0) -> GaussianFields:
    return fit_gaussian_fields(
        A.sample(2000, generator=_generator(seed)), B.sample(2000, generator=_generator(seed + 1)), shrink=1.0
    )


def _network(base, *, width: int = 16, depth: int = 1, seed: int = 0, d: int = 3) -> ResidualFields:
    options = {"center": torch.zeros(d), "scale": torch.full((d,), 0.6)}
    return ResidualFields(base, **options, width=width, depth=depth, generator=_generator(seed))


def _scored(n: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x_a, x_b = A.sample(n, generator=_generator(seed)), B.sample(n, generator=_generator(seed + 1))
    return x_a, x_b, energy_and_score(A, x_a)[1], energy_and_score(B, x_b)[1]


def _works(kernel: Langevin, steps: int, n: int, seed: int) -> tuple[Ensemble, Ensemble]:
    times, path = torch.linspace(0, 1, steps + 1, dtype=torch.float64), EndpointPath(A, B)
    x_a, x_b = A.sample(n, generator=_generator(seed)), B.sample(n, generator=_generator(seed + 1))
    with torch.no_grad():
        forward = simulate(kernel, path, times, x_a, generator=_generator(seed + 2))
        return forward, simulate(kernel, path, times.flip(0), x_b, generator=_generator(seed + 3))


class Interrupted(Exception):
    pass


def _fit(folder: Path, *, name: str, stop: int | None = None, width: int = 16, steps: int = 40):
    base, generator = _base(), _generator(4)
    network = _network(base, width=width)
    objective = InterpolantObjective(network, base.interpolant, base.variance, control=base, reference=base)
    held_out = next(pairs(*_scored(200, 5), 200, _generator(7)))

    def progress(done: int, total: int) -> None:
        if done == stop:
            raise Interrupted

    rows = fit(
        network,
        objective,
        pairs(*_scored(300, 8), 64, generator),
        steps=steps,
        learning_rate=3e-3,
        generator=generator,
        checkpoint=folder / name,
        progress=progress,
        validate=lambda: objective(held_out),
        every=10,
    )
    return network, rows


def test_interrupted_fit_resumes_to_the_same_bits(tmp_path: Path):
    whole, rows = _fit(tmp_path, name="whole.safetensors")
    for stop in (23, 30):
        with pytest.raises(Interrupted):
            _fit(tmp_path, name=f"cut-{stop}.safetensors", stop=stop)
        resumed, again = _fit(tmp_path, name=f"cut-{stop}.safetensors")
        assert again == rows
        for name, value in whole.state_dict().items():
            assert torch.equal(resumed.state_dict()[name], value), name
    start = _network(_base())
    assert not torch.equal(start.trunk[0].weight, whole.trunk[0].weight)
    assert [row["step"] for row in rows] == [0, 10, 20, 30, 40]
    assert {path.suffix for path in tmp_path.iterdir()} == {".safetensors"}
    assert not list(tmp_path.glob(".*"))


def test_finished_fit_is_read_and_not_repeated(tmp_path: Path):
    whole, rows = _fit(tmp_path, name="fit.safetensors")
    again, read = _fit(tmp_path, name="fit.safetensors", stop=1)
    assert read == rows
    assert torch.equal(again.score_head.weight, whole.score_head.weight)


def test_checkpoint_of_another_architecture_or_setting_is_refused(tmp_path: Path):
    _fit(tmp_path, name="fit.safetensors")
    with pytest.raises(InputError, match=r"fit\.safetensors belongs to another architecture.*\[3, 16\].*\[3, 24\]"):
        _fit(tmp_path, name="fit.safetensors", width=24)
    with pytest.raises(InputError, match=r"fit\.safetensors differs in steps: 40 then, 50 now"):
        _fit(tmp_path, name="fit.safetensors", steps=50)
    (tmp_path / "fit.safetensors").write_bytes(b"torn")
    with pytest.raises(InputError, match=r"fit\.safetensors could not be read"):
        _fit(tmp_path, name="fit.safetensors")


def test_saved_model_is_the_same_function_and_no_other_module_takes_it(tmp_path: Path):
    base, file = _base(), tmp_path / "models" / "fields.safetensors"
    network = _randomized(base, 0.3)
    save_model(network, file)
    other = _network(_base(seed=40), seed=9)
    load_model(other, file)
    t, x = torch.rand(5, generator=_generator(10), dtype=torch.float64), A.sample(5, generator=_generator(11))
    for value, expected in zip(other(t, x)[:2], network(t, x)[:2], strict=True):
        assert torch.equal(value, expected)
    with pytest.raises(InputError, match=r"fields\.safetensors belongs to another architecture"):
        load_model(_network(base, depth=2), file)
    with pytest.raises(InputError, match="could not be read"):
        load_model(other, tmp_path / "absent.safetensors")


def _ones() -> Iterator[Tensor]:
    while True:
        yield torch.ones(())


def test_fit_that_does_not_help_held_out_data_changes_nothing():
    line = nn.Linear(2, 1)
    before = {k: v.clone() for k, v in line.state_dict().items()}
    options = {"steps": 30, "learning_rate": 0.1, "generator": _generator(), "every": 5}
    worse = fit(line, lambda batch: line.weight.sum(), _ones(), validate=lambda: -line.weight.sum(), **options)
    for name, value in line.state_dict().items():
        assert torch.equal(value, before[name])
    values = [row["validation"] for row in worse]
    assert all(later > earlier for earlier, later in pairwise(values))
    stopped = fit(
        line, lambda batch: line.weight.sum(), _ones(), validate=lambda: -line.weight.sum(), patience=2, **options
    )
    assert stopped[-1]["step"] == 10
    fit(line, lambda batch: line.weight.sum(), _ones(), **options)
    assert bool((line.weight < before["weight"] - 0.1).all())


def test_what_is_judged_decides_in_the_place_of_the_loss(tmp_path: Path):
    """The loss falls with the weight for ever; the judge wants it at 0.5."""

    def trained(every: int, steps: int, **options) -> tuple[float, list[dict]]:
        line = nn.ParameterList([torch.ones(1)])
        rows = fit(
            line,
            lambda batch: line[0].sum(),
            _ones(),
            validate=lambda: line[0].sum(),
            judge=lambda: abs(line[0].item() - 0.5),
            learning_rate=0.05,
            generator=_generator(),
            every=every,
            steps=steps,
            **options,
        )
        return line[0].item(), rows

    kept, rows = trained(1, 60)
    assert [row["validation"] for row in rows] == sorted((row["validation"] for row in rows), reverse=True)
    assert abs(kept - 0.5) == min(row["held_out_error"] for row in rows) < 0.05
    _, rows = trained(1, 60, patience=3)
    assert len(rows) == 4 + min(range(len(rows)), key=lambda i: rows[i]["held_out_error"])
    stopped = trained(1, 60, patience=3, checkpoint=tmp_path / "judged.safetensors")
    assert trained(1, 60, patience=3, checkpoint=tmp_path / "judged.safetensors") == stopped
    assert all("held_out_error" not in row for row in _fit(tmp_path, name="fit.safetensors", steps=4)[1])


def test_validation_does_not_disturb_the_training():
    losses = []
    for options in ({}, {"validate": lambda: 0.0}, {"judge": lambda: 0.0}):
        network, generator = nn.ParameterList([torch.ones(3)]), _generator(3)

        def loss(xi: Tensor, network: nn.ParameterList = network) -> Tensor:
            return (network[0] - xi).square().sum()

        draws = iter(lambda generator=generator: torch.randn(3, generator=generator), None)
        rows = fit(network, loss, draws, steps=40, learning_rate=0.1, generator=generator, every=10, **options)
        losses.append([row["loss"] for row in rows if row["step"]])
    assert losses[0] == losses[1] == losses[2]


def test_averaged_weights_are_less_noisy_than_the_last_ones():
    """Gradient noise of a quadratic: the average lies nearer the minimum than the iterate it averages."""
    spread = {}
    for decay in (0.0, 0.995):
        point, generator = nn.ParameterList([torch.zeros(400)]), _generator(12)

        def noise(generator: torch.Generator = generator) -> Iterator[Tensor]:
            while True:
                yield torch.randn(400, generator=generator)

        def loss(xi: Tensor, point: nn.ParameterList = point) -> Tensor:
            return (0.5 * point[0].square() + xi * point[0]).sum()

        seen: list[Tensor] = []

        def validate(point: nn.ParameterList = point, seen: list[Tensor] = seen) -> float:
            seen.append(point[0].detach().clone())
            return 0.0

        # Stopped early in the schedule, by patience, while the steps are long.
        options = {"steps": 4000, "every": 600, "patience": 1, "validate": validate, "clip": 1e9, "warm_up": 0.01}
        fit(point, loss, noise(), learning_rate=0.05, generator=generator, ema_decay=decay, **options)
        spread[decay] = float(seen[-1].std())
    assert spread[0.995] < 0.7 * spread[0.0]


def test_loss_that_is_not_finite_stops_the_fit():
    line = nn.Linear(1, 1)
    with pytest.raises(InputError, match="got nan at step 1"):
        fit(line, lambda b: line.weight.sum() * torch.nan, _ones(), steps=3, learning_rate=0.1, generator=_generator())


def test_nothing_touches_the_global_random_state(tmp_path: Path):
    torch.manual_seed(0)
    state = torch.random.get_rng_state()
    _fit(tmp_path, name="fit.safetensors", steps=10)
    assert torch.equal(torch.random.get_rng_state(), state)
    first, second = (_network(_base(), seed=s).trunk[0].weight for s in (1, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, _network(_base(), seed=2).trunk[0].weight)


def _randomized(base, size: float, seed: int = 13, d: int = 3) -> ResidualFields:
    network, generator = _network(base, seed=seed, d=d), _generator(seed)
    with torch.no_grad():
        for head in (network.velocity_head, network.score_head):
            head.weight.normal_(0, size, generator=generator)
            head.bias.normal_(0, size, generator=generator)
    return network


def test_untrained_network_is_its_base_in_the_dtype_of_the_walkers():
    base = _base()
    network = _network(base)
    x, t = A.sample(7, generator=_generator(14)), torch.rand(7, generator=_generator(15), dtype=torch.float64)
    for value, expected in zip(network(t, x)[:2], base(t, x)[:2], strict=True):
        assert torch.equal(value, expected)
    assert network(t.float(), x.float()).velocity.dtype == torch.float32
    assert network.velocity_head.weight.dtype == torch.float32
    assert network.evaluations == 14
    assert not any("evaluations" in name for name in network.state_dict())


def test_heads_add_to_their_own_field_in_units_of_the_scale():
    base, scale = _base(), torch.tensor([0.5, 2.0, 3.0])
    network = ResidualFields(base, center=torch.zeros(3), scale=scale, width=8, depth=1, generator=_generator())
    with torch.no_grad():
        network.velocity_head.bias.fill_(1.0)
        network.score_head.bias.fill_(-2.0)
    t, x = torch.full((4,), 0.3, dtype=torch.float64), A.sample(4, generator=_generator(18))
    (velocity, score, _), (base_velocity, base_score, _) = network(t, x), base(t, x)
    torch.testing.assert_close(velocity - base_velocity, scale.double().expand(4, 3))
    torch.testing.assert_close(score - base_score, (-2 / scale.double()).expand(4, 3))


@pytest.mark.parametrize("trunks", [1, 2])
def test_velocity_and_score_share_a_trunk_or_have_one_each(trunks: int):
    base = _base()
    options = {"center": torch.zeros(3), "scale": torch.ones(3), "width": 8, "depth": 2, "generator": _generator()}
    network, x = ResidualFields(base, trunks=trunks, **options), torch.randn(5, 3, generator=_generator(1))
    t = torch.full((5,), 0.3)
    for value, wanted in zip(network(t, x)[:2], base(t, x)[:2], strict=True):
        assert torch.equal(value, wanted)  # untrained it is its base
    with torch.no_grad():
        for head in (network.velocity_head, network.score_head):
            head.weight.fill_(0.1)
    network(t, x).score.square().sum().backward()
    assert bool(network.score_head.weight.grad.any())
    assert (network.trunk[0].weight.grad is not None) == (trunks == 1)
    assert any(name.startswith("score_trunk") for name in network.state_dict()) == (trunks == 2)
    first = ResidualFields(base, **{**options, "generator": _generator()}).trunk[0].weight
    assert torch.equal(network.trunk[0].weight, first)  # of one seed, the trunk of the velocity is the same


def test_other_numbers_of_trunks_are_refused():
    with pytest.raises(InputError, match="got trunks=3; use 1 or 2"):
        ResidualFields(_base(), center=torch.zeros(3), scale=torch.ones(3), trunks=3, generator=_generator())


def test_circular_coordinates_are_periodic_inputs_that_do_not_move():
    moving = torch.tensor([True, False, True])
    base = fit_gaussian_fields(*_scored(200, 16)[:2], moving=moving)
    network = ResidualFields(
        base, center=torch.zeros(3), scale=torch.ones(3), circular=~moving, width=8, depth=1, generator=_generator()
    )
    with torch.no_grad():
        for head in (network.velocity_head, network.score_head):
            head.weight.normal_(generator=_generator(17))
    t, x = torch.full((4,), 0.3, dtype=torch.float64), A.sample(4, generator=_generator(18))
    turned, shifted = x + torch.tensor([0.0, 2 * math.pi, 0.0]), x + torch.tensor([0.0, 1.0, 0.0])
    for here, there, elsewhere in zip(network(t, x)[:2], network(t, turned)[:2], network(t, shifted)[:2], strict=True):
        torch.testing.assert_close(here, there, rtol=0, atol=1e-5)
        assert float((here - elsewhere).abs().max()) > 0.01
        assert torch.equal(here[:, 1], torch.zeros(4))
        assert bool((here[:, moving] != 0).all())


class Careless(Langevin):
    """A kernel whose log ratio is half of what it should be."""

    def step(self, t0, t1, walkers, *, generator):
        moved, log_ratio = super().step(t0, t1, walkers, generator=generator)
        return moved, 0.5 * log_ratio


def _jarzynski_z(ensemble: Ensemble, log_z_ratio: float) -> tuple[float, float]:
    weight = torch.exp(ensemble.log_weight - log_z_ratio)
    error = float(weight.std()) / math.sqrt(len(weight))
    return abs(float(weight.mean()) - 1) / error, error


def _fermi_z(forward: Ensemble, reverse: Ensemble) -> tuple[float, float]:
    """E_F[1/(1 + exp(W - ΔF))] = E_R[1/(1 + exp(W + ΔF))], whose terms are bounded, so that a z-test always holds."""
    accepted = torch.sigmoid(DELTA_F - forward.work), torch.sigmoid(-DELTA_F - reverse.work)
    error = math.sqrt(sum(float(f.var()) / len(f) for f in accepted))
    return abs(float(accepted[0].mean() - accepted[1].mean())) / error, error


# With larger diffusion at few steps the backward density is wider than the end, and weights lose their variance.
@pytest.mark.parametrize(("steps", "n", "factor"), [(1, 10_000, 0.25), (4, 12_000, 0.15), (64, 6_000, 1.0)])
def test_works_obey_both_fluctuation_theorems_with_a_random_network(steps: int, n: int, factor: float):
    base = _base()
    fields = _randomized(base, 0.1)

    def diffusion(t: float) -> Tensor:
        return factor * base.variance(t)

    forward, reverse = _works(Langevin(fields, diffusion), steps, n, 20)
    z, error = _fermi_z(forward, reverse)
    assert z <= 4
    assert error < 0.005
    careless = _works(Careless(fields, diffusion), steps, n, 20)
    assert _fermi_z(*careless)[0] > 6
    if steps > 1:  # one step's weights have too heavy a tail for a z-test: they are integrated below
        for ensemble, log_z_ratio in ((forward, -DELTA_F), (reverse, DELTA_F)):
            z, error = _jarzynski_z(ensemble, log_z_ratio)
            assert z <= 4
            assert error < 0.05
        assert _jarzynski_z(forward, 0.4 - DELTA_F)[0] > 6  # the test would see 0.4 kT


@pytest.mark.parametrize("forward", [True, False])
def test_one_step_of_a_random_network_is_unbiased_by_quadrature(forward: bool):
    """∫∫ exp(-U_0(x)) F(x'|x) exp(-work) dx dx' = Z_1 in one dimension: U_0 cancels, F is written out here."""
    ends = (
        AnharmonicWell([0.0], stiffness=[1.0], quartic=[0.2], skew=[1.5], coupling=0.0),
        AnharmonicWell([1.0], stiffness=[2.0], quartic=[0.1], skew=[-1.0], coupling=0.0),
    )
    samples = (e.sample(500, generator=_generator(50)) for e in ends)
    base = fit_gaussian_fields(*samples, shrink=1.0)
    network = _randomized(base, 0.3, d=1).double()
    t0, t1, end = (0.0, 1.0, ends[1]) if forward else (1.0, 0.0, ends[0])
    epsilon, grid = 0.3, torch.linspace(-9, 10, 400, dtype=torch.float64)
    x, x_new = (v.reshape(-1, 1) for v in torch.meshgrid(grid, grid, indexing="ij"))
    with torch.no_grad():
        at = network(torch.full((len(x),), t0, dtype=torch.float64), x)
        log_ratio = Langevin(network, epsilon).log_ratio(t0, t1, x, x_new)
    mean = x + (t1 - t0) * at.velocity + epsilon * at.score
    log_forward = -(x_new - mean).square().squeeze(-1) / (4 * epsilon) - 0.5 * math.log(4 * math.pi * epsilon)
    area = 2 * math.log(float(grid[1] - grid[0]))
    exact, careless = (
        float(torch.logsumexp(log_forward - end.energy(x_new) + ratio, 0)) + area
        for ratio in (log_ratio, 0.9 * log_ratio)
    )
    assert exact == pytest.approx(end.log_z, abs=1e-8)
    assert abs(careless - end.log_z) > 0.01


def test_training_narrows_the_work_of_unseen_samples_and_keeps_the_answer():
    base = _base()
    network = _network(base, width=32, depth=2)
    objective = InterpolantObjective(network, base.interpolant, base.variance, control=base, reference=base)
    generator, held_out = _generator(30), next(pairs(*_scored(1000, 31), 2000, _generator(33)))
    rows = fit(
        network,
        objective,
        pairs(*_scored(2000, 34), 256, generator),
        steps=400,
        learning_rate=1e-2,
        generator=generator,
        validate=lambda: objective(held_out),
        every=100,
    )
    assert rows[0]["validation"] == 0
    assert rows[-1]["validation"] < -0.5
    before, after = (_works(Langevin(f, base.variance), 48, 1000, 36) for f in (base, network))
    for plain, trained in zip(before, after, strict=True):
        assert float(trained.work.var()) < 0.3 * float(plain.work.var())
    plain, trained = bar(*before), bar(*after)
    assert trained.std_error < 0.6 * plain.std_error
    assert abs(trained.delta_f - DELTA_F) < 4 * trained.std_error
    assert trained.std_error < 0.015


def test_fields_without_velocity_are_refused_as_a_base():
    network = _network(lambda t, x: Evaluated(None, -x))
    with pytest.raises(InputError, match="must have a velocity"):
        network(torch.zeros(1), torch.zeros(1, 3))
