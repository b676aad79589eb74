"""What is heard: advertisements at the readers, and frames on the mesh."""
