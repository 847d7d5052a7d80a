"""Rows of a frame."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nndiag.table import MOST, Block, Buffer, Buffers, Column, Table, sound_steps

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


def test_only_rows_with_something_in_them_are_closed() -> None:
    buffers = Buffers()
    buffers["losses"].put("", ("train",), (0.5,))
    buffers["metrics"].put("train", ("lr",), (0.1,))
    buffers.close(0)
    buffers["losses"].put("", ("train",), (0.25,))

    assert [(buffer.frame, row) for buffer, row in buffers.close(1)] == [("losses", [1, 0.25])]
    assert buffers.close(2) == []
    assert buffers.waiting == 6
    taken = {frame: Table.of(blocks).steps.tolist() for frame, blocks in buffers.take().items()}
    assert taken == {"losses": [0, 1], "metrics": [0]}
    assert buffers.waiting == 0


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


A, B = ("mean", "a"), ("mean", "b")


def block(columns: tuple[Column, ...], steps: list[int], value: float) -> Block:
    return columns, np.column_stack([steps, *[np.full(len(steps), value)] * len(columns)])


def test_where_steps_go_back_the_later_attempt_counts() -> None:
    table = Table.of([block((A,), [0, 1, 2, 5, 6], 1.0), block((A,), [3, 4], 2.0)])

    assert table.steps.tolist() == [0, 1, 2, 3, 4]
    assert table.values[:, 0].tolist() == [1.0, 1.0, 1.0, 2.0, 2.0]


def test_an_attempt_that_goes_back_twice_leaves_nothing_of_the_middle() -> None:
    table = Table.of([block((A,), [0, 1, 2], 1.0), block((A, B), [2, 3], 2.0), block((B,), [1], 3.0)])

    assert table.steps.tolist() == [0, 1]
    np.testing.assert_array_equal(table.values, [[1.0, np.nan], [1.0, 3.0]])


def test_a_step_in_three_blocks_becomes_one_row() -> None:
    table = Table.of([block((A,), [0, 4], 1.0), block((B,), [4], 2.0), block((A,), [4, 5], 3.0)])

    assert table.steps.tolist() == [0, 4, 5]
    np.testing.assert_array_equal(table.values, [[1.0, np.nan], [3.0, 2.0], [3.0, np.nan]])


@given(
    st.lists(st.tuples(st.integers(0, 8), st.integers(1, 6), st.sets(st.sampled_from("abc"), min_size=1)), max_size=6)
)
def test_a_table_is_what_writing_row_after_row_leaves(parts: list[tuple[int, int, set[str]]]) -> None:
    blocks: list[Block] = []
    wanted: dict[int, dict[Column, float]] = {}
    for number, (first, count, names) in enumerate(parts):
        columns = tuple(("mean", name) for name in sorted(names))
        blocks.append(block(columns, list(range(first, first + count)), float(number)))
        wanted = {step: row for step, row in wanted.items() if step <= first}
        for step in range(first, first + count):
            wanted[step] = wanted.get(step, {}) | dict.fromkeys(columns, float(number))

    table = Table.of(blocks)

    values = [[wanted[step].get(column, np.nan) for column in table.columns] for step in sorted(wanted)]
    assert table.steps.tolist() == sorted(wanted)
    np.testing.assert_array_equal(table.values, np.reshape(values, table.values.shape))
    for rows in (1, 2, 100):
        chunks = list(table.chunks(rows))
        assert all(len(chunk) <= rows for chunk in chunks)
        assert [step for chunk in chunks for step in chunk.steps] == table.steps.tolist()
        np.testing.assert_array_equal(
            np.concatenate([table.values[:0], *(chunk.values for chunk in chunks)]), table.values
        )
    odd = np.arange(len(table))[1::2]
    np.testing.assert_array_equal(table.take(odd).values, table.values[odd])


def test_rows_in_a_single_block_are_not_copied() -> None:
    rows = np.array([[0.0, 1.0], [1.0, 2.0]])

    table = Table.of([((A,), rows)])

    assert np.shares_memory(table.values, rows)
    assert not table.values.flags.writeable
    assert rows.flags.writeable


def test_rows_behind_one_that_does_not_begin_with_the_next_step_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    for steps in ([0, 1, 1, 5], [0, 1, 0.5], [0, 1, np.nan], [0, 1, 2**53], [0, 1, -1, 2], [0, 1, np.inf]):
        assert sound_steps(np.array(steps, float)[:, None]).tolist() == [0, 1]
    assert caplog.text.count("row 2 does not begin") == 6
