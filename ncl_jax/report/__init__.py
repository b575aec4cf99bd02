"""Values to pages: tables, plots, the page of a run and the page that compares several. Reads no directory."""
