"""The command line's frame: lazy verbs, help, suggestions, messages without tracebacks, exit codes."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest

import eyas
from eyas.artifacts.manifest import SuppressionPlace
from eyas.cli import main as main_module
from eyas.cli.main import VERBS, Verb, load_verb, main, split_verb, verb_parser
from eyas.errors import UserError
from eyas.types import Suppression

Fake = Callable[[Callable[[], int]], None]


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> Fake:
    """Put a verb that calls the given function in every verb's place."""

    def install(work: Callable[[], int]) -> None:
        fake = Verb("do it", ("eyas train",), lambda _: None, lambda _: work())
        monkeypatch.setattr(main_module, "load_verb", lambda _: fake)

    return install


def raising(error: BaseException) -> Callable[[], int]:

    def work() -> int:
        raise error

    return work


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["help"], ["--debug", "--help"]])
def test_the_overview_lists_every_verb(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 0
    text = capsys.readouterr().out
    for name, (_, line) in VERBS.items():
        assert f"  {name} " in text and line in text


@pytest.mark.parametrize("arguments", [["--version"], ["-V"]])
def test_version(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 0
    assert capsys.readouterr().out == f"eyas {eyas.__version__}\n"


@pytest.mark.parametrize(("name", "choices"), [
    ("detect", get_args(Suppression)), ("predict", get_args(Suppression)), ("compile", get_args(SuppressionPlace)),
])  # fmt: skip
def test_every_suppression_can_be_chosen(name: str, choices: tuple[str, ...]) -> None:
    (nms,) = (one for one in verb_parser(name, load_verb(name))._actions if "--nms" in one.option_strings)
    assert tuple(nms.choices or ()) == choices and nms.default is None


@pytest.mark.parametrize("name", VERBS)
@pytest.mark.parametrize("order", [lambda name: [name, "--help"], lambda name: ["help", name]])
def test_help_of_a_verb_has_options_and_examples(
    name: str, order: Callable[[str], list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(order(name))
    assert ended.value.code == 0
    text = capsys.readouterr().out
    known = load_verb(name)
    assert known.help.rstrip(".").lower() in " ".join(text.lower().split())
    assert known.examples and all(example.startswith(f"eyas {name} ") or example == f"eyas {name}"
                                  for example in known.examples)  # fmt: skip
    assert "examples:" in text and known.examples[0] in text and "--debug" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "Unknown command 'trian' (did you mean 'train'?)"),
        (["xyzzy"], "Unknown command 'xyzzy'."),
        (["help", "detct"], "Unknown command 'detct' (did you mean 'detect'?)"),
        (["--versoin"], "Unknown option '--versoin' (did you mean '--version'?)"),
        (["detect", "run", "a.jpg", "--confi", "1"], "unrecognized arguments: --confi 1 (did you mean '--conf'?)"),
        (["detect", "run"], "the following arguments are required: SOURCE"),
        (["detect", "run", "a.jpg", "--conf", "much"], "invalid float value: 'much'"),
    ],
)
def test_what_is_mistyped_is_told_with_the_nearest_known(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err and "Traceback" not in captured.err and not captured.out


def test_the_verb_s_exit_code_is_ours(verb: Fake) -> None:
    verb(lambda: 1)
    assert main(["train"]) == 1


@pytest.mark.parametrize("arguments", [["train"], ["--debug", "train"], ["train", "--debug"]])
def test_a_user_error_is_told_without_a_traceback_unless_asked(
    verb: Fake, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    verb(raising(UserError("It is broken.", fix="mend it")))
    assert main(arguments) == 2
    text = capsys.readouterr().err
    assert "It is broken.\n  fix:      mend it" in text
    assert ("Traceback" in text) == ("--debug" in arguments)
    assert "\033" not in text  # no terminal, no colour


def test_errors_are_red_on_a_terminal(
    verb: Fake, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    verb(raising(UserError("It is broken.")))
    main(["train"])
    assert capsys.readouterr().err == "\033[31mIt is broken.\033[0m\n"
    monkeypatch.setenv("NO_COLOR", "1")
    main(["train"])
    assert capsys.readouterr().err == "It is broken.\n"


@pytest.mark.parametrize("package", ["torch", "lightning", "hotcoco", "matplotlib.pyplot"])
def test_a_missing_extra_names_the_command_that_installs_it(
    verb: Fake, package: str, capsys: pytest.CaptureFixture[str]
) -> None:
    verb(raising(ModuleNotFoundError(f"No module named '{package}'", name=package)))
    assert main(["train"]) == 2
    text = capsys.readouterr().err
    assert f"'{package.partition('.')[0]}'" in text and 'pip install "eyas[train]"' in text


def test_a_missing_module_of_our_own_is_no_fault_of_the_user(verb: Fake) -> None:
    verb(raising(ModuleNotFoundError("No module named 'eyas.nothing'", name="eyas.nothing")))
    with pytest.raises(ModuleNotFoundError):
        main(["train"])


def test_an_interrupt(verb: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    verb(raising(KeyboardInterrupt()))
    assert main(["train"]) == 130
    assert capsys.readouterr().err == "Interrupted.\n"


def test_what_the_system_refuses_is_told_with_the_path(verb: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    verb(raising(PermissionError(errno.EACCES, "Permission denied", "/some/file")))
    assert main(["train"]) == 2
    assert "Permission denied." in (text := capsys.readouterr().err) and "/some/file" in text
    verb(raising(OSError(errno.ENOSPC, "No space left on device")))
    assert main(["train"]) == 2


def test_a_warning_is_one_line_without_a_place_in_the_code() -> None:
    code = (
        "import warnings; from eyas.cli import main as m; m.dispatch = lambda _: warnings.warn('it is late') or 0\n"
        "m.main(['train']); warnings.simplefilter('always'); warnings.warn('old', DeprecationWarning)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    first, second = done.stderr.splitlines()
    assert first == "warning: it is late"
    assert second.endswith("DeprecationWarning: old")


def test_our_own_mistakes_keep_their_traceback(verb: Fake) -> None:
    verb(raising(ValueError("a mistake of ours")))
    with pytest.raises(ValueError, match="mistake"):
        main(["train"])


def shell(command: str) -> subprocess.CompletedProcess[str]:
    """Run a shell command with `$EYAS` standing for the program."""
    environment = {**os.environ, "EYAS": f"{sys.executable} -m eyas"}
    return subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, env=environment, timeout=120, check=False
    )


def test_a_reader_that_goes_away_is_no_error() -> None:
    done = shell("$EYAS train --help | true; echo ${PIPESTATUS[0]}")
    assert done.stdout in ("0\n", "141\n") and done.stderr == ""


def test_python_m_eyas_exits_with_the_code() -> None:
    assert shell("$EYAS nonsense").returncode == 2
    assert "commands:" in shell("$EYAS").stdout


HEAVY = (
    "torch", "lightning", "matplotlib", "openvino", "onnxruntime", "hotcoco", "jsonargparse", "rich", "numpy", "cv2"
)  # fmt: skip


@pytest.mark.parametrize(
    ("code", "allowed"),
    [
        ("import eyas", set()),
        ("import eyas.cli.main", set()),
        ("from eyas.cli.main import main; main(['--help']); main(['--version'])", set()),
        ("import eyas.runtime.detect, eyas.runtime.detection_formats; import eyas; eyas.load; eyas.detect",
         {"numpy", "cv2"}),
        ("from eyas.cli.main import main\ntry: main(['detect', '--help'])\nexcept SystemExit: pass", set()),
    ],
)  # fmt: skip
def test_what_an_import_brings_with_it(code: str, allowed: set[str]) -> None:
    code += f"\nimport sys; print('LOADED', *(name for name in {HEAVY} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert set(done.stdout.splitlines()[-1].split()[1:]) <= allowed


def test_the_public_names_are_what_they_say() -> None:
    from eyas.errors import UserError as DefinedThere
    from eyas.runtime.loading import load

    assert eyas.load is load and eyas.UserError is DefinedThere
    assert set(eyas.__all__) <= set(dir(eyas))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        eyas.nothing  # noqa: B018


def test_a_verb_stays_a_function_when_its_package_is_imported(tmp_path: Path) -> None:
    import eyas.evaluation.run
    import eyas.training.recipe

    with pytest.raises(UserError):
        eyas.train(tmp_path / "nowhere", recipe="quick", out=tmp_path / "run")
    with pytest.raises(UserError):
        eyas.evaluate(tmp_path / "nowhere", tmp_path)
    assert eyas.training.recipe.Recipe and eyas.evaluation.run.evaluate_run


def test_a_verb_of_two_words_is_the_longer_one() -> None:
    assert split_verb(["bench", "serve", "x", "--seconds", "1"]) == ("bench serve", ["x", "--seconds", "1"])
    assert split_verb(["bench", "./serve"]) == ("bench", ["./serve"])
    assert split_verb(["bench"]) == ("bench", [])


@pytest.mark.parametrize(
    ("given", "policy", "spins"),
    [
        ({}, "PASSIVE", main_module._WAITING["GOMP_SPINCOUNT"]),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE", None),
        ({"OMP_WAIT_POLICY": "PASSIVE"}, "PASSIVE", None),
        ({"GOMP_SPINCOUNT": "7"}, None, "7"),
    ],
)
def test_threads_wait_as_measured_unless_the_user_says_how(
    given: dict[str, str], policy: str | None, spins: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in main_module._WAITING:
        monkeypatch.setenv(name, "")  # so that it is put back as it was
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert main(["--version"]) == 0
    assert (os.environ.get("OMP_WAIT_POLICY"), os.environ.get("GOMP_SPINCOUNT")) == (policy, spins)


def test_openmp_reads_how_its_threads_wait() -> None:
    """It is read once, when PyTorch loads it: by then it must have been set."""
    script = (
        "from eyas.cli.main import main; main(['--version']); import torch; print(torch.__config__.parallel_info())"
    )
    kept = {name: value for name, value in os.environ.items() if name not in main_module._WAITING}
    done = subprocess.run(
        [sys.executable, "-c", script], env={**kept, "OMP_DISPLAY_ENV": "VERBOSE"}, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    if "GOMP_SPINCOUNT" not in done.stderr:
        pytest.skip("PyTorch uses another OpenMP than GNU's here")
    assert f"GOMP_SPINCOUNT = '{main_module._WAITING['GOMP_SPINCOUNT']}'" in done.stderr
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in done.stderr
