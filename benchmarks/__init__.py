"""What nndiag costs and what it finds, measured by programs that anyone can rerun."""
