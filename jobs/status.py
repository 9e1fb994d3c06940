"""Say what has finished, what runs and how far it is.

Command: ray job submit --working-dir . -- python jobs/status.py --help
Cost: seconds.
Expect: one line per stage and running trial.
"""

import sys
from pathlib import Path

sys.path.insert(
    0, str(Path(__file__).resolve().parents[1] / "platform")
)  # the submitted copy, installed or not

from ecgcmr import cli

if __name__ == "__main__":
    sys.exit(cli.main(["status", *sys.argv[1:]]))
