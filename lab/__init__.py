"""Research: may use every package; nothing imports it (the command table names it as strings).

drawing    drawn fundus photographs
datasets   labeled data sets: IDRiD, ADAM, one's own
evaluate   an index measured on a data set
report     HTML pages
ablation   the paper's table 3 and figure 2
audit      reference photographs ranked, to find diseased ones among them
training   the bundled trunk, trained on painted lesions
commands   `resad-indexer` draw, datasets, evaluate, ablation, audit, train
"""
