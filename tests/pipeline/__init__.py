"""What the validated modules promise, on whichever engine the pipeline runs."""
