"""A dataset that stays decoded in a GPU's memory, and whole batches augmented there.

Worker processes decode the images once (`filling`) and then only plan samples (`plans`, `rows`): without pixels, that
is some thousand samples a second each. The images lie in one block of the device (`layout`, `store`), and a batch is
drawn by a few operations on all its samples (`render`), as `eyas.data.augment.augmenter` draws one on the processor.
"""
