"""Run the grid of a search space in packs, through Ray Tune and Optuna.

Command: ray job submit --working-dir . -- python jobs/sweep.py --help
Cost: see ecgcmr plan.
Expect: rows of every configuration under runs/<space>/grid.
"""

import sys
from pathlib import Path

sys.path.insert(
    0, str(Path(__file__).resolve().parents[1] / "platform")
)  # the submitted copy, installed or not

from ecgcmr import cli

if __name__ == "__main__":
    sys.exit(cli.main(["sweep", *sys.argv[1:]]))
