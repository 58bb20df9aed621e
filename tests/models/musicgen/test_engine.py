"""The engine on tiny random checkpoints of the real format, held against audiocraft on the same weights."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from audio import Audio
from errors import CancelledError, DeadlineError
from models.checkpoints.locations import WeightLocations
from models.musicgen.catalog import BY_NAME
from models.musicgen.decode import StepByStep
from models.musicgen.describe import describe
from models.musicgen.engine import Engine
from models.musicgen.load import load_engine, read_package
from models.musicgen.request import GenerationRequest, Sampling
from testing.audiocraft_reference import audiocraft_musicgen
from testing.musicgen_steps import Heard
from testing.tiny_musicgen import Shape, write_checkpoint

Reference = Callable[..., Any]
pytestmark = pytest.mark.usefixtures("one_thread")

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
    """audiocraft's own MusicGen with the weights of an engine, greedy."""
    oracles = {id(engines[name]): audiocraft_musicgen(folder) for name, folder in folders.items()}

    def configured(engine: Engine, **params: Any) -> Any:
        oracles[id(engine)].set_generation_params(use_sampling=False, **({"extend_stride": 1.2} | params))
        return oracles[id(engine)]

    return configured


@pytest.fixture(params=SHAPES)
def engine(request: pytest.FixtureRequest, engines: dict[str, Engine]) -> Engine:
    return engines[request.param]


@pytest.fixture
def text_engine(engines: dict[str, Engine]) -> Engine:
    return engines["text"]


def float32_engine(folder: Path) -> Engine:
    return load_engine(describe(folder, WeightLocations()), device="cpu", dtype=torch.float32)


def order(**fields: Any) -> GenerationRequest:
    plain: dict[str, Any] = {"texts": ["slow piano"], "seeds": [3], "duration": 1.0, "stride": 1.2}
    return GenerationRequest(**(plain | fields))


def chord(seconds: float, sample_rate: int = 32_000, channels: int = 1) -> Audio:
    time = np.arange(int(seconds * sample_rate)) / sample_rate
    waves = [np.sin(2 * np.pi * f * time) * np.linspace(0.1, 0.5, len(time)) for f in (220.0, 277.2)[:channels]]
    return Audio(np.stack(waves).astype(np.float32), sample_rate)


def same(ours: Audio, theirs: torch.Tensor) -> None:
    """Codes are equal if the codec's output is: it decodes them alike, and random codecs tell codes apart."""
    assert ours.waveform.shape == tuple(theirs.shape)
    np.testing.assert_allclose(ours.waveform, theirs.numpy(), atol=1e-5)


@pytest.mark.parametrize("text", ["slow piano", "", "fast techno with drums and bass 120 bpm"])
def test_greedy_decoding_equals_audiocrafts(engine: Engine, text: str, reference: Reference) -> None:
    ours = engine.generate(order(texts=[text], sampling=GREEDY))
    same(ours.items[0], reference(engine, duration=1.0).generate([text])[0])


@pytest.mark.parametrize("cfg_coef", [1.0, 2.0, 5.5])
def test_guidance_equals_audiocrafts(text_engine: Engine, cfg_coef: float, reference: Reference) -> None:
    ours = text_engine.generate(order(sampling=Sampling(temperature=0.0, cfg_coef=cfg_coef)))
    same(ours.items[0], reference(text_engine, duration=1.0, cfg_coef=cfg_coef).generate(["slow piano"])[0])


def test_guidance_changes_the_music(text_engine: Engine) -> None:
    strong, none = (text_engine.generate(order(sampling=Sampling(0.0, cfg_coef=c))).items[0] for c in (5.5, 1.0))
    assert not np.allclose(strong.waveform, none.waveform)


def test_a_sliding_window_equals_audiocrafts(engine: Engine, reference: Reference) -> None:
    ours = engine.generate(order(duration=5.0, sampling=GREEDY))
    same(ours.items[0], reference(engine, duration=5.0).generate(["slow piano"])[0])


def test_the_texts_keys_and_values_are_computed_once_for_all_windows(text_engine: Engine) -> None:
    first, *others = text_engine.lm.layers
    assert first.cross is not None
    heard = Heard(first.cross.key_value)
    counted = replace(first, cross=replace(first.cross, key_value=heard))
    lm = replace(text_engine.lm, layers=(counted, *others))
    engine = replace(text_engine, lm=lm, runner=StepByStep(lm))
    wanted = text_engine.generate(order(duration=5.0)).items[0]
    np.testing.assert_array_equal(engine.generate(order(duration=5.0)).items[0].waveform, wanted.waveform)
    assert len(heard.given) == 1


@pytest.mark.parametrize("duration", [0.6, 3.4])
def test_a_continuation_equals_audiocrafts(engine: Engine, duration: float, reference: Reference) -> None:
    prompt = chord(0.5, engine.sample_rate, engine.codec.channels)
    ours = engine.generate(order(duration=duration, prompt=prompt, sampling=GREEDY)).items[0]
    theirs = reference(engine, duration=0.5 + duration).generate_continuation(
        torch.from_numpy(prompt.waveform), prompt.sample_rate, ["slow piano"]
    )[0]
    same(ours, theirs)
    without = engine.generate(order(duration=duration, prompt=prompt, sampling=GREEDY, include_prompt=False)).items[0]
    assert without.num_samples == round(duration * engine.sample_rate)
    np.testing.assert_array_equal(without.waveform, ours.waveform[:, -without.num_samples :])


@pytest.mark.parametrize("duration", [1.0, 5.0])
@pytest.mark.parametrize("seconds", [0.7, 3.0])
def test_a_melody_is_followed_as_audiocraft_follows_it(
    engines: dict[str, Engine], duration: float, seconds: float, reference: Reference
) -> None:
    engine, melody = engines["melody"], chord(seconds)
    ours = engine.generate(order(duration=duration, melody=melody, sampling=GREEDY)).items[0]
    theirs = reference(engine, duration=duration).generate_with_chroma(
        ["slow piano"], torch.from_numpy(melody.waveform)[None], melody.sample_rate
    )[0]
    same(ours, theirs)


def test_two_melodies_make_two_pieces(engines: dict[str, Engine]) -> None:
    low, high = chord(2.0), Audio(chord(2.0).waveform[:, ::3].copy(), 32_000)
    first, second = (engines["melody"].generate(order(melody=m, sampling=GREEDY)).items[0] for m in (low, high))
    assert not np.allclose(first.waveform, second.waveform)


def test_a_melody_and_a_continuation_go_together(engines: dict[str, Engine]) -> None:
    made = engines["melody"].generate(order(melody=chord(2.0), prompt=chord(0.5))).items[0]
    alone = engines["melody"].generate(order(prompt=chord(0.5))).items[0]
    assert made.duration == alone.duration == 1.5
    assert not np.allclose(made.waveform, alone.waveform)


def test_the_same_seed_gives_the_same_samples_and_another_seed_others(engine: Engine) -> None:
    first, again, other = (engine.generate(order(seeds=[seed])).items[0].waveform for seed in (5, 5, 6))
    assert first.tobytes() == again.tobytes()
    assert not np.allclose(first, other)


@pytest.mark.parametrize("max_batch", [1, 2, 8])
@pytest.mark.parametrize("duration", [0.6, 2.5])
def test_an_item_of_a_batch_is_what_it_is_alone(engine: Engine, duration: float, max_batch: int) -> None:
    texts = ["slow piano", "fast techno with drums and bass 120 bpm", "slow piano", "", "slow bass"]
    seeds = [1, 2, 3, 4, 5]
    together = replace(engine, max_batch=max_batch)
    batch = together.generate(order(texts=texts, seeds=seeds, duration=duration)).items
    for text, seed, item in zip(texts, seeds, batch, strict=True):
        alone = engine.generate(order(texts=[text], seeds=[seed], duration=duration)).items[0]
        np.testing.assert_array_equal(item.waveform, alone.waveform)


@pytest.mark.parametrize("partial_after", [None, 90])
def test_a_codec_that_decodes_several_items_at_once_makes_the_same_sounds(
    engine: Engine, partial_after: int | None
) -> None:
    """As on a GPU; at a deadline the items that it is given may differ in length."""
    several = order(texts=["slow piano", "fast drums", ""], seeds=[1, 2, 3], partial=partial_after is not None)

    def made(codec_batch: int) -> tuple[Audio, ...]:
        steps = itertools.count()

        def late(fraction: float) -> None:
            if next(steps) == partial_after:
                raise DeadlineError("late")

        return replace(engine, codec_batch=codec_batch).generate(several, progress=late).items

    alone = made(1)
    for codec_batch in (2, 8):
        for one, other in zip(alone, made(codec_batch), strict=True):
            np.testing.assert_allclose(other.waveform, one.waveform, atol=1e-5)
    assert len(alone) == (2 if partial_after else 3)
    assert partial_after is None or alone[0].num_samples > alone[1].num_samples > 0


def test_items_are_decoded_in_batches_of_the_limit(text_engine: Engine) -> None:
    several = order(texts=["slow piano"] * 5, seeds=list(range(5)), duration=0.5)
    alone, in_twos, together = (replace(text_engine, max_batch=size).generate(several) for size in (1, 2, 8))
    assert (alone.steps, in_twos.steps) == (5 * together.steps, 3 * together.steps)
    assert len({item.waveform.tobytes() for item in together.items}) == 5


def test_on_a_cpu_each_item_is_decoded_alone(text_engine: Engine) -> None:
    assert text_engine.max_batch == 1


def test_the_global_generator_is_neither_read_nor_moved(text_engine: Engine) -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = text_engine.generate(order()).items[0]
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(2)
    np.testing.assert_array_equal(first.waveform, text_engine.generate(order()).items[0].waveform)


def test_a_negative_prompt_changes_the_music_and_one_equal_to_the_prompt_removes_guidance(text_engine: Engine) -> None:
    plain, negative, same_text, unguided = (
        text_engine.generate(order(sampling=sampling, negative=text)).items[0].waveform
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
    made = engine.generate(order(prompt=chord(0.5, 44_100, 2))).items[0]
    assert abs(made.duration - 1.5) < 0.03 and made.channels == engine.codec.channels


@pytest.mark.parametrize("duration", [0.5, 0.777, 2.0, 3.33])
def test_the_result_is_as_long_as_asked(engine: Engine, duration: float) -> None:
    made = engine.generate(order(duration=duration)).items[0]
    assert made.num_samples == round(duration * engine.sample_rate)
    assert made.channels == engine.codec.channels and made.sample_rate == engine.sample_rate


def test_progress_rises_to_its_end_over_windows_and_batches(text_engine: Engine) -> None:
    told: list[float] = []
    made = text_engine.generate(
        order(texts=["slow piano", "fast bass and drums"], seeds=[1, 2], duration=4.0), progress=told.append
    )
    assert told == sorted(told) and told[0] == 0 and 0.85 < told[-1] <= 1
    assert len(told) >= made.steps > 4 * 50  # one pass for texts of both lengths
    assert made.steps_per_s > 0 and set(made.timings) == {"condition_s", "decode_s", "codec_s"}


@pytest.mark.parametrize("after", [0, 1, 30, 130])
def test_what_progress_raises_ends_the_work_and_the_next_job_runs_clean(engine: Engine, after: int) -> None:
    clean = engine.generate(order(duration=3.0)).items[0]
    calls: list[float] = []

    def stop(fraction: float) -> None:
        calls.append(fraction)
        if len(calls) > after:
            raise CancelledError("stop")

    with pytest.raises(CancelledError):
        engine.generate(order(duration=3.0, seeds=[9]), progress=stop)
    assert len(calls) == after + 1
    np.testing.assert_array_equal(engine.generate(order(duration=3.0)).items[0].waveform, clean.waveform)


def test_a_long_piece_is_decoded_in_chunks_that_fit_together(
    text_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = text_engine.generate(order(duration=8.0)).items[0].waveform
    monkeypatch.setattr("models.encodec.codec.CHUNK_S", 1.0)
    chunked = text_engine.generate(order(duration=8.0)).items[0].waveform
    assert np.abs(whole - chunked).max() < 1e-4 * np.abs(whole).max()


def test_memory_counts_every_weight(text_engine: Engine, folders: dict[str, Path]) -> None:
    package = read_package(folders["text"] / "state_dict.bin")
    lm = sum(tensor.numel() * 4 for tensor in package["best_state"].values())
    t5 = (folders["text"] / "t5" / "model.safetensors").stat().st_size
    codec = (folders["text"] / "compression_state_dict.bin").stat().st_size
    assert lm + t5 < text_engine.memory_bytes < lm + t5 + 2 * codec


def test_the_catalogs_stereo_models_have_two_channels() -> None:
    assert {entry.channels for name, entry in BY_NAME.items() if name.startswith("stereo")} == {2}


def test_old_exports_with_omegaconf_settings_load(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "old", pickled_settings=True)
    engine = float32_engine(folder)
    assert engine.generate(order(duration=0.5)).items[0].duration == 0.5
