"""Whole runs with a teacher: what they show and record, how they resume, which teachers are refused or used in part."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.models.foreign import narrow_net
from tests.training.stopping import (
    interrupt_at,
    same_weights,
)

from eyas.artifacts import layout
from eyas.artifacts.card import Card, hash_file
from eyas.artifacts.run import Run, RunConfig
from eyas.errors import UserError
from eyas.losses.distillation import Distillation
from eyas.losses.knowledge import KNOWLEDGE
from eyas.models import zoo
from eyas.models.fuse import fused
from eyas.models.weights import save_model
from eyas.training.experiment import build
from eyas.training.fit import fit, resume
from eyas.training.preflight import check_memory
from eyas.training.recipe import Recipe, evolve
from eyas.training.run_contents import run_info
from eyas.types import InputSpec

from .conftest import quiet

pytestmark = pytest.mark.usefixtures("no_curves")


def make_run(folder: Path, classes: Sequence[str], model: Any = "n", input_spec: InputSpec | None = None) -> Path:
    """Return a run of random weights that nobody trained."""
    torch.manual_seed(7)
    run = Run(folder, RunConfig(zoo.describe(model), tuple(classes), input_spec or InputSpec(64, 64)))
    folder.mkdir(parents=True)
    run.write()
    save_model(zoo.build(model, len(classes)), run.weights)
    return folder


@pytest.fixture(scope="module")
def classes(short: Recipe, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    return build(short, tmp_path_factory.mktemp("none"), console=quiet()).data.classes


@pytest.fixture(scope="module")
def teacher(classes: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of an N that knows the classes in another order, and one more."""
    return make_run(tmp_path_factory.mktemp("teachers") / "n", ("moon", *reversed(classes)))


def with_teacher(recipe: Recipe, teacher: Path, **distill: Any) -> Recipe:
    return evolve(recipe, distill={"teacher": str(teacher), **distill})


def built(recipe: Recipe, teacher: Path, folder: Path, **distill: Any) -> tuple[Distillation, str]:
    """Return the criterion of a run with this teacher, and what is said of it."""
    console = quiet()
    criterion = build(with_teacher(recipe, teacher, **distill), folder, console=console).module.criterion
    assert isinstance(criterion, Distillation)
    return criterion, console.file.getvalue()


def header(path: Path) -> list[str]:
    with path.open(newline="") as file:
        return next(csv.reader(file))


@pytest.fixture(scope="module")
def learned(short: Recipe, teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return the folder of a whole run that was taught, and what it printed."""
    console = quiet()
    recipe = evolve(with_teacher(short, teacher), trainer={"preflight": True})
    return fit(recipe, tmp_path_factory.mktemp("runs") / "taught", console=console), console.file.getvalue()


def test_its_terms_are_columns_and_stand_in_the_progress_and_the_check(learned: tuple[Path, str]) -> None:
    folder, said = learned
    terms = ["class", "iou", "dfl", *KNOWLEDGE]
    assert header(folder / layout.STEPS)[-6:] == terms
    assert set(terms) <= set(header(folder / layout.METRICS))
    line = next(line for line in said.splitlines() if line.startswith("epoch   1"))
    assert all(f"{name} " in line for name in KNOWLEDGE)
    assert "learning from" in said and "ok  loss balance: class" in said and "localisation" in said


def test_card_and_recipe_record_the_teacher_and_nothing_else_holds_it(
    learned: tuple[Path, str], teacher: Path, short: Recipe
) -> None:
    folder, _ = learned
    parent = Card.verify(folder).parents[-1]
    weights = hash_file(teacher / layout.WEIGHTS)
    assert parent == {"kind": "run", "role": "teacher", "path": str(teacher.resolve()), "sha256": weights}
    assert json.loads((folder / layout.RECIPE).read_text())["distill"]["teacher"] == str(teacher)
    facts = run_info(folder).facts
    assert facts["teacher"] == str(teacher.resolve()) and facts["teacher.sha256"] == weights and "weights" not in facts
    state = torch.load(folder / layout.CHECKPOINT, weights_only=True)["state_dict"]
    of_loss = [name for name in state if name.startswith("criterion.")]
    assert of_loss == [f"criterion.adapters.{level}.weight" for level in range(3)]
    plain = fit(evolve(short, trainer={"max_steps": 1}), folder.parent / "plain", console=quiet())
    shipped, without = ((each / layout.WEIGHTS).stat().st_size for each in (folder, plain))
    assert shipped == without


@pytest.mark.parametrize("step", ["eager", "padded"])
def test_a_stopped_run_resumes_bit_identically(
    short: Recipe, teacher: Path, learned: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    recipe = evolve(with_teacher(short, teacher), trainer={"step": step})
    whole = learned[0] if step == "eager" else fit(recipe, tmp_path / "whole", console=quiet())
    with monkeypatch.context() as patch:
        interrupt_at(patch, 6)
        folder = fit(recipe, tmp_path / "run", console=quiet())
    resume(folder, console=quiet())
    assert same_weights(folder / layout.LAST_WEIGHTS, whole / layout.LAST_WEIGHTS)
    states = [torch.load(each / layout.CHECKPOINT, weights_only=True)["state_dict"] for each in (folder, whole)]
    assert torch.equal(*(state["criterion.adapters.0.weight"] for state in states))


@pytest.mark.parametrize(("change", "told"), [("gone", "teacher is missing"), ("other", "were changed after")])
def test_a_run_whose_teacher_is_gone_or_another_does_not_resume(
    short: Recipe, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str, told: str
) -> None:
    own = Path(shutil.copytree(teacher, tmp_path / "teacher"))
    interrupt_at(monkeypatch, 2)
    folder = fit(with_teacher(short, own), tmp_path / "run", console=quiet())
    weights = own / layout.WEIGHTS
    if change == "gone":
        shutil.rmtree(own)
    else:
        save_model(zoo.build("n", 6), weights)
    with pytest.raises(UserError, match=told) as caught:
        resume(folder, console=quiet())
    assert caught.value.where == "distill.teacher" and "restore it" in caught.value.fix
    if change == "other":
        shutil.copy(teacher / layout.WEIGHTS, weights)
        monkeypatch.undo()
        resume(folder, console=quiet())


def test_learning_is_accumulated_and_timed(short: Recipe, teacher: Path, tmp_path: Path) -> None:
    recipe = evolve(with_teacher(short, teacher), optim={"accumulate": 2}, trainer={"max_steps": 3})
    folder = fit(recipe, tmp_path / "accumulated", console=quiet())
    assert header(folder / layout.STEPS)[-3:] == list(KNOWLEDGE)
    asked: list[int] = []
    experiment_recipe = evolve(with_teacher(short, teacher), trainer={"minutes": 5.0})
    with pytest.MonkeyPatch.context() as patch:
        forward = Distillation.terms_of

        def counted(*args: Any) -> Any:
            asked.append(1)
            return forward(*args)

        patch.setattr(Distillation, "terms_of", counted)
        experiment = build(experiment_recipe, tmp_path / "timed", console=quiet())
    assert len(asked) >= 2 and "budget" in experiment.callbacks  # the guess of a step's time is of taught steps


def test_two_processes_learn_from_one_teacher(short: Recipe, teacher: Path, tmp_path: Path) -> None:
    recipe = evolve(with_teacher(short, teacher), data={"batch_size": 3}, trainer={"devices": 2, "max_steps": 2})
    (tmp_path / "recipe.json").write_text(json.dumps(recipe.to_dict()))
    command = [sys.executable, "-m", "eyas", "train", "--config", str(tmp_path / "recipe.json")]
    command += ["--out", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert header(tmp_path / "run" / layout.STEPS)[-3:] == list(KNOWLEDGE)
    assert [parent.get("role") for parent in Card.verify(tmp_path / "run").parents] == [None, None, "teacher"]


def test_classes_are_mapped_by_name(short: Recipe, teacher: Path, classes: tuple[str, ...], tmp_path: Path) -> None:
    criterion, _ = built(short, teacher, tmp_path)
    assert criterion.beside[0].columns.tolist() == list(range(len(classes), 0, -1))  # type: ignore[union-attr,operator]
    written = tuple(name.upper().replace(" ", "_") for name in classes)
    same, _ = built(short, make_run(tmp_path / "same", written), tmp_path / "run")
    assert same.beside[0].columns is None


def refused(recipe: Recipe, teacher: Path, folder: Path, **distill: Any) -> UserError:
    with pytest.raises(UserError) as caught:
        build(with_teacher(recipe, teacher, **distill), folder, console=quiet())
    assert not folder.exists()
    return caught.value


def test_a_teacher_of_other_classes_is_refused_and_features_can_be_learned_from_it(
    short: Recipe, classes: tuple[str, ...], tmp_path: Path
) -> None:
    other = make_run(tmp_path / "other", (f"{classes[0]}s", *classes[1:]))
    error = refused(short, other, tmp_path / "run")
    assert f"does not know 1 of the {len(classes)} classes: '{classes[0]}' (did you mean" in error.problem
    assert error.where == "--teacher" and "--distill.responses 0 --distill.localisation 0" in error.fix
    criterion, _ = built(short, other, tmp_path / "run", responses=0.0, localisation=0.0)
    assert criterion.terms == ("class", "iou", "dfl", "features")


def test_what_is_no_teacher_is_refused(short: Recipe, teacher: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert "There are no weights at" in refused(short, tmp_path / "nothing", run).problem
    (tmp_path / "empty").mkdir()
    assert "is not a run" in refused(short, tmp_path / "empty", run).problem
    begun = Path(shutil.copytree(teacher, tmp_path / "begun"))
    (begun / layout.WEIGHTS).unlink()
    error = refused(short, begun, run)
    assert "has no model.safetensors" in error.problem and f"--resume {begun}" in error.fix
    assert "all distillation factors are 0" in refused(short, teacher, run, **dict.fromkeys(KNOWLEDGE, 0.0)).problem
    changed = Path(shutil.copytree(teacher, tmp_path / "changed"))
    Card.write(changed, "run", [layout.CONFIG, layout.WEIGHTS])
    save_model(zoo.build("n", 6), changed / layout.WEIGHTS)
    assert "was changed after it was written" in refused(short, changed, run).problem


def test_a_run_is_not_its_own_teacher(short: Recipe, teacher: Path) -> None:
    for path in (teacher, teacher / layout.WEIGHTS):
        with pytest.raises(UserError, match="can't be its own teacher"):
            build(with_teacher(short, path), teacher, console=quiet())
    with pytest.raises(UserError, match="is not empty"):
        fit(with_teacher(short, teacher), teacher, console=quiet())


@pytest.mark.parametrize("form", ["pth", "safetensors", "fused"])
def test_a_checkpoint_teaches_once_its_classes_are_named(
    short: Recipe, classes: tuple[str, ...], tmp_path: Path, form: str
) -> None:
    net = narrow_net(len(classes))
    path = tmp_path / f"teacher.{'pth' if form == 'pth' else 'safetensors'}"
    if form == "pth":
        torch.save({"net": net.state_dict()}, path)
    else:
        save_model(fused(net) if form == "fused" else net, path)
    error = refused(short, path, tmp_path / "run")
    assert "does not name its classes" in error.problem and "--distill.teacher_classes FILE" in error.fix
    names = tmp_path / "names.txt"
    names.write_text("\n".join(reversed(classes)))
    criterion, said = built(short, path, tmp_path / "run", teacher_classes=str(names))
    assert criterion.beside[0].columns.tolist() == list(range(len(classes)))[::-1]  # type: ignore[union-attr,operator]
    assert f"learning from {path}" in said
    names.write_text("\n".join(classes[1:]))
    assert f"has {len(classes)} classes" in refused(short, path, tmp_path / "run", teacher_classes=str(names)).problem


def test_other_bins_leave_localisation_out_and_say_so(short: Recipe, classes: tuple[str, ...], tmp_path: Path) -> None:
    fewer = dataclasses.replace(zoo.resolve("n"), reg_max=12)
    criterion, said = built(short, make_run(tmp_path / "fewer", classes, fewer), tmp_path / "run")
    assert criterion.terms[3:] == ("responses", "features")
    assert "distill.localisation is skipped: the teacher has 13 bins per side, the student 17" in said


def test_a_head_that_is_not_dense_teaches_its_features(
    short: Recipe, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network whose head says something else, which no kind but the features can be compared with."""
    monkeypatch.setattr("eyas.models.heads.ndfl.HeadOutput", lambda *parts: {"said": parts})
    criterion, said = built(short, teacher, tmp_path / "run")
    assert criterion.terms[3:] == ("features",)
    assert "distill.responses is skipped: the student's head does not provide" in said
    error = refused(short, teacher, tmp_path / "other", features=0.0)
    assert "Nothing can be learned" in error.problem and "--distill.features 1" in error.fix


def test_its_size_is_told_where_it_is_another_and_its_scale_is_kept(
    short: Recipe, classes: tuple[str, ...], tmp_path: Path
) -> None:
    large = make_run(tmp_path / "large", classes, input_spec=InputSpec(640, 640, scale=1.0))
    criterion, said = built(short, large, tmp_path / "run")
    assert "the teacher was trained at 640 pixels and now sees 64" in said
    assert criterion.beside[0].factor == pytest.approx(255.0)


def test_its_licence_is_told(short: Recipe, teacher: Path, tmp_path: Path) -> None:
    licensed = Path(shutil.copytree(teacher, tmp_path / "licensed"))
    Card.write(licensed, "run", [layout.CONFIG, layout.WEIGHTS], recipe={"licence": "not to be sold"})
    assert "note: not to be sold" in built(short, licensed, tmp_path / "run")[1]


def test_the_estimate_of_memory_counts_it(short: Recipe, teacher: Path, tmp_path: Path) -> None:
    experiment = build(with_teacher(short, teacher), tmp_path, console=quiet())
    batch = experiment.data.trial_batch(2, epoch=0)
    net, beside = experiment.module.net, experiment.module.criterion.beside
    alone, both = (check_memory(short, net, batch, parts).text for parts in ((), beside * 200))
    assert float(both.split()[1]) > float(alone.split()[1])
