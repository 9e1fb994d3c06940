"""All of it in order; finished work is skipped, so submit it again after any interruption.

Command: ray job submit --working-dir . -- python jobs/reproduce.py --help
Cost: see the lab book of the search space, search_spaces/{toy,small,full}.py; ecgcmr plan prints it for a machine.
Expect: the tables that the runs fill, the verdicts on the paper's claims, and where the report page lies.
"""

import sys
from pathlib import Path

sys.path.insert(
    0, str(Path(__file__).resolve().parents[1] / "platform")
)  # the submitted copy, installed or not

from ecgcmr import cli

if __name__ == "__main__":
    sys.exit(cli.main(["reproduce", *sys.argv[1:]]))
