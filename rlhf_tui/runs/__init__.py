"""Runs: a run is a folder and a detached process.

Every stage that needs the model (generate, reward, ppo, compare, export, demo) happens in a worker
process of its own, which writes what it does into an append-only journal and reads what it is asked
from small files. The app and the command line are readers of the same folder, so either can be
closed, killed or started again while the run goes on. Nothing here imports torch; the worker looks
up its stage by name when it runs.
"""
