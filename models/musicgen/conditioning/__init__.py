"""From texts and a melody to the tensors that condition MusicGen's language model."""
