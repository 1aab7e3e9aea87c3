"""Overlapping windows: what goes through unchanged comes out unchanged, whatever the length."""

import pytest
import torch

from fourfold.modalities.audio.windows import Windows, in_windows


def through(length, window, overlap, process=lambda parts, numbers: parts, batch=3):
    wave = torch.randn(2, length, dtype=torch.float64)
    windows = Windows(length, window, overlap)
    out = torch.full_like(wave, torch.nan)
    sizes = []

    def counted(parts, numbers):
        sizes.append(tuple(parts.shape))
        return process(parts, numbers)

    end = 0
    for start, part in in_windows(windows, lambda a, b: wave[:, a:b], counted, batch=batch):
        assert start == end
        end = start + part.shape[1]
        out[:, start:end] = part
    assert end == length
    return wave, out, sizes


@pytest.mark.parametrize("length", [1, 7, 99, 100, 101, 150, 175, 176, 1000, 1003])
@pytest.mark.parametrize("overlap", [0, 25, 50])
def test_identity(length, overlap):
    wave, out, sizes = through(length, 100, overlap)
    torch.testing.assert_close(out, wave)
    assert max(shape[0] for shape in sizes) <= 3
    assert all(shape[1:] == (2, 100) for shape in sizes)


def test_every_sample_is_a_mean_of_the_windows_over_it():
    # Window k gives k: inside overlaps the output passes from k to k + 1 without a jump.
    def numbered(parts, numbers):
        return torch.stack([torch.full_like(p, float(n)) for p, n in zip(parts, numbers, strict=True)])

    _, out, _ = through(1000, 100, 25, numbered)
    assert out.min() == 0
    steps = out[0].diff()
    assert (steps >= 0).all()
    assert steps.max() < 0.05


def test_a_short_recording_is_one_window():
    windows = Windows(10, 100, 25)
    assert len(windows) == 1
    assert windows.start(0) == 0


@pytest.mark.parametrize("values", [(0, 10, 2), (5, 0, 0), (5, 10, 6), (5, 10, -1)])
def test_nonsense_is_refused(values):
    with pytest.raises(ValueError, match="length"):
        Windows(*values)
