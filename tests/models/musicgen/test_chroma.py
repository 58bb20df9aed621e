"""Our chroma filter bank is librosa's."""

from __future__ import annotations

import librosa
import numpy as np
import pytest

from models.musicgen.chroma import make_chroma_filters


@pytest.mark.parametrize("num_chroma", [12, 24, 7, 13])
@pytest.mark.parametrize(("sample_rate", "fft_size"), [(32_000, 16_384), (16_000, 512), (44_100, 2049)])
def test_the_filters_are_those_of_librosa(sample_rate: int, fft_size: int, num_chroma: int) -> None:
    expected = librosa.filters.chroma(sr=sample_rate, n_fft=fft_size, tuning=0, n_chroma=num_chroma)
    filters = make_chroma_filters(sample_rate, fft_size, num_chroma)
    assert filters.shape == expected.shape and filters.dtype == np.float32
    np.testing.assert_allclose(filters, expected, rtol=1e-5, atol=1e-7)


def test_the_first_class_is_c() -> None:
    filters = make_chroma_filters(32_000, 16_384)
    middle_c = round(261.63 * 16_384 / 32_000)
    assert filters[:, middle_c].argmax() == 0
