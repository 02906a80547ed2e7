"""WAN in OneTrainer's terms. What WAN itself is, `wan_fixes.wan` says; imported only inside a OneTrainer."""
