"""The histogram keeps what HDR's promises: three digits over the whole range, and percentiles by rank."""

from random import Random

from stress.report.histogram import MAX_US, Histogram


def of(*values: int) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    return histogram


def test_small_values_are_kept_exactly() -> None:
    assert of(*range(1, 1_001)).percentiles(0, 0.1, 50, 90, 99, 99.9, 100) == [1, 1, 500, 900, 990, 999, 1_000]


def test_no_value_is_off_by_more_than_a_thousandth() -> None:
    chance = Random(5)
    for value in [
        1,
        2_047,
        2_048,
        4_095,
        4_096,
        MAX_US - 1,
        MAX_US,
        *(chance.randrange(1, MAX_US) for _ in range(500)),
    ]:
        (seen,) = of(value, MAX_US).percentiles(50)
        assert value <= seen <= value * 1.001


def test_percentiles_are_those_of_the_sorted_values() -> None:
    chance = Random(6)
    values = sorted(int(chance.lognormvariate(8, 2)) + 1 for _ in range(10_000))
    wanted = [10.0, 50.0, 75.0, 99.0, 99.9, 99.99]
    exact = [values[round(percentile * 100) - 1] for percentile in wanted]
    seen = of(*values).percentiles(*wanted)
    assert all(one <= other <= one * 1.001 for one, other in zip(exact, seen, strict=True))


def test_what_is_out_of_range_counts_as_the_nearest_in_it() -> None:
    histogram = of(0, -5, MAX_US * 3)
    assert (histogram.count, histogram.max_us) == (3, MAX_US)
    assert histogram.percentiles(50, 100) == [1, MAX_US]


def test_the_curve_rises_to_the_maximum_and_tells_no_more_than_was_counted() -> None:
    curve = of(*range(1, 1_001)).curve()
    percentiles, values = zip(*curve, strict=True)
    assert (curve[0], curve[-1]) == ((0.0, 1), (100.0, 1_000))
    assert list(percentiles) == sorted(set(percentiles))
    assert list(values) == sorted(values)
    # Of a thousand values the last percentile below 100 that any of them can stand for.
    assert 99.8 < percentiles[-2] <= 99.9
    assert of().curve() == []
    assert of(7).curve() == [(0.0, 7), (100.0, 7)]
