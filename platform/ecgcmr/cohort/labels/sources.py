"""Where a diagnosis can come from: its vocabulary, where it stands, what dates it.

The paper's diseases are ICD-10 codes of hospital stays. A file of definitions may let others count:
death, self-report and so on (docs/labels.md).
"""

from collections.abc import Callable
from dataclasses import dataclass

from ecgcmr.cohort.labels import codings, first_occurrences, icd10
from ecgcmr.cohort.labels.icd10 import Reading

HOSPITAL, DEATH, FIRST = "icd10", "death", "first_occurrence"
SELF_REPORT, MEDICATION = "self_report", "medication"
STAY_DATES = ("date", "epistart", "hesin.epistart")


@dataclass(frozen=True)
class Source:
    """A source of diagnoses.

    Attributes:
        title: what a reader sees.
        words: what its entries are called, with an example.
        example: a word of a definition.
        reading: an entry of a column of it.
        expand: a word of a definition, as prefixes of codes; raises `InputError`.
        spelling: a code as people write it.
        fields: UK Biobank's, with codes.
        date_field: with their dates, of the same array index; of deaths of the same instance.
        has_years: the dates are years with a fraction.
        has_one_date: a date is that of all codes of its instance.
        whole: a definition names whole codes, not their beginnings.
        at_visits: people tell it at a visit, so that it knows nothing of later.
        record_codes, record_dates: columns of tables with a line for each code.
    """

    title: str
    words: str
    example: str
    reading: Callable[[str], Reading]
    expand: Callable[[str], tuple[str, ...]]
    spelling: Callable[[str], str] = str
    fields: tuple[int, ...] = ()
    date_field: int | None = None
    has_years: bool = False
    has_one_date: bool = False
    whole: bool = False
    at_visits: bool = False
    record_codes: tuple[str, ...] = ()
    record_dates: tuple[str, ...] = ()

    def matches(self, code: str, prefixes: tuple[str, ...]) -> bool:
        """Whether a code is one of those that are asked for."""
        return code in prefixes if self.whole else code.startswith(prefixes)


SOURCES = {
    HOSPITAL: Source(
        title="ICD-10 codes of hospital stays",
        words="ICD-10 codes such as I251 or I25.1",
        example="I20-I25",
        reading=icd10.read,
        expand=icd10.expand,
        spelling=icd10.dotted,
        fields=(41270,),
        date_field=41280,
        record_codes=("icd10", "diag_icd10", "hesin_diag.diag_icd10"),
        record_dates=STAY_DATES,
    ),
    "icd9": Source(
        title="ICD-9 codes of hospital stays",
        words="ICD-9 codes such as 4109 or 410.9",
        example="410-414",
        reading=codings.icd9_read,
        expand=codings.icd9_expand,
        spelling=icd10.dotted,
        fields=(41271,),
        date_field=41281,
        record_codes=("icd9", "diag_icd9", "hesin_diag.diag_icd9"),
        record_dates=STAY_DATES,
    ),
    "opcs4": Source(
        title="operations, OPCS-4",
        words="OPCS-4 codes such as K401 or K40.1",
        example="K40-K46",
        reading=icd10.read,  # a letter and digits as well
        expand=codings.opcs4_expand,
        spelling=icd10.dotted,
        fields=(41272,),
        date_field=41282,
        record_codes=("opcs4", "oper4", "hesin_oper.oper4"),
        record_dates=("date", "opdate", "hesin_oper.opdate", "epistart", "hesin.epistart"),
    ),
    DEATH: Source(
        title="causes of death, ICD-10",
        words="ICD-10 codes such as I251 or I25.1",
        example="I20-I25",
        reading=icd10.read,
        expand=icd10.expand,
        spelling=icd10.dotted,
        fields=(40001, 40002),
        date_field=40000,
        has_one_date=True,
        record_codes=("cause_icd10", "death_cause.cause_icd10"),
        record_dates=("date", "date_of_death", "death.date_of_death"),
    ),
    FIRST: Source(
        title="first occurrences",
        words="dates",
        example="I20-I25",
        reading=first_occurrences.read,
        expand=first_occurrences.expand,
        whole=True,
    ),
    SELF_REPORT: Source(
        title="self-reported illnesses",
        words="numbers of illnesses such as 1074",
        example="1074",
        reading=codings.number_read,
        expand=codings.number_expand,
        fields=(20002,),
        date_field=20008,
        has_years=True,
        whole=True,
        at_visits=True,
    ),
    MEDICATION: Source(
        title="medication",
        words="numbers of medicines such as 1140868226",
        example="1140868226",
        reading=codings.number_read,
        expand=codings.number_expand,
        fields=(20003,),
        whole=True,
        at_visits=True,
    ),
}
