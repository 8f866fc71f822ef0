"""A run of ``train``: its settings, its training, and what it leaves in its folder."""

from __future__ import annotations

import json
import platform
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from tinygrad_mnist import __version__, models, training
from tinygrad_mnist.backend import current
from tinygrad_mnist.machine import calculating, versions
from tinygrad_mnist.optim import Optimizer
from tinygrad_mnist.optim.lr_scheduler import OneCycleLR
from tinygrad_mnist.random import manual_seed
from tinygrad_mnist.report import Report, plot_history, write_report
from tinygrad_mnist.training import Checkpoints, Epoch, History, ModelFileError, ModelInfo, Training
from tinygrad_mnist.training.checkpoints import Checkpoint
from tinygrad_mnist.utils.data import DataLoader, ImageDataset, datasets
from tinygrad_mnist.utils.files import remove_unfinished, write_whole

EVALUATION_BATCH = 500
MODEL, HISTORY, CURVES, REPORT = "model.safetensors", "history.json", "curves.png", "report.html"
FILES = (MODEL, HISTORY, CURVES, REPORT)
CHECKPOINTS = "checkpoints"

Settings = dict[str, Any]
# What a run that is taken up again must have in common with its checkpoint, as options.
OPTIONS = ("model", "dataset", "epochs", "batch_size", "lr", "optimizer", "seed")
# What its last digits depend on besides.
ALIKE = ("backend", "jit", "machine")


@dataclass
class Run:
    """A training and its folder."""

    folder: Path
    checkpoints: Checkpoints
    training: Training
    info: ModelInfo
    settings: Settings  # of the checkpoints: the options, and on what the bits depend besides

    def first_line(self) -> str:
        """What is trained on what."""
        s, epochs = self.settings, self.settings["epochs"]
        return (
            f"training {s['model']} on {s['dataset']}: {len(self.training.train.dataset)} images, "
            f"{epochs} epoch{'s' if epochs > 1 else ''} of {len(self.training.train)} batches, "
            f"backend {s['backend']}, seed {s['seed']}"
        )

    def go_on(self, found: Checkpoint) -> list[str]:
        """Load a checkpoint; what is to be said of that.

        ModelFileError where it is of other data or does not fit.
        """
        stored, now = found.settings, self.settings
        if stored.get("data") != now["data"]:
            raise ModelFileError(
                f"{found.path} is of a training on {stored.get('data')}, and there are "
                f"{now['data']}; give the same --data"
            )
        try:
            self.training.load_state_dict(found.state)
        except ValueError as error:
            raise ModelFileError(f"{found.path}: {error}") from error
        if self.training.steps > self.training.epochs * len(self.training.train):
            raise ModelFileError(
                f"{found.path} is of {self.training.steps} steps, which are more than "
                f"{self.training.epochs} epochs; leave --epochs out, or give more"
            )
        now["line"], now["resumed"] = stored.get("line", now["line"]), now["line"]
        return [
            *(
                f"it began with {name} {stored.get(name)} and goes on with {now[name]}: the last "
                "digits will be those of neither"
                for name in ALIKE
                if stored.get(name) != now[name]
            ),
            f"resuming {found.path}: {self.training.steps} steps are done",
        ]

    def after_epoch(self, epoch: Epoch, history: History) -> None:
        """Write everything but the pictures anew, and say how the epoch went."""
        self.write()
        self.save()  # the last, so that whoever goes on from it has the others
        print(_epoch_line(epoch, self.training.epochs), flush=True)

    def write(self) -> None:
        """Write the model and its history; pictures of what was there before go."""
        for picture in (CURVES, REPORT):
            (self.folder / picture).unlink(missing_ok=True)
        training.save_model(self.folder / MODEL, self.training.model, self.info)
        text = json.dumps(self._history(), indent=1)
        write_whole(self.folder / HISTORY, text.encode())

    def save(self) -> None:
        """Write a checkpoint of where the training stands."""
        self.checkpoints.save(self.training.steps, self.settings, self.training.state_dict())

    def stopped(self) -> str:
        """Save where the training stands; the line that says so."""
        if self.training.finished:
            return "interrupted after the last epoch; the same with --resume draws the pictures"
        self.save()
        epoch = len(self.training.history.epochs) + 1
        step = self.training.steps - (epoch - 1) * len(self.training.train)
        return f"interrupted after step {step} of epoch {epoch}; the same with --resume goes on"

    def draw(self) -> None:
        """Write the pictures, and the page that has them all."""
        history, test = self._history(), self.training.test.dataset
        found = self.training.evaluation or self.training.evaluate()
        packages = ["numpy"] if self.settings["backend"] == "numpy" else ["numpy", "numba"]
        lines = {"command line": self.settings["line"]}
        if resumed := self.settings.get("resumed"):
            lines["resumed with"] = resumed
        profiled = self.training.profile()
        report = Report(
            history=history,
            weight=next(self.training.model.parameters()).detach().numpy(),
            images=test.images.numpy()[:, 0],
            labels=test.labels,
            probabilities=found.probabilities,
            classes=datasets.class_names(self.settings["dataset"]),
            rows=profiled.rows,
            steps=profiled.steps,
            batch=profiled.images,
            about={
                **lines,
                "tinygrad_mnist": __version__,
                **versions(*packages),
                "machine": f"{self.settings['machine']}, {platform.system()}",
                "date": date.today().isoformat(),
            },
        )
        plot_history(history, self.folder / CURVES)
        write_report(self.folder / REPORT, report)

    def _history(self) -> dict[str, Any]:
        names = ("model", "dataset", "backend", "seed", "batch_size", "optimizer", "lr", "jit")
        return self.training.history.as_dict(**{name: self.settings[name] for name in names})


def prepared(
    folder: Path,
    checkpoints: Checkpoints,
    settings: Settings,
    data: str | None,
    jit: bool,
    line: str,
) -> Run:
    """A run that has not begun, on the images in the folder ``data``, else those of everywhere.

    ``line`` is the command. DataError where there are no images.
    """
    for name in FILES:
        remove_unfinished(folder, name)
    recipe = models.RECIPES[settings["model"]]
    manual_seed(settings["seed"])
    train_set, test_set = datasets.load(settings["dataset"], data)
    batches = DataLoader(train_set, settings["batch_size"], shuffle=True)
    model = models.ARCHITECTURES[settings["model"]](**recipe.arguments)
    optimizer = models.make_optimizer(settings["optimizer"], model, settings["lr"])
    epochs = settings["epochs"]
    scheduler = schedule(recipe, optimizer, settings["lr"], epochs * len(batches))
    test = DataLoader(test_set, EVALUATION_BATCH)
    made = Training(model, optimizer, batches, test, epochs, scheduler, jit)
    info = ModelInfo(
        settings["model"], recipe.arguments, settings["dataset"], train_set.mean, train_set.std
    )
    settings = {
        **settings,
        "backend": current().name,
        "jit": jit,
        "machine": calculating(),
        "data": f"{len(train_set)} images ({_checksum(train_set, test_set)})",
        "line": line,
    }
    return Run(folder, checkpoints, made, info, settings)


def chosen(given: Mapping[str, Any], found: Checkpoint | None) -> Settings:
    """A value for each of OPTIONS: as given, else as in the checkpoint, else by the recipe.

    ModelFileError where the checkpoint is of something else than what was given.
    """
    if found is None:
        model = given.get("model", "cnn")
        recipe = models.RECIPES[model]
        usual = {"model": model, "dataset": "mnist", "optimizer": "adam", "seed": 0}
        usual |= {name: getattr(recipe, name) for name in ("epochs", "batch_size", "lr")}
        return {**usual, **given}
    stored = {name: found.settings.get(name) for name in OPTIONS}
    if stored["model"] not in models.RECIPES:
        raise ModelFileError(
            f"{found.path} is of the model {stored['model']!r}, expected one of "
            f"{', '.join(models.RECIPES)}"
        )
    # How long it takes is free where no schedule depends on it.
    free = set() if models.RECIPES[stored["model"]].one_cycle else {"epochs"}
    for name, value in given.items():
        if name not in free and stored[name] != value:
            option = f"--{name.replace('_', '-')}"
            raise ModelFileError(
                f"{found.path} is of a training with {option} {stored[name]}, not {value}; "
                f"leave {option} out to go on with it, or name another --out"
            )
    return {**stored, **given}


def _checksum(*datasets: ImageDataset) -> str:
    """The CRC-32 of all images and labels."""
    found = 0
    for each in datasets:
        found = zlib.crc32(each.images.numpy().tobytes(), found)
        found = zlib.crc32(each.labels.tobytes(), found)
    return f"{found:08x}"


def is_finished(folder: Path, found: Checkpoint, settings: Settings) -> bool:
    """Whether all epochs are done, and all files are there."""
    done = len(found.state["epochs"]) >= settings["epochs"]
    return done and all((folder / name).exists() for name in FILES)


def schedule(
    recipe: models.Recipe, optimizer: Optimizer, lr: float, steps: int
) -> OneCycleLR | None:
    """The recipe's, if any."""
    return OneCycleLR(optimizer, lr, steps, pct_start=0.25) if recipe.one_cycle else None


def _epoch_line(epoch: Epoch, epochs: int) -> str:
    return (
        f"epoch {epoch.epoch}/{epochs}: "
        f"train loss {_loss(epoch.train_loss)} accuracy {epoch.train_accuracy:.2%}, "
        f"test loss {_loss(epoch.test_loss)} accuracy {epoch.test_accuracy:.2%}, "
        f"{epoch.seconds:.1f} s"
    )


def _loss(value: float) -> str:
    return f"{value:.4f}" if value < 1e6 else f"{value:.2e}"
