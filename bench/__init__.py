"""Side-by-side measurements: systems take turns in one run, ratios are medians over runs. Benchmarks, never tests."""
