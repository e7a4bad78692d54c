"""Photos to aligned crops: landmarks, templates, records of what was done."""
