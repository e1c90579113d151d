"""Evaluation: a model over the scans of a folder, by frozen protocols, as a table.

Three files, importing upwards in this list only:

    protocol    how a fine volume becomes a coarse scan
    table       rows, their means by contrast, and how they look
    run         enhance, compare, write results.json and subjects.csv
"""

from __future__ import annotations

from medld.evaluation.protocol import ProtocolConfig, list_protocols, load_protocol, simulate
from medld.evaluation.run import evaluate, upsample_cubic
from medld.evaluation.table import Row, Summary, format_table, summarise

__all__ = [
    "ProtocolConfig",
    "Row",
    "Summary",
    "evaluate",
    "format_table",
    "list_protocols",
    "load_protocol",
    "simulate",
    "summarise",
    "upsample_cubic",
]
