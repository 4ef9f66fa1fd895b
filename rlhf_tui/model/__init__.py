"""The language model and its adapters. Knows torch; knows nothing of projects, runs or screens."""
