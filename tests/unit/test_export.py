"""Bundles and folders for the hub: what they hold is what the model folder says, and MONAI takes them."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from monai.bundle import ConfigWorkflow, verify_net_in_out
from monai.bundle.properties import MetaProperties
from monai.bundle.scripts import _get_fake_spatial_shape
from monai.bundle.utils import DEFAULT_METADATA
from tiny_model import AUTOENCODER, LATENT, NETWORK, ONE_STEP, save_tiny_model

from medld.checkpoint import SHIPPED, load_model
from medld.cli.export import FORMATS as FORMATS_OF_THE_COMMAND
from medld.config import ModelConfig
from medld.errors import CheckpointError, ConfigError, InputError, OutputError
from medld.export import FORMATS, export_model
from medld.export.bundle import RATIO, BundleNetwork, Enhancer
from medld.export.card import front_matter, read_licence, write_card
from medld.export.folder import whole_folder
from medld.export.metadata import SCHEMA, bundle_metadata, check_metadata
from medld.export.source import read_source
from medld.geometry import Grid, choose_target
from medld.superres import Request, SuperResolver
from medld.training.table import TABLE, Table
from medld.volume import Volume

VOLUMES = ["sub-secret_T1w", "sub-secret_ce-gad_T1w", "sub-other_FLAIR"]
Build = Callable[..., Path]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """A one-step model in a folder called `tiny`, with what its card says."""
    return lambda **card: save_tiny_model(tmp_path / "tiny", ONE_STEP, **card)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of a model with a diffusion part and nothing said about its training."""
    folder = tmp_path_factory.mktemp("bundle")
    export_model(save_tiny_model(folder / "model", LATENT), to="monai-bundle", out=folder / "bundle")
    return folder / "bundle"


def read_json(path: Path) -> Any:
    """A JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def files_of(folder: Path) -> set[str]:
    """All files below a folder, hidden ones too."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def verify(bundle: Path, meta: Path, **sizes: int) -> None:
    """MONAI's own check of the network against the metadata."""
    config = str(bundle / "configs" / "inference.json")
    verify_net_in_out("network_def", str(meta), config, device="cpu", bundle_root=str(bundle), **sizes)


# --- the bundle's metadata ---------------------------------------------------------------------------------------


def schema() -> Any:
    """The schema in the package."""
    import medld.export

    return read_json(Path(medld.export.__file__).parent / "schemas" / SCHEMA)


def test_the_schema_asks_for_all_that_the_installed_monai_asks_for() -> None:
    required = set(schema()["required"])
    assert set(DEFAULT_METADATA) <= required
    properties = {p["id"].removeprefix("_meta_::") for p in MetaProperties.values() if p["required"]}
    assert properties
    assert properties <= required


@pytest.mark.parametrize("key", schema()["required"])
def test_metadata_without_a_required_key_are_refused(key: str, bundle: Path) -> None:
    content = read_json(bundle / "configs" / "metadata.json")
    check_metadata(content)
    del content[key]
    with pytest.raises(CheckpointError, match=key):
        check_metadata(content)


@pytest.mark.parametrize("key", schema()["$defs"]["tensor"]["required"])
@pytest.mark.parametrize("side", ["inputs/image", "outputs/pred"])
def test_a_tensor_without_a_required_key_is_refused(side: str, key: str, bundle: Path) -> None:
    content = read_json(bundle / "configs" / "metadata.json")
    ends, name = side.split("/")
    del content["network_data_format"][ends][name][key]
    with pytest.raises(CheckpointError, match=key):
        check_metadata(content)


@pytest.mark.parametrize(("size", "known"), [(3, True), ("*", True), ("4*n", True), ("2**p*n", True), ("4*m", False)])
def test_the_schema_takes_the_sizes_that_monai_can_read(size: int | str, known: bool, bundle: Path) -> None:
    content = read_json(bundle / "configs" / "metadata.json")
    content["network_data_format"]["inputs"]["image"]["spatial_shape"] = [size] * 3
    if known:
        assert min(_get_fake_spatial_shape([size])) >= 1
        check_metadata(content)
    else:
        with pytest.raises(ValueError, match="Invalid names"):
            _get_fake_spatial_shape([size])
        with pytest.raises(CheckpointError, match="spatial_shape"):
            check_metadata(content)


def test_versions_are_those_installed(bundle: Path) -> None:
    content = read_json(bundle / "configs" / "metadata.json")
    same = ("monai_version", "pytorch_version", "numpy_version")
    assert {key: content[key] for key in same} == {key: DEFAULT_METADATA[key] for key in same}
    assert content["version"] in content["changelog"]


def test_a_ct_model_says_hounsfield_and_restores_ct(tmp_path: Path) -> None:
    config = ModelConfig(one_step=NETWORK, modalities=("ct",))
    export_model(save_tiny_model(tmp_path / "model", config), to="monai-bundle", out=tmp_path / "out")
    content = read_json(tmp_path / "out" / "configs" / "metadata.json")
    for ends in content["network_data_format"].values():
        for tensor in ends.values():
            assert (tensor["format"], tensor["modality"]) == ("hounsfield", "CT")
    network = read_json(tmp_path / "out" / "configs" / "inference.json")["network_def"]
    assert network["modality"] == "ct"
    verify(tmp_path / "out", tmp_path / "out" / "configs" / "metadata.json")


# --- the bundle in MONAI's hands ---------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 3])
def test_monai_verifies_the_network(bundle: Path, n: int) -> None:
    verify(bundle, bundle / "configs" / "metadata.json", n=n)


def test_monai_would_notice_wrong_metadata(bundle: Path, tmp_path: Path) -> None:
    content = read_json(bundle / "configs" / "metadata.json")
    content["network_data_format"]["outputs"]["pred"]["num_channels"] = 2
    (tmp_path / "metadata.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="channel number"):
        verify(bundle, tmp_path / "metadata.json")


def test_the_network_gives_the_shape_that_the_metadata_promise(bundle: Path) -> None:
    ends = read_json(bundle / "configs" / "metadata.json")["network_data_format"]
    network = BundleNetwork(bundle / "models")
    for n in (1, 2):
        taken, given = (
            _get_fake_spatial_shape(tensor["spatial_shape"], n=n)
            for tensor in (ends["inputs"]["image"], ends["outputs"]["pred"])
        )
        output = network(torch.rand(1, 1, *taken))
        assert output.shape == (1, 1, *given)
        assert str(output.dtype) == f"torch.{ends['outputs']['pred']['dtype']}"


def test_monai_finds_everything_that_it_requires_of_an_inference(bundle: Path) -> None:
    workflow = ConfigWorkflow(
        config_file=str(bundle / "configs" / "inference.json"),
        logging_file=False,
        workflow_type="inference",
        bundle_root=str(bundle),
        dataset_dir=str(bundle),
    )
    workflow.initialize()
    assert workflow.check_properties() == []
    assert isinstance(workflow.network_def, BundleNetwork)


def test_the_bundle_holds_no_pickle_and_its_models_folder_is_a_model(bundle: Path) -> None:
    assert {Path(name).suffix for name in files_of(bundle)} <= {".json", ".safetensors", ".md", ".conf", ""}
    model, original = load_model(bundle / "models"), load_model(bundle.parent / "model")
    assert model.sha256 == original.sha256
    assert len(model.sha256) == 3


def test_the_shipped_models_calibration_and_scope_go_with_it(tmp_path: Path) -> None:
    for to, inside in (("huggingface", "."), ("monai-bundle", "models")):
        export_model("mri", to=to, out=tmp_path / to)
        for name in ("calibration.json", "scope.json"):
            assert (tmp_path / to / inside / name).read_bytes() == (SHIPPED / "mri" / name).read_bytes()


# --- the network -------------------------------------------------------------------------------------------------


def scans(count: int = 2, slices: int = 5) -> np.ndarray:
    """Smooth blobs in scanner units, (B, 1, I, J, K)."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in (9, 8, slices)), indexing="ij")
    blobs = [700 * np.exp(-(2 + i) * sum((a - 0.1 * i) ** 2 for a in axes)) for i in range(count)]
    return np.stack(blobs)[:, None].astype(np.float32)


@pytest.mark.parametrize("ratio", [RATIO, 2.5])
def test_the_network_is_the_restoration_of_the_program(bundle: Path, ratio: float) -> None:
    image = scans()
    output = BundleNetwork(bundle / "models", ratio=ratio, contrast="T2w")(torch.from_numpy(image)).numpy()
    grid = Grid(image.shape[2:], np.diag([1.0, 1.0, ratio, 1.0]))
    resolver = SuperResolver(load_model(bundle / "models"), device="cpu")
    for scan, finer in zip(image[:, 0], output[:, 0], strict=True):
        request = Request(choose_target(grid, spacing=(1.0,)))
        expected = resolver.restore(Volume(scan, grid, "mr", "T2w"), request).volume.array
        assert np.array_equal(finer, expected)
        assert not np.array_equal(finer, SuperResolver(None).restore(Volume(scan, grid, "mr"), request).volume.array)


def test_conditions_of_the_network_reach_it(bundle: Path) -> None:
    image = torch.from_numpy(scans(1))
    outputs = [
        BundleNetwork(bundle / "models", **told)(image) for told in ({}, {"contrast": "FLAIR"}, {"thickness": 1.5})
    ]
    assert not torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])


def test_weights_put_into_the_network_are_used(bundle: Path) -> None:
    network, image = BundleNetwork(bundle / "models"), torch.from_numpy(scans(1))
    before = network(image)
    network.load_state_dict({name: torch.zeros_like(value) for name, value in network.state_dict().items()})
    assert not torch.equal(network(image), before)


def test_the_network_holds_every_part_of_the_model(bundle: Path) -> None:
    names = {name.split(".")[0] for name in BundleNetwork(bundle / "models").state_dict()}
    assert names == {"one_step", "autoencoder", "denoiser"}


def test_what_the_network_cannot_take_is_refused(bundle: Path) -> None:
    network = BundleNetwork(bundle / "models")
    for shape in ((1, 2, 8, 8, 4), (1, 8, 8, 4)):
        with pytest.raises(InputError, match="shape"):
            network(torch.zeros(shape))
    with pytest.raises(ConfigError, match="contrast"):
        BundleNetwork(bundle / "models", contrast="PDw")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="modality"):
        BundleNetwork(bundle / "models", modality="us")  # type: ignore[arg-type]


def test_a_run_refuses_settings_that_it_does_not_know_and_folders_without_scans(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="sharpness"):
        Enhancer(bundle / "models", [], tmp_path, settings={"sharpness": 2})
    with pytest.raises(ConfigError, match="model"):
        Enhancer(bundle / "models", [], tmp_path, settings={"model": "another"})
    with pytest.raises(InputError, match="none"):
        Enhancer(bundle / "models", [], tmp_path / "out").run()
    assert not (tmp_path / "out").exists()


def test_an_autoencoder_alone_makes_no_bundle(tmp_path: Path) -> None:
    model = save_tiny_model(tmp_path / "model", ModelConfig(one_step=None, autoencoder=AUTOENCODER))
    with pytest.raises(CheckpointError, match="autoencoder"):
        export_model(model, to="monai-bundle", out=tmp_path / "out")
    assert files_of(tmp_path) == {"model/model.json", "model/autoencoder.safetensors"}


# --- the card ----------------------------------------------------------------------------------------------------


def front_of(readme: str) -> Any:
    """What the hub reads of a README."""
    _, front, _ = readme.split("---\n", 2)
    return yaml.safe_load(front)


def test_the_hub_reads_what_the_model_is(build: Build, tmp_path: Path) -> None:
    model = build(name="mine", licence="CC-BY-4.0")
    export_model(model, to="huggingface", out=tmp_path / "hub")
    front = front_of((tmp_path / "hub" / "README.md").read_text())
    assert front["license"] == "cc-by-4.0"
    assert front["library_name"] == "medld"
    assert front["pipeline_tag"] == "image-to-image"
    assert "mri" in front["tags"]
    assert "latent-diffusion" not in front["tags"]
    assert read_json(tmp_path / "hub" / "config.json") == read_json(model / "model.json")
    assert files_of(tmp_path / "hub") == {"README.md", "LICENSE", "config.json", "model.json", "one_step.safetensors"}


def test_tags_name_modality_and_diffusion(tmp_path: Path) -> None:
    config = ModelConfig(one_step=NETWORK, autoencoder=AUTOENCODER, denoiser=NETWORK, modalities=("ct",))
    tags = front_of(front_matter(read_source(save_tiny_model(tmp_path / "model", config))))["tags"]
    assert {"ct", "latent-diffusion"} <= set(tags)
    assert "mri" not in tags


def test_an_unstated_licence_is_not_made_up(build: Build, tmp_path: Path) -> None:
    lines: list[str] = []
    export_model(build(), to="huggingface", out=tmp_path / "hub", report=lines.append)
    assert front_of((tmp_path / "hub" / "README.md").read_text())["license"] == "other"
    assert "states no licence" in (tmp_path / "hub" / "LICENSE").read_text()
    assert any("no licence" in line for line in lines)


def test_the_shipped_model_is_under_the_licence_of_the_program() -> None:
    source = read_source("mri")
    assert source.licence == "Apache-2.0"
    assert read_licence(source) == (Path(__file__).parents[2] / "LICENSE").read_text()


@pytest.mark.parametrize(("to", "folder"), [("huggingface", "."), ("monai-bundle", "docs")])
def test_the_shipped_model_takes_its_card_and_pictures_along(to: str, folder: str, tmp_path: Path) -> None:
    export_model("mri", to=to, out=tmp_path / "out")
    card = (tmp_path / "out" / folder / "README.md").read_text()
    assert (SHIPPED / "mri" / "README.md").read_text() in card
    assert "## Use in this form" in card
    pictures = re.findall(r"\]\(([^)]+\.png)\)", card)
    assert pictures
    for picture in pictures:
        assert (tmp_path / "out" / folder / picture).read_bytes() == (SHIPPED / "mri" / picture).read_bytes()


def test_the_card_names_use_limits_and_hashes(build: Build) -> None:
    model = build(training={"stage": "one-step", "steps": 17}, versions={"torch": "1.2.3"})
    card = write_card(read_source(model), "run it")
    for text in ("not for diagnosis", "run it", "steps: 17", "torch 1.2.3", "## Limits", "## Intended use"):
        assert text in card
    assert all(sha in card for sha in load_model(model).sha256.values())


def test_names_of_volumes_are_counted_and_not_told(build: Build) -> None:
    source = read_source(build(training={"volumes": VOLUMES}))
    card, content = write_card(source, ""), json.dumps(bundle_metadata(source))
    for text in (card, content):
        assert "3 volumes of 2 subjects: 2 T1w, 1 FLAIR" in text
        assert "secret" not in text


def test_whoever_exports_is_told_that_names_travel_along(build: Build, tmp_path: Path) -> None:
    lines: list[str] = []
    export_model(build(training={"volumes": VOLUMES}), to="huggingface", out=tmp_path / "out", report=lines.append)
    assert any("names the 3 volumes" in line for line in lines)


def test_without_figures_beside_the_model_none_are_given(build: Build) -> None:
    source = read_source(build())
    assert source.figures == ()
    assert "none are given" in write_card(source, "")
    assert "eval_metrics" not in bundle_metadata(source)


def test_figures_of_an_evaluation_are_quoted(build: Build) -> None:
    model = build()
    summary = [{"protocol": "through-plane-4x", "group": "T1w", "method": "medld", "scans": 6, "psnr": 31.25}]
    (model / "results.json").write_text(json.dumps({"summary": summary, "subjects": []}))
    source = read_source(model)
    assert [dict(row) for row in source.figures] == summary
    assert "| through-plane-4x | T1w | medld | 6 | 31.25 |" in write_card(source, "")
    assert bundle_metadata(source)["eval_metrics"]["means"] == summary


@pytest.mark.parametrize("name", ["validation.json", "validation.csv"])
def test_figures_of_a_validation_are_averaged_over_scans(build: Build, name: str) -> None:
    rows = [("sub-secret", 2, 1.0), ("sub-other", 2, 2.0), ("sub-secret", 4, 5.0)]
    model = build()
    if name.endswith("json"):
        text = json.dumps([{"volume": v, "ratio": r, "gain": g} for v, r, g in rows])
    else:
        text = "volume,ratio,gain\n" + "".join(f"{v},{r},{g}\n" for v, r, g in rows)
    (model / name).write_text(text)
    source = read_source(model)
    assert [(float(row["ratio"]), row["scans"], row["gain"]) for row in source.figures] == [(2, 2, 1.5), (4, 1, 5.0)]
    assert "secret" not in write_card(source, "")


def test_figures_that_are_no_numbers_become_null_in_the_metadata(build: Build, tmp_path: Path) -> None:
    model = build()
    (model / "validation.csv").write_text("ratio,gain\n2,nan\n")
    export_model(model, to="monai-bundle", out=tmp_path / "out")
    content = read_json(tmp_path / "out" / "configs" / "metadata.json")
    assert content["eval_metrics"]["means"] == [{"ratio": "2", "scans": 1, "gain": None}]


def test_figures_of_a_tuning_are_quoted_by_contrast_and_ratio(build: Build) -> None:
    scans = [("T1w", 2.0, 1.0, 1.5), ("T1w", 2.0, 2.0, 3.5), ("FLAIR", 2.0, 5.0, 4.0)]
    rows: list[dict[str, str | float]] = [
        {"scan": str(i), "file_sha256": f"{i:064}", "contrast": contrast, "ratio": ratio, "baseline_db": 30.0}
        | {"start_gain": start, "tuned_gain": tuned}
        for i, (contrast, ratio, start, tuned) in enumerate(scans, 1)
    ]
    model = build()
    (model / TABLE).write_text(Table(tuple(rows), better=True).csv())
    assert [dict(row) for row in read_source(model).figures] == [
        {"contrast": c, "ratio": "2.0000", "scans": n, "baseline_db": 30.0, "start_gain": s, "tuned_gain": t}
        for c, n, s, t in (("T1w", 2, 1.5, 2.5), ("FLAIR", 1, 5.0, 4.0))
    ]


def test_what_a_tuning_started_from_is_told(build: Build, tmp_path: Path) -> None:
    start = {"name": "mri", "sha256": {"one_step.safetensors": "abc"}}
    model = build(training={"tuned": True, "start": start, "start_training": {"steps": 5, "volumes": VOLUMES}})
    lines: list[str] = []
    export_model(model, to="huggingface", out=tmp_path / "out", report=lines.append)
    card = (tmp_path / "out" / "README.md").read_text()
    for text in ("- tuned: True", "- start, name: mri", "- start_training, steps: 5", "data: 3 volumes of 2 subjects"):
        assert text in card
    assert "secret" not in card
    assert any("names the 3 volumes" in line for line in lines)


@pytest.mark.parametrize("text", ["not json", "3", '{"summary": 3}', "[1, 2]"])
def test_damaged_figures_are_refused(build: Build, text: str) -> None:
    model = build()
    (model / "results.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"results\.json"):
        read_source(model)


# --- whole or not at all -----------------------------------------------------------------------------------------


def test_the_command_offers_every_form() -> None:
    assert set(FORMATS_OF_THE_COMMAND) == set(FORMATS)


@pytest.mark.parametrize("to", FORMATS)
def test_an_export_is_replaced_only_when_told_and_then_wholly(build: Build, tmp_path: Path, to: str) -> None:
    model, out = build(), tmp_path / "out"
    export_model(model, to=to, out=out)
    files = files_of(out)
    (out / "extra").write_text("left by somebody")
    with pytest.raises(OutputError, match="--overwrite"):
        export_model(model, to=to, out=out)
    assert (out / "extra").exists()
    export_model(model, to=to, out=out, overwrite=True)
    assert files_of(out) == files
    assert {path.name for path in tmp_path.iterdir()} == {"tiny", "out"}


def test_a_folder_of_something_else_is_never_replaced(build: Build, tmp_path: Path) -> None:
    model, out = build(), tmp_path / "out"
    out.mkdir()
    export_model(model, to="huggingface", out=out, overwrite=True)  # an empty one may be
    with pytest.raises(OutputError, match=r"metadata\.json"):
        export_model(model, to="monai-bundle", out=out, overwrite=True)
    assert (out / "config.json").exists()


def test_a_model_is_never_exported_onto_itself(build: Build, tmp_path: Path) -> None:
    model = build()
    (model / "config.json").write_text("{}")
    for out in (model, tmp_path):
        with pytest.raises(OutputError):
            export_model(model, to="huggingface", out=out, overwrite=True)
    load_model(model)


def test_a_failed_export_leaves_what_was_there(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"

    def write(text: str, *, then: type[BaseException] | None = None) -> None:
        with whole_folder(out, "mark", overwrite=True) as folder:
            (folder / "mark").write_text(text)
            if then is not None:
                raise then

    with pytest.raises(KeyboardInterrupt):
        write("first", then=KeyboardInterrupt)
    assert files_of(tmp_path) == set()
    write("second")
    with pytest.raises(OutputError, match="cannot be written"):
        write("third", then=OSError)
    assert (out / "mark").read_text() == "second"
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_an_unknown_form_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="onnx"):
        export_model(to="onnx", out=tmp_path / "out")


def test_a_missing_jsonschema_is_asked_for_before_anything_is_written(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build()
    monkeypatch.setitem(sys.modules, "jsonschema", None)
    with pytest.raises(ConfigError, match=r"pip install 'medld\[export\]'"):
        export_model(model, to="monai-bundle", out=tmp_path / "out")
    export_model(model, to="huggingface", out=tmp_path / "hub")
    assert {path.name for path in tmp_path.iterdir()} == {"tiny", "hub"}
