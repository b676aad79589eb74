"""The simulated radio: advertisements that readers hear, and frames on the mesh."""
