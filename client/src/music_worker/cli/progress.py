"""Shows the progress of a job on the terminal: a spinner while it is queued, then a bar with stage and time left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from music_worker.jobs import JobState, Progress

STAGE_WIDTH = 40


@contextmanager
def show_progress(*, visible: bool) -> Iterator[Callable[[Progress], None] | None]:
    """Yields the callable that takes each `Progress`; None if nothing is to be shown."""
    if not visible:
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, SpinnerColumn, TaskProgressColumn, TextColumn
    from rich.progress import Progress as Bar

    columns = (
        SpinnerColumn(),
        TextColumn("{task.fields[stage]}", markup=False),
        BarColumn(bar_width=28),
        TaskProgressColumn(),
        TextColumn("{task.fields[time]}", style="cyan", markup=False),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None, stage="Sending", time="")

        def update(progress: Progress) -> None:
            if progress.state.is_final:
                return
            share = progress.percent
            bar.update(
                task,
                total=None if share is None else 100.0,
                completed=share or 0.0,
                stage=describe_stage(progress),
                time=describe_time(progress),
            )

        yield update


def describe_stage(progress: Progress) -> str:
    """What the job is doing, for people."""
    if progress.state is JobState.IN_QUEUE:
        return "Queued"
    if progress.state is not JobState.IN_PROGRESS:
        return progress.state.value.capitalize().replace("_", " ")
    stage = progress.stage[:STAGE_WIDTH].replace("_", " ")
    return stage[:1].upper() + stage[1:] if stage else "Running"


def describe_time(progress: Progress) -> str:
    """The time left, or the time since the wait began."""
    if progress.state is JobState.IN_PROGRESS and progress.remaining_s is not None:
        return f"{format_seconds(progress.remaining_s)} left"
    return format_seconds(progress.elapsed_s)


def format_seconds(seconds: float) -> str:
    """`42 s`, `3:05`, `1:02:03`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
