"""Makes the demo model: composes and renders music, trains a codec and a language model on it, measures the result."""
