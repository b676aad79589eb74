"""The locating engine: readings in, fixes out. docs/LOCATING.md has the model in formulas.

The engine, from the zone down: `locator`, `tracker`, `belief`, `hearing`, and what they use: `ground`, `space`,
`ways`, `models`, `levels`. Readers check each other in `crosscheck`, by the law of `pathloss`.
"""
