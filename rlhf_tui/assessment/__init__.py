"""Is the reward model good enough? Measures, baselines, what may be wrong with it, and a verdict in plain words."""
