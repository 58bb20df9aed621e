"""The engine on tiny random checkpoints in the real format, compared with audiocraft on the same weights."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from audio import Audio
from errors import CancelledError, DeadlineError
from models.checkpoints.hf_folder import SAFETENSORS_FILE
from models.checkpoints.locations import WeightLocations
from models.encodec.codec import Codec
from models.musicgen.catalog import BY_NAME
from models.musicgen.decode import CudaGraphBackend, Decoding, EagerBackend, Window
from models.musicgen.engine import Engine, level_windows, measure_loudness_db, plan_sliding_windows
from models.musicgen.inspect import CODEC_FILE, LM_FILE, inspect_checkpoint
from models.musicgen.load import load_engine, read_weights
from models.musicgen.request import MAX_DRIFT_DB, GenerationRequest, Sampling
from testing.audiocraft_reference import load_audiocraft_musicgen
from testing.graph_recorder import EagerRecorder
from testing.musicgen_steps import RecordingLinear
from testing.repository import ROOT
from testing.tiny_musicgen import Shape, write_checkpoint

Reference = Callable[..., Any]
WINDOW_RATE = 8_000  # Hz, of the noise whose windows are levelled
GREEDY = Sampling(temperature=0.0)
SHAPES = {
    "text": Shape(sample_rate=32_000),
    "stereo": Shape(sample_rate=32_000, stereo=True),
    "melody": Shape(sample_rate=32_000, melody=True),
    "audiogen": Shape(),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("checkpoints")
    return {name: write_checkpoint(root / name, shape) for name, shape in SHAPES.items()}


@pytest.fixture(scope="module")
def engines(folders: dict[str, Path]) -> dict[str, Engine]:
    return {name: float32_engine(folder) for name, folder in folders.items()}


@pytest.fixture(scope="module")
def reference(folders: dict[str, Path], engines: dict[str, Engine]) -> Reference:
    """audiocraft's own MusicGen with the weights of an engine, decoding greedily."""
    models = {id(engines[name]): load_audiocraft_musicgen(folder) for name, folder in folders.items()}

    def configure(engine: Engine, **params: Any) -> Any:
        models[id(engine)].set_generation_params(use_sampling=False, **({"extend_stride": 1.2} | params))
        return models[id(engine)]

    return configure


@pytest.fixture(params=SHAPES)
def engine(request: pytest.FixtureRequest, engines: dict[str, Engine]) -> Engine:
    return engines[request.param]


@pytest.fixture
def text_engine(engines: dict[str, Engine]) -> Engine:
    return engines["text"]


def float32_engine(folder: Path) -> Engine:
    return load_engine(inspect_checkpoint(folder, WeightLocations()), device="cpu", dtype=torch.float32)


def make_request(**fields: Any) -> GenerationRequest:
    defaults: dict[str, Any] = {"descriptions": ["slow piano"], "seeds": [3], "duration": 1.0, "stride": 1.2}
    return GenerationRequest(**(defaults | fields))


def make_chord(seconds: float, sample_rate: int = 32_000, channels: int = 1) -> Audio:
    time = np.arange(int(seconds * sample_rate)) / sample_rate
    waves = [np.sin(2 * np.pi * f * time) * np.linspace(0.1, 0.5, len(time)) for f in (220.0, 277.2)[:channels]]
    return Audio(np.stack(waves).astype(np.float32), sample_rate)


def assert_same(ours: Audio, theirs: torch.Tensor) -> None:
    """If the audio is equal, so are the codes: a random codec gives different codes different audio."""
    assert ours.waveform.shape == tuple(theirs.shape)
    np.testing.assert_allclose(ours.waveform, theirs.numpy(), atol=1e-5)


@pytest.mark.parametrize("text", ["slow piano", "", "fast techno with drums and bass 120 bpm"])
def test_greedy_decoding_equals_audiocrafts(engine: Engine, text: str, reference: Reference) -> None:
    ours = engine.generate(make_request(descriptions=[text], sampling=GREEDY))
    assert_same(ours.clips[0], reference(engine, duration=1.0).generate([text])[0])


@pytest.mark.parametrize("cfg_coef", [1.0, 2.0, 5.5])
def test_guidance_equals_audiocrafts(text_engine: Engine, cfg_coef: float, reference: Reference) -> None:
    ours = text_engine.generate(make_request(sampling=Sampling(temperature=0.0, cfg_coef=cfg_coef)))
    assert_same(ours.clips[0], reference(text_engine, duration=1.0, cfg_coef=cfg_coef).generate(["slow piano"])[0])


def test_guidance_changes_the_music(text_engine: Engine) -> None:
    strong, none = (text_engine.generate(make_request(sampling=Sampling(0.0, cfg_coef=c))).clips[0] for c in (5.5, 1.0))
    assert not np.allclose(strong.waveform, none.waveform)


def test_a_sliding_window_equals_audiocrafts(engine: Engine, reference: Reference) -> None:
    ours = engine.generate(make_request(duration=5.0, sampling=GREEDY))
    assert_same(ours.clips[0], reference(engine, duration=5.0).generate(["slow piano"])[0])


def test_the_texts_keys_and_values_are_computed_once_for_all_windows(text_engine: Engine) -> None:
    first, *others = text_engine.lm.layers
    assert first.cross is not None
    recording = RecordingLinear(first.cross.key_value)
    counted = replace(first, cross=replace(first.cross, key_value=recording))
    lm = replace(text_engine.lm, layers=(counted, *others))
    engine = replace(text_engine, lm=lm, backend=EagerBackend(lm))
    expected = text_engine.generate(make_request(duration=5.0)).clips[0]
    np.testing.assert_array_equal(engine.generate(make_request(duration=5.0)).clips[0].waveform, expected.waveform)
    assert len(recording.results) == 1


@pytest.mark.parametrize("duration", [0.6, 3.4])
def test_a_continuation_equals_audiocrafts(engine: Engine, duration: float, reference: Reference) -> None:
    prompt = make_chord(0.5, engine.sample_rate, engine.codec.channels)
    ours = engine.generate(make_request(duration=duration, prompt=prompt, sampling=GREEDY)).clips[0]
    theirs = reference(engine, duration=0.5 + duration).generate_continuation(
        torch.from_numpy(prompt.waveform), prompt.sample_rate, ["slow piano"]
    )[0]
    assert_same(ours, theirs)
    without = engine.generate(
        make_request(duration=duration, prompt=prompt, sampling=GREEDY, include_prompt=False)
    ).clips[0]
    assert without.num_samples == round(duration * engine.sample_rate)
    np.testing.assert_array_equal(without.waveform, ours.waveform[:, -without.num_samples :])


@pytest.mark.parametrize("duration", [1.0, 5.0])
@pytest.mark.parametrize("seconds", [0.7, 3.0])
def test_a_melody_is_followed_as_audiocraft_follows_it(
    engines: dict[str, Engine], duration: float, seconds: float, reference: Reference
) -> None:
    engine, melody = engines["melody"], make_chord(seconds)
    ours = engine.generate(make_request(duration=duration, melody=melody, sampling=GREEDY)).clips[0]
    theirs = reference(engine, duration=duration).generate_with_chroma(
        ["slow piano"], torch.from_numpy(melody.waveform)[None], melody.sample_rate
    )[0]
    assert_same(ours, theirs)


def test_two_melodies_give_two_clips(engines: dict[str, Engine]) -> None:
    low, high = make_chord(2.0), Audio(make_chord(2.0).waveform[:, ::3].copy(), 32_000)
    first, second = (engines["melody"].generate(make_request(melody=m, sampling=GREEDY)).clips[0] for m in (low, high))
    assert not np.allclose(first.waveform, second.waveform)


def test_a_melody_and_a_continuation_go_together(engines: dict[str, Engine]) -> None:
    made = engines["melody"].generate(make_request(melody=make_chord(2.0), prompt=make_chord(0.5))).clips[0]
    alone = engines["melody"].generate(make_request(prompt=make_chord(0.5))).clips[0]
    assert made.duration == alone.duration == 1.5
    assert not np.allclose(made.waveform, alone.waveform)


def test_the_same_seed_gives_the_same_samples_and_another_seed_others(engine: Engine) -> None:
    first, again, other = (engine.generate(make_request(seeds=[seed])).clips[0].waveform for seed in (5, 5, 6))
    assert first.tobytes() == again.tobytes()
    assert not np.allclose(first, other)


@pytest.mark.parametrize("max_batch", [1, 2, 8])
@pytest.mark.parametrize("duration", [0.6, 2.5])
def test_a_clip_does_not_depend_on_its_batch(engine: Engine, duration: float, max_batch: int) -> None:
    texts = ["slow piano", "fast techno with drums and bass 120 bpm", "slow piano", "", "slow bass"]
    seeds = [1, 2, 3, 4, 5]
    together = replace(engine, max_batch=max_batch)
    batch = together.generate(make_request(descriptions=texts, seeds=seeds, duration=duration)).clips
    for text, seed, clip in zip(texts, seeds, batch, strict=True):
        alone = engine.generate(make_request(descriptions=[text], seeds=[seed], duration=duration)).clips[0]
        np.testing.assert_array_equal(clip.waveform, alone.waveform)


@pytest.mark.parametrize("partial_after", [None, 90])
def test_a_codec_that_decodes_several_clips_at_once_gives_the_same_audio(
    engine: Engine, partial_after: int | None
) -> None:
    """As on a GPU. After a deadline the clips may differ in length."""
    several = make_request(
        descriptions=["slow piano", "fast drums", ""], seeds=[1, 2, 3], partial=partial_after is not None
    )

    def generate(codec_batch: int) -> tuple[Audio, ...]:
        steps = itertools.count()

        def pass_deadline(fraction: float) -> None:
            if next(steps) == partial_after:
                raise DeadlineError("late")

        return replace(engine, codec_batch=codec_batch).generate(several, progress=pass_deadline).clips

    alone = generate(1)
    for codec_batch in (2, 8):
        for one, other in zip(alone, generate(codec_batch), strict=True):
            np.testing.assert_allclose(other.waveform, one.waveform, atol=1e-5)
    assert len(alone) == (2 if partial_after else 3)
    assert partial_after is None or alone[0].num_samples > alone[1].num_samples > 0


def test_no_batch_has_more_clips_than_the_limit(text_engine: Engine) -> None:
    several = make_request(descriptions=["slow piano"] * 5, seeds=list(range(5)), duration=0.5)
    alone, in_twos, together = (replace(text_engine, max_batch=size).generate(several) for size in (1, 2, 8))
    assert (alone.steps, in_twos.steps) == (5 * together.steps, 3 * together.steps)
    assert len({clip.waveform.tobytes() for clip in together.clips}) == 5


def test_on_a_cpu_each_clip_is_decoded_alone(text_engine: Engine) -> None:
    assert text_engine.max_batch == 1


def test_the_global_random_generator_is_neither_read_nor_changed(text_engine: Engine) -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = text_engine.generate(make_request()).clips[0]
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(2)
    np.testing.assert_array_equal(first.waveform, text_engine.generate(make_request()).clips[0].waveform)


def test_a_negative_description_changes_the_music_and_one_equal_to_the_description_removes_guidance(
    text_engine: Engine,
) -> None:
    plain, negative, same_text, unguided = (
        text_engine.generate(make_request(sampling=sampling, negative=text)).clips[0].waveform
        for text, sampling in (
            ("", GREEDY),
            ("fast drums", GREEDY),
            ("slow piano", GREEDY),
            ("", Sampling(0.0, cfg_coef=1.0)),
        )
    )
    assert not np.allclose(plain, negative)
    np.testing.assert_array_equal(same_text, unguided)


def test_a_prompt_at_another_rate_and_channel_count_is_converted(engine: Engine) -> None:
    made = engine.generate(make_request(prompt=make_chord(0.5, 44_100, 2))).clips[0]
    assert abs(made.duration - 1.5) < 0.03 and made.channels == engine.codec.channels


CAPPED = """
import json, resource, sys
from pathlib import Path
import numpy as np
import torch
from audio import Audio
from models.checkpoints.locations import WeightLocations
from models.musicgen.inspect import inspect_checkpoint
from models.musicgen.load import load_engine
from models.musicgen.request import GenerationRequest

engine = load_engine(inspect_checkpoint(Path(sys.argv[1]), WeightLocations()), device="cpu", dtype=torch.float32)

def run(rate):
    tone = Audio(np.sin(2 * np.pi * 440 / rate * np.arange(rate // 2))[None].astype(np.float32), rate)
    request = GenerationRequest(["slow piano"], [1], 0.5, 1.2, melody=tone, prompt=tone)
    return engine.generate(request).clips[0].duration

run(32_000)
status = open("/proc/self/status").read()
used = int(next(line for line in status.splitlines() if line.startswith("VmSize")).split()[1]) * 1024
resource.setrlimit(resource.RLIMIT_AS, (used + (300 << 20), used + (300 << 20)))
print(json.dumps({rate: run(rate) for rate in json.loads(sys.argv[2])}))
"""


def test_a_prompt_and_a_melody_of_any_rate_take_little_memory(folders: dict[str, Path]) -> None:
    """With 300 MB of address space left. A filter for the exact ratio of 44,101 to 32,000 would take 11 GB."""
    rates = [8000, 11_025, 22_254, 44_056, 44_101, 191_999, 192_000]
    command = [sys.executable, "-c", CAPPED, str(folders["melody"]), json.dumps(rates)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert [abs(duration - 1.0) < 0.03 for duration in json.loads(done.stdout).values()] == [True] * len(rates)


@pytest.mark.parametrize("rate", [44_100, 48_000])
def test_a_prompt_of_another_rate_ends_with_a_whole_frame_if_it_does_for_audiocraft(
    text_engine: Engine, rate: int
) -> None:
    """audiocraft drops the fraction of a sample at the end. Rounded up, it would be a frame of its own, of silence."""
    whole = 30 * text_engine.codec.hop_length
    num_samples = next(n for n in range(rate * 10) if whole + 0.5 <= n * text_engine.sample_rate / rate < whole + 1)
    prompt = Audio(make_chord(1.5, rate).waveform[:, :num_samples], rate)
    made = text_engine.generate(make_request(prompt=prompt)).clips[0]
    assert made.num_samples == whole + text_engine.sample_rate


def test_clips_that_the_caller_takes_one_by_one_are_those_of_the_result(text_engine: Engine) -> None:
    request = make_request(descriptions=["slow piano", "fast drums"], seeds=[1, 2], duration=3.0)
    expected = text_engine.generate(request).clips
    taken: list[Audio] = []
    result = text_engine.generate(request, on_clip=taken.append)
    assert result.clips == () and result.complete and len(result.window_levels_db) == 2
    for ours, other in zip(taken, expected, strict=True):
        np.testing.assert_array_equal(ours.waveform, other.waveform)


@pytest.mark.parametrize("duration", [0.5, 0.777, 2.0, 3.33])
def test_a_clip_has_the_requested_length(engine: Engine, duration: float) -> None:
    made = engine.generate(make_request(duration=duration)).clips[0]
    assert made.num_samples == round(duration * engine.sample_rate)
    assert made.channels == engine.codec.channels and made.sample_rate == engine.sample_rate


def test_progress_rises_to_its_end_over_windows_and_batches(text_engine: Engine) -> None:
    reported: list[float] = []
    made = text_engine.generate(
        make_request(descriptions=["slow piano", "fast bass and drums"], seeds=[1, 2], duration=4.0),
        progress=reported.append,
    )
    assert reported == sorted(reported) and reported[0] == 0 and 0.85 < reported[-1] <= 1
    assert len(reported) >= made.steps > 4 * 50  # one pass for texts of both lengths
    assert made.steps_per_s > 0 and set(made.timings) == {"condition_s", "decode_s", "codec_s"}


@pytest.mark.parametrize("after", [0, 1, 30, 130])
def test_an_exception_in_progress_ends_the_work_and_leaves_no_trace(engine: Engine, after: int) -> None:
    clean = engine.generate(make_request(duration=3.0)).clips[0]
    calls: list[float] = []

    def stop(fraction: float) -> None:
        calls.append(fraction)
        if len(calls) > after:
            raise CancelledError("stop")

    with pytest.raises(CancelledError):
        engine.generate(make_request(duration=3.0, seeds=[9]), progress=stop)
    assert len(calls) == after + 1
    np.testing.assert_array_equal(engine.generate(make_request(duration=3.0)).clips[0].waveform, clean.waveform)


def test_a_long_clip_is_decoded_in_chunks_without_a_seam(text_engine: Engine) -> None:
    whole = text_engine.generate(make_request(duration=8.0)).clips[0].waveform
    codec = Codec(text_engine.codec._network, codebooks=text_engine.codec.codebooks, chunk_s=1.0)
    chunked = replace(text_engine, codec=codec).generate(make_request(duration=8.0)).clips[0].waveform
    assert np.abs(whole - chunked).max() < 1e-4 * np.abs(whole).max()


def test_memory_counts_every_weight(text_engine: Engine, folders: dict[str, Path]) -> None:
    _, state = read_weights(folders["text"] / "state_dict.bin")
    lm = sum(tensor.numel() * 4 for tensor in state.values())
    t5 = (folders["text"] / "t5" / "model.safetensors").stat().st_size
    codec = (folders["text"] / "compression_state_dict.bin").stat().st_size
    assert lm + t5 < text_engine.memory_bytes < lm + t5 + 2 * codec


def test_after_warming_up_a_request_for_one_clip_captures_nothing(text_engine: Engine) -> None:
    eager, recorder = replace(text_engine, window=6.0), EagerRecorder()
    engine = replace(eager, backend=CudaGraphBackend(eager.lm, recorder, window_frames=300))
    engine.warm_up()
    assert recorder.captures == 2  # of 256 columns, and of all
    for request in (make_request(duration=0.5), make_request(duration=6.0)):
        expected = eager.generate(request).clips[0]
        np.testing.assert_array_equal(engine.generate(request).clips[0].waveform, expected.waveform)
    assert recorder.captures == 2


def test_warming_up_without_graphs_takes_a_few_steps_and_changes_no_later_request(text_engine: Engine) -> None:
    counted: list[Window] = []

    class Counting(EagerBackend):
        def start(self, window: Window) -> Decoding:
            counted.append(window)
            return super().start(window)

    engine = replace(text_engine, backend=Counting(text_engine.lm))
    engine.warm_up()
    assert [window.length for window in counted] == [5]
    expected = text_engine.generate(make_request()).clips[0]
    np.testing.assert_array_equal(engine.generate(make_request()).clips[0].waveform, expected.waveform)


def test_the_stereo_models_of_the_catalog_have_two_channels() -> None:
    assert {entry.channels for name, entry in BY_NAME.items() if name.startswith("stereo")} == {2}


def test_old_exports_with_omegaconf_settings_load(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "old", pickled_settings=True)
    engine = float32_engine(folder)
    assert engine.generate(make_request(duration=0.5)).clips[0].duration == 0.5


def test_a_loaded_engine_does_not_depend_on_its_files(tmp_path: Path) -> None:
    """They are memory-mapped while they are read. What is written over them later must not change the engine."""
    folder = write_checkpoint(tmp_path / "model")
    package = torch.load(folder / LM_FILE, weights_only=True)
    package["best_state"] = {name: tensor.float() for name, tensor in package["best_state"].items()}
    torch.save(package, folder / LM_FILE)
    engine = load_engine(inspect_checkpoint(folder, WeightLocations()), device="cpu", dtype=torch.float32)
    request = GenerationRequest(["slow piano"], [1], 0.5, 1.2)
    before = engine.generate(request).clips[0]
    for path in (folder / LM_FILE, folder / CODEC_FILE, folder / "t5" / SAFETENSORS_FILE):
        with path.open("r+b") as file:
            file.write(bytes(path.stat().st_size))
    np.testing.assert_array_equal(engine.generate(request).clips[0].waveform, before.waveform)


@settings(deadline=None)
@given(
    size=st.integers(2, 1500),
    stride=st.integers(1, 1499),
    prompt=st.integers(0, 1499),
    new=st.integers(1, 30_000),
)
def test_windows_generate_every_frame_once_and_are_no_longer_than_the_models(
    size: int, stride: int, prompt: int, new: int
) -> None:
    stride, prompt = min(stride, size - 1), min(prompt, size - 1)
    windows = plan_sliding_windows(prompt=prompt, total=prompt + new, window=size, stride=stride)
    assert windows[0].known == prompt and windows[-1].end == prompt + new
    for window in windows:
        assert 0 <= window.start <= window.known < window.end <= window.start + size
    for before, after in zip(windows, windows[1:], strict=False):
        assert after.known == before.end and before.start < after.start < after.known


def test_ten_minutes_are_one_window_and_then_one_for_each_stride() -> None:
    windows = plan_sliding_windows(prompt=0, total=30_000, window=1500, stride=900)
    assert len(windows) == 1 + -(-(30_000 - 1500) // 900)
    assert all(window.known - window.start == 600 for window in windows[1:])


def make_noise(levels_db: list[float], seconds: float = 2.0) -> Audio:
    generator = np.random.default_rng(0)
    parts = [generator.standard_normal(int(seconds * WINDOW_RATE)) * 10 ** (level / 20) for level in levels_db]
    return Audio(np.concatenate(parts)[None].astype(np.float32), WINDOW_RATE)


def test_a_clip_that_fades_over_its_windows_is_kept_near_its_first_level() -> None:
    clip = make_noise([-20.0, -24.0, -28.0, -32.0])
    levelled, levels = level_windows(clip, [0.0, 2.0, 4.0, 6.0])
    assert levels == pytest.approx([-20, -24, -28, -32], abs=0.3)
    middles = [
        measure_loudness_db(levelled.waveform[:, int(t * WINDOW_RATE) : int((t + 0.2) * WINDOW_RATE)])
        for t in (0.9, 2.9, 4.9, 6.9)
    ]
    assert max(middles) - min(middles) < MAX_DRIFT_DB + 0.5
    assert levelled.num_samples == clip.num_samples


def test_dynamics_within_the_limit_and_silence_are_not_changed() -> None:
    for clip in (make_noise([-20.0, -22.0, -18.5]), make_noise([-20.0, -200.0, -20.0])):
        levelled, _ = level_windows(clip, [0.0, 2.0, 4.0])
        np.testing.assert_array_equal(levelled.waveform, clip.waveform)
