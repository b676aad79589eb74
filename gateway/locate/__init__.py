"""Where a tag is: readings in, fixes out. docs/LOCATING.md has the model in symbols.

The engine, from the zone down: `locator`, `tracker`, `belief`, `hearing`, and what they stand on: `ground`, `space`,
`ways`, `models`, `levels`. Readers check each other in `crosscheck`, by the law of `pathloss`.
"""
