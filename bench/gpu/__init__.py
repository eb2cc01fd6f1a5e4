"""What the suite does on a GPU, measured in at most eight minutes without network (`make gpu-check`).

`parts` what is measured and how long it may take, `context` what a part is given, `device` the machine, `timing`
clocks and memory, `loss` and `numerics` the mixed loss, `steps` updates and the entropy pass of whole models, `suite`
the GPU tests and the tiny Table 1, `runner` the process of each part, `judge` the targets, `report` the table.
"""
