"""Diagnoses of public ECG sets as label columns: SNOMED CT (PhysioNet Challenges) and SCP-ECG
statements (PTB-XL).

A recording with a list of diagnoses has 1 for what is on it and 0 for the rest of the vocabulary;
one without a list has no label columns, which a cohort keeps as missing. The disease column `af`
follows from either. ICD-10 I48, the paper's definition, is atrial fibrillation *and* flutter, so
`af` covers both. This module knows codes, no signals.
"""

import ast
import csv
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ecgcmr.errors import InputError

# Codes and names of the PhysioNet/CinC Challenge 2021 (its dx_mapping tables), those with 200
# recordings or more.
SNOMED: dict[str, str] = {
    "10370003": "pacing rhythm",
    "111975006": "prolonged QT interval",
    "164861001": "myocardial ischaemia",
    "164865005": "myocardial infarction",
    "164867002": "old myocardial infarction",
    "164873001": "left ventricular hypertrophy",
    "164884008": "ventricular ectopics",
    "164889003": "atrial fibrillation",
    "164890007": "atrial flutter",
    "164909002": "left bundle branch block",
    "164917005": "abnormal Q wave",
    "164930006": "abnormal ST interval",
    "164931005": "ST elevation",
    "164934002": "abnormal T wave",
    "164947007": "prolonged PR interval",
    "164951009": "abnormal QRS",
    "17338001": "ventricular premature beats",
    "233917008": "AV block",
    "251120003": "incomplete left bundle branch block",
    "251146004": "low QRS voltages",
    "251223006": "tall P wave",
    "270492004": "first degree AV block",
    "284470004": "premature atrial contraction",
    "365413008": "poor R wave progression",
    "39732003": "left axis deviation",
    "413844008": "chronic myocardial ischaemia",
    "425419005": "inferior ischaemia",
    "425623009": "lateral ischaemia",
    "426177001": "sinus bradycardia",
    "426434006": "anterior ischaemia",
    "426627000": "bradycardia",
    "426761007": "supraventricular tachycardia",
    "426783006": "sinus rhythm",
    "427084000": "sinus tachycardia",
    "427172004": "premature ventricular contractions",
    "427393009": "sinus arrhythmia",
    "428417006": "early repolarisation",
    "428750005": "nonspecific ST-T abnormality",
    "429622005": "ST depression",
    "445118002": "left anterior fascicular block",
    "445211001": "left posterior fascicular block",
    "446358003": "right atrial hypertrophy",
    "47665007": "right axis deviation",
    "54329005": "anterior myocardial infarction",
    "55827005": "left ventricular high voltage",
    "55930002": "ST changes",
    "59118001": "right bundle branch block",
    "59931005": "T wave inversion",
    "61721007": "clockwise or counterclockwise vectorcardiographic loop",
    "6374002": "bundle branch block",
    "63593006": "supraventricular premature beats",
    "67741000119109": "left atrial enlargement",
    "698252002": "nonspecific intraventricular conduction disorder",
    "713422000": "atrial tachycardia",
    "713426002": "incomplete right bundle branch block",
    "713427006": "complete right bundle branch block",
    "733534002": "complete left bundle branch block",
    "89792004": "right ventricular hypertrophy",
}

# Fibrillation; flutter; both; chronic, paroxysmal, rapid fibrillation: all of ICD-10 I48.
AF_SNOMED = {"164889003", "164890007", "195080001", "426749004", "282825002", "314208002"}
AF_SCP = {"AFIB", "AFLT"}

# CPSC2018 writes classes, not codes; the Challenge 2020 gave them these.
CPSC = {
    "Normal": "426783006",
    "AF": "164889003",
    "I-AVB": "270492004",
    "LBBB": "164909002",
    "RBBB": "59118001",
    "PAC": "284470004",
    "PVC": "164884008",
    "STD": "429622005",
    "STE": "164931005",
}

# The 71 SCP-ECG statements of PTB-XL.
SCP = tuple(
    """NDT NST_ DIG LNGQT NORM IMI ASMI LVH LAFB ISC_ IRBBB 1AVB IVCD ISCAL CRBBB CLBBB ILMI
    LAO/LAE AMI ALMI ISCIN INJAS LMI ISCIL LPFB ISCAS INJAL ISCLA RVH ANEUR RAO/RAE EL WPW ILBBB
    IPLMI ISCAN IPMI SEHYP INJIN INJLA PMI 3AVB INJIL 2AVB ABQRS PVC STD_ VCLVH QWAVE LOWT NT_ PAC
    LPR INVT LVOLT HVOLT TAB_ STE_ PRC(S) SR AFIB STACH SARRH SBRAD PACE SVARR BIGU AFLT SVTAC PSVT
    TRIGU""".split()  # noqa: SIM905 (one word a line would be a page)
)

# Of PTB-XL's table.
_COLUMNS = (
    "patient_id",
    "age",
    "sex",
    "height",
    "weight",
    "scp_codes",
    "filename_lr",
    "filename_hr",
)

# Diagnostic statements by superclass (scp_statements.csv, column diagnostic_class).
SCP_CLASSES = {
    "NORM": "NORM",
    "MI": "IMI ASMI ILMI AMI ALMI INJAS LMI INJAL IPLMI IPMI INJIN INJLA PMI INJIL",
    "STTC": "NDT NST_ DIG LNGQT ISC_ ISCAL ISCIN ISCIL ISCAS ISCLA ANEUR EL ISCAN",
    "CD": "LAFB IRBBB 1AVB IVCD CRBBB CLBBB LPFB WPW ILBBB 3AVB 2AVB",
    "HYP": "LVH LAO/LAE RVH RAO/RAE SEHYP",
}


@dataclass(frozen=True)
class Annotation:
    """What PTB-XL's table says of one recording; the units are EcgRecord's."""

    person: str
    age: float | None
    sex: float | None
    height: float | None
    weight: float | None
    labels: dict[str, float]


PREFIXES = ("snomed_", "scp_")  # of the label columns made here, beside `af`


def snomed(words: str) -> dict[str, float]:
    """Turn the text after `#Dx:` into label columns.

    Args:
        words: SNOMED CT codes or CPSC2018 classes, separated by commas; blank or "Unknown" is no
            list.

    Returns:
        `snomed_<code>` and `af` -> 0.0 or 1.0; empty without a list. With a word that is neither,
        only the 1s: what the word says is unknown, so nothing is known to be absent.
    """
    entries = [word.strip() for word in words.split(",")]
    codes = {CPSC.get(word, word) for word in entries if word and word.lower() != "unknown"}
    valid_codes = {code for code in codes if re.fullmatch(r"\d{6,18}", code)}
    complete = bool(codes) and codes == valid_codes
    return _columns("snomed_", valid_codes, SNOMED, AF_SNOMED, complete=complete)


def scp(statements: Iterable[str]) -> dict[str, float]:
    """Turn PTB-XL's statements into label columns `scp_<statement>`, `scp_class_<superclass>` and
    `af`.

    A statement counts whatever its likelihood: 0 means not given, and rhythms never have one (of 14
    recordings with AFIB among the first 521, 13 have 0). A recording with statements but none of
    diagnosis is in no superclass. With a word that is none of the 71, only the 1s, as in `snomed`.
    """
    words = set(statements)
    known_words = words & set(SCP)  # any other word may be anybody's and stays in the table
    complete = bool(known_words) and known_words == words
    labels = _columns("scp_", known_words, SCP, AF_SCP, complete=complete)
    classes = {
        f"scp_class_{name}": float(bool(known_words & {*class_words.split()}))
        for name, class_words in SCP_CLASSES.items()
    }
    labels |= classes if complete else {name: 1.0 for name, value in classes.items() if value}
    return dict(sorted(labels.items()))


def _columns(
    prefix: str, codes: set[str], vocabulary: Iterable[str], af: set[str], *, complete: bool
) -> dict[str, float]:
    labels = {column(prefix, code): 0.0 for code in vocabulary} if complete else {}
    labels |= {column(prefix, code): 1.0 for code in codes}
    if complete or codes & af:
        labels["af"] = float(bool(codes & af))
    return dict(sorted(labels.items()))


def column(prefix: str, code: str) -> str:
    """The label column of a code.

    `/` and brackets become `_`, because a column's name becomes a folder's.
    """
    return prefix + re.sub(r"[^A-Za-z0-9_]", "_", code)


def name(label: str) -> str:
    """What a reader of a report sees for a label column.

    The column itself where no name is known.
    """
    return SNOMED.get(label.removeprefix("snomed_"), label)


def complete(labels: dict[str, float], columns: Iterable[str]) -> dict[str, float]:
    """Fill in 0 for codes outside the vocabulary that other recordings of a cohort brought in.

    Args:
        labels: label columns of one recording.
        columns: all label columns of the cohort.

    Returns:
        `labels` with 0 for each absent `snomed_` (`scp_`) column, if the recording has a full list
        of that kind.
    """
    full = tuple(
        prefix
        for prefix, vocabulary in (("snomed_", SNOMED), ("scp_", SCP))
        if all(column(prefix, code) in labels for code in vocabulary)
    )
    absent = {name: 0.0 for name in columns if full and name.startswith(full)}
    return {**absent, **labels}


@lru_cache(maxsize=4)
def ptbxl(path: str) -> dict[str, Annotation]:
    """Read `ptbxl_database.csv`: stem of the recording's file -> what the table says of it.

    Raises:
        InputError: a column is missing or a row cannot be read; names file and column, or line.
    """
    annotations: dict[str, Annotation] = {}
    with Path(path).open(encoding="utf-8", errors="replace", newline="") as file:
        table = csv.DictReader(file)
        try:
            missing = [column for column in _COLUMNS if column not in (table.fieldnames or ())]
            if missing:
                raise InputError(f"{path}: no column {', '.join(missing)}; expected PTB-XL's table")
            for row in table:
                stems = [Path(row[column]).name for column in ("filename_lr", "filename_hr")]
                annotations |= dict.fromkeys(stems, _annotation(row))
        except InputError:
            raise
        except Exception:  # literals raise what the parser of Python does, and quote the row
            raise InputError(
                f"{path}, line {table.line_num}: cannot be read as a line of PTB-XL's table"
            ) from None
    return annotations


def _annotation(row: dict[str, str]) -> Annotation:
    statements = ast.literal_eval(row["scp_codes"])
    sex = number(row["sex"])
    return Annotation(
        person=f"patient{int(float(row['patient_id']))}",
        age=years(row["age"]),
        sex=None if sex is None else 1.0 - sex,  # PTB-XL: 0 male, 1 female
        height=_within(number(row["height"]), 50, 250),
        weight=_within(number(row["weight"]), 10, 400),
        labels=scp(statements),
    )


def _within(value: float | None, low: float, high: float) -> float | None:
    """The value, or None beyond what `check` accepts of a cohort."""
    return value if value is not None and low <= value <= high else None


def number(text: str) -> float | None:
    """A number, or None for what is none (blank, NaN, "Unknown")."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if value == value and abs(value) != float("inf") else None


def years(text: str) -> float | None:
    """An age in years, or None; PTB-XL writes 300 for people over 89, others −1 for unknown."""
    value = number(text)
    return value if value is not None and 0 <= value <= 120 else None
