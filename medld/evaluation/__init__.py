"""Evaluation: methods over the scans of a folder or card, by frozen protocols, as a table with its uncertainty.

Importing upwards in this list only:

    protocol        how a fine volume becomes a coarse scan, as a file
    phantom         lesions in a truth
    simulate        doing it
    baselines       interpolations and least squares
    statistics      what few subjects allow to say
    participants    who a scan is of
    sources         which scans
    exchange        simulated scans for other tools, and what those made of them
    labels          label maps of the truth and of outputs
    methods         what is compared, by one name each
    table           rows, their means by contrast, and how they look
    figures         the numbers of one output
    subgroups       the same table by sex, age, vendor, ...
    journal         what was found so far, on disk
    record          results.json and subjects.csv
    compare         one scan after the other
    run             an evaluation from its settings to its table
"""

from __future__ import annotations

from medld.evaluation.baselines import upsample_cubic
from medld.evaluation.exchange import write_scans
from medld.evaluation.methods import BASELINES
from medld.evaluation.protocol import ProtocolConfig, list_protocols, load_protocol
from medld.evaluation.run import evaluate, merge, simulate_scans
from medld.evaluation.simulate import simulate
from medld.evaluation.subgroups import Subgroup, find_subgroups
from medld.evaluation.table import Row, Summary, format_table, summarise

__all__ = [
    "BASELINES",
    "ProtocolConfig",
    "Row",
    "Subgroup",
    "Summary",
    "evaluate",
    "find_subgroups",
    "format_table",
    "list_protocols",
    "load_protocol",
    "merge",
    "simulate",
    "simulate_scans",
    "summarise",
    "upsample_cubic",
    "write_scans",
]
