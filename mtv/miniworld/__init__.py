"""The miniature world: a seeded generator of small 3-D scenes that knows the truth for every task of the suite.

A scene is a pure function of (seed, split, index). From it come a picture, metric depth, masks, boxes with names,
captions, keypoints, questions and camera poses, which `layouts` writes in the original on-disk layouts of the
benchmarks and as pretraining shards. Importing this package imports no torch; rendering does.

Frames: world and objects are right-handed with z up, metres (objects: x forward, y left, origin on the ground under the
middle); cameras are x right, y down, z forward, and depth means camera z. Pixel (column i, row j) has its centre at
(i + 0.5, j + 0.5).
"""
