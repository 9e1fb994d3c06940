"""Mirror finished runs into Aim, or rebuild the repository from the rows on disk.

Command: ray job submit --working-dir . -- python jobs/track.py --help
Cost: seconds.
Expect: the number of runs, and that the copy is equal.
"""

import sys
from pathlib import Path

sys.path.insert(
    0, str(Path(__file__).resolve().parents[1] / "platform")
)  # the submitted copy, installed or not

from ecgcmr import cli

if __name__ == "__main__":
    sys.exit(cli.main(["track", *sys.argv[1:]]))
