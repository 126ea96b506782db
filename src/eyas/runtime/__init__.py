"""Running a detector: sessions, preprocessing, suppression, images and videos in, detections out. No torch here."""
