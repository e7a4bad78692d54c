"""The loop and what updates weights: optimisers, schedules, precision, shadow networks."""
