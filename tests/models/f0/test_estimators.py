"""Every f0 estimator on audio of known f0, of any length and in chunks; and the family that lists and loads them."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from errors import CancelledError, ModelError, UnknownNameError
from models.checkpoints.locations import WeightLocations
from models.f0 import METHODS, F0Estimator, PitchFamily
from models.f0.crepe import MangioCrepe, _decode, _split_frames, load_crepe, run_crepe
from models.f0.estimator import F0Contour, Waveform, zero_pad
from models.f0.fcpe import Fcpe
from models.f0.mel import LogMel
from models.f0.rmvpe import RmvpeNetwork
from models.runtime.progress import UNATTENDED, Observer
from testing.models import list_as_json
from testing.repository import ROOT
from testing.tensors import count_tensor_bytes
from testing.tiny_rvc import make_rmvpe, write_rmvpe
from testing.vocals import Phrase, make_phrase, make_vocal, measure_cents_error

ALL_BUT_LARGE = [method for method in METHODS if method not in ("crepe", "mangio-crepe")]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> WeightLocations:
    folder = tmp_path_factory.mktemp("models")
    write_rmvpe(folder / "rmvpe.pt")
    return WeightLocations(explicit=folder)


@pytest.fixture(scope="module")
def load(weights: WeightLocations) -> Callable[[str], F0Estimator]:
    """Loads a method, each once; mangio-crepe with the small network."""
    family = PitchFamily(weights)

    @functools.cache
    def load_method(method: str) -> F0Estimator:
        return MangioCrepe(load_crepe("tiny", "cpu")) if method == "mangio-crepe" else family.load(method, device="cpu")

    return load_method


@pytest.fixture(scope="module")
def song() -> Phrase:
    return make_phrase()


def estimate(estimator: F0Estimator, waveform: Waveform, *, hop_length: int = 128, filter_radius: int = 3) -> F0Contour:
    return estimator.estimate(
        waveform, hop_length=hop_length, filter_radius=filter_radius, progress=lambda fraction: None
    )


@pytest.mark.parametrize(
    ("method", "median_cents", "voiced_rests"),
    [("crepe-tiny", 6, 0.15), ("fcpe", 6, 0.0), ("harvest", 2, 0.2), ("pm", 2, 0.0)],
)
def test_f0_of_a_glide_with_vibrato_is_found_and_rests_are_unvoiced(
    load: Callable[[str], F0Estimator], song: Phrase, method: str, median_cents: float, voiced_rests: float
) -> None:
    f0 = estimate(load(method), song.waveform)
    assert np.mean(f0[song.voiced] > 0) > 0.99
    assert np.mean(f0[song.unvoiced] > 0) <= voiced_rests
    off = measure_cents_error(f0[song.voiced], song.f0[song.voiced])
    assert np.median(off) < median_cents
    assert np.percentile(off, 95) < 20


def test_mangio_crepe_finds_f0_at_any_hop_length_and_treats_all_sound_as_voiced(
    load: Callable[[str], F0Estimator], song: Phrase
) -> None:
    contours = [estimate(load("mangio-crepe"), song.waveform, hop_length=hop) for hop in (100, 128, 200)]
    for f0 in contours:
        assert np.all(f0 > 0)
        assert np.median(measure_cents_error(f0[song.voiced], song.f0[song.voiced])) < 6
    assert not np.array_equal(contours[0], contours[1])


@pytest.mark.parametrize("method", ["crepe-tiny", "mangio-crepe", "harvest", "pm", "fcpe"])
def test_silence_is_unvoiced(load: Callable[[str], F0Estimator], method: str) -> None:
    assert not estimate(load(method), np.zeros(16_000, np.float32)).any()


def test_harvest_takes_the_same_median_for_every_filter_radius_from_3_on(
    load: Callable[[str], F0Estimator], song: Phrase
) -> None:
    piece = song.waveform[8_000:24_000]
    rough, smooth, smoother = (estimate(load("harvest"), piece, filter_radius=radius) for radius in (2, 3, 7))
    np.testing.assert_array_equal(smooth, smoother)
    expected = np.median([np.pad(rough, 1)[i : i + len(rough)] for i in range(3)], axis=0)
    np.testing.assert_array_equal(smooth, expected.astype(np.float32))
    assert not np.array_equal(rough, smooth)


@pytest.mark.parametrize("method", [*ALL_BUT_LARGE, "mangio-crepe"])
@pytest.mark.parametrize("samples", [0, 1, 159, 160, 320, 513, 1024, 8_000 + 77])
def test_there_is_a_frame_every_160_samples_however_short_the_audio_is(
    load: Callable[[str], F0Estimator], method: str, samples: int
) -> None:
    f0 = estimate(load(method), make_vocal(1.01)[:samples])
    assert f0.shape == (samples // 160,)
    assert f0.dtype == np.float32
    assert np.all(np.isfinite(f0))
    assert np.all(f0 >= 0)


@given(st.integers(0, 1400), st.integers(1, 512))
@example(500, 512)
@settings(max_examples=40, deadline=None)
def test_mangio_crepe_accepts_a_hop_length_longer_than_the_audio(samples: int, hop_length: int) -> None:
    estimator = MangioCrepe(UniformNetwork())
    assert estimator.estimate(
        make_vocal(0.1)[:samples], hop_length=hop_length, filter_radius=3, progress=lambda fraction: None
    ).shape == (samples // 160,)


@pytest.mark.parametrize("method", [*ALL_BUT_LARGE, "mangio-crepe"])
def test_warming_up_leaves_every_estimator_as_it_was(load: Callable[[str], F0Estimator], method: str) -> None:
    waveform = make_vocal(0.6)
    before = estimate(load(method), waveform)
    load(method).warm_up()
    np.testing.assert_array_equal(estimate(load(method), waveform), before)


class RandomNetwork:
    """Gives the bins of each frame probabilities that depend on its samples alone."""

    memory_bytes = 0

    def classify(self, frames: torch.Tensor) -> NDArray[np.float32]:
        weights = torch.randn(frames.shape[1], 360, generator=torch.Generator().manual_seed(0))
        return np.asarray((frames @ weights).sigmoid().numpy())


def test_blocks_of_crepe_are_decoded_side_by_side_as_each_by_itself() -> None:
    waveform, network = make_vocal(5.0, seed=4), RandomNetwork()
    together = run_crepe(network, waveform, hop_length=160, block_length=20, progress=lambda fraction: None)
    frames = _split_frames(waveform, 0, 501, 160)
    for start in range(0, 501, 20):
        f0, periodicity = _decode(network.classify(frames[start : start + 20])[None])
        np.testing.assert_array_equal(together.f0[start : start + 20], f0)
        np.testing.assert_array_equal(together.periodicity[start : start + 20], periodicity)


class UniformNetwork:
    """Gives every bin of every frame the same probability."""

    memory_bytes = 0

    def classify(self, frames: torch.Tensor) -> NDArray[np.float32]:
        return np.full((len(frames), 360), 0.5, np.float32)


@pytest.mark.parametrize("method", [*ALL_BUT_LARGE, "mangio-crepe"])
def test_the_same_audio_gives_the_same_f0_and_is_not_changed(load: Callable[[str], F0Estimator], method: str) -> None:
    waveform = make_vocal(0.6)
    before = waveform.copy()
    np.testing.assert_array_equal(estimate(load(method), waveform), estimate(load(method), waveform))
    np.testing.assert_array_equal(waveform, before)


@pytest.mark.parametrize("method", [*ALL_BUT_LARGE, "mangio-crepe"])
def test_progress_rises_to_1_and_an_error_that_it_raises_ends_the_work(
    load: Callable[[str], F0Estimator], method: str
) -> None:
    fractions: list[float] = []
    load(method).estimate(make_vocal(2.0), hop_length=160, filter_radius=3, progress=fractions.append)
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert fractions[0] > 0

    def cancel(fraction: float) -> None:
        raise CancelledError("stopped")

    with pytest.raises(CancelledError):
        load(method).estimate(make_vocal(0.5), hop_length=160, filter_radius=3, progress=cancel)


@given(st.integers(0, 50), st.integers(-120, 120), st.integers(0, 150))
def test_zero_padding_is_numpys(length: int, start: int, size: int) -> None:
    waveform = np.arange(1, length + 1, dtype=np.float32)
    padded = np.pad(waveform, 300)
    np.testing.assert_array_equal(zero_pad(waveform, start, start + size), padded[300 + start : 300 + start + size])


@pytest.mark.parametrize("method", ["harvest", "pm", "fcpe"])
def test_f0_in_chunks_is_that_of_the_whole_file(load: Callable[[str], F0Estimator], method: str) -> None:
    phrases = [make_phrase(1.5, seed=seed) for seed in range(3)]
    waveform = np.concatenate([phrase.waveform * level for phrase, level in zip(phrases, (1, 0.3, 0.05), strict=True)])
    whole, chunked = (estimate(with_chunk_length(load(method), length), waveform) for length in (1000, 430))
    voiced = np.concatenate([phrase.voiced for phrase in phrases])
    compared = voiced if method == "harvest" else slice(None)  # harvest guesses in noise
    np.testing.assert_array_equal((chunked > 0)[compared], (whole > 0)[compared])
    assert measure_cents_error(chunked[voiced], whole[voiced].astype(np.float64)).max() < 0.1


def with_chunk_length(estimator: F0Estimator, length: int) -> F0Estimator:
    if isinstance(estimator, Fcpe):
        return Fcpe(estimator.network, estimator.device, chunk_length=length)
    return type(estimator)(chunk_length=length)  # type: ignore[call-arg]


def installed_except(*missing: str) -> Callable[[str], bool]:
    return lambda package: package not in missing


def test_the_methods_are_those_of_the_contract() -> None:
    assert METHODS == ("rmvpe", "crepe", "crepe-tiny", "mangio-crepe", "harvest", "pm", "fcpe")


def test_rmvpe_is_the_default_and_every_method_resolves_by_name(weights: WeightLocations) -> None:
    family = PitchFamily(weights)
    assert family.resolve(None).name == "rmvpe"
    assert [family.resolve(method).name for method in METHODS] == list(METHODS)
    assert family.readiness().is_ready
    assert family.search_paths() == weights.search_paths()


def test_an_unknown_method_is_refused_with_the_known_ones(weights: WeightLocations) -> None:
    with pytest.raises(UnknownNameError, match=r"'rmvp'.*Did you mean 'rmvpe'.*harvest"):
        PitchFamily(weights).resolve("rmvp")


@pytest.mark.parametrize(
    ("method", "package", "install"),
    [
        ("crepe", "torchcrepe", "torchcrepe"),
        ("mangio-crepe", "torchcrepe", "torchcrepe"),
        ("harvest", "pyworld", "pyworld-prebuilt"),
        ("pm", "parselmouth", "praat-parselmouth"),
        ("fcpe", "torchfcpe", "torchfcpe"),
    ],
)
def test_a_method_without_its_package_says_what_to_install(
    weights: WeightLocations, method: str, package: str, install: str
) -> None:
    family = PitchFamily(weights, is_installed=installed_except(package))
    for attempt in (lambda: family.resolve(method), lambda: family.load(method, device="cpu")):
        with pytest.raises(ModelError, match=f"'{method}' cannot run here.*{package}.*Install {install}") as caught:
            attempt()
        assert caught.value.error_code == "model_unavailable"
    assert {row["name"]: row["available"] for row in list_as_json(family)}[method] == f"not installed: {package}"
    assert family.resolve("rmvpe").name == "rmvpe"


def test_rmvpe_without_its_weights_says_where_to_put_them() -> None:
    family = PitchFamily(WeightLocations())
    with pytest.raises(ModelError, match=r"rmvpe\.pt is not here.*MODELS_DIR.*another f0_method") as caught:
        family.resolve(None)
    assert caught.value.error_code == "model_unavailable"
    assert (
        family.readiness().to_json()
        == "the default f0 method rmvpe is not available: rmvpe.pt is not here, and downloads are off"
    )
    available = {row["name"]: row["available"] for row in list_as_json(family)}
    assert available["rmvpe"] == "rmvpe.pt is not here, and downloads are off"
    assert {available[method] for method in METHODS if method != "rmvpe"} == {"local"}


class FakeHub:
    """Gives one folder for every repository and records the requests."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.requests: list[tuple[str, tuple[str, ...]]] = []

    def fetch(self, hub_id: str, patterns: Sequence[str], observer: Observer = UNATTENDED) -> Path:
        self.requests.append((hub_id, tuple(patterns)))
        return self.folder


def test_rmvpe_is_downloaded_if_no_folder_has_it(tmp_path: Path) -> None:
    write_rmvpe(tmp_path / "cache" / "rmvpe.pt")
    hub = FakeHub(tmp_path / "cache")
    family = PitchFamily(WeightLocations(hub=hub))
    assert list_as_json(family)[0]["available"] == "download"
    assert family.resolve("rmvpe").name == "rmvpe"
    assert hub.requests == []
    assert estimate(family.load("rmvpe", device="cpu"), make_vocal(0.5)).shape == (50,)
    assert hub.requests == [("lj1995/VoiceConversionWebUI", ("rmvpe.pt",))]


@pytest.mark.parametrize("folder", ["", "rvc"])
def test_rmvpe_is_found_in_models_dir_and_in_its_folder_rvc(tmp_path: Path, folder: str) -> None:
    write_rmvpe(tmp_path / folder / "rmvpe.pt")
    family = PitchFamily(WeightLocations(explicit=tmp_path))
    assert list_as_json(family)[0]["available"] == "local"
    assert estimate(family.load("rmvpe", device="cpu"), make_vocal(0.5)).shape == (50,)


@pytest.mark.parametrize(
    "changes",
    [
        {"cnn.bias": None},
        {"cnn.weight": torch.zeros(3)},
        {"fc.1.bias": torch.zeros(359)},
        {"fc.0.gru.weight_hh_l0": torch.zeros(1, 1)},
        {"unet.encoder.bn.weight": torch.zeros(2)},
        {"unet.encoder.layers.x.conv.0": torch.zeros(1)},
        {"unet.decoder.layers.0.conv1.0.weight": torch.zeros(1, 1, 1, 1)},
        {"unet.intermediate.layers.0.conv.0.conv.0.weight": torch.zeros(1, 1, 3, 3)},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_file_that_does_not_hold_rmvpe_is_refused(tmp_path: Path, changes: dict[str, torch.Tensor | None]) -> None:
    state = {**make_rmvpe().state_dict(), **changes}
    torch.save({name: value for name, value in state.items() if value is not None}, tmp_path / "rmvpe.pt")
    with pytest.raises(ModelError, match=r"rmvpe\.pt does not hold the network RMVPE") as caught:
        PitchFamily(WeightLocations(explicit=tmp_path)).load("rmvpe", device="cpu")
    assert caught.value.error_code == "broken_checkpoint"


def test_a_file_with_one_tensor_is_not_rmvpe(tmp_path: Path) -> None:
    torch.save({"cnn.weight": torch.zeros(3, 16, 3, 3)}, tmp_path / "rmvpe.pt")
    with pytest.raises(ModelError, match=r"rmvpe\.pt does not hold the network RMVPE"):
        PitchFamily(WeightLocations(explicit=tmp_path)).load("rmvpe", device="cpu")


def test_estimators_report_the_size_of_their_weights(
    load: Callable[[str], F0Estimator], weights: WeightLocations
) -> None:
    family = PitchFamily(weights)
    for method in METHODS:
        assert family.memory_bytes(method) >= 0
    assert load("fcpe").memory_bytes == pytest.approx(43e6, rel=0.05)
    assert load("harvest").memory_bytes == 0
    assert family.memory_bytes("rmvpe") > 361_000_000


@pytest.mark.parametrize("method", METHODS)
def test_the_reported_memory_is_that_of_all_weights(load: Callable[[str], F0Estimator], method: str) -> None:
    estimator = load(method)
    assert estimator.memory_bytes == count_tensor_bytes(estimator, without=(LogMel,))


def test_the_weights_of_rmvpe_count_in_their_own_precision() -> None:
    state = make_rmvpe().state_dict()
    half, exact = (
        RmvpeNetwork(state, device=torch.device("cpu"), dtype=dtype) for dtype in (torch.float16, torch.float32)
    )
    assert half.memory_bytes == count_tensor_bytes(half) < exact.memory_bytes == count_tensor_bytes(exact)


def test_the_weights_of_crepe_in_bfloat16_are_not_kept_in_float32_too() -> None:
    half, exact = (load_crepe("tiny", "cpu", dtype) for dtype in (torch.bfloat16, torch.float32))
    assert half.memory_bytes == count_tensor_bytes(half) < exact.memory_bytes == count_tensor_bytes(exact)


def test_the_family_does_not_import_torch() -> None:
    code = (
        "import sys; from models.f0 import METHODS, PitchFamily; from models.f0.contour import parse_key;"
        "from models.checkpoints.locations import WeightLocations; family = PitchFamily(WeightLocations());"
        "family.list_models(); family.readiness(); family.resolve('pm'); parse_key('Am');"
        "print([m for m in ('torch', 'torchcrepe', 'torchfcpe', 'librosa', 'parselmouth') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
