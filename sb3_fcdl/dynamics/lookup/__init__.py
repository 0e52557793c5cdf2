"""
What makes categorical parents fast. Who reads a model need not read it.

A categorical variable has as many values as it has categories, so whatever follows from one of them is computed once for a
version of the weights, and looked up in every row of every batch. The results and the gradients are those of the matrix
products, which serve everything else: continuous variables in training, corrupted inputs, and devices where they are cheap.

Layers here are bound to one version of the weights: ``layer.bind(...)`` returns a function of a batch. ``rule.py`` says when
tables are used at all.
"""
