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
        example: a word of a definition.
        reading: an entry of a column of it.
        expand: a word of a definition, as prefixes of codes; raises `InputError`.
        spelling: a code as people write it.
        whole: a definition names whole codes, not their beginnings.
    """

    title: str
    example: str
    reading: Callable[[str], Reading]
    expand: Callable[[str], tuple[str, ...]]
    spelling: Callable[[str], str]
    whole: bool = False

    def matches(self, code: str, prefixes: tuple[str, ...]) -> bool:
        """Whether a code is one of those that are asked for."""
        return code in prefixes if self.whole else code.startswith(prefixes)


SOURCES = {
    HOSPITAL: Source(
        "ICD-10 codes of hospital stays", "I20-I25", icd10.read, icd10.expand, icd10.dotted
    )
}
