"""Paper against measured: a verdict for each cell that may be judged, and the order of the methods."""

from __future__ import annotations

from typing import Any

from evaluation.statistics import wilson
from replication.judgement import Judgement, claimed_margin, judge, ordering
from replication.measures import is_share
from replication.paper import TABLES
from replication.tables import TableRun

Content = dict[str, Any]


def judge_cells(content: Content, run: TableRun) -> None:
    """Give each measured cell that stands beside the paper's own value its verdict; all others get None."""
    for cell, planned in zip(content["cells"], run.cells, strict=True):
        judged = cell["paper"] is not None and cell["status"] == "measured"
        cell["judgement"] = _judged(cell, run, is_share(planned.measure)).as_dict() if judged else None


def _judged(cell: Content, run: TableRun, share: bool) -> Judgement:
    """Judge by the cell's own interval: it knows of shared passages and of several trainings, a count does not."""
    table = run.table.paper_table or run.table.name
    in_points = share or cell["unit"] == "points"
    margin = (claimed_margin(table, run.planners.request.model.context, cell["column"])
              if in_points and table in TABLES else None)
    return judge(cell["value"], cell["paper"], digits=cell["digits"], share=share, margin=margin,
                 ci95=None if cell["ci95"] is None else tuple(cell["ci95"]),
                 paper_n=_questions_worth(cell) if share else None, trainings=run.table.trainings,
                 unit="points" if in_points else "percentage points" if cell["unit"] == "%" else cell["unit"])


def _questions_worth(cell: Content) -> int | None:
    """Return how many separate questions of one training give a share an interval as wide as the cell's.

    The paper's figure is taken to be as uncertain, by Wilson at its own value: beside 0 % or 100 % the measured
    interval is no measure of it. None for what is no single share (averages, pass@k).
    """
    if cell["correct"] is None or cell["step"] is None or cell["ci95"] is None:
        return None
    low, high = wilson(cell["correct"], cell["n"])
    return max(1, round(cell["n"] * (100 * (high - low) / (cell["ci95"][1] - cell["ci95"][0])) ** 2))


def orderings(content: Content, run: TableRun) -> list[dict[str, Any]]:
    """Return, for each average of a table of methods, how far the measured order is the paper's."""
    found = []
    judged = any(cell["paper"] is not None for cell in content["cells"])
    rows = {line.title or run.planners().row_title(line.text) for line in run.table.lines}
    for group in run.table.groups:
        cells = [(cell, value) for cell in content["cells"]
                 if cell["column"] == group.average and cell["row"] in rows and cell["status"] == "measured"
                 and cell["ci95"] is not None
                 and (value := cell["paper"] if judged else cell["paper_context"]) is not None]
        if len(cells) < 3:
            continue
        order = ordering([cell["row"] for cell, _ in cells], [cell["value"] for cell, _ in cells],
                         [tuple(cell["ci95"]) for cell, _ in cells], [value for _, value in cells],
                         column=str(group.average), names=(run.table.name, run.planners.request.model.name)).as_dict()
        if not judged:
            order["text"] = f"For orientation only, as model and scale are not the paper's: {order['text']}"
        found.append(order)
    return found
