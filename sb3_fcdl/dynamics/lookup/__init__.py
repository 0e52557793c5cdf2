"""What makes categorical parents fast: layers that are computed once for each category and looked up."""
