"""Print the bill before anything starts.

Command: ray job submit --working-dir . -- python jobs/plan.py --help
Cost: seconds.
Expect: trials, packs, steps, bytes and hours.
"""

import sys
from pathlib import Path

sys.path.insert(
    0, str(Path(__file__).resolve().parents[1] / "platform")
)  # the submitted copy, installed or not

from ecgcmr import cli

if __name__ == "__main__":
    sys.exit(cli.main(["plan", *sys.argv[1:]]))
