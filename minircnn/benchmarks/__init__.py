"""Our operations against the reference implementations: ratios, measured side by side in one run."""

NAMES = ("boxes", "pooling", "evaluation", "selective_search", "detectors", "published")
"""Of the suites: each is a module of this package with a function ``cases``."""
