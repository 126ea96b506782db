"""Running a detector: sessions, preprocessing, suppression, pictures and videos in, detections out. No torch here."""
