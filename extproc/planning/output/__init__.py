"""Output of a plan for people and programs: terminal tables, report page, plots, JSON, configuration files."""
