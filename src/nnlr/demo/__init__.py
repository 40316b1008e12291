"""``nnlr demo``: the Lua package's example, trained, with what each layer did.

One network is trained twice from the same initialisation and on the same batches: with the
rates declared on its layers, and with one rate for all. Read :mod:`nnlr.demo.network` first;
the other files are the frame around it.
"""
