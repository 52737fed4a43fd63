"""The made world that the toy is trained in; only scripts, tests and benchmarks know of it."""
