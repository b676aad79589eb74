"""The gateway of a school zone. Here stand the values that every room names; each folder is a room with one job."""
