"""Our operations against the reference implementations: ratios, measured side by side in one run."""
