"""The judge of the fuzz run: makes a case of a seed, reads it as a cohort does, and says what is wrong with what came out.

A case must end in `Excluded` or `InputError`, in a line that stands in the source (so it can be counted and carries nothing
of the file), or in a recording that is the sound one but for what the damage may change. Faults are: any other exception,
a death or a silence of the process, much memory or time, a word of the person in anything that leaves a reader, files left
behind or code run, a recording beyond physics, and one that differs from the sound one in another way than allowed.
"""

import ast
import contextlib
import dataclasses
import importlib
import io
import itertools
import logging
import multiprocessing
import os
import re
import resource
import tempfile
import time
import traceback
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from multiprocessing import connection
from pathlib import Path

import numpy as np
from fuzz_seeds import REFUSED, SAMPLES, SECRETS, STATED, Files, Seed

import ecgcmr
from ecgcmr import raw, tasks
from ecgcmr.cohort import inspect
from ecgcmr.errors import Excluded, InputError
from ecgcmr.raw import records, search
from ecgcmr.signals import cmr, ecg

# How an accepted recording may differ from the sound one.
KINDS = {
    "samples": "no more samples than bytes were damaged have other values, or are missing",
    "gain": "whole leads, or all pixels, are multiples",
    "offset": "whole leads, or all pixels, are raised",
    "rate": "another sampling rate is stated",
    "spacing": "another size of pixels or distance of slices is stated",
    "length": "fewer samples or phases are stated, which are the first ones",
    "order": "leads bear each other's names",
    "skew": "a chest lead is at most `SKEWED` samples early or late, as a header states",
    "image": "within one slice, or outside of the middle three, images differ or are left out",
    "content": "anything else",
}
SKEWED = 3
CPU_SECONDS, SILENCE_SECONDS = 10.0, 60.0
MEMORY = 600 << 20  # what a case may take beyond what the process has
HARD_MEMORY = 3 << 30
MILLIVOLTS = (0.1, 5.0)  # height of a beat
HIGHEST_MV = 20.0
IN_PLANE_MM, BETWEEN_MM = (0.2, 5.0), (0.5, 50.0)


@dataclass(frozen=True)
class Outcome:
    """What came of a case: kept, or refused with a reason; and what is wrong with that, or ""."""

    case: str
    kept: bool = False
    reason: str = ""
    fault: str = ""


# -- cases -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """Damaged files of a seed; `allowed` as in fuzz_seeds.Field, `touched` bounds the damaged bytes."""

    name: str
    files: Files
    allowed: frozenset[str] | None
    touched: int


def case(seed: Seed, name: str, number: int) -> Case:
    """The case of that number: every field in turn, and damaged bytes between them; below 0 the sound files."""
    if number < 0:
        return Case(f"{name} as it is", seed.files, frozenset(), 0)
    rng = np.random.default_rng((zlib.crc32(name.encode()), number))
    if seed.fields and number % 2 == 0:
        field = seed.fields[number // 2 % len(seed.fields)]
        return Case(
            f"{name} #{number} {field.label}", field.make(seed.files, rng), field.allowed, 4
        )
    file = sorted(seed.files)[rng.integers(len(seed.files))]
    content, touched, what = damaged(seed.files[file], rng)
    files = {**seed.files, file: content}
    kinds = dict(seed.sealed).get(file, STATED | SAMPLES | {"image"})
    if "exchange" in what and file.endswith((".dat", ".mat")):
        kinds |= SAMPLES  # WFDB's checksum is a sum
    return Case(
        f"{name} #{number} {file}: {what}",
        seed.reseal(files) if seed.reseal else files,
        kinds,
        touched,
    )


def damaged(content: bytes, rng: np.random.Generator) -> tuple[bytes, int, str]:
    """One to three damages, mostly where headers are; the bytes that they touch, and their names."""
    body, touched, words = bytearray(content), 0, []
    for _ in range(rng.integers(1, 4)):
        damage = DAMAGES[rng.integers(len(DAMAGES))]
        region = min(len(body), (400, 4000, len(body), len(body))[rng.integers(4)])
        at = int(rng.integers(region)) if region else 0
        at = max(0, len(body) - 1 - at) if rng.random() < 0.25 else at
        size = min(int(rng.integers(1, 64)), len(body) - at)
        touched += damage(body, at, size, rng) or 0
        words.append(damage.__name__.strip("_"))
    return bytes(body), touched, ", ".join(words)


def _flip(body: bytearray, at: int, size: int, rng: np.random.Generator) -> int:
    for place in range(at, min(len(body), at + min(size, 3))):
        body[place] ^= 1 << int(rng.integers(8))
    return size


def _other(body: bytearray, at: int, size: int, rng: np.random.Generator) -> int:
    body[at : at + 1] = rng.bytes(1)
    return 1


def _zero(body: bytearray, at: int, size: int, rng: np.random.Generator) -> int:
    body[at : at + size] = bytes(size)
    return size


def _truncate(body: bytearray, at: int, size: int, rng: np.random.Generator) -> int:
    del body[at:]
    return 0


def _insert(body: bytearray, at: int, size: int, rng: np.random.Generator) -> int:
    body[at:at] = rng.bytes(size)
    return size


def _remove(body: bytearray, at: int, size: int, rng: np.random.Generator) -> int:
    del body[at : at + size]
    return size


def _repeat(body: bytearray, at: int, size: int, rng: np.random.Generator) -> int:
    body[at:at] = body[at : at + size]
    return size


def _exchange(body: bytearray, at: int, size: int, rng: np.random.Generator) -> int:
    there = int(rng.integers(max(1, len(body) - size)))
    # Where a text's samples would move against each other, nobody without a checksum could see it.
    here, other = body[at : at + size], body[there : there + size]
    same = all(here.count(mark) == other.count(mark) for mark in (b",", b" ", b"\n"))
    if abs(there - at) >= size and same:
        body[at : at + size], body[there : there + size] = (
            body[there : there + size],
            body[at : at + size],
        )
    return 2 * size


def _extreme(body: bytearray, at: int, size: int, rng: np.random.Generator) -> int:
    width = int(rng.choice([2, 4, 8]))
    at = at // width * width
    value = [0, -1, 1, 1 << 8 * width - 1, (1 << 8 * width - 1) - 1][rng.integers(5)]
    if at + width <= len(body):
        body[at : at + width] = (value % (1 << 8 * width)).to_bytes(
            width, "little" if rng.random() < 0.7 else "big"
        )
    return width


def _tail(body: bytearray, at: int, size: int, rng: np.random.Generator) -> int:
    """The rest is another file's: a disk that lost its place."""
    rest = len(body) - at
    words = ",".join(map(str, rng.integers(-300, 300, rest // 2 + 1)))
    body[at:] = words.encode()[:rest]
    return min(rest, 1000)


DAMAGES = (_flip, _other, _zero, _truncate, _insert, _remove, _repeat, _exchange, _extreme, _tail)


# -- one case ----------------------------------------------------------------------------------------------------------


def judge(seed: Seed, name: str, number: int) -> Outcome:
    """Run one case in an empty folder."""
    made = case(seed, name, number)
    with tempfile.TemporaryDirectory() as place, contextlib.chdir(place):
        for file, content in made.files.items():
            path = Path(place, "in", file)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        Path(place, "tmp").mkdir()
        before = _listing(place)
        started, base = time.process_time(), _memory(reset=True)
        with overheard() as said, _temporary(Path(place, "tmp")):
            outcome = _read(seed, made, Path(place, "in", seed.path))
            fault = outcome.fault or (
                _looked(Path(place, "in", seed.path)) if number % 4 == 1 else ""
            )
        if time.process_time() - started > CPU_SECONDS:
            fault = fault or f"took {time.process_time() - started:.0f} s"
        if _memory() - base > MEMORY:
            fault = fault or f"took {_memory() - base >> 20} MiB"
        if _listing(place) != before:
            fault = fault or "files were left or changed"
        if found := [secret for secret in SECRETS if secret in said.getvalue()]:
            fault = fault or f"'{found[0]}' was said aloud"
    return dataclasses.replace(outcome, fault=fault)


def _read(seed: Seed, made: Case, path: Path) -> Outcome:
    """Find, read and prepare what is at the path; the first fault, or the last reason."""
    reader, reason, kept = raw.READERS[seed.kind][seed.reader], "", False
    try:
        reader.suits(path, records.head(path))
        sources = reader.find(str(path))
    except InputError as error:
        return _refused(made, str(error).replace(str(path), "FILE"))
    except Exception as error:
        return Outcome(made.name, fault=where(error))
    for source in sources[:3]:
        try:
            record = reader.read(source)
            prepared = _prepared(record)
        except (Excluded, InputError) as error:
            outcome = _refused(made, str(error).replace(str(path.parent), "FILE"))
            reason = outcome.reason
        except Exception as error:
            return Outcome(made.name, fault=where(error))
        else:
            outcome = Outcome(
                made.name, kept=True, fault=_wrong(seed, made, source, record, prepared)
            )
            kept = True
        if outcome.fault:
            return outcome
    return Outcome(made.name, kept=kept, reason=reason)


def _looked(path: Path) -> str:
    """What is wrong with how `inspect` and `predict` find and tell such a file; "" for nothing."""
    told = ""
    try:
        for kind in raw.READERS:
            with contextlib.suppress(Excluded):
                search.recordings(kind, path)
        told = repr(
            [
                inspect.as_json(seen)
                for seen in itertools.islice(inspect.look(inspect.find(path)), 3)
            ]
        )
    except InputError as error:
        told = str(error)
    except Exception as error:
        return f"inspect: {where(error)}"
    found = [secret for secret in SECRETS if secret in told]
    return f"inspect: '{found[0]}' was told" if found else ""


def _prepared(record: raw.EcgRecord | raw.CmrRecord) -> np.ndarray:
    if isinstance(record, raw.CmrRecord):
        return cmr.prepare(record)[0]
    return ecg.prepare(record.signal, record.rate_hz, record.leads, cleaned=record.cleaned)[0]


def _refused(made: Case, reason: str) -> Outcome:
    head, colon, rest = reason.partition(
        ": "
    )  # "Einthoven's law violated" + ": I and aVR exchanged"
    stable = _ours(reason) or (_ours(head) and _ours(colon + rest))
    secret = [word for word in SECRETS if word in reason]
    fault = (
        ""
        if stable and not secret and "\n" not in reason
        else f"a reason that is not ours: {reason[:200]!r}"
    )
    return Outcome(made.name, reason=reason, fault=fault)


def _ours(text: str) -> bool:
    texts, patterns = _lines()
    return text in texts or any(pattern.fullmatch(text) for pattern in patterns)


@cache
def _lines() -> tuple[frozenset[str], tuple[re.Pattern[str], ...]]:
    """Every text of the package's source; those with holes as patterns with a short word or number for each hole."""
    texts, patterns = set(), set()
    for file in Path(ecgcmr.__path__[0]).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.add(node.value)
            elif isinstance(node, ast.JoinedStr):
                parts = [
                    re.escape(p.value) if isinstance(p, ast.Constant) else r"[\w .,+/-]{0,100}"
                    for p in node.values
                ]
                patterns.add("".join(parts))
    return (
        frozenset(text for text in texts if len(re.escape(text)) > 8),
        tuple(re.compile(pattern) for pattern in sorted(patterns) if len(pattern) > 8),
    )


def where(error: Exception) -> str:
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "ecgcmr" in f.filename] or [
        None
    ]
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames[-1] else ""
    return f"{type(error).__name__}{place}: {str(error)[:120]}"


# -- what was kept -----------------------------------------------------------------------------------------------------


def _wrong(seed: Seed, made: Case, source: str, record: object, prepared: np.ndarray) -> str:
    """What is wrong with a recording that was accepted; "" for nothing."""
    number = records.row(source)[1]
    if number >= len(seed.truths):
        return "a recording that is not there"
    if fault := _said(record):
        return fault
    if made.allowed is REFUSED:
        return "accepted"
    if isinstance(record, raw.EcgRecord):
        fault, kinds = (
            _beyond_ecg(record, prepared),
            _differences_ecg(seed, record, seed.truths[number], made.touched),
        )
    else:
        fault, kinds = (
            _beyond_cmr(record, prepared),
            _differences_cmr(seed, record, seed.truths[number], made.touched),
        )
    wrong = sorted(kinds - made.allowed)
    return fault or (f"accepted with another {', '.join(wrong)}" if wrong else "")


def _said(record: object) -> str:
    """Whether words or numbers beside the signal are none of a recording."""
    rest = {
        f.name: getattr(record, f.name)
        for f in dataclasses.fields(record)
        if f.name not in ("signal", "frames")
    }
    words = repr(rest)
    if found := [secret for secret in SECRETS if secret in words]:
        return f"'{found[0]}' left the reader: {words[:200]}"
    if isinstance(record, raw.EcgRecord):
        age, sex, labels = record.age, record.sex, record.labels
        if not (age is None or 0 <= age <= 120) or sex not in (None, 0.0, 1.0):
            return f"age {age}, sex {sex}"
        if any(value not in (0.0, 1.0) for value in labels.values()) or not all(
            map(str.isidentifier, _names(labels))
        ):
            return "labels that are none"
        for name, (low, high) in {"height": (30, 260), "weight": (1, 650)}.items():
            if (value := getattr(record, name)) is not None and not low <= value <= high:
                return f"{name} {value}"
    return "" if len(words) < 20_000 and "\\n" not in words else "more words than a recording needs"


def _names(labels: dict[str, float]) -> list[str]:
    return [f"a{name}" for name in labels]


def _beyond_ecg(record: raw.EcgRecord, prepared: np.ndarray) -> str:
    settled = np.nan_to_num(ecg.settle(record.signal, record.rate_hz, record.leads)).astype(
        np.float64
    )
    if (
        prepared.shape != (12, 5000)
        or prepared.dtype != np.float32
        or not np.isfinite(prepared).all()
    ):
        return "prepared to another form"
    if np.abs(prepared).max() > HIGHEST_MV:
        return f"{np.abs(prepared).max():.0f} mV"
    low, high = np.quantile(settled.reshape(12, 5, 1000), (0.01, 0.99), axis=2)
    height = np.median(high - low, axis=1)
    if (
        not MILLIVOLTS[0] <= np.median(height) <= MILLIVOLTS[1]
        or height.max() > HIGHEST_MV
        or height.min() < 1e-3
    ):
        return f"heights of {np.round(height, 3)} mV"
    if faults := list(ecg.faults(prepared.astype(np.float16))):
        return f"a cohort would hold what its own check refuses: {faults[0]}"
    worst = _lawless(settled)
    return f"limb leads break their laws by {worst:.2f}" if worst > 0.6 else ""


def _lawless(settled: np.ndarray) -> float:
    """By how much limb leads break Einthoven's and Goldberger's laws in their worst second, spikes passed over."""
    one, two, three, right, left, foot = settled[:6].reshape(6, 10, 500)
    laws = (
        one - two + three,
        right + (one + two) / 2,
        left - (one - three) / 2,
        foot - (two + three) / 2,
    )
    broken = np.quantile(np.abs(np.diff(laws, axis=2)), 0.9, axis=2).max(0)
    moved = np.quantile(np.abs(np.diff([one, two, three], axis=2)), 0.9, axis=2).mean(0)
    return float((broken / np.maximum(moved, np.median(moved))).max())


def _differences_ecg(
    seed: Seed, record: raw.EcgRecord, truth: np.ndarray, touched: int
) -> set[str]:
    rows = {
        ecg.lead_name(name): row.astype(np.float64)
        for name, row in zip(record.leads, record.signal)
    }
    if len([name for name in map(ecg.lead_name, record.leads) if name]) != len(
        rows.keys() - {None}
    ):
        return {"content"}
    derived = [lead for lead in ecg.LEADS if lead not in rows]
    for lead, (a, b) in {
        "III": (-1, 1),
        "aVR": (-0.5, -0.5),
        "aVL": (1, -0.5),
        "aVF": (-0.5, 1),
    }.items():
        if lead in derived:
            rows[lead] = a * rows["I"] + b * rows["II"]
    kinds = {"rate"} if not np.isclose(record.rate_hz, seed.rate_hz, rtol=1e-6) else set()
    length = record.signal.shape[1]
    if length > truth.shape[1]:
        return {"content"}
    if length < truth.shape[1]:
        kinds.add("length")
    length = min(length, int(np.ceil(10 * seed.rate_hz)))  # what comes after is not used
    spared = touched
    for lead, right in zip(ecg.LEADS, truth):
        # a derived lead differs by the rounding of the three
        found, spared = _differences(
            rows[lead][:length], right[:length], spared, 1e-2 if lead in derived else 2e-4
        )
        if "content" in found and any(
            "content" not in _differences(rows[lead][:length], other[:length], touched, 2e-4)[0]
            for name, other in zip(ecg.LEADS, truth)
            if name != lead
        ):
            found = {"order"}
        if "content" in found and lead.startswith("V") and _is_skewed(rows[lead], right, touched):
            found = {"skew"}
        kinds |= found
    return kinds


def _is_skewed(found: np.ndarray, right: np.ndarray, touched: int) -> bool:
    """Whether one is the other, some samples later."""
    length = min(len(found), len(right)) - SKEWED
    return any(
        "content" not in _differences(a[:length], b[by : by + length], touched, 2e-4)[0]
        for by in range(1, SKEWED + 1)
        for a, b in ((found, right), (right, found))
    )


def _differences(
    found: np.ndarray, right: np.ndarray, spared: int, tolerance: float
) -> tuple[set[str], int]:
    """How numbers differ from the right ones, and how many odd ones of `spared` are left; both of one shape."""
    with np.errstate(all="ignore"):
        if (np.abs(found - right) <= tolerance).all():
            return set(), spared
        rises, truly = np.diff(found), np.diff(right)
        steep = np.abs(truly) >= max(np.quantile(np.abs(truly), 0.9), 1e-9)
        scale = np.nanmedian(rises[steep] / truly[steep])
        base = np.nanmedian(found - scale * right)
        off = np.abs(found - scale * right - base) > tolerance * max(1, abs(scale)) + 1e-6 * abs(
            base
        )
    odd = int(off.sum() + (~np.isfinite(found)).sum())
    if not np.isfinite(scale) or scale <= 0 or odd > spared:
        return {"content"}, spared
    kinds = {"samples"} if odd else set()
    kinds |= {"gain"} if abs(scale - 1) > 1e-3 else set()
    kinds |= {"offset"} if abs(base) > 1e-3 * max(1, abs(scale)) else set()
    return kinds, spared - odd


def _beyond_cmr(record: raw.CmrRecord, prepared: np.ndarray) -> str:
    slices, *plane = record.spacing_mm
    if (
        not all(IN_PLANE_MM[0] <= side <= IN_PLANE_MM[1] for side in plane)
        or not BETWEEN_MM[0] <= slices <= BETWEEN_MM[1]
    ):
        return f"spacing of {record.spacing_mm} mm"
    if (
        prepared.shape != (3, cmr.SIZE, cmr.SIZE)
        or prepared.dtype != np.uint8
        or np.ptp(prepared) < 100
    ):
        return "prepared to another form"
    for name, value in record.labels.items():
        low, high, *_ = tasks.LIMITS[name]
        if not low < value < high:
            return f"{name} {value}"
    times = record.trigger_ms
    if times is not None and not (
        np.isfinite(times).all() and len(times) == record.frames.shape[1]
    ):
        return "times that are none"
    return ""


def _differences_cmr(
    seed: Seed, record: raw.CmrRecord, truth: np.ndarray, touched: int
) -> set[str]:
    kinds = (
        set()
        if np.allclose(record.spacing_mm, seed.spacing_mm, rtol=1e-3, atol=0.06)
        else {"spacing"}
    )
    found = record.frames.astype(np.float64)
    if found.shape[1] < truth.shape[1]:
        kinds.add("length")
        truth = truth[:, : found.shape[1]]
    if found.shape != truth.shape:
        return {"content"}
    different, _ = _differences(found.ravel(), truth.ravel().astype(np.float64), touched, 1e-2)
    if "content" not in different:
        return kinds | different
    slices = [i for i in range(len(truth)) if not np.allclose(found[i], truth[i], equal_nan=False)]
    middle = len(truth) // 2
    spared = len(slices) == 1 or not {middle - 1, middle, middle + 1} & set(slices)
    return kinds | ({"image"} if spared else different)


# -- surroundings ------------------------------------------------------------------------------------------------------


def _listing(place: str) -> list[tuple[str, int, int]]:
    return sorted(
        (str(p), p.stat().st_size, p.stat().st_mtime_ns)
        for p in Path(place).rglob("*")
        if p.is_file()
    )


def _memory(*, reset: bool = False) -> int:
    """Bytes that the process holds, or held at most since the last reset; 0 where the system does not say."""
    with contextlib.suppress(OSError):
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        found = re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())
        return int(found[1]) * 1024 if found else 0
    return 0


@contextlib.contextmanager
def overheard() -> Iterator[io.StringIO]:
    """Everything that is logged, warned of or written."""
    said = io.StringIO()
    handler = logging.StreamHandler(said)
    logging.getLogger().addHandler(handler)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(said),
            contextlib.redirect_stderr(said),
        ):
            warnings.simplefilter("always")
            warnings.showwarning = lambda message, *_, **__: said.write(f"{message}\n")
            yield said
    finally:
        logging.getLogger().removeHandler(handler)


@contextlib.contextmanager
def _temporary(folder: Path) -> Iterator[None]:
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before


# -- many cases, in processes ------------------------------------------------------------------------------------------


def run(
    work: Iterable[tuple[str, int]],
    table: str,
    processes: int = 2,
    first: str = "",
    silence: float = SILENCE_SECONDS,
) -> Iterator[Outcome]:
    """Judge cases, (name of a seed, number), in processes of their own; one that dies or is silent is a fault.

    Args:
        work: the cases.
        table: `module:function` that gives name -> Seed.
        processes: how many at once.
        first: `module:function` that is called in each process before its first case.
        silence: seconds after which a process is given up.
    """
    todo, crew = iter(work), [_Hand(table, first, silence) for _ in range(processes)]
    try:
        while busy := {hand.pipe: hand for hand in crew if hand.give(todo)}:
            ready = connection.wait(list(busy), timeout=1.0)
            for hand in busy.values():
                if outcome := hand.take(hand.pipe in ready):
                    yield outcome
    finally:
        for hand in crew:
            hand.stop()


class _Hand:
    """One process and the case that it has."""

    def __init__(self, table: str, first: str, silence: float) -> None:
        self.how, self.silence, self.case, self.since = (table, first), silence, None, 0.0
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, there = context.Pipe()
        self.process = context.Process(target=_serve, args=(there, *self.how), daemon=True)
        self.process.start()
        there.close()
        self.pipe.recv()  # it is ready: imports do not count as silence

    def give(self, todo: Iterator[tuple[str, int]]) -> bool:
        """Take the next case if there is none; whether there is one now."""
        if self.case is None and (following := next(todo, None)):
            self.case, self.since = following, time.monotonic()
            self.pipe.send(following)
        return self.case is not None

    def take(self, ready: bool) -> Outcome | None:
        """The outcome, if there is one; after a death or a long silence the process is replaced."""
        name = "{} #{}".format(*self.case)
        if ready:
            try:
                outcome = self.pipe.recv()
            except EOFError:
                self.process.join()
                outcome = Outcome(
                    name, fault=f"the process died, exit code {self.process.exitcode}"
                )
                self._start()
        elif time.monotonic() - self.since > self.silence:
            self.stop()
            outcome = Outcome(name, fault=f"silent for {self.silence:.0f} s")
            self._start()
        else:
            return None
        self.case = None
        return outcome

    def stop(self) -> None:
        self.process.kill()
        self.process.join()


def _serve(pipe: connection.Connection, table: str, first: str) -> None:
    seeds: dict[str, Seed] = _named(table)()
    if first:
        _named(first)()
    size = (
        re.search(r"VmSize:\s*(\d+)", Path("/proc/self/status").read_text())
        if os.path.exists("/proc")
        else None
    )
    if size:
        resource.setrlimit(resource.RLIMIT_AS, (int(size[1]) * 1024 + HARD_MEMORY,) * 2)
    pipe.send(None)
    while True:
        name, number = pipe.recv()
        pipe.send(judge(seeds[name], name, number))


def _named(place: str) -> Callable:
    module, _, function = place.partition(":")
    return getattr(importlib.import_module(module), function)
