"""The least amount of work that still is a measurement."""

from benchmarks.measure import Plan

TINY = Plan(
    rounds=3,
    round_s=0.001,
    tasks=(1,),
    keys=10,
    addresses=2,
    roots=(1, 2),
    footprints=(2,),
    processes=2,
    processes_s=0.01,
    fleets=(1, 2),
)
