"""Audio: waveforms, mel spectrograms and the systems built on them."""
