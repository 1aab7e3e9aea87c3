"""Pictures, and pages that play without a network."""

import base64
import io
import re

import pytest
import soundfile
import torch

from fourfold.modalities.audio.listening import write_listening_page
from fourfold.modalities.audio.mel import LogMel
from fourfold.modalities.audio.pictures import Example, mel_figure, save_figure, spectrogram_figure


def example(rate=16_000, seconds=0.4, note="fine"):
    t = torch.arange(round(rate * seconds)) / rate
    low, high = 0.3 * torch.sin(2 * torch.pi * 300 * t), 0.9 * torch.sin(2 * torch.pi * 2000 * t)
    return Example("a <bell> & more", {"mixture": low + high, "estimate": low, "target": low}, rate, note)


@pytest.mark.parametrize("rate", [8000, 16_000, 44_100, 96_000])
def test_page_holds_the_sounds_and_loads_nothing(tmp_path, rate):
    path = write_listening_page(tmp_path / "p.html", [example(rate)], title="T", note="N")
    page = path.read_text()
    assert "http" not in page
    assert "a &lt;bell&gt; &amp; more" in page
    players = re.findall(r'<audio[^>]*src="data:audio/wav;base64,([^"]+)"', page)
    waves = [soundfile.read(io.BytesIO(base64.b64decode(player))) for player in players]
    assert [r for _, r in waves] == [rate] * 3
    # All by the same gain, so that nothing clips and levels can be compared.
    gain = 1 / float(example(rate).sounds["mixture"].abs().max())
    for (wave, _), truth in zip(waves, example(rate).sounds.values(), strict=True):
        torch.testing.assert_close(torch.tensor(wave).float(), gain * truth, atol=1e-3, rtol=0)
    assert len(re.findall(r'src="data:image/png;base64,', page)) == 3


def test_figures(tmp_path):
    figure = spectrogram_figure([example(), example(note="")], LogMel(), "both")
    assert save_figure(figure, tmp_path / "inner" / "s.png").stat().st_size > 5000
    shown = [axes.images[0].get_array() for axes in figure.axes]
    assert len(shown) == 6
    # The estimate is on the mixture's scale: the high tone is gone from it.
    assert shown[1].shape == shown[0].shape
    assert float(shown[0][30:].max()) > float(shown[1][30:].max()) + 20
    assert save_figure(mel_figure({"a": torch.rand(2, 8, 4), "b": torch.rand(2, 8, 4)}), tmp_path / "m.png").exists()


def test_nothing_to_show():
    with pytest.raises(ValueError, match="no examples"):
        spectrogram_figure([], LogMel())
    with pytest.raises(ValueError, match="of one length"):
        Example("q", {"a": torch.zeros(3), "b": torch.zeros(4)}, 8000)
