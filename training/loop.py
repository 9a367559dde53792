"""The one training loop: steps, logs, samples, checkpoints, and the way back from a NaN."""

import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from torch import Tensor

from zellige.errors import OutputError, TrainingError

from ..engine.checkpoint.file import read_header, write_checkpoint
from ..engine.files.atomic import PARTIAL
from ..engine.files.pictures import write_png
from .data.scenes import Scenes
from .data.sources import Pictures
from .data.stream import stream
from .recipe import Recipe
from .state import Progress, Training, load_networks, load_state, save_state
from .systems.coco_gan.training import CocoGanTraining
from .systems.onegan.training import OneGanTraining

__all__ = ["train"]

logger = logging.getLogger(__name__)
_MOST_RECOVERIES = 5


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
    """Train a model into a folder, or go on with what is there.

    The folder receives `log.jsonl` (one object a line), `samples/STEP.png`, `state.safetensors` (everything; replaced
    every `checkpoint_every` steps) and `model.safetensors` (what `zellige.load` opens). A run that is killed and
    resumed ends with the same weights as one that was not, bit for bit on a CPU.

    Args:
        recipe: what to train, and for how many steps.
        data: what to train on, as `recipe.open_data` gives it.
        out: folder of the run; made when missing.
        resume: go on from its state file. Without it, a folder that holds a run is refused.
        start_from: another run's folder whose networks to begin with.
        seed: of weights, latents and data order.
        device: default CPU.
        workers: processes that load data; the result does not depend on them.
        details: written into the model file (name, licence, command).
    Returns:
        report: steps, seconds, steps_per_second, recoveries, device, precision, seed, model.
    Raises:
        TrainingError: nothing to resume, or a run of another model or seed; a run in the way; NaN too many times.
    """
    state, log = out / "state.safetensors", out / "log.jsonl"
    settings = recipe.model_dump(mode="json")
    if resume:
        if not state.exists():
            raise TrainingError(f"{out} holds no state to resume; start without --resume")
        _check_same(state, recipe.system, settings, seed)
    elif state.exists():
        raise TrainingError(f"{out} already holds a run; continue it with --resume or choose another --out")
    systems: dict[str, Callable[..., Training]] = {"coco-gan": CocoGanTraining, "onegan": OneGanTraining}
    training = systems[recipe.system](recipe, device or torch.device("cpu"), seed)
    progress = Progress(seed=seed)
    if resume:
        progress = load_state(state, training)
        _forget_after(log, progress.step)
    elif start_from is not None:
        load_networks(start_from / "state.safetensors", training)
    try:
        (out / "samples").mkdir(parents=True, exist_ok=True)
        _sweep(out)
    except OSError as error:
        raise OutputError(
            f"{out} cannot be made a folder for the run: {error.strerror}; choose another --out"
        ) from error
    if not resume:
        save_state(state, training, progress, settings)

    began, first = time.monotonic(), progress.step
    with _Log(log, first) as record, _bar(recipe.steps, progress.step) as advance:
        while progress.step < recipe.steps:
            progress = _run(training, recipe, data, progress, workers, record, advance, out, settings)
    seconds = time.monotonic() - began
    tensors, config = training.model()
    provenance = {"training": settings | {"seed": progress.seed, "recoveries": progress.recoveries}, **(details or {})}
    write_checkpoint(out / "model.safetensors", tensors, system=training.system, config=config, details=provenance)
    return {
        "steps": progress.step,
        "seconds": seconds,
        "steps_per_second": (progress.step - first) / max(seconds, 1e-9),
        "recoveries": progress.recoveries,
        "device": str(training.device),
        "precision": recipe.precision,
        "seed": progress.seed,
        "model": str(out / "model.safetensors"),
    }


def _run(
    training: Training,
    recipe: Recipe,
    data: Pictures | Scenes,
    progress: Progress,
    workers: int,
    record: "_Log",
    advance: Any,
    out: Path,
    settings: dict[str, Any],
) -> Progress:
    """Train until the end, or until a NaN; then everything is as at the last good progress, which is returned."""
    state = out / "state.safetensors"
    # After a NaN other data and other latents follow, or the same one would come again.
    data_seed = progress.seed + 1_000_003 * progress.recoveries
    items = recipe.items(data, data_seed)
    batches: Iterator[Any] = stream(items, first=progress.step * recipe.batch, batch=recipe.batch, workers=workers)
    sums: dict[str, Tensor] = {}
    counts: Counter[str] = Counter()  # some values come with a later phase, or in some steps alone
    began, start = time.monotonic(), progress.step
    try:
        for step in range(progress.step + 1, recipe.steps + 1):
            first, second = next(batches)
            metrics = training.step(first, second, (step - 1) / recipe.steps)
            if not bool(torch.stack(list(metrics.values())).isfinite().all()):
                return _recovered(training, recipe, state, progress, step)
            sums |= {name: sums.get(name, 0.0) + value for name, value in metrics.items()}
            counts.update(metrics.keys())
            advance(step)
            if step % recipe.log_every == 0:
                means = {name: round(float(value) / counts[name], 5) for name, value in sums.items()}
                record(step, means | {"steps_per_second": round((step - start) / (time.monotonic() - began), 3)})
                sums, counts = {}, Counter()
            if step % recipe.sample_every == 0:
                write_png(out / "samples" / f"{step:07d}.png", training.samples())
            if step % recipe.checkpoint_every == 0 or step == recipe.steps:
                reached = Progress(step, progress.recoveries, progress.seed)
                try:
                    save_state(state, training, reached, settings)
                except TrainingError:
                    return _recovered(training, recipe, state, progress, step)
                progress = reached
    except KeyboardInterrupt:
        logger.warning("stopped; go on from step %d with --resume", progress.step)
        raise
    return progress


def _recovered(training: Training, recipe: Recipe, state: Path, progress: Progress, step: int) -> Progress:
    if progress.recoveries == _MOST_RECOVERIES:
        raise TrainingError(
            f"step {step} gave values that are not finite, for the {progress.recoveries + 1}th time; {recipe.remedy}"
        )
    good = load_state(state, training)
    _forget_after(state.with_name("log.jsonl"), good.step)
    logger.warning("step %d gave values that are not finite; back to the good state of step %d", step, good.step)
    recovered = Progress(good.step, progress.recoveries + 1, good.seed)
    training.random.manual_seed(good.seed + 1_000_003 * recovered.recoveries)
    return recovered


class _Log:
    """One JSON object a line, and TensorBoard where it is installed."""

    def __init__(self, path: Path, step: int) -> None:
        self.path, self.step = path, step

    def __enter__(self) -> "_Log":
        self.file = self.path.open("a", encoding="utf-8")
        self.board: Any = None
        with suppress(ImportError):
            from torch.utils.tensorboard import SummaryWriter

            # Steps after the last checkpoint are done, and logged, again.
            self.board = SummaryWriter(str(self.path.parent), purge_step=self.step + 1)
        return self

    def __call__(self, step: int, values: dict[str, float]) -> None:
        print(json.dumps({"step": step, **values}), file=self.file, flush=True)
        if self.board is not None:
            for name, value in values.items():
                self.board.add_scalar(name, value, step)

    def __exit__(self, *_: object) -> None:
        self.file.close()
        if self.board is not None:
            self.board.close()


def _check_same(state: Path, system: str, settings: dict[str, Any], seed: int) -> None:
    """Refuse to go on with another model, whose weights may fit and yet mean something else, or with another seed."""
    header = read_header(state)
    details = header.details
    if header.system != system or "progress" not in details:
        return  # no state of this system, which is for load_state to say
    started = details["progress"].get("seed", seed)
    if started != seed:
        raise TrainingError(f"{state.parent} holds a run of seed {started}, not {seed}; go on with --seed {started}")
    for name, value in details["recipe"]["model"].items():
        now = settings["model"].get(name, value)
        if now != value:
            raise TrainingError(
                f"{state.parent} holds a run with model.{name} = {value}, not {now}; "
                "use the same settings or choose another --out"
            )


def _sweep(out: Path) -> None:
    """Remove what a process that was killed while it wrote has left behind."""
    for pattern in (PARTIAL, f"samples/{PARTIAL}"):
        for path in out.glob(pattern):
            path.unlink(missing_ok=True)


def _forget_after(log: Path, step: int) -> None:
    """Drop log lines of steps that will be done again, and a line that a crash left half-written."""
    if not log.exists():
        return
    kept = []
    for line in log.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except (ValueError, KeyError):
            continue
    log.write_text("".join(kept), encoding="utf-8")


@contextmanager
def _bar(steps: int, done: int) -> Iterator[Any]:
    """A progress bar with rate, remaining time and memory on a terminal; nothing when piped."""
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
