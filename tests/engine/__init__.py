"""What MGDS promises its modules, run on every engine at hand."""
