"""`medld latent`: look at what a model's latents hold."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medld.errors import OutputError

if TYPE_CHECKING:
    from medld.superres.codec import Codec
    from medld.volume import Volume

DESCRIPTION = """\
Encode a volume into a model's latents, decode latents beside their scan, or look between two volumes.
For inspection: `medld enhance` is what restores a scan."""

EPILOG = """\
examples:
  medld latent encode scan.nii.gz -o scan.safetensors
      a thick-slice scan: where its restoration begins
  medld latent encode fine.nii.gz --ratio 4 -o fine.safetensors
      a fine volume: what slices four times as thick would not tell
  medld latent decode fine.safetensors fine.nii.gz -o decoded.nii.gz
      beside the scan of that latent; a fine volume is imaged through thick slices first
  medld latent interpolate a.nii.gz b.nii.gz --at 0.5 --slerp -o between.nii.gz
      two fine volumes on one grid

the model must have an autoencoder; name its folder with --model"""


def add_parser(commands: Any) -> None:
    """Arguments and their help."""
    parser = commands.add_parser(
        "latent", help="encode, decode and mix a model's latents", description=DESCRIPTION, epilog=EPILOG
    )
    parser.set_defaults(command="latent")
    actions = parser.add_subparsers(title="actions", dest="action", metavar="ACTION", required=True)
    encode = actions.add_parser("encode", help="a volume to a latent file")
    encode.add_argument("scan", metavar="SCAN", type=Path)
    encode.add_argument("--ratio", metavar="R", type=float, help="SCAN is fine: encode it beside slices R as thick")
    decode = actions.add_parser("decode", help="a latent file and its scan to a volume")
    decode.add_argument("latent", metavar="LATENT", type=Path)
    decode.add_argument("scan", metavar="SCAN", type=Path, help="what was encoded")
    between = actions.add_parser("interpolate", help="what lies between two fine volumes on one grid")
    between.add_argument("first", metavar="A", type=Path)
    between.add_argument("second", metavar="B", type=Path)
    between.add_argument("--at", metavar="T", type=float, default=0.5, help="from 0 (A) to 1 (B); default 0.5")
    between.add_argument("--slerp", action="store_true", help="along an arc, not a line")
    between.add_argument("--ratio", metavar="R", type=float, default=4.0, help="of the slices beside; default 4")
    for action in (encode, between):
        action.add_argument("--axis", metavar="N", type=int, choices=(0, 1, 2), help="of the slices; default coarsest")
    for action in (encode, decode, between):
        action.add_argument("-o", "--output", metavar="FILE", type=Path, required=True)
        action.add_argument("--model", metavar="NAME|DIR", help="default: the shipped model")
        action.add_argument("--device", metavar="auto|cpu|cuda[:i]", default="auto")
        action.add_argument("--overwrite", action="store_true", help="replace the output; inputs never")


def run(options: argparse.Namespace, say: Callable[[str], None]) -> int:
    """Run the command; returns the exit code."""
    inputs = [vars(options)[name] for name in ("scan", "latent", "first", "second") if name in vars(options)]
    _check_output(options.output, inputs, options.overwrite)
    from medld.checkpoint import DEFAULT, load_model
    from medld.superres.codec import Codec

    codec = Codec(load_model(options.model or DEFAULT), device=options.device)
    actions = {"encode": _encode, "decode": _decode, "interpolate": _interpolate}
    say(f"{' + '.join(map(str, inputs))} -> {options.output}: {actions[options.action](options, codec)}")
    return 0


def _encode(options: argparse.Namespace, codec: Codec) -> str:
    from medld.io import read_volume
    from medld.superres.latents import save_latent

    latent = codec.encode(read_volume(options.scan)[0], options.ratio, options.axis)
    save_latent(options.output, latent)
    shape = " x ".join(map(str, latent.values.shape))
    return (
        f"{shape} numbers at ratio {latent.ratio:.3g} along axis {latent.axis}, "
        f"mean {latent.values.mean():.3f}, deviation {latent.values.std():.3f}"
    )


def _decode(options: argparse.Namespace, codec: Codec) -> str:
    from medld.io import read_volume
    from medld.superres.latents import load_latent

    latent = load_latent(options.latent)
    scan, storage = read_volume(options.scan)
    return _write(options.output, codec.decode(latent, scan), storage)


def _interpolate(options: argparse.Namespace, codec: Codec) -> str:
    from medld.io import read_volume

    (first, storage), (second, _) = (read_volume(path) for path in (options.first, options.second))
    between = codec.interpolate(first, second, options.at, options.ratio, axis=options.axis, spherical=options.slerp)
    return _write(options.output, between, storage)


def _write(path: Path, volume: Volume, storage: Any) -> str:
    """Marked as ours, so that it is not taken for a scan."""
    from medld import __version__
    from medld.geometry import format_mm
    from medld.io import OUTPUT_MARK, write_volume

    write_volume(path, volume, storage, description=f"{OUTPUT_MARK} {__version__} latent")
    return f"{' x '.join(map(str, volume.grid.shape))} at {format_mm(volume.grid.spacing)}"


def _check_output(output: Path, inputs: list[Path], overwrite: bool) -> None:
    """Refuse before anything is computed."""
    if any(output.exists() and path.exists() and output.samefile(path) for path in inputs):
        raise OutputError(f"{output} is an input, which is never replaced; name another file with -o")
    if not output.parent.is_dir():
        raise OutputError(f"{output.parent} does not exist; create it first")
    if output.exists() and not overwrite:
        raise OutputError(f"{output} exists already; give --overwrite, or name another file with -o")
