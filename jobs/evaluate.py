"""Run each system's best configuration by validation with five seeds and read the test set once.

Command: ray job submit --working-dir . -- python jobs/evaluate.py --help
Cost: see ecgcmr plan.
Expect: rows under runs/<space>/evaluation.
"""

import sys
from pathlib import Path

sys.path.insert(
    0, str(Path(__file__).resolve().parents[1] / "platform")
)  # the submitted copy, installed or not

from ecgcmr import cli

if __name__ == "__main__":
    sys.exit(cli.main(["evaluate", *sys.argv[1:]]))
