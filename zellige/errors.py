"""Every exception that Zellige raises on purpose. Each says what was given, what is allowed, and what to do."""

__all__ = [
    "BudgetError",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "DerivativeError",
    "DeviceError",
    "EmptyDataError",
    "ExportError",
    "LatticeError",
    "MapError",
    "MissingExtraError",
    "OutputError",
    "ResumeError",
    "ShapeError",
    "SizeError",
    "TaskError",
    "TrainingError",
    "UnknownModelError",
    "UnknownRecipeError",
    "ValuesError",
    "WorkerError",
    "ZelligeError",
]


class ZelligeError(Exception):
    """The base of all errors of this package; the command line prints its one sentence and exits with status 2."""


class ConfigError(ZelligeError):
    """A model or recipe configuration that no network can be built from."""


class LatticeError(ConfigError):
    """A lattice of patches that has no coordinates, such as one macro patch as large as the image."""


class ShapeError(ZelligeError):
    """A tensor whose rank, size, dtype or device a function does not accept."""


class DerivativeError(ZelligeError):
    """A derivative of a kernel that is for inference only."""


class ValuesError(ZelligeError):
    """Numbers that are NaN or infinite, or outside of the range that a function is made for."""


class DataError(ZelligeError):
    """Training or evaluation data that cannot be read."""


class EmptyDataError(DataError):
    """A data folder without a single readable image."""


class MissingExtraError(ZelligeError):
    """An optional package that a feature needs is not installed."""

    def __init__(self, package: str, purpose: str, extra: str) -> None:
        super().__init__(f"{purpose} needs the package {package!r}; install it with: pip install 'zellige[{extra}]'")


class CheckpointError(ZelligeError):
    """A checkpoint file that cannot be trusted or understood; subclasses name the fault."""


class UnknownModelError(ZelligeError):
    """A model name that is neither bundled nor a file."""


class UnknownRecipeError(ZelligeError):
    """A training recipe that does not exist, or a setting that it does not have."""


class DeviceError(ZelligeError):
    """A device or precision that this machine does not offer."""


class TaskError(ZelligeError):
    """A task that the given model cannot do, with the reason."""


class SizeError(ZelligeError):
    """An image size that the model cannot render; the error names the nearest sizes that it can."""


class BudgetError(ZelligeError):
    """A memory budget too small for a single patch; the error names the smallest budget that would do."""


class MapError(ZelligeError):
    """A map of a panorama, or the legend of its colours, that cannot be read or does not fit the model."""


class OutputError(ZelligeError):
    """An output path that cannot be written, or a file format that does not fit."""


class ResumeError(ZelligeError):
    """An unfinished picture that this call cannot go on with, because it was begun otherwise or is damaged."""


class WorkerError(ZelligeError):
    """A worker process that cannot start, or that ended before its work; or a number of workers that cannot be."""


class TrainingError(ZelligeError):
    """A training run that cannot start, resume or go on."""


class ExportError(ZelligeError):
    """A network that cannot be exported, or an exported file that computes something else."""
