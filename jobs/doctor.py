"""Say what this machine, its packages, Ray and Aim can do.

Command: ray job submit --working-dir . -- python jobs/doctor.py --help
Cost: seconds.
Expect: a list without a cross.
"""

import sys
from pathlib import Path

sys.path.insert(
    0, str(Path(__file__).resolve().parents[1] / "platform")
)  # the submitted copy, installed or not

from ecgcmr import cli

if __name__ == "__main__":
    sys.exit(cli.main(["doctor", *sys.argv[1:]]))
