"""How good a detector is: the COCO numbers, and a report folder that shows where it fails."""
