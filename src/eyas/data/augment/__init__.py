"""What training does to pictures: planned as numbers, drawn with OpenCV."""
