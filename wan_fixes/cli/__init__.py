"""The `wan` command: thin, one file per group. Importing it never imports torch."""
