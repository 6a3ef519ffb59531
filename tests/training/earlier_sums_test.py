"""A run of ``gradient_sum`` continues from a checkpoint that holds sums without first gradients."""

import dataclasses

import numpy as np

from sparsejax.topology.growth import from_sums
from sparsejax.training import elastic
from sparsejax.training.checkpoint import Checkpoints
from sparsejax.training.programs import init_state
from tests.training.tiny import tiny_recipe


def test_sums_alone_stand_for_the_first_gradients(tmp_path):
    recipe = tiny_recipe(tmp_path, topology_grow="gradient_sum", topology_score_steps=2, model_layers=1)
    state, draw, said = init_state(recipe), np.random.default_rng(0), []
    sums = {name: draw.random(memory[:, :, 1].shape, np.float32) for name, memory in state.scores.items()}
    sums["mlp.down"][:] = 0  # just rewired
    with Checkpoints(tmp_path / "run", keep_last=2, keep_every=0, notice=said.append) as checkpoints:
        earlier = dataclasses.replace(state, scores={name: np.asarray(each) for name, each in sums.items()})
        checkpoints.save(earlier, recipe.run.to_dict())
        checkpoints.wait()
        restored = elastic.restore_newest(checkpoints, recipe)
        assert len(said) == 1 and said[0].startswith("checkpoint 0 holds sums of gradients alone")
        for name, memory in restored.scores.items():
            first, summed = np.asarray(memory)[:, :, 0], np.asarray(memory)[:, :, 1]
            np.testing.assert_array_equal(summed, sums[name])
            np.testing.assert_array_equal(first, sums[name] if name != "mlp.down" else np.full_like(first, -1))
        # One of today is read as it is, in silence.
        checkpoints.save(dataclasses.replace(restored, step=restored.step + 1), recipe.run.to_dict())
        checkpoints.wait()
        again = elastic.restore_newest(checkpoints, recipe)
        assert len(said) == 1 and int(again.step) == 1
        np.testing.assert_array_equal(again.scores["mlp.up"], restored.scores["mlp.up"])
    assert from_sums(np.ones(3, np.float32)).shape == (2, 3)
