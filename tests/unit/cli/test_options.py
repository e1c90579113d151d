"""Arguments: what is understood, and what costs one line and exit code 2."""

from __future__ import annotations

import shlex
from dataclasses import fields
from pathlib import Path

import pytest

from medld import __version__
from medld.batch.settings import EnhanceSettings
from medld.cli import main
from medld.cli.options import parse
from medld.errors import CODES, ConfigError


@pytest.mark.parametrize(
    ("arguments", "spacing"),
    [
        (["--spacing", "1", "scan.nii"], (1.0,)),
        (["--spacing", ".9", "0.9", "1e0", "scan.nii"], (0.9, 0.9, 1.0)),
        (["scan.nii", "--spacing", "1", "1", "2"], (1.0, 1.0, 2.0)),
        (["scan.nii", "--spacing=1,1,2"], (1.0, 1.0, 2.0)),
    ],
)
def test_spacing_takes_numbers_and_leaves_inputs(arguments: list[str], spacing: tuple[float, ...]) -> None:
    options = parse(["enhance", *arguments])
    assert options.spacing == spacing
    assert options.inputs == [Path("scan.nii")]


def test_what_is_not_given_is_left_to_the_settings() -> None:
    given = vars(parse(["enhance", "a.nii", "b"]))
    assert not given.keys() & {f.name for f in fields(EnhanceSettings)}
    assert given["inputs"] == [Path("a.nii"), Path("b")]


def test_every_setting_has_an_option() -> None:
    command = (
        "enhance x -o y --modality ct --consistency off --spacing 1 --slice-thickness 2 --slice-profile box "
        "--mode detail --realism 1 --steps 2 --flips 2 --samples 3 --uncertainty sd --trust t --interval "
        "--adapt-steps 0 --seed 4 --device cpu --threads 1 --memory 2 --model baseline --report r --preview p "
        "--overwrite --force --series 2 --format nifti"
    )
    given = vars(parse(shlex.split(command)))
    assert {f.name for f in fields(EnhanceSettings)} - given.keys() == {"factor"}


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["sharpen", "x.nii"],
        ["enhance"],
        ["enhance", "x.nii", "--spacing"],
        ["enhance", "x.nii", "--spacing", "wide"],
        ["enhance", "x.nii", "--spacing", "1", "--factor", "2"],
        ["enhance", "x.nii", "--mode", "sharp"],
        ["enhance", "x.nii", "--overwr"],
        ["enhance", "x.nii", "--quiet", "--verbose"],
        ["enhance", "x.nii", "--spacing", "1", "1"],
        ["enhance", "x.nii", "--realism", "2"],
        ["evaluate", "folder"],
        ["train"],
    ],
)
def test_a_mistake_costs_one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert "E_CONFIG" in printed.err


def test_a_mistake_names_the_help() -> None:
    with pytest.raises(ConfigError, match=r"medld enhance --help"):
        parse(["enhance", "x.nii", "--bogus"])


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"medld {__version__}\n"


@pytest.mark.parametrize("command", ["", "enhance", "evaluate", "train", "info"])
def test_help_of_every_command(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command.split(), "--help"]) == 0
    assert "usage: medld" in capsys.readouterr().out


def test_help_shows_examples_and_reason_codes(capsys: pytest.CaptureFixture[str]) -> None:
    main(["enhance", "--help"])
    text = capsys.readouterr().out
    assert "medld enhance scan.nii.gz" in text
    assert all(code in text for code in CODES)


def test_examples_of_the_help_can_be_parsed(capsys: pytest.CaptureFixture[str]) -> None:
    main(["enhance", "--help"])
    main(["--help"])
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    examples = [line.split("   ")[0].split()[1:] for line in lines if line.startswith("medld ")]
    assert len(examples) > 8
    for arguments in examples:
        options = parse(arguments)
        if options.command == "enhance":
            given = {k: v for k, v in vars(options).items() if k in {f.name for f in fields(EnhanceSettings)}}
            EnhanceSettings(**given)
