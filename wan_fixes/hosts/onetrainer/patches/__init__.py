"""One small module for each thing that is changed in OneTrainer; each holds a `PATCHES` tuple for the table.

Nothing here imports `modules.*`, torch or the pipeline when it is imported: only the patches themselves do, inside
their functions, when OneTrainer has imported the same.
"""
