"""UserError says what, where, what was expected and how to mend it; suggestions name the nearest known word."""

from __future__ import annotations

import pytest

from eyas.errors import UserError, missing_extra, suggest


def test_all_parts_in_order() -> None:
    error = UserError("It is 3.", expected="1 or 2", where="x.yaml", fix="write 2")
    assert str(error) == "It is 3.\n  where:    x.yaml\n  expected: 1 or 2\n  fix:      write 2"
    assert (error.problem, error.expected, error.where, error.fix) == ("It is 3.", "1 or 2", "x.yaml", "write 2")


def test_parts_that_are_not_given_take_no_line() -> None:
    assert str(UserError("It is 3.")) == "It is 3."
    assert str(UserError("It is 3.", fix="write 2")) == "It is 3.\n  fix:      write 2"


def test_it_is_raised_like_any_error() -> None:
    with pytest.raises(UserError, match="It is 3") as caught:
        raise UserError("It is 3.")
    assert caught.value.args == ("It is 3.",)


@pytest.mark.parametrize(
    ("given", "hint"),
    [("trian", " (did you mean 'train'?)"), ("evalute", " (did you mean 'evaluate'?)"), ("xyz", ""), ("", "")],
)
def test_suggestions(given: str, hint: str) -> None:
    assert suggest(given, ["train", "evaluate", "detect"]) == hint
    assert suggest(given, []) == ""
    assert suggest(given, iter(["train", "evaluate", "detect"])) == hint


def test_a_missing_extra_names_the_command() -> None:
    assert str(missing_extra("torch", "train")).endswith('pip install "eyas[train]"')
    assert "'torch'" in str(missing_extra("torch", "train"))
