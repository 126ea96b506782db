"""What training does to images: planned as numbers, drawn with OpenCV."""
