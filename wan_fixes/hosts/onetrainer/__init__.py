"""OneTrainer as a host: an unmodified checkout, reached through import hooks. All that names its symbols is here."""
