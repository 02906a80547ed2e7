"""The places that model files come from, and reading from them whatever they do."""
