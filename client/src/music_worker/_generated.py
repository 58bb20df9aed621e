"""The operations as typed methods. Made by tools/methods.py from schema.json: do not edit."""

# ruff: noqa: N803, PLR0913

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NotRequired, TypedDict

if TYPE_CHECKING:
    from music_worker.files import AudioInput
    from music_worker.jobs import OnProgress, OnProgressAsync
    from music_worker.results import Result


class Track(TypedDict):
    """One track of a mix."""

    audio: AudioInput
    name: NotRequired[str]
    gain_db: NotRequired[float]
    pan: NotRequired[float]
    start_s: NotRequired[float]
    fade_in: NotRequired[float]
    fade_out: NotRequired[float]
    time_stretch: NotRequired[float]
    semitones: NotRequired[float]
    duck_under: NotRequired[str | int]
    duck_db: NotRequired[float]
    duck_threshold_db: NotRequired[float]
    duck_attack: NotRequired[float]
    duck_release: NotRequired[float]


class Step(TypedDict):
    """One step of a pipeline."""

    id: str
    operation: str
    params: NotRequired[Mapping[str, Any]]


class OperationMethods:
    """The operations of the worker. A method starts a job and returns its result.

    `None` stands for a parameter that is left to the worker. Every method also takes:

        on_progress: called with each `Progress`.
        timeout_s: the longest wait in seconds; the job itself goes on. Default: no limit.
        extra: parameters that a newer worker knows, by name.
    """

    def run(
        self,
        operation: str,
        params: Mapping[str, Any] | None = None,
        *,
        on_progress: OnProgress | None = None,
        timeout_s: float | None = None,
    ) -> Result:
        """Starts a job and waits for its result."""
        raise NotImplementedError

    def add_voice(
        self,
        name: str,
        *,
        archive: AudioInput | None = None,
        checkpoint: AudioInput | None = None,
        index: AudioInput | None = None,
        replace: bool | None = None,
        on_progress: OnProgress | None = None,
        timeout_s: float | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> Result:
        """Adds a voice to this worker's folder of voices, from a zip or from its files; off unless
        `ALLOW_VOICE_UPLOAD=1`.

        Args:
            name: Name of the voice: letters, digits, spaces, `_`, `.`, `-`, `(` and `)`, without a leading dot.
            archive: Zip file with one `.pth` and at most one `.index`, as base64, data URI, URL or volume path.
            checkpoint: The voice's `.pth`, as base64, data URI, URL or volume path. Use it in place of `archive`.
            index: The `.index` that belongs to `checkpoint`.
            replace: Replace the voice if one of this name exists. Default: false.
        """
        params: dict[str, Any] = {
            "name": name,
            "archive": archive,
            "checkpoint": checkpoint,
            "index": index,
            "replace": replace,
            **(extra or {}),
        }
        return self.run("add_voice", params, on_progress=on_progress, timeout_s=timeout_s)

    def analyze(
        self,
        audio: AudioInput,
        *,
        features: Sequence[
            Literal[
                "tempo",
                "beats",
                "downbeats",
                "time_signature",
                "key",
                "chords",
                "loudness",
                "silence",
                "spectral",
                "clipping",
                "pitch",
            ]
        ]
        | None = None,
        pitch: bool | None = None,
        f0_method: Literal["rmvpe", "crepe", "crepe-tiny", "mangio-crepe", "harvest", "pm", "fcpe"] | None = None,
        beat_model: str | None = None,
        picture: bool | None = None,
        silence_threshold_db: float | None = None,
        min_silence: float | None = None,
        delivery: Literal["auto", "inline", "bucket", "volume"] | None = None,
        on_progress: OnProgress | None = None,
        timeout_s: float | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> Result:
        """Tells what audio is like: tempo, beats, key, chords, loudness, silence, spectrum, clipping, pitch; draws
        pictures.

        Args:
            audio: The audio to analyse. Hours of audio are processed in bounded memory.
            features: What to tell; only that is computed. Default: everything but `pitch`.
            pitch: Also tell the `pitch` of a solo voice or instrument: its median and its range. Default: false.
            f0_method: Method that estimates the pitch, as for `generate_cover`. `pm` and `harvest` need no weights.
                Default: pm.
            beat_model: Model that finds beats and downbeats, as in `list_models` (`beat_models`), or `none`: signal
                processing. Default: the best one whose file is on this worker, else `none`.
            picture: Also return two PNG pictures in `files`: `waveform`, and `spectrogram` with beats and chords.
                Default: false.
            silence_threshold_db: RMS level in dBFS below which audio is silent, for `silence`. Default: -60.0.
            min_silence: Shortest span of silence that is listed, in seconds. Default: 0.5.
            delivery: Where audio and files go: `inline` (base64 in the reply), `bucket` (S3 upload; the reply has a
                link) or `volume` (a file on the mounted volume, the reply has its path). `auto` uses the bucket if
                one is configured, else inline. Default: auto.
        """
        params: dict[str, Any] = {
            "audio": audio,
            "features": features,
            "pitch": pitch,
            "f0_method": f0_method,
            "beat_model": beat_model,
            "picture": picture,
            "silence_threshold_db": silence_threshold_db,
            "min_silence": min_silence,
            "delivery": delivery,
            **(extra or {}),
        }
        return self.run("analyze", params, on_progress=on_progress, timeout_s=timeout_s)

    def create_random_sample(
        self,
        *,
        sample_type: Literal["simple_mode", "custom_mode"] | None = None,
        seed: int | None = None,
        param_obj: Mapping[str, Any] | str | None = None,
        metas: Mapping[str, Any] | str | None = None,
        meta: Mapping[str, Any] | str | None = None,
        metadata: Mapping[str, Any] | str | None = None,
        user_metadata: Mapping[str, Any] | str | None = None,
        userMetadata: Mapping[str, Any] | str | None = None,
        on_progress: OnProgress | None = None,
        timeout_s: float | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> Result:
        """Answers to `create_random_sample` of the ACE-Step API: one of the worker's example songs.

        Args:
            sample_type: `simple_mode`: a short description of a song is what counts; `custom_mode`: the song
                written out. Both return both. Default: simple_mode.
            seed: Decides which example is drawn. Default: random.
            param_obj: An object, or a string with its JSON, in which parameters may stand as well.
            metas: An object, or a string with its JSON, in which parameters may stand as well.
            meta: An object, or a string with its JSON, in which parameters may stand as well.
            metadata: An object, or a string with its JSON, in which parameters may stand as well.
            user_metadata: An object, or a string with its JSON, in which parameters may stand as well.
            userMetadata: An object, or a string with its JSON, in which parameters may stand as well.
        """
        params: dict[str, Any] = {
            "sample_type": sample_type,
            "seed": seed,
            "param_obj": param_obj,
            "metas": metas,
            "meta": meta,
            "metadata": metadata,
            "user_metadata": user_metadata,
            "userMetadata": userMetadata,
            **(extra or {}),
        }
        return self.run("create_random_sample", params, on_progress=on_progress, timeout_s=timeout_s)

    def decode_audio(
        self,
        codes: AudioInput | Sequence[Sequence[int]],
        *,
        model: str | None = None,
        scales: Sequence[float] | None = None,
        num_samples: int | None = None,
        output_format: Literal["wav", "flac", "mp3", "ogg", "opus"] | Literal["auto"] | None = None,
        bit_depth: Literal[16, 24, 32] | None = None,
        bitrate: int | None = None,
        normalize: Literal["none", "peak", "loudness"] | None = None,
        loudness_lufs: float | None = None,
        delivery: Literal["auto", "inline", "bucket", "volume"] | None = None,
        on_progress: OnProgress | None = None,
        timeout_s: float | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> Result:
        """Decodes the codes of a neural codec (EnCodec) to audio.

        Args:
            codes: The codes: lists of whole numbers, one list for each codebook, as `codes` of `encode_audio`; or
                the `.npz` file of `encode_audio` as base64, data URI, URL or volume path.
            model: Codec that made the codes. Required with lists; a file names its codec, and another one can be
                given here if it has the same kind of codes.
            scales: With lists: `scales` of `encode_audio`, the level of each segment of `encodec_48khz`.
            num_samples: With lists: `num_samples` of `encode_audio`, the length of the audio at the codec's sample
                rate. Default: the longest that the codes can have.
            output_format: File format. `auto` selects the best format that fits into an inline reply. Default:
                auto.
            bit_depth: Bits per sample of lossless formats: wav 16, 24, 32 (default 16); flac 16, 24 (default 16).
                32 is floating point and keeps peaks above full scale. Default: 16.
            bitrate: Bitrate of lossy formats in kbit/s: mp3 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224,
                256, 320 (default 320); ogg 64-500 (default 192); opus 12-512 (default 192).
            normalize: Level of the result: `none` keeps it, `peak` brings the true peak to -1 dBTP, `loudness`
                brings the integrated loudness to `loudness_lufs`. Default: none.
            loudness_lufs: Target of `normalize: "loudness"` in LUFS. The true peak stays at or below -1 dBTP.
                Default: -14.0.
            delivery: Where audio and files go: `inline` (base64 in the reply), `bucket` (S3 upload; the reply has a
                link) or `volume` (a file on the mounted volume, the reply has its path). `auto` uses the bucket if
                one is configured, else inline. Default: auto.
        """
        params: dict[str, Any] = {
            "codes": codes,
            "model": model,
            "scales": scales,
            "num_samples": num_samples,
            "output_format": output_format,
            "bit_depth": bit_depth,
            "bitrate": bitrate,
            "normalize": normalize,
            "loudness_lufs": loudness_lufs,
            "delivery": delivery,
            **(extra or {}),
        }
        return self.run("decode_audio", params, on_progress=on_progress, timeout_s=timeout_s)

    def edit_music(
        self,
        audio: AudioInput,
        *,
        task: Literal["cover", "repaint", "lego", "extract", "complete"],
        model: str | None = None,
        prompt: str | None = None,
        track: str | None = None,
        tracks: Sequence[str] | None = None,
        repainting_start: float | None = None,
        repainting_end: float | None = None,
        repaint_strength: float | None = None,
        audio_cover_strength: float | None = None,
        style_audio: AudioInput | None = None,
        n_samples: int | None = None,
        seed: int | Sequence[int] | None = None,
        cfg_coef: float | None = None,
        partial: bool | None = None,
        lyrics: str | None = None,
        instrumental: bool | None = None,
        vocal_language: str | None = None,
        bpm: int | None = None,
        key: str | None = None,
        time_signature: str | None = None,
        inference_steps: int | None = None,
        shift: float | None = None,
        infer_method: Literal["ode", "sde"] | None = None,
        timesteps: Sequence[float] | str | None = None,
        use_adg: bool | None = None,
        cfg_interval_start: float | None = None,
        cfg_interval_end: float | None = None,
        planner: str | None = None,
        lm_temperature: float | None = None,
        lm_top_k: int | None = None,
        lm_top_p: float | None = None,
        lm_repetition_penalty: float | None = None,
        lm_cfg_scale: float | None = None,
        lm_negative_prompt: str | None = None,
        use_format: bool | None = None,
        use_cot_caption: bool | None = None,
        use_cot_language: bool | None = None,
        trim_silence: bool | None = None,
        fade_in: float | None = None,
        fade_out: float | None = None,
        output_format: Literal["wav", "flac", "mp3", "ogg", "opus"] | Literal["auto"] | None = None,
        bit_depth: Literal[16, 24, 32] | None = None,
        bitrate: int | None = None,
        normalize: Literal["none", "peak", "loudness"] | None = None,
        loudness_lufs: float | None = None,
        delivery: Literal["auto", "inline", "bucket", "volume"] | None = None,
        on_progress: OnProgress | None = None,
        timeout_s: float | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> Result:
        """Edits a recording with ACE-Step: a cover of it, a part generated anew, a track added, extracted or
        completed.

        Args:
            audio: The recording to edit, at most 600 s long.
            task: `cover`: the song in another style; `repaint`: a part of it anew; `extract`: one track of it;
                `lego`: a new track for it; `complete`: new tracks around it. `extract`, `lego` and `complete` need
                a base model.
            model: ACE-Step model, as in `list_models`. Default: the best one on this worker that does the task.
            prompt: Describes the result. Alias: `description`.
            track: The track to extract or to add: `woodwinds`, `brass`, `fx`, `synth`, `strings`, `percussion`,
                `keyboard`, `guitar`, `bass`, `drums`, `backing_vocals`, `vocals`.
            tracks: The tracks that `complete` adds.
            repainting_start: Start of the part that `repaint` (or `lego`) generates, in seconds. Below 0 the result
                begins earlier than the recording. Default: 0.
            repainting_end: End of that part, in seconds. Beyond the recording's end the result is longer. Default:
                the end of the recording.
            repaint_strength: How freely the new part is joined to the rest: 0 = closest to the recording, with long
                cross-fades; 1 = free. Outside the part, the result has the recording's own samples in any case.
                Default: 0.5.
            audio_cover_strength: Share of the steps in which `cover` follows the recording. 0.2 keeps only its
                style. Default: 1.0.
            style_audio: A recording whose timbre and style the result follows. Alias: `reference_audio`.
            n_samples: Number of results. `extract` gives one. Default: 1.
            seed: Seed of the first result; each following one uses the next number. A list gives every result its
                own seed. Default: random; the reply has the seeds that were used.
            cfg_coef: How strictly the result follows the prompt (classifier-free guidance). 1 = no guidance.
                Default: the model's; turbo models have none. Alias: `guidance_scale`.
            partial: If the job's time runs out, return the results that are done, with a warning. Default: false.
            lyrics: The words to sing, with section tags such as `[Verse]`. Without lyrics the music is
                instrumental.
            instrumental: Make music without vocals. Default: false.
            vocal_language: Language of the vocals: `en`, `zh`, `ja`, ... Default: the planner's, else `en`.
            bpm: Tempo in beats per minute.
            key: Key, such as `C minor`, `F# major` or `Am`.
            time_signature: Time signature: `2/4`, `3/4`, `4/4` or `6/8`, or the beats alone.
            inference_steps: Steps of the sampler. Default: the model's: 8 for turbo models (at most 20), 50 for the
                others.
            shift: Shift of the timesteps: higher values spend more steps on the structure, lower ones on detail.
                Default: the model's: 3 for turbo models, 1 for the others.
            infer_method: `ode` is Euler's method; `sde` adds fresh noise at every step. Default: ode.
            timesteps: Strictly falling timesteps in (0, 1], as a list or as `0.97,0.76,0.5`, in place of
                `inference_steps` and `shift`.
            use_adg: Guide by angles (ADG) instead of projections (APG). Not for turbo models. Default: false.
            cfg_interval_start: Guidance is applied while the timestep, which falls from 1 to 0, is at least this.
                Default: 0.0.
            cfg_interval_end: Guidance is applied while the timestep is at most this. Default: 1.0.
            planner: Planner, as in `list_models`. Default: the best one on this worker.
            lm_temperature: Randomness of the planner. 0 = always the most likely token. Default: 0.85, and 0.3 to
                understand a recording.
            lm_top_k: Number of most likely tokens that the planner samples from. 0 = all. Default: 0.
            lm_top_p: The planner samples from the smallest set of tokens with at least this probability. 1 = off.
                Default: 0.9.
            lm_repetition_penalty: Above 1, tokens that the planner has written become less likely. 1 = off.
                Default: 1.0.
            lm_cfg_scale: How strictly the planner's audio codes follow the prompt. 1 = no guidance. Default: 2.5.
            lm_negative_prompt: Describes what the planner's audio codes must not sound like.
            use_format: Let the planner rewrite `prompt` and `lyrics` first. Default: false.
            use_cot_caption: If a planner is used: let it write a more detailed description. Set explicitly, it asks
                for a planner. Default: true.
            use_cot_language: If a planner is used: let it name the language of the vocals. Set explicitly, it asks
                for a planner. Default: true.
            trim_silence: Remove silence at the start and the end. Default: false.
            fade_in: Length of the fade-in in seconds. Default: 0.0.
            fade_out: Length of the fade-out in seconds. Default: 0.0.
            output_format: File format. `auto` selects the best format that fits into an inline reply. Default:
                auto.
            bit_depth: Bits per sample of lossless formats: wav 16, 24, 32 (default 16); flac 16, 24 (default 16).
                32 is floating point and keeps peaks above full scale. Default: 16.
            bitrate: Bitrate of lossy formats in kbit/s: mp3 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224,
                256, 320 (default 320); ogg 64-500 (default 192); opus 12-512 (default 192).
            normalize: Level of the result: `none` keeps it, `peak` brings the true peak to -1 dBTP, `loudness`
                brings the integrated loudness to `loudness_lufs`. Default: none.
            loudness_lufs: Target of `normalize: "loudness"` in LUFS. The true peak stays at or below -1 dBTP.
                Default: -14.0.
            delivery: Where audio and files go: `inline` (base64 in the reply), `bucket` (S3 upload; the reply has a
                link) or `volume` (a file on the mounted volume, the reply has its path). `auto` uses the bucket if
                one is configured, else inline. Default: auto.
        """
        params: dict[str, Any] = {
            "audio": audio,
            "task": task,
            "model": model,
            "prompt": prompt,
            "track": track,
            "tracks": tracks,
            "repainting_start": repainting_start,
            "repainting_end": repainting_end,
            "repaint_strength": repaint_strength,
            "audio_cover_strength": audio_cover_strength,
            "style_audio": style_audio,
            "n_samples": n_samples,
            "seed": seed,
            "cfg_coef": cfg_coef,
            "partial": partial,
            "lyrics": lyrics,
            "instrumental": instrumental,
            "vocal_language": vocal_language,
            "bpm": bpm,
            "key": key,
            "time_signature": time_signature,
            "inference_steps": inference_steps,
            "shift": shift,
            "infer_method": infer_method,
            "timesteps": timesteps,
            "use_adg": use_adg,
            "cfg_interval_start": cfg_interval_start,
            "cfg_interval_end": cfg_interval_end,
            "planner": planner,
            "lm_temperature": lm_temperature,
            "lm_top_k": lm_top_k,
            "lm_top_p": lm_top_p,
            "lm_repetition_penalty": lm_repetition_penalty,
            "lm_cfg_scale": lm_cfg_scale,
            "lm_negative_prompt": lm_negative_prompt,
            "use_format": use_format,
            "use_cot_caption": use_cot_caption,
            "use_cot_language": use_cot_language,
            "trim_silence": trim_silence,
            "fade_in": fade_in,
            "fade_out": fade_out,
            "output_format": output_format,
            "bit_depth": bit_depth,
            "bitrate": bitrate,
            "normalize": normalize,
            "loudness_lufs": loudness_lufs,
            "delivery": delivery,
            **(extra or {}),
        }
        return self.run("edit_music", params, on_progress=on_progress, timeout_s=timeout_s)

    def encode_audio(
        self,
        audio: AudioInput,
        *,
        model: str | None = None,
        bandwidth: float | None = None,
        num_codebooks: int | None = None,
        codes_format: Literal["auto", "npz"] | None = None,
        return_audio: bool | None = None,
        output_format: Literal["wav", "flac", "mp3", "ogg", "opus"] | Literal["auto"] | None = None,
        bit_depth: Literal[16, 24, 32] | None = None,
        bitrate: int | None = None,
        normalize: Literal["none", "peak", "loudness"] | None = None,
        loudness_lufs: float | None = None,
        delivery: Literal["auto", "inline", "bucket", "volume"] | None = None,
        on_progress: OnProgress | None = None,
        timeout_s: float | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> Result:
        """Encodes audio to the codes of a neural codec (EnCodec), and measures what the codes keep of it.

        Args:
            audio: The audio to encode. It is resampled to the codec's sample rate. Stereo is mixed down for a mono
                codec, with a warning; mono is sent to both channels of a stereo codec.
            model: Codec, as `codecs` in `list_models`: `encodec_24khz`, `encodec_32khz`, `encodec_48khz`, a local
                codec, or a local MusicGen model, whose codec is used. Default: the first of `encodec_32khz`,
                `encodec_24khz` and `encodec_48khz` that is on this worker, else `demo`.
            bandwidth: Bandwidth of the codes in kbit/s, one of the codec's `bandwidths` in `list_models`. Default:
                the codec's highest. Cannot be sent together with `num_codebooks`.
            num_codebooks: Number of codebooks, in place of `bandwidth`. Fewer keep less of the sound.
            codes_format: `auto` returns up to 16384 codes as lists in `codes`, and more as a NumPy `.npz` file in
                `files.codes`. `npz` always returns the file. Default: auto.
            return_audio: Also decode the codes, return that audio, and measure how far it is from the input:
                `si_sdr_db` and `log_mel_distance_db`. Default: false.
            output_format: File format. `auto` selects the best format that fits into an inline reply. Default:
                auto.
            bit_depth: Bits per sample of lossless formats: wav 16, 24, 32 (default 16); flac 16, 24 (default 16).
                32 is floating point and keeps peaks above full scale. Default: 16.
            bitrate: Bitrate of lossy formats in kbit/s: mp3 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224,
                256, 320 (default 320); ogg 64-500 (default 192); opus 12-512 (default 192).
            normalize: Level of the result: `none` keeps it, `peak` brings the true peak to -1 dBTP, `loudness`
                brings the integrated loudness to `loudness_lufs`. Default: none.
            loudness_lufs: Target of `normalize: "loudness"` in LUFS. The true peak stays at or below -1 dBTP.
                Default: -14.0.
            delivery: Where audio and files go: `inline` (base64 in the reply), `bucket` (S3 upload; the reply has a
                link) or `volume` (a file on the mounted volume, the reply has its path). `auto` uses the bucket if
                one is configured, else inline. Default: auto.
        """
        params: dict[str, Any] = {
            "audio": audio,
            "model": model,
            "bandwidth": bandwidth,
            "num_codebooks": num_codebooks,
            "codes_format": codes_format,
            "return_audio": return_audio,
            "output_format": output_format,
            "bit_depth": bit_depth,
            "bitrate": bitrate,
            "normalize": normalize,
            "loudness_lufs": loudness_lufs,
            "delivery": delivery,
            **(extra or {}),
        }
        return self.run("encode_audio", params, on_progress=on_progress, timeout_s=timeout_s)

    def extend_via_suno(
        self,
        audio: AudioInput | None = None,
        *,
        audio_id: str | None = None,
        task_id: str | None = None,
        continue_at: float | None = None,
        prompt: str | None = None,
        style: str | None = None,
        title: str | None = None,
        model: str | None = None,
        instrumental: bool | None = None,
        negative_tags: str | None = None,
        vocal_gender: Literal["m", "f"] | None = None,
        style_weight: float | None = None,
        weirdness: float | None = None,
        audio_weight: float | None = None,
        mode: Literal["wait", "submit", "poll"] | None = None,
        max_wait_s: float | None = None,
        select: Literal["all", "first", "longest"] | None = None,
        separate: Sequence[Literal["drums", "bass", "other", "vocals"]] | None = None,
        output_format: Literal["wav", "flac", "mp3", "ogg", "opus"] | Literal["auto"] | None = None,
        bit_depth: Literal[16, 24, 32] | None = None,
        bitrate: int | None = None,
        normalize: Literal["none", "peak", "loudness"] | None = None,
        loudness_lufs: float | None = None,
        delivery: Literal["auto", "inline", "bucket", "volume"] | None = None,
        on_progress: OnProgress | None = None,
        timeout_s: float | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> Result:
        """Continues a song (an upload, or a track that Suno made) through a Suno provider; pays at most once.

        Args:
            audio: The song to continue. At most 8 minutes; 2 minutes with V3_5, 1 minute with V4_5ALL.
            audio_id: Id of a track that Suno made, to continue it. `model` must be the track's version.
            task_id: Id of a task that was submitted before: waits for it or downloads it, without paying again.
            continue_at: Position in the source to continue from, in seconds. Default: its end.
            prompt: Describes the continuation. With `style` or `audio_id` it is the lyrics.
            style: Genre, mood and instruments of the continuation.
            title: Title of the song. Only used together with `style`.
            model: Suno version, as in `list_models`. An unknown version is passed on to Suno. Default: V4_5.
            instrumental: Make the continuation without vocals. Default: false.
            negative_tags: Styles and instruments to avoid.
            vocal_gender: Gender of the singing voice.
            style_weight: How closely the result follows `style`. 0 = loosely, 1 = strictly.
            weirdness: How unconventional the result may be. 0 = conventional, 1 = experimental.
            audio_weight: How closely the result follows the source. 0 = loosely, 1 = strictly.
            mode: `wait` returns the finished song. `submit` returns the task's id at once. `poll` returns the
                status of `task_id`, and the song if it is finished. Default: wait.
            max_wait_s: Longest time to wait for Suno, in seconds. Default: 600; with `poll` 0, which is one
                request.
            select: Which of Suno's two clips to download. Default: all.
            separate: Stems to separate from every clip with Demucs. Default: none.
            output_format: File format. `auto` selects the best format that fits into an inline reply. Default:
                auto.
            bit_depth: Bits per sample of lossless formats: wav 16, 24, 32 (default 16); flac 16, 24 (default 16).
                32 is floating point and keeps peaks above full scale. Default: 16.
            bitrate: Bitrate of lossy formats in kbit/s: mp3 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224,
                256, 320 (default 320); ogg 64-500 (default 192); opus 12-512 (default 192).
            normalize: Level of the result: `none` keeps it, `peak` brings the true peak to -1 dBTP, `loudness`
                brings the integrated loudness to `loudness_lufs`. Default: none.
            loudness_lufs: Target of `normalize: "loudness"` in LUFS. The true peak stays at or below -1 dBTP.
                Default: -14.0.
            delivery: Where audio and files go: `inline` (base64 in the reply), `bucket` (S3 upload; the reply has a
                link) or `volume` (a file on the mounted volume, the reply has its path). `auto` uses the bucket if
                one is configured, else inline. Default: auto.
        """
        params: dict[str, Any] = {
            "audio": audio,
            "audio_id": audio_id,
            "task_id": task_id,
            "continue_at": continue_at,
            "prompt": prompt,
            "style": style,
            "title": title,
            "model": model,
            "instrumental": instrumental,
            "negative_tags": negative_tags,
            "vocal_gender": vocal_gender,
            "style_weight": style_weight,
            "weirdness": weirdness,
            "audio_weight": audio_weight,
            "mode": mode,
            "max_wait_s": max_wait_s,
            "select": select,
            "separate": separate,
            "output_format": output_format,
            "bit_depth": bit_depth,
            "bitrate": bitrate,
            "normalize": normalize,
            "loudness_lufs": loudness_lufs,
            "delivery": delivery,
            **(extra or {}),
        }
        return self.run("extend_via_suno", params, on_progress=on_progress, timeout_s=timeout_s)

    def format_input(
        self,
        prompt: str | None = None,
        *,
        lyrics: str | None = None,
        temperature: float | None = None,
        audio_duration: float | None = None,
        bpm: int | None = None,
        key_scale: str | None = None,
        time_signature: str | int | None = None,
        vocal_language: str | None = None,
        lm_model_path: str | None = None,
        param_obj: Mapping[str, Any] | str | None = None,
        metas: Mapping[str, Any] | str | None = None,
        meta: Mapping[str, Any] | str | None = None,
        metadata: Mapping[str, Any] | str | None = None,
        user_metadata: Mapping[str, Any] | str | None = None,
        userMetadata: Mapping[str, Any] | str | None = None,
        on_progress: OnProgress | None = None,
        timeout_s: float | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> Result:
        """Answers to `format_input` of the ACE-Step API: the planner rewrites a caption and lyrics.

        Args:
            prompt: Describes the music.
            lyrics: The words to sing.
            temperature: Randomness. Default: 0.85.
            audio_duration: Length in seconds, which is kept.
            bpm: Tempo, which is kept.
            key_scale: Key, which is kept.
            time_signature: Beats per bar, which are kept.
            vocal_language: Language, which is kept.
            lm_model_path: Name of the planner.
            param_obj: An object, or a string with its JSON, in which parameters may stand as well.
            metas: An object, or a string with its JSON, in which parameters may stand as well.
            meta: An object, or a string with its JSON, in which parameters may stand as well.
            metadata: An object, or a string with its JSON, in which parameters may stand as well.
            user_metadata: An object, or a string with its JSON, in which parameters may stand as well.
            userMetadata: An object, or a string with its JSON, in which parameters may stand as well.
        """
        params: dict[str, Any] = {
            "prompt": prompt,
            "lyrics": lyrics,
            "temperature": temperature,
            "audio_duration": audio_duration,
            "bpm": bpm,
            "key_scale": key_scale,
            "time_signature": time_signature,
            "vocal_language": vocal_language,
            "lm_model_path": lm_model_path,
            "param_obj": param_obj,
            "metas": metas,
            "meta": meta,
            "metadata": metadata,
            "user_metadata": user_metadata,
            "userMetadata": userMetadata,
            **(extra or {}),
        }
        return self.run("format_input", params, on_progress=on_progress, timeout_s=timeout_s)

    def generate_cover(
        self,
        audio: AudioInput | None = None,
        *,
        voice_model: str,
        voice_audio: AudioInput | None = None,
        instrument_audio: AudioInput | None = None,
        backup_audio: AudioInput | None = None,
        embedder: str | None = None,
        pitch_adjust: float | Literal["auto"] | None = None,
        voice_f0_hz: float | None = None,
        pitch_change_all: float | None = None,
        index_rate: float | None = None,
        retrieval: Literal["exact", "ivf"] | None = None,
        filter_radius: int | None = None,
        rms_mix_rate: float | None = None,
        protect: float | None = None,
        f0_method: Literal["rmvpe", "crepe", "crepe-tiny", "mangio-crepe", "harvest", "pm", "fcpe"] | None = None,
        crepe_hop_length: int | None = None,
        f0_fill_gaps: bool | None = None,
        autotune: float | None = None,
        autotune_key: str | None = None,
        formant_shift: float | None = None,
        seed: int | None = None,
        reverb_rm_size: float | None = None,
        reverb_wet: float | None = None,
        reverb_dry: float | None = None,
        reverb_damping: float | None = None,
        main_gain: float | None = None,
        backup_gain: float | None = None,
        inst_gain: float | None = None,
        convert_backup: bool | None = None,
        backup_pitch_adjust: float | None = None,
        backup_voice_model: str | None = None,
        separation_model: str | None = None,
        lead_split: Literal["auto", "on", "off"] | None = None,
        karaoke_model: str | None = None,
        dereverb: Literal["auto", "on", "off"] | None = None,
        dereverb_model: str | None = None,
        reverb_return: float | None = None,
        return_stems: bool | None = None,
        output_format: Literal["wav", "flac", "mp3", "ogg", "opus"] | Literal["auto"] | None = None,
        bit_depth: Literal[16, 24, 32] | None = None,
        bitrate: int | None = None,
        normalize: Literal["none", "peak", "loudness"] | None = None,
        loudness_lufs: float | None = None,
        delivery: Literal["auto", "inline", "bucket", "volume"] | None = None,
        on_progress: OnProgress | None = None,
        timeout_s: float | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> Result:
        """Makes a cover: the vocals of a song in another voice (RVC), mixed with the instrumental in time to the
        sample.

        Args:
            voice_model: Name of the voice, as in `list_models`; or `hf://<user>/<repo>`, a voice on the Hugging
                Face hub, where `ALLOW_VOICE_UPLOAD=1`. Alias: `rvc_model`.
            audio: A whole song, which is separated first. Use it in place of `voice_audio` and the rest.
            voice_audio: The lead vocals alone.
            instrument_audio: The instrumental. It must start at the same time as `voice_audio`.
            backup_audio: Backing vocals, in addition to `voice_audio`.
            embedder: Content encoder that the voice was trained with: `contentvec`, `spin`, `chinese-hubert-base`,
                `japanese-hubert-base` or `korean-hubert-base`; the demo voices work with `demo-content-encoder`
                only. Default: what the voice's `voice.json` or `.pth` states, else `contentvec`.
            pitch_adjust: Transposes the vocals only, in semitones. 12 = one octave up. `auto` = to the voice's
                usual range, which `voice_f0_hz` or the voice's `voice.json` states. Default: 0.0.
            voice_f0_hz: The voice's usual pitch in Hz, the median of what it sings, for `pitch_adjust: auto`.
                Default: what the voice's `voice.json` states.
            pitch_change_all: Transposes the whole song to another key, in semitones. Default: 0.0.
            index_rate: How much of the timbre is retrieved from the voice's index. 0 = none, 1 = all. Higher values
                sound more like the voice and may blur the pronunciation. Default: 0.5.
            retrieval: How the index is searched: `ivf` searches the nearest clusters, as RVC does; `exact` searches
                all vectors and is slower. Default: ivf.
            filter_radius: Median filter of the f0 method `harvest`. 0 to 2 = off, 3 or more = on. Default: 3.
            rms_mix_rate: Loudness envelope of the converted vocals. 0 = follows the original vocals, 1 = the
                voice's own. Default: 0.25.
            protect: Protects consonants and breaths from index retrieval. 0 = full protection, 0.5 = off. Default:
                0.33.
            f0_method: How the pitch of the vocals is estimated; see `list_models`. With a demo voice the default is
                `fcpe`, which needs no download. Alias: `pitch_detection_algorithm`. Default: rmvpe.
            crepe_hop_length: Step between pitch estimates of `mangio-crepe`, in samples at 16 kHz. Smaller steps
                are more precise and slower. Default: 128.
            f0_fill_gaps: Interpolate the pitch through consonants and breaths, as newer versions of RVC do. Can
                remove roughness at the ends of notes. Default: false.
            autotune: Moves the pitch towards the nearest note of `autotune_key`, after transposition. 0 = off, 1 =
                on the note. Default: 0.0.
            autotune_key: Key of the cover for `autotune`: `C major`, `F# minor`, `Am`, or `chromatic`; `auto`: the
                key that is heard in the song or its instrumental, with `pitch_change_all`. Default: chromatic.
            formant_shift: Moves the formants, in semitones. Positive values sound smaller and brighter. The pitch
                stays. Default: 0.0.
            seed: Seed of the voice's noise. The same request gives the same result. Default: 0.
            reverb_rm_size: Room size of the reverb on the vocals. Alias: `reverb_size`. Default: 0.15.
            reverb_wet: Level of the reverb. 0 = no reverb. Default: 0.2.
            reverb_dry: Level of the vocals without reverb. Default: 0.8.
            reverb_damping: Damping of high frequencies in the reverb. Higher values sound darker. Default: 0.7.
            main_gain: Gain of the lead vocals in dB, added to -4 dB. Default: 0.0.
            backup_gain: Gain of the backing vocals in dB, added to -6 dB. Default: 0.0.
            inst_gain: Gain of the instrumental in dB, added to -7 dB. Default: 0.0.
            convert_backup: Convert the backing vocals to the new voice as well. Default: false.
            backup_pitch_adjust: Transposes converted backing vocals, in place of `pitch_adjust`. Default: as the
                lead vocals.
            backup_voice_model: Voice of converted backing vocals. Default: `voice_model`.
            separation_model: Model that separates `audio`, as in `list_models`. Default: on a GPU a model of the
                role `vocals`, if one is on this worker, else `htdemucs`, or without it the default of `separate`.
            lead_split: Convert the lead vocal alone and leave the backing vocals of `audio` as they are. `auto` =
                if a model of the role `karaoke` is on this worker; without a GPU, only up to a minute of audio.
                Default: auto.
            karaoke_model: Model that splits lead and backing vocals. Default: one of the role `karaoke`, if it is
                here.
            dereverb: Remove the reverb of the vocals before the conversion. `auto` = as for `lead_split`, with a
                model of the role `dereverb`. Default: auto.
            dereverb_model: Model that removes the reverb. Default: one of the role `dereverb`, if it is here.
            reverb_return: How much of the removed reverb goes back into the mix. 0 = none, 1 = all, at the lead's
                level. Default: 0.0.
            return_stems: Also return the lead vocals, backing vocals and instrumental as they are in the mix, and
                what the lead vocals were converted from. Default: false.
            output_format: File format. `auto` selects the best format that fits into an inline reply. Default:
                auto.
            bit_depth: Bits per sample of lossless formats: wav 16, 24, 32 (default 16); flac 16, 24 (default 16).
                32 is floating point and keeps peaks above full scale. Default: 16.
            bitrate: Bitrate of lossy formats in kbit/s: mp3 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224,
                256, 320 (default 320); ogg 64-500 (default 192); opus 12-512 (default 192).
            normalize: Level of the result: `none` keeps it, `peak` brings the true peak to -1 dBTP, `loudness`
                brings the integrated loudness to `loudness_lufs`. Default: none.
            loudness_lufs: Target of `normalize: "loudness"` in LUFS. The true peak stays at or below -1 dBTP.
                Default: -14.0.
            delivery: Where audio and files go: `inline` (base64 in the reply), `bucket` (S3 upload; the reply has a
                link) or `volume` (a file on the mounted volume, the reply has its path). `auto` uses the bucket if
                one is configured, else inline. Default: auto.
        """
        params: dict[str, Any] = {
            "voice_model": voice_model,
            "audio": audio,
            "voice_audio": voice_audio,
            "instrument_audio": instrument_audio,
            "backup_audio": backup_audio,
            "embedder": embedder,
            "pitch_adjust": pitch_adjust,
            "voice_f0_hz": voice_f0_hz,
            "pitch_change_all": pitch_change_all,
            "index_rate": index_rate,
            "retrieval": retrieval,
            "filter_radius": filter_radius,
            "rms_mix_rate": rms_mix_rate,
            "protect": protect,
            "f0_method": f0_method,
            "crepe_hop_length": crepe_hop_length,
            "f0_fill_gaps": f0_fill_gaps,
            "autotune": autotune,
            "autotune_key": autotune_key,
            "formant_shift": formant_shift,
            "seed": seed,
            "reverb_rm_size": reverb_rm_size,
            "reverb_wet": reverb_wet,
            "reverb_dry": reverb_dry,
            "reverb_damping": reverb_damping,
            "main_gain": main_gain,
            "backup_gain": backup_gain,
            "inst_gain": inst_gain,
            "convert_backup": convert_backup,
            "backup_pitch_adjust": backup_pitch_adjust,
            "backup_voice_model": backup_voice_model,
            "separation_model": separation_model,
            "lead_split": lead_split,
            "karaoke_model": karaoke_model,
            "dereverb": dereverb,
            "dereverb_model": dereverb_model,
            "reverb_return": reverb_return,
            "return_stems": return_stems,
            "output_format": output_format,
            "bit_depth": bit_depth,
            "bitrate": bitrate,
            "normalize": normalize,
            "loudness_lufs": loudness_lufs,
            "delivery": delivery,
            **(extra or {}),
        }
        return self.run("generate_cover", params, on_progress=on_progress, timeout_s=timeout_s)

    def generate_music(
        self,
        prompt: str | Sequence[str] | None = None,
        *,
        model: str | None = None,
        duration: float | None = None,
        n_samples: int | None = None,
        seed: int | Sequence[int] | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        cfg_coef: float | None = None,
        extend_stride: float | None = None,
        negative_prompt: str | None = None,
        melody_audio: AudioInput | None = None,
        style_audio: AudioInput | None = None,
        continuation_audio: AudioInput | None = None,
        continuation_codes: AudioInput | Sequence[Sequence[int]] | None = None,
        continuation_start: float | None = None,
        continuation_end: float | None = None,
        include_prompt: bool | None = None,
        bpm: float | Literal["auto"] | None = None,
        key: str | None = None,
        time_signature: str | None = None,
        lyrics: str | None = None,
        style: str | None = None,
        title: str | None = None,
        instrumental: bool | None = None,
        max_wait_s: float | None = None,
        mbd: bool | None = None,
        partial: bool | None = None,
        inference_steps: int | None = None,
        shift: float | None = None,
        infer_method: Literal["ode", "sde"] | None = None,
        timesteps: Sequence[float] | str | None = None,
        use_adg: bool | None = None,
        cfg_interval_start: float | None = None,
        cfg_interval_end: float | None = None,
        planner: str | None = None,
        lm_temperature: float | None = None,
        lm_top_k: int | None = None,
        lm_top_p: float | None = None,
        lm_repetition_penalty: float | None = None,
        lm_cfg_scale: float | None = None,
        lm_negative_prompt: str | None = None,
        use_format: bool | None = None,
        use_cot_caption: bool | None = None,
        use_cot_language: bool | None = None,
        trim_silence: bool | None = None,
        fade_in: float | None = None,
        fade_out: float | None = None,
        vocal_language: str | None = None,
        thinking: bool | None = None,
        sample_query: str | None = None,
        audio_codes: Sequence[int] | str | None = None,
        audio_cover_strength: float | None = None,
        return_codes: bool | None = None,
        output_format: Literal["wav", "flac", "mp3", "ogg", "opus"] | Literal["auto"] | None = None,
        bit_depth: Literal[16, 24, 32] | None = None,
        bitrate: int | None = None,
        normalize: Literal["none", "peak", "loudness"] | None = None,
        loudness_lufs: float | None = None,
        delivery: Literal["auto", "inline", "bucket", "volume"] | None = None,
        on_progress: OnProgress | None = None,
        timeout_s: float | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> Result:
        """Makes music from a description, with lyrics or without: with MusicGen, AudioGen, ACE-Step, or Suno
        (`suno/...`).

        Args:
            prompt: Describes the music. A list makes a batch with one or more clips of each prompt. Aliases:
                `description`, `text`.
            model: Model, as in `list_models`; `suno/<version>` uses Suno. Default: the best model on this worker
                that takes the request's parameters, ACE-Step before MusicGen.
            duration: Length of the new music in seconds; ACE-Step was trained on 10 s and more. MusicGen continues
                beyond its window, window by window. Default: 10 for MusicGen; for ACE-Step the planner's, or that
                of `audio_codes`, else 60.
            n_samples: Number of clips for each prompt. Default: 1.
            seed: Seed of the first clip; each following clip uses the next number. A list gives every clip its own
                seed. Default: random; the reply has the seeds that were used.
            temperature: Randomness of sampling. 0 = always the most likely code; higher values vary more. Default:
                1.0.
            top_k: Number of most likely codes that are sampled from. 0 = all codes. Default: 250.
            top_p: Sample from the smallest set of codes with at least this probability. 0 = off. Replaces `top_k`.
                Default: 0.0.
            cfg_coef: How strictly the music follows the prompt (classifier-free guidance). 1 = no guidance.
                Default: 3 for MusicGen, the model's for ACE-Step; its turbo models have none. Alias:
                `guidance_scale`.
            extend_stride: For long music: how far the window moves each time, in seconds. It must be shorter than
                the model's window. Smaller values keep more context and take longer. Default: 18.0.
            negative_prompt: Describes what the music must not sound like.
            melody_audio: A recording whose melody the music follows. Needs a melody model.
            style_audio: A recording whose timbre and style the song follows. Alias: `reference_audio`.
            continuation_audio: A recording that the music continues.
            continuation_codes: In place of `continuation_audio`: codes of the model's codec that the music
                continues, as `encode_audio` returns them: lists, or its `.npz` file as base64, data URI, URL or
                volume path.
            continuation_start: Start of the part of `continuation_audio` that is continued, in seconds. Default:
                0.0.
            continuation_end: End of that part, in seconds. Default: the end of the recording.
            include_prompt: Begin the result with the part that is continued. Default: true.
            bpm: Tempo in beats per minute; ACE-Step takes 30 to 300. For the others it is added to the prompt.
                `auto`: the tempo that is heard in `continuation_audio`, or else in `melody_audio`.
            key: Key, such as `C minor`, `F# major` or `Am`; ACE-Step takes major and minor. `auto`: the key that is
                heard in `continuation_audio`, or else in `melody_audio`.
            time_signature: Time signature, such as `3/4`; ACE-Step takes 2/4, 3/4, 4/4 and 6/8.
            lyrics: The words to sing, with section tags such as `[Verse]`. Without lyrics ACE-Step makes music
                without vocals.
            style: Genre, mood and voice.
            title: Title of the song.
            instrumental: Make music without vocals. Default: false.
            max_wait_s: How long to wait for the song, in seconds. Default: 600.
            mbd: Decode with Multi-Band Diffusion: fewer artefacts, slower. Only for MusicGen models of 32 kHz.
                Default: false.
            partial: If the job's time runs out, return what has been generated, with a warning. Default: false.
            inference_steps: Steps of the sampler. Default: the model's: 8 for turbo models (at most 20), 50 for the
                others.
            shift: Shift of the timesteps: higher values spend more steps on the structure, lower ones on detail.
                Default: the model's: 3 for turbo models, 1 for the others.
            infer_method: `ode` is Euler's method; `sde` adds fresh noise at every step. Default: ode.
            timesteps: Strictly falling timesteps in (0, 1], as a list or as `0.97,0.76,0.5`, in place of
                `inference_steps` and `shift`.
            use_adg: Guide by angles (ADG) instead of projections (APG). Not for turbo models. Default: false.
            cfg_interval_start: Guidance is applied while the timestep, which falls from 1 to 0, is at least this.
                Default: 0.0.
            cfg_interval_end: Guidance is applied while the timestep is at most this. Default: 1.0.
            planner: Planner, as in `list_models`. Default: the best one on this worker.
            lm_temperature: Randomness of the planner. 0 = always the most likely token. Default: 0.85, and 0.3 to
                understand a recording.
            lm_top_k: Number of most likely tokens that the planner samples from. 0 = all. Default: 0.
            lm_top_p: The planner samples from the smallest set of tokens with at least this probability. 1 = off.
                Default: 0.9.
            lm_repetition_penalty: Above 1, tokens that the planner has written become less likely. 1 = off.
                Default: 1.0.
            lm_cfg_scale: How strictly the planner's audio codes follow the prompt. 1 = no guidance. Default: 2.5.
            lm_negative_prompt: Describes what the planner's audio codes must not sound like.
            use_format: Let the planner rewrite `prompt` and `lyrics` first. Default: false.
            use_cot_caption: If a planner is used: let it write a more detailed description. Set explicitly, it asks
                for a planner. Default: true.
            use_cot_language: If a planner is used: let it name the language of the vocals. Set explicitly, it asks
                for a planner. Default: true.
            trim_silence: Remove silence at the start and the end. Default: false.
            fade_in: Length of the fade-in in seconds. Default: 0.0.
            fade_out: Length of the fade-out in seconds. Default: 0.0.
            vocal_language: Language of the vocals: `en`, `zh`, `ja`, ... Default: the planner's, else `en`.
            thinking: Let the planner complete the song's metas and write its audio codes first: better structure,
                slower. Default: false.
            sample_query: A short description from which the planner writes prompt, lyrics and metas, in place of
                `prompt`. Empty: it invents a song.
            audio_codes: Audio codes to follow, five a second, 0 to 63,999: a list, or a string as a reply has them.
            audio_cover_strength: Share of the steps that follow the audio codes. 0 = none, 1 = all. Default: 1.0.
            return_codes: Return the audio codes of every clip. Default: false.
            output_format: File format. `auto` selects the best format that fits into an inline reply. Default:
                auto.
            bit_depth: Bits per sample of lossless formats: wav 16, 24, 32 (default 16); flac 16, 24 (default 16).
                32 is floating point and keeps peaks above full scale. Default: 16.
            bitrate: Bitrate of lossy formats in kbit/s: mp3 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224,
                256, 320 (default 320); ogg 64-500 (default 192); opus 12-512 (default 192).
            normalize: Level of the result: `none` keeps it, `peak` brings the true peak to -1 dBTP, `loudness`
                brings the integrated loudness to `loudness_lufs`. Default: none.
            loudness_lufs: Target of `normalize: "loudness"` in LUFS. The true peak stays at or below -1 dBTP.
                Default: -14.0.
            delivery: Where audio and files go: `inline` (base64 in the reply), `bucket` (S3 upload; the reply has a
                link) or `volume` (a file on the mounted volume, the reply has its path). `auto` uses the bucket if
                one is configured, else inline. Default: auto.
        """
        params: dict[str, Any] = {
            "prompt": prompt,
            "model": model,
            "duration": duration,
            "n_samples": n_samples,
            "seed": seed,
            "temperature": temperature,
            "top_k": top_k,
            "top_p": top_p,
            "cfg_coef": cfg_coef,
            "extend_stride": extend_stride,
            "negative_prompt": negative_prompt,
            "melody_audio": melody_audio,
            "style_audio": style_audio,
            "continuation_audio": continuation_audio,
            "continuation_codes": continuation_codes,
            "continuation_start": continuation_start,
            "continuation_end": continuation_end,
            "include_prompt": include_prompt,
            "bpm": bpm,
            "key": key,
            "time_signature": time_signature,
            "lyrics": lyrics,
            "style": style,
            "title": title,
            "instrumental": instrumental,
            "max_wait_s": max_wait_s,
            "mbd": mbd,
            "partial": partial,
            "inference_steps": inference_steps,
            "shift": shift,
            "infer_method": infer_method,
            "timesteps": timesteps,
            "use_adg": use_adg,
            "cfg_interval_start": cfg_interval_start,
            "cfg_interval_end": cfg_interval_end,
            "planner": planner,
            "lm_temperature": lm_temperature,
            "lm_top_k": lm_top_k,
            "lm_top_p": lm_top_p,
            "lm_repetition_penalty": lm_repetition_penalty,
            "lm_cfg_scale": lm_cfg_scale,
            "lm_negative_prompt": lm_negative_prompt,
            "use_format": use_format,
            "use_cot_caption": use_cot_caption,
            "use_cot_language": use_cot_language,
            "trim_silence": trim_silence,
            "fade_in": fade_in,
            "fade_out": fade_out,
            "vocal_language": vocal_language,
            "thinking": thinking,
            "sample_query": sample_query,
            "audio_codes": audio_codes,
            "audio_cover_strength": audio_cover_strength,
            "return_codes": return_codes,
            "output_format": output_format,
            "bit_depth": bit_depth,
            "bitrate": bitrate,
            "normalize": normalize,
            "loudness_lufs": loudness_lufs,
            "delivery": delivery,
            **(extra or {}),
        }
        return self.run("generate_music", params, on_progress=on_progress, timeout_s=timeout_s)

    def health_check(
        self,
        *,
        on_progress: OnProgress | None = None,
        timeout_s: float | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> Result:
        """Reports whether the worker is healthy, what it cannot write or run, and what is loaded."""
        params: dict[str, Any] = {
            **(extra or {}),
        }
        return self.run("health_check", params, on_progress=on_progress, timeout_s=timeout_s)

    def list_models(
        self,
        *,
        schemas: bool | None = None,
        on_progress: OnProgress | None = None,
        timeout_s: float | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> Result:
        """Lists every model that a request can name, with its licence and availability; rescans the folders at each
        call.

        Args:
            schemas: Add the JSON schema of every operation's parameters, and the worker's version. Default: false.
        """
        params: dict[str, Any] = {
            "schemas": schemas,
            **(extra or {}),
        }
        return self.run("list_models", params, on_progress=on_progress, timeout_s=timeout_s)

    def mix_audio(
        self,
        tracks: Sequence[Track],
        *,
        master: Literal["glue", "warm", "bright", "loud", "room"] | Sequence[Mapping[str, Any]] | None = None,
        tail: float | None = None,
        output_format: Literal["wav", "flac", "mp3", "ogg", "opus"] | Literal["auto"] | None = None,
        bit_depth: Literal[16, 24, 32] | None = None,
        bitrate: int | None = None,
        normalize: Literal["none", "peak", "loudness"] | None = None,
        loudness_lufs: float | None = None,
        delivery: Literal["auto", "inline", "bucket", "volume"] | None = None,
        on_progress: OnProgress | None = None,
        timeout_s: float | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> Result:
        """Mixes tracks: levels, pans, positions, fades, ducking, tempo and key of each, and effects on the whole.

        Args:
            tracks: The tracks, each an object with `audio` and the fields below.
            master: Effects on the whole mix: a preset, or a list of objects, each with `effect` and its parameters.
                Default: none.
            tail: Length added after the last track, in seconds, in which a reverb or delay fades away. Default:
                0.0.
            output_format: File format. `auto` selects the best format that fits into an inline reply. Default:
                auto.
            bit_depth: Bits per sample of lossless formats: wav 16, 24, 32 (default 16); flac 16, 24 (default 16).
                32 is floating point and keeps peaks above full scale. Default: 16.
            bitrate: Bitrate of lossy formats in kbit/s: mp3 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224,
                256, 320 (default 320); ogg 64-500 (default 192); opus 12-512 (default 192).
            normalize: Level of the result: `none` keeps it, `peak` brings the true peak to -1 dBTP, `loudness`
                brings the integrated loudness to `loudness_lufs`. Default: none.
            loudness_lufs: Target of `normalize: "loudness"` in LUFS. The true peak stays at or below -1 dBTP.
                Default: -14.0.
            delivery: Where audio and files go: `inline` (base64 in the reply), `bucket` (S3 upload; the reply has a
                link) or `volume` (a file on the mounted volume, the reply has its path). `auto` uses the bucket if
                one is configured, else inline. Default: auto.
        """
        params: dict[str, Any] = {
            "tracks": tracks,
            "master": master,
            "tail": tail,
            "output_format": output_format,
            "bit_depth": bit_depth,
            "bitrate": bitrate,
            "normalize": normalize,
            "loudness_lufs": loudness_lufs,
            "delivery": delivery,
            **(extra or {}),
        }
        return self.run("mix_audio", params, on_progress=on_progress, timeout_s=timeout_s)

    def pipeline(
        self,
        steps: Sequence[Step],
        *,
        partial: bool | None = None,
        return_: Sequence[str] | None = None,
        output_format: Literal["wav", "flac", "mp3", "ogg", "opus"] | Literal["auto"] | None = None,
        bit_depth: Literal[16, 24, 32] | None = None,
        bitrate: int | None = None,
        normalize: Literal["none", "peak", "loudness"] | None = None,
        loudness_lufs: float | None = None,
        delivery: Literal["auto", "inline", "bucket", "volume"] | None = None,
        on_progress: OnProgress | None = None,
        timeout_s: float | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> Result:
        """Runs operations one after another; sound passes from step to step as it is, without being encoded.

        Args:
            steps: The steps, in their order; each an object as below.
            partial: If a step fails, return what was finished and is still needed, with `failed_step` and a
                warning, instead of an error. Default: false.
            return_: What comes back: references to whole steps (`$<id>`) or single artefacts. Default: all outputs,
                stems and files of the last step.
            output_format: File format. `auto` selects the best format that fits into an inline reply. Default:
                auto.
            bit_depth: Bits per sample of lossless formats: wav 16, 24, 32 (default 16); flac 16, 24 (default 16).
                32 is floating point and keeps peaks above full scale. Default: 16.
            bitrate: Bitrate of lossy formats in kbit/s: mp3 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224,
                256, 320 (default 320); ogg 64-500 (default 192); opus 12-512 (default 192).
            normalize: Level of the result: `none` keeps it, `peak` brings the true peak to -1 dBTP, `loudness`
                brings the integrated loudness to `loudness_lufs`. Default: none.
            loudness_lufs: Target of `normalize: "loudness"` in LUFS. The true peak stays at or below -1 dBTP.
                Default: -14.0.
            delivery: Where audio and files go: `inline` (base64 in the reply), `bucket` (S3 upload; the reply has a
                link) or `volume` (a file on the mounted volume, the reply has its path). `auto` uses the bucket if
                one is configured, else inline. Default: auto.
        """
        params: dict[str, Any] = {
            "steps": steps,
            "partial": partial,
            "return": return_,
            "output_format": output_format,
            "bit_depth": bit_depth,
            "bitrate": bitrate,
            "normalize": normalize,
            "loudness_lufs": loudness_lufs,
            "delivery": delivery,
            **(extra or {}),
        }
        return self.run("pipeline", params, on_progress=on_progress, timeout_s=timeout_s)

    def plan_music(
        self,
        prompt: str | None = None,
        *,
        mode: Literal["sample", "format", "understand", "random"],
        duration: float | None = None,
        audio: AudioInput | None = None,
        audio_codes: Sequence[int] | str | None = None,
        model: str | None = None,
        seed: int | None = None,
        return_codes: bool | None = None,
        lyrics: str | None = None,
        instrumental: bool | None = None,
        vocal_language: str | None = None,
        bpm: int | None = None,
        key: str | None = None,
        time_signature: str | None = None,
        planner: str | None = None,
        lm_temperature: float | None = None,
        lm_top_k: int | None = None,
        lm_top_p: float | None = None,
        lm_repetition_penalty: float | None = None,
        lm_cfg_scale: float | None = None,
        lm_negative_prompt: str | None = None,
        on_progress: OnProgress | None = None,
        timeout_s: float | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> Result:
        """Plans a song with ACE-Step's planner: invents one, rewrites its text, or tells what a recording is.

        Args:
            mode: `sample`: a whole song from a short description; `format`: caption and lyrics rewritten;
                `understand`: what a recording is; `random`: one of the worker's own examples, without a model.
            prompt: The short description, or the caption to rewrite. Empty with `sample`: any song.
            duration: Length of the song in seconds. Default: the planner's choice.
            audio: The recording to understand, at most 600 s long.
            audio_codes: Its audio codes, in place of `audio`.
            model: ACE-Step model that reads `audio`, as in `list_models`. Default: the best one on this worker.
            seed: Seed of what is drawn. Default: random; the reply has it.
            return_codes: Return audio codes, too: those that the planner writes for the song, or the recording's.
                Default: false.
            lyrics: The words to sing, with section tags such as `[Verse]`. Without lyrics the music is
                instrumental.
            instrumental: Make music without vocals. Default: false.
            vocal_language: Language of the vocals: `en`, `zh`, `ja`, ... Default: the planner's, else `en`.
            bpm: Tempo in beats per minute.
            key: Key, such as `C minor`, `F# major` or `Am`.
            time_signature: Time signature: `2/4`, `3/4`, `4/4` or `6/8`, or the beats alone.
            planner: Planner, as in `list_models`. Default: the best one on this worker.
            lm_temperature: Randomness of the planner. 0 = always the most likely token. Default: 0.85, and 0.3 to
                understand a recording.
            lm_top_k: Number of most likely tokens that the planner samples from. 0 = all. Default: 0.
            lm_top_p: The planner samples from the smallest set of tokens with at least this probability. 1 = off.
                Default: 0.9.
            lm_repetition_penalty: Above 1, tokens that the planner has written become less likely. 1 = off.
                Default: 1.0.
            lm_cfg_scale: How strictly the planner's audio codes follow the prompt. 1 = no guidance. Default: 2.5.
            lm_negative_prompt: Describes what the planner's audio codes must not sound like.
        """
        params: dict[str, Any] = {
            "mode": mode,
            "prompt": prompt,
            "duration": duration,
            "audio": audio,
            "audio_codes": audio_codes,
            "model": model,
            "seed": seed,
            "return_codes": return_codes,
            "lyrics": lyrics,
            "instrumental": instrumental,
            "vocal_language": vocal_language,
            "bpm": bpm,
            "key": key,
            "time_signature": time_signature,
            "planner": planner,
            "lm_temperature": lm_temperature,
            "lm_top_k": lm_top_k,
            "lm_top_p": lm_top_p,
            "lm_repetition_penalty": lm_repetition_penalty,
            "lm_cfg_scale": lm_cfg_scale,
            "lm_negative_prompt": lm_negative_prompt,
            **(extra or {}),
        }
        return self.run("plan_music", params, on_progress=on_progress, timeout_s=timeout_s)

    def release_task(
        self,
        prompt: str | None = None,
        *,
        lyrics: str | None = None,
        task_type: Literal["text2music"] | Literal["cover", "repaint", "lego", "extract", "complete"] | None = None,
        thinking: bool | None = None,
        sample_mode: bool | None = None,
        sample_query: str | None = None,
        use_format: bool | None = None,
        model: str | None = None,
        vocal_language: str | None = None,
        bpm: int | None = None,
        key_scale: str | None = None,
        time_signature: str | int | None = None,
        audio_duration: float | None = None,
        audio_code_string: str | Sequence[str] | Sequence[int] | None = None,
        inference_steps: int | None = None,
        guidance_scale: float | None = None,
        use_random_seed: bool | None = None,
        seed: int | Sequence[int] | None = None,
        batch_size: int | None = None,
        shift: float | None = None,
        infer_method: Literal["ode", "sde"] | None = None,
        timesteps: str | Sequence[float] | None = None,
        use_adg: bool | None = None,
        cfg_interval_start: float | None = None,
        cfg_interval_end: float | None = None,
        lm_model_path: str | None = None,
        lm_backend: str | None = None,
        lm_temperature: float | None = None,
        lm_cfg_scale: float | None = None,
        lm_negative_prompt: str | None = None,
        lm_top_k: int | None = None,
        lm_top_p: float | None = None,
        lm_repetition_penalty: float | None = None,
        use_cot_caption: bool | None = None,
        use_cot_language: bool | None = None,
        constrained_decoding: bool | None = None,
        constrained_decoding_debug: bool | None = None,
        allow_lm_batch: bool | None = None,
        use_tiled_decode: bool | None = None,
        is_format_caption: bool | None = None,
        reference_audio: AudioInput | None = None,
        src_audio: AudioInput | None = None,
        instruction: str | None = None,
        repainting_start: float | None = None,
        repainting_end: float | None = None,
        audio_cover_strength: float | None = None,
        track_name: str | None = None,
        track_classes: Sequence[str] | None = None,
        param_obj: Mapping[str, Any] | str | None = None,
        metas: Mapping[str, Any] | str | None = None,
        meta: Mapping[str, Any] | str | None = None,
        metadata: Mapping[str, Any] | str | None = None,
        user_metadata: Mapping[str, Any] | str | None = None,
        userMetadata: Mapping[str, Any] | str | None = None,
        output_format: Literal["wav", "flac", "mp3", "ogg", "opus"] | Literal["auto"] | None = None,
        bit_depth: Literal[16, 24, 32] | None = None,
        bitrate: int | None = None,
        normalize: Literal["none", "peak", "loudness"] | None = None,
        loudness_lufs: float | None = None,
        delivery: Literal["auto", "inline", "bucket", "volume"] | None = None,
        on_progress: OnProgress | None = None,
        timeout_s: float | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> Result:
        """Answers to `release_task` of the ACE-Step API: makes or edits music with that server's parameters.

        Args:
            prompt: Describes the music.
            lyrics: The words to sing.
            task_type: `text2music` makes a song; the others edit `src_audio`. Default: text2music.
            thinking: Let the planner write audio codes. Without it, codes that are given are followed all the same;
                the other server ignores them. Left out for an edit. Default: false.
            sample_mode: Let the planner invent a song. `prompt`, `lyrics` and `use_format` are left out then.
                Default: false.
            sample_query: Let the planner write a song from this.
            use_format: Let the planner rewrite prompt and lyrics. Default: false.
            model: A model that does not exist is an error; the other server takes its default.
            vocal_language: Language of the vocals. What the planner detects is used if the request has none; the
                other server never uses it. Default: en.
            bpm: Beats per minute.
            key_scale: `C major`, `Am`.
            time_signature: `4` or `4/4`.
            audio_duration: Length in seconds. Without it and without a planner a song lasts 60 s; with the other
                server, a random time.
            audio_code_string: Audio codes; the other server ignores them.
            inference_steps: Default: the model's; the other server takes 8 for every model. Above a turbo model's
                20 it is an error; the other server takes 8.
            guidance_scale: Default: the model's. Left out for turbo models, with a warning.
            use_random_seed: `true` ignores `seed`. Default: a `seed` that is given is used; the other server
                ignores it.
            seed: Seed of the first clip; -1 = random. Every clip is reproducible; with the other server only the
                first. Default: -1.
            batch_size: Number of clips. The other server makes 2 by default. Default: 1.
            shift: Default: the model's; the other server takes 3 for every model.
            infer_method: With `sde`, too, the seed decides everything. Default: ode.
            timesteps: A list, or numbers separated by commas, for every model. The other server ignores them for
                models that are not turbo, and rounds them for turbo models.
            use_adg: Guidance by angles. Not for turbo models. Default: false.
            cfg_interval_start: As in the other server. Default: 0.0.
            cfg_interval_end: As in the other server. Default: 1.0.
            lm_model_path: Name of the planner; of a path the last part is taken.
            lm_backend: Lm Backend. Left out, with a warning: the planner has one implementation here.
            lm_temperature: Default: 0.85.
            lm_cfg_scale: Guidance of the codes. Default: 2.5.
            lm_negative_prompt: The default is what the planner was trained with. Default: NO USER INPUT.
            lm_top_k: 0 = all.
            lm_top_p: Default: 0.9.
            lm_repetition_penalty: Used; the other server ignores it. Default: 1.0.
            use_cot_caption: A planner is used for `thinking`, `use_format`, a sample, or if this is set explicitly;
                the other server uses one whenever it has one. Default: true.
            use_cot_language: As `use_cot_caption`. Default: true.
            constrained_decoding: Constrained Decoding. Left out, with a warning: the planner is always constrained.
                Default: true.
            constrained_decoding_debug: Constrained Decoding Debug. Left out, with a warning: the log is the
                operator's. Default: false.
            allow_lm_batch: Allow Lm Batch. Left out, with a warning: a batch gives what its songs give alone.
                Default: true.
            use_tiled_decode: Use Tiled Decode. Left out, with a warning: the codec always decodes in tiles.
                Default: true.
            is_format_caption: Is Format Caption. Left out, with a warning: the planner reads the caption itself.
                Default: false.
            reference_audio: Base64, a URL or a path on the volume.
            src_audio: Base64, a URL or a path on the volume. An edit without it is an error; the other server makes
                a song.
            instruction: Instruction. Left out, with a warning: it follows from the task.
            repainting_start: Below 0 the result begins earlier. Default: 0.0.
            repainting_end: -1 = the end; beyond it the result is longer.
            audio_cover_strength: Of a cover, or of audio codes. Default: 1.0.
            track_name: For `lego` and `extract`.
            track_classes: For `complete`.
            param_obj: An object, or a string with its JSON, in which parameters may stand as well.
            metas: An object, or a string with its JSON, in which parameters may stand as well.
            meta: An object, or a string with its JSON, in which parameters may stand as well.
            metadata: An object, or a string with its JSON, in which parameters may stand as well.
            user_metadata: An object, or a string with its JSON, in which parameters may stand as well.
            userMetadata: An object, or a string with its JSON, in which parameters may stand as well.
            output_format: File format. `auto` selects the best format that fits into an inline reply. Default:
                auto.
            bit_depth: Bits per sample of lossless formats: wav 16, 24, 32 (default 16); flac 16, 24 (default 16).
                32 is floating point and keeps peaks above full scale. Default: 16.
            bitrate: Bitrate of lossy formats in kbit/s: mp3 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224,
                256, 320 (default 320); ogg 64-500 (default 192); opus 12-512 (default 192).
            normalize: Level of the result: `none` keeps it, `peak` brings the true peak to -1 dBTP, `loudness`
                brings the integrated loudness to `loudness_lufs`. Default: none.
            loudness_lufs: Target of `normalize: "loudness"` in LUFS. The true peak stays at or below -1 dBTP.
                Default: -14.0.
            delivery: Where audio and files go: `inline` (base64 in the reply), `bucket` (S3 upload; the reply has a
                link) or `volume` (a file on the mounted volume, the reply has its path). `auto` uses the bucket if
                one is configured, else inline. Default: auto.
        """
        params: dict[str, Any] = {
            "prompt": prompt,
            "lyrics": lyrics,
            "task_type": task_type,
            "thinking": thinking,
            "sample_mode": sample_mode,
            "sample_query": sample_query,
            "use_format": use_format,
            "model": model,
            "vocal_language": vocal_language,
            "bpm": bpm,
            "key_scale": key_scale,
            "time_signature": time_signature,
            "audio_duration": audio_duration,
            "audio_code_string": audio_code_string,
            "inference_steps": inference_steps,
            "guidance_scale": guidance_scale,
            "use_random_seed": use_random_seed,
            "seed": seed,
            "batch_size": batch_size,
            "shift": shift,
            "infer_method": infer_method,
            "timesteps": timesteps,
            "use_adg": use_adg,
            "cfg_interval_start": cfg_interval_start,
            "cfg_interval_end": cfg_interval_end,
            "lm_model_path": lm_model_path,
            "lm_backend": lm_backend,
            "lm_temperature": lm_temperature,
            "lm_cfg_scale": lm_cfg_scale,
            "lm_negative_prompt": lm_negative_prompt,
            "lm_top_k": lm_top_k,
            "lm_top_p": lm_top_p,
            "lm_repetition_penalty": lm_repetition_penalty,
            "use_cot_caption": use_cot_caption,
            "use_cot_language": use_cot_language,
            "constrained_decoding": constrained_decoding,
            "constrained_decoding_debug": constrained_decoding_debug,
            "allow_lm_batch": allow_lm_batch,
            "use_tiled_decode": use_tiled_decode,
            "is_format_caption": is_format_caption,
            "reference_audio": reference_audio,
            "src_audio": src_audio,
            "instruction": instruction,
            "repainting_start": repainting_start,
            "repainting_end": repainting_end,
            "audio_cover_strength": audio_cover_strength,
            "track_name": track_name,
            "track_classes": track_classes,
            "param_obj": param_obj,
            "metas": metas,
            "meta": meta,
            "metadata": metadata,
            "user_metadata": user_metadata,
            "userMetadata": userMetadata,
            "output_format": output_format,
            "bit_depth": bit_depth,
            "bitrate": bitrate,
            "normalize": normalize,
            "loudness_lufs": loudness_lufs,
            "delivery": delivery,
            **(extra or {}),
        }
        return self.run("release_task", params, on_progress=on_progress, timeout_s=timeout_s)

    def separate(
        self,
        audio: AudioInput,
        *,
        model: str | None = None,
        stems: Sequence[str] | None = None,
        two_stems: str | None = None,
        shifts: int | None = None,
        overlap: float | None = None,
        segment: float | None = None,
        residual: bool | None = None,
        seed: int | None = None,
        output_format: Literal["wav", "flac", "mp3", "ogg", "opus"] | Literal["auto"] | None = None,
        bit_depth: Literal[16, 24, 32] | None = None,
        bitrate: int | None = None,
        normalize: Literal["none", "peak", "loudness"] | None = None,
        loudness_lufs: float | None = None,
        delivery: Literal["auto", "inline", "bucket", "volume"] | None = None,
        on_progress: OnProgress | None = None,
        timeout_s: float | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> Result:
        """Separates a song into stems (drums, bass, vocals, ...), or into one stem and the rest.

        Args:
            audio: The song to separate. Hours of audio are processed in bounded memory.
            model: Separation model, as in `list_models`. Default: `htdemucs` if it is on this worker or can be
                downloaded, else another model that is here, the demo model last.
            stems: Stems to return. Only the sub-models that they need are run. Default: all of the model's.
            two_stems: Return this stem and its complement, named `no_<stem>`. The complement of `vocals` is also
                returned as `instrumental`.
            shifts: Number of passes over randomly time-shifted audio, which are averaged. More is slightly better
                and proportionally slower. 0 = one pass without a shift. Default: 0.
            overlap: Overlap of neighbouring segments as a fraction of their length. Higher values give smoother
                transitions and take longer. Default: 0.25 for Demucs, the value in its yaml file for a RoFormer.
            segment: Length of the segments that are processed at once, in seconds. Shorter segments need less
                memory. Default: the model's training length.
            residual: Make the stems sum to the input exactly: what the model leaves over is added to `other`, or to
                the complement. Default: true.
            seed: Seed of the random shifts of `shifts`. Default: 0.
            output_format: File format. `auto` selects the best format that fits into an inline reply. Default:
                auto.
            bit_depth: Bits per sample of lossless formats: wav 16, 24, 32 (default 16); flac 16, 24 (default 16).
                32 is floating point and keeps peaks above full scale. Default: 16.
            bitrate: Bitrate of lossy formats in kbit/s: mp3 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224,
                256, 320 (default 320); ogg 64-500 (default 192); opus 12-512 (default 192).
            normalize: Level of the result: `none` keeps it, `peak` brings the true peak to -1 dBTP, `loudness`
                brings the integrated loudness to `loudness_lufs`. Default: none.
            loudness_lufs: Target of `normalize: "loudness"` in LUFS. The true peak stays at or below -1 dBTP.
                Default: -14.0.
            delivery: Where audio and files go: `inline` (base64 in the reply), `bucket` (S3 upload; the reply has a
                link) or `volume` (a file on the mounted volume, the reply has its path). `auto` uses the bucket if
                one is configured, else inline. Default: auto.
        """
        params: dict[str, Any] = {
            "audio": audio,
            "model": model,
            "stems": stems,
            "two_stems": two_stems,
            "shifts": shifts,
            "overlap": overlap,
            "segment": segment,
            "residual": residual,
            "seed": seed,
            "output_format": output_format,
            "bit_depth": bit_depth,
            "bitrate": bitrate,
            "normalize": normalize,
            "loudness_lufs": loudness_lufs,
            "delivery": delivery,
            **(extra or {}),
        }
        return self.run("separate", params, on_progress=on_progress, timeout_s=timeout_s)


class AsyncOperationMethods:
    """The operations of the worker. A method starts a job and awaits its result.

    `None` stands for a parameter that is left to the worker. Every method also takes:

        on_progress: called with each `Progress`.
        timeout_s: the longest wait in seconds; the job itself goes on. Default: no limit.
        extra: parameters that a newer worker knows, by name.
    """

    async def run(
        self,
        operation: str,
        params: Mapping[str, Any] | None = None,
        *,
        on_progress: OnProgressAsync | None = None,
        timeout_s: float | None = None,
    ) -> Result:
        """Starts a job and waits for its result."""
        raise NotImplementedError

    async def add_voice(
        self,
        name: str,
        *,
        archive: AudioInput | None = None,
        checkpoint: AudioInput | None = None,
        index: AudioInput | None = None,
        replace: bool | None = None,
        on_progress: OnProgressAsync | None = None,
        timeout_s: float | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> Result:
        """Adds a voice to this worker's folder of voices, from a zip or from its files; off unless
        `ALLOW_VOICE_UPLOAD=1`.

        The parameters are those of `Client.add_voice`.
        """
        params: dict[str, Any] = {
            "name": name,
            "archive": archive,
            "checkpoint": checkpoint,
            "index": index,
            "replace": replace,
            **(extra or {}),
        }
        return await self.run("add_voice", params, on_progress=on_progress, timeout_s=timeout_s)

    async def analyze(
        self,
        audio: AudioInput,
        *,
        features: Sequence[
            Literal[
                "tempo",
                "beats",
                "downbeats",
                "time_signature",
                "key",
                "chords",
                "loudness",
                "silence",
                "spectral",
                "clipping",
                "pitch",
            ]
        ]
        | None = None,
        pitch: bool | None = None,
        f0_method: Literal["rmvpe", "crepe", "crepe-tiny", "mangio-crepe", "harvest", "pm", "fcpe"] | None = None,
        beat_model: str | None = None,
        picture: bool | None = None,
        silence_threshold_db: float | None = None,
        min_silence: float | None = None,
        delivery: Literal["auto", "inline", "bucket", "volume"] | None = None,
        on_progress: OnProgressAsync | None = None,
        timeout_s: float | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> Result:
        """Tells what audio is like: tempo, beats, key, chords, loudness, silence, spectrum, clipping, pitch; draws
        pictures.

        The parameters are those of `Client.analyze`.
        """
        params: dict[str, Any] = {
            "audio": audio,
            "features": features,
            "pitch": pitch,
            "f0_method": f0_method,
            "beat_model": beat_model,
            "picture": picture,
            "silence_threshold_db": silence_threshold_db,
            "min_silence": min_silence,
            "delivery": delivery,
            **(extra or {}),
        }
        return await self.run("analyze", params, on_progress=on_progress, timeout_s=timeout_s)

    async def create_random_sample(
        self,
        *,
        sample_type: Literal["simple_mode", "custom_mode"] | None = None,
        seed: int | None = None,
        param_obj: Mapping[str, Any] | str | None = None,
        metas: Mapping[str, Any] | str | None = None,
        meta: Mapping[str, Any] | str | None = None,
        metadata: Mapping[str, Any] | str | None = None,
        user_metadata: Mapping[str, Any] | str | None = None,
        userMetadata: Mapping[str, Any] | str | None = None,
        on_progress: OnProgressAsync | None = None,
        timeout_s: float | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> Result:
        """Answers to `create_random_sample` of the ACE-Step API: one of the worker's example songs.

        The parameters are those of `Client.create_random_sample`.
        """
        params: dict[str, Any] = {
            "sample_type": sample_type,
            "seed": seed,
            "param_obj": param_obj,
            "metas": metas,
            "meta": meta,
            "metadata": metadata,
            "user_metadata": user_metadata,
            "userMetadata": userMetadata,
            **(extra or {}),
        }
        return await self.run("create_random_sample", params, on_progress=on_progress, timeout_s=timeout_s)

    async def decode_audio(
        self,
        codes: AudioInput | Sequence[Sequence[int]],
        *,
        model: str | None = None,
        scales: Sequence[float] | None = None,
        num_samples: int | None = None,
        output_format: Literal["wav", "flac", "mp3", "ogg", "opus"] | Literal["auto"] | None = None,
        bit_depth: Literal[16, 24, 32] | None = None,
        bitrate: int | None = None,
        normalize: Literal["none", "peak", "loudness"] | None = None,
        loudness_lufs: float | None = None,
        delivery: Literal["auto", "inline", "bucket", "volume"] | None = None,
        on_progress: OnProgressAsync | None = None,
        timeout_s: float | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> Result:
        """Decodes the codes of a neural codec (EnCodec) to audio.

        The parameters are those of `Client.decode_audio`.
        """
        params: dict[str, Any] = {
            "codes": codes,
            "model": model,
            "scales": scales,
            "num_samples": num_samples,
            "output_format": output_format,
            "bit_depth": bit_depth,
            "bitrate": bitrate,
            "normalize": normalize,
            "loudness_lufs": loudness_lufs,
            "delivery": delivery,
            **(extra or {}),
        }
        return await self.run("decode_audio", params, on_progress=on_progress, timeout_s=timeout_s)

    async def edit_music(
        self,
        audio: AudioInput,
        *,
        task: Literal["cover", "repaint", "lego", "extract", "complete"],
        model: str | None = None,
        prompt: str | None = None,
        track: str | None = None,
        tracks: Sequence[str] | None = None,
        repainting_start: float | None = None,
        repainting_end: float | None = None,
        repaint_strength: float | None = None,
        audio_cover_strength: float | None = None,
        style_audio: AudioInput | None = None,
        n_samples: int | None = None,
        seed: int | Sequence[int] | None = None,
        cfg_coef: float | None = None,
        partial: bool | None = None,
        lyrics: str | None = None,
        instrumental: bool | None = None,
        vocal_language: str | None = None,
        bpm: int | None = None,
        key: str | None = None,
        time_signature: str | None = None,
        inference_steps: int | None = None,
        shift: float | None = None,
        infer_method: Literal["ode", "sde"] | None = None,
        timesteps: Sequence[float] | str | None = None,
        use_adg: bool | None = None,
        cfg_interval_start: float | None = None,
        cfg_interval_end: float | None = None,
        planner: str | None = None,
        lm_temperature: float | None = None,
        lm_top_k: int | None = None,
        lm_top_p: float | None = None,
        lm_repetition_penalty: float | None = None,
        lm_cfg_scale: float | None = None,
        lm_negative_prompt: str | None = None,
        use_format: bool | None = None,
        use_cot_caption: bool | None = None,
        use_cot_language: bool | None = None,
        trim_silence: bool | None = None,
        fade_in: float | None = None,
        fade_out: float | None = None,
        output_format: Literal["wav", "flac", "mp3", "ogg", "opus"] | Literal["auto"] | None = None,
        bit_depth: Literal[16, 24, 32] | None = None,
        bitrate: int | None = None,
        normalize: Literal["none", "peak", "loudness"] | None = None,
        loudness_lufs: float | None = None,
        delivery: Literal["auto", "inline", "bucket", "volume"] | None = None,
        on_progress: OnProgressAsync | None = None,
        timeout_s: float | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> Result:
        """Edits a recording with ACE-Step: a cover of it, a part generated anew, a track added, extracted or
        completed.

        The parameters are those of `Client.edit_music`.
        """
        params: dict[str, Any] = {
            "audio": audio,
            "task": task,
            "model": model,
            "prompt": prompt,
            "track": track,
            "tracks": tracks,
            "repainting_start": repainting_start,
            "repainting_end": repainting_end,
            "repaint_strength": repaint_strength,
            "audio_cover_strength": audio_cover_strength,
            "style_audio": style_audio,
            "n_samples": n_samples,
            "seed": seed,
            "cfg_coef": cfg_coef,
            "partial": partial,
            "lyrics": lyrics,
            "instrumental": instrumental,
            "vocal_language": vocal_language,
            "bpm": bpm,
            "key": key,
            "time_signature": time_signature,
            "inference_steps": inference_steps,
            "shift": shift,
            "infer_method": infer_method,
            "timesteps": timesteps,
            "use_adg": use_adg,
            "cfg_interval_start": cfg_interval_start,
            "cfg_interval_end": cfg_interval_end,
            "planner": planner,
            "lm_temperature": lm_temperature,
            "lm_top_k": lm_top_k,
            "lm_top_p": lm_top_p,
            "lm_repetition_penalty": lm_repetition_penalty,
            "lm_cfg_scale": lm_cfg_scale,
            "lm_negative_prompt": lm_negative_prompt,
            "use_format": use_format,
            "use_cot_caption": use_cot_caption,
            "use_cot_language": use_cot_language,
            "trim_silence": trim_silence,
            "fade_in": fade_in,
            "fade_out": fade_out,
            "output_format": output_format,
            "bit_depth": bit_depth,
            "bitrate": bitrate,
            "normalize": normalize,
            "loudness_lufs": loudness_lufs,
            "delivery": delivery,
            **(extra or {}),
        }
        return await self.run("edit_music", params, on_progress=on_progress, timeout_s=timeout_s)

    async def encode_audio(
        self,
        audio: AudioInput,
        *,
        model: str | None = None,
        bandwidth: float | None = None,
        num_codebooks: int | None = None,
        codes_format: Literal["auto", "npz"] | None = None,
        return_audio: bool | None = None,
        output_format: Literal["wav", "flac", "mp3", "ogg", "opus"] | Literal["auto"] | None = None,
        bit_depth: Literal[16, 24, 32] | None = None,
        bitrate: int | None = None,
        normalize: Literal["none", "peak", "loudness"] | None = None,
        loudness_lufs: float | None = None,
        delivery: Literal["auto", "inline", "bucket", "volume"] | None = None,
        on_progress: OnProgressAsync | None = None,
        timeout_s: float | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> Result:
        """Encodes audio to the codes of a neural codec (EnCodec), and measures what the codes keep of it.

        The parameters are those of `Client.encode_audio`.
        """
        params: dict[str, Any] = {
            "audio": audio,
            "model": model,
            "bandwidth": bandwidth,
            "num_codebooks": num_codebooks,
            "codes_format": codes_format,
            "return_audio": return_audio,
            "output_format": output_format,
            "bit_depth": bit_depth,
            "bitrate": bitrate,
            "normalize": normalize,
            "loudness_lufs": loudness_lufs,
            "delivery": delivery,
            **(extra or {}),
        }
        return await self.run("encode_audio", params, on_progress=on_progress, timeout_s=timeout_s)

    async def extend_via_suno(
        self,
        audio: AudioInput | None = None,
        *,
        audio_id: str | None = None,
        task_id: str | None = None,
        continue_at: float | None = None,
        prompt: str | None = None,
        style: str | None = None,
        title: str | None = None,
        model: str | None = None,
        instrumental: bool | None = None,
        negative_tags: str | None = None,
        vocal_gender: Literal["m", "f"] | None = None,
        style_weight: float | None = None,
        weirdness: float | None = None,
        audio_weight: float | None = None,
        mode: Literal["wait", "submit", "poll"] | None = None,
        max_wait_s: float | None = None,
        select: Literal["all", "first", "longest"] | None = None,
        separate: Sequence[Literal["drums", "bass", "other", "vocals"]] | None = None,
        output_format: Literal["wav", "flac", "mp3", "ogg", "opus"] | Literal["auto"] | None = None,
        bit_depth: Literal[16, 24, 32] | None = None,
        bitrate: int | None = None,
        normalize: Literal["none", "peak", "loudness"] | None = None,
        loudness_lufs: float | None = None,
        delivery: Literal["auto", "inline", "bucket", "volume"] | None = None,
        on_progress: OnProgressAsync | None = None,
        timeout_s: float | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> Result:
        """Continues a song (an upload, or a track that Suno made) through a Suno provider; pays at most once.

        The parameters are those of `Client.extend_via_suno`.
        """
        params: dict[str, Any] = {
            "audio": audio,
            "audio_id": audio_id,
            "task_id": task_id,
            "continue_at": continue_at,
            "prompt": prompt,
            "style": style,
            "title": title,
            "model": model,
            "instrumental": instrumental,
            "negative_tags": negative_tags,
            "vocal_gender": vocal_gender,
            "style_weight": style_weight,
            "weirdness": weirdness,
            "audio_weight": audio_weight,
            "mode": mode,
            "max_wait_s": max_wait_s,
            "select": select,
            "separate": separate,
            "output_format": output_format,
            "bit_depth": bit_depth,
            "bitrate": bitrate,
            "normalize": normalize,
            "loudness_lufs": loudness_lufs,
            "delivery": delivery,
            **(extra or {}),
        }
        return await self.run("extend_via_suno", params, on_progress=on_progress, timeout_s=timeout_s)

    async def format_input(
        self,
        prompt: str | None = None,
        *,
        lyrics: str | None = None,
        temperature: float | None = None,
        audio_duration: float | None = None,
        bpm: int | None = None,
        key_scale: str | None = None,
        time_signature: str | int | None = None,
        vocal_language: str | None = None,
        lm_model_path: str | None = None,
        param_obj: Mapping[str, Any] | str | None = None,
        metas: Mapping[str, Any] | str | None = None,
        meta: Mapping[str, Any] | str | None = None,
        metadata: Mapping[str, Any] | str | None = None,
        user_metadata: Mapping[str, Any] | str | None = None,
        userMetadata: Mapping[str, Any] | str | None = None,
        on_progress: OnProgressAsync | None = None,
        timeout_s: float | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> Result:
        """Answers to `format_input` of the ACE-Step API: the planner rewrites a caption and lyrics.

        The parameters are those of `Client.format_input`.
        """
        params: dict[str, Any] = {
            "prompt": prompt,
            "lyrics": lyrics,
            "temperature": temperature,
            "audio_duration": audio_duration,
            "bpm": bpm,
            "key_scale": key_scale,
            "time_signature": time_signature,
            "vocal_language": vocal_language,
            "lm_model_path": lm_model_path,
            "param_obj": param_obj,
            "metas": metas,
            "meta": meta,
            "metadata": metadata,
            "user_metadata": user_metadata,
            "userMetadata": userMetadata,
            **(extra or {}),
        }
        return await self.run("format_input", params, on_progress=on_progress, timeout_s=timeout_s)

    async def generate_cover(
        self,
        audio: AudioInput | None = None,
        *,
        voice_model: str,
        voice_audio: AudioInput | None = None,
        instrument_audio: AudioInput | None = None,
        backup_audio: AudioInput | None = None,
        embedder: str | None = None,
        pitch_adjust: float | Literal["auto"] | None = None,
        voice_f0_hz: float | None = None,
        pitch_change_all: float | None = None,
        index_rate: float | None = None,
        retrieval: Literal["exact", "ivf"] | None = None,
        filter_radius: int | None = None,
        rms_mix_rate: float | None = None,
        protect: float | None = None,
        f0_method: Literal["rmvpe", "crepe", "crepe-tiny", "mangio-crepe", "harvest", "pm", "fcpe"] | None = None,
        crepe_hop_length: int | None = None,
        f0_fill_gaps: bool | None = None,
        autotune: float | None = None,
        autotune_key: str | None = None,
        formant_shift: float | None = None,
        seed: int | None = None,
        reverb_rm_size: float | None = None,
        reverb_wet: float | None = None,
        reverb_dry: float | None = None,
        reverb_damping: float | None = None,
        main_gain: float | None = None,
        backup_gain: float | None = None,
        inst_gain: float | None = None,
        convert_backup: bool | None = None,
        backup_pitch_adjust: float | None = None,
        backup_voice_model: str | None = None,
        separation_model: str | None = None,
        lead_split: Literal["auto", "on", "off"] | None = None,
        karaoke_model: str | None = None,
        dereverb: Literal["auto", "on", "off"] | None = None,
        dereverb_model: str | None = None,
        reverb_return: float | None = None,
        return_stems: bool | None = None,
        output_format: Literal["wav", "flac", "mp3", "ogg", "opus"] | Literal["auto"] | None = None,
        bit_depth: Literal[16, 24, 32] | None = None,
        bitrate: int | None = None,
        normalize: Literal["none", "peak", "loudness"] | None = None,
        loudness_lufs: float | None = None,
        delivery: Literal["auto", "inline", "bucket", "volume"] | None = None,
        on_progress: OnProgressAsync | None = None,
        timeout_s: float | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> Result:
        """Makes a cover: the vocals of a song in another voice (RVC), mixed with the instrumental in time to the
        sample.

        The parameters are those of `Client.generate_cover`.
        """
        params: dict[str, Any] = {
            "voice_model": voice_model,
            "audio": audio,
            "voice_audio": voice_audio,
            "instrument_audio": instrument_audio,
            "backup_audio": backup_audio,
            "embedder": embedder,
            "pitch_adjust": pitch_adjust,
            "voice_f0_hz": voice_f0_hz,
            "pitch_change_all": pitch_change_all,
            "index_rate": index_rate,
            "retrieval": retrieval,
            "filter_radius": filter_radius,
            "rms_mix_rate": rms_mix_rate,
            "protect": protect,
            "f0_method": f0_method,
            "crepe_hop_length": crepe_hop_length,
            "f0_fill_gaps": f0_fill_gaps,
            "autotune": autotune,
            "autotune_key": autotune_key,
            "formant_shift": formant_shift,
            "seed": seed,
            "reverb_rm_size": reverb_rm_size,
            "reverb_wet": reverb_wet,
            "reverb_dry": reverb_dry,
            "reverb_damping": reverb_damping,
            "main_gain": main_gain,
            "backup_gain": backup_gain,
            "inst_gain": inst_gain,
            "convert_backup": convert_backup,
            "backup_pitch_adjust": backup_pitch_adjust,
            "backup_voice_model": backup_voice_model,
            "separation_model": separation_model,
            "lead_split": lead_split,
            "karaoke_model": karaoke_model,
            "dereverb": dereverb,
            "dereverb_model": dereverb_model,
            "reverb_return": reverb_return,
            "return_stems": return_stems,
            "output_format": output_format,
            "bit_depth": bit_depth,
            "bitrate": bitrate,
            "normalize": normalize,
            "loudness_lufs": loudness_lufs,
            "delivery": delivery,
            **(extra or {}),
        }
        return await self.run("generate_cover", params, on_progress=on_progress, timeout_s=timeout_s)

    async def generate_music(
        self,
        prompt: str | Sequence[str] | None = None,
        *,
        model: str | None = None,
        duration: float | None = None,
        n_samples: int | None = None,
        seed: int | Sequence[int] | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        cfg_coef: float | None = None,
        extend_stride: float | None = None,
        negative_prompt: str | None = None,
        melody_audio: AudioInput | None = None,
        style_audio: AudioInput | None = None,
        continuation_audio: AudioInput | None = None,
        continuation_codes: AudioInput | Sequence[Sequence[int]] | None = None,
        continuation_start: float | None = None,
        continuation_end: float | None = None,
        include_prompt: bool | None = None,
        bpm: float | Literal["auto"] | None = None,
        key: str | None = None,
        time_signature: str | None = None,
        lyrics: str | None = None,
        style: str | None = None,
        title: str | None = None,
        instrumental: bool | None = None,
        max_wait_s: float | None = None,
        mbd: bool | None = None,
        partial: bool | None = None,
        inference_steps: int | None = None,
        shift: float | None = None,
        infer_method: Literal["ode", "sde"] | None = None,
        timesteps: Sequence[float] | str | None = None,
        use_adg: bool | None = None,
        cfg_interval_start: float | None = None,
        cfg_interval_end: float | None = None,
        planner: str | None = None,
        lm_temperature: float | None = None,
        lm_top_k: int | None = None,
        lm_top_p: float | None = None,
        lm_repetition_penalty: float | None = None,
        lm_cfg_scale: float | None = None,
        lm_negative_prompt: str | None = None,
        use_format: bool | None = None,
        use_cot_caption: bool | None = None,
        use_cot_language: bool | None = None,
        trim_silence: bool | None = None,
        fade_in: float | None = None,
        fade_out: float | None = None,
        vocal_language: str | None = None,
        thinking: bool | None = None,
        sample_query: str | None = None,
        audio_codes: Sequence[int] | str | None = None,
        audio_cover_strength: float | None = None,
        return_codes: bool | None = None,
        output_format: Literal["wav", "flac", "mp3", "ogg", "opus"] | Literal["auto"] | None = None,
        bit_depth: Literal[16, 24, 32] | None = None,
        bitrate: int | None = None,
        normalize: Literal["none", "peak", "loudness"] | None = None,
        loudness_lufs: float | None = None,
        delivery: Literal["auto", "inline", "bucket", "volume"] | None = None,
        on_progress: OnProgressAsync | None = None,
        timeout_s: float | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> Result:
        """Makes music from a description, with lyrics or without: with MusicGen, AudioGen, ACE-Step, or Suno
        (`suno/...`).

        The parameters are those of `Client.generate_music`.
        """
        params: dict[str, Any] = {
            "prompt": prompt,
            "model": model,
            "duration": duration,
            "n_samples": n_samples,
            "seed": seed,
            "temperature": temperature,
            "top_k": top_k,
            "top_p": top_p,
            "cfg_coef": cfg_coef,
            "extend_stride": extend_stride,
            "negative_prompt": negative_prompt,
            "melody_audio": melody_audio,
            "style_audio": style_audio,
            "continuation_audio": continuation_audio,
            "continuation_codes": continuation_codes,
            "continuation_start": continuation_start,
            "continuation_end": continuation_end,
            "include_prompt": include_prompt,
            "bpm": bpm,
            "key": key,
            "time_signature": time_signature,
            "lyrics": lyrics,
            "style": style,
            "title": title,
            "instrumental": instrumental,
            "max_wait_s": max_wait_s,
            "mbd": mbd,
            "partial": partial,
            "inference_steps": inference_steps,
            "shift": shift,
            "infer_method": infer_method,
            "timesteps": timesteps,
            "use_adg": use_adg,
            "cfg_interval_start": cfg_interval_start,
            "cfg_interval_end": cfg_interval_end,
            "planner": planner,
            "lm_temperature": lm_temperature,
            "lm_top_k": lm_top_k,
            "lm_top_p": lm_top_p,
            "lm_repetition_penalty": lm_repetition_penalty,
            "lm_cfg_scale": lm_cfg_scale,
            "lm_negative_prompt": lm_negative_prompt,
            "use_format": use_format,
            "use_cot_caption": use_cot_caption,
            "use_cot_language": use_cot_language,
            "trim_silence": trim_silence,
            "fade_in": fade_in,
            "fade_out": fade_out,
            "vocal_language": vocal_language,
            "thinking": thinking,
            "sample_query": sample_query,
            "audio_codes": audio_codes,
            "audio_cover_strength": audio_cover_strength,
            "return_codes": return_codes,
            "output_format": output_format,
            "bit_depth": bit_depth,
            "bitrate": bitrate,
            "normalize": normalize,
            "loudness_lufs": loudness_lufs,
            "delivery": delivery,
            **(extra or {}),
        }
        return await self.run("generate_music", params, on_progress=on_progress, timeout_s=timeout_s)

    async def health_check(
        self,
        *,
        on_progress: OnProgressAsync | None = None,
        timeout_s: float | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> Result:
        """Reports whether the worker is healthy, what it cannot write or run, and what is loaded."""
        params: dict[str, Any] = {
            **(extra or {}),
        }
        return await self.run("health_check", params, on_progress=on_progress, timeout_s=timeout_s)

    async def list_models(
        self,
        *,
        schemas: bool | None = None,
        on_progress: OnProgressAsync | None = None,
        timeout_s: float | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> Result:
        """Lists every model that a request can name, with its licence and availability; rescans the folders at each
        call.

        The parameters are those of `Client.list_models`.
        """
        params: dict[str, Any] = {
            "schemas": schemas,
            **(extra or {}),
        }
        return await self.run("list_models", params, on_progress=on_progress, timeout_s=timeout_s)

    async def mix_audio(
        self,
        tracks: Sequence[Track],
        *,
        master: Literal["glue", "warm", "bright", "loud", "room"] | Sequence[Mapping[str, Any]] | None = None,
        tail: float | None = None,
        output_format: Literal["wav", "flac", "mp3", "ogg", "opus"] | Literal["auto"] | None = None,
        bit_depth: Literal[16, 24, 32] | None = None,
        bitrate: int | None = None,
        normalize: Literal["none", "peak", "loudness"] | None = None,
        loudness_lufs: float | None = None,
        delivery: Literal["auto", "inline", "bucket", "volume"] | None = None,
        on_progress: OnProgressAsync | None = None,
        timeout_s: float | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> Result:
        """Mixes tracks: levels, pans, positions, fades, ducking, tempo and key of each, and effects on the whole.

        The parameters are those of `Client.mix_audio`.
        """
        params: dict[str, Any] = {
            "tracks": tracks,
            "master": master,
            "tail": tail,
            "output_format": output_format,
            "bit_depth": bit_depth,
            "bitrate": bitrate,
            "normalize": normalize,
            "loudness_lufs": loudness_lufs,
            "delivery": delivery,
            **(extra or {}),
        }
        return await self.run("mix_audio", params, on_progress=on_progress, timeout_s=timeout_s)

    async def pipeline(
        self,
        steps: Sequence[Step],
        *,
        partial: bool | None = None,
        return_: Sequence[str] | None = None,
        output_format: Literal["wav", "flac", "mp3", "ogg", "opus"] | Literal["auto"] | None = None,
        bit_depth: Literal[16, 24, 32] | None = None,
        bitrate: int | None = None,
        normalize: Literal["none", "peak", "loudness"] | None = None,
        loudness_lufs: float | None = None,
        delivery: Literal["auto", "inline", "bucket", "volume"] | None = None,
        on_progress: OnProgressAsync | None = None,
        timeout_s: float | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> Result:
        """Runs operations one after another; sound passes from step to step as it is, without being encoded.

        The parameters are those of `Client.pipeline`.
        """
        params: dict[str, Any] = {
            "steps": steps,
            "partial": partial,
            "return": return_,
            "output_format": output_format,
            "bit_depth": bit_depth,
            "bitrate": bitrate,
            "normalize": normalize,
            "loudness_lufs": loudness_lufs,
            "delivery": delivery,
            **(extra or {}),
        }
        return await self.run("pipeline", params, on_progress=on_progress, timeout_s=timeout_s)

    async def plan_music(
        self,
        prompt: str | None = None,
        *,
        mode: Literal["sample", "format", "understand", "random"],
        duration: float | None = None,
        audio: AudioInput | None = None,
        audio_codes: Sequence[int] | str | None = None,
        model: str | None = None,
        seed: int | None = None,
        return_codes: bool | None = None,
        lyrics: str | None = None,
        instrumental: bool | None = None,
        vocal_language: str | None = None,
        bpm: int | None = None,
        key: str | None = None,
        time_signature: str | None = None,
        planner: str | None = None,
        lm_temperature: float | None = None,
        lm_top_k: int | None = None,
        lm_top_p: float | None = None,
        lm_repetition_penalty: float | None = None,
        lm_cfg_scale: float | None = None,
        lm_negative_prompt: str | None = None,
        on_progress: OnProgressAsync | None = None,
        timeout_s: float | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> Result:
        """Plans a song with ACE-Step's planner: invents one, rewrites its text, or tells what a recording is.

        The parameters are those of `Client.plan_music`.
        """
        params: dict[str, Any] = {
            "mode": mode,
            "prompt": prompt,
            "duration": duration,
            "audio": audio,
            "audio_codes": audio_codes,
            "model": model,
            "seed": seed,
            "return_codes": return_codes,
            "lyrics": lyrics,
            "instrumental": instrumental,
            "vocal_language": vocal_language,
            "bpm": bpm,
            "key": key,
            "time_signature": time_signature,
            "planner": planner,
            "lm_temperature": lm_temperature,
            "lm_top_k": lm_top_k,
            "lm_top_p": lm_top_p,
            "lm_repetition_penalty": lm_repetition_penalty,
            "lm_cfg_scale": lm_cfg_scale,
            "lm_negative_prompt": lm_negative_prompt,
            **(extra or {}),
        }
        return await self.run("plan_music", params, on_progress=on_progress, timeout_s=timeout_s)

    async def release_task(
        self,
        prompt: str | None = None,
        *,
        lyrics: str | None = None,
        task_type: Literal["text2music"] | Literal["cover", "repaint", "lego", "extract", "complete"] | None = None,
        thinking: bool | None = None,
        sample_mode: bool | None = None,
        sample_query: str | None = None,
        use_format: bool | None = None,
        model: str | None = None,
        vocal_language: str | None = None,
        bpm: int | None = None,
        key_scale: str | None = None,
        time_signature: str | int | None = None,
        audio_duration: float | None = None,
        audio_code_string: str | Sequence[str] | Sequence[int] | None = None,
        inference_steps: int | None = None,
        guidance_scale: float | None = None,
        use_random_seed: bool | None = None,
        seed: int | Sequence[int] | None = None,
        batch_size: int | None = None,
        shift: float | None = None,
        infer_method: Literal["ode", "sde"] | None = None,
        timesteps: str | Sequence[float] | None = None,
        use_adg: bool | None = None,
        cfg_interval_start: float | None = None,
        cfg_interval_end: float | None = None,
        lm_model_path: str | None = None,
        lm_backend: str | None = None,
        lm_temperature: float | None = None,
        lm_cfg_scale: float | None = None,
        lm_negative_prompt: str | None = None,
        lm_top_k: int | None = None,
        lm_top_p: float | None = None,
        lm_repetition_penalty: float | None = None,
        use_cot_caption: bool | None = None,
        use_cot_language: bool | None = None,
        constrained_decoding: bool | None = None,
        constrained_decoding_debug: bool | None = None,
        allow_lm_batch: bool | None = None,
        use_tiled_decode: bool | None = None,
        is_format_caption: bool | None = None,
        reference_audio: AudioInput | None = None,
        src_audio: AudioInput | None = None,
        instruction: str | None = None,
        repainting_start: float | None = None,
        repainting_end: float | None = None,
        audio_cover_strength: float | None = None,
        track_name: str | None = None,
        track_classes: Sequence[str] | None = None,
        param_obj: Mapping[str, Any] | str | None = None,
        metas: Mapping[str, Any] | str | None = None,
        meta: Mapping[str, Any] | str | None = None,
        metadata: Mapping[str, Any] | str | None = None,
        user_metadata: Mapping[str, Any] | str | None = None,
        userMetadata: Mapping[str, Any] | str | None = None,
        output_format: Literal["wav", "flac", "mp3", "ogg", "opus"] | Literal["auto"] | None = None,
        bit_depth: Literal[16, 24, 32] | None = None,
        bitrate: int | None = None,
        normalize: Literal["none", "peak", "loudness"] | None = None,
        loudness_lufs: float | None = None,
        delivery: Literal["auto", "inline", "bucket", "volume"] | None = None,
        on_progress: OnProgressAsync | None = None,
        timeout_s: float | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> Result:
        """Answers to `release_task` of the ACE-Step API: makes or edits music with that server's parameters.

        The parameters are those of `Client.release_task`.
        """
        params: dict[str, Any] = {
            "prompt": prompt,
            "lyrics": lyrics,
            "task_type": task_type,
            "thinking": thinking,
            "sample_mode": sample_mode,
            "sample_query": sample_query,
            "use_format": use_format,
            "model": model,
            "vocal_language": vocal_language,
            "bpm": bpm,
            "key_scale": key_scale,
            "time_signature": time_signature,
            "audio_duration": audio_duration,
            "audio_code_string": audio_code_string,
            "inference_steps": inference_steps,
            "guidance_scale": guidance_scale,
            "use_random_seed": use_random_seed,
            "seed": seed,
            "batch_size": batch_size,
            "shift": shift,
            "infer_method": infer_method,
            "timesteps": timesteps,
            "use_adg": use_adg,
            "cfg_interval_start": cfg_interval_start,
            "cfg_interval_end": cfg_interval_end,
            "lm_model_path": lm_model_path,
            "lm_backend": lm_backend,
            "lm_temperature": lm_temperature,
            "lm_cfg_scale": lm_cfg_scale,
            "lm_negative_prompt": lm_negative_prompt,
            "lm_top_k": lm_top_k,
            "lm_top_p": lm_top_p,
            "lm_repetition_penalty": lm_repetition_penalty,
            "use_cot_caption": use_cot_caption,
            "use_cot_language": use_cot_language,
            "constrained_decoding": constrained_decoding,
            "constrained_decoding_debug": constrained_decoding_debug,
            "allow_lm_batch": allow_lm_batch,
            "use_tiled_decode": use_tiled_decode,
            "is_format_caption": is_format_caption,
            "reference_audio": reference_audio,
            "src_audio": src_audio,
            "instruction": instruction,
            "repainting_start": repainting_start,
            "repainting_end": repainting_end,
            "audio_cover_strength": audio_cover_strength,
            "track_name": track_name,
            "track_classes": track_classes,
            "param_obj": param_obj,
            "metas": metas,
            "meta": meta,
            "metadata": metadata,
            "user_metadata": user_metadata,
            "userMetadata": userMetadata,
            "output_format": output_format,
            "bit_depth": bit_depth,
            "bitrate": bitrate,
            "normalize": normalize,
            "loudness_lufs": loudness_lufs,
            "delivery": delivery,
            **(extra or {}),
        }
        return await self.run("release_task", params, on_progress=on_progress, timeout_s=timeout_s)

    async def separate(
        self,
        audio: AudioInput,
        *,
        model: str | None = None,
        stems: Sequence[str] | None = None,
        two_stems: str | None = None,
        shifts: int | None = None,
        overlap: float | None = None,
        segment: float | None = None,
        residual: bool | None = None,
        seed: int | None = None,
        output_format: Literal["wav", "flac", "mp3", "ogg", "opus"] | Literal["auto"] | None = None,
        bit_depth: Literal[16, 24, 32] | None = None,
        bitrate: int | None = None,
        normalize: Literal["none", "peak", "loudness"] | None = None,
        loudness_lufs: float | None = None,
        delivery: Literal["auto", "inline", "bucket", "volume"] | None = None,
        on_progress: OnProgressAsync | None = None,
        timeout_s: float | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> Result:
        """Separates a song into stems (drums, bass, vocals, ...), or into one stem and the rest.

        The parameters are those of `Client.separate`.
        """
        params: dict[str, Any] = {
            "audio": audio,
            "model": model,
            "stems": stems,
            "two_stems": two_stems,
            "shifts": shifts,
            "overlap": overlap,
            "segment": segment,
            "residual": residual,
            "seed": seed,
            "output_format": output_format,
            "bit_depth": bit_depth,
            "bitrate": bitrate,
            "normalize": normalize,
            "loudness_lufs": loudness_lufs,
            "delivery": delivery,
            **(extra or {}),
        }
        return await self.run("separate", params, on_progress=on_progress, timeout_s=timeout_s)
