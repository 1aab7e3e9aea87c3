"""Separation, autoencoding and vocoding as a user types them, on small models."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml
from runs import digest

from fourfold.__main__ import main as fourfold
from fourfold.data.audio import SeparationDataModule
from fourfold.modalities.adapter import load
from fourfold.modalities.audio.flowsep import FlowSep
from fourfold.modalities.audio.mask_regression import MaskRegression
from fourfold.modalities.audio.mel_autoencoder import MelAutoencoder
from fourfold.modalities.audio.mel_vocoder import MelVocoder
from fourfold.modalities.audio.metrics import si_sdr
from fourfold.modalities.audio.reference_flowsep import ReferenceFlowSep
from fourfold.modalities.storage import ModelFolderError
from fourfold.tasks import autoencoding, names, vocoding
from fourfold.tasks.errors import UserError
from fourfold.tasks.separation import SeparationTask, main, start_from

pytestmark = pytest.mark.filterwarnings("ignore")

SHIPPED = [n for n in names.shipped() if n.partition("/")[0] in ("separation", "autoencoding", "vocoding")]
FRONT = "{sample_rate: 8000, n_fft: 256, hop_length: 80, num_bands: 16, f_max: 4000}"
VAE = "{channels: 8, multipliers: [1, 2], num_res_blocks: 1, norm_groups: 4, latent_channels: 4}"
ADAPTER = "--model.adapter.init_args."
DATA = [
    "--data.sample_rate=8000",
    "--data.mixing.seconds=0.32",
    "--data.batch_size=3",
    "--data.batches_per_epoch=3",
    "--data.validation_size=4",
    "--trainer.max_steps=6",
    "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false",
    "--trainer.check_val_every_n_epoch=1",
]
SMALL = [
    f"{ADAPTER}front={FRONT}",
    f"{ADAPTER}seconds=0.32",
    f"{ADAPTER}unet={{channels: 8, multipliers: [1, 2], attention_levels: [1], norm_groups: 4, head_channels: 8}}",
    f"{ADAPTER}text={{name: ngrams, channels: 8, buckets: 64}}",
    "--model.warmup_steps=2",
    "--model.picture_examples=0",
    "--model.decay_steps=50",
    *DATA,
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fit(run: str = "r", *more: str, config: str = "separation/flowsep-synthetic-cpu") -> int:
    return main(["fit", "--config", config, *SMALL, "--run", run, *more])


def separator(folder: Path, name: str = "m") -> Path:
    """A small stored separator, untrained."""
    settings = yaml.safe_load(FRONT)
    unet = {"channels": 8, "multipliers": [1, 2], "attention_levels": [1], "norm_groups": 4, "head_channels": 8}
    return FlowSep(unet=unet, front=settings, seconds=0.32, text={"name": "ngrams", "channels": 8}).save(folder / name)


def mixture(path: Path, seconds: float = 1.0, rate: int = 11_025, channels: int = 2) -> Path:
    rng = np.random.default_rng(0)
    soundfile.write(path, 0.1 * rng.standard_normal((round(seconds * rate), channels)), rate)
    return path


def test_train_evaluate_sample_export_separate(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit("r", "--model.picture_examples=1") == 0
    assert list(Path("runs/separation/r/samples").glob("separations-*.png"))
    assert "val_si_sdri_1_step" in Path("runs/separation/r/metrics.csv").read_text()
    assert fit("b", config="separation/mask-regression-synthetic-cpu") == 0
    assert main(["export", "--run", "b", "--out", "base"]) == 0
    words = ["evaluate", "--run", "r", "--num_samples", "5", "--steps", "3", "--baseline", "base", "--candidates", "2"]
    assert main(words) == 0
    stored = json.loads(Path("runs/separation/r/metrics.json").read_text())
    table = stored["evaluate"]["metrics"]
    assert list(table) == [
        "flowsep, 3 steps",
        "flowsep, 1 step",
        "flowsep, wrong query",
        "mixture",
        "oracle ratio mask",
        "mask regression",
        "mask regression, wrong query",
    ]
    assert table["mixture"]["si_sdri"] == 0
    assert table["oracle ratio mask"]["si_sdri"] > 5
    assert len(stored["evaluate_pairs"]["si_sdri"]["mixture"]) == 5
    assert Path("runs/separation/r/listening.html").exists()
    assert Path("runs/separation/r/spectrograms.png").exists()
    assert "5 test pairs" in capsys.readouterr().out
    assert main(["sample", "--run", "r", "--num_samples", "2", "--steps", "1", "--out", "s"]) == 0
    written = {p.name for p in Path("s").iterdir()}
    assert {"000-mixture.wav", "001-estimate.wav", "listening.html", "spectrograms.png"} <= written
    assert main(["export", "--run", "r", "--out", "model"]) == 0
    assert "a bell ringing" in load("model").sounds
    mixture(Path("mix.wav"))
    assert (
        fourfold(["separation", "separate", "mix.wav", "a bell", "-o", "out.wav", "--model", "model", "--quiet"]) == 0
    )
    assert soundfile.info("out.wav").frames == soundfile.info("mix.wav").frames
    assert main(["export", "--run", "r", "--out", "model"]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main(["export", "--run", "r", "--out", "model", "--overwrite"]) == 0
    for run in ("runs/separation/r", "r"):
        assert separate("mix.wav", "a bell", "-o", "again.wav", "--model", run, "--quiet", "--force") == 0
        assert f"separated by {run} (flowsep)" in capsys.readouterr().out
        assert np.array_equal(soundfile.read("again.wav")[0], soundfile.read("out.wav")[0])
    assert separate("mix.wav", "a bell", "-o", "x.wav", "--model", "runs/separation/none", "--quiet") != 0
    with pytest.raises(ModelFolderError, match="it is a run: `fourfold TASK export --run"):
        load("runs/separation/r")


def test_a_resumed_run_equals_a_whole_one(folder: Path) -> None:
    assert fit("whole") == 0
    assert fit("parts", "--trainer.max_steps=4") == 0
    assert main(["fit", "--run", "parts", "--ckpt_path=last", "--trainer.max_steps=6"]) == 0
    ends = [digest(Path("runs/separation") / run / "checkpoints" / "last.ckpt") for run in ("whole", "parts")]
    assert ends[0] == ends[1]


def test_through_a_first_stage(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "--config",
        "autoencoding/mel-synthetic-cpu",
        "--run",
        "a",
        f"{ADAPTER}vae={VAE}",
        f"{ADAPTER}front={FRONT}",
    ]
    assert autoencoding.main(["fit", *words, f"{ADAPTER}seconds=0.32", *DATA, "--model.decay_steps=50"]) == 0
    assert autoencoding.main(["evaluate", "--run", "a", "--num_samples", "4"]) == 0
    table = json.loads(Path("runs/autoencoding/a/metrics.json").read_text())["evaluate"]["metrics"]
    assert list(table) == ["mel-autoencoder", "mel-autoencoder, not relative", "oracle ratio mask", "mixture"]
    assert table["oracle ratio mask"]["mel_error"] == 0
    assert table["mel-autoencoder"]["mel_error"] > 0
    assert Path("runs/autoencoding/a/reconstructions.png").exists()
    assert autoencoding.main(["export", "--run", "a", "--out", "vae"]) == 0
    assert autoencoding.main(["export", "--run", "a", "--out", "small", "--max_megabytes=1e-4"]) == 2
    assert "--max_megabytes: the weights take" in capsys.readouterr().err
    assert not Path("small").exists()
    assert autoencoding.main(["export", "--run", "a", "--out", "small", "--max_megabytes=1"]) == 0
    sizes = [Path(name, "model.safetensors").stat().st_size for name in ("small", "vae")]
    assert sizes[0] < 0.7 * sizes[1]
    latent = f"{ADAPTER}representation={{name: vae, center: -6.0, scale: 3.0, vae: {VAE}}}"
    assert fit("l", latent, "--model.first_stage=vae") == 0
    trained, first = (
        torch.load(f"runs/{r}/checkpoints/last.ckpt", weights_only=True) for r in ("separation/l", "autoencoding/a")
    )
    ours = {k.partition("representation.")[2]: v for k, v in trained["state_dict"].items() if "representation." in k}
    theirs = {k.partition("latents.")[2]: v for k, v in first["state_dict"].items() if "latents." in k}
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[k], theirs[k]) for k in ours)
    assert fit("x", "--model.first_stage=vae") == 2
    assert "needs a model whose representation" in capsys.readouterr().err
    other = latent.replace("center: -6.0", "center: -5.0")
    assert fit("y", other, "--model.first_stage=vae") == 2
    assert "the model wants" in capsys.readouterr().err


def test_vocoding(folder: Path) -> None:
    generator = (
        "{num_bands: 16, upsample_rates: [5, 4, 2, 2], upsample_kernels: [10, 8, 4, 4], channels: 32, kernels: [3], "
        "dilations: [1]}"
    )
    words = ["--config", "vocoding/bigvgan-synthetic-cpu", "--run", "v", f"{ADAPTER}generator={generator}"]
    more = [
        f"{ADAPTER}front={FRONT}",
        f"{ADAPTER}seconds=0.32",
        f"{ADAPTER}windows=[64, 128]",
        "--model.decay_steps=50",
    ]
    assert vocoding.main(["fit", *words, *more, *DATA]) == 0
    assert vocoding.main(["evaluate", "--run", "v", "--num_samples", "3"]) == 0
    table = json.loads(Path("runs/vocoding/v/metrics.json").read_text())["evaluate"]["metrics"]
    assert list(table) == ["mel-vocoder", "Griffin-Lim"]
    assert "si_sdr" not in table["mel-vocoder"]
    assert vocoding.main(["sample", "--run", "v", "--num_samples", "2", "--out", "s"]) == 0
    assert {p.name for p in Path("s").iterdir()} == {"000.wav", "001.wav", "listening.html"}


def separate(*words: str) -> int:
    return main(["separate", *words])


def test_separate_writes_estimate_residual_and_page(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = str(separator(folder))
    mixture(Path("mix.flac"))
    words = ["mix.flac", "a bell", "-o", "o.wav", "--residual", "r.wav", "--page", "p.html", "--model", model]
    assert separate(*words, "--negative", "rain", "--candidates", "2", "--steps", "2", "--seed", "3") == 0
    shown = capsys.readouterr()
    assert "rendered by mask" in shown.out
    read = {name: soundfile.read(name) for name in ("mix.flac", "o.wav", "r.wav")}
    assert {rate for _, rate in read.values()} == {11_025}
    np.testing.assert_allclose(read["o.wav"][0] + read["r.wav"][0], read["mix.flac"][0], atol=1e-5)
    assert "audio/wav" in Path("p.html").read_text()
    assert separate(*words) == 2
    assert "--force" in capsys.readouterr().err
    assert separate(*words, "--force") == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["none.wav", "a bell", "-o", "o.wav"], "no such file"),
        (["text.wav", "a bell", "-o", "o.wav"], "not a sound file"),
        (["empty.wav", "a bell", "-o", "o.wav"], "holds no samples"),
        (["nan.wav", "a bell", "-o", "o.wav"], "NaN"),
        (["mix.wav", " ", "-o", "o.wav"], "query is empty"),
        (["mix.wav", "a bell", "-o", "o.xyz"], "unknown extension"),
        (["mix.wav", "a bell", "-o", "mix.wav", "--force"], "is the mixture itself"),
        (["mix.wav", "a bell", "-o", "o.wav", "--residual", "o.wav"], "different names"),
        (["mix.wav", "a bell", "-o", "o.wav", "--decoder", "vocoder"], "no vocoder"),
        (["mix.wav", "a bell", "-o", "o.wav", "--model", "nowhere"], "no model named"),
        (["mix.wav", "a bell", "-o", "o.wav", "--steps", "0"], "at least 1"),
        (["mix.wav", "a bell", "-o", "o.wav", "--start", "2"], "noise level"),
        (["mix.wav", "a bell", "-o", "o.flac", "--temperature", "nan"], "temperature must be a finite number"),
        (["mix.wav", "a bell", "-o", "o.flac", "--temperature", "1e30"], "lower temperature"),
        (["mix.wav", "a bell", "-o", "o.wav", "--guidance", "nan"], "guidance must be a finite number"),
        (["mix.wav", "a bell", "-o", "o.wav", "--page", "p.txt"], "ends in .html"),
        (["mix.wav", "a bell", "-o", "o.wav", "--page", "m", "--force"], "m is a folder"),
        (["mix.wav", "a bell", "-o", "o.wav", "--text", "t5"], "was learnt with it"),
        (["cut.flac", "a bell", "-o", "o.wav"], "damaged"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    folder: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model = [] if "--model" in words else ["--model", str(separator(folder))]
    mixture(Path("mix.wav"))
    Path("text.wav").write_text("hello")
    soundfile.write("empty.wav", np.zeros(0), 8000)
    soundfile.write("nan.wav", np.full(100, np.nan, np.float32), 8000, subtype="FLOAT")
    soundfile.write("cut.flac", 0.1 * np.random.default_rng(0).standard_normal(80_000), 8000)
    Path("cut.flac").write_bytes(Path("cut.flac").read_bytes()[:60_000])
    before = {p: p.read_bytes() for p in folder.iterdir() if p.is_file()}
    assert separate(*words, *model, "--quiet") in (1, 2)
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert {p: p.read_bytes() for p in folder.iterdir() if p.is_file()} == before


@pytest.mark.parametrize(("subtype", "rate"), [("PCM_U8", 8000), ("PCM_24", 96_000)])
def test_unusual_files(folder: Path, subtype: str, rate: int, capsys: pytest.CaptureFixture[str]) -> None:
    wave = np.clip(2 * np.sin(np.arange(rate // 2) / 7), -1, 1)
    soundfile.write("mix.wav", wave, rate, subtype=subtype)
    assert separate("mix.wav", "a bell", "-o", "o.wav", "--model", str(separator(folder)), "--quiet") == 0
    assert "at full scale" in capsys.readouterr().out
    assert soundfile.info("o.wav").samplerate == rate


def test_sounds_beyond_full_scale_are_not_lost(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    soundfile.write("mix.wav", 0.8 * rng.standard_normal(8000), 8000, subtype="FLOAT")
    words = ["mix.wav", "a bell", "-o", "o.wav", "--residual", "r.flac", "--model", str(separator(folder)), "--quiet"]
    assert separate(*words) == 0
    assert "r.flac.wav (32-bit float) takes the place of r.flac" in capsys.readouterr().out
    assert not Path("r.flac").exists()
    total = sum(soundfile.read(name)[0] for name in ("o.wav", "r.flac.wav"))
    np.testing.assert_allclose(total, soundfile.read("mix.wav")[0], atol=1e-6)


def test_a_model_says_what_it_was_not_trained_on(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mixture(Path("mix.wav"))
    words = ["-o", "o.wav", "--model", "flowsep-synthetic", "--quiet", "--force"]
    assert separate("mix.wav", "a violin", *words) == 0
    assert "'a violin' it knows nothing" in capsys.readouterr().out
    assert separate("mix.wav", "ringing bells", *words) == 0
    assert "knows nothing" not in capsys.readouterr().out
    assert separate("mix.wav", "a violin", "-o", "o.wav", "--quiet", "--force") == 0
    shown = capsys.readouterr().out
    assert "separated by flowsep-esc10 (flowsep)" in shown
    assert all(f"{name} was trained on" in shown for name in ("flowsep-esc10", "flowsep-synthetic"))
    assert separate("mix.wav", "a violin", "-o", "o.wav", "--quiet", "--force", "--debug", "--text", "x") == 1
    assert "Traceback" in capsys.readouterr().err


def test_other_models_are_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mixture(Path("mix.wav"))
    assert separate("mix.wav", "a bell", "-o", "o.wav", "--model", "gdss-ego_small") == 2
    assert "does not separate sounds" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data.mixing.seconds=0.5"], "data.mixing.seconds is 0.5"),
        (["--data.sample_rate=16000"], "the model works at 8000 Hz"),
        ([f"{ADAPTER}prediction=noise"], "prediction"),
        ([f"{ADAPTER}representation={{name: mel}}"], "unknown representation 'mel'"),
        (["--data.name=birds"], "unknown data set 'birds'"),
    ],
)
def test_mistakes_are_one_line(
    folder: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit("r", *words) in (1, 2)
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def sounds(folder: Path, **labels: int) -> Path:
    rng = np.random.default_rng(0)
    for label, count in labels.items():
        (folder / label).mkdir(parents=True)
        for i in range(count):
            soundfile.write(folder / label / f"{i}.wav", 0.1 * rng.standard_normal(4000), 8000)
    return folder


def test_a_folder_of_two_labels(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A failed start leaves nothing in the way of the next, and nothing of the user's is lost."""
    own = "separation/flowsep-folder"
    assert fit(config=own) == 2
    assert "data.folder, data.csv or data.json" in capsys.readouterr().err
    words = ["--data.folder", str(sounds(Path("two"), bell=3, rain=3))]
    assert fit("r", *words, "--data.mixing.min_sources=3", config=own) == 1
    assert "data.mixing.min_sources is 3" in capsys.readouterr().err
    assert not Path("runs").exists()
    run = Path("runs/separation/r")
    run.mkdir(parents=True)
    (run / "notes.txt").write_text("mine")
    assert fit("r", *words, "--model.start_from=gdss-ego_small", config=own) == 2
    assert [path.name for path in run.iterdir()] == ["notes.txt"]
    with pytest.warns(match="data.mixing.max_sources is 3, but mixtures for training hold at most 2"):
        assert fit("r", *words, config=own) == 0
    assert fit("r", *words, "--model.start_from=gdss-ego_small", "--overwrite", config=own) == 2
    assert (run / "config.yaml").exists()


def test_a_table_with_the_configuration_for_ones_own_sounds(folder: Path) -> None:
    files = sorted(sounds(Path("s"), bell=3, rain=3, dog=3).rglob("*.wav"))
    Path("t.csv").write_text("\n".join(["file,label", *(f"{file},{file.parent.name}" for file in files)]))
    assert fit("r", "--data.csv=t.csv", "--trainer.max_steps=1", config="separation/flowsep-folder") == 0


def test_a_missing_text_encoder_is_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("transformers")
    assert fit("r", f"{ADAPTER}text={{name: flan-t5, source: nofolder}}") == 1
    error = capsys.readouterr().err
    assert "error: cannot load the text encoder from nofolder" in error
    assert "Traceback" not in error


def test_starting_from_another_model(folder: Path) -> None:
    stored = separator(folder)
    trained = load(stored)
    model = FlowSep(**trained.config())
    start_from(model, str(stored))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), trained.parameters(), strict=True))
    with pytest.raises(UserError, match="is a gdss model"):
        start_from(model, "gdss-ego_small")
    with pytest.raises(UserError, match="weights differ in shape"):
        start_from(FlowSep(), str(stored))


def test_the_shipped_separator_separates(folder: Path) -> None:
    """The zoo's weights on a few pairs of the protocol: far from the bars' size, near enough to notice damage."""
    data = SeparationDataModule(test_size=8)
    data.setup()
    task = SeparationTask(load("flowsep-synthetic")).eval()
    batch = next(iter(data.test_dataloader()))
    right = task.separate(batch, 10, 0)
    wrong = task.separate(batch, 1, 0, [others[0] for others in batch.others])
    before = si_sdr(batch.mixture, batch.target)
    assert float((si_sdr(right, batch.target) - before).mean()) > 6
    assert float((si_sdr(wrong, batch.target) - before).mean()) < -5


KINDS = {kind.__name__: kind for kind in (FlowSep, MaskRegression, ReferenceFlowSep, MelAutoencoder, MelVocoder)}


@pytest.mark.parametrize("name", SHIPPED)
def test_every_configuration_builds_its_model(name: str) -> None:
    settings = yaml.safe_load(names.find(name).read_text(encoding="utf-8"))
    described = settings["model"]["adapter"]
    with torch.device("meta"):
        adapter = KINDS[described["class_path"].rpartition(".")[2]](**described.get("init_args", {}))
    count = sum(p.numel() for p in adapter.parameters())
    if isinstance(adapter, ReferenceFlowSep):
        assert count == pytest.approx(265.549e6 + 55.377e6 + 13.954e6, rel=1e-4)
    if name.endswith("-cpu"):
        assert count < 3_000_000
    assert getattr(adapter, "seconds", 0) == settings["data"].get("mixing", {}).get("seconds", 2.56)


def test_published_sizes_are_shipped() -> None:
    wanted = {
        "separation/flowsep-synthetic-cpu",
        "separation/mask-regression-synthetic-cpu",
        "separation/flowsep-vae-synthetic-cpu",
        "separation/flowsep-esc10",
        "separation/flowsep-folder",
        "separation/flowsep-audiocaps",
        "separation/flowsep-reference-audiocaps",
        "autoencoding/mel-synthetic-cpu",
        "autoencoding/mel-audiocaps",
        "vocoding/bigvgan-synthetic-cpu",
        "vocoding/bigvgan-audiocaps",
    }
    assert wanted <= set(SHIPPED)


def test_task_is_a_plain_lightning_module() -> None:
    task = SeparationTask(FlowSep())
    assert task.model() is task.adapter
    with pytest.raises(ValueError, match="must be a separator"):
        SeparationTask(MelVocoder())
