"""The renderer: analytic ray casting of primitives on their screen rectangles, batched in torch, CPU or GPU.

`pack` turns scenes into tables, `views` are the camera and the light, `fragments` casts rays, `intersect` holds the
geometry of each kind, `surfaces`, `textures`, `shade` and `sensor` make the picture, `truth` the masks, boxes and
keypoints. On the device every step is elementwise (no matrix product, no sum over a batch), so a picture does not
depend on which others are rendered with it.
"""
