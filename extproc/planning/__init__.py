"""The planner: cost model, fleet simulator, traces and report that show what two pools save.

It imports only core and the readers of files and documents.
"""
