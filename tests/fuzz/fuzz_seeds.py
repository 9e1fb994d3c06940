"""What the fuzz run starts from: sound small files for every reader, each with a person in it, and changes of fields.

A change says what may come of it. `REFUSED`: nothing but a reason. Otherwise the ways in which an accepted recording may
differ from the sound one (`fuzz_judge.KINDS`); the empty set: not at all. What a file says of a recording it may change
within reason (the gain of a lead, the rate): nobody can tell. Shifted, exchanged or repeated samples it may not.
"""

import copy
import io
import pickle
import re
import struct
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import handmade_exports as made
import numpy as np
import test_raw_code15
import test_raw_ecg_dicom as waveform
import test_raw_text
import test_raw_wfdb
import torch
from pydicom.dataset import Dataset

from ecgcmr import raw
from ecgcmr.raw import normalised
from ecgcmr.signals import ecg

Files = dict[str, bytes]
REFUSED = None
SAME: frozenset[str] = frozenset()
GAIN, RATE, OFFSET, ORDER = (
    frozenset({"gain"}),
    frozenset({"rate"}),
    frozenset({"offset"}),
    frozenset({"order"}),
)
SAMPLES, SPACING = frozenset({"samples"}), frozenset({"spacing"})
SKEW = frozenset({"skew"})
STATED = (
    GAIN | RATE | OFFSET | frozenset({"length", "spacing"})
)  # what a header may say as it likes
ANYTHING = STATED | ORDER | SAMPLES | SKEW | frozenset({"content", "image"})
SECRETS = (
    made.FIRST,
    made.LAST,
    made.ID,
    made.CLINIC,
    made.DOCTOR,
    made.SERIAL,
    "Brugada",
    "19510423",
    "M\xfcller",
    *(word.split("^")[0] for word in waveform.SECRETS),
    "Jane Roe",
    "4711004711",
    "Rumpelstilz",
)
NAME = "Rumpelstilz"  # what is written where a number or a code belongs
EXTREMES = (
    "NaN",
    "inf",
    "-inf",
    "1e308",
    "-1",
    "0",
    "",
    "99999999999999999999",
    "1e-308",
    NAME,
    "0x10",
    "1_0",
    "１",
)


@dataclass(frozen=True)
class Field:
    """A change of one field: `make(files, rng)` gives the changed files."""

    label: str
    make: Callable[[Files, np.random.Generator], Files]
    allowed: frozenset[str] | None


@dataclass(frozen=True)
class Seed:
    """A sound source.

    Attributes:
        kind, reader: its place in raw.READERS.
        files: name -> content; `path` is the one that is named to `find`.
        truths: its recordings: ECGs (12, n) mV, or stacks (slices, phases, height, width).
        rate_hz, spacing_mm: of these.
        fields: changes of fields.
        sealed: file -> which kinds damaged bytes in it may bring in spite of its checksums.
        reseal: makes the checksums of damaged files right again.
    """

    kind: str
    reader: str
    files: Files
    path: str
    truths: tuple[np.ndarray, ...]
    rate_hz: float = 500.0
    spacing_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    fields: tuple[Field, ...] = ()
    sealed: tuple[tuple[str, frozenset[str]], ...] = ()
    reseal: Callable[[Files], Files] | None = None


def sub(
    label: str,
    file: str,
    pattern: str,
    *words: str,
    allowed: frozenset[str] | None,
    every: bool = False,
) -> Field:
    """Replace what `pattern` finds (its group, if it has one), in one place or everywhere, by one of `words`."""

    def make(files: Files, rng: np.random.Generator) -> Files:
        text = files[file].decode("latin-1")
        word = words[rng.integers(len(words))]
        found = list(re.finditer(pattern, text))
        assert found, f"{label}: {pattern} is not in {file}"
        chosen = found if every else [found[rng.integers(len(found))]]
        for match in reversed(chosen):
            start, end = match.span(1 if match.re.groups else 0)
            text = text[:start] + word + text[end:]
        return {**files, file: text.encode("latin-1", errors="replace")}

    return Field(label, make, allowed)


def exchange(label: str, file: str, a: str, b: str, *, allowed: frozenset[str] | None) -> Field:
    """Exchange two words wherever they stand."""

    def make(files: Files, rng: np.random.Generator) -> Files:
        text = files[file].decode("latin-1")
        assert a in text
        assert b in text
        text = text.replace(a, "\0").replace(b, a).replace("\0", b)
        return {**files, file: text.encode("latin-1")}

    return Field(label, make, allowed)


def content(
    label: str, file: str, *made_: Callable[[], bytes], allowed: frozenset[str] | None
) -> Field:
    """Put another content in a file's place."""
    return Field(
        label, lambda files, rng: {**files, file: made_[rng.integers(len(made_))]()}, allowed
    )


# -- WFDB --------------------------------------------------------------------------------------------------------------

COMMENTS = (
    f"# Name: {made.FIRST} {made.LAST}\n# Age: 67\n# Sex: F\n# ID: {made.ID}\n# Dx: 426783006\n"
)
TABLE = (
    "ecg_id,patient_id,age,sex,height,weight,scp_codes,filename_lr,filename_hr,report\n"
    f"1,15709.0,56.0,1,168,63.0,\"{{'NORM': 100.0}}\",records100/r1,records500/r1,{made.STATEMENT}\n"
)


def counts_of(
    signal: np.ndarray, *, samples: int = 5000, rate: int = 500
) -> tuple[Files, np.ndarray]:
    with tempfile.TemporaryDirectory() as folder:
        test_raw_wfdb.write(Path(folder), signal, COMMENTS, rate=rate)
        files = {name: Path(folder, name).read_bytes() for name in ("r1.hea", "r1.dat")}
    return files, signal.astype("<i2") / 1000


def wfdb_seeds() -> list[Seed]:
    hea = "r1.hea"
    fields = (
        sub(
            "no gain",
            hea,
            r"1000(?=/mV)",
            "0",
            "-1000",
            "1e308",
            "1e-308",
            "99999999",
            "",
            allowed=REFUSED,
            every=True,
        ),
        sub(
            "one gain is absurd",
            hea,
            r"1000(?=/mV)",
            "0.001",
            "1e9",
            "-1000",
            "10",
            allowed=REFUSED,
        ),
        sub("gain of one lead", hea, r"1000(?=/mV .* V\d\n)", "900", "1500", allowed=GAIN),
        sub("unit", hea, r"/(mV)", "uV", "V", "mmHg", "bpm", NAME, allowed=SAME, every=True),
        sub("unit of one lead", hea, r"/(mV)", "uV", "V", "mmHg", NAME, allowed=REFUSED),
        sub(
            "rate is none",
            hea,
            r"^r1 12 (\d+)",
            "0",
            "-500",
            "NaN",
            "1e308",
            "1e-308",
            NAME,
            "7",
            allowed=REFUSED,
        ),
        sub("another rate", hea, r"^r1 12 (\d+)", "250", "499.5", "100", allowed=RATE),
        sub(
            "length",
            hea,
            r"^r1 12 \d+ (\d+)",
            "4999",
            "5001",
            "0",
            "-5",
            "999999999999",
            NAME,
            allowed=REFUSED,
        ),
        sub(
            "number of leads",
            hea,
            r"^r1 (\d+)",
            "11",
            "13",
            "0",
            "-1",
            "99999999",
            NAME,
            allowed=REFUSED,
        ),
        sub(
            "format",
            hea,
            r"\.dat (16)",
            "212",
            "80",
            "61",
            "310",
            "8",
            "32",
            "508",
            NAME,
            allowed=SAME,
        ),
        sub(
            "byte offset",
            hea,
            r"\.dat (16)",
            "16+2",
            "16+24",
            "16x2",
            "16+-2",
            allowed=SAME,
        ),
        # what a header says of when a chest lead was taken no law can contradict
        sub("skew of a chest lead", hea, r"\.dat (16)(?= .* V\d\n)", "16:3", allowed=SKEW),
        sub("skew of a limb lead", hea, r"\.dat (16)(?= .* I{1,2}\n)", "16:3", allowed=REFUSED),
        sub(
            "outside",
            hea,
            r"(r1\.dat)",
            "../r1.dat",
            "/etc/passwd",
            "s3://a/r1.dat",
            "..\\r1.dat",
            allowed=REFUSED,
        ),
        sub("another file", hea, r"(r1\.dat)", "r1.hea", "no.dat", ".", "~", NAME, allowed=REFUSED),
        sub("checksum", hea, r" (-?\d+) 0 \w+\n", "1", "-1", "65536", allowed=REFUSED),
        sub("checksum is a word", hea, r" (-?\d+) 0 \w+\n", NAME, "1e3", allowed=SAME),
        sub("first value", hea, r"16 0 (-?\d+) ", "1", NAME, "99999999999", allowed=SAME),
        sub("lead twice", hea, r"(?m) (V1)$", "V2", "aVR", allowed=REFUSED),
        sub("no lead", hea, r"(?m)(V\d)$", NAME, "V7", "", "CH1", allowed=REFUSED),
        sub(
            "lead in another spelling",
            hea,
            r"(?m)(V1)$",
            "v1",
            "ECG V1",
            "C1",
            "MDC_ECG_LEAD_V1",
            allowed=SAME,
        ),
        exchange("chest leads exchanged", hea, " V1\n", " V5\n", allowed=ORDER),
        exchange("limb leads exchanged", hea, " I\n", " aVF\n", allowed=REFUSED),
        sub("multi-segment", hea, r"^r1", "r1/2", "r1.mat", "../r1", NAME, "r1/0", allowed=SAME),
        sub("comment", hea, r"# (?:Age|Sex|Dx): (.*)", *EXTREMES, made.ID, "4" * 500, allowed=SAME),
    )
    sealed = (("r1.hea", STATED), ("r1.dat", SAME))
    files, truth = counts_of(test_raw_wfdb.beats())
    slow, slow_truth = counts_of(1000 * made.beats(samples=1200, rate=100), samples=1200, rate=100)
    base = Seed("ecg", "wfdb", files, hea, (truth,), fields=fields, sealed=sealed)
    table = "ptbxl_database.csv"
    rows = (
        sub("table's number", table, r"(?<=\n1,)(15709.0)", *EXTREMES, allowed=SAME),
        sub(
            "table's age, sex, size", table, r"(?<=,)(56.0|168|63.0)(?=,)", *EXTREMES, allowed=SAME
        ),
        sub(
            "statements",
            table,
            r"\{'NORM': 100.0\}",
            f"{{'{NAME}': 1}}",
            NAME,
            f"'{NAME}'",
            "1",
            "[[]]",
            "(" * 500,
            "{[]: 1}",
            "__import__('os').abort()",
            "None",
            "-" * 20_000 + "1",
            "9" * 9000,
            allowed=SAME,
        ),
        sub(
            "column",
            table,
            r"(?<=,)(age|scp_codes|filename_hr|patient_id)(?=,)",
            NAME,
            "",
            allowed=SAME,
        ),
        sub("bytes that are no text", table, r"(NORM)", "\xff\xfe", "\0", allowed=SAME),
    )
    return [
        base,
        replace(base, files=slow, truths=(slow_truth,), rate_hz=100.0, fields=()),
        replace(
            base,
            files={**files, table: TABLE.encode()},
            fields=rows,
            sealed=(*sealed, (table, SAME)),
        ),
        zipped(base),
        segmented(),
    ]


def segmented() -> Seed:
    """Two segments, of which either may be damaged, and the header that names them."""
    whole = test_raw_wfdb.beats()
    files: Files = {}
    for name, part in (("s1", whole[:, :2000]), ("s2", whole[:, 2000:])):
        with tempfile.TemporaryDirectory() as folder:
            test_raw_wfdb.write(Path(folder), part, COMMENTS, name=name)
            files |= {file.name: file.read_bytes() for file in Path(folder).iterdir()}
    m = "m.hea"
    files[m] = b"m/2 12 500 5000\ns1 2000\ns2 3000\n"
    fields = (
        sub("segments", m, r"m/(2)", "1", "3", "0", "-1", "2/2", NAME, "", allowed=REFUSED),
        sub("length", m, r"500 (5000)", "4999", "10000", NAME, allowed=REFUSED),
        sub("length of one", m, r"s\d (\d+)", "0", "1", "2999", *EXTREMES, allowed=REFUSED),
        sub("name of one", m, r"(s1|s2) ", "m", "~", "../s1", "s3", "/s1", NAME, allowed=REFUSED),
        sub("order", m, r"(s1 2000\ns2 3000)", "s2 3000\ns1 2000", allowed=ANYTHING),
        sub("rate", m, r"12 (500)", "250", "0.5", "-500", NAME, allowed=REFUSED),
        sub("rate of one", "s2.hea", r"12 (500)", "250", "1000", "NaN", allowed=REFUSED),
        sub("lead of one", "s2.hea", r"(?m)(V1)$", "V2", "aVR", allowed=REFUSED),
    )
    sealed = ((m, STATED), ("s1.hea", STATED), ("s2.hea", STATED))
    sealed += (("s1.dat", SAME), ("s2.dat", SAME))
    truth = whole.astype("<i2") / 1000
    return Seed("ecg", "wfdb", files, m, (truth,), fields=fields, sealed=sealed)


def zipped(seed: Seed) -> Seed:
    """The same recording in an archive, which is damaged and lies."""
    inner = {f"ward/{name}": body for name, body in seed.files.items()}
    first = f"ward/{seed.path}"

    def member(name: str, body: bytes, method: int = zipfile.ZIP_DEFLATED) -> Callable[[], bytes]:
        return lambda: packed({**inner, name: body}, method)

    def flagged() -> bytes:
        body = bytearray(packed(inner))
        for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
            body[body.index(mark) + at] |= 1
        return bytes(body)

    fields = (
        content(
            "bomb",
            "a.zip",
            member(first, bytes(40 << 20)),
            member("ward/r1.more", bytes(80 << 20)),
            member(first, b"<a>" * (5 << 20)),
            allowed=REFUSED,
        ),
        content("encrypted", "a.zip", flagged, allowed=REFUSED),
        content(
            "more members",
            "a.zip",
            member("../x.txt", b"x"),
            member("/etc/x", b"x"),
            member("ward/\0r1.x", b"x"),
            member("ward/n" * 100, b"x"),
            allowed=SAME,
        ),
        content(
            "no recording",
            "a.zip",
            lambda: packed({"a.txt": b""}),
            lambda: packed({}),
            lambda: b"PK\3\4" * 20,
            lambda: packed({"../" + seed.path: inner[first]}),
            lambda: packed({"c:" + seed.path: inner[first]}),
            allowed=REFUSED,
        ),
        content(
            "other packing",
            "a.zip",
            lambda: packed(inner, zipfile.ZIP_LZMA),
            lambda: packed(inner, zipfile.ZIP_STORED),
            lambda: packed(inner, zipfile.ZIP_BZIP2),
            allowed=SAME,
        ),
    )
    return replace(
        seed, files={"a.zip": packed(inner)}, path="a.zip", fields=fields, sealed=(("a.zip", SAME),)
    )


def packed(members: Files, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", method) as file:
        for name, body in members.items():
            file.writestr(zipfile.ZipInfo(name), body, method)
    return whole.getvalue()


# -- XML ---------------------------------------------------------------------------------------------------------------

SIGNAL = made.beats()
NO_NUMBER = ("0", "-5", "NaN", "inf", "-inf", "1e308", "1e-308", "", NAME)


def grid(step_mv: float, leads: tuple[str, ...] = ecg.LEADS) -> np.ndarray:
    """`SIGNAL` in whole steps; where only I and II are stored, the other limb leads follow from them."""
    out = np.round(SIGNAL / step_mv) * step_mv
    if len(leads) == 8:
        one, two = out[:2]
        out[2:6] = two - one, -(one + two) / 2, one - two / 2, two - one / 2
    return out


def hostile(file: str) -> tuple[Field, ...]:
    """What any XML may be made to do."""
    deep, wide = "<a>" * 60_000, "<a/>" * 60_000
    entity = '<!DOCTYPE a [<!ENTITY b "ha"><!ENTITY c "&b;&b;&b;">]>'
    return (
        sub(
            "entities",
            file,
            r"(?<=\?>)\n",
            entity,
            '<!DOCTYPE a [<!ATTLIST a b CDATA "c">]>',
            allowed=REFUSED,
        ),
        sub(
            "deep or wide",
            file,
            r"\n(?=</\w+>\s*$)",
            deep,
            wide,
            deep + "</a>" * 60_000,
            allowed=SAME,
        ),
        sub(
            "declared encoding",
            file,
            r'(?<=encoding=")[\w-]+',
            "utf-7",
            "ebcdic-cp-us",
            NAME,
            "utf-16",
            allowed=SAME,
        ),
        sub("a number or word", file, r">([^<>\s]{1,24})<", *EXTREMES, allowed=STATED),
        sub("an attribute", file, r'="([^"<>]{1,40})"', *EXTREMES, allowed=STATED),
        sub(
            "an element's name",
            file,
            r"<(?=[A-Za-z])(\w+)",
            NAME,
            "StripData",
            "Strip",
            "value",
            allowed=STATED,
        ),
    )


def cardiosoft_seeds() -> list[Seed]:
    f = "r1.xml"
    strip = r"(?s)<StripData>.*?"
    fields = (
        sub(
            "no gain",
            f,
            strip + r'uVperLsb">([\d.]+)',
            *NO_NUMBER,
            "5000",
            "0.005",
            allowed=REFUSED,
        ),
        sub("gain", f, strip + r'uVperLsb">([\d.]+)', "4.88", "10", "2", allowed=GAIN),
        sub(
            "unit",
            f,
            strip + r'units="(uVperLsb)',
            "mVperLsb",
            "mmHgperLsb",
            "",
            "uV",
            NAME,
            allowed=REFUSED,
        ),
        sub("no rate", f, strip + r'"Hz">(\d+)', *NO_NUMBER, allowed=REFUSED),
        sub("another rate", f, strip + r'"Hz">(\d+)', "250", "400", "100.5", allowed=RATE),
        sub("unit of the rate", f, strip + r'units="(Hz)"', "kHz", "ms", "", NAME, allowed=REFUSED),
        sub(
            "number of leads", f, strip + r"<NumberOfLeads>(\d+)", "11", "13", "0", allowed=REFUSED
        ),
        sub(
            "number of samples",
            f,
            strip + r"CountTotal>(\d+)",
            "4999",
            "5001",
            "0",
            "999999999",
            allowed=REFUSED,
        ),
        sub(
            "a sample is none",
            f,
            strip + r",(-?\d+),",
            "NaN",
            "",
            " ",
            "inf",
            "1e308",
            allowed=SAMPLES,
        ),
        sub("a sample is absurd", f, strip + r",(-?\d+),", "1e9", "-1e7", allowed=REFUSED),
        sub("a sample is a word", f, strip + r",(-?\d+),", NAME, "1;2", "0x1F", allowed=REFUSED),
        sub("one sample more or less", f, strip + r"(,-?\d+),", "", ",1,2", allowed=REFUSED),
        sub("lead twice", f, strip + r'lead="(V1)"', "V2", "aVR", "C3", allowed=REFUSED),
        sub("no lead", f, strip + r'lead="(V1)"', NAME, "", "V9", "-V1", allowed=REFUSED),
        exchange("chest leads", f, 'lead="V1"', 'lead="V5"', allowed=ORDER),
        exchange("limb leads", f, 'lead="I"', 'lead="aVF"', allowed=REFUSED),
        sub(
            "exercise",
            f,
            r"<ObservationType>(\w+)",
            "ExerciseECG",
            "StressECG",
            "Holter",
            NAME,
            allowed=REFUSED,
        ),
        sub("strip gone", f, r"(StripData)", "Strips", "stripdata", allowed=REFUSED, every=True),
        sub(
            "person",
            f,
            r"(?:Age|Height|Weight|Gender|Year|Day)[^>]*>(\w+)",
            *EXTREMES,
            allowed=SAME,
        ),
        *hostile(f),
    )
    base = Seed("ecg", "cardiosoft", {f: made.cardiosoft(SIGNAL)}, f, (grid(5e-3),), fields=fields)
    return [base, zipped(base)]


def muse_seeds() -> list[Seed]:
    f = "r1.xml"
    rhythm = r"(?s)>Rhythm<.*?"
    fields = (
        sub("no gain", f, rhythm + r"PerBit>([\d.]+)", *NO_NUMBER, "1000", allowed=REFUSED),
        sub(
            "unit",
            f,
            rhythm + r"Units>(MICROVOLTS)",
            "MILLIVOLTS",
            "VOLTS",
            "NANOVOLTS",
            "",
            NAME,
            allowed=REFUSED,
        ),
        sub(
            "units",
            f,
            r"Units>(MICROVOLTS)",
            "MILLIVOLTS",
            "NANOVOLTS",
            "mmHg",
            allowed=REFUSED,
            every=True,
        ),
        sub("no rate", f, rhythm + r"SampleBase>(\d+)", *NO_NUMBER, allowed=REFUSED),
        sub("another rate", f, rhythm + r"SampleBase>(\d+)", "250", "400", allowed=RATE),
        sub(
            "exponent",
            f,
            rhythm + r"SampleExponent>(\d)",
            "1",
            "9",
            "-9",
            "1.5",
            "NaN",
            NAME,
            allowed=REFUSED,
        ),
        sub("slow", f, rhythm + r"SampleExponent>(\d)", "-1", allowed=RATE),
        sub(
            "counts",
            f,
            rhythm + r"(?:ByteCount|SampleCount)Total>(\d+)",
            "4999",
            "0",
            "10001",
            allowed=REFUSED,
        ),
        sub("checksum", f, rhythm + r"CRC32>(\d+)", "1", "-1", "4294967296", NAME, allowed=REFUSED),
        sub("no checksum", f, rhythm + r"CRC32>(\d+)", "0", "", allowed=SAME),
        sub(
            "shifts",
            f,
            rhythm + r"(?:Offset|FirstSample|FirstSampleBaseline)>(0)<",
            "1",
            "-4",
            "5e3",
            allowed=REFUSED,
        ),
        sub("size of samples", f, rhythm + r"SampleSize>(2)", "1", "4", "0", NAME, allowed=REFUSED),
        sub("electrode off", f, rhythm + r"LeadOff>(FALSE)", "TRUE", "true", allowed=REFUSED),
        sub(
            "number of leads",
            f,
            rhythm + r"NumberofLeads>(\d)",
            "7",
            "9",
            "0",
            "12",
            allowed=REFUSED,
        ),
        sub("lead twice", f, rhythm + r"LeadID>(V1)", "V2", "II", "C6", allowed=REFUSED),
        sub("no lead", f, rhythm + r"LeadID>(V1)", NAME, "", "V1R", allowed=REFUSED),
        sub(
            "a limb lead under another's name",
            f,
            rhythm + r"LeadID>(II)<",
            "I",
            "III",
            "aVF",
            allowed=REFUSED,
        ),
        exchange("chest leads", f, "<LeadID>V1<", "<LeadID>V5<", allowed=ORDER),
        exchange("median and rhythm", f, ">Median<", ">Rhythm<", allowed=REFUSED),
        sub("two rhythms", f, r">(Median)<", "Rhythm", "rhythm ", allowed=REFUSED),
        sub(
            "payload",
            f,
            rhythm + r"WaveFormData>\n([A-Za-z0-9+/]{4})",
            "AAAA",
            "****",
            "=",
            "",
            NAME,
            allowed=REFUSED,
        ),
        sub("person", f, r"(?:Age|AgeUnits|Gender|DateofBirth)>([\w-]+)", *EXTREMES, allowed=SAME),
        *hostile(f),
    )
    truth = (grid(4.88e-3, made.EIGHT),)
    return [
        Seed("ecg", "muse", {f: made.muse(SIGNAL)}, f, truth, fields=fields, sealed=((f, STATED),))
    ]


def philips_seeds() -> list[Seed]:
    f = "r1.xml"
    wave = r"(?s)<parsedwaveforms[^>]*?"
    fields = (
        sub("gain", f, wave + r' resolution="([\d.]+)', "2", "10", "4.88", allowed=GAIN),
        sub("absurd gain", f, wave + r' resolution="([\d.]+)', "1e9", "0.001", allowed=REFUSED),
        sub("no rate", f, wave + r'samplespersecond="(\d+)', "-5", "1e9", NAME, allowed=STATED),
        sub(
            "length",
            f,
            wave + r'durationperchannel="(\d+)',
            "0",
            "-5",
            "99999999999",
            "12000",
            NAME,
            "",
            allowed=REFUSED,
        ),
        sub("lead twice", f, wave + r"(V1)", "V2", "aVR", allowed=REFUSED),
        sub("no lead", f, wave + r"(V1)", NAME, "V9", allowed=REFUSED),
        sub("encoding", f, r'dataencoding="(Base64)"', "Plain", "", NAME, allowed=REFUSED),
        sub("payload", f, r">\n([A-Za-z0-9+/]{4})", "****", "=", NAME, allowed=REFUSED),
        sub(
            "version", f, r"<documentversion>([\d.]+)", "1.05", "", NAME, "1.03.9", allowed=REFUSED
        ),
        sub("person", f, r"(?:years|dateofbirth|sex)>([\w-]+)", *EXTREMES, allowed=SAME),
        *hostile(f),
    )
    plain = Seed(
        "ecg", "philips", {f: made.philips(SIGNAL, packed=False)}, f, (grid(5e-3),), fields=fields
    )
    # a format without a checksum, in which one bit moves all that follows
    anything = ((f, ANYTHING),)
    return [plain, replace(plain, files={f: made.philips(SIGNAL)}, sealed=anything)]


def mortara_seeds() -> list[Seed]:
    f = "r1.xml"
    lead = r"<CHANNEL [^>]*?"
    one = lead + r'%s="([^"]*)"'
    fields = (
        sub("no gain", f, one % "UNITS_PER_MV", *NO_NUMBER, "1", allowed=REFUSED),
        sub("gain", f, lead + r'UNITS_PER_MV="(\d+)"[^>]*NAME="V\d"', "300", allowed=GAIN),
        sub("no rate", f, one % "SAMPLE_FREQ", *EXTREMES, "250", allowed=REFUSED),
        sub(
            "another rate", f, one % "SAMPLE_FREQ", "250", "400", "499.5", allowed=RATE, every=True
        ),
        sub("length", f, one % "DURATION", *EXTREMES, "4999", "5001", allowed=REFUSED),
        sub("offset", f, one % "OFFSET", "1", "-5", NAME, "NaN", "1e308", allowed=REFUSED),
        sub("bits", f, one % "BITS", "8", "32", "", NAME, allowed=REFUSED),
        sub("sign", f, one % "FORMAT", "UNSIGNED", "", NAME, allowed=REFUSED),
        sub("encoding", f, one % "ENCODING", "HEX", "", NAME, "XLI", allowed=REFUSED),
        sub("payload", f, lead + r'DATA="(.{4})', "****", "=", NAME, "AAA", allowed=REFUSED),
        sub("lead twice", f, r"<CHANNEL .*NAME=\"(V1)", "V2", "aVR", allowed=REFUSED),
        sub("no lead", f, r"<CHANNEL .*NAME=\"(V1)", NAME, "V9", "", allowed=REFUSED),
        sub("other spelling", f, r'NAME="(V1)" ENC', "v1", "C1", "ECG V1", allowed=SAME),
        sub("typical beat", f, r'<TYPICAL_CYCLE [^>]*?"(\w+)"', *EXTREMES, allowed=SAME),
        sub("no channel", f, r'<(CHANNEL) [^>]*NAME="V2"', "CANAL", allowed=REFUSED),
        sub("person", f, r' (?:AGE|AGE_UNITS|GENDER|DOB)="([^"]*)', *EXTREMES, allowed=SAME),
        # all it says is in attributes
        *(field for field in hostile(f) if field.label != "a number or word"),
    )
    return [Seed("ecg", "mortara", {f: made.mortara(SIGNAL)}, f, (grid(2.5e-3),), fields=fields)]


def aecg_seeds() -> list[Seed]:
    f = "r1.xml"
    series = r"(?s)^.*?RHYTHM.*?"
    lead = series + r"MDC_ECG_LEAD_V1.*?"
    fields = (
        sub("no gain", f, lead + r'scale value="([\d.]+)', *NO_NUMBER, "5000", allowed=REFUSED),
        sub("gain", f, lead + r'scale value="([\d.]+)', "2", "5", allowed=GAIN),
        sub(
            "unit",
            f,
            lead + r'scale value="[\d.]+" unit="(uV)',
            "mV",
            "V",
            "nV",
            "mmHg",
            "",
            NAME,
            allowed=REFUSED,
        ),
        sub("offset", f, lead + r'origin value="(0)', "100", "-20", allowed=OFFSET),
        sub("offset is absurd", f, lead + r'origin value="(0)', "1e308", "1e30", allowed=REFUSED),
        sub("no rate", f, series + r'increment value="([\d.]+)', *NO_NUMBER, allowed=REFUSED),
        sub(
            "another rate",
            f,
            series + r'increment value="([\d.]+)',
            "0.004",
            "0.0025",
            allowed=RATE,
        ),
        sub(
            "unit of time",
            f,
            series + r'increment value="[\d.]+" unit="(s)',
            "ms",
            "us",
            "h",
            "",
            allowed=REFUSED,
        ),
        sub("one sample more or less", f, lead + r"digits>(-?\d+ )", "", "1 2 ", allowed=REFUSED),
        sub(
            "a sample is none",
            f,
            lead + r"digits>-?\d+ (-?\d+)",
            "NaN",
            "inf",
            "1e308",
            allowed=SAMPLES,
        ),
        sub(
            "a sample is absurd", f, lead + r"digits>-?\d+ (-?\d+)", "-1e9", "1e10", allowed=REFUSED
        ),
        sub(
            "a sample is a word",
            f,
            lead + r"digits>-?\d+ (-?\d+)",
            NAME,
            "1;2",
            "0x1F",
            allowed=REFUSED,
        ),
        sub(
            "lead twice",
            f,
            series + r"(MDC_ECG_LEAD_V1)",
            "MDC_ECG_LEAD_V2",
            "MDC_ECG_LEAD_C2",
            allowed=REFUSED,
        ),
        sub(
            "no lead",
            f,
            series + r"(MDC_ECG_LEAD_V1)",
            NAME,
            "",
            "V1",
            "MDC_ECG_LEAD_V1R",
            allowed=REFUSED,
        ),
        exchange("limb leads", f, 'LEAD_I"', 'LEAD_aVF"', allowed=REFUSED),
        exchange("chest leads", f, 'LEAD_V1"', 'LEAD_V5"', allowed=ORDER),
        sub("two clocks", f, series + r"(MDC_ECG_LEAD_V1)", "TIME_RELATIVE", allowed=REFUSED),
        sub("no rhythm", f, r'code="(RHYTHM)"', "REPRESENTATIVE_BEAT", "", NAME, allowed=REFUSED),
        sub(
            "person",
            f,
            r'(?:birthTime value|administrativeGenderCode code|low value)="(\w+)',
            *EXTREMES,
            allowed=SAME,
        ),
        *hostile(f),
    )
    return [Seed("ecg", "aecg", {f: made.aecg(SIGNAL)}, f, (grid(2.5e-3),), fields=fields)]


# -- real recordings ---------------------------------------------------------------------------------------------------


def real_seeds(folder: Path) -> dict[str, Seed]:
    """Recordings of ../shared/data; their truth is what their reader reads."""
    sources = [("wfdb", f"cinc/{name}.hea") for name in ("A0002", "E00001", "HR00001")]
    sources += [("wfdb", "formats/00001_lr.hea"), ("wfdb", "formats/s0010_re.hea")]
    sources += [
        ("dicom", f"formats/dicom_12lead_{maker}.dcm")
        for maker in ("mortara_1000hz", "ecgtoolkit_500hz")
    ]
    sources += [
        ("aecg", "formats/aecg_hl7_ecgtoolkit.xml"),
        ("scp", "formats/scpecg_ecgtoolkit.scp"),
    ]
    return {f"real/{Path(place).stem}": _real(reader, folder / place) for reader, place in sources}


def _real(reader: str, path: Path) -> Seed:
    record = raw.READERS["ecg"][reader].read(str(path))
    rows = {
        ecg.lead_name(name): row.astype(np.float64)
        for name, row in zip(record.leads, record.signal)
    }
    one, two = rows["I"], rows["II"]
    limbs = {"III": two - one, "aVR": -(one + two) / 2, "aVL": one - two / 2, "aVF": two - one / 2}
    truth = np.stack([{**limbs, **rows}[lead] for lead in ecg.LEADS])
    files = {file.name: file.read_bytes() for file in path.parent.glob(f"{path.stem}.*")}
    kinds = {".hea": STATED, ".dat": SAME, ".mat": SAME, ".xyz": SAME, ".scp": SAME}
    sealed = tuple((name, kinds[Path(name).suffix]) for name in files if Path(name).suffix in kinds)
    return Seed("ecg", reader, files, path.name, (truth,), rate_hz=record.rate_hz, sealed=sealed)


# -- SCP-ECG -----------------------------------------------------------------------------------------------------------


def scp_seeds() -> list[Seed]:
    f, eight = "r1.scp", made.EIGHT

    def other(**how) -> Callable[[], bytes]:
        return lambda: made.scp(SIGNAL, **how)

    fields = (
        content(
            "as it is",
            f,
            other(code="none"),
            other(code="two"),
            other(differences=0),
            other(differences=1),
            other(subtract=True),
            other(leads=tuple(reversed(eight))),
            allowed=SAME,
        ),
        content("gain", f, other(stated=2600), other(stated=4000), allowed=GAIN),
        content(
            "no gain", f, other(stated=0), other(stated=65535), other(stated=1), allowed=REFUSED
        ),
        content("bimodal", f, other(bimodal=1), allowed=REFUSED),
        content(
            "starts",
            f,
            other(starts=[1, 1, 1, 1, 1, 1, 1, 6]),
            other(starts=[2] * 8),
            other(starts=[4_000_000_000] * 8),
            allowed=REFUSED,
        ),
        content(
            "leads",
            f,
            other(leads=(*eight[:-1], "V5")),
            other(leads=eight[:-1]),
            other(leads=("-aVR", *eight[1:])),
            allowed=REFUSED,
        ),
    )
    base = Seed(
        "ecg",
        "scp",
        {f: made.scp(SIGNAL)},
        f,
        (grid(2.5e-3, eight),),
        fields=fields,
        sealed=((f, SAME),),
    )
    return [
        base,
        replace(
            base, fields=(), sealed=((f, ANYTHING),), reseal=lambda files: {f: resealed(files[f])}
        ),
    ]


def resealed(record: bytes) -> bytes:
    """An SCP-ECG record whose checksums (CRC-CCITT of each section and of the whole) and length fit its bytes."""
    body = bytearray(record)
    if len(body) < 150:
        return record
    body[2:6] = struct.pack("<I", len(body))
    for number in range(12):
        _, size, at = struct.unpack_from("<HII", body, 22 + 10 * number)
        if size >= 16 and at >= 7 and at - 1 + size <= len(body):
            struct.pack_into("<H", body, at - 1, crc(body[at + 1 : at - 1 + size]))
    struct.pack_into("<H", body, 0, crc(body[2:]))
    return bytes(body)


def crc(content_: bytes) -> int:
    return made.binascii.crc_hqx(bytes(content_), 0xFFFF)


# -- DICOM waveforms ---------------------------------------------------------------------------------------------------


def dicom_seeds() -> list[Seed]:
    f = "r1.dcm"
    sound = waveform.dataset(waveform.group(test_raw_wfdb.beats()))

    def bytes_of(whole: Dataset) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            return Path(waveform.save(Path(folder, f), whole)).read_bytes()

    def change(
        label: str,
        allowed: frozenset[str] | None,
        *edits: Callable[[Dataset, list[Dataset]], object],
    ) -> Field:
        def make(files: Files, rng: np.random.Generator) -> Files:
            whole = copy.deepcopy(sound)
            group = whole.WaveformSequence[0]
            edits[rng.integers(len(edits))](group, list(group.ChannelDefinitionSequence))
            return {f: bytes_of(whole)}

        return Field(label, make, allowed)

    def stated(label: str, allowed: frozenset[str] | None, keyword: str, *values: object) -> Field:
        return change(label, allowed, *(lambda g, c, v=v: setattr(g, keyword, v) for v in values))

    def one(
        label: str, allowed: frozenset[str] | None, keyword: str, *values: object, at: int = 8
    ) -> Field:
        return change(
            label, allowed, *(lambda g, c, v=v: setattr(c[at], keyword, v) for v in values)
        )

    def every(label: str, allowed: frozenset[str] | None, keyword: str, *values: object) -> Field:
        return change(
            label, allowed, *(lambda g, c, v=v: [setattr(x, keyword, v) for x in c] for v in values)
        )

    def named(lead: str) -> list[Dataset]:
        return [waveform.code(f"5.6.3-9-{waveform.SCP[lead]}", "SCPECG", f"Lead {lead}")]

    def swap(g: Dataset, c: list[Dataset], a: int, b: int) -> None:
        c[a].ChannelSourceSequence, c[b].ChannelSourceSequence = (
            named(ecg.LEADS[b]),
            named(ecg.LEADS[a]),
        )

    def unit(word: str) -> list[Dataset]:
        return [waveform.code(word, "UCUM")]

    fields = (
        one("no gain", REFUSED, "ChannelSensitivity", 0, None, "1e30", "-1"),
        one("one gain is absurd", REFUSED, "ChannelSensitivity", 1000, "0.0001"),
        one("gain", GAIN, "ChannelSensitivity", "1.5", "0.7"),
        every("no gains", REFUSED, "ChannelSensitivity", 0, None, "1e30", "-1", 10, "0.01"),
        every("gains", GAIN, "ChannelSensitivity", "1.5", "0.7"),
        one(
            "unit",
            REFUSED,
            "ChannelSensitivityUnitsSequence",
            unit("mV"),
            unit("V"),
            unit("mm[Hg]"),
            unit(NAME),
            [],
        ),
        every(
            "units",
            REFUSED,
            "ChannelSensitivityUnitsSequence",
            unit("mV"),
            unit("V"),
            unit("mm[Hg]"),
            unit(NAME),
        ),
        every("units absent", SAME, "ChannelSensitivityUnitsSequence", [], unit("")),
        one("correction", REFUSED, "ChannelSensitivityCorrectionFactor", 0, "1e9", "-1"),
        one("baseline", OFFSET, "ChannelBaseline", 100, "-50"),
        one("baseline is absurd", REFUSED, "ChannelBaseline", "1e30", "1e8"),
        one("skew", REFUSED, "ChannelSampleSkew", 3, "-500"),
        one("time skew", REFUSED, "ChannelTimeSkew", "0.01", "1e9"),
        stated("samples", REFUSED, "NumberOfWaveformSamples", 4999, 5001, 0, 2**31),
        stated("channels", REFUSED, "NumberOfWaveformChannels", 11, 13, 0, 60_000),
        stated("no rate", REFUSED, "SamplingFrequency", 0, None, "-500", "1e9", "0.001"),
        stated("another rate", RATE, "SamplingFrequency", 250, "400.5"),
        stated("size", REFUSED, "WaveformBitsAllocated", 8, 32, 12, 0),
        stated(
            "interpretation", REFUSED, "WaveformSampleInterpretation", "US", "SB", "MB", "SL", NAME
        ),
        stated("data", REFUSED, "WaveformData", b"", bytes(120_000), bytes(10)),
        stated("median", REFUSED, "MultiplexGroupLabel", "MEDIAN BEAT"),
        one("lead twice", REFUSED, "ChannelSourceSequence", named("V4"), named("aVR")),
        one("no lead", REFUSED, "ChannelSourceSequence", [waveform.code(NAME, "99", NAME)], []),
        change("limb leads", REFUSED, lambda g, c: swap(g, c, 0, 5), lambda g, c: swap(g, c, 3, 4)),
        change("chest leads", ORDER, lambda g, c: swap(g, c, 6, 10)),
        change(
            "fewer definitions",
            REFUSED,
            lambda g, c: setattr(g, "ChannelDefinitionSequence", c[:11]),
        ),
        change(
            "shifted data",
            REFUSED,
            lambda g, c: setattr(g, "WaveformData", g.WaveformData[2:] + b"\0\0"),
        ),
    )
    counts = np.round(test_raw_wfdb.beats())
    base = Seed("ecg", "dicom", {f: bytes_of(sound)}, f, (counts / 1000,), fields=fields)
    long = waveform.dataset(
        waveform.group(np.round(1000 * made.beats(samples=13_000, rate=1000)), rate=1000)
    )
    truth = np.round(1000 * made.beats(samples=13_000, rate=1000)) / 1000
    return [
        base,
        replace(base, files={f: bytes_of(long)}, truths=(truth,), rate_hz=1000.0, fields=()),
    ]


# -- CODE-15 and arrays ------------------------------------------------------------------------------------------------


def written(ending: str, write: Callable[[Path], object]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"x{ending}")
        write(path)
        return path.read_bytes()


def hdf5(make: Callable[[h5py.File], object]) -> Callable[[], bytes]:
    def write(path: Path) -> None:
        with h5py.File(path, "w") as file:
            make(file)

    return lambda: written(".hdf5", write)


def code15_seeds() -> list[Seed]:
    f, table = "exams_part3.hdf5", "exams.csv"
    rows = [test_raw_code15.tracing(4096, seed) for seed in range(2)]
    stack = np.stack(rows)
    body = written(".hdf5", lambda path: test_raw_code15.part(path, *rows))
    line = "4711004711,38,True,40.1,True,False,False,True,False,False,77,False,2.0,False,exams_part3.hdf5\n"

    def data(values: np.ndarray, **how) -> Callable[[], bytes]:
        return hdf5(lambda file: file.create_dataset("tracings", data=values, **how))

    fields = (
        content(
            "as it is",
            f,
            data(stack),
            data(stack.astype("f8")),
            data(stack, compression="lzf"),
            data(stack.astype(">f4")),
            data(stack, shuffle=True, compression="gzip"),
            allowed=SAME,
        ),
        content(
            "shape",
            f,
            data(stack.transpose(0, 2, 1)),
            data(stack[0]),
            data(stack[:, :, :8]),
            data(stack[:0]),
            data(np.zeros((0, 0, 12))),
            data(stack[:, :3000]),
            data(np.float64(3)),
            allowed=REFUSED,
        ),
        content(
            "scale",
            f,
            data(1000 * stack),
            data(stack / 1000),
            data(np.full_like(stack, np.nan)),
            data(1e30 * stack),
            data(np.zeros_like(stack)),
            allowed=REFUSED,
        ),
        content(
            "kind",
            f,
            data((1000 * stack).astype("i2")),
            data(stack.astype(complex)),
            data(stack > 0),
            data(np.array(["a"], dtype=object), dtype=h5py.string_dtype()),
            allowed=REFUSED,
        ),
        content(
            "order of leads", f, data(stack[:, :, [3, 1, 2, 0, *range(4, 12)]]), allowed=REFUSED
        ),
        content(
            "large",
            f,
            hdf5(
                lambda h: h.create_dataset(
                    "tracings", (10**9, 4096, 12), "f4", chunks=(1, 4096, 12)
                )
            ),
            hdf5(
                lambda h: h.create_dataset("tracings", (1, 10**8, 12), "f4", chunks=(1, 10**6, 12))
            ),
            hdf5(lambda h: h.create_dataset("tracings", (2, 4096, 12), "f4", fillvalue=np.nan)),
            allowed=REFUSED,
        ),
        content(
            "groups",
            f,
            hdf5(lambda h: h.create_group("tracings/tracings")),
            hdf5(lambda h: None),
            hdf5(lambda h: h.create_dataset(NAME, data=stack)),
            allowed=REFUSED,
        ),
        sub("table", table, r"(?<=[\n,])(\w[\w.]*)(?=,)", *EXTREMES, "0.5", "2", allowed=SAME),
        sub("person", table, r",(77),", *EXTREMES, "1e400", allowed=SAME),
        sub("bytes that are no text", table, r"(True)", "\xff\xfe", "\0", '"', allowed=SAME),
    )
    files = {f: body, table: (test_raw_code15.HEADER + line).encode()}
    truths = tuple(row.T.astype(np.float64) for row in rows)
    return [
        Seed(
            "ecg",
            "code15",
            files,
            f,
            truths,
            rate_hz=400.0,
            fields=fields,
            sealed=((table, SAME), (f, SAMPLES)),
        )
    ]


def edf_seeds() -> list[Seed]:
    f = "r1.edf"
    signal = made.beats()
    gain = 10.0 / 65535
    truth = np.round((signal + 5) / gain) * gain - 5
    patient = f"{made.ID} F 23-APR-1951 {made.FIRST}_{made.LAST}"
    rows = list(zip(ecg.LEADS, signal))
    body = written(".edf", lambda path: test_raw_text.write_edf(path, rows, patient=patient))
    n = len(ecg.LEADS)

    def cell(label: str, start: int, *words: str, allowed: frozenset[str] | None) -> Field:
        pattern = rf"(?s)^.{{{start}}}(.{{8}})"
        return sub(label, f, pattern, *(word.ljust(8)[:8] for word in words), allowed=allowed)

    fields = (
        cell("version", 0, "1", "", NAME, allowed=REFUSED),
        cell("records", 236, "11", "9", "0", "-5", NAME, "99999999", allowed=REFUSED),
        cell("duration", 244, "2", "0.5", allowed=RATE),
        cell("no duration", 244, "0", "-1", "nan", NAME, "1e308", allowed=REFUSED),
        cell("unit", 256 + 96 * n, "mmHg", "V", "nV", "", NAME, allowed=REFUSED),
        cell("gain of V1", 256 + 104 * n + 48, "-4000", "-6000", allowed=GAIN | OFFSET),
        cell("no gain", 256 + 104 * n, "5000", "nan", "1e308", NAME, "", allowed=REFUSED),
        cell("samples", 256 + 216 * n, "499", "0", "-1", NAME, "99999999", allowed=REFUSED),
        sub("lead twice", f, r"(V1 )", "V2 ", "aVR", allowed=REFUSED),
        sub("no lead", f, r"(V1 )", "V9 ", "EEG", allowed=REFUSED),
        sub("person", f, r"(F 23-APR-1951)", "X X          ", "M 31-FEB-2999", allowed=SAME),
    )
    base = Seed("ecg", "edf", {f: body}, f, (truth,), fields=fields)
    return [base, zipped(base)]


def table_seeds() -> list[Seed]:
    f = "x.csv"
    signal = np.round(made.beats(), 4)
    head = f"# Name: {made.FIRST} {made.LAST}\n# fs: 500\n# unit: mV\n"
    body = written(".csv", lambda path: test_raw_text.table(path, signal, head=head))
    fields = (
        sub("no rate", f, r"fs: (500)", "0", "-5", "", NAME, "nan", allowed=REFUSED),
        sub("rate", f, r"fs: (500)", "250", "500.5", "0.4 kHz", allowed=RATE),
        sub("unit", f, r"unit: (mV)", "uV", "V", "nV", "", NAME, "counts", allowed=REFUSED),
        sub("lead twice", f, r"(V1),", "V2", "aVR", "C3", allowed=REFUSED),
        sub("no lead", f, r"(V1),", NAME, "", "V9", '"', allowed=REFUSED),
        exchange("chest leads", f, "V1", "V5", allowed=ORDER),
        exchange("limb leads", f, ",II,", ",aVF,", allowed=REFUSED),
        sub("a word", f, r"\n[^,#]+,([-\d.]+),", NAME, "1;2", "0x1F", "=1+1", allowed=REFUSED),
        sub("a sample is none", f, r"\n[^,#]+,([-\d.]+),", "", "nan", "inf", allowed=SAMPLES),
        sub("a sample is absurd", f, r"\n[^,#]+,([-\d.]+),", "1e9", "-1e7", allowed=REFUSED),
        sub("a cell more or less", f, r"\n[^,#]+(,[-\d.]+),", "", ",1,2", allowed=REFUSED),
        sub("comment", f, r"Name: (.*)\n", *EXTREMES, "4" * 500, allowed=SAME),
    )
    # text without a checksum: what was cut or doubled in a line nobody can see
    return [
        Seed(
            "ecg",
            "csv",
            {f: body},
            f,
            (signal,),
            fields=fields,
            sealed=((f, STATED | SAMPLES),),
        )
    ]


class Trap:
    """Touches a file when it is unpickled."""

    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("code-was-run"),))


def tensor_seeds() -> list[Seed]:
    stack = np.stack([made.beats(seed) for seed in range(2)]).astype(np.float32)
    truths = tuple(one.astype(np.float64) for one in stack)
    tensor = torch.from_numpy(stack)
    trap = np.array([Trap()], dtype=object)

    def npy(values: np.ndarray) -> Callable[[], bytes]:
        return lambda: written(".npy", lambda path: np.save(path, values))

    def npz(**values: np.ndarray) -> Callable[[], bytes]:
        return lambda: written(".npz", lambda path: np.savez(path, **values))

    def pt(what: object, **how) -> Callable[[], bytes]:
        return lambda: written(".pt", lambda path: torch.save(what, path, **how))

    def head(
        label: str, file: str, old: str, *new: str, allowed: frozenset[str] | None = REFUSED
    ) -> Field:
        # spaces at the header's end keep its length
        padded = [word + " " * max(0, len(old) - len(word)) for word in new]
        return sub(label, file, f"({re.escape(old)} {{0,40}})", *padded, allowed=allowed)

    f, z, p = "x.npy", "x.npz", "x.pt"
    end = "(2, 12, 5000), }"
    arrays = (
        content(
            "as it is",
            f,
            npy(stack.astype("f8")),
            npy(stack.astype(">f4")),
            npy(np.asfortranarray(stack)),
            allowed=SAME,
        ),
        head(
            "shape",
            f,
            end,
            "(3, 12, 5000), }",
            "(9**9, 12, 5000), }",
            "(-1, 12, 5000), }",
            "(24, 5000), }",
            "(2, 5000, 12), }",
            "(99999999999, 12, 5000), }",
            "(), }",
            "(2, 12, 5001), }",
            "(1, 12, 5000), }",
        ),
        head(
            "type",
            f,
            "'<f4'",
            "'>f4'",
            "'<f8'",
            "'<i4'",
            "'|O'",
            "'<f2'",
            "[('a','<f4')]",
            "'<U1'",
            "'<c8'",
        ),
        head("order", f, "'fortran_order': False", "'fortran_order': True", "'fortran_order': 2"),
        head(
            "no header",
            f,
            "{'descr'",
            "{" + "(" * 60 + "'descr'",
            "{[]:1,'descr'",
            "__import__('os')",
            "{'descr\0'",
        ),
        content(
            "objects",
            f,
            lambda: written(".npy", lambda path: np.save(path, trap, allow_pickle=True)),
            lambda: pickle.dumps(Trap()),
            npy(np.zeros((2, 12, 5000), "i4,f4")),
            allowed=REFUSED,
        ),
        content(
            "other numbers",
            f,
            npy(stack * 1000),
            npy(stack / 1000),
            npy(stack + 1e9),
            npy(stack * np.nan),
            npy(np.zeros_like(stack)),
            npy(stack[:, ::-1]),
            npy(np.roll(stack, 1, axis=1)),
            allowed=REFUSED,
        ),
    )
    archives = (
        content("as it is", z, npz(a=stack), npz(ecg=stack, y=np.zeros(3)), allowed=SAME),
        content(
            "objects",
            z,
            lambda: packed({"a.npy": npy(trap)()}),
            npz(a=stack, b=stack),
            npz(a=stack[:, :, :9]),
            allowed=REFUSED,
        ),
        content("objects beside", z, npz(a=stack, b=trap), allowed=SAME),
        content(
            "lies",
            z,
            lambda: packed({"a.npy": npy(stack)().replace(b"(2, 12", b"(9, 12")}),
            lambda: packed({"a.npy": b"\x93NUMPY\1\0v\0" + b"(" * 118}),
            lambda: packed({"a.npy": b""}),
            lambda: packed(
                {"a.npy": npy(np.zeros((2000, 12, 5000), np.float32))()[:400] + bytes(90 << 20)}
            ),
            allowed=REFUSED,
        ),
    )
    tensors = (
        content(
            "as it is",
            p,
            pt(tensor),
            pt(list(tensor)),
            pt({"a": tensor}),
            pt(tensor.double()),
            pt(tensor.clone().requires_grad_()),
            pt(tensor.transpose(1, 2).contiguous().transpose(1, 2)),
            allowed=SAME,
        ),
        content(
            "code",
            p,
            pt([Trap()]),
            pt({"a": Trap()}),
            lambda: pickle.dumps(Trap()),
            pt(Trap()),
            pt(tensor, _use_new_zipfile_serialization=False),
            allowed=REFUSED,
        ),
        content(
            "other things",
            p,
            pt([0, 1]),
            pt([tensor, 1]),
            pt([[tensor]]),
            pt(tensor.to_sparse()),
            pt(torch.zeros(1).expand(10**8, 12, 5000)),
            pt(tensor.to(torch.complex64)),
            pt(None),
            pt(tensor.int()),
            pt([tensor[0], tensor[:, :, :9]]),
            pt(torch.empty(2, 12, 5000, device="meta")),
            allowed=REFUSED,
        ),
        content(
            "other numbers",
            p,
            pt(tensor * 1000),
            pt(tensor / 1000),
            pt(tensor * float("nan")),
            pt(tensor.flip(1)),
            allowed=REFUSED,
        ),
        content("packed", p, lambda: repacked(pt(tensor)()), allowed=REFUSED),
    )
    facts = "x.json"
    words = {facts: b'{"sampling_rate": 500, "unit": "mV"}'}
    said = (
        sub("no rate", facts, "500", "0", "-5", '"x"', "null", "[]", "1e308", allowed=REFUSED),
        sub("rate", facts, "500", "250", '"250 Hz"', "400.0", allowed=RATE),
        sub("no unit", facts, '"mV"', '""', '"counts"', "null", "1", "{}", allowed=REFUSED),
        sub("unit", facts, "mV", "uV", "V", "nV", "5mV", allowed=REFUSED),
        sub("no JSON", facts, '"unit"', "unit", "[" * 20_000, NAME, allowed=REFUSED),
        sub("name", facts, "sampling_rate", "fs", "Sampling Rate (Hz)", allowed=SAME),
    )
    base = Seed(
        "ecg",
        "tensors",
        {f: npy(stack)(), **words},
        f,
        truths,
        fields=(*arrays, *said),
        sealed=((facts, STATED),),
    )
    sealed = ((z, SAME), (facts, STATED))
    packed_files = {z: npz(a=stack)(), **words}
    return [
        base,
        replace(base, files=packed_files, path=z, fields=archives, sealed=sealed),
        replace(base, files={p: pt(tensor)(), **words}, path=p, fields=tensors),
    ]


def normalised_seeds() -> list[Seed]:
    stack = np.stack([made.beats(seed) for seed in range(2)]).astype(np.float32)
    flat = ecg.normalise(torch.from_numpy(np.stack([ecg.clean(one) for one in stack]))).numpy()
    truths = tuple(normalised.restored(one).astype(np.float64) for one in flat)

    def npy(values: np.ndarray) -> Callable[[], bytes]:
        return lambda: written(".npy", lambda path: np.save(path, values))

    fields = (
        content("as it is", "x.npy", npy(flat.astype("f8")), npy(flat.astype(">f4")), allowed=SAME),
        content(
            "other numbers",
            "x.npy",
            npy(stack),
            npy(2 * flat),
            npy(flat * np.nan),
            npy(np.zeros_like(flat)),
            npy(flat[:, ::-1]),
            npy(np.roll(flat, 1, axis=1)),
            npy(flat / flat.std(-1, keepdims=True)),
            allowed=REFUSED,
        ),
    )
    return [Seed("ecg", "normalised", {"x.npy": npy(flat)()}, "x.npy", truths, fields=fields)]


def repacked(content_: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content_)) as old:
        return packed({name: old.read(name) for name in old.namelist()})
