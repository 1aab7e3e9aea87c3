"""The trajectory commands as a user types them, on small models."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from runs import digest

from fourfold.data.trajectories import TrajectoryData
from fourfold.modalities.trajectories import GeoTDM, ReferenceGeoTDM, TrajectoryRecord
from fourfold.modalities.trajectories.anchors import build_anchor
from fourfold.tasks import names
from fourfold.tasks.trajectories import TrajectoryTask, _geometry, main

pytestmark = pytest.mark.filterwarnings("ignore")

SHIPPED = [name for name in names.shipped() if name.startswith("trajectories/")]
MOLECULES = (
    "aspirin",
    "benzene",
    "ethanol",
    "malonaldehyde",
    "naphthalene",
    "salicylic_acid",
    "toluene",
    "uracil",
)
SETTINGS = (
    "charged",
    "springs",
    "gravity",
    "eth",
    "hotel",
    "univ",
    "zara1",
    "zara2",
    *(f"md17-{m}" for m in MOLECULES),
)

ADAPTER = "--model.adapter.init_args."
SMALL = [
    f"{ADAPTER}hidden=16",
    f"{ADAPTER}channels=4",
    f"{ADAPTER}layers=1",
    f"{ADAPTER}messages=8",
    f"{ADAPTER}sampling_steps=3",
    "--trainer.max_steps=6",
    "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false",
    "--trainer.check_val_every_n_epoch=1",
    "--data.options={sizes: [32, 8, 6]}",
    "--data.batch_size=8",
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FOURFOLD_DATA", str(tmp_path / "data"))
    return tmp_path


def _fit(run: str = "r", *more: str) -> int:
    return main(["fit", "--config", "trajectories/geotdm-springs-cpu", *SMALL, "--run", run, *more])


def test_train_evaluate_predict_animate_sample_export(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _fit("r", "--model.picture_samples=2") == 0
    assert list(Path("runs/trajectories/r/samples").glob("forecasts-*.png"))
    assert main(["evaluate", "--run", "r", "--num_samples", "3", "--seed", "2"]) == 0
    shown = capsys.readouterr().out
    stored = json.loads(Path("runs/trajectories/r/metrics.json").read_text())["evaluate"]
    assert next(iter(stored["metrics"])) == "geotdm"
    assert {"constant velocity", "constant acceleration", "repeat last"} <= set(stored["metrics"])
    assert stored["metrics"]["geotdm"]["num_samples"] == 3
    assert np.isfinite(list(stored["metrics"]["geotdm"].values())).all()
    assert "10 -> 20 frames" in stored["protocol"]
    assert stored["protocol"] in shown
    assert "constant velocity" in shown
    assert Path("runs/trajectories/r/forecasts.png").stat().st_size > 10_000

    assert main(["animate", "--run", "r", "--num_samples", "2", "--systems", "1", "--out", "moving"]) == 0
    assert main(["predict", "--run", "r", "--num_samples", "2", "--systems", "2", "--out", "still"]) == 0
    stored = np.load("still/forecasts.npz")
    assert stored["samples"].shape == (2, 2, 5, 20, 3)
    assert stored["positions"].shape == (2, 5, 30, 3)
    text = Path("still/forecast-000.xyz").read_text()
    assert text.count("Lattice") + text.count("Properties") >= 30
    assert Path("moving/forecast-000.gif").read_bytes().startswith(b"GIF89a")
    page = Path("moving/forecasts.html").read_text()
    assert "<script" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert not list(Path("still").glob("*.gif"))

    assert main(["sample", "--run", "r", "--num_samples", "2"]) == 0
    generated = np.load("runs/trajectories/r/samples/samples.npz")["positions"]
    assert generated.shape == (2, 5, 30, 3)
    assert np.abs(generated.mean((1, 2))).max() < 1e-4
    for command in ("validate", "test"):
        assert main([command, "--run", "r"]) == 0
    assert main(["export", "--run", "r", "--out", "model"]) == 0
    model = GeoTDM.load("model")
    assert bool(model.units.measured)
    assert float(model.units.residual[0, 20]) > 5 * float(model.units.residual[0, 1])


def test_models_that_only_forecast_or_only_generate(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _fit("f", f"{ADAPTER}conditioning={{forecast: 1.0}}") == 0
    assert main(["sample", "--run", "f", "--num_samples", "2"]) == 0
    assert np.load("runs/trajectories/f/samples/samples.npz")["samples"].shape == (2, 1, 5, 30, 3)
    assert _fit("g", f"{ADAPTER}conditioning={{none: 1.0}}") == 0
    assert main(["evaluate", "--run", "g", "--num_samples", "6"]) == 0
    rows = json.loads(Path("runs/trajectories/g/metrics.json").read_text())["evaluate"]["metrics"]
    assert list(rows) == ["geotdm", "training data", "training data, other half", "test data"]
    assert rows["training data"]["second_difference"] < rows["geotdm"]["second_difference"]
    assert "classification" not in rows["geotdm"], "six systems are too few to judge by"
    assert main(["predict", "--run", "g"]) == 2
    assert "use sample" in capsys.readouterr().err
    assert main(["evaluate", "--run", "f", "--generated", "true"]) == 2
    assert "trained with observations only" in capsys.readouterr().err


def test_generated_trajectories_are_judged_by_networks(folder: Path) -> None:
    assert _fit("r", "--data.options={sizes: [120, 8, 60]}") == 0
    assert main(["evaluate", "--run", "r", "--generated", "true", "--num_samples", "60"]) == 0
    rows = json.loads(Path("runs/trajectories/r/metrics.json").read_text())["evaluate"]["metrics"]
    assert rows["geotdm"]["classification"] < 0.3 < rows["training data"]["classification"]
    assert rows["training data"]["prediction"] < rows["geotdm"]["prediction"]


def test_forecasts_of_molecules_are_judged_by_bonds_and_angles(folder: Path) -> None:
    words = [w for w in SMALL if not w.startswith("--data.options")]
    words += ["--data.options={frames: 400, sizes: [60, 4, 6]}", "--trainer.max_steps=3"]
    assert main(["fit", "--config", "trajectories/geotdm-ethanol-cpu", *words, "--run", "m"]) == 0
    assert main(["evaluate", "--run", "m", "--num_samples", "2"]) == 0
    row = json.loads(Path("runs/trajectories/m/metrics.json").read_text())["evaluate"]["metrics"]["geotdm"]
    assert 0 < row["bond_mean_gap"] < row["bond_wasserstein"] + 1e-9
    assert 0 < row["angle_wasserstein"] < 180


def test_pedestrians_collisions_stand_beside_what_happened() -> None:
    truth = np.zeros((2, 2, 3, 2), np.float32)
    truth[:, 1] = [1.0, 0.0]
    samples = np.stack([truth, truth * np.float32(0.01)], 1)
    records = [TrajectoryRecord(x, units="m") for x in truth]
    data = TrajectoryData("own", records, [], records, 1, "", units="m", kind="pedestrians")
    rows = _geometry(data, truth, samples, np.ones((2, 2, 3), bool))
    assert rows == {"model": {"collisions below 0.1 m": 0.5}, "what happened": {"collisions below 0.1 m": 0.0}}


def test_the_published_model_trains_and_is_judged_alike(folder: Path) -> None:
    network = [f"{ADAPTER}network.{k}={v}" for k, v in {"hidden_dim": 8, "n_layers": 1, "time_emb_dim": 8}.items()]
    words = ["fit", "--config", "trajectories/geotdm-reference-springs", *network, f"{ADAPTER}num_timesteps=100"]
    words += [w for w in SMALL if not w.startswith(ADAPTER)]
    assert main([*words, "--run", "p", "--trainer.max_epochs=100"]) == 0
    status = main(["evaluate", "--run", "p", "--num_samples", "1", "--steps", "20"])
    assert status in (0, 2)  # with so little training the chain may diverge, and says so
    assert main(["validate", "--run", "p"]) == 0


def test_a_stopped_run_continues_exactly(folder: Path) -> None:
    assert _fit("whole") == 0
    assert _fit("parts", "--trainer.max_steps=3") == 0
    assert _fit("parts", "--trainer.max_steps=6", "--ckpt_path", "last") == 0
    ends = [digest(Path("runs/trajectories") / run / "checkpoints" / "last.ckpt") for run in ("whole", "parts")]
    assert ends[0] == ends[1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([f"{ADAPTER}features=3"], "springs has 1 features, model.adapter has features=3"),
        ([f"{ADAPTER}anchor={{name: first}}"], "unknown anchor 'first'"),
        ([f"{ADAPTER}conditioning={{past: 1.0}}"], "conditioning must give weights"),
        (["--data.name=sprungs"], "unknown data set 'sprungs'"),
        (["--model.decay_epochs=0"], "decay_epochs must be at least 1"),
    ],
)
def test_mistakes_are_one_line(
    folder: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _fit("r", *words) in (1, 2)
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_every_published_setting_is_shipped_in_both_faces() -> None:
    wanted = {f"trajectories/{face}-{name}" for face in ("geotdm", "geotdm-reference") for name in SETTINGS}
    wanted |= {f"trajectories/geotdm-{name}-cpu" for name in ("springs", "charged", "hotel", "ethanol")}
    assert wanted <= set(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_every_configuration_builds_its_model(name: str) -> None:
    settings = yaml.safe_load(names.find(name).read_text(encoding="utf-8"))
    described = settings["model"]["adapter"]
    kind = {"GeoTDM": GeoTDM, "ReferenceGeoTDM": ReferenceGeoTDM}[described["class_path"].rpartition(".")[2]]
    with torch.device("meta"):
        adapter = kind(**described["init_args"])
    parameters = sum(p.numel() for p in adapter.parameters())
    published = {"charged": 1889828, "charged-unconditional": 1418252, "md17-aspirin": 1900324, "eth": 364952}
    _, _, data = name.partition("geotdm-reference-")
    if data in published:
        assert parameters == published[data]
    if name.endswith("-cpu"):
        assert parameters < 500_000


@pytest.mark.parametrize("name", ["geotdm-md17-aspirin", "geotdm-reference-eth", "geotdm-hotel-cpu", "geotdm-charged"])
def test_shipped_configurations_parse(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--config", f"trajectories/{name}", "--print_config"]) == 0
    assert "observed_frames" in capsys.readouterr().out


def test_task_is_a_plain_lightning_module() -> None:
    task = TrajectoryTask(GeoTDM(1, anchor=build_anchor("last"), hidden=8, channels=4, layers=1))
    assert task.model() is task.adapter
    assert task.forecasts_from_observations()
    assert not task.generates()
