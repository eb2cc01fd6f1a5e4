"""The open questions that decide most, both ways: how much each moves the result (methods' settings by id A-nn).

    python -m replication.ambiguities --model tiny
    python -m replication.paper --assumptions          # all of them
"""

from replication.cli import main
from replication.declarations import Line, Table
from replication.table1 import MATH

# (reading not taken, the default it stands against)
READINGS = (
    (Line("sft-single", "SFT, one two-epoch schedule (A-03)"), "sft"),
    (Line("undial-original", "UNDIAL as published (A-25)"), "undial"),
    (Line("spin-64", "SPIN, an eighth of the batch (A-31)"), "spin"),
    (Line("wmss[wdjt.format=official_stage3]", "WMSS, the public stage 3 (A-75)"), "wmss"),
    (Line("wmss[wdds.weighting=eq9_termnorm]", "WMSS, Eq. 9 with each term normalised (A-60)"), "wmss"),
    (Line("wmss[wdds.weighting=official_termnorm]", "WMSS, the public weighting (A-60)"), "wmss"),
    (Line("wmss[wdds.dedup=false]", "WMSS, repeated draws kept (A-62)"), "wmss"),
    (Line("wmss-step-matched", "WMSS, as many updates as SFT (A-67)"), "wmss"),
    (Line("wmss-official", "WMSS, all of the public code's choices"), "wmss"),
)
DEFAULTS = tuple(dict.fromkeys(default for _, default in READINGS))

TABLE = Table(
    name="ambiguities",
    title="Open questions, both ways: pass@1 accuracy (%) under greedy decoding",
    place="Ambiguities",
    groups=(MATH,),
    rows=(*DEFAULTS, *(line for line, _ in READINGS)),
    against=(),
    pairs=tuple((line.text, default) for line, default in READINGS),
    notes=("Each reading is compared with the default of its own method, in paired tests.",
           "Each row is one training: a difference and its p speak of the questions, not of the reading alone. Another "
           "training of the same setting would differ as well; how far trainings lie apart at this scale is in the "
           "intervals of Table 9 (three trainings for each lambda)."),
)

if __name__ == "__main__":
    main(TABLE)
