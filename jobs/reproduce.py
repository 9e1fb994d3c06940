"""All of it in order; finished work is skipped, so submit it again after any interruption.

Command: ray job submit --working-dir . -- python jobs/reproduce.py --help
Cost: minutes at --scale toy on two cores (search_spaces/toy.py).
Expect: Table III on the last lines.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "platform"))  # the submitted copy, installed or not

from ecgcmr import cli

if __name__ == "__main__":
    sys.exit(cli.main(["reproduce", *sys.argv[1:]]))
