"""What is heard in audio: beats, key, chords, levels, silence, spectrum. Signal processing with numpy, soxr and pydub.

No learned models, and not librosa: its numba and llvmlite would add 226 MB to the image and seconds of compilation to
the first request of every new worker, and its stock functions were less accurate (`benchmarks.analyze`).
"""
