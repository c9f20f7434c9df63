"""What two pools would save: cost model, fleet simulator, traces and report. Imports core's estimator and policy only."""
