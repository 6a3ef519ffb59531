"""Tests that need the extra `hf` and torch, or the extra `lm_eval`, are collected where those are installed."""

from importlib.util import find_spec

collect_ignore = [] if find_spec("transformers") and find_spec("torch") else ["transformers_test.py"]
collect_ignore += [] if find_spec("lm_eval") else ["lm_eval_test.py"]
