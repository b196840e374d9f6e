"""Networks for the drift start where they should, keep their symmetries, and know their divergence exactly."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from nessampler.closed_form.lattice_dictionary import LatticeDictionary
from nessampler.closed_form.least_squares_drift import LeastSquaresDrift
from nessampler.errors import InputError
from nessampler.kernels import Flow
from nessampler.kernels.flow import VelocityField
from nessampler.networks.drift import DriftNetwork, PotentialNetwork, path_score
from nessampler.networks.embedded_pairs import EmbeddedPairs
from nessampler.networks.equivariant import ClusterNetwork
from nessampler.networks.field import DriftFields, NetworkField, at_each_time
from nessampler.networks.lattice import LatticeNetwork
from nessampler.paths import LinearPath
from nessampler.targets import AnharmonicWell, Gaussian, energy_and_score

CENTER = torch.tensor([0.5, -1.0, 0.2], dtype=torch.float64)
SCALE = torch.tensor([0.5, 2.0, 1.2], dtype=torch.float64)
PATH = LinearPath(
    Gaussian(CENTER, SCALE),
    AnharmonicWell(
        [0.0, 0.0, 0.0], stiffness=[1.0, 2.0, 4.0], quartic=[0.1, 0.3, 0.2], skew=[1.0, -0.8, 1.2], coupling=0.8
    ),
)
ATOMS = 5


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def scrambled(network: nn.Module, seed: int = 0, size: float = 0.3) -> nn.Module:
    """The same architecture with all its parameters moved at random."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=seeded(seed), dtype=parameter.dtype))
    return network


def perceptron(*, score: bool = True, base: VelocityField | None = None) -> DriftNetwork:
    return DriftNetwork(
        center=CENTER,
        scale=SCALE,
        score=path_score(PATH) if score else None,
        base=base,
        width=16,
        generator=seeded(1),
    )


def potential(*, energy: bool = True) -> PotentialNetwork:
    return PotentialNetwork(
        center=CENTER, scale=SCALE, energy=PATH.energy if energy else None, width=16, generator=seeded(1)
    )


def lattice(*, size: int = 6, dimensions: int = 2, coefficients: bool = False) -> LatticeNetwork:
    weights, times = torch.randn(3, 4, generator=seeded(2)), torch.tensor([0.0, 0.4, 1.0])
    given = torch.randn(3, 2, 5, generator=seeded(3), dtype=torch.float64) if coefficients else None
    return LatticeNetwork((size,) * dimensions, (math.inf, 1.0, 0.2), (math.inf, 0.5), weights, times, given)


def cluster() -> ClusterNetwork:
    return ClusterNetwork(ATOMS, reach=4.0, radial=8, generator=seeded(4))


def embedded() -> EmbeddedPairs:
    return EmbeddedPairs(ATOMS, reach=4.0, radial=8, width=6, generator=seeded(4))


def quadratic_field(t: float, x: Tensor) -> tuple[Tensor, Tensor]:
    return (1 + t) * x.square(), 2 * (1 + t) * x.flatten(1).sum(1).double()


NETWORKS = {
    "perceptron": (lambda: perceptron(score=False), (3,)),
    "preconditioned": (perceptron, (3,)),
    "residual": (lambda: perceptron(base=quadratic_field), (3,)),
    "potential": (lambda: potential(energy=False), (3,)),
    "preconditioned potential": (potential, (3,)),
    "lattice": (lattice, (6, 6)),
    "cubic lattice": (lambda: lattice(size=3, dimensions=3), (3, 3, 3)),
    "odd lattice": (lambda: lattice(size=5), (5, 5)),
    "cluster": (cluster, (ATOMS, 3)),
    "embedded pairs": (embedded, (ATOMS, 3)),
}
every_network = pytest.mark.parametrize("name", NETWORKS)


def made(name: str) -> tuple[nn.Module, Tensor, Tensor]:
    build, event = NETWORKS[name]
    t = torch.tensor([0.1, 0.1, 0.3, 0.7, 1.0], dtype=torch.float64)
    return build(), t, torch.randn(5, *event, generator=seeded(5), dtype=torch.float64)


@every_network
def test_untrained_network_is_its_start(name: str):
    network, t, x = made(name)
    expected = at_each_time(quadratic_field, t, x)[0] if name == "residual" else torch.zeros_like(x)
    torch.testing.assert_close(network(t, x), expected, rtol=0, atol=0)
    assert float((scrambled(network)(t, x) - expected).abs().max()) > 0.01


@every_network
def test_divergence_is_the_trace_of_the_jacobian(name: str):
    network, t, x = made(name)
    network = scrambled(network.double())
    for i in range(5):
        velocity, divergence = NetworkField(network)(float(t[i]), x[i : i + 1])
        jacobian = torch.autograd.functional.jacobian(lambda y, i=i: network(t[i : i + 1], y[None])[0], x[i])
        if name == "residual":  # the base is data, which its own divergence stands for
            assert jacobian.shape == (3, 3)
        trace = torch.trace(jacobian.reshape(x[0].numel(), -1))
        assert float(divergence) == pytest.approx(float(trace), abs=1e-9)
        assert divergence.dtype == torch.float64
        assert not velocity.requires_grad
        torch.testing.assert_close(velocity, network(t[i : i + 1], x[i : i + 1]).detach())


@every_network
def test_every_parameter_learns_through_velocity_and_divergence(name: str):
    network, t, x = made(name)
    scrambled(network, size=0.1)
    if hasattr(network, "velocity_and_divergence"):
        velocity, divergence = network.velocity_and_divergence(t, x)
        (velocity.square().mean() + divergence.square().mean()).backward()
    else:
        (network(t, x).square().mean() + network.potential(t, x).mean()).backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None, key
        assert bool(torch.isfinite(parameter.grad).all()), key
        assert bool((parameter.grad != 0).any()), key


@every_network
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_answers_have_the_dtype_of_the_walkers_and_walkers_do_not_mix(name: str, dtype: torch.dtype):
    network, t, x = made(name)
    scrambled(network)
    t, x = t.to(dtype), x.to(dtype)
    velocity = network(t, x)
    assert velocity.dtype == dtype
    assert velocity.shape == x.shape
    rows = torch.cat([network(t[i : i + 1], x[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(rows, velocity, rtol=1e-4, atol=1e-4)


def close(value: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    tolerance = 1e-12 if dtype == torch.float64 else 1e-4
    torch.testing.assert_close(value, expected, rtol=tolerance, atol=tolerance * float(expected.abs().max()))


LATTICE_SYMMETRIES = {
    "translation": lambda x: x.roll((1, 2), (1, 2)),
    "rotation": lambda x: x.rot90(1, (1, 2)),
    "reflection": lambda x: x.flip(1),
    "exchange of axes": lambda x: x.mT,
    "sign": lambda x: -x,
}


@pytest.mark.parametrize("symmetry", LATTICE_SYMMETRIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_lattice_network_commutes_with_the_symmetries_of_the_action(symmetry: str, dtype: torch.dtype):
    network, act = scrambled(lattice(coefficients=True)), LATTICE_SYMMETRIES[symmetry]
    t, x = torch.rand(4, generator=seeded(6)).to(dtype), torch.randn(4, 6, 6, generator=seeded(7)).to(dtype)
    (velocity, divergence), (moved, same) = (network.velocity_and_divergence(t, v) for v in (x, act(x)))
    close(moved, act(velocity), dtype)
    close(same.to(dtype), divergence.to(dtype), dtype)
    assert float((moved - velocity).abs().max()) > 0.1  # the symmetry acts


def rotation(dtype: torch.dtype) -> Tensor:
    q, _ = torch.linalg.qr(torch.randn(3, 3, generator=seeded(8), dtype=torch.float64))
    return (q * torch.sign(torch.linalg.det(q))).to(dtype)


CLUSTER_SYMMETRIES = {
    "rotation": lambda x: x @ rotation(x.dtype).T,
    "reflection": lambda x: x * torch.tensor([1.0, 1.0, -1.0], dtype=x.dtype),
    "permutation": lambda x: x[:, [3, 0, 4, 1, 2]],
}


cluster_networks = pytest.mark.parametrize("build", [cluster, embedded])


@cluster_networks
@pytest.mark.parametrize("symmetry", CLUSTER_SYMMETRIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_cluster_network_commutes_with_rotations_reflections_and_permutations(build, symmetry: str, dtype: torch.dtype):
    network, act = scrambled(build(), size=0.5), CLUSTER_SYMMETRIES[symmetry]
    t, x = torch.rand(4, generator=seeded(9)).to(dtype), torch.randn(4, ATOMS, 3, generator=seeded(10)).to(dtype)
    (velocity, divergence), (moved, same) = (network.velocity_and_divergence(t, v) for v in (x, act(x)))
    close(moved, act(velocity), dtype)
    close(same.to(dtype), divergence.to(dtype), dtype)
    assert float((moved - velocity).abs().max()) > 0.1


@cluster_networks
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_cluster_network_is_blind_to_translations_and_moves_no_centre_of_mass(build, dtype: torch.dtype):
    network = scrambled(build(), size=0.5)
    t, x = torch.rand(4, generator=seeded(9)).to(dtype), torch.randn(4, ATOMS, 3, generator=seeded(10)).to(dtype)
    velocity = network(t, x)
    close(network(t, x + torch.tensor([1.0, -2.0, 0.5], dtype=dtype)), velocity, dtype)
    assert float(velocity.mean(1).abs().max()) < (1e-12 if dtype == torch.float64 else 1e-4)


@cluster_networks
def test_atoms_on_top_of_each_other_leave_velocity_and_gradient_finite(build):
    network, x = scrambled(build()), torch.zeros(2, ATOMS, 3, requires_grad=True)
    velocity, divergence = network.velocity_and_divergence(torch.zeros(2), x)
    (velocity.square().sum() + divergence.sum()).backward()
    assert bool(torch.isfinite(velocity).all() & torch.isfinite(divergence).all() & torch.isfinite(x.grad).all())


def test_embedded_pairs_feel_third_atoms_where_bare_pairs_do_not():
    def mixed(build) -> float:
        """The second difference of a velocity in the places of two other atoms: zero for a sum over pairs."""
        network, x = scrambled(build().double(), size=0.5), torch.zeros(4, ATOMS, 3, dtype=torch.float64)
        x += torch.randn(ATOMS, 3, generator=seeded(16), dtype=torch.float64)
        x[[1, 3], 1] += torch.tensor([0.3, 0.1, -0.2])
        x[[2, 3], 2] -= torch.tensor([0.1, 0.3, 0.2])
        none, one, other, both = network(torch.zeros(4, dtype=torch.float64), x)[:, 0].detach()
        return float((both - one - other + none).abs().max())

    assert mixed(cluster) < 1e-12
    assert mixed(embedded) > 1e-3


@pytest.mark.parametrize("pairs_at_once", [1, 50, 10_000])
def test_embedded_pairs_are_the_same_in_pieces(pairs_at_once: int, monkeypatch: pytest.MonkeyPatch):
    whole = scrambled(embedded())
    monkeypatch.setattr("nessampler.networks.embedded_pairs.PAIRS_AT_ONCE", pairs_at_once)
    pieces = scrambled(embedded())
    assert pieces.at_once == max(1, pairs_at_once // ATOMS**2)
    _, t, x = made("embedded pairs")
    for value, expected in zip(pieces.velocity_and_divergence(t, x), whole.velocity_and_divergence(t, x), strict=True):
        torch.testing.assert_close(value, expected)
    torch.testing.assert_close(pieces(t, x), whole(t, x))
    assert pieces.evaluations == whole.evaluations == 2 * len(x)


@pytest.mark.parametrize("size", [5, 6])
def test_lattice_network_starts_as_the_drift_solved_in_closed_form(size: int):
    weights = torch.randn(3, 4, generator=seeded(11), dtype=torch.float64)
    dictionary = LatticeDictionary((size, size), (math.inf, 1.0, 0.2), (math.inf, 0.5), weights)
    times = torch.tensor([0.0, 0.3, 0.55, 1.0], dtype=torch.float64)
    drift = LeastSquaresDrift(dictionary, times, torch.randn(4, 10, generator=seeded(12), dtype=torch.float64))
    network = LatticeNetwork.from_drift(drift)
    x = torch.randn(6, size, size, generator=seeded(13), dtype=torch.float64)
    for t in (0.0, 0.1, 0.3, 0.7, 1.0):
        for value, expected in zip(NetworkField(network)(t, x), drift(t, x), strict=True):
            torch.testing.assert_close(value, expected, rtol=1e-13, atol=1e-13 * float(expected.abs().max()))
    with torch.no_grad():
        network.change[2, 1, 3] += 0.1
    assert not torch.allclose(NetworkField(network)(0.7, x)[0], drift(0.7, x)[0])


def test_lattice_network_starts_from_no_other_dictionary():
    drift = LeastSquaresDrift(quadratic_field, torch.zeros(1), torch.zeros(1, 1))  # pyright: ignore
    with pytest.raises(InputError, match="in a LatticeDictionary: got function"):
        LatticeNetwork.from_drift(drift)


class Watched(Gaussian):
    """Counts the walkers whose force or energy was asked for."""

    asked = 0

    def energy(self, x: Tensor) -> Tensor:
        self.asked += len(x)
        return super().energy(x)

    def energy_and_score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return energy_and_score(_Plain(self), x)


class _Plain:
    def __init__(self, of: Watched) -> None:
        self.event_shape, self.energy = of.event_shape, of.energy


def test_fields_evaluate_the_path_once_for_score_and_network():
    end = Watched(CENTER, SCALE)
    path = LinearPath(Gaussian(CENTER, SCALE), end)
    network = DriftNetwork(center=CENTER, scale=SCALE, score=path_score(path), width=8, generator=seeded(1))
    scrambled(network)
    fields, t = DriftFields(path, network), torch.full((4,), 0.5, dtype=torch.float64)
    x = torch.randn(4, 3, generator=seeded(14), dtype=torch.float64)
    with torch.no_grad():
        seen = fields(t, x)
    assert (end.asked, network.evaluations) == (4, 4)
    point = path.evaluate(t, x)
    torch.testing.assert_close(seen.velocity, network(t, x).detach())
    torch.testing.assert_close(seen.score, point.score)
    torch.testing.assert_close(fields.point.time_derivative, point.time_derivative)


def test_a_network_flows_and_its_log_determinant_is_that_of_the_map():
    network = scrambled(cluster().double(), size=0.1)
    x = torch.randn(1, ATOMS, 3, generator=seeded(15), dtype=torch.float64)
    flow = Flow(NetworkField(network), order=4, substeps=20)

    def flowed(y: Tensor) -> Tensor:
        step, z = 0.01, y.view(1, ATOMS, 3)
        for k in range(20):
            t = [torch.full((1,), (k + c) * step, dtype=torch.float64) for c in (0.0, 0.5, 1.0)]
            k1 = network(t[0], z)
            k2 = network(t[1], z + 0.5 * step * k1)
            k3 = network(t[1], z + 0.5 * step * k2)
            z = z + step / 6 * (k1 + 2 * k2 + 2 * k3 + network(t[2], z + step * k3))
        return z.flatten()

    moved, log_det = flow.step(0.0, 0.2, flow.start(0.0, x), generator=seeded(0))
    torch.testing.assert_close(moved.x.flatten(), flowed(x).detach())
    jacobian = torch.autograd.functional.jacobian(flowed, x.flatten())
    assert float(log_det) == pytest.approx(float(torch.linalg.slogdet(jacobian)[1]), abs=1e-6)
    assert abs(float(log_det)) > 0.05


def test_weights_are_drawn_from_the_generator_alone():
    state = torch.random.get_rng_state()
    for build in (perceptron, potential, cluster, embedded):
        one, other = (dict(build().named_parameters()) for _ in range(2))
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: DriftNetwork(center=CENTER, scale=SCALE[:2], generator=seeded(0)), "the shape of one walker"),
        (lambda: DriftNetwork(center=CENTER, scale=-SCALE, generator=seeded(0)), "scale positive"),
        (lambda: PotentialNetwork(center=CENTER, scale=SCALE, width=0, generator=seeded(0)), "must be 1 at least"),
        (lambda: LatticeNetwork((4, 4), (1.0,), (1.0,), torch.ones(2, 3), torch.tensor([0.0, 1.0])), "two or more"),
        (lambda: LatticeNetwork((4, 4), (0.0,), (1.0,), torch.ones(1, 3), torch.tensor([0.0, 1.0])), "masses must be"),
        (lambda: ClusterNetwork(1, reach=2.0, generator=seeded(0)), "two atoms"),
        (lambda: EmbeddedPairs(4, reach=0.0, generator=seeded(0)), "positive reach and a width of 1"),
        (lambda: EmbeddedPairs(4, reach=2.0, width=0, generator=seeded(0)), "positive reach and a width of 1"),
    ],
)
def test_networks_that_make_no_sense_are_refused(build, message: str):
    with pytest.raises(InputError, match=message):
        build()
