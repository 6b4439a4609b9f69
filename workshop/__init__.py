"""How data/ was made and measured: Toy Town's painter, the pre-training, the ablations, the history and the benchmarks.

Nothing in `minircnn/` and no notebook imports it, and it is no part of the wheel: it needs the clone.
"""
