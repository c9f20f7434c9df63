"""The planner: cost model, fleet simulator, traces and report that show what two pools save. Imports only core."""
