"""Evidence: log Z of a tilted prior and log p(x) of data, in nats, with standard errors that hold.

Every estimator takes a program, parameters and data, and gives an `estimate.Evidence`: a value, an error and the
figures by which it is judged, for every datum; what cannot be trusted says why and is NaN. Base and target are joined
by a path of densities (`path`), which particles follow (`annealing`) or replicas stand on (`replicas`); `importance`
and `bridge` need none. `pplebm.log_z` and `pplebm.log_evidence` (`estimators`) choose among them.
`information` and `discrepancy` compare a guide's aggregate with the prior, by nats and by a kernel.
"""
