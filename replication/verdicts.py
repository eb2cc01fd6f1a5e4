"""Paper against measured: a verdict for each cell that may be judged, and the order of the methods."""

from __future__ import annotations

from typing import Any

from replication.judgement import claimed_margin, judge, ordering
from replication.paper import TABLES
from replication.tables import TableRun

Content = dict[str, Any]


def judge_cells(content: Content, run: TableRun) -> None:
    """Give each measured cell that stands beside the paper's own value its verdict; all others get None."""
    table = run.table.paper_table or run.table.name
    runs = TABLES[table].runs_per_cell if table in TABLES else None
    for cell in content["cells"]:
        cell["judgement"] = None
        if cell["paper"] is None or cell["status"] != "measured" or cell["unit"] != "%" or cell["ci95"] is None:
            continue
        whole = cell["correct"] is not None and cell["step"] is not None
        cell["judgement"] = judge(
            cell["value"], cell["paper"], digits=cell["digits"], n=cell["n"] if whole else None,
            ci95=None if whole else tuple(cell["ci95"]), trainings=run.table.trainings, paper_trainings=runs or 1,
            margin=claimed_margin(table, run.planners.request.model.context, cell["column"]),
        ).as_dict()


def orderings(content: Content, run: TableRun) -> list[dict[str, Any]]:
    """Return, for each average of a table of methods, how far the measured order is the paper's."""
    found = []
    judged = any(cell["paper"] is not None for cell in content["cells"])
    rows = {run.planners().row_title(text) for text in run.methods}
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
