"""What is seen of a run that is under way, on a terminal and in a log."""

from __future__ import annotations

import io
import re

import pytest
import torch
from command_line import nessampler
from rich.console import Console

import nessampler as ns
from nessampler.commands._progress import Progress
from nessampler.kernels import HMC, Identity
from nessampler.paths import EndpointPath, LinearPath
from nessampler.simulate import simulate
from nessampler.targets import Gaussian


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def logged(*events: tuple) -> list[str]:
    """Lines in a pipe after (seconds, call, arguments) in turn."""
    clock, out = Clock(), io.StringIO()
    with Progress(Console(file=out, width=80), clock) as progress:
        for seconds, call, *arguments in events:
            clock.now = seconds
            if call == "report":
                progress.report(**arguments[0])
            else:
                getattr(progress, call)(*arguments)
    return out.getvalue().splitlines()


def test_a_log_has_a_line_every_five_seconds_and_none_for_what_is_soon_over():
    walking = [(0.1 * k, "advance", k, 100, "walkers") for k in range(101)]
    assert logged(*walking[:30]) == []
    lines = logged(*walking)
    assert [line.split("  ")[-1] for line in lines] == ["walkers: 50%, about 5 s left", "walkers: 100%"]
    assert logged((0.0, "advance", 0, 3, "pilot"), (1.0, "advance", 3, 3, "pilot")) == []


def test_time_left_is_that_of_the_stage_and_not_of_the_run():
    lines = logged(
        (0.0, "advance", 0, 10, "slow"),
        (100.0, "advance", 10, 10, "slow"),
        (100.0, "advance", 0, 100, "fast"),
        (110.0, "advance", 50, 100, "fast"),
    )
    assert lines[-1].endswith("fast: 50%, about 10 s left")
    resumed = logged((0.0, "advance", 80, 100, "training"), (10.0, "advance", 90, 100, "training"))
    assert resumed[-1].endswith("training: 90%, about 10 s left")


def test_current_numbers_stand_behind_a_line_until_the_next_stage():
    lines = logged(
        (0.0, "advance", 0, 10, "training"),
        (1.0, "report", {"loss": 0.25, "ess": None}),
        (6.0, "advance", 5, 10, "training"),
        (7.0, "advance", 0, 10, "walkers"),
        (13.0, "advance", 5, 10, "walkers"),
        (14.0, "report", {"delta_f": -7.094, "std_error": 0.05, "overlap": 0.72}),
        (19.0, "advance", 10, 10, "walkers"),
    )
    assert lines[0].endswith("training: 50%, about 6 s left; loss 0.25")
    assert lines[1].endswith("walkers: 50%, about 6 s left")
    assert lines[2].endswith("walkers: 100%; ΔF -7.094 ± 0.050 kT, overlap 0.72")


def on_a_terminal(*events: tuple, width: int = 80) -> str:
    clock, out = Clock(), io.StringIO()
    console = Console(file=out, width=width, force_terminal=True, color_system=None, legacy_windows=False)
    with Progress(console, clock) as progress:
        for seconds, call, *arguments in events:
            clock.now = seconds
            if call == "report":
                progress.report(**arguments[0])
            else:
                getattr(progress, call)(*arguments)
        assert progress._live is not None
        progress._live.refresh()
    return out.getvalue()


def test_a_terminal_shows_stage_rate_time_left_and_numbers_within_80_columns():
    text = on_a_terminal(
        (0.0, "say", "sampling both states"),
        (0.0, "advance", 0, 1_640_000, "molecular dynamics of state B, which has a long name"),
        (10.0, "advance", 100_000, 1_640_000, "molecular dynamics of state B, which has a long name"),
        (10.0, "report", {"delta_f": -7.094, "std_error": 0.05}),
    )
    lines = [line.rstrip() for line in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "\n", text).splitlines()]
    assert any(line.endswith("sampling both states") for line in lines)
    assert any(
        re.search(r"molecular dynamics of state B, … [━╸╺ ]*6% · 10k/s · 2:34 min left$", line) for line in lines
    )
    assert any(line == "  ΔF -7.094 ± 0.050 kT" for line in lines)
    assert max(map(len, lines)) <= 80


def test_the_live_line_ends_with_the_run_also_after_an_interruption():
    out = io.StringIO()
    console = Console(file=out, width=80, force_terminal=True)
    progress = Progress(console)

    def interrupted() -> None:
        with progress:
            progress.advance(1, 2, "walkers")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert progress._live is not None
    assert not progress._live.live.is_started
    assert "\x1b[?25h" in out.getvalue()  # the cursor is back


def test_the_effective_fraction_along_annealing_is_that_of_the_history():
    path = LinearPath(Gaussian(torch.zeros(2), torch.ones(2)), Gaussian(torch.ones(2), torch.full((2,), 0.5)))
    g, seen = torch.Generator().manual_seed(0), []
    x = path.start.sample(200, generator=g)
    times = [k / 5 for k in range(6)]
    found = simulate(HMC(path, 0.3, 2), path, times, x, generator=g, watch=seen.append)
    assert found.history is not None
    assert seen == pytest.approx(found.history.ess.tolist())
    assert seen[-1] == pytest.approx(found.ess)


def test_watching_changes_nothing_and_a_path_of_ends_is_seen_at_its_end():
    path = EndpointPath(Gaussian(torch.zeros(2), torch.ones(2)), Gaussian(torch.ones(2), torch.ones(2)))
    x, seen = torch.randn(50, 2, generator=torch.Generator().manual_seed(0)), []
    one, same = (
        simulate(Identity(), path, [0.0, 1.0], x, generator=torch.Generator().manual_seed(1), watch=watch)
        for watch in (None, seen.append)
    )
    assert torch.equal(one.log_weight, same.log_weight)
    assert seen == [pytest.approx(one.ess)]


def test_a_difference_tells_loss_and_free_energies_of_pilots(wells):
    g, told, stages = torch.Generator().manual_seed(0), [], set()
    x = [well.sample(300, generator=g) for well in wells]
    effort = ns.Effort(feat=ns.methods.effort.Training(steps=10, width=8, depth=1, sampling_steps=4, patience=100))
    found = ns.free_energy(
        *wells,
        *x,
        method="feat",
        effort=effort,
        report=lambda **numbers: told.append(numbers),
        progress=lambda done, total, what: stages.add(what),
    )
    assert sum("loss" in numbers for numbers in told) in (10, 20)  # steps of one network, or of each of two
    plain = found.rungs[0].pilot.estimate
    assert {"delta_f": plain.delta_f, "std_error": plain.std_error, "overlap": plain.overlap} in told
    assert {"plain: pilot", "map: pilot", "feat: training", "feat: pilot", "feat: evaluate block"} <= stages


def test_a_density_tells_how_many_walkers_are_effective():
    effort = ns.DensityEffort(walkers=200, pilot_walkers=300, pilot_steps=4, steps=4, reverse_walkers=0, nets_steps=3)
    told: list[dict] = []
    ns.sample(
        lambda x: -0.5 * x.square().sum(-1),
        dim=2,
        base=Gaussian(torch.zeros(2), torch.full((2,), 1.5)),
        method="nets",
        effort=effort,
        report=lambda **numbers: told.append(numbers),
    )
    names = [name for numbers in told for name in numbers]
    assert {"loss", "ess", "r_squared"} <= {*names}
    assert all(0 < numbers["ess"] <= 1 for numbers in told if numbers.get("ess") is not None)


def test_a_run_in_a_pipe_writes_plain_lines(tmp_path):
    ended = nessampler("run", "anharmonic-wells", "--preset", "smoke", "--method", "map", "--out", tmp_path / "run")
    assert ended.code == 0
    assert "\x1b" not in ended.err
    assert re.search(r"^ +\d+ s  plain \(no transport\) on the select block", ended.err, re.MULTILINE)
