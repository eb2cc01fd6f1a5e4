"""The report page: result files of one model in, one self-contained HTML file and static figures out.

    python -m replication.page --model tiny --results results

`render` is pure; `write` reads results/<model>/*.json (docs/results.md) and writes report.html and
figures/ beside them.
"""

from replication.page.render import render
from replication.page.writing import write

__all__ = ["render", "write"]
