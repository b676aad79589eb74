"""The gateway of a school zone. The modules here hold the types that all folders share; each folder has one job."""
