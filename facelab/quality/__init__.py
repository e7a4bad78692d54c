"""Quality scores kept beside a data set."""
