"""Images, videos and labels: synthetic scenes, files, cameras, bags and benchmarks."""
