"""Vocabulary and steps of a run whose text is not there."""

import pytest

from sparsejax.config import ConfigError
from sparsejax.planning.facts import facts_of
from tests.training.tiny import tiny_run


def test_bytes_and_steps_are_in_the_configuration(tmp_path):
    facts = facts_of(tiny_run(tmp_path), steps=0, vocab_size=0)
    assert (facts.steps, facts.vocab_size, facts.start_id, facts.notes) == (12, 257, 256, ())


def test_flags_come_first(tmp_path):
    facts = facts_of(tiny_run(tmp_path), steps=7, vocab_size=999)
    assert (facts.steps, facts.vocab_size) == (7, 999)


def test_a_tokenizer_that_is_elsewhere_has_the_configured_size(tmp_path):
    run = tiny_run(tmp_path, data_tokenizer="hf", data_tokenizer_path="gs://bucket/tokenizer.json", data_vocab_size=512)
    facts = facts_of(run, steps=0, vocab_size=0)
    assert facts.vocab_size == 512 and "tokenizer_path is not here" in facts.notes[0]
    assert facts_of(run, steps=0, vocab_size=600).notes == ()


def test_epochs_are_counted_from_the_budget(tmp_path):
    run = tiny_run(tmp_path, train_steps=0, train_epochs=3)  # 320 tokens in rows of 16, four rows a batch
    assert facts_of(run, steps=0, vocab_size=0).steps == 15
    whole = tiny_run(tmp_path, train_steps=0, train_epochs=3, data_unique_tokens=0)
    with pytest.raises(ConfigError, match=r"train\.epochs=3: .* give --steps"):
        facts_of(whole, steps=0, vocab_size=0)
    assert facts_of(whole, steps=5, vocab_size=0).steps == 5
