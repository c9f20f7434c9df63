"""What two pools would save: cost model, fleet simulator, traces, report. Imports core only."""
