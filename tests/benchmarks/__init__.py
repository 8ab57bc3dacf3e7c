"""What the package costs, beside what others cost: `python -m tests.benchmarks [--quick]`."""
