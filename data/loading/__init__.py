"""Batches: samplers, keyed random numbers, reading ahead, what is done with corrupt images."""
