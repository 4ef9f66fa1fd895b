"""What each kind of run does: the glue between a project and the engine. Imported by name, in the worker only."""
