"""Model card: what the shipped MRI model is, learned, can and cannot, from what was measured of it.

For whoever ships new weights: the card that lies beside them is stale until this has run, and a test says so.

    medld evaluate ../shared/data/val --protocol through-plane-2x --protocol through-plane-3.5x \\
        --protocol through-plane-4x --protocol through-plane-6x --protocol isotropic-2x --out results
    for mode in fidelity balanced detail; do medld evaluate ../shared/data/val --mode $mode --baselines cubic B \
        --protocol through-plane-4x-lesions --no-pages --out $mode; done
    python pipelines/model_card.py ../shared/data/val --results results fidelity balanced detail --out medld/weights/mri

Sentences come from `model_card.md.jinja`; figures from results of `medld evaluate` (of this model's weights, or nothing
is written), from `model.json`, the data card, the training log and `LEFT_OUT`. The pictures (`model_card_pictures.py`)
are of the scans on which the model gains least, restored anew: half a minute each on two CPU cores.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from leave_one_out import as_markdown
from model_card_pictures import Picture, draw_failures

from medld.cards import DataCard, read_card
from medld.checkpoint import DEFAULT, Model, load_model
from medld.io import split_suffix
from medld.report.results import MAIN_FIGURES
from medld.report.tables import interval, number

FOLDER = Path(__file__).parent
TEMPLATE, LOG = "model_card.md.jinja", FOLDER / "training_log.md"
LEFT_OUT = [FOLDER / "results" / f"leave_one_out_{name}.csv" for name in ("near", "longer")]
"""The newest first."""
CARD = "README.md"
SHOWN = ("cubic", "least-squares", "B", "medld")
"""Methods in the card's tables, of all in the results."""
RUN = re.compile(r"^## (?:[\d-]+, )?[Rr]un (\d+): (.+?) \((?:about )?(\d+) s\b[^)]*\)[:,]? ?(.*)$", re.MULTILINE)
"""Heading of a run in the training log: number, what it was, seconds, what became of it."""
FREE = ("cubic", "B")
"""Methods that stand beside the modes."""
MODE_FIGURES = {
    "PSNR": "psnr",
    "SSIM": "ssim",
    "detail": "detail_share",
    "lesions' contrast": "lesions_kept_contrast",
    "of 2 mm": "lesions_kept_contrast_2mm",
    "erased": "lesions_wrong_erased",
    "invented": "lesions_wrong_invented",
    "spots": "lesions_wrong_spots",
}
"""Column and figure of the table of modes."""
WATTS = 700
"""Most that an H100 SXM draws, by its data sheet."""

Record = Mapping[str, Any]


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, read, draw, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scans", type=Path, help="the fine scans of the results")
    parser.add_argument("--results", type=Path, nargs="+", required=True, help="folders that medld evaluate wrote")
    parser.add_argument("--out", type=Path, required=True, help="gets README.md and failures/; the model's folder")
    parser.add_argument("--model", default=DEFAULT, help="name or folder (%(default)s)")
    parser.add_argument("--card", default="medld-mri-train", help="of what it learned from (%(default)s)")
    parser.add_argument("--pictured", default="through-plane-4x", help="protocol of the pictures (%(default)s)")
    options = parser.parse_args(argv)
    model, data = load_model(options.model), read_card(options.card)
    records = [read_record(folder, model) for folder in options.results]
    if len({json.dumps({**record["settings"], "mode": ""}) for record in records}) > 1:
        raise SystemExit("Expected results whose settings differ in --mode alone. Run medld evaluate again.")
    cases = list(least_gains(faithful(records), options.pictured, data))
    if not cases:
        raise SystemExit(f"Expected results by {options.pictured}, got none. Evaluate it, or name another --pictured.")
    pictures = draw_failures(cases, options.scans, model, options.pictured, options.out / "failures")
    text = fill(model, data, records, pictures, options.pictured)
    (options.out / CARD).write_text(text, encoding="utf-8")
    size = sum((options.out / "failures" / picture.file).stat().st_size for picture in pictures)
    print(f"{options.out / CARD}: {len(pictures)} pictures, {size / 1000:.0f} kB")


def read_record(folder: Path, model: Model) -> Record:
    """The results in a folder, which must be of these weights."""
    record: Record = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    known = [dict(one["sha256"]) for one in record["models"]]
    if dict(model.sha256) not in known:
        raise SystemExit(
            f"Expected results of the weights of {model.name} in {folder}, got others. Run medld evaluate."
        )
    return record


def faithful(records: Sequence[Record]) -> list[Record]:
    """Those of the default mode."""
    return [record for record in records if record["settings"]["mode"] == "fidelity"]


def least_gains(records: Sequence[Record], protocol: str, data: DataCard) -> Iterator[Mapping[str, Any]]:
    """Of each contrast the scan on which the model gains least by a protocol."""
    rows = [row for record in records for row in record["subjects"]]
    rows = [row for row in rows if (row["protocol"], row["method"]) == (protocol, "medld")]
    for contrast in data.contrasts if isinstance(data.contrasts, tuple) else ():
        own = [row for row in rows if row["group"] == contrast]
        if own:
            yield min(own, key=lambda row: (row["gain"], row["file"]))


def fill(model: Model, data: DataCard, records: Sequence[Record], pictures: Sequence[Picture], pictured: str) -> str:
    """The card's text."""
    environment = Environment(
        loader=FileSystemLoader(FOLDER), undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    environment.filters["lines"] = lambda known: known if isinstance(known, tuple) else (str(known),)
    environment.filters["kwh"] = kwh
    environment.globals["table"] = table
    records, every_mode = faithful(records), list(mode_rows(records, data))
    runs = read_runs(LOG.read_text(encoding="utf-8"))
    left_out = read_left_out(LEFT_OUT)
    return environment.get_template(TEMPLATE).render(
        model=model,
        parameters={part: count(model, part) for part in ("one_step", "autoencoder", "denoiser")},
        data=data,
        sources=list(sources_of(model, data)),
        learned=len(model.volumes()),
        tables=[table for record in records for table in main_tables(record, data)],
        further=[line for record in records for line in further_figures(record, data)],
        machine=records[0],
        modes=every_mode,
        mode_heads=["protocol", "contrast", "method", *MODE_FIGURES],
        left_out=as_markdown(left_out),
        left_out_steps=sorted({int(line["steps"]) for line in left_out}),
        command=" ".join(f"--protocol {one['name']}" for record in records for one in record["protocols"]),
        runs=runs,
        run_rows=[[str(r["number"]), r["what"], str(r["seconds"]), kwh(r["seconds"]), r["end"]] for r in runs],
        watts=WATTS,
        pictures=pictures,
        pictured=pictured,
        licences=list(licences_of(pictures, data)),
    )


def read_left_out(paths: Sequence[Path]) -> list[dict[str, str]]:
    """The lines of networks trained without some sources; of several without the same ones, those in the first file."""
    lines: list[dict[str, str]] = []
    for path in paths:
        known = {line["left_out"] for line in lines}
        with path.open(encoding="utf-8", newline="") as stream:
            lines += [line for line in csv.DictReader(stream) if line["left_out"] not in known]
    return lines


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(heads), *rows))


def kwh(seconds: int) -> str:
    """Most that the board can have used in that time."""
    return f"{seconds * WATTS / 3.6e6:.2f}"


def count(model: Model, part: str) -> int:
    """Parameters of a part, 0 where there is none."""
    network = getattr(model.networks, part)
    return 0 if network is None else sum(parameter.numel() for parameter in network.parameters())


def sources_of(model: Model, data: DataCard) -> Iterator[list[str]]:
    """The parts of the data card that the model learned from: subjects, scans by contrast, licence, attribution."""
    learned = set(model.volumes())
    files = [file for file in data.files("train") if split_suffix(Path(file.file))[0] in learned]
    for part in data.parts:
        own = [file for file in files if file.part == part.name]
        if own:
            contrasts = Counter(file.contrast for file in own)
            scans = ", ".join(f"{number} {contrast}" for contrast, number in contrasts.most_common())
            people = len({file.subject for file in own})
            yield [part.name, str(people), scans, str(part.licence), str(part.attribution)]


def main_tables(record: Record, data: DataCard) -> Iterator[dict[str, Any]]:
    """For each protocol the lines of a table: means over subjects with their 95 % intervals."""
    for protocol in (one["name"] for one in record["protocols"]):
        lines = [line for line in record["summary"] if line["protocol"] == protocol]
        lines = [line for line in lines if line["method"] in SHOWN and line["group"] in data.contrasts]
        yield {"title": protocol, "rows": [main_row(line) for line in lines]}


def main_row(line: Mapping[str, Any]) -> list[str]:
    """Contrast, method, scans, PSNR, gain, lowest gain, SSIM, its gain, share of the detail."""
    psnr, ssim = line["statistics"]["psnr"], line["statistics"]["ssim"]
    base = line["method"] == "B"
    return [
        *(line["group"], f"**{line['method']}**" if line["method"] == "medld" else line["method"], str(line["scans"])),
        with_interval(psnr["value"], ".2f"),
        "" if base else with_interval(psnr["difference"], "+.2f"),
        "" if base else number(line["lowest_gain"], "+.2f").shown,
        with_interval(ssim["value"], ".4f"),
        "" if base else with_interval(ssim["difference"], "+.4f"),
        number(line["detail_share"], ".2f").shown,
    ]


def further_figures(record: Record, data: DataCard) -> Iterator[list[str]]:
    """Protocol, contrast, figure and its means for B and the model, of all figures beyond the headline."""
    found = {(line["protocol"], line["group"], line["method"]): line["statistics"] for line in record["summary"]}
    for (protocol, group, method), statistics in found.items():
        if method != "medld" or group not in data.contrasts:
            continue
        others = found.get((protocol, group, "B"), {})
        for figure in (name for name in statistics if name not in MAIN_FIGURES):
            values = (one.get(figure, {}).get("value") for one in (others, statistics))
            yield [protocol, group, figure, *("" if value is None else with_interval(value, ".3g") for value in values)]


def mode_rows(records: Sequence[Record], data: DataCard) -> Iterator[list[str]]:
    """What free methods and every mode do where the model was judged in several modes: means over subjects."""
    found: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
    for record in records:
        mode = record["settings"]["mode"]
        for line in (line for line in record["summary"] if line["method"] in (*FREE, "medld")):
            methods = found.setdefault((line["protocol"], line["group"]), {})
            methods[mode if line["method"] == "medld" else line["method"]] = line["statistics"]
    for (protocol, group), methods in found.items():
        if group in data.contrasts and len(set(methods) - set(FREE)) > 1:
            for method, statistics in methods.items():
                yield [protocol, group, method, *(mode_figure(statistics, name) for name in MODE_FIGURES.values())]


def mode_figure(statistics: Mapping[str, Any], name: str) -> str:
    """A mean in the form that suits its figure, "" where it was not measured."""
    found = statistics.get(name, {}).get("value")
    return "" if found is None else number(found["mean"], ".4f" if name == "ssim" else ".2f").shown


def with_interval(found: Mapping[str, Any] | None, form: str) -> str:
    """A mean and, from five subjects on, its interval: "40.08 [39.51, 40.62]"."""
    if found is None:
        return ""
    limits = interval(found, form)
    return number(found["mean"], form).shown + (f" {limits.shown}" if limits.value is not None else "")


def read_runs(log: str) -> list[dict[str, Any]]:
    """Runs on the GPU by the headings of the training log; one that something of lives on in is "shipped"."""
    return [
        {"number": int(n), "what": what, "seconds": int(s), "shipped": end.startswith("shipped"), "end": end}
        for n, what, s, end in RUN.findall(log)
    ]


def licences_of(pictures: Sequence[Picture], data: DataCard) -> Iterator[str]:
    """Where the pictured scans come from, and their licences."""
    parts = {part.name: part for part in data.parts}
    names = {picture.scan for picture in pictures}
    for part in dict.fromkeys(file.part for file in data.files() if Path(file.file).name in names):
        if part in parts:
            yield f"{parts[part].attribution}. Licence: {parts[part].licence}."


if __name__ == "__main__":
    main()
