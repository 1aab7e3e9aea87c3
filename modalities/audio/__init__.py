"""Audio: waveforms, mel spectrograms, the networks built on them, text encoders, reconstruction and metrics."""

from .bigvgan import BigVGAN
from .files import AudioFileError, Recording, read_audio, write_audio
from .flowsep import FlowSep
from .klvae import KLVAE, LatentStatistics
from .mask_regression import MaskRegression
from .mel import LogMel, MelSettings
from .mel_autoencoder import MelAutoencoder
from .mel_vocoder import MelVocoder
from .ngram_text import NGramEncoder
from .reconstruction import GriffinLim, MixturePhaseMask, Reconstruction, Vocoder
from .reference_flowsep import ReferenceFlowSep
from .separation_unet import SeparationUNet
from .separator import Query, Separation, Separator
from .text import CachedTextEncoder, TextEncoder, TextStates

__all__ = [
    "KLVAE",
    "AudioFileError",
    "BigVGAN",
    "CachedTextEncoder",
    "FlowSep",
    "GriffinLim",
    "LatentStatistics",
    "LogMel",
    "MaskRegression",
    "MelAutoencoder",
    "MelSettings",
    "MelVocoder",
    "MixturePhaseMask",
    "NGramEncoder",
    "Query",
    "Reconstruction",
    "Recording",
    "ReferenceFlowSep",
    "Separation",
    "SeparationUNet",
    "Separator",
    "TextEncoder",
    "TextStates",
    "Vocoder",
    "read_audio",
    "write_audio",
]
