"""Build, make or check a cohort.

Command: ray job submit --working-dir . -- python jobs/cohort.py --help
Cost: not measured at 40,000 subjects; 1,600 synthetic ones take about a minute on two cores.
Expect: the flow from found to kept.
"""

import sys
from pathlib import Path

sys.path.insert(
    0, str(Path(__file__).resolve().parents[1] / "platform")
)  # the submitted copy, installed or not

from ecgcmr import cli

if __name__ == "__main__":
    sys.exit(cli.main(["cohort", *sys.argv[1:]]))
