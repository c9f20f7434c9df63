"""The planner, which computes what two pools would save: cost model, fleet simulator, traces, report.

Of dualpool's other packages it imports only `core`.
"""
