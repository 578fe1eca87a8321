"""How fast ProntoDB is beside what people would pick instead, in one run; see `ops/benchmarks.md`."""
