"""Windows copied many at once are those that slices of one item after the other would give."""

import numpy as np
import pyarrow as pa
import pytest

from tsmjax.data import gather
from tsmjax.data.arrow import ArrowSource


def expected(source, indices, cuts, ends, past, ahead):
    """Windows by slices, one variate at a time."""
    found = []
    for number, (index, cut, end) in enumerate(zip(indices, cuts, ends, strict=True)):
        for kind, part in enumerate(source[index]):
            for variate in part:
                row = np.full(past + ahead, np.nan, np.float32)
                first, last = max(0, cut - past), min(end, cut + ahead)
                with np.errstate(over="ignore"):
                    row[past - cut + first : past - cut + last] = variate[first:last]
                found.append((row, number, kind))
    return tuple(map(np.asarray, zip(*found, strict=True)))


def write(folder, kind, seed):
    """Two files of items of one to three targets, and past and known covariates in some."""
    random = np.random.default_rng(seed)
    folder.mkdir()
    for number in range(2):
        columns = {"target": [], "past_feat_dynamic_real": [], "feat_dynamic_real": []}
        for _ in range(15):
            length = random.integers(20, 90)
            for name, least in zip(columns, (1, 0, 0), strict=True):
                shape = random.integers(least, 4), length
                columns[name].append(random.integers(0, 100, shape).astype(kind).tolist())
        leaf = pa.list_(pa.list_(pa.from_numpy_dtype(kind)))
        batch = pa.record_batch({name: pa.array(rows, leaf) for name, rows in columns.items()})
        with pa.ipc.new_stream(str(folder / f"{number}.arrow"), batch.schema) as writer:
            writer.write_batch(batch)


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int16, np.float16])
@pytest.mark.parametrize(("past", "ahead"), [(10, 5), (64, 16), (100_000, 3), (1, 100_000)])
def test_windows_are_slices(tmp_path, kind, past, ahead):
    write(tmp_path / "a", kind, seed=1)
    source, random = ArrowSource(tmp_path / "a"), np.random.default_rng(2)
    indices = random.integers(0, len(source), 25)
    lengths = source.lengths(indices)
    cuts = random.integers(1, lengths)
    ends = np.minimum(lengths - 1, cuts + random.integers(0, 20, 25))
    values, item, kinds = source.windows(indices, cuts, ends, past, ahead)
    wanted = expected(source, indices, cuts, ends, past, ahead)
    np.testing.assert_array_equal(values, wanted[0])
    np.testing.assert_array_equal(item, wanted[1])
    np.testing.assert_array_equal(kinds, wanted[2])
    assert values.dtype == np.float32 and set(kinds) == {gather.TARGET, gather.PAST, gather.FUTURE}


def test_a_number_beyond_float32_becomes_infinite_without_a_warning(recwarn):
    values = np.asarray([[1.0, 1e300, -1e300, 2.0]])
    places = gather.Places(*(np.asarray(part) for part in ([0], [4], [[1, 0, 0]], [[0, 0, 0]])))
    found = gather.windows(
        places, lambda *_: (values, values.dtype), np.asarray([3]), np.asarray([4]), 3, 1
    )
    np.testing.assert_array_equal(found.values, [[1.0, np.inf, -np.inf, 2.0]])
    assert not recwarn.list
