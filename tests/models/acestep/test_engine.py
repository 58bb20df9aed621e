"""Requests to the engine: lengths, seeds, batches, guidance, edits, progress, and what damaged weights give."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch

from audio import Audio
from audio.dsp.resample import resample
from errors import AudioError, CancelledError, ErrorCode, ModelError
from models.acestep.edit import plan_window
from models.acestep.engine import AceStepEngine
from models.acestep.metas import Metas
from models.acestep.network import Components
from models.acestep.request import DiffusionSampling, Repainting, Song, SongRequest, Task
from models.acestep.steps import Conditions, CudaGraphBackend, EagerBackend, Predict
from testing.graph_recorder import EagerRecorder
from testing.quick_codec import QuickCodec
from testing.signals import make_noise, make_tone
from testing.tiny_acestep import build_tiny_components

RATE = 48_000
TURBO = DiffusionSampling(num_steps=4, cfg_coef=1.0, shift=3.0)
BASE = DiffusionSampling(num_steps=6, cfg_coef=5.0, shift=1.0)
TASKS: tuple[Task, ...] = ("cover", "repaint", "lego", "extract", "complete")


@dataclass
class Loaded:
    """An engine with a codec without networks, which stores what it was given."""

    components: Components
    engine: AceStepEngine
    codec: QuickCodec

    def sample(self, request: SongRequest) -> list[torch.Tensor]:
        """The latents of the request's clips."""
        self.codec.decoded.clear()
        self.engine.generate(request)
        return list(self.codec.decoded)


def load(**options: Any) -> Loaded:
    components = build_tiny_components(seed=6)
    codec = QuickCodec(components.vae)
    return Loaded(components, AceStepEngine(components, codec=codec, **options), codec)


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    return load()


def make_source(seconds: float = 6.0, *, rate: int = RATE, channels: int = 2, seed: int = 1) -> Audio:
    return Audio(make_noise(channels, round(seconds * rate), seed=seed, level=0.1), rate)


def make_song(seed: int = 1, **fields: Any) -> Song:
    return Song(**{"caption": "bright pop", "lyrics": "[Verse]\nla la la", "seed": seed, **fields})


def ask(*songs: Song, task: Task = "text2music", duration: float = 6.0, **fields: Any) -> SongRequest:
    tracks = ("vocals",) if task in ("lego", "extract", "complete") else ()
    source = None if task == "text2music" else make_source()
    window = Repainting(start=2.0, end=4.0) if task == "repaint" else None
    defaults = {"sampling": TURBO, "tracks": tracks, "source": source, "repainting": window}
    return SongRequest(songs=songs or [make_song()], duration=duration, task=task, **{**defaults, **fields})


# Lengths


@pytest.mark.parametrize("duration", [0.5, 5.12, 7.03, 10.0, 10.013])
def test_music_is_as_long_as_asked_for_to_the_sample(loaded: Loaded, duration: float) -> None:
    (clip,) = loaded.engine.generate(ask(duration=duration)).clips
    assert (clip.sample_rate, clip.channels, clip.num_samples) == (RATE, 2, round(duration * RATE))
    frames = loaded.codec.decoded[-1].shape[1]
    assert frames == max(math.ceil(duration * 25), 128)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(("seconds", "rate", "channels"), [(3.01, 8_000, 1), (6.0, 44_100, 2), (7.7, 96_000, 2)])
def test_an_edit_is_as_long_as_its_source(loaded: Loaded, task: Task, seconds: float, rate: int, channels: int) -> None:
    source = make_source(seconds, rate=rate, channels=channels)
    window = Repainting(start=1.0, end=2.5) if task == "repaint" else None
    (clip,) = loaded.engine.generate(ask(task=task, source=source, repainting=window)).clips
    if task == "repaint":  # it keeps samples of the source
        assert (clip.sample_rate, clip.channels, clip.num_samples) == (rate, channels, source.num_samples)
    else:
        expected = resample(source, RATE).num_samples
        assert (clip.sample_rate, clip.channels, clip.num_samples) == (RATE, 2, expected)
    assert np.isfinite(clip.waveform).all() and clip.peak > 0


def test_a_repaint_without_a_window_generates_all_of_the_source(loaded: Loaded) -> None:
    (clip,) = loaded.engine.generate(ask(task="repaint", repainting=None)).clips
    assert clip.num_samples == 6 * RATE
    assert np.equal(clip.waveform, make_source().waveform).mean() < 0.01


# Seeds and batches


def test_the_same_request_gives_the_same_bytes_and_another_seed_others(loaded: Loaded) -> None:
    first, again, other = (loaded.sample(ask(make_song(seed)))[0] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("task", ["text2music", *TASKS])
@pytest.mark.parametrize("method", ["ode", "sde"])
def test_a_clip_of_a_batch_with_unequal_texts_is_that_of_a_single_request(
    loaded: Loaded, task: Task, method: Any
) -> None:
    songs = [
        make_song(1, lyrics="[Verse]\n" + "many more words than the others have\n" * 5),
        make_song(2, caption="x", lyrics="a"),
        make_song(3, metas=Metas(bpm=90, key="C major"), language="fr"),
        make_song(4, caption="x", lyrics="a"),
    ]
    fields: dict[str, Any] = {"task": task, "sampling": replace(TURBO, method=method), "cover_strength": 0.5}
    batch = loaded.sample(ask(*songs, **fields))
    for song, latents in zip(songs, batch, strict=True):
        assert torch.equal(latents, loaded.sample(ask(song, **fields))[0])


def test_covers_of_one_source_with_one_seed_are_equal(loaded: Loaded) -> None:
    first, again = (loaded.sample(ask(task="cover"))[0] for _ in range(2))
    assert torch.equal(first, again)


def test_the_sde_draws_from_the_seed(loaded: Loaded) -> None:
    sde = replace(TURBO, method="sde")
    first, again, other = (loaded.sample(ask(make_song(seed), sampling=sde))[0] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, loaded.sample(ask(make_song(1)))[0])


def test_songs_with_the_same_text_have_it_encoded_once() -> None:
    loaded = load()
    calls = dict.fromkeys(("text_encoder", "lyrics", "timbre"), 0)

    def count(name: str) -> Callable[..., None]:
        def hook(*_: object) -> None:
            calls[name] += 1

        return hook

    encoder: Any = loaded.components.condition_encoder
    loaded.components.text_encoder.register_forward_pre_hook(count("text_encoder"))
    encoder.lyric_encoder.register_forward_pre_hook(count("lyrics"))
    encoder.timbre_encoder.register_forward_pre_hook(count("timbre"))
    loaded.engine.generate(ask(make_song(1), make_song(2), make_song(3)))
    assert calls == {"text_encoder": 1, "lyrics": 1, "timbre": 1}
    loaded.engine.generate(ask(make_song(1), make_song(2, caption="other"), task="cover", cover_strength=0.5))
    # The later steps have another instruction; the timbre of silence, for songs without a reference, stays.
    assert calls == {"text_encoder": 1 + 4, "lyrics": 2, "timbre": 1}
    for request in (1, 2):
        loaded.engine.generate(ask(make_song(1), make_song(2), reference=make_tone(1.0)))
        assert calls["timbre"] == 1 + request


def test_every_part_of_a_song_changes_the_music(loaded: Loaded) -> None:
    plain = loaded.sample(ask())[0]
    for fields in ({"caption": "metal"}, {"lyrics": "no"}, {"language": "de"}, {"metas": Metas(bpm=70)}):
        assert not torch.equal(plain, loaded.sample(ask(make_song(**fields)))[0]), fields
    assert not torch.equal(plain, loaded.sample(ask(reference=make_source(31.0, seed=7)))[0])


# Guidance


class CountingBackend(EagerBackend):
    """Counts the rows that the transformer computes."""

    rows: list[int]

    def start(self, conditions: Conditions, *, guided: bool) -> Predict:
        predict = super().start(conditions, guided=guided)

        def count(latents: torch.Tensor, timestep: float) -> torch.Tensor:
            velocities = predict(latents, timestep)
            self.rows = [*getattr(self, "rows", []), len(velocities)]
            return velocities

        return count


def test_outside_the_guidance_interval_the_unconditional_branch_does_not_run() -> None:
    loaded = load(backend=CountingBackend)
    backend = loaded.engine.backend
    assert isinstance(backend, CountingBackend)
    loaded.engine.generate(ask(sampling=replace(BASE, cfg_interval=(0.4, 0.9))))
    assert backend.rows == [1, 2, 2, 2, 1, 1]  # t = 1, 0.83, 0.67, 0.5, 0.33, 0.17
    backend.rows.clear()
    loaded.engine.generate(ask(sampling=TURBO))
    assert backend.rows == [1] * 4


@pytest.mark.parametrize("use_adg", [False, True])
def test_guidance_changes_the_music(loaded: Loaded, use_adg: bool) -> None:
    guided = replace(BASE, use_adg=use_adg)
    plain = loaded.sample(ask(sampling=replace(BASE, cfg_coef=1.0)))[0]
    assert not torch.equal(loaded.sample(ask(sampling=guided))[0], plain)
    assert torch.equal(loaded.sample(ask(sampling=replace(guided, cfg_interval=(0.0, 0.1))))[0], plain)


def test_captured_steps_give_the_same_music_but_for_rounding(loaded: Loaded) -> None:
    captured = load(backend=lambda transformer: CudaGraphBackend(transformer, EagerRecorder()))
    for request in (ask(sampling=replace(BASE, cfg_interval=(0.4, 0.9))), ask(task="cover", cover_strength=0.5)):
        (eager,), (first,), (again,) = loaded.sample(request), captured.sample(request), captured.sample(request)
        assert torch.equal(first, again)
        difference = float((first - eager).abs().max() / eager.abs().max())
        print(f"captured steps, {request.task}: relative difference to eager ones {difference:.2g}")
        assert difference < 1e-4
    assert captured.engine.memory_bytes > captured.components.memory_bytes
    captured.engine.backend.free_memory()
    assert captured.engine.memory_bytes == captured.components.memory_bytes


# Codes and covers


def test_codes_change_the_music_and_are_padded_with_silence(loaded: Loaded) -> None:
    codes = tuple(range(0, 40_000, 1_000))  # 40 of them: eight seconds
    whole = loaded.engine.generate(ask(make_song(codes=codes), duration=8.0))
    assert whole.warnings == ()
    short = loaded.engine.generate(ask(make_song(codes=codes), duration=20.0))
    assert short.clips[0].num_samples == 20 * RATE
    assert short.warnings == (
        "The audio codes are for 8 s and the music lasts 20 s: what follows is made from silence.",
    )
    cut = loaded.engine.generate(ask(make_song(codes=codes), duration=6.0))
    assert cut.clips[0].num_samples == 6 * RATE
    assert cut.warnings == ("The audio codes are for 8 s and the music lasts 6 s: the rest of them is not used.",)
    plain, coded, other = (loaded.sample(ask(make_song(codes=codes)))[0] for codes in (None, codes[:30], codes[1:31]))
    assert not torch.equal(plain, coded)
    assert not torch.equal(coded, other)


def test_a_tenth_of_a_second_without_codes_is_not_worth_a_warning(loaded: Loaded) -> None:
    assert loaded.engine.generate(ask(make_song(codes=(5,) * 51), duration=10.3)).warnings == ()


def test_without_any_strength_a_cover_is_music_from_the_same_text(loaded: Loaded) -> None:
    text = loaded.sample(ask())[0]
    assert torch.equal(loaded.sample(ask(task="cover", cover_strength=0.0))[0], text)
    assert torch.equal(loaded.sample(ask(make_song(codes=(7,) * 30), cover_strength=0.0))[0], text)
    full, half = (loaded.sample(ask(task="cover", cover_strength=strength))[0] for strength in (1.0, 0.5))
    assert not torch.equal(full, half) and not torch.equal(half, text)


@pytest.mark.parametrize("task", TASKS)
def test_codes_of_a_song_change_nothing_in_an_edit(loaded: Loaded, task: Task) -> None:
    plain, coded = (loaded.sample(ask(make_song(codes=codes), task=task))[0] for codes in (None, (7,) * 30))
    assert torch.equal(plain, coded)


def test_covers_follow_their_source(loaded: Loaded) -> None:
    first, other = (loaded.sample(ask(task="cover", source=make_source(seed=seed)))[0] for seed in (1, 2))
    assert not torch.equal(first, other)


def test_codes_of_a_recording_are_five_a_second(loaded: Loaded) -> None:
    codes = loaded.engine.encode_codes(make_source(6.1, rate=44_100, channels=1))
    assert len(codes) == 31 and all(0 <= code < 64_000 for code in codes)
    latents = loaded.codec.encode(torch.from_numpy(make_source(6.0).waveform))
    assert loaded.engine.encode_codes(make_source(6.0)) == loaded.engine.audio_tokenizer.tokenize(latents)


def test_a_model_without_an_audio_tokenizer_makes_music_and_refuses_covers_and_codes() -> None:
    components = replace(build_tiny_components(seed=6), audio_tokenizer=None, audio_token_detokenizer=None)
    engine = AceStepEngine(components, codec=QuickCodec(components.vae))
    assert len(engine.generate(ask()).clips) == 1
    assert len(engine.generate(ask(task="repaint")).clips) == 1
    for request in (ask(task="cover"), ask(make_song(codes=(1, 2)))):
        with pytest.raises(ModelError, match="no audio tokenizer") as caught:
            engine.generate(request)
        assert caught.value.error_code == ErrorCode.MODEL_UNSUPPORTED
    with pytest.raises(ModelError, match="no audio tokenizer"):
        engine.encode_codes(make_source())


# Windows


@pytest.mark.parametrize(
    ("window", "rate", "channels"),
    [
        ((2.0, 4.0), 44_100, 2),
        ((-1.5, 2.0), 8_000, 1),
        ((5.0, 8.25), 96_000, 2),
        ((6.0, 9.0), 48_000, 2),
        ((-4.0, 0.0), 22_050, 1),
    ],
)
@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_a_repaint_keeps_the_callers_samples(
    loaded: Loaded, window: tuple[float, float], rate: int, channels: int, strength: float
) -> None:
    start, end = window
    source = make_source(rate=rate, channels=channels)
    repainting = Repainting(start=start, end=end, strength=strength)
    (clip,) = loaded.engine.generate(ask(task="repaint", source=source, repainting=repainting)).clips
    left, fade = round(max(-start, 0) * rate), round(0.05 * rate)
    right = round(max(end - 6.0, 0) * rate)
    assert clip.num_samples == left + source.num_samples + right
    kept = np.ones(source.num_samples, bool)
    begin, stop = max(round(start * rate), 0), max(round(end * rate), 0)
    kept[max(begin - fade * (start >= 6.0), 0) : stop + fade * (end <= 0.0)] = False
    own = clip.waveform[:, left : left + source.num_samples]
    assert np.array_equal(own[:, kept], source.waveform[:, kept])
    assert not np.array_equal(clip.waveform, np.pad(source.waveform, ((0, 0), (left, right))))


def test_more_strength_lets_the_music_outside_the_window_depart_from_the_source(loaded: Loaded) -> None:
    """Beyond the fade of the latents, which is over 25 frames at strength 0 and over 12 at 0.5."""
    source = loaded.codec.encode(torch.from_numpy(make_source().waveform))

    def measure(strength: float) -> float:
        repainting = Repainting(start=3.0, end=4.0, strength=strength)
        first, _ = plan_window(6.0, repainting).find_decoded_frames(150)
        latents = loaded.sample(ask(task="repaint", repainting=repainting))[0]
        return float((latents[:, : 75 - 25 - first] - source[:, first : 75 - 25]).abs().max())

    assert measure(0.0) == measure(0.5) == 0.0
    assert measure(1.0) > 0.1


def test_what_is_repainted_is_not_decoded_as_a_whole_song(loaded: Loaded) -> None:
    source = make_source(60.0, rate=8_000, channels=1)
    (latents,) = loaded.sample(ask(task="repaint", source=source, repainting=Repainting(start=30.0, end=32.0)))
    assert latents.shape[1] == 50 + 2 * 33


# Progress


@pytest.mark.parametrize("task", ["text2music", "cover", "repaint"])
def test_progress_rises_to_1_and_is_reported_at_every_step_and_tile(loaded: Loaded, task: Task) -> None:
    seen: list[float] = []
    songs = make_song(1), make_song(2)
    result = loaded.engine.generate(ask(*songs, task=task, reference=make_source(31.0)), progress=seen.append)
    assert seen == sorted(seen) and seen[0] == 0.0 and seen[-1] == pytest.approx(1.0)
    assert result.steps == 8
    recordings = 1 if task == "text2music" else 2
    assert len(set(seen)) == 1 + recordings + 2 * (4 + 1)  # a clip begins with what the one before ended with
    assert set(result.timings) == {"text_s", "conditions_s", "decode_s", "codec_s"}
    assert all(seconds > 0 for seconds in result.timings.values())


def test_a_cancellation_at_any_point_leaves_the_engine_usable(loaded: Loaded) -> None:
    request = ask(make_song(1), make_song(2), task="cover")
    expected = loaded.sample(request)
    calls = 0

    def count(fraction: float) -> None:
        nonlocal calls
        calls += 1

    loaded.engine.generate(request, progress=count)
    assert calls > 10

    def cancel_after(number: int) -> Callable[[float], None]:
        left: Iterator[int] = iter(range(number))

        def progress(fraction: float) -> None:
            if next(left, None) is None:
                raise CancelledError("The job was cancelled.")

        return progress

    for number in range(calls):
        with pytest.raises(CancelledError):
            loaded.engine.generate(request, progress=cancel_after(number))
    for given, wanted in zip(loaded.sample(request), expected, strict=True):
        assert torch.equal(given, wanted)


def test_clips_are_handed_over_one_at_a_time(loaded: Loaded) -> None:
    taken: list[tuple[int, Audio]] = []
    loaded.codec.decoded.clear()
    songs = [make_song(seed) for seed in range(3)]
    result = loaded.engine.generate(ask(*songs), on_clip=lambda clip: taken.append((len(loaded.codec.decoded), clip)))
    assert result.clips == ()
    assert [number for number, _ in taken] == [1, 2, 3]
    for (_, clip), expected in zip(taken, loaded.engine.generate(ask(*songs)).clips, strict=True):
        assert np.array_equal(clip.waveform, expected.waveform)


# Warnings and errors


def test_lyrics_and_captions_that_are_cut_are_named_once(loaded: Loaded) -> None:
    song = make_song(lyrics="la " * 1500, caption="very " * 80)
    warnings = loaded.engine.generate(ask(song, replace(song, seed=2))).warnings
    assert len(warnings) == 2
    assert any(warning.startswith("The lyrics were cut by ") for warning in warnings)
    assert any(warning.startswith("The caption ") for warning in warnings)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_named_as_damaged(value: float) -> None:
    components = build_tiny_components(seed=6)
    weight = components.transformer.get_parameter("layers.0.mlp.down_proj.weight")
    with torch.no_grad():
        weight[0, 0] = value
    with pytest.raises(ModelError, match="not finite") as caught:
        AceStepEngine(components).generate(ask())
    assert caught.value.error_code == ErrorCode.BROKEN_CHECKPOINT


def test_a_silent_reference_is_refused(loaded: Loaded) -> None:
    with pytest.raises(AudioError, match="silent"):
        loaded.engine.generate(ask(reference=Audio(np.zeros((2, RATE), np.float32), RATE)))


# With the real codec


@pytest.mark.parametrize("task", ["text2music", "repaint"])
def test_audio_of_the_vae_is_float_and_not_normalised(task: Task) -> None:
    engine = AceStepEngine(build_tiny_components(seed=6))
    (clip,) = engine.generate(
        ask(duration=2.0, task=task, source=make_source(3.0) if task == "repaint" else None)
    ).clips
    assert clip.waveform.dtype == np.float32 and clip.peak > 0.01
    assert abs(clip.peak - 10 ** (-1 / 20)) > 1e-3  # what diffusers normalises every clip to
    assert engine.sample_rate == RATE


def test_an_engine_that_was_warmed_up_gives_the_same(loaded: Loaded) -> None:
    expected = loaded.sample(ask())[0]
    loaded.engine.warm_up()
    assert torch.equal(loaded.sample(ask())[0], expected)
