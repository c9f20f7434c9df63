"""The plan for people and programs: terminal tables, the report page, plots, JSON, one sentence."""
