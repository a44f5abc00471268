"""Side-by-side benchmarks: our broker and others, each on one core, in one run. See README.md."""
