"""Output of the plan for people and programs: terminal tables, the report page, plots, JSON, files to apply."""
