"""What `papers` and `budget` train on: the shares of a task, the folder that the demo reads them from, and the bundle."""

from pathlib import Path

from benchmarks.options import BenchmarkError, Options
from benchmarks.papers_rows import Method, Task
from benchmarks.results import Row
from export.bundle import BuildSpec
from hub.datasets import DatasetError, Federation, split


def lacking(task: Task, options: Options) -> str:
    """Why a task cannot be measured here; empty where it can."""
    if task.source == "fashion" and not options.fashion.is_dir():
        return f"there is no folder {options.fashion}: install the Debian package dataset-fashion-mnist, or name another with --fashion"
    if task.source == "data" and options.data is None:
        return "its data are not installed by anything: give the folder of the originals with --data (benchmarks/sources.py says what is looked for)"
    return ""


def shares(task: Task, seed: int, options: Options) -> tuple[Federation, Path | None]:
    """The shares the demo will make too, and the folder it is to read them from.

    Raises:
        BenchmarkError: the data are missing or damaged.
    """
    folder = {"": None, "fashion": options.fashion, "data": None}[task.source]
    if task.source == "data":
        folder = _one_folder(options)
    try:
        return split(task.dataset, task.devices, task.windows, seed, folder), folder
    except DatasetError as error:
        raise BenchmarkError(str(error)) from error


def spec(task: Task, federation: Federation, method: Method, seed: int) -> BuildSpec:
    """The bundle that a method's devices need."""
    objective, optimizer = method.built
    arguments = {"classes": federation.classes, **task.arguments}
    return BuildSpec(task.model, method.cut, objective, optimizer, arguments, federation.shape, seed=seed)


def facts(task: Task, federation: Federation) -> Row:
    """What a row says of its task and data; training and test samples are the least and the most a device has."""
    dealt = federation.values()
    return {
        "task": task.name,
        "provenance": federation.provenance,
        "devices": task.devices,
        "rounds": task.rounds,
        "classes": federation.classes,
        "train": [min(len(d.y_train) for d in dealt), max(len(d.y_train) for d in dealt)],
        "test": [min(len(d.y_test) for d in dealt), max(len(d.y_test) for d in dealt)],
    }


def _one_folder(options: Options) -> Path:
    """A folder with links to all that is in --data, and to Fashion-MNIST."""
    folder = options.folder / "data"
    if not folder.exists() and options.data:
        folder.mkdir()
        for path in options.data.iterdir():
            (folder / path.name).symlink_to(path.resolve())
        if not (folder / "fashion-mnist").exists():
            (folder / "fashion-mnist").symlink_to(options.fashion.resolve())
    return folder
