"""Our operations against the reference implementations: ratios, measured side by side in one run.

python -m workshop.benchmarks [SUITE]...        or  make benchmark ARGS="boxes pooling"
"""
