"""Links of trials: what they do to packets, and to real processes."""
