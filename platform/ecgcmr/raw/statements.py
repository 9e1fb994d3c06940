"""What is known of a signal's rate, unit and leads: a file states it, or its user declares it.

One idea: no default stands in for a statement. What a file states is used; what it leaves open the
user declares (`--rate`, `--unit`, `--leads`), or the recording is refused; a declaration that
contradicts a statement is refused as well. Every reader asks here.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ecgcmr.errors import Excluded, InputError
from ecgcmr.signals import ecg

TO_MV = {"nv": 1e-6, "uv": 1e-3, "mv": 1.0, "v": 1e3}
_UNIT_WORDS = {"nanovolt": "nv", "microvolt": "uv", "millivolt": "mv", "volt": "v", "mcv": "uv"}
_TO_HZ = {"": 1.0, "hz": 1.0, "khz": 1e3, "sps": 1.0, "1/s": 1.0}
# Names by which programs state them beside an array or as an attribute, without case, signs, the
# prefixes and the suffix that `_name` takes off.
RATE_WORDS = (
    "fs sr rate sfreq freq frequency hz sps samplerate samplingrate samplefrequency sampfreq "
    "samplingfrequency samplingfreq samplefreq samplespersecond"
)
LEAD_WORDS = (
    "lead leads leadname leadnames leadorder channel channels channelname channelnames chnames "
    "signame signames signalname signalnames"
)
RATE_NAMES, LEAD_NAMES = (frozenset(words.split()) for words in (RATE_WORDS, LEAD_WORDS))
UNIT_NAMES = frozenset({"unit", "units"})
_PREFIX = re.compile("^(ecg|signal|tracings?|data|recording|voltage|amplitude|physical)(?=.)")
SIDECAR_LIMIT = 1 << 20  # bytes of the JSON beside an array


@dataclass(frozen=True)
class Declaration:
    """What a user declares of files that do not say it.

    Attributes:
        rate_hz: samples per second.
        unit: of the stored numbers, `mV`, `uV`, `V` or `nV`, with a number before it where a count
            is so much: `4.88uV`.
        leads: names in the order in which they are stored.
    """

    rate_hz: float | None = None
    unit: str = ""
    leads: tuple[str, ...] = ()

    def rate(self, stated_hz: float | None) -> float:
        """The sampling rate, Hz.

        Args:
            stated_hz: what the file states; None or 0 where it does not.

        Raises:
            Excluded: neither is there, or they contradict each other.
        """
        is_stated = stated_hz is not None and math.isfinite(stated_hz) and stated_hz > 0
        if self.rate_hz is None:
            if not is_stated:
                raise Excluded("sampling rate unknown: the file does not state it; give --rate HZ")
            return float(stated_hz or 0)
        if is_stated and abs(self.rate_hz - (stated_hz or 0)) > 1e-3 * self.rate_hz:
            raise Excluded("--rate contradicts the sampling rate that the file states")
        return float(stated_hz or 0) if is_stated else self.rate_hz

    def millivolts(self, stated_unit: str) -> float:
        """What one of the stored numbers is in mV.

        Args:
            stated_unit: as the file spells it; "" where it states none.

        Raises:
            Excluded: neither is there, they contradict each other, or it is no voltage.
        """
        if not stated_unit.strip():
            if not self.unit:
                raise Excluded("unit unknown: the file does not state it; give --unit, e.g. mV")
            return millivolts(self.unit)
        factor = millivolts(stated_unit)
        if self.unit and not math.isclose(factor, millivolts(self.unit), rel_tol=1e-3):
            raise Excluded("--unit contradicts the unit that the file states")
        return factor

    def names(self, stated_names: Sequence[str]) -> tuple[str, ...]:
        """The leads in the order in which they are stored; empty where nobody says.

        Raises:
            Excluded: the declared ones contradict those that the file states.
        """
        self.check_names(stated_names)
        return tuple(stated_names) or self.leads

    def check_names(self, stated_names: Sequence[str]) -> None:
        """Refuse declared leads that contradict those that a file states.

        Raises:
            Excluded: they do.
        """
        if not self.leads or not stated_names:
            return
        pairs = zip(map(ecg.lead_name, self.leads), map(ecg.lead_name, stated_names))
        if len(self.leads) != len(stated_names) or any(a != b for a, b in pairs):
            raise Excluded("--leads contradicts the leads that the file states")

    def as_json(self) -> dict[str, object]:
        """What is declared, as JSON values; empty for nothing."""
        values = {"rate_hz": self.rate_hz, "unit": self.unit, "leads": list(self.leads)}
        return {name: value for name, value in values.items() if value}


UNDECLARED = Declaration()


def declaration(
    rate_hz: float | None = None, unit: str | None = None, leads: str | Sequence[str] | None = None
) -> Declaration:
    """What a user declares, checked.

    Args:
        rate_hz, unit: see `Declaration`.
        leads: names, or one text with commas between them.

    Raises:
        InputError: it is no rate, no voltage, or names something else than leads.
    """
    low, high = ecg.RATES_HZ
    if rate_hz is not None and not low <= rate_hz <= high:
        raise InputError(f"--rate {rate_hz:g}: not between {low:g} and {high:g} Hz")
    try:
        millivolts(unit or "mV")
    except Excluded:
        raise InputError(f"--unit {unit}: not a voltage; give mV, uV, V or nV") from None
    words = leads.split(",") if isinstance(leads, str) else leads or ()
    names = tuple(word.strip() for word in words if word.strip())
    _check_leads(names)
    return Declaration(rate_hz, (unit or "").strip(), names)


def _check_leads(names: tuple[str, ...]) -> None:
    """A row that is none of the twelve has a name as well: `-`."""
    leads = [lead for name in names if (lead := ecg.lead_name(name))]
    unknown = [name for name in names if name != "-" and not ecg.lead_name(name)]
    if unknown:
        leads_known = ",".join(ecg.LEADS)
        raise InputError(
            f"--leads: '{unknown[0]}' is no lead; known: {leads_known}, and - for any other"
        )
    if names and (len(set(leads)) != len(leads) or not leads):
        raise InputError("--leads: name each lead once, as many as are stored")


def of_json(values: Mapping[str, object]) -> Declaration:
    """The declaration that `Declaration.as_json` has written."""
    fields = dict(values)
    fields["leads"] = tuple(fields.get("leads", ()))  # type: ignore[arg-type]
    return Declaration(**fields)  # type: ignore[arg-type]


def millivolts(unit: str) -> float:
    """What one of a unit is in mV: `uV`, `µV`, `mV`, `MICROVOLTS`, `4.88 uV` …, in any case.

    Raises:
        Excluded: it is not a voltage.
    """
    word = unit.strip().lower().replace("µ", "u").replace("μ", "u")
    match = re.fullmatch(r"(\d*\.?\d+(?:e-?\d+)?)?\s*([a-z]+)", word)
    name = match[2] if match else ""
    factor = TO_MV.get(_UNIT_WORDS.get(name.removesuffix("s"), name))
    size = float(match[1]) if match and match[1] else 1.0
    if factor is None or not 0 < size < math.inf:
        raise Excluded("unit is not a voltage")
    return size * factor


def hertz(value: object) -> float | None:
    """A rate as it may be stated, a number or words such as `500 Hz`; None for what is none."""
    match = re.fullmatch(r"([\d.eE+-]+)\s*([a-z/1]*)", str(value).strip().lower())
    if not match or match[2] not in _TO_HZ:
        return None
    try:
        rate_hz = float(match[1]) * _TO_HZ[match[2]]
    except ValueError:
        return None
    return rate_hz if math.isfinite(rate_hz) and rate_hz > 0 else None


@dataclass(frozen=True)
class Statement:
    """What a file, or one beside it, says of an array: None, "" and () for what it does not."""

    rate_hz: float | None = None
    unit: str = ""
    leads: tuple[str, ...] = ()


def says(name: str) -> bool:
    """Whether a name is one under which rate, unit or leads are stated."""
    return _name(name) in RATE_NAMES | UNIT_NAMES | LEAD_NAMES


def is_leads(name: str) -> bool:
    """Whether a name is one under which leads are stated."""
    return _name(name) in LEAD_NAMES


def statement(items: Iterable[tuple[str, object]], row: int = 0, rows: int = 1) -> Statement:
    """Gather what is stated by names, such as `fs`, `sampling_rate`, `units` or `lead_names`.

    Args:
        items: name and value: a number, a text, an array or list of them.
        row, rows: which of how many recordings; a value for each of them counts for its own.

    Raises:
        Excluded: two statements contradict each other.
    """
    rates: list[float] = []
    units: list[str] = []
    names: list[tuple[str, ...]] = []
    for name, value in items:
        words = [_text(word) for word in _values(value)]
        kind = _name(name)
        if kind in LEAD_NAMES:
            names += [_lead_names(words)] if any(map(ecg.lead_name, _lead_names(words))) else []
            continue
        words = [words[row]] if len(words) == rows > 1 else words
        if kind in RATE_NAMES:
            rates += [rate for word in words if (rate := hertz(word))]
        elif kind in UNIT_NAMES:
            units += [word for word in words if word.strip()]
    if rates and not np.isclose(rates, rates[0], rtol=1e-3).all():
        raise Excluded("two sampling rates")
    if len({millivolts(unit) for unit in units}) > 1:
        raise Excluded("two units")
    if len(set(names)) > 1:
        raise Excluded("two orders of leads")
    return Statement(
        rates[0] if rates else None, units[0] if units else "", names[0] if names else ()
    )


def beside(file: Path) -> list[tuple[str, object]]:
    """What the JSON beside a file says, `x.json` or `x.npy.json` for `x.npy`, by name.

    Raises:
        Excluded: it is there and cannot be read.
    """
    items: list[tuple[str, object]] = []
    for path in (file.with_suffix(".json"), file.with_name(file.name + ".json")):
        if not path.is_file():
            continue
        try:
            if path.stat().st_size > SIDECAR_LIMIT:
                raise ValueError
            content = json.loads(path.read_text(encoding="utf-8"))
            items += [(str(name), value) for name, value in dict(content).items()]
        except (ValueError, TypeError, OSError, RecursionError):
            raise Excluded("unreadable JSON beside the array") from None
    return [(name, value) for name, value in items if says(name)]


def _name(name: str) -> str:
    """A name without case and signs, and without `ecg_` before and `_hz` behind it."""
    word = re.sub(r"[^a-z0-9]", "", name.lower())
    word = _PREFIX.sub("", word)
    return word.removesuffix("hz") or word


def _values(value: object) -> list[object]:
    """The entries of a list or an array, or the one value."""
    if isinstance(value, np.ndarray):
        return list(value.ravel()[:100_000])
    if isinstance(value, (list, tuple)):
        return list(value)
    return [] if isinstance(value, dict) or value is None else [value]


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _lead_names(words: Sequence[str]) -> tuple[str, ...]:
    """Names of a list, or of one text with commas or spaces between them."""
    if len(words) == 1:
        words = re.split(r"[,;\s]+", words[0].strip("[]() "))
    return tuple(word.strip(" '\"") for word in words)
