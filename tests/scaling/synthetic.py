"""Tables drawn from laws, and the folder of public tables where there is one.

SPARSEJAX_SCALING_DATA names a folder with the public tables that tables.SOURCES knows. Without it the same tests run on
tables of the same kind, drawn here from the law with a known answer.
"""

import os
from pathlib import Path

from sparsejax.scaling.fit import huber_sum
from sparsejax.scaling.rows import table_of
from sparsejax.scaling.simulate import simulated
from sparsejax.scaling.tables import read_rows

FOLDER = os.environ.get("SPARSEJAX_SCALING_DATA", "")


def drawn(law, columns=None, noise=0.0, seed=0, values=None):
    """``simulated`` with the columns first."""
    return simulated(law, noise, seed, columns, values)


def public(file, law, columns, noise, values=None):
    """The public table and no bar of its own, or a stand-in and the objective of the values it was drawn from."""
    if FOLDER:
        return table_of(read_rows(Path(FOLDER, file)), file), None
    table = drawn(law, columns, noise, values=values)
    return table, huber_sum(law, law.example if values is None else values, table, 1e-3)
