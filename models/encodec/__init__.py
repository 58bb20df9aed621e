"""EnCodec, the neural codec that turns MusicGen's codes into audio, and audio into codes."""
