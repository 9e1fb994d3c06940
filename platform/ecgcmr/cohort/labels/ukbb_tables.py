"""Columns of UK Biobank's tables: three spellings, and the fields that mean something here.

`41270-0.5` is ukbconv's CSV, `f.41270.0.5` its R table, `p41270_a5` the Research Analysis
Platform's, where instance and array are left out if a field has one only, and `participant.` may
stand in front.

Which field is what: ukbtools writes the Showcase's titles into column names together with the
number, and so all 82 heart phenotypes stand in a public analysis
(`lv_circumferential_strain_global_f24157_2_0`, `lv_radial_strain_aha_1_f24158_2_0`). Other scripts
say the same of single fields: 24133 wall thickness AHA 10, 24142 circumferential strain AHA 2,
24174 radial strain global. Not taken, as they are not the paper's: atria (24110 to 24117), aorta
(to 24123) and longitudinal strain (24175 to 24181).
"""

import re
from dataclasses import dataclass

from ecgcmr import tasks

VISIT, DEATH, LOST = 53, 40000, 191  # the dates of visits, of death, and of loss to follow-up

_VENTRICLES = tasks.PHENOTYPES[:10]
_NAMES = (*_VENTRICLES, *(None,) * 14, *tasks.PHENOTYPES[10:61])  # 24100 to 24174

# Standing height was measured at recruitment and at imaging; 12144 is what imaging noted where the
# first is absent.
FIELDS: dict[int, str] = {
    31: "sex",
    21003: "age",
    50: "height",
    12144: "height",
    21002: "weight",
    **{24100 + n: name for n, name in enumerate(_NAMES) if name},
}

# Where else diagnoses are, of which nothing is taken unless a definition counts them.
UNUSED: dict[int, str] = {
    20002: "self-reported illnesses",
    20001: "self-reported cancers",
    20003: "medication",
    20004: "self-reported operations",
    20008: "years of self-reported illnesses",
    191: "date lost to follow-up",
    40000: "date of death",
    40001: "primary cause of death",
    40002: "secondary causes of death",
    41202: "main ICD-10 codes, part of 41270",
    41204: "secondary ICD-10 codes, part of 41270",
    41271: "ICD-9 codes",
    41272: "OPCS-4 operations",
    41256: "main OPCS-3 operations",
    **dict.fromkeys(range(130000, 132606, 2), "first occurrences"),
}

# The stay or death that a line of a record table is of, and the dates of those; the first known.
EPISODE = (
    "ins_index",
    *(f"{table}.ins_index" for table in ("hesin", "hesin_diag", "hesin_oper")),
    *(f"{table}.ins_index" for table in ("death", "death_cause")),
)
STAY_DATES = ("epistart", "hesin.epistart", "admidate", "hesin.admidate")
DEATH_DATES = ("date_of_death", "death.date_of_death")

ONCE = {31}  # fields without repeat visits

_SPELLINGS = (
    re.compile(r"(?P<field>\d+)-(?P<instance>\d+)\.(?P<array>\d+)"),
    re.compile(r"f\.(?P<field>\d+)\.(?P<instance>\d+)\.(?P<array>\d+)"),
    re.compile(r"(?:participant\.)?p(?P<field>\d+)(?:_i(?P<instance>\d+))?(?:_a(?P<array>\d+))?"),
)


@dataclass(frozen=True)
class Column:
    """Field, visit (0 recruitment, 2 imaging, 3 repeat imaging) and place in an array.

    None where the name does not say.
    """

    field: int
    instance: int | None
    array: int | None


def column(name: str) -> Column | None:
    """What a column's name says, or None if it is not UK Biobank's."""
    for spelling in _SPELLINGS:
        if match := spelling.fullmatch(name):
            groups = match.groupdict()
            numbers = {part: None if word is None else int(word) for part, word in groups.items()}
            return Column(numbers["field"] or 0, numbers["instance"], numbers["array"])
    return None
