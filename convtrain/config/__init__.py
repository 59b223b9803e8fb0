"""The configuration: typed, bounded, and checked before anything heavy is imported."""
