"""From files to rows: sources, splits, bags and the transforms fitted on them."""
