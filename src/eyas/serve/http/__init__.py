"""REST: images in, detections out; the Open Inference Protocol over HTTP; WebSocket streams; the admin's side."""
