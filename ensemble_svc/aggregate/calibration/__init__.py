"""Corrections of how sure predictions are, fitted on held-out rows. Each is a frozen value of plain numbers."""
