"""What the user sees of a run: a view model over the run database here, and views that show it."""
