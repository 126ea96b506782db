"""Each field of a recipe is explained."""

from __future__ import annotations

import pytest

from eyas.cli.main import main
from eyas.training.field_help import attributes, sections
from eyas.training.recipe import OptimRecipe, Recipe, dotted_fields


def test_every_field_has_its_text_and_its_default_once() -> None:
    found = [field for section in sections(Recipe()) for field in section.fields]
    assert {field.name: field.default for field in found} == dotted_fields(Recipe())
    assert len(found) == len({field.name for field in found}) > 90
    assert all(len(field.text) > 5 and section.summary for section in sections(Recipe()) for field in section.fields)


def test_a_text_of_several_lines_and_one_for_two_fields() -> None:
    texts = attributes(OptimRecipe)
    assert texts["beta1"] == texts["beta2"] == "AdamW's decay rates of the running averages."
    assert attributes(type(Recipe().data))["cache"].endswith('"auto" chooses by size.')


def test_help_says_what_a_field_does(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    printed = " ".join(capsys.readouterr().out.split())
    assert "recipe: optim" in printed and "--optim.clip_norm VALUE maximum gradient norm" in printed
    assert "0 disables clipping (default: 10.0)" in printed and len(printed) > 8000
