"""Sampling a density and its log Z: annealing with nothing learned, a drift in closed form, or a network."""
