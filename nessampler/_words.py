"""A result's numbers as people read them, shared by the terminal summary and the report."""

import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from nessampler.estimators.free_energy import GAS_CONSTANT

__all__: list[str] = []

Real = float | int  # a whole number in JSON comes back as an int
MISSING = "—"
STAGES = {"endstates": "end-state MD", "training": "training", "sampling": "sampling"}
DENSITY_STAGES = {
    "base": "base",
    "chains": "long chains",
    "pilot": "pilot",
    "training": "training",
    "sampling": "sampling",
    "reverse": "reverse",
}
ESTIMATORS = {
    "jarzynski_forward": "Jarzynski, A → B",
    "jarzynski_reverse": "Jarzynski, B → A",
    "bar": "BAR, chosen rung",
    "plain_bar": "BAR, plain",
}
SETTINGS = ("system", "kind", "method", "preset", "seed", "temperature", "version")


class Flag(NamedTuple):
    """One warning of a result: what it is about, its code, and what to do."""

    about: str
    code: str
    message: str


def decimals(error: Real | None) -> int:
    """Decimal places that show two significant digits of an error; 3 where there is none.

    >>> [decimals(e) for e in (0.05, 0.5, 1.2, 15.0, None)]
    [3, 2, 1, 0, 3]
    """
    if not error or not math.isfinite(error):
        return 3
    return min(6, max(0, 1 - math.floor(math.log10(abs(error)))))


def plus_minus(quantity: Mapping[str, Any] | None, scale: Real | None = 1.0) -> str:
    """`value ± std_error`, the error to two significant digits.

    >>> plus_minus({"value": -7.09, "std_error": 0.05})
    '-7.090 ± 0.050'
    >>> plus_minus({"value": None, "std_error": None})
    '—'
    """
    value, error = (get(quantity, "value"), get(quantity, "std_error"))
    if value is None or scale is None:
        return MISSING
    if error is None:
        return f"{value * scale:.3f} (no error)"
    places = decimals(error * scale)
    return f"{value * scale:.{places}f} ± {error * scale:.{places}f}"


def interval(quantity: Mapping[str, Any] | None, scale: Real | None = 1.0) -> str:
    """The 95 % interval as `low to high`, with the decimals of the error.

    >>> interval({"value": -7.09, "std_error": 0.05, "ci95": [-7.19, -6.99]})
    '-7.190 to -6.990'
    """
    ends, error = get(quantity, "ci95"), get(quantity, "std_error")
    if scale is None or not ends or None in ends:
        return MISSING
    places = decimals(None if error is None else error * scale)
    return f"{ends[0] * scale:.{places}f} to {ends[1] * scale:.{places}f}"


def get(mapping: Mapping[str, Any] | None, *keys: str) -> Any:
    """The entry under nested keys, None where any of them is missing."""
    found: Any = mapping
    for key in keys:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def fixed(value: Real | None, places: int = 2) -> str:
    """A plain decimal number, or a dash.

    >>> fixed(0.391), fixed(None)
    ('0.39', '—')
    """
    return MISSING if value is None else f"{value:.{places}f}"


def directions(pair: Mapping[str, Any] | None, separator: str = " / ") -> str:
    """Forward and reverse side by side; small ones keep two digits.

    >>> directions({"forward": 0.2, "reverse": None}), directions({"forward": 0.0042, "reverse": 1.3})
    ('0.20 / —', '0.0042 / 1.30')
    """
    both = get(pair, "forward"), get(pair, "reverse")
    if both == (None, None):
        return MISSING
    small = [value is not None and 0 < abs(value) < 0.0995 for value in both]
    return separator.join(f"{value:.2g}" if tiny else fixed(value) for value, tiny in zip(both, small, strict=True))


def effective(ess: Mapping[str, Any] | None) -> str:
    """The forward effective fraction with its error.

    >>> effective({"forward": 0.912, "forward_error": 0.004}), effective({"forward": 0.0012, "forward_error": None})
    ('0.912 ± 0.004', '0.0012')
    """
    value, error = get(ess, "forward"), get(ess, "forward_error")
    if value is None:
        return MISSING
    if not error:
        return f"{value:.2g}" if 0 < value < 0.0995 else fixed(value, 3)
    places = max(3, decimals(error) - 1)
    return f"{value:.{places}f} ± {error:.{places}f}"


def count(n: Real | None) -> str:
    """A count in two or three digits.

    >>> [count(n) for n in (0, 712, 2_640, 26_400, 999_600, 1_234_567, None)]
    ['0', '712', '2.6k', '26k', '1M', '1.2M', '—']
    """
    if n is None:
        return MISSING
    for size, suffix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        scaled = n / size
        if scaled >= 0.9995:
            return (f"{scaled:.1f}".removesuffix(".0") if scaled < 9.95 else f"{scaled:.0f}") + suffix
    return f"{n:.0f}"


def exact(n: Real | None) -> str:
    """A count in full, its thousands apart.

    >>> exact(1234567)
    '1,234,567'
    """
    return MISSING if n is None else f"{n:,.0f}"


def duration(seconds: Real | None) -> str:
    """A time with the unit that suits it.

    >>> [duration(s) for s in (0.348, 12.34, 754.0, 5400.0, None)]
    ['0.35 s', '12 s', '12.6 min', '1.5 h', '—']
    """
    if seconds is None:
        return MISSING
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= 0.995 * size:
            return f"{seconds / size:.1f}".removesuffix(".0") + f" {unit}"
    return f"{seconds:.2g} s" if seconds < 9.95 else f"{seconds:.0f} s"


def shorten(text: str, width: int = 40) -> str:
    """At most `width` characters, cut with an ellipsis.

    >>> shorten("a long label", 7)
    'a long…'
    """
    return text if len(text) <= width else text[: width - 1].rstrip() + "…"


def listing(items: Sequence[str]) -> str:
    """Items joined as in a sentence.

    >>> listing(["plain", "map", "feat"])
    'plain, map and feat'
    """
    return " and ".join(filter(None, [", ".join(items[:-1]), *items[-1:]]))


def state_label(result: Mapping[str, Any], state: str) -> str:
    """The name of `state_a` or `state_b`, or its letter."""
    return str(get(result, "labels", state) or {"state_a": "A", "state_b": "B"}.get(state, state))


def state_labels(result: Mapping[str, Any]) -> tuple[str, str]:
    """The names of A and B."""
    return state_label(result, "state_a"), state_label(result, "state_b")


def calls(evaluations: Mapping[str, Any] | None, state: str, *stages: str) -> int | None:
    """Energy plus gradient evaluations of one state over stages; None where nothing was counted."""
    counted = [get(evaluations, state, stage, kind) for stage in stages for kind in ("energy", "gradient")]
    known = [n for n in counted if n is not None]
    return sum(known) if known else None


def kcal_factor(result: Mapping[str, Any]) -> Real | None:
    """kcal/mol per kT, None where the result itself refuses the conversion."""
    temperature = result.get("temperature")
    if temperature is None or result.get("delta_f_kcal_per_mol") is None:
        return None
    return GAS_CONSTANT["kcal/mol"] * temperature


def is_pilot(rung: Mapping[str, Any]) -> bool:
    """Whether a rung was not climbed, so that its numbers come from pilot samples."""
    return rung.get("block") == "select"


def status(rung: Mapping[str, Any]) -> str:
    """What became of a rung, in words."""
    if rung.get("chosen"):
        return "chosen"
    return "pilot only" if is_pilot(rung) else ""


def chosen(result: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The entry of the chosen rung or attempt."""
    return next((entry for entry in (*rungs(result), *attempts(result)) if entry.get("chosen")), None)


def rungs(result: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """All rungs, in the order they were tried."""
    return result.get("rungs") or []


def attempts(result: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """All attempts at a density, in the order they were made."""
    return result.get("attempts") or []


def estimators(result: Mapping[str, Any]) -> Mapping[str, Any]:
    """All estimators by name."""
    return result.get("estimators") or {}


def estimator_name(result: Mapping[str, Any], key: str) -> str:
    """An estimator in words, without a rung where the result has none.

    >>> estimator_name({}, "bar"), estimator_name({"rungs": [{"name": "map"}]}, "bar")
    ('BAR', 'BAR, chosen rung')
    """
    return "BAR" if key == "bar" and not rungs(result) else ESTIMATORS.get(key, key)


def pilot_note(rung: Mapping[str, Any]) -> str:
    """Why a rung was not climbed."""
    note = get(rung, "pilot", "note")
    return f"not climbed, numbers from the pilot samples only{': ' + note if note else ''}"


def bound_line(bounds: Mapping[str, Any] | None, quantity: str = "ΔF", unit: str = " kT") -> str:
    """`lower ≤ ΔF ≤ upper kT`, with the limits that allow for the sampling error."""
    lower, upper = get(bounds, "lower"), get(bounds, "upper")
    if lower is None and upper is None:
        return "none"
    places = bound_places(bounds)
    limits = [fixed(get(bounds, end), places) for end in ("lower_limit", "upper_limit")]
    between = f"{fixed(lower, places)} ≤ {quantity} ≤ {fixed(upper, places)}{unit}"
    return f"{between}; with sampling error {limits[0]} to {limits[1]}"


def bound_places(bounds: Mapping[str, Any] | None) -> int:
    """Decimals that tell the two bounds apart, two at least.

    >>> bound_places({"lower": -0.0052, "upper": 0.0031}), bound_places({"lower": -31.0, "upper": None})
    (4, 2)
    """
    lower, upper = get(bounds, "lower"), get(bounds, "upper")
    return 2 if lower is None or upper is None else max(2, decimals(upper - lower))


def weighted_line(bounds: Mapping[str, Any] | None, quantity: str = "ΔF", unit: str = " kT") -> str | None:
    """The importance-weighted bounds as one line, None where there are none."""
    weighted = get(bounds, "importance_weighted")
    if get(weighted, "lower") is None and get(weighted, "upper") is None:
        return None
    return f"{bound_line(weighted, quantity, unit)} (groups of {group_sizes(weighted)} works)"


def group_sizes(weighted: Mapping[str, Any] | None) -> str:
    """Works per group of the importance-weighted bounds, forward and reverse."""
    sizes = get(weighted, "group_size")
    return MISSING if not sizes else " and ".join(str(size) for size in dict.fromkeys(sizes))


def known(reference: Mapping[str, Any] | None) -> str:
    """A reference with its error, or as exact.

    >>> known({"value": -0.2968, "std_error": 0.0}), known({"value": 7.49, "std_error": 0.02})
    ('-0.297 (exact)', '7.490 ± 0.020')
    """
    if get(reference, "std_error") == 0:
        return f"{get(reference, 'value'):.3f} (exact)"
    return plus_minus(reference)


def reference_line(result: Mapping[str, Any], unit: str = " kT") -> str | None:
    """The reference, its source, and how far away this result is; None without a reference."""
    reference = result.get("reference")
    if not reference:
        return None
    source, z = reference.get("source"), result.get("z_score")
    distance = "" if z is None else f"; this result is {z:+.1f} standard errors from it"
    value = plus_minus(reference) if reference.get("std_error") != 0 else fixed(reference.get("value"), 3)
    return f"{value}{unit}{f' ({source})' if source else ''}{distance}"


def endstate_line(state: Mapping[str, Any]) -> str:
    """The equilibrium samples of one end in one line.

    >>> endstate_line({"replicas": 4, "frames": 2800, "r_hat": 1.01})
    '4 replicas, 2,800 frames, R-hat 1.01'
    """
    phrases = {
        "replicas": lambda n: f"{n} replica{'' if n == 1 else 's'}",
        "frames": lambda n: f"{exact(n)} frames",
        "equilibration_frames": lambda n: f"{exact(n)} more discarded as equilibration",
        "statistical_inefficiency": lambda g: f"statistical inefficiency {g:.1f} frames",
        "r_hat": lambda r: f"R-hat {r:.2f}",
        "energies": lambda engine: f"energies by {engine.split(':')[0]}",
    }
    return ", ".join(words(state[key]) for key, words in phrases.items() if state.get(key) is not None)


def plain_words(value: object) -> str:
    """Any entry of a result, as it stands in a table."""
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return exact(value)
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {plain_words(entry)}" for key, entry in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(plain_words(entry) for entry in value)
    return str(value)


def stage_times(result: Mapping[str, Any], stages: Mapping[str, str] = STAGES) -> str:
    """Where the time went."""
    times = result.get("seconds") or {}
    parts = [f"{name} {duration(times[stage])}" for stage, name in stages.items() if times.get(stage) is not None]
    return f"{duration(times.get('total'))}{' (' + ', '.join(parts) + ')' if parts else ''}"


def flags(result: Mapping[str, Any]) -> list[Flag]:
    """Every distinct flag of run, rungs, attempts and estimators; a repeated one is named where it stands first."""
    seen: set[tuple[str, str]] = set()
    found = []
    for flag in _all_flags(result):
        if flag[1:] not in seen:
            seen.add(flag[1:])
            found.append(flag)
    return found


def _all_flags(result: Mapping[str, Any]) -> Iterator[Flag]:
    sources: list[tuple[str, Mapping[str, Any]]] = [("whole run", result)]
    sources += [(f"rung {rung.get('name')}", rung) for rung in rungs(result)]
    sources += [(str(attempt.get("name")), attempt) for attempt in attempts(result)]
    sources += [(estimator_name(result, str(key)), value) for key, value in estimators(result).items() if value]
    for about, source in sources:
        for flag in source.get("flags") or []:
            yield Flag(about, str(flag.get("code")), str(flag.get("message")))


def settings(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What was run, by what.

    >>> settings({"system": "phi4-8", "seed": 0, "versions": {"torch": "2.4.0"}})
    [('system', 'phi4-8'), ('seed', '0'), ('torch', '2.4.0')]
    """
    found = [(key, plain_words(result[key])) for key in SETTINGS if result.get(key) is not None]
    return [("nessampler" if key == "version" else key, value) for key, value in found] + [
        (name, str(version)) for name, version in (result.get("versions") or {}).items()
    ]


def command(result: Mapping[str, Any]) -> str:
    """The command line that repeats the run."""
    if result.get("command"):
        return str(result["command"])
    words = ["nessampler", "run", str(result.get("system"))]
    for option in ("method", "preset", "seed"):
        value = result.get(option)
        if value is not None and (option, value) != ("method", "auto"):
            words += [f"--{option}", str(value)]
    return shlex.join(words)


def again(result: Mapping[str, Any]) -> tuple[str, str]:
    """Another way to repeat the run, from what its directory keeps: in words, and its command line."""
    if result.get("kind") != "works":
        return "with everything resolved as it stands below", "nessampler run config.toml --out again"
    words = ["nessampler", "estimate", "works.nc", "--seed", str(result.get("seed"))]
    if result.get("temperature") is not None:
        words += ["--temperature", f"{result['temperature']:g} K"]
    return "from the works that it keeps, in kT", shlex.join([*words, "--out", "again"])
