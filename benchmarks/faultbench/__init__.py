"""Published faulty training programs, rebuilt in NumPy, each beside its fixed version: what does nndiag say of them?"""
