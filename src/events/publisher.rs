//! The publisher core: takes batches from the data cores and writes them out. It never slows a data core.
