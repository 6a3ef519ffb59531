"""The runs of configs/scaling: as many and as varied as a law needs, each trunk before what starts from it."""

import itertools

import pytest

from configs.scaling import repeated
from sparsejax.cli.config_flag import load_module, load_run
from sparsejax.config import ConfigError
from sparsejax.hardware.target import CPU
from sparsejax.models.accounting import parameters
from sparsejax.planning.plan import PlannedRun, Sweep, with_trunks
from sparsejax.planning.points import read_points
from sparsejax.training.recipe import Recipe, build_recipe
from sparsejax.training.trunk import common_steps
from tests.configs.changes import CONFIGS

STUDY = CONFIGS / "scaling" / "repeated.py"


def planned(config: str, tmp_path) -> tuple[PlannedRun, ...]:
    module = load_module(CONFIGS / "scaling" / f"{config.partition(':')[0]}.py")
    name = str(CONFIGS / "scaling" / config.replace(config.partition(":")[0], f"{config.partition(':')[0]}.py"))
    sweep = Sweep(name, (), read_points(module.points()), module.SEEDS)
    return sweep.runs(tmp_path, lambda flags: load_run(name, flags))


def recipe_of(run: PlannedRun) -> Recipe:
    train, data = run.config.train, run.config.data
    steps = train.epochs * data.unique_tokens // (train.batch_size * data.sequence_length)
    return build_recipe(run.config, steps=steps, vocab_size=4096, start_id=0, target=CPU)


def test_the_study_spans_what_a_law_needs(tmp_path):
    runs = [run for size in repeated.SIZES for run in planned(f"repeated:{size}", tmp_path)]
    assert len(runs) >= 40
    first_of_each = {(run.config.model.size, run.config.topology.density): run for run in runs}
    active = []
    for run in first_of_each.values():
        recipe = recipe_of(run)
        active.append(parameters(recipe.shape, [one.counted for one in recipe.weights.values()]).active_non_embedding)
    assert max(active) >= 10 * min(active)
    assert {run.config.topology.density for run in runs} == {1.0, 0.5, 0.25, 0.125}
    epochs = {run.config.train.epochs for run in runs}
    assert min(epochs) == 1 and max(epochs) >= 16


def test_every_shorter_run_starts_from_its_trunk_where_its_rate_begins_to_fall(tmp_path):
    runs = [run for run in with_trunks(planned("repeated:small", tmp_path)) if run.config.topology.density == 0.125]
    by_workdir = {run.workdir: run for run in runs}
    for _, group in itertools.groupby(runs, lambda run: (run.config.data.unique_tokens, run.config.topology.density)):
        trunk, *shorter = group
        assert trunk.trunks == () and shorter
        long = recipe_of(trunk)
        for run in shorter:
            short = recipe_of(run)
            shared = common_steps(short, recipe_of(by_workdir[run.trunks[0]]))
            assert run.trunks[0] == trunk.workdir and shared >= 0.75 * short.steps
            # The trunk keeps the checkpoint of that very step.
            assert 0.75 * short.steps % run.config.train.keep_every == 0
            assert short.steps < long.steps


def test_the_rates_are_chosen_on_a_run_of_the_study(tmp_path):
    run = planned("repeated_lr", tmp_path)[0]
    assert run.config.model.size == "medium" and run.config.topology.density == 1.0
    assert recipe_of(run).steps == 512


def test_a_size_that_is_not_there_gets_one_line():
    with pytest.raises(ConfigError, match=r"size=tiny: name one, configs/scaling/repeated.py:<small\|medium\|large>"):
        load_run(f"{STUDY}:tiny", [])
    with pytest.raises(ConfigError, match="size=: name one"):
        load_run(str(STUDY), [])
