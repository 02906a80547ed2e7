"""The room of `wan serve`: what is known of model files and runs, over HTTP, to be read and never changed.

Importing it imports no server: that is left to `wan_fixes.service.serving`, which says what to install.
"""
