"""What differs between instances, panoptic segments and semantic classes, one object each."""
