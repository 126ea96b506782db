"""What watches a run: progress, tables, pictures, saved states, reasons to stop."""
