"""Rows of a frame."""

from __future__ import annotations

import numpy as np
import pytest

from nndiag.table import MOST, Buffer, Table

ROWS = MOST // 3


def test_rows_come_back_as_they_were_put() -> None:
    buffer = Buffer()
    for step in range(2 * ROWS + 3):
        buffer.put("a", ("mean", "variance"), (step, 2 * step))
        buffer.close_row(step)

    table = Table.of(buffer.blocks())

    assert table.columns == (("mean", "a"), ("variance", "a"))
    np.testing.assert_array_equal(table.steps, np.arange(2 * ROWS + 3))
    np.testing.assert_array_equal(table.values[:, 1], 2 * np.arange(2 * ROWS + 3))


def test_values_of_the_wrong_number_do_not_reach_the_rows_before() -> None:
    buffer = Buffer()
    buffer.put("a", ("mean",), (1.0,))
    buffer.close_row(0)
    buffer.put("a", ("mean",), (1.0, 2.0))
    with pytest.raises(AssertionError, match="2 values for 1 columns"):
        buffer.close_row(1)

    assert Table.of(buffer.blocks()).values.tolist() == [[1.0]]


def test_a_numbered_group_may_grow_and_shrink() -> None:
    buffer = Buffer()
    for step, counts in enumerate(([1, 2], [3, 4, 5], [6, 7])):
        buffer.put_each("count", "label", counts)
        buffer.close_row(step)

    table = Table.of(buffer.blocks())

    assert table.columns == (("count", "label 0"), ("count", "label 1"), ("count", "label 2"))
    np.testing.assert_array_equal(table.values, [[1, 2, np.nan], [3, 4, 5], [6, 7, np.nan]])


def test_a_column_that_appears_later_is_missing_before() -> None:
    buffer = Buffer()
    buffer.put("a", ("mean",), (1.0,))
    buffer.close_row(0)
    buffer.put("a", ("mean",), (2.0,))
    buffer.put("b", ("mean",), (3.0,))
    buffer.close_row(1)

    table = Table.of(buffer.blocks())

    np.testing.assert_array_equal(table.values, [[1.0, np.nan], [2.0, 3.0]])


def test_what_is_not_put_again_is_missing() -> None:
    buffer = Buffer()
    buffer.put("a", ("mean",), (1.0,))
    buffer.put("b", ("mean",), (1.0,))
    buffer.close_row(0)
    buffer.put("a", ("mean",), (2.0,))
    buffer.close_row(5)

    table = Table.of(buffer.blocks())

    np.testing.assert_array_equal(table.values, [[1.0, 1.0], [2.0, np.nan]])
    np.testing.assert_array_equal(table.steps, [0, 5])


def test_the_row_under_way_is_a_copy() -> None:
    buffer = Buffer()
    buffer.put("a", ("mean",), (1.0,))
    pending = buffer.pending(7)
    buffer.put("a", ("mean",), (2.0,))

    table = Table.of(pending)

    assert table.steps.tolist() == [7]
    assert table.values.tolist() == [[1.0]]


def test_rows_of_one_step_become_one() -> None:
    columns = (("train", ""), ("validation", ""))
    blocks = [(columns, np.array([[3, 1.0, np.nan]])), (columns, np.array([[3, np.nan, 2.0], [4, 5.0, 6.0]]))]

    table = Table.of(blocks)

    np.testing.assert_array_equal(table.values, [[1.0, 2.0], [5.0, 6.0]])


def test_no_blocks_make_an_empty_table() -> None:
    table = Table.of([])

    assert len(table) == 0
    assert table.columns == ()
