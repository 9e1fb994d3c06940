"""In what memory and time are labels of a whole biobank read?

    python benchmarks/labels.py [--people 500000] [--columns 2000] [--folder FOLDER]

Writes a table of UK Biobank's size (eid, sex, age and columns of 0, 1 and blanks; 2 GB by default), reads it in a process
of its own as `ecgcmr cohort labels` does, and prints one line of JSON: seconds, the largest resident memory in GiB, and what
of it a cell of the columns of 0 and 1 costs in bytes.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROWS = 2000  # written at once
LIMIT_GIB = 4.0
READ = """
import resource, sys
from pathlib import Path
from ecgcmr.cohort.labels import merge
base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
labels = merge.read_labels([Path(sys.argv[1])])
print(base << 10, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10, len(labels.by_person))
"""


def write(path: Path, people: int, columns: int) -> None:
    """Write the table; one cell of twenty is blank."""
    random = np.random.default_rng(0)
    names = ["eid", "31-0.0", "21003-2.0", *(f"flag_{n}" for n in range(columns))]
    cells = np.array(["0,", "1,", ","], dtype=object)
    lines = [
        "".join(cells[random.choice(3, columns, p=(0.6, 0.35, 0.05))])[:-1] for _ in range(ROWS)
    ]
    with path.open("w") as file:
        file.write(",".join(names) + "\n")
        for start in range(0, people, ROWS):
            ids = range(1_000_000 + start, 1_000_000 + min(people, start + ROWS))
            file.writelines(f"{eid},{eid % 2},{50 + eid % 30},{lines[eid % ROWS]}\n" for eid in ids)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=500_000)
    parser.add_argument("--columns", type=int, default=2000)
    parser.add_argument("--folder", type=Path, help="where the table is written, and removed again")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        path = Path(folder) / "labels.csv"
        write(path, args.people, args.columns)
        start = time.perf_counter()
        run = subprocess.run(
            [sys.executable, "-c", READ, str(path)], capture_output=True, check=True, text=True
        )
        seconds = time.perf_counter() - start
        size = path.stat().st_size
    base, peak, n_people = map(int, run.stdout.split())
    numbers = {
        "benchmark": "labels",
        "people": n_people,
        "columns": args.columns,
        "file_gb": round(size / 1e9, 3),
        "seconds": round(seconds, 1),
        "peak_gib": round(peak / 2**30, 3),
        "limit_gib": LIMIT_GIB,
        "bytes_per_cell": round((peak - base) / (n_people * args.columns), 2),
    }
    print(json.dumps(numbers))


if __name__ == "__main__":
    main()
