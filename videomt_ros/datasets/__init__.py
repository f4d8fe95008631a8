"""Where frames come from: synthetic scenes, files, cameras and bags."""
