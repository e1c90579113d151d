"""Data card: what a data set is, where it comes from, what it may be used for and how it is split.

A card is a YAML file and holds facts, never scans.

    schema      what a card holds; reading one
    lint        what is wrong with one that can be read
"""

from medld.cards.lint import lint_card, lint_file
from medld.cards.schema import (
    CONTRASTS,
    FOLDER,
    Absent,
    CardFile,
    DataCard,
    Split,
    card_path,
    known,
    list_cards,
    read_card,
    split_of,
)

__all__ = [
    "CONTRASTS",
    "FOLDER",
    "Absent",
    "CardFile",
    "DataCard",
    "Split",
    "card_path",
    "known",
    "lint_card",
    "lint_file",
    "list_cards",
    "read_card",
    "split_of",
]
