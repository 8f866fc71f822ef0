"""A training that is stopped, or killed, and goes on: to the same bits as one that was not."""

from __future__ import annotations

import json
import random
import re
import shlex
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file
from test_cli import (
    FILES,
    MODULE,
    STOPPED,
    TIMEOUT,
    Done,
    accuracy,
    environment,
    errors,
    failure,
    interrupted,
    quick,
    rewritten,
    run,
    started,
    write_folder,
)
from test_training import make_dataset

import tinygrad_mnist as tg
from tinygrad_mnist import models, nn, optim
from tinygrad_mnist.backend import use_backend
from tinygrad_mnist.training import Checkpoints, ModelFileError, Training, checkpoints
from tinygrad_mnist.utils.data import DataLoader

BACKENDS = ("numpy", "numba")


# ---- in one process


def parts(architecture: str, epochs: int, jit: bool, begin: int = 3, **options: Any) -> Training:
    """A training of 6 steps an epoch, the last of them of a smaller batch."""
    tg.manual_seed(begin)
    recipe = models.RECIPES[architecture]
    model = models.ARCHITECTURES[architecture](**recipe.arguments)
    optimizer = models.make_optimizer(options.pop("optimizer", "adam"), model, 0.01)
    train = DataLoader(make_dataset(170), 32, shuffle=True, **options)
    scheduler = None
    if recipe.one_cycle:
        scheduler = optim.lr_scheduler.OneCycleLR(optimizer, 0.01, epochs * len(train))
    return Training(
        model, optimizer, train, DataLoader(make_dataset(50, 1), 20), epochs, scheduler, jit
    )


def after(steps: int) -> Any:
    """What asks a training to stop after so many steps of this run."""
    left = iter(range(steps - 1, -1, -1))
    return lambda: next(left) == 0


def same(one: Training, two: Training) -> bool:
    """Whether two trainings have come to the same numbers, times apart."""
    epochs, others = ([replace(e, seconds=0.0) for e in each.history.epochs] for each in (one, two))
    assert epochs == others
    assert one.history.losses == two.history.losses
    states, other = (each.model.state_dict() for each in (one, two))
    return all(x.numpy().tobytes() == other[name].numpy().tobytes() for name, x in states.items())


@pytest.mark.parametrize("jit", [True, False])
@pytest.mark.parametrize("architecture", ["mlp", "cnn"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_training_goes_on_from_any_step_to_the_same_bits(
    tmp_path: Path, backend: str, architecture: str, jit: bool
) -> None:
    """Dropout, batch norm, schedule and shuffles included, through a file."""
    with use_backend(backend):
        whole = parts(architecture, 3, jit)
        whole.run()
        assert whole.finished
        for step in (1, 2, 6, 8, 17):
            first = parts(architecture, 3, jit)
            first.run(stop=after(step))
            assert first.steps == step
            tg.save(first.state_dict(), tmp_path / "x")
            second = parts(architecture, 3, jit, begin=99)
            second.load_state_dict(tg.load(tmp_path / "x"))
            second.run()
            assert same(whole, second), step


@pytest.mark.parametrize("optimizer", ["adam", pytest.param("sgd", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "options",
    [{"seed": 5}, {"num_workers": 2}, {"drop_last": True}, {"num_workers": 1, "seed": 1}],
    ids=str,
)
def test_whatever_the_loader(optimizer: str, options: dict[str, Any]) -> None:
    with use_backend("numpy"):
        whole, first, second = (
            parts("mlp", 2, True, seed, optimizer=optimizer, **options) for seed in (3, 3, 4)
        )
        tg.manual_seed(8)
        whole.run()
        tg.manual_seed(8)
        first.run(stop=after(4))
        second.load_state_dict(first.state_dict())
        second.run()
        assert same(whole, second)


def test_a_training_that_is_stopped_often_comes_to_the_same() -> None:
    with use_backend("numba"):
        whole = parts("cnn", 2, True)
        whole.run()
        state, stops = None, 0
        while True:
            part = parts("cnn", 2, True, begin=stops)
            if state is None:
                part = parts("cnn", 2, True)
            else:
                part.load_state_dict(state)
            part.run(stop=after(1))
            if part.finished:
                break
            state, stops = part.state_dict(), stops + 1
        assert stops == 12
        assert same(whole, part)


def test_the_same_training_may_go_on_after_a_stop() -> None:
    with use_backend("numpy"):
        whole, part = parts("mlp", 2, True), parts("mlp", 2, True)
        tg.manual_seed(1)
        whole.run()
        tg.manual_seed(1)
        while not part.finished:
            part.run(stop=after(5))
        assert same(whole, part)


def test_a_rehearsal_changes_nothing() -> None:
    """Weights, moments, running statistics, a schedule that ends with the step, streams."""
    with use_backend("numpy"):
        jitted, plain = (parts("cnn", 1, jit) for jit in (True, False))
        drawn = []
        for each in (jitted, plain):
            tg.manual_seed(2)
            each.run()
            drawn.append(tg.randn(3).tolist())
        assert same(jitted, plain)
        assert drawn[0] == drawn[1]
        states = [each.optimizer.state_dict() for each in (jitted, plain)]
        assert states[0]["param_groups"] == states[1]["param_groups"]


class Buffered(nn.Module):
    """A classifier with a running mean that its state dict leaves out."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(784, 10)
        self.register_buffer("seen", tg.zeros(1), persistent=False)

    def forward(self, x: tg.Tensor) -> tg.Tensor:
        if self.training:
            with tg.no_grad():
                self.seen.add_(1.0)
        return self.linear(x.flatten(1))


def test_a_rehearsal_leaves_buffers_that_no_state_has() -> None:
    model = Buffered()
    optimizer = models.make_optimizer("adam", model, 0.01)
    batches = DataLoader(make_dataset(100), 20)
    Training(model, optimizer, batches, batches, 2).run()
    assert model.seen.item() == 10


def test_a_state_of_another_training_is_refused() -> None:
    state = parts("mlp", 1, True).state_dict()
    with pytest.raises(ValueError, match="does not fit"):
        parts("cnn", 1, True).load_state_dict(state)
    for key in state:
        for bad in ({**state, key: 7}, {k: v for k, v in state.items() if k != key}):
            own = parts("mlp", 1, True)
            before = own.model.state_dict()["1.weight"].clone()
            with pytest.raises(ValueError, match="load_state_dict: "):
                own.load_state_dict(bad)
            assert (own.model.state_dict()["1.weight"] == before).all()


def test_a_state_of_other_batches_is_refused() -> None:
    first = parts("mlp", 1, True)
    first.run(stop=after(3))
    other = parts("mlp", 1, True)
    other.train.batch_size = 85
    other.run()
    with pytest.raises(
        ValueError,
        match=r"it has 2 losses after 1 epochs and 0 batches, of which an epoch here has 6",
    ):
        parts("mlp", 1, True).load_state_dict(other.state_dict())
    seeded = parts("mlp", 1, True, seed=4)
    with pytest.raises(ValueError, match="number of their generators"):
        seeded.load_state_dict(first.state_dict())


class Interrupting(nn.Module):
    """A classifier in whose call of that number somebody presses Ctrl-C."""

    def __init__(self, call: int) -> None:
        super().__init__()
        self.linear = nn.Linear(784, 10)
        self.left = [call]

    def forward(self, x: tg.Tensor) -> tg.Tensor:
        self.left[0] -= 1
        if not self.left[0]:
            raise KeyboardInterrupt
        return self.linear(x.flatten(1))


@pytest.mark.parametrize(
    ("call", "jit"), [(1, False), (2, False), (4, False), (6, False), (2, True)]
)
def test_an_interrupt_within_a_step_loses_no_batch(call: int, jit: bool) -> None:
    """5 batches and a test of one in each of two epochs; with jit, in a rehearsal."""

    def trained(call: int) -> Training:
        tg.manual_seed(0)
        model = Interrupting(call)
        optimizer = models.make_optimizer("sgd", model, 0.01)
        train = DataLoader(make_dataset(100), 20, shuffle=True)
        made = Training(model, optimizer, train, DataLoader(make_dataset(9), 9), 2, jit=jit)
        if call:
            with pytest.raises(KeyboardInterrupt):
                made.run()
        made.run()
        return made

    assert same(trained(0), trained(call))


def test_loaders_and_schedules_that_cannot_be_are_refused_at_once() -> None:
    model = models.mlp()
    optimizer = models.make_optimizer("adam", model, 0.1)
    some, none = DataLoader(make_dataset(5), 5), DataLoader(make_dataset(5), 8, drop_last=True)
    for pair in ((some, none), (none, some)):
        with pytest.raises(ValueError, match="drop_last"):
            Training(model, optimizer, *pair, 1)
    plateau = optim.lr_scheduler.ReduceLROnPlateau(optimizer)
    with pytest.raises(TypeError, match="metric"):
        Training(model, optimizer, some, some, 1, plateau)


# ---- the folder


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Checkpoints]:
    made = Checkpoints(tmp_path / "checkpoints")
    with made.reserved():
        yield made


STATE = {**dict.fromkeys(sorted(checkpoints.STATE), tg.ones(100)), "epochs": []}


def names(folder: Checkpoints) -> list[int]:
    return sorted(int(path.stem[5:]) for path in folder.folder.glob("step-*"))


def test_the_last_three_are_kept(folder: Checkpoints) -> None:
    for step in (3, 20, 100, 1_000_000_000):
        folder.save(step, {"n": step}, STATE)
    assert names(folder) == [20, 100, 1_000_000_000]
    found = folder.newest(print)
    assert found is not None
    assert found.settings == {"n": 1_000_000_000}


def test_a_new_training_replaces_the_checkpoints_of_an_older_one(folder: Checkpoints) -> None:
    for step in (10, 20, 30):
        folder.save(step, {"old": True}, STATE)
    folder.save(0, {"old": False}, STATE)
    assert names(folder) == [0]
    found = folder.newest(print)
    assert found is not None
    assert found.settings == {"old": False}


def test_a_damaged_checkpoint_is_told_and_the_one_before_taken(folder: Checkpoints) -> None:
    paths = [folder.save(step, {"n": step}, STATE) for step in (1, 2, 3)]
    paths[2].write_bytes(paths[2].read_bytes()[:-9])
    content = bytearray(paths[1].read_bytes())
    content[-50] ^= 1
    paths[1].write_bytes(content)
    said: list[str] = []
    found = folder.newest(said.append)
    assert found is not None
    assert found.settings == {"n": 1}
    assert [line.split()[0] for line in said] == [str(paths[2]), str(paths[1])]
    assert all(line.endswith("taking the one before it") for line in said)
    paths[0].write_bytes(b"")
    with pytest.raises(ModelFileError, match=r"no checkpoint in .* can be read.*without --resume"):
        folder.newest(said.append)


def test_a_file_that_is_no_checkpoint_is_passed_over(folder: Checkpoints) -> None:
    tg.save({"x": tg.ones(1)}, folder.folder / "step-5.safetensors")
    (folder.folder / "notes.txt").write_text("mine")
    folder.save(4, {"n": 4}, STATE)
    (folder.folder / "step-7.safetensors").mkdir()
    said: list[str] = []
    folder.newest(said.append)
    assert said == []  # that of a later step goes when one is saved
    assert (folder.folder / "notes.txt").exists()


def test_nobody_else_may_write_there(folder: Checkpoints) -> None:
    second = Checkpoints(folder.folder).reserved()
    with pytest.raises(OSError, match=r"another training is writing to .*--out"), second:
        pass


def test_a_folder_without_a_checkpoint_goes_again(tmp_path: Path) -> None:
    with Checkpoints(tmp_path / "checkpoints").reserved():
        pass
    assert list(tmp_path.iterdir()) == []


# ---- the command


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("data") / "digits", 600, 100)


def equal_results(one: Path, two: Path) -> None:
    """The model's bits, and the history but for the times."""
    a, b = (load_file(folder / "model.safetensors") for folder in (one, two))
    assert a.keys() == b.keys()
    assert [name for name in a if a[name].tobytes() != b[name].tobytes()] == []
    histories = [json.loads((folder / "history.json").read_text()) for folder in (one, two)]
    for history in histories:
        for epoch in history["epochs"]:
            del epoch["seconds"]
    assert histories[0] == histories[1]


def test_resume_goes_on_where_ctrl_c_stopped_it(data: Path, tmp_path: Path) -> None:
    options = (*quick(data), "--epochs", 12, "--batch-size", 10)
    accuracy(run(tmp_path, *options, "--out", "whole"))
    with started(tmp_path, *options, "--out", "part") as process:
        (line,) = interrupted(process, "epoch 2/")
    assert epoch_of(line) > 1
    # all options but the data are those it was started with
    done = run(tmp_path, "train", "--resume", "--data", data, "--out", "part")
    accuracy(done)
    assert done.stdout.startswith("resuming part/checkpoints/step-")
    assert sorted(each.name for each in (tmp_path / "part").iterdir()) == FILES
    equal_results(tmp_path / "whole", tmp_path / "part")


def epoch_of(line: str) -> int:
    """The epoch in which it was."""
    found = re.fullmatch(STOPPED, line)
    assert found, line
    return int(found[2])


def test_sigterm_stops_it_in_good_order(data: Path, tmp_path: Path) -> None:
    with started(tmp_path, *quick(data), "--epochs", 100_000, "--out", "out") as process:
        assert process.stdout is not None
        assert any(line.startswith("epoch 1/") for line in process.stdout)
        process.terminate()
        _, stderr = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 128 + signal.SIGTERM
    epoch_of(stderr.splitlines()[-1])


def test_nothing_to_resume_is_said_and_the_training_begins(data: Path, tmp_path: Path) -> None:
    done = run(tmp_path, *quick(data), "--resume", "--out", "new")
    accuracy(done)
    assert done.stdout.splitlines()[0] == ("nothing to resume in new: training from the beginning")


def test_a_finished_training_is_left_as_it_is(data: Path, tmp_path: Path) -> None:
    first = run(tmp_path, *quick(data), "--out", "out")
    out = tmp_path / "out"
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.*")}
    # without its data, even
    again = run(tmp_path, "train", "--resume", "--out", "out", "--data", "nowhere")
    assert accuracy(again) == accuracy(first)
    assert again.stdout.splitlines()[0] == "the training in out is finished: 1 of 1 epochs"
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.*")} == before


def test_a_finished_training_without_its_pictures_gets_them(data: Path, tmp_path: Path) -> None:
    first = run(tmp_path, *quick(data), "--out", "out")
    out = tmp_path / "out"
    model = (out / "model.safetensors").read_bytes()
    for picture in ("curves.png", "report.html"):
        (out / picture).unlink()
    again = run(tmp_path, "train", "--resume", "--out", "out", "--data", data)
    assert accuracy(again) == accuracy(first)
    assert sorted(each.name for each in out.iterdir()) == FILES
    assert (out / "model.safetensors").read_bytes() == model


def test_more_epochs_may_follow_where_no_schedule_counts_them(data: Path, tmp_path: Path) -> None:
    accuracy(run(tmp_path, *quick(data), "--epochs", 3, "--out", "whole"))
    accuracy(run(tmp_path, *quick(data), "--epochs", 2, "--out", "part"))
    done = run(tmp_path, *quick(data), "--epochs", 3, "--out", "part", "--resume")
    accuracy(done)
    equal_results(tmp_path / "whole", tmp_path / "part")


@pytest.fixture(scope="module")
def stopped(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CNN after one of its two epochs."""
    home = tmp_path_factory.mktemp("stopped")
    command = ("train", "--data", data, "--epochs", 2, "--out", "out", "--batch-size", 60)
    accuracy(run(home, *command))
    first, _, last = sorted((home / "out" / "checkpoints").glob("step-*"))
    first.unlink()
    last.unlink()
    return home / "out"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "mlp"], "with --model cnn, not mlp"),
        (["--epochs", 3], "with --epochs 2, not 3"),
        (["--batch-size", 32], "with --batch-size 60, not 32"),
        (["--lr", 0.5], "with --lr 0.01, not 0.5"),
        (["--optimizer", "sgd"], "with --optimizer adam, not sgd"),
        (["--seed", 4], "with --seed 0, not 4"),
        (["--dataset", "kmnist"], "with --dataset mnist, not kmnist"),
    ],
    ids=str,
)
def test_other_options_than_the_checkpoints_are_an_error(
    stopped: Path, data: Path, options: list[Any], message: str
) -> None:
    before = sorted(path.name for path in stopped.rglob("*"))
    command = ("train", "--resume", "--out", stopped, "--data", data)
    line = failure(run(stopped.parent, *command, *options))
    assert message in line
    assert "another --out" in line
    assert sorted(path.name for path in stopped.rglob("*")) == before


def test_other_images_than_the_checkpoints_are_an_error(stopped: Path, tmp_path: Path) -> None:
    other = write_folder(tmp_path / "other", 610, 10)
    line = failure(run(tmp_path, "train", "--resume", "--out", stopped, "--data", other))
    assert "600 images" in line
    assert "610 images" in line


def copied(stopped: Path, tmp_path: Path) -> tuple[Path, Path]:
    """The folder again, and its checkpoint."""
    out = tmp_path / "out"
    shutil.copytree(stopped, out)
    (file,) = (out / "checkpoints").glob("step-*")
    return out, file


def test_another_backend_goes_on_with_a_line(stopped: Path, data: Path, tmp_path: Path) -> None:
    out, _ = copied(stopped, tmp_path)
    command = ("train", "--resume", "--out", out, "--data", data, "--backend", "numba")
    done = run(tmp_path, *command)
    accuracy(done)
    assert "began with backend numpy and goes on with numba" in done.stdout.splitlines()[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"settings": "{"}, "is no checkpoint of a training"),
        ({"settings": "[]"}, "is no checkpoint of a training"),
        ({"version": "7"}, "checkpoint version '7', expected '1'"),
        ({"settings": '{"model": "resnet"}'}, "of the model 'resnet', expected one of cnn, mlp"),
        ({"format": "other"}, "is no checkpoint of a training"),
    ],
    ids=str,
)
def test_checkpoints_of_others_are_one_line(
    stopped: Path, data: Path, tmp_path: Path, change: dict[str, str], message: str
) -> None:
    out, file = copied(stopped, tmp_path)
    rewritten(file, lambda _, metadata: metadata.update(change))
    done = run(tmp_path, "train", "--resume", "--out", out, "--data", data)
    assert done.returncode == 1
    assert message in done.stdout + done.stderr
    assert len(errors(done)) == 1


def test_a_checkpoint_of_other_shapes_is_one_line(
    stopped: Path, data: Path, tmp_path: Path
) -> None:
    out, file = copied(stopped, tmp_path)
    rewritten(file, lambda arrays, _: arrays.update({"model.0.bias": np.zeros(3, np.float32)}))
    line = failure(run(tmp_path, "train", "--resume", "--out", out, "--data", data))
    assert "does not fit" in line
    assert "0.bias" in line


def test_a_checkpoint_that_was_made_up_is_one_line(
    stopped: Path, data: Path, tmp_path: Path
) -> None:
    out, file = copied(stopped, tmp_path)
    state = tg.load(file)
    with safe_open(file, framework="numpy") as opened:
        about = {k: v for k, v in opened.metadata().items() if not k.startswith("tinygrad_mnist.")}
    for change in ({"epochs": 3}, {"losses": []}, {"model": []}, {"pass": {}}, {"streams": [1]}):
        tg.save({**state, **change}, file, about)
        line = failure(run(tmp_path, "train", "--resume", "--out", out, "--data", data))
        assert file.name in line or "no checkpoint in" in line


def test_the_checkpoint_before_a_damaged_one_goes_on_to_the_same(
    data: Path, tmp_path: Path
) -> None:
    accuracy(run(tmp_path, *quick(data), "--epochs", 3, "--out", "out"))
    out = tmp_path / "out"
    shutil.copytree(out, tmp_path / "whole")
    *_, newest = sorted((out / "checkpoints").glob("step-*"))
    newest.write_bytes(newest.read_bytes()[:5000])
    done = run(tmp_path, "train", "--resume", "--data", data, "--out", "out")
    accuracy(done)
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"out/checkpoints/{newest.name} is no safetensors file")
    assert lines[0].endswith("taking the one before it")
    assert lines[1].startswith("resuming out/checkpoints/step-")
    equal_results(tmp_path / "whole", out)


def test_a_training_that_is_killed_at_once_is_the_one_to_go_on_with(
    data: Path, tmp_path: Path
) -> None:
    """Not that which used the folder before."""
    options = (*quick(data), "--seed", 5, "--lr", 0.01)
    accuracy(run(tmp_path, *options, "--out", "whole"))
    accuracy(run(tmp_path, *quick(data), "--epochs", 2, "--out", "out"))
    many = ("--epochs", 1, "--out", "out")
    with started(tmp_path, *options, *many) as process:
        assert process.stdout is not None
        assert any(line.startswith("training mlp") for line in process.stdout)
        while (tmp_path / "out" / "checkpoints" / "step-00000038.safetensors").exists():
            assert process.poll() is None
        process.kill()
    done = run(tmp_path, "train", "--resume", "--out", "out", "--data", data)
    accuracy(done)
    equal_results(tmp_path / "whole", tmp_path / "out")


def test_it_goes_on_as_it_was_started(data: Path, tmp_path: Path) -> None:
    """On its backend, without jit, if that is how it was."""
    options = (*quick(data), "--epochs", 2, "--backend", "numba", "--no-jit", "--out", "out")
    accuracy(run(tmp_path, *options))
    out = tmp_path / "out"
    *_, newest = sorted((out / "checkpoints").glob("step-*"))
    newest.unlink()
    command = ("train", "--resume", "--out", "out", "--data", data)
    done = run(tmp_path, *command, TINYGRAD_MNIST_BACKEND="auto")
    accuracy(done)
    assert done.stdout.startswith("resuming ")
    history = json.loads((out / "history.json").read_text())
    assert (history["backend"], history["jit"]) == ("numba", False)
    newest.unlink()
    other = run(tmp_path, *command, NUMBA_NUM_THREADS="1", TINYGRAD_MNIST_BACKEND="numpy")
    lines = other.stdout.splitlines()
    assert "it began with backend numba and goes on with numpy" in lines[0]
    assert "NUMBA_NUM_THREADS=1" in lines[1]
    accuracy(other)


def test_fewer_epochs_than_are_done_are_an_error(data: Path, tmp_path: Path) -> None:
    with started(tmp_path, *quick(data), "--epochs", 100_000, "--out", "out") as process:
        interrupted(process, "epoch 3/")
    command = ("train", "--resume", "--out", "out", "--data", data)
    assert "more than 2 epochs" in failure(run(tmp_path, *command, "--epochs", 2))


def test_a_model_that_is_gone_is_written_again(data: Path, tmp_path: Path) -> None:
    accuracy(run(tmp_path, *quick(data), "--out", "out"))
    out = tmp_path / "out"
    shutil.copytree(out, tmp_path / "whole")
    (out / "model.safetensors").unlink()
    accuracy(run(tmp_path, "train", "--resume", "--out", "out", "--data", data))
    equal_results(tmp_path / "whole", out)
    assert sorted(each.name for each in out.iterdir()) == FILES


def test_a_full_disk_leaves_the_old_checkpoint(data: Path, tmp_path: Path) -> None:
    """As full as one can be made here: no file may grow beyond so many KiB."""
    accuracy(run(tmp_path, *quick(data), "--epochs", 2, "--out", "out"))
    accuracy(run(tmp_path, *quick(data), "--epochs", 3, "--out", "whole"))
    before = sorted(path.name for path in (tmp_path / "out").rglob("*"))
    more = ["train", "--resume", "--epochs", 3, "--data", data, "--out", "out"]
    command = shlex.join([*MODULE, *map(str, more)])
    full = subprocess.run(
        ["bash", "-c", f"ulimit -f 500 && {command}"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert re.fullmatch(r"error: out/checkpoints/step-\d+.*: File too large", failure(full))
    assert sorted(path.name for path in (tmp_path / "out").rglob("*")) == before
    accuracy(run(tmp_path, *more))
    equal_results(tmp_path / "whole", tmp_path / "out")


def test_two_trainings_at_once_into_one_folder(data: Path, tmp_path: Path) -> None:
    with started(tmp_path, *quick(data), "--epochs", 100_000, "--out", "out") as process:
        assert process.stdout is not None
        assert any(line.startswith("epoch 1/") for line in process.stdout)
        for more in ((), ("--resume",)):
            second = run(tmp_path, *quick(data), "--out", "out", *more)
            assert "another training is writing to out" in failure(second)
        interrupted(process, "epoch")
    accuracy(run(tmp_path, *quick(data), "--out", "out"))


# ---- kill -9


def killed(home: Path, command: list[object], moments: list[float], jit: list[str]) -> Done:
    """The training ``command`` into ``out``, killed after each of ``moments``, then let be."""
    line = [*MODULE, *map(str, command), *jit, "--out", "out", "--resume"]
    for moment in moments:
        process = subprocess.Popen(
            line, cwd=home, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        timer = threading.Timer(moment, process.kill)
        timer.start()
        process.wait(TIMEOUT)
        timer.cancel()
    return run(home, *command, *jit, "--out", "out", "--resume")


@pytest.mark.parametrize(
    ("backend", "jit", "kills"),
    [
        ("numpy", [], 2),
        *(
            pytest.param(*case, 20, marks=pytest.mark.slow)
            for case in product(BACKENDS, ([], ["--no-jit"]))
        ),
    ],
)
def test_a_training_that_is_killed_goes_on_to_the_same_bits(
    tmp_path: Path, data: Path, backend: str, kills: int, jit: list[str]
) -> None:
    """At random moments: while it imports, loads, trains, tests, and writes."""
    command: list[object] = ["train", "--data", data, "--backend", backend]
    command += ["--model", "mlp", "--epochs", 12 * kills, "--batch-size", 8]
    begun = time.perf_counter()
    accuracy(run(tmp_path, *command, *jit, "--out", "whole"))
    took = time.perf_counter() - begun
    draw = random.Random(kills)
    moments = [draw.uniform(0.1, 0.3 + 1.5 * took / kills) for _ in range(kills)]
    accuracy(killed(tmp_path, command, moments, jit))
    equal_results(tmp_path / "whole", tmp_path / "out")
    left = [p.name for p in (tmp_path / "out").rglob("*") if "unfinished" in p.name]
    assert left == []
