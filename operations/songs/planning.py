"""What the planner does for songs before they are generated: it writes or completes their text, and audio codes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from models import Models
from models.acestep.metas import Metas
from models.acestep.planner.request import CodesRequest, LmSampling, PlannedSong, PlanRequest
from models.family import ModelHandle
from models.runtime.progress import Progress, sub_progress
from operations.songs.query import asks_for_instrumental, find_language
from worker.job import Job

if TYPE_CHECKING:
    from models.acestep.planner.engine import PlannerEngine


@dataclass(frozen=True, slots=True, kw_only=True)
class SongText:
    """The text of a song.

    Args:
        caption: describes the music.
        lyrics: empty: none.
        language: of the vocals; None: not known.
        metas: what is known besides.
        genres: what the planner wrote about them.
    """

    caption: str = ""
    lyrics: str = ""
    language: str | None = None
    metas: Metas = field(default_factory=Metas)
    genres: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A song before the planner has seen it.

    Args:
        text: what the request says.
        seeds: one for each clip of it.
        codes: audio codes of the request, which all its clips share; None: none.
    """

    text: SongText
    seeds: tuple[int, ...]
    codes: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedDraft:
    """A song that can be generated: its text, and the audio codes of each clip."""

    text: SongText
    seeds: tuple[int, ...]
    codes: tuple[tuple[int, ...] | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Planning:
    """What a planner does for every song of a request.

    Args:
        model: the planner.
        sampling: how its tokens are drawn.
        query: a short description from which it writes the whole song; None: the song has a text.
        instrumental: the song that it writes from the query has no vocals.
        use_format: it rewrites caption and lyrics.
        write_caption: its metas come with a caption, which replaces the song's.
        write_language: its metas come with the language.
        complete: it writes metas even if all are known, for their caption or language.
        write_codes: it writes audio codes, unless the request has some.
        default_duration: of a song of which neither the request nor the planner says it, in seconds.
    """

    model: ModelHandle[PlannerEngine]
    sampling: LmSampling
    query: str | None = None
    instrumental: bool = False
    use_format: bool = False
    write_caption: bool = False
    write_language: bool = False
    complete: bool = False
    write_codes: bool = False
    default_duration: float = 60.0


def without_planner(draft: Draft) -> PlannedDraft:
    """The song as the request has it."""
    return PlannedDraft(text=draft.text, seeds=draft.seeds, codes=(draft.codes,) * len(draft.seeds))


def plan_drafts(planning: Planning, drafts: Sequence[Draft], *, job: Job, models: Models) -> list[PlannedDraft]:
    """Lets the planner complete every song; reports progress to the job's current stage."""

    def run(engine: PlannerEngine) -> list[PlannedDraft]:
        return [
            _plan_draft(
                planning, draft, engine, sub_progress(job.progress, index / len(drafts), (index + 1) / len(drafts))
            )
            for index, draft in enumerate(drafts)
        ]

    return models.run(planning.model, run, observer=job)


def _plan_draft(planning: Planning, draft: Draft, engine: PlannerEngine, progress: Progress) -> PlannedDraft:
    """Text first, metas next, codes last: each needs what comes before. The request's own values are kept."""
    writes_codes = planning.write_codes and draft.codes is None
    texts = sub_progress(progress, 0.0, 0.2 if writes_codes else 1.0)
    text = _write_text(planning, draft, engine, texts)
    thought = text
    is_written = planning.query is not None or (planning.use_format and text.metas.duration is not None)
    if not is_written and (planning.complete or not _is_complete(text)):
        thought = _write_metas(planning, text, draft.seeds[0], engine, sub_progress(texts, 0.7, 1.0))
    codes: Sequence[tuple[int, ...] | None] = (draft.codes,) * len(draft.seeds)
    if writes_codes:
        duration = thought.metas.duration or planning.default_duration
        request = CodesRequest(
            caption=text.caption,  # the song's caption in the prompt, the planner's own in its thoughts
            lyrics=text.lyrics,
            song=PlannedSong(
                caption=thought.caption,
                lyrics=text.lyrics,
                metas=replace(thought.metas, duration=duration),
                language=thought.language,
            ),
            duration=duration,
            seeds=draft.seeds,
            sampling=planning.sampling,
        )
        codes = engine.generate_codes(request, progress=sub_progress(progress, 0.2, 1.0))
    return PlannedDraft(text=thought, seeds=draft.seeds, codes=tuple(codes))


def _write_text(planning: Planning, draft: Draft, engine: PlannerEngine, progress: Progress) -> SongText:
    """The song from a query, or with its caption and lyrics rewritten, if that was asked for."""
    text, seed = draft.text, draft.seeds[0]
    if planning.query is not None:
        request = build_inspire_request(
            text, planning.query, instrumental=planning.instrumental, seed=seed, sampling=planning.sampling
        )
        return merge(text, engine.plan(request, progress=sub_progress(progress, 0.0, 0.7)))
    if planning.use_format:
        request = build_format_request(text, seed=seed, sampling=planning.sampling)
        return merge(text, engine.plan(request, progress=sub_progress(progress, 0.0, 0.7)))
    return text


def _write_metas(planning: Planning, text: SongText, seed: int, engine: PlannerEngine, progress: Progress) -> SongText:
    request = PlanRequest(
        mode="metas",
        seed=seed,
        caption=text.caption,
        lyrics=text.lyrics,
        metas=text.metas,
        language=text.language,
        write_caption=planning.write_caption,
        write_language=planning.write_language,
        sampling=planning.sampling,
    )
    return merge(text, replace(engine.plan(request, progress=progress), lyrics=None))


def build_inspire_request(
    text: SongText, query: str, *, instrumental: bool, seed: int, sampling: LmSampling
) -> PlanRequest:
    """Asks for a whole song from a short description, whose words may name the language."""
    return PlanRequest(
        mode="inspire",
        seed=seed,
        caption=query,
        instrumental=instrumental or asks_for_instrumental(query),
        metas=text.metas,
        language=text.language or find_language(query),
        sampling=sampling,
    )


def build_format_request(text: SongText, *, seed: int, sampling: LmSampling) -> PlanRequest:
    """Asks for caption and lyrics to be rewritten."""
    return PlanRequest(
        mode="format",
        seed=seed,
        caption=text.caption,
        lyrics=text.lyrics,
        metas=text.metas,
        language=text.language,
        sampling=sampling,
    )


def merge(text: SongText, planned: PlannedSong) -> SongText:
    """`text` with what the planner wrote: its caption and lyrics, and every meta that was not known."""
    known, new = text.metas, planned.metas
    return SongText(
        caption=planned.caption or text.caption,
        lyrics=planned.lyrics or text.lyrics,
        language=text.language or planned.language,
        metas=Metas(
            bpm=new.bpm if known.bpm is None else known.bpm,
            key=known.key or new.key,
            time_signature=known.time_signature or new.time_signature,
            duration=new.duration if known.duration is None else known.duration,
        ),
        genres=planned.genres or text.genres,
    )


def _is_complete(text: SongText) -> bool:
    metas = text.metas
    return None not in (metas.bpm, metas.key, metas.time_signature, metas.duration)
