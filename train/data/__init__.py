"""From shards to batches: sample order, canvases, drawn views, batched augmentation on the device."""
