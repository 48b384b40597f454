"""Paper scale beside its sources: what differs has a reason, what does not has none, and the page shows both."""

from pathlib import Path

from snp.experiment.recipes import RECIPES
from snp.report.deviations import markdown, settings
from snp.report.readme import rendered
from snp.runs.store import Store

PAGE = Path(__file__).parents[1] / "docs" / "paper-scale.md"


def test_a_setting_has_a_reason_just_where_it_differs_from_its_source() -> None:
    for setting in settings():
        said = f"{setting.run}, {setting.what}: {setting.published} in {setting.source}, {setting.ours} here"
        assert bool(setting.reason) == setting.differs, said
    named = [(setting.run, setting.what) for setting in settings()]
    assert len({*named}) == len(named) > 50


def test_the_numbers_that_sources_publish_are_those_of_the_recipes() -> None:
    mdetr, glip = RECIPES["paper"].mdetr, RECIPES["paper"].glip
    assert (mdetr.finetune.batch, mdetr.finetune.lr, mdetr.finetune.text_lr) == (8, 5e-5, 1e-5)
    assert (mdetr.tune["gqa"].batch, mdetr.tune["gqa"].lr) == (128, 1.4e-4)
    assert glip.pretrain.drop == glip.finetune.drop == (0.67, 0.89)
    assert mdetr.pretrain.sides == tuple(range(480, 801, 32)) and glip.pretrain.sides == (480, 560, 640, 720, 800)


def test_what_a_recipe_changes_the_tables_tell(monkeypatch) -> None:
    recipe = RECIPES["paper"]
    other = recipe.mdetr.finetune.model_copy(update={"batch": 64})
    changed = recipe.model_copy(update={"mdetr": recipe.mdetr.model_copy(update={"finetune": other})})
    monkeypatch.setitem(RECIPES, "paper", changed)
    (batch,) = (s for s in settings() if s.run == "MDETR on RefCOCO and RefCOCO+" and s.what == "batch")
    assert batch.differs and (batch.published, batch.ours) == (8, 64)
    differing, alike = markdown().split("As published:")
    row = next(line for line in differing.splitlines() if "RefCOCO+" in line and "batch" in line)
    assert [cell.strip() for cell in row.split("|")[3:6]] == ["8", ".github/refexp.md", "64"]
    assert not any("RefCOCO+" in line and "batch" in line for line in alike.splitlines())


def test_the_page_shows_the_settings_of_today() -> None:
    text = PAGE.read_text()
    assert rendered(text, Store.at("desk")) == text, "run `snp readme docs/paper-scale.md`"
