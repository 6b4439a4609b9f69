"""The measurement of the history: four detectors on the test split and at the papers' size, and their trainings."""
