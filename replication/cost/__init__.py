"""What a run costs at paper scale: an estimate from the models' shapes, one fitted constant and stated assumptions.

`shapes` the backbones, `figures` what is assumed, `compute` FLOPs and the constant fitted on Table 11, `decoding`
tokens per second, `memory` bytes per GPU, `step_costs` one step, `schedule` many steps on N GPUs, `estimate` and
`machine` what `--plan` prints, `table11` the check against the paper's times. Nothing heavy is imported.
"""
