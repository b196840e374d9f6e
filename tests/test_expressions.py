"""OpenMM's expression language in torch: the same numbers and derivatives as OpenMM itself."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor

from nessampler.errors import InputError
from nessampler.molecular.force_field.expressions import Macro, compile_expression
from nessampler.molecular.force_field.tabulated import Discrete, Spline, tabulated_function

openmm = pytest.importorskip("openmm")

POINT = {"x": 0.7, "y": -0.3, "z": 1.9, "a": 2.5}

LANGUAGE = [
    "-x^2 + 2^3^2*x",
    "2^-x^2*y",
    "x-y-z-a",
    "z/x/y/a",
    "x*-y - -z",
    "1e-3*x + 2.5E+1*y + .5*z + 3.*a",
    "a^x + x^a + x^2.5 + z^y*x",
    "x^-3 + x^0.5 + z^-1.5 + z^7 + y^2 + 1/x^2 + a^0",
    "sec(x) + csc(y) + cot(z) + tan(x*y) + sin(z) + cos(a*x)",
    "asin(x) + acos(y) + atan(z) + atan2(x, y) + atan2(y, z)",
    "sinh(x) + cosh(y) + tanh(z) + exp(-x*z) + log(z)",
    "erf(x) + erfc(y) + sqrt(z) + square(x) + cube(y) + recip(z)",
    "step(x) + step(y)*z + delta(x) + delta(y-y)*z",
    "min(x, y)*z + max(y, z)*x + abs(y) + max(x, 0.1) + min(2, x)",
    "floor(x*7)*y + ceil(z*7)*x",
    "select(x, y*y, z) + select(y-y, x, z^3) + select(step(y), sqrt(y), 3*x)",
    "u*v + u; u = v + x; v = y*z",
    "a*x; a = a*2",
    "x*sqrt(z)/log(z) - exp(-x)*(x - (y - (z - 1)))",
    "3 - x + (y) - (-(-z)) + 2*(3*(x*4)) + x/4",
    " x +\n y ; ",
]


def with_openmm(text: str, point: dict[str, float]) -> tuple[float, list[float]]:
    """The expression and its derivatives by x, y and z, from OpenMM's Reference platform."""
    system, force = openmm.System(), openmm.CustomExternalForce(text)
    system.addParticle(1.0)
    force.addGlobalParameter("a", point["a"])
    force.addParticle(0, [])
    system.addForce(force)
    platform = openmm.Platform.getPlatformByName("Reference")
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform)
    context.setPositions([[point[c] for c in "xyz"]])
    state = context.getState(getEnergy=True, getForces=True)
    return state.getPotentialEnergy()._value, [-f for f in state.getForces()[0]._value]


def inputs(point: dict[str, float], shape: tuple[int, ...] = (1,)) -> dict[str, Tensor]:
    return {k: torch.full(shape, v, dtype=torch.float64, requires_grad=True) for k, v in point.items()}


def slopes(value: Tensor, values: dict[str, Tensor]) -> list[float]:
    total = value.sum() + 0 * sum(x.sum() for x in values.values())  # so that autograd accepts those that do not occur
    return [g.sum().item() for g in torch.autograd.grad(total, [values[c] for c in "xyz"])]


@pytest.mark.parametrize("text", LANGUAGE)
def test_value_and_derivatives_are_those_of_openmm(text: str) -> None:
    expected, expected_slopes = with_openmm(text, POINT)
    expression, values = compile_expression(text, list(POINT)), inputs(POINT)
    value = expression(values)
    assert value.item() == pytest.approx(expected, rel=1e-14, abs=1e-14)
    assert slopes(value, values) == pytest.approx(expected_slopes, rel=1e-12, abs=1e-12)
    plain = expression.program(())([values[name] for name in expression.names])[0]  # followed step by step by autograd
    assert plain.item() == pytest.approx(expected, rel=1e-14, abs=1e-14)
    assert slopes(plain, values) == pytest.approx(expected_slopes, rel=1e-12, abs=1e-12)


def test_the_comparison_sees_a_wrong_precedence() -> None:
    assert with_openmm("(-x)^2", POINT)[0] != pytest.approx(with_openmm("-x^2", POINT)[0], rel=0.1)
    assert with_openmm("(2^3)^2*x", POINT)[0] != pytest.approx(with_openmm("2^3^2*x", POINT)[0], rel=0.1)


@pytest.mark.parametrize("text", [t for t in LANGUAGE if not any(f in t for f in ("floor", "delta", "y-y"))])
def test_second_derivatives_are_those_of_finite_differences(text: str) -> None:
    expression = compile_expression(text, list(POINT))
    names = expression.names

    def function(*values: Tensor) -> Tensor:
        return expression(dict(zip(names, values, strict=True)))

    # Uneven points, away from those where an expression has a kink.
    values = [torch.tensor([POINT[n], POINT[n] * 1.05], dtype=torch.float64, requires_grad=True) for n in names]
    torch.autograd.gradcheck(function, values)
    torch.autograd.gradgradcheck(function, values)


@pytest.mark.parametrize(
    "text",
    [
        "select(step(x), sqrt(x), 0)",
        "select(step(x), log(x)*x^0.3, x)",
        "select(x, 1/x, y)",
        "select(step(x), select(step(y), log(x*y), 1), y^2)",
        "select(step(-x), exp(-800*x), x*y)",
        "select(step(x), acos(y/x), asin(x))",
        "select(step(x), x^y, -x)",
    ],
)
@pytest.mark.parametrize("x", [-0.5, 0.6])
def test_the_branch_not_taken_leaves_no_trace(text: str, x: float) -> None:
    values = {"x": torch.tensor([x, 0.6], dtype=torch.float64), "y": torch.tensor([0.4, 0.4], dtype=torch.float64)}
    for value in values.values():
        value.requires_grad_()
    value = compile_expression(text, ["x", "y"])(values)
    assert value[0].item() == pytest.approx(with_openmm(text, {"x": x, "y": 0.4, "z": 0.0, "a": 0.0})[0], rel=1e-14)
    found = torch.autograd.grad(value.sum() + 0 * values["y"].sum(), list(values.values()), create_graph=True)
    second = torch.autograd.grad(torch.cat(found).sum(), list(values.values()), allow_unused=True)
    assert all(torch.isfinite(g).all() for g in (*found, *second) if g is not None)


def test_where_a_select_avoids_a_pole_its_derivatives_are_finite() -> None:
    x = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    value = compile_expression("select(x, 1/x, 3) + select(x, sqrt(x)/x, x^2)", ["x"])({"x": x})
    (slope,) = torch.autograd.grad(value.sum(), x, create_graph=True)
    assert (value.item(), slope.item()) == (3, 0)
    assert torch.autograd.grad(slope.sum(), x)[0].item() == 2


def test_a_root_of_zero_is_zero_also_where_its_slope_is_asked_for() -> None:
    x = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    assert compile_expression("sqrt(x)", ["x"])({"x": x}).item() == 0


def test_a_select_written_with_where_would_leak() -> None:
    x = torch.tensor([-0.5], dtype=torch.float64, requires_grad=True)
    naive = torch.where(x > 0, x.sqrt(), torch.zeros_like(x))
    assert torch.isnan(torch.autograd.grad(naive.sum(), x)[0]).all()


def test_names_that_are_narrow_or_positive_change_no_digit_worth_having() -> None:
    text = "k*select(step(r-a), (b/r)^6 - 3*log(r)*k, r^2)*b/a"
    names = ["r", "a", "b", "k"]
    generator = torch.Generator().manual_seed(4)
    wide = {"r": 0.5 + torch.rand(7, 50, generator=generator, dtype=torch.float64)}
    values = wide | {k: 0.5 + torch.rand(7, 1, generator=generator, dtype=torch.float64) for k in "abk"}
    plain = compile_expression(text, names)(values)
    informed = compile_expression(text, names, narrow=["a", "b", "k"], positive=["r"])(values)
    torch.testing.assert_close(informed, plain, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_results_have_the_inputs_dtype_and_inputs_stay_as_they_were(dtype: torch.dtype) -> None:
    values = {"r": torch.rand(5, 3, dtype=dtype) + 0.5, "k": torch.rand(5, 1, dtype=dtype), "s": torch.tensor(2.0)}
    values["s"] = values["s"].to(dtype)
    before = {k: v.clone() for k, v in values.items()}
    expression = compile_expression("k*(exp(-s*r) + step(r-1)*r^3 - max(r, k))/s", ["r", "k", "s"])
    first = expression(values)
    assert first.dtype == dtype
    assert first.shape == (5, 3)
    torch.testing.assert_close(expression(values), first, rtol=0, atol=0)  # registers are reused, results are not
    for name, value in values.items():
        assert torch.equal(value, before[name])


def test_a_gradient_of_a_parameter_is_summed_over_what_it_broadcasts_to() -> None:
    r = torch.rand(4, 6, dtype=torch.float64)
    k = torch.rand(4, 1, dtype=torch.float64, requires_grad=True)
    scale = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)
    value = compile_expression("scale*k*r^2", ["r", "k", "scale"])({"r": r, "k": k, "scale": scale})
    by_k, by_scale = torch.autograd.grad(value.sum(), (k, scale))
    torch.testing.assert_close(by_k, 1.3 * r.square().sum(1, keepdim=True))
    torch.testing.assert_close(by_scale, (k * r.square()).sum())


def test_an_expression_works_inside_torchs_function_transforms() -> None:
    expression = compile_expression("x^3*y - exp(x)", ["x", "y"])

    def function(x: Tensor) -> Tensor:
        return expression({"x": x, "y": torch.tensor(2.0, dtype=torch.float64)})

    x = torch.tensor([0.3, 1.1], dtype=torch.float64)
    slope = torch.func.vmap(torch.func.grad(function))(x)
    torch.testing.assert_close(slope, 6 * x**2 - x.exp())


def test_an_expression_can_be_copied_and_sent() -> None:
    expression = compile_expression("select(step(x-1), x^2, f(x))", ["x"], functions={"f": Discrete(torch.arange(3.0))})
    x = torch.tensor([0.2, 1.7])
    for other in (copy.deepcopy(expression), pickle.loads(pickle.dumps(expression))):
        assert torch.equal(other({"x": x}), expression({"x": x}))


def test_a_macro_is_written_in_the_language_and_takes_points() -> None:
    points = {"p": ("px", "py"), "q": ("qx", "qy")}
    distance = Macro(("a", "b", "c", "d"), "sqrt(u^2 + v^2); u=c-a; v=d-b", points=points)
    names = ["px", "py", "qx", "qy"]
    values = dict(zip(names, torch.tensor([0.0, 0.0, 3.0, 4.0]), strict=True))
    for text in ("far(p, q)", "far(px, py, qx, qy)", "far(q, px, py)", "far(p, p) + far(p, 3, 4)"):
        assert compile_expression(text, names, functions={"far": distance})(values) == 5


@pytest.mark.parametrize(
    ("text", "position", "rule"),
    [
        ("x + yy", 4, "'yy' is not known"),
        ("x + foo(x)", 4, "no function 'foo'"),
        ("x * (x + 1", 10, r"`\)` should come here"),
        ("x x", 2, "an operator should come here"),
        ("x +", 3, "a number, a name"),
        ("+x", 0, "a number, a name"),
        ("min(x)", 0, "takes 2 arguments, not 1"),
        ("x; 3+x", 2, "defines a name"),
        ("u*x; u=x+", 9, "a number, a name"),
        ("v; u=x; v=u", 10, "'u' is not known"),
        ("x=3", 1, "means nothing here"),
    ],
)
def test_errors_name_the_rule_and_the_position(text: str, position: int, rule: str) -> None:
    with pytest.raises(InputError, match=f"{rule}.* at position {position},"):
        compile_expression(text, ["x"])


def test_a_missing_value_is_named() -> None:
    with pytest.raises(InputError, match="needs a value of 'k'"):
        compile_expression("k*x", ["x", "k"])({"x": torch.ones(2)})


# Tables ---------------------------------------------------------------------------------------------------------------


def table_of_openmm(function: object, arity: int, points: Tensor) -> tuple[Tensor, Tensor]:
    system, force = openmm.System(), openmm.CustomCompoundBondForce(1, f"f({','.join(['x1', 'y1', 'z1'][:arity])})")
    system.addParticle(1.0)
    force.addTabulatedFunction("f", function)
    force.addBond([0], [])
    system.addForce(force)
    platform = openmm.Platform.getPlatformByName("Reference")
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform)
    values, gradients = [], []
    for point in points:
        context.setPositions([[*point.tolist(), 0.0, 0.0][:3]])
        state = context.getState(getEnergy=True, getForces=True)
        values.append(state.getPotentialEnergy()._value)
        gradients.append([-f for f in state.getForces()[0]._value[:arity]])
    return torch.tensor(values, dtype=torch.float64), torch.tensor(gradients, dtype=torch.float64)


def random_values(shape: tuple[int, ...], periodic: bool, seed: int) -> Tensor:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    if periodic:
        for axis, n in enumerate(shape):
            values.index_copy_(axis, torch.tensor([n - 1]), values.narrow(axis, 0, 1).clone())
    return values


@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.parametrize("shape", [(7,), (5, 6), (4, 6, 5)])
def test_splines_are_those_of_openmm(shape: tuple[int, ...], periodic: bool) -> None:
    values = random_values(shape, periodic, len(shape))
    limits = [(0.0, 3.0), (-1.0, 1.5), (0.5, 2.0)][: len(shape)]
    flat = values.permute(*reversed(range(len(shape)))).flatten().tolist()
    sizes = list(shape) if len(shape) > 1 else []
    ends = [end for pair in limits for end in pair]
    kind = getattr(openmm, f"Continuous{len(shape)}DFunction")
    function = kind(*sizes, flat, *ends, periodic)
    generator = torch.Generator().manual_seed(9)
    low, high = torch.tensor(limits, dtype=torch.float64).T
    points = low + (high - low) * (1.6 * torch.rand(40, len(shape), generator=generator, dtype=torch.float64) - 0.3)
    points = points.float().double()  # what an OpenMM position can hold is not in question
    table = tabulated_function(function)  # before the force takes the function, and takes it along
    expected, expected_gradient = table_of_openmm(function, len(shape), points)
    arguments = [points[:, k].clone().requires_grad_() for k in range(len(shape))]
    value = table(*arguments)
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)
    gradient = torch.stack(torch.autograd.grad(value.sum(), arguments), 1)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-11, atol=1e-11)
    assert (expected == 0).any() != periodic  # some points lie outside
    by_order = [table(*arguments, order=tuple(int(i == k) for i in range(len(shape)))) for k in range(len(shape))]
    torch.testing.assert_close(torch.stack(by_order, 1).detach(), gradient, rtol=1e-11, atol=1e-11)


def test_an_expression_of_a_spline_is_differentiable_twice() -> None:
    spline = Spline(random_values((5, 6), False, 3), [(0.0, 1.0), (0.0, 1.0)])
    expression = compile_expression("x*f(x, y^2)", ["x", "y"], functions={"f": spline})
    generator = torch.Generator().manual_seed(5)
    values = [(0.1 + 0.7 * torch.rand(6, generator=generator, dtype=torch.float64)).requires_grad_() for _ in range(2)]
    torch.autograd.gradcheck(lambda x, y: expression({"x": x, "y": y}), values)
    torch.autograd.gradgradcheck(lambda x, y: expression({"x": x, "y": y}), values)


@pytest.mark.parametrize("shape", [(4,), (3, 4), (2, 3, 4)])
def test_discrete_tables_are_those_of_openmm(shape: tuple[int, ...]) -> None:
    values = random_values(shape, False, 1)
    flat = values.permute(*reversed(range(len(shape)))).flatten().tolist()
    function = getattr(openmm, f"Discrete{len(shape)}DFunction")(*(list(shape) if len(shape) > 1 else []), flat)
    points = 7 * torch.rand(40, len(shape), generator=torch.Generator().manual_seed(2), dtype=torch.float64) - 1.5
    points[:3] = torch.tensor([0.5, 1.5, 2.5], dtype=torch.float64)[:, None]  # halves round up
    table = tabulated_function(function)
    expected, slope = table_of_openmm(function, len(shape), points)
    assert torch.equal(table(*points.T), expected)
    assert torch.equal(slope, torch.zeros_like(slope))


@pytest.mark.parametrize("limits", [[(1.0, 1.0)], [(0.0, 1.0), (0.0, 1.0)]])
def test_limits_that_do_not_fit_a_table_are_refused(limits: list[tuple[float, float]]) -> None:
    with pytest.raises(InputError, match="increasing limits"):
        Spline(torch.ones(4), limits)


def test_a_periodic_table_that_does_not_close_is_refused() -> None:
    with pytest.raises(InputError, match="must end where it starts"):
        Spline(torch.tensor([0.0, 1.0, 2.0]), [(0.0, 1.0)], periodic=True)
