"""The training loop of all systems: steps, logs, samples, checkpoints, and the way back from a NaN."""

import logging
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from torch import Tensor

from zellige.errors import TrainingError

from ..engine.checkpoint.file import write_checkpoint
from ..engine.files.pictures import write_png
from .data.scenes import Scenes
from .data.sources import Pictures
from .data.stream import stream
from .log import Log, forget_after
from .recipe import Recipe, Training
from .run_folder import RunFolder
from .state import Progress, Saved, load_networks, load_state, pictures_of, read_saved, save_state

__all__ = ["train"]

logger = logging.getLogger(__name__)
_MOST_RECOVERIES = 5
_MOST_WORKERS = 256


@dataclass(frozen=True)
class _Run:
    """The parts of a run that stay the same while it goes on."""

    recipe: Recipe
    training: Training
    data: Pictures | Scenes
    folder: RunFolder
    workers: int

    def save(self, progress: Progress) -> None:
        save_state(self.folder.state, self.training, progress, self.data.listings)


def train(
    recipe: Recipe,
    data: Pictures | Scenes,
    out: Path,
    *,
    resume: bool = False,
    start_from: Path | None = None,
    seed: int = 0,
    device: torch.device | None = None,
    workers: int = 1,
    details: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Train a model into a folder, or go on with the run that is there.

    The folder receives `log.jsonl` (one object a line), `samples/STEP.png`, `state.safetensors` (everything; replaced
    every `checkpoint_every` steps) and `model.safetensors` (the file that `zellige.load` opens). A run that is killed
    and resumed ends with the same weights as one that is not, bit for bit on a CPU.

    Args:
        recipe: the networks to train, and the number of steps.
        data: the training data, as `recipe.open_data` gives it.
        out: folder of the run; made if it is missing.
        resume: go on from the run's state file. Otherwise a folder that holds a run is refused. If a data folder's
            pictures have changed since, a warning says how many.
        start_from: folder of another run, whose networks the run begins with.
        seed: of weights, latents and data order; 0 or more, below 2^63.
        device: default CPU.
        workers: processes that load data, 0 to 256; the result does not depend on them.
        details: written into the model file (name, licence, command).
    Returns:
        report: steps, seconds, steps_per_second, recoveries, device, precision, seed, model, and for data in files
        `pictures`: how many were found, trained on, held out and left out.
    Raises:
        TrainingError: there is nothing to resume, the state is damaged or of another model or seed, the folder holds a
            run already, the seed or the number of workers is out of bounds, or NaN came too many times.
        OutputError: the folder cannot be written, or its disk is full. The last state stays, and can be resumed.
    """
    if not 0 <= seed < 2**63:
        raise TrainingError(f"the seed must be 0 or more and below 2**63, not {seed}; use another --seed")
    if not 0 <= workers <= _MOST_WORKERS:
        raise TrainingError(f"{workers} processes cannot load data; use --workers 0 to {_MOST_WORKERS}")
    folder = RunFolder(out)
    if folder.holds_run() != resume:
        raise TrainingError(
            f"{out} holds no state to resume; start without --resume"
            if resume
            else f"{out} already holds a run; continue it with --resume or choose another --out"
        )
    if resume:
        _check_same(read_saved(folder.state, type(recipe)), recipe, seed, data)
    training = recipe.start(device or torch.device("cpu"), seed)
    run, progress = _Run(recipe, training, data, folder, workers), Progress(seed=seed)
    if resume:
        progress = load_state(folder.state, training)
    elif start_from is not None:
        load_networks(RunFolder(start_from).state, training)
    with folder.prepared():
        if resume:
            forget_after(folder, progress.step)
        else:
            run.save(progress)
        return _finished(run, progress, details or {})


def _finished(run: _Run, progress: Progress, details: dict[str, Any]) -> dict[str, Any]:
    """Train until the end and write the model; the report."""
    recipe, training, folder = run.recipe, run.training, run.folder
    began, first = time.monotonic(), progress.step
    with Log(folder, first) as record, _bar(recipe.steps, progress.step) as advance:
        while progress.step < recipe.steps:
            progress = _advanced(run, progress, record, advance)
    seconds = time.monotonic() - began
    counts = {part: listing.counts() for part, listing in run.data.listings.items()}
    pictures = {"pictures": counts} if counts else {}
    lived = {"seed": progress.seed, "recoveries": progress.recoveries}
    tensors, config = training.model()
    provenance = {"training": recipe.model_dump(mode="json") | lived} | pictures | details
    write_checkpoint(folder.model, tensors, system=training.system, config=config, details=provenance)
    return {
        "steps": progress.step,
        "seconds": seconds,
        "steps_per_second": (progress.step - first) / max(seconds, 1e-9),
        "device": str(training.device),
        "precision": recipe.precision,
        "model": str(folder.model),
    } | lived | pictures  # fmt: skip


def _advanced(run: _Run, progress: Progress, record: Log, advance: Any) -> Progress:
    """Train until the end, or until a NaN, after which the last good state is loaded. Return the progress reached."""
    recipe, training = run.recipe, run.training
    # After a NaN the run takes other data and latents, because with the same ones the NaN would come again.
    items = recipe.items(run.data, progress.seed + 1_000_003 * progress.recoveries)
    batches = stream(items, first=progress.step * recipe.batch, batch=recipe.batch, workers=run.workers)
    sums: dict[str, Tensor] = {}
    counts: Counter[str] = Counter()  # some values come in a later phase, or in some steps only
    began, start = time.monotonic(), progress.step
    try:
        for step in range(progress.step + 1, recipe.steps + 1):
            metrics = training.step(next(batches), (step - 1) / recipe.steps)
            if not bool(torch.stack(list(metrics.values())).isfinite().all()):
                return _recovered(run, progress, step, record)
            # Sums are in double precision, in which they cannot overflow if the values are finite.
            sums |= {name: sums.get(name, 0.0) + value.double() for name, value in metrics.items()}
            counts.update(metrics.keys())
            advance(step)
            if step % recipe.log_every == 0:
                means = {name: round(float(value) / counts[name], 5) for name, value in sums.items()}
                record(step, means | {"steps_per_second": round((step - start) / (time.monotonic() - began), 3)})
                sums, counts = {}, Counter()
            if step % recipe.sample_every == 0:
                write_png(run.folder.sheet(step), training.samples())
            if step % recipe.checkpoint_every == 0 or step == recipe.steps:
                reached = progress.model_copy(update={"step": step})
                try:
                    run.save(reached)
                except TrainingError:
                    return _recovered(run, progress, step, record)
                progress = reached
    except KeyboardInterrupt:
        logger.warning("stopped; go on from step %d with --resume", progress.step)
        raise
    return progress


def _recovered(run: _Run, progress: Progress, step: int, record: Log) -> Progress:
    if progress.recoveries == _MOST_RECOVERIES:
        raise TrainingError(
            f"step {step} gave values that are not finite, for the {progress.recoveries + 1}th time; "
            f"{run.recipe.remedy}"
        )
    good = load_state(run.folder.state, run.training)
    record.back_to(good.step)
    logger.warning("step %d gave values that are not finite; back to the good state of step %d", step, good.step)
    recovered = good.model_copy(update={"recoveries": progress.recoveries + 1})
    run.training.random.manual_seed(good.seed + 1_000_003 * recovered.recoveries)
    return recovered


def _check_same(saved: Saved, recipe: Recipe, seed: int, data: Pictures | Scenes) -> None:
    """Refuse to go on with another seed, or with another model, whose weights might fit but would mean something else.

    Pictures may have changed; a warning says how many.
    """
    out, began = saved.header.path.parent, saved.progress.seed
    if began != seed:
        raise TrainingError(f"{out} holds a run of seed {began}, not {seed}; go on with --seed {began}")
    settings = recipe.model_dump(mode="json")["model"]
    for name, value in saved.recipe.model_dump(mode="json")["model"].items():
        if settings[name] != value:
            raise TrainingError(
                f"{out} holds a run with model.{name} = {value}, not {settings[name]}; "
                "use the same settings or choose another --out"
            )
    marks = pictures_of(saved.header)
    for part, listing in data.listings.items():
        added, gone = listing.changes(marks.get(part, []))
        if part in marks and (added or gone):
            logger.warning(
                "the %s of %s are not those that the run was learning from: %d were added or changed, %d are gone; no "
                "picture changes sides between training and evaluation, but pictures come in another order from here",
                part, recipe.data, added, gone,
            )  # fmt: skip
    if saved.recipe.data != recipe.data:
        logger.warning("the run was learning from %s and goes on with %s", saved.recipe.data, recipe.data)


@contextmanager
def _bar(steps: int, done: int) -> Iterator[Any]:
    """Show a progress bar with rate, remaining time and memory on a terminal, and nothing if output is piped."""
    console = Console(stderr=True)
    columns = (
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=console, disable=not console.is_terminal) as bar:
        task, began = bar.add_task("training", total=steps, completed=done, rate=""), time.monotonic()

        def advance(step: int) -> None:
            rate = (step - done) / max(time.monotonic() - began, 1e-9)
            bar.update(task, completed=step, rate=f"{rate:.2f} steps/s")

        yield advance
