"""The mathematics of mixtures: arrays and small frozen dataclasses in and out, in the order data flows.

domains, simplex_map            what there is, weights by name, and linear maps between simplices
objective, sense                what is minimised; its direction and unit, as people read them
terms, limits                   every parameter once, caps and what is reachable
question, document              one question for swarm, proposal, plan and baselines, and its stored form
methods, parts                  a method is data: sampler, regression, granularity, solver
swarm/                          which mixtures to train
runs/                           what was measured, checked and joined; its noise
laws/                           from runs to predictions
solve/                          from predictions to the mixture, with a certificate
answer/                         the proposal with its evidence
change/, reuse/                 revisions and their lineage; what an update keeps
quality, pools                  ratios of quality buckets; fully open pools as examples

Nothing here reads a file, a clock, a database or a global seed. Weights travel by domain name at the edges.
"""
