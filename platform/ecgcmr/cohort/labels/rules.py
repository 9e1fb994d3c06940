"""How labels files are to be read, as a command line asks for it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import Path

from ecgcmr.cohort.labels import definitions
from ecgcmr.cohort.labels.definitions import PAPER, Disease
from ecgcmr.errors import InputError


@dataclass(frozen=True)
class Rules:
    """How labels files are to be read.

    Attributes:
        diseases: by name; the paper's three and what was asked for besides.
        visit: UK Biobank's instance: 2 imaging, 3 repeat imaging.
        censored: diagnoses after this day are left out; None takes the latest date seen as the end
            of the records.
        codes: column with a list of ICD-10 codes in each cell (MIMIC-IV-ECG-ICD).
        allow_empty: accept a code that was asked for and that nobody has.
        time: add time to onset, and follow people up to this day, or to that of the column of this
            name; None does neither.
    """

    diseases: tuple[Disease, ...] = PAPER
    visit: int = 2
    censored: date | None = None
    codes: str = "all_diag_hosp"
    allow_empty: bool = False
    time: date | str | None = None

    @property
    def words(self) -> str:
        """What differs from the default, in a line; "" for the default."""
        disease_words = [
            f"{disease.name}={','.join(disease.words)}"
            for disease in self.diseases
            if disease not in PAPER
        ]
        default = Rules()
        options = [
            name
            for name in ("visit", "censored", "codes", "time")
            if getattr(self, name) != getattr(default, name)
        ]
        return " ".join([*disease_words, *(f"{name}={getattr(self, name)}" for name in options)])

    @cached_property
    def prefixes(self) -> Mapping[str, tuple[str, ...]]:
        """Source -> beginnings of the codes that some disease counts; sources that none does are
        not there.
        """
        prefixes_of: dict[str, dict[str, str]] = {}
        for disease in self.diseases:
            for source in disease.codes:
                prefixes_of.setdefault(source, {}).update(disease.prefixes(source))
        return {source: tuple(prefixes) for source, prefixes in prefixes_of.items()}

    @property
    def time_column(self) -> str | None:
        """Column with the end of each person's follow-up."""
        return self.time if isinstance(self.time, str) else None

    @property
    def asked_for(self) -> tuple[Disease, ...]:
        """The diseases that a person defined."""
        return tuple(disease for disease in self.diseases if disease.place)


def rules(
    diseases: Iterable[str] = (),
    *,
    definitions_file: Path | None = None,
    visit: int = 2,
    censored: str | None = None,
    codes: str = "all_diag_hosp",
    allow_empty: bool = False,
    time: str | None = None,
) -> Rules:
    """The rules of a command line; a disease that was asked for replaces the paper's of the same
    name.

    Args:
        diseases: NAME=CODES each.
        definitions_file: with more of them, see `definitions`.
        visit, censored, codes, allow_empty, time: as in `Rules`.

    Raises:
        InputError: a disease is defined badly or twice, or a date is none.
    """
    extra_diseases = [definitions.of_option(text) for text in diseases]
    extra_names = [disease.name for disease in extra_diseases]
    of_file = definitions.of_file(definitions_file) if definitions_file else ()
    taken_names = [
        name
        for name in extra_names
        if extra_names.count(name) > 1
        or name in definitions.TAKEN
        or name in [disease.name for disease in of_file]
    ]
    if taken_names:
        raise InputError(
            f"--disease {taken_names[0]}: the name is taken; "
            "choose another, or give all its codes in one go"
        )
    new_names = [*extra_names, *(disease.name for disease in of_file)]
    paper_diseases = tuple(disease for disease in PAPER if disease.name not in new_names)
    return Rules(
        diseases=(*paper_diseases, *of_file, *extra_diseases),
        visit=visit,
        censored=_day("--censored", censored) if censored else None,
        codes=codes,
        allow_empty=allow_empty,
        time=_day_or_column(time) if time is not None else None,
    )


def _day_or_column(word: str) -> date | str:
    try:
        return date.fromisoformat(word)
    except ValueError:
        return word


def _day(option: str, word: str) -> date:
    try:
        return date.fromisoformat(word)
    except ValueError as error:
        raise InputError(f"{option} {word}: not a date such as 2022-10-31") from error
