"""Audio: waveforms, mel spectrograms, the networks built on them, text encoders, reconstruction and metrics."""

from .bigvgan import BigVGAN
from .files import AudioFileError, Recording, read_audio, write_audio
from .klvae import KLVAE, LatentStatistics
from .mel import LogMel, MelSettings
from .ngram_text import NGramEncoder
from .reconstruction import GriffinLim, MixturePhaseMask, Reconstruction, Vocoder
from .separation_unet import SeparationUNet
from .text import CachedTextEncoder, TextEncoder, TextStates

__all__ = [
    "KLVAE",
    "AudioFileError",
    "BigVGAN",
    "CachedTextEncoder",
    "GriffinLim",
    "LatentStatistics",
    "LogMel",
    "MelSettings",
    "MixturePhaseMask",
    "NGramEncoder",
    "Reconstruction",
    "Recording",
    "SeparationUNet",
    "TextEncoder",
    "TextStates",
    "Vocoder",
    "read_audio",
    "write_audio",
]
