"""Where a diagnosis can come from: which vocabulary a source speaks, and how it is asked for.

The paper's diseases are ICD-10 codes of hospital stays. A file of definitions may let others count:
death, self-report and so on (docs/labels.md).
"""

from collections.abc import Callable
from dataclasses import dataclass

from ecgcmr.cohort.labels import icd10
from ecgcmr.cohort.labels.icd10 import Reading

HOSPITAL = "icd10"


@dataclass(frozen=True)
class Source:
    """A source of diagnoses.

    Attributes:
        title: what a reader sees.
        reading: an entry of a column of it.
        expand: a word of a definition, as prefixes of codes; raises `InputError`.
        spelling: a code as people write it.
    """

    title: str
    reading: Callable[[str], Reading]
    expand: Callable[[str], tuple[str, ...]]
    spelling: Callable[[str], str]


SOURCES = {
    HOSPITAL: Source("ICD-10 codes of hospital stays", icd10.read, icd10.expand, icd10.dotted)
}
