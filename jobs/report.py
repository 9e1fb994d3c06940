"""Write the tables, figures and the report page from the rows on disk.

Command: ray job submit --working-dir . -- python jobs/report.py --help
Cost: seconds.
Expect: report/index.html under the runs.
"""

import sys
from pathlib import Path

sys.path.insert(
    0, str(Path(__file__).resolve().parents[1] / "platform")
)  # the submitted copy, installed or not

from ecgcmr import cli

if __name__ == "__main__":
    sys.exit(cli.main(["report", *sys.argv[1:]]))
