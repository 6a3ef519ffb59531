"""Tests that need the extra `hf` and torch are collected where both are installed."""

from importlib.util import find_spec

collect_ignore = [] if find_spec("transformers") and find_spec("torch") else ["transformers_test.py"]
