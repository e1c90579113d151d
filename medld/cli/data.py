"""`medld data`: data cards, folders of scans, packs."""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medld.cli.table import columns
from medld.errors import CardError, ConfigError

if TYPE_CHECKING:
    from medld.cards import DataCard
    from medld.dataset import Scan

DATA_VARIABLE = "MEDLD_DATA"
MEGABYTE = 10**6
TEXT_WIDTH = 96
LEFT_OUT_NAMED = 12
SHORT = 24
"""Items of a list that are no longer stand beside each other."""

HEAD = ("subject", "modality", "contrast", "shape", "spacing mm", "MB", "noise", "problems", "name")

EPILOG = """\
examples:
  medld data lint                                   all cards that ship; or name cards of your own
  medld data show ixi
  medld data inspect scans/
  medld data pack medld-mri-train --data ../shared/data --out packs/mri --split train --max-mb 60
  medld data pack scans/ --out packs/own            NIfTI files, flat or BIDS, and DICOM studies"""


def add_parser(commands: Any) -> None:
    """Arguments and their help."""
    parser = commands.add_parser("data", help="data cards, folders of scans, packs", epilog=EPILOG)
    parser.set_defaults(command="data")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    lint = actions.add_parser("lint", help="what is wrong with cards")
    lint.add_argument("cards", metavar="CARD", nargs="*", help="name or .yaml file; default: all that ship")
    lint.set_defaults(action=_lint)
    actions.add_parser("list", help="the cards that ship").set_defaults(action=_list)
    show = actions.add_parser("show", help="a card as text")
    show.add_argument("card", metavar="CARD", help="name or .yaml file")
    show.set_defaults(action=_show)
    inspect = actions.add_parser("inspect", help="what is in a folder of scans, and what is wrong with it")
    inspect.add_argument("folder", metavar="DIR", type=Path)
    inspect.set_defaults(action=_inspect)
    _add_pack(actions)


def _add_pack(actions: Any) -> None:
    """`medld data pack`."""
    pack = actions.add_parser("pack", help="scans in few small files, to train from on any machine")
    pack.add_argument("what", metavar="CARD|DIR", help="name or .yaml file of a card, or a folder of scans")
    pack.add_argument("--out", metavar="DIR", type=Path, required=True, help="the pack; new or empty")
    pack.add_argument(
        "--data", metavar="FOLDER", type=Path, help=f"where the card's files are; default: {DATA_VARIABLE}"
    )
    pack.add_argument("--split", choices=("train", "val"), help="of the card; default train")
    pack.add_argument("--max-mb", metavar="N", type=float, help="most size in million bytes; some scans stay out")
    pack.set_defaults(action=_pack)


def run(options: argparse.Namespace, say: Callable[[str], None]) -> int:
    """Run the command; returns the exit code."""
    action: Callable[[argparse.Namespace, Callable[[str], None]], int] = options.action
    return action(options, say)


def _lint(options: argparse.Namespace, say: Callable[[str], None]) -> int:
    """Problems of cards; 2 if there are any."""
    from medld.cards import card_path, lint_file, list_cards

    count = 0
    for card in options.cards or list_cards():
        problems = lint_file(card_path(card))
        count += len(problems)
        say(f"{card}: {len(problems) or 'no'} problem{'s' if len(problems) > 1 else ''}")
        for problem in problems:
            say(f"  {problem}")
    return 2 if count else 0


def _list(options: argparse.Namespace, say: Callable[[str], None]) -> int:
    """Every shipped card in a line."""
    from medld.cards import list_cards, read_card

    rows: list[Sequence[str]] = [("card", "modality", "subjects", "files", "title")]
    for name in list_cards():
        card = read_card(name)
        numbers = [_number(card.counts.subjects), _number(card.counts.files)]
        rows.append((name, card.modality.upper(), *numbers, card.title))
    for line in columns(rows):
        say(line)
    return 0


def _number(count: Any) -> str:
    return str(count) if isinstance(count, int) else "unknown"


def _show(options: argparse.Namespace, say: Callable[[str], None]) -> int:
    """A card, one field after the other."""
    from medld.cards import read_card

    for line in _describe(read_card(options.card)):
        say(line)
    return 0


def _describe(card: DataCard) -> Iterator[str]:
    yield f"{card.name}: {card.title}"
    for field in type(card).model_fields:
        if field in ("name", "title", "parts", "splits", "use"):
            continue
        yield from _field(field.removesuffix("_t").replace("_", " "), getattr(card, field))
    for part in card.parts:
        yield from _field(f"part {part.name}", f"{part.licence}; {part.origin}, {part.version}; {part.attribution}")
        yield from _field("", part.notes)
    yield from _field("splits", f"{card.splits.rule}; {card.splits.why}")
    for split in ("train", "val", "test"):
        files = card.files(split)
        if files:
            contrasts = ", ".join(f"{count} {name}" for name, count in Counter(f.contrast for f in files).most_common())
            yield from _field("", f"{split}: {len({file.subject for file in files})} subjects, {contrasts}")
    for field in type(card.use).model_fields:
        yield from _field(field.replace("_", " "), getattr(card.use, field))


def _field(name: str, value: Any) -> Iterator[str]:
    """A field: its name once, its values below one another."""
    from textwrap import wrap

    head = f"{name}:" if name else ""
    for text in _texts(value):
        for start, line in enumerate(wrap(text, TEXT_WIDTH, break_on_hyphens=False, break_long_words=False)):
            yield f"  {head:<20}{'' if start == 0 else '  '}{line}"
            head = ""


def _texts(value: Any) -> list[str]:
    """A value as paragraphs."""
    from medld.cards import Absent

    if isinstance(value, tuple):
        texts = [f"{item:g}" if isinstance(item, float) else str(item) for item in value]
        return [", ".join(texts)] if all(len(text) <= SHORT for text in texts) else texts
    if hasattr(value, "model_fields_set") and not isinstance(value, Absent):
        pairs = ((key.replace("_", " "), f"{item:g}" if isinstance(item, float) else item) for key, item in value)
        return [", ".join(f"{key} {item}" for key, item in pairs)]
    return [str(value)]


def _inspect(options: argparse.Namespace, say: Callable[[str], None]) -> int:
    """A table of scans, their problems, and what there is of each contrast and spacing; 2 if there are problems."""
    from medld.dataset import survey

    scans = []
    rows: list[Sequence[str]] = [HEAD]
    for scan in survey(options.folder):
        scans.append(scan)
        rows.append(_row(scan))
    for line in columns(rows):
        say(line)
    say("noise: standard deviation, in % of the 99.9th percentile or in HU; none: none stands out from texture")
    for scan in scans:
        for problem in scan.problems:
            say(f"{scan.name}: {problem.code}: {problem.text}")
    for line in _summarise(scans):
        say(line)
    return 2 if any(scan.problems for scan in scans) else 0


def _row(scan: Scan) -> tuple[str, ...]:
    noise = "-"
    if scan.noise is not None:
        amount = f"{scan.noise:.0f} HU" if scan.modality == "ct" else f"{100 * scan.noise:.1f} %"
        noise = amount if scan.noise > 0 else "none"
    return (
        scan.subject,
        (scan.modality or "-").upper(),
        _contrast(scan),
        "x".join(map(str, scan.shape)) if scan.shape else "-",
        _spacing(scan),
        f"{scan.bytes / MEGABYTE:.1f}",
        noise,
        ",".join(dict.fromkeys(problem.code for problem in scan.problems)) or "-",
        scan.name,
    )


def _contrast(scan: Scan) -> str:
    return "-" if scan.contrast is None or scan.modality == "ct" else scan.contrast


def _spacing(scan: Scan) -> str:
    return "x".join(f"{s:.2f}" for s in scan.spacing) if scan.spacing else "-"


def _summarise(scans: Sequence[Scan]) -> Iterator[str]:
    usable = [scan for scan in scans if scan.modality is not None]
    subjects = len({scan.subject for scan in scans})
    odd = sum(bool(scan.problems) for scan in scans)
    yield f"{len(scans)} scans, {subjects} subjects, {len(usable)} readable, {odd} with problems"
    groups = Counter(((scan.modality or "").upper(), _contrast(scan), _spacing(scan)) for scan in usable)
    for (modality, contrast, spacing), count in sorted(groups.items()):
        kind = modality if contrast == "-" else f"{modality} {contrast}"
        yield f"  {count} {kind} at {spacing} mm"


def _pack(options: argparse.Namespace, say: Callable[[str], None]) -> int:
    """Write a pack of a card's split or of a folder."""
    from medld.dataset import find_scans, write_pack

    most = None if options.max_mb is None else int(options.max_mb * MEGABYTE)
    if most is not None and most <= 0:
        raise ConfigError(f"Expected a positive number of MB, got --max-mb {options.max_mb:g}.")
    card: str | None = None
    split: str | None = None
    if _is_card(options.what):
        card, scans = _scans_of_card(options, say)
        split = options.split or "train"
    else:
        folder = Path(options.what)
        if options.split or options.data:
            raise ConfigError("Expected --split and --data with a card, a folder has neither. Leave them out.")
        scans = find_scans(folder, report=say)
        if not scans:
            raise CardError(
                f"Expected NIfTI files, flat or in a BIDS tree, or DICOM in {folder}, found none. Check the path."
            )
    packed = write_pack(scans, options.out, max_bytes=most, report=say, card=card, split=split)
    say(f"{len(packed.names)} volumes, {packed.size / MEGABYTE:.1f} MB -> {options.out}")
    if packed.left_out:
        named = ", ".join(packed.left_out[:LEFT_OUT_NAMED])
        more = len(packed.left_out) - LEFT_OUT_NAMED
        rest = f" and {more} more, see left_out in the index" if more > 0 else ""
        say(f"left out for want of room ({len(packed.left_out)}): {named}{rest}")
    return 0


def _is_card(what: str) -> bool:
    """A .yaml file or the name of a shipped card; a folder of such a name is written with its path, ./ixi."""
    from medld.cards import list_cards

    if what in list_cards() or what.endswith((".yaml", ".yml")):
        return True
    if Path(what).is_dir():
        return False
    raise CardError(f"Expected a card ({', '.join(list_cards())} or a .yaml file) or a folder, got '{what}'.")


def _scans_of_card(options: argparse.Namespace, say: Callable[[str], None]) -> tuple[str, list[Any]]:
    from medld.cards import read_card
    from medld.dataset import card_scans, where_to_get

    card = read_card(options.what)
    folder = options.data or os.environ.get(DATA_VARIABLE)
    if folder is None:
        raise ConfigError(
            f"Expected the folder of {card.name}: give --data FOLDER or set {DATA_VARIABLE}. {where_to_get(card)}"
        )
    return card.name, card_scans(card, Path(folder), options.split or "train", say)
