"""What the fuzz run does to labels files: CSV and Parquet as UK Biobank and others write them, damaged."""

import io

import fuzz_judge
import handmade_exports as made
import numpy as np
import pandas as pd
from fuzz_seeds import EXTREMES, NAME, SECRETS

from ecgcmr.cohort.labels import merge
from ecgcmr.errors import InputError

WIDE = pd.DataFrame(
    {
        "eid": [f"100000{i}" for i in range(8)],
        "31-0.0": [0, 1] * 4,
        "21003-2.0": [50, 61, 47, 70, 66, 58, 49, 71],
        "53-2.0": ["2016-05-05"] * 8,
        "41270-0.0": ["I251", "I480", "E119", "I10", "I259", "", "I500", "I251"],
        "41280-0.0": [
            "2015-01-01",
            "2017-03-04",
            "2012-02-02",
            "2011-01-01",
            "2018-01-01",
            "",
            "2013-01-01",
            "",
        ],
        "LVEF": [55.0, 61.2, 58.1, 49.9, 60.0, 57.3, 41.0, 63.3],
        "smoker": [0, 1, 0, 0, 1, 1, 0, 0],
        "name": [f"{made.LAST} {i}" for i in range(8)],
        "born": ["1951-04-23"] * 8,
    }
)
LONG = pd.DataFrame(
    {"subject": [1, 1, 2, 3], "icd10": ["I25.1", "I48", "E11", "I10"], "date": ["2015-01-01"] * 4}
)
RANGES = {
    "age": (0, 120),
    "sex": (0, 1),
    "LVEF": (0, 100),
    "smoker": (0, 1),
    "cad": (0, 1),
    "af": (0, 1),
    "dm": (0, 1),
}


def files() -> dict[str, bytes]:
    parquet = io.BytesIO()
    WIDE.to_parquet(parquet)
    return {
        "wide.csv": WIDE.to_csv(index=False).encode(),
        "wide.tsv": WIDE.to_csv(index=False, sep="\t").encode(),
        "long.csv": LONG.to_csv(index=False).encode(),
        "wide.parquet": parquet.getvalue(),
    }


def damaged(name: str, number: int) -> bytes:
    """The labels file of that name with a field changed, a column renamed, or bytes damaged; below 0 as it is."""
    content = files()[name]
    if number < 0:
        return content
    rng = np.random.default_rng(number)
    if number % 2 or name.endswith("parquet"):
        return fuzz_judge.damaged(content, rng)[0]
    mark = "\t" if name.endswith("tsv") else ","
    lines = [line.split(mark) for line in content.decode().splitlines()]
    row, column = rng.integers(len(lines)), rng.integers(len(lines[0]))
    words = (
        *EXTREMES,
        "eid",
        "subject",
        "31-0.0",
        '"',
        "\0",
        "=1+1",
        "9" * 400,
        "2016-13-45",
        "0001-01-01",
        "I25",
        "I25.1†",
        "['I10' 'I251']",
        "I10|I2?",
        "55,1",
        "1000000_2_0",
        "I" * 999,
    )
    word = words[rng.integers(len(words))]
    lines[row][column] = (
        word if row or word != NAME else "x"
    )  # the names of columns are told, as they should be
    return "\n".join(mark.join(line) for line in lines).encode()


def fault(path, content: bytes) -> str:
    """What is wrong with what is read of such a file; "" for nothing."""
    path.write_bytes(content)
    with fuzz_judge.overheard() as said:
        try:
            found = merge.read_labels([path])
        except InputError as error:
            line = str(error)
            return f"an error of lines: {line!r}" if "\n" in line else _secret(line)
        except Exception as error:
            return fuzz_judge.where(error)
    for row in (found.by_person or {}).values():
        for name, value in row.items():
            low, high = RANGES.get(name, (-1e9, 1e9))
            if not low <= value <= high:
                return f"{name} {value}"
    return _secret(said.getvalue() + repr(found.audit))


def _secret(words: str) -> str:
    return next(
        (f"'{secret}' was told: {words[:300]}" for secret in SECRETS if secret in words), ""
    )
