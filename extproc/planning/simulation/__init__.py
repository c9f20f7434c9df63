"""Fleets simulated request by request, and the search for the smallest that meets its objective."""
