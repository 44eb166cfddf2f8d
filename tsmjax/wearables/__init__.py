"""Recordings of wearable sensors: windows, splits by person, and texts about them."""
