"""Training: the reward model, then PPO. Pure maths in `objectives`; everything else gets paths, settings and a sink."""
