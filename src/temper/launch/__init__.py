"""Files by which a scheduler starts a run on several machines: one template each in `templates/`, filled by `job.py`.

Nothing is submitted. Every machine starts one rank a device, told by the environment which one it is, as torchrun does.
"""
