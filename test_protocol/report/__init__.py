"""What a reader sees: tables, charts, pages."""
