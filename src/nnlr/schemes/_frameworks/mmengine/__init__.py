"""MMEngine's ``optim_wrapper`` dicts: what each constructor of optimizers makes of one.

Data flow: ``mmengine.py`` reads the dict and names the constructor; ``paramwise.py`` is the
default one, ``by_depth.py`` mmpretrain's, ``by_name.py`` those of mmseg, mmdet and InternImage.
"""
